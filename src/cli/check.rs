//! `check`: every mistake of the policy, and what is legal and perhaps not meant.

use std::path::Path;

use crate::daemon::{Failure, startup};
use crate::net::secrets;

use super::Exit;

/// Mistakes end it with 78; warnings end it well.
pub(super) fn check(path: &Path) -> Result<Exit, Failure> {
    let policy = startup::policy(path)?;
    for warning in &policy.warnings {
        eprintln!("warning: {warning}");
    }
    // Only a warning: `check` may well be run by somebody who must not read them.
    for used in policy.secret_refs() {
        if let Err(fault) = secrets::read(&used.secret) {
            eprintln!("warning: {}: {}: {}", used.at, used.key, fault.why());
        }
    }
    let count = policy.services.len();
    println!("policy {}: {count} {}", path.display(), if count == 1 { "service" } else { "services" });
    Ok(Exit::Done)
}
