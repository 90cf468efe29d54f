//! How everything would stand, from histories alone: what `status` and `plan` show while no daemon runs. Runs and writes nothing.

use std::collections::BTreeMap;

use crate::model::{Instant, ServiceName};
use crate::policy::Policy;
use crate::ports::History;
use crate::rotation::ServiceState;

use super::report::{Report, report};
use super::{Runner, put_under};

/// Services as their histories leave them.
pub struct Picture {
    /// As `status` shows it.
    pub report: Report,
    /// Each service's fold; services that only the policy knows are at rest.
    pub states: BTreeMap<ServiceName, ServiceState>,
}

/// Replays histories under a policy. What a crash left under way is shown as it was left.
pub fn look(histories: Vec<History>, policy: &Policy, now: &Instant) -> Picture {
    let mut services: BTreeMap<ServiceName, Runner> = histories.into_iter().map(Runner::replayed).collect();
    put_under(&mut services, policy);
    let report = report(&services, policy, now);
    Picture { report, states: services.into_iter().map(|(name, runner)| (name, runner.state)).collect() }
}
