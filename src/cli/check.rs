//! `check`: every mistake of the policy, and what is legal and perhaps not meant.

use std::path::Path;

use crate::daemon::{Failure, startup};
use crate::net::secrets;

use super::Exit;

/// Mistakes end it with 78; warnings end it well.
pub(super) fn check(path: &Path) -> Result<Exit, Failure> {
    let policy = startup::policy(path)?;
    let mut warnings = policy.warnings.clone();
    // Only a warning: `check` may well be run by somebody who must not read them.
    for used in policy.secret_refs() {
        if let Err(fault) = secrets::read(&used.secret) {
            warnings.push(format!("{}: {}: {}", used.at, used.key, fault.why()));
        }
    }
    for warning in &warnings {
        eprintln!("warning: {warning}");
    }
    let counted = |count: usize, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
    let (services, warnings) = (counted(policy.services.len(), "service"), counted(warnings.len(), "warning"));
    println!("policy {}: {services}, no mistakes, {warnings}", path.display());
    Ok(Exit::Done)
}
