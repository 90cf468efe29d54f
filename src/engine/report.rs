//! How everything stands, for `status`, the metrics and whoever waits: a picture of the engine's state, never the state itself.

use std::collections::BTreeMap;

use crate::model::{Instant, KeyId, Reason, ServiceName, TargetName, Timestamp};
use crate::policy::{Follower, Policy};
use crate::rotation::{Effect, Phase, Tally};

use super::{Runner, next_command, plan};

/// All services, in the order of their names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// When it was made; `None` before the first.
    pub at: Option<Timestamp>,
    /// The services in the policy, and those leaving.
    pub services: Vec<ServiceReport>,
}

/// One service.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceReport {
    /// Its name.
    pub name: ServiceName,
    /// Its issuer object, such as `aws-iam:main:arcgis-object-store`.
    pub issuer: String,
    /// Its targets.
    pub targets: Vec<TargetName>,
    /// The state, in one word.
    pub state: StateWord,
    /// The phase of the open rotation.
    pub phase: Option<Phase>,
    /// The open rotation.
    pub rotation: Option<String>,
    /// Whether every target of the open rotation is Verified.
    pub verified: bool,
    /// The key all targets are Verified to hold.
    pub current_key: Option<KeyId>,
    /// The key before it, while it exists.
    pub previous_key: Option<KeyId>,
    /// When the next rotation opens; in the past where it should have opened already.
    pub next_rotation: Option<Timestamp>,
    /// When a key was last Verified at every target.
    pub last_rotation: Option<Timestamp>,
    /// When the current key was made.
    pub key_created: Option<Timestamp>,
    /// Failures in a row.
    pub failures: u32,
    /// Why it is halted.
    pub reason: Option<Reason>,
    /// The whole story, or what it waits for.
    pub message: Option<String>,
    /// What to type next.
    pub next_command: Option<String>,
    /// Keys at the issuer that nobody can explain.
    pub strangers: Vec<KeyId>,
    /// Keys that should be gone.
    pub debt: Vec<KeyId>,
    /// What differs between journal and world.
    pub drift: Option<String>,
    /// The policy's `max_age`, in seconds.
    pub max_age_seconds: Option<u64>,
    /// Whether it is past its time or its key too old.
    pub overdue: bool,
    /// Rotations by outcome.
    pub tally: Tally,
    /// Seconds from Opened to Verified, of every rotation that got there.
    pub durations: Vec<f64>,
}

/// A service's state, in the interface's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StateWord {
    /// Nothing to do until its time.
    Idle,
    /// On its way to Verified.
    Rotating,
    /// The old key is still usable.
    Soaking,
    /// The old key is disabled and watched.
    Watching,
    /// In a back-off, or waiting for window, group or budget.
    Waiting,
    /// Waits for an operator.
    Halted,
    /// Opens no rotation, on an operator's word.
    Paused,
    /// No longer in the policy, and not clean yet.
    Leaving,
}

impl StateWord {
    /// Every word, for the metric that has one line for each.
    pub const ALL: [StateWord; 8] = [
        Self::Idle,
        Self::Rotating,
        Self::Soaking,
        Self::Watching,
        Self::Waiting,
        Self::Halted,
        Self::Paused,
        Self::Leaving,
    ];

    /// As status and metric write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Rotating => "rotating",
            Self::Soaking => "soaking",
            Self::Watching => "watching",
            Self::Waiting => "waiting",
            Self::Halted => "halted",
            Self::Paused => "paused",
            Self::Leaving => "leaving",
        }
    }
}

/// How long past its due time a service is called overdue: a heartbeat and a survey take a moment.
const OVERDUE_SLACK: chrono::TimeDelta = chrono::TimeDelta::minutes(5);

pub(super) fn report(services: &BTreeMap<ServiceName, Runner>, policy: &Policy, now: &Instant) -> Report {
    let shown = services.iter().filter(|(_, runner)| runner.policy.is_some() || !clean(runner));
    let mut reports: Vec<ServiceReport> = shown.map(|(name, runner)| one(name, runner, policy, now)).collect();
    for runner in services.values() {
        let Some(service) = &runner.policy else { continue };
        let Some(root) = reports.iter().find(|report| report.name == service.name).cloned() else { continue };
        reports.extend(service.followers.iter().map(|follower| following(&root, follower)));
    }
    reports.sort_by(|one, other| one.name.cmp(&other.name));
    Report { at: Some(now.wall), services: reports }
}

