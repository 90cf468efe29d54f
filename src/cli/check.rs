//! `check`: every mistake of the policy, and what is legal and perhaps not meant.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use crate::daemon::connect::Connector;
use crate::daemon::{Failure, startup};
use crate::model::Reason;
use crate::net::secrets;
use crate::policy::Policy;
use crate::ports::{Connect, Fault, Forgetful};

use super::Exit;

/// Mistakes end it with 78; warnings end it well.
pub(super) fn check(path: &Path) -> Result<Exit, Failure> {
    let policy = Arc::new(startup::policy(path)?);
    let mut warnings = policy.warnings.clone();
    // Only a warning: `check` may well be run by somebody who must not read them.
    for used in policy.secret_refs() {
        if let Err(fault) = secrets::read(&used.secret) {
            warnings.push(format!("{}: {}: {}", used.at, used.key, fault.why()));
        }
    }
    warnings.extend(unconnectable(&policy));
    for warning in &warnings {
        eprintln!("warning: {warning}");
    }
    let counted = |count: usize, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
    let (services, warnings) = (counted(policy.services.len(), "service"), counted(warnings.len(), "warning"));
    println!("policy {}: {services}, no mistakes, {warnings}", path.display());
    Ok(Exit::Done)
}

/// What keeps a target from being reached before anything is sent: certificates and keys that cannot be used.
fn unconnectable(policy: &Arc<Policy>) -> BTreeSet<String> {
    let connector = Connector::new(policy.clone(), Arc::new(Forgetful));
    let specs = policy.services.iter().flat_map(|service| &service.targets);
    let faults = specs.filter_map(|spec| {
        let system = spec.system.as_ref().map_or_else(|| spec.name.to_string(), |at| format!("[{at}]"));
        match connector.target(spec) {
            // A secret that cannot be read is told already, with its place in the file.
            Ok(_) | Err(Fault::Refused { reason: Reason::SecretNotHeld, .. }) => None,
            Err(fault) => Some(format!("{system}: {}", fault.why())),
        }
    });
    faults.collect()
}