/// A service without keys of its own stands as the one stands that it follows, whose counts and troubles are not told twice.
fn following(root: &ServiceReport, follower: &Follower) -> ServiceReport {
    let moves = format!("moves with {}", root.name);
    let message = root.message.as_ref().map_or_else(|| moves.clone(), |message| format!("{moves}: {message}"));
    ServiceReport {
        name: follower.name.clone(),
        issuer: follower.issuer.clone(),
        targets: follower.targets.clone(),
        message: Some(message),
        strangers: Vec::new(),
        debt: Vec::new(),
        drift: None,
        failures: 0,
        overdue: false,
        tally: Tally::default(),
        durations: Vec::new(),
        ..root.clone()
    }
}

/// Nothing of the service is left to be done.
pub(super) fn clean(runner: &Runner) -> bool {
    runner.state.rotation.is_none() && runner.state.leaving.is_empty() && runner.damage.is_none()
}

fn one(name: &ServiceName, runner: &Runner, policy: &Policy, now: &Instant) -> ServiceReport {
    let state = &runner.state;
    let service = runner.policy.as_ref();
    let next =
        service.and_then(|service| plan::expected(state, service, policy.daemon.timezone, now, runner.seen().expires));
    let late = next.is_some_and(|at| now.wall.signed_duration_since(at) > OVERDUE_SLACK) && state.rotation.is_none();
    let issuer = match (&state.rotation, service) {
        (Some(rotation), _) => rotation.snapshot.issuer.object.clone(),
        (None, Some(service)) => service.issuer.object.clone(),
        (None, None) => state.home.as_ref().map_or(String::new(), |home| home.object.clone()),
    };
    let targets = match (service, &state.rotation) {
        (Some(service), _) => service.targets.iter().map(|target| target.name.clone()).collect(),
        (None, Some(rotation)) => rotation.targets.iter().map(|target| target.name.clone()).collect(),
        (None, None) => Vec::new(),
    };
    let (reason, message) = match (&runner.damage, &state.halt) {
        (Some(damage), _) => (Some(Reason::JournalDamaged), Some(damage.clone())),
        (None, Some(halt)) => (Some(halt.reason), Some(halt.message.clone())),
        (None, None) => {
            let trouble = runner.pacing.trouble().map(|why| format!("{why}; {}", state.state_left()));
            let waits = trouble.or(Some(runner.waits_for.clone())).filter(|why| !why.is_empty());
            (None, waits.or_else(|| state.drift.clone()))
        }
    };
    ServiceReport {
        name: name.clone(),
        issuer,
        targets,
        state: word(runner),
        phase: state.phase(),
        rotation: state.rotation.as_ref().map(|rotation| rotation.id.to_string()),
        verified: state.rotation.as_ref().is_some_and(|rotation| rotation.verified.is_some()),
        current_key: state.current.as_ref().map(|current| current.key.clone()),
        previous_key: state.previous.clone(),
        next_rotation: next,
        last_rotation: state.last_success,
        // What is no key has no age that anybody watches.
        key_created: state.current.as_ref().filter(|_| state.uses_no_key().is_none()).map(|current| current.created),
        failures: state.failures,
        reason,
        message,
        next_command: match &runner.damage {
            Some(_) => Some(
                "rekeyd ledger verify (what is damaged and what is sound); then restore the journal from a backup, and systemctl \
                 restart rekeyd"
                    .into(),
            ),
            None => next_command(name, state, policy).or_else(|| {
                let trouble = runner.pacing.trouble();
                trouble
                    .map(|_| format!("none is needed, it is tried again by itself; rekeyd retry {name} tries at once"))
            }),
        },
        strangers: state.strangers.iter().cloned().collect(),
        debt: state.debts(now),
        drift: state.drift.clone(),
        max_age_seconds: service.and_then(|service| service.max_age).map(|age| age.as_secs()),
        overdue: late || service.is_some_and(|service| plan::too_old(state, service, now.wall)),
        tally: state.tally,
        durations: state.durations.clone(),
    }
}

fn word(runner: &Runner) -> StateWord {
    let state = &runner.state;
    if runner.damage.is_some() || state.halt.is_some() {
        return StateWord::Halted;
    }
    if runner.policy.is_none() {
        return StateWord::Leaving;
    }
    let held_up = runner.busy.is_none() && (runner.pacing.trouble().is_some() || !runner.waits_for.is_empty());
    match (state.phase(), &state.paused) {
        (None, Some(_)) => StateWord::Paused,
        (None, None) if runner.busy == Some(Effect::Survey) => StateWord::Rotating,
        (_, _) if held_up => StateWord::Waiting,
        (None, None) => StateWord::Idle,
        (Some(Phase::Soaking), _) => StateWord::Soaking,
        (Some(Phase::Disabled | Phase::Deleted), _) => StateWord::Watching,
        (Some(_), _) => StateWord::Rotating,
    }
}
