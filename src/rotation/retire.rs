//! A key on its way out: wait, disable, watch, delete, and be seen gone twice.
//!
//! ```text
//!   Waiting ──(wait over, evidence)── DisableBegun ▶ Disabling ── Disabled ▶ Disabled ──(watch over, evidence)── DeleteBegun ▶
//!   Deleting ── Deleted ▶ Deleted ── AbsentOnce ▶ Absent ──(settle later)── Gone
//!                 ▲                                  │ Reappeared
//!                 └──────────── Deleting ◀───────────┘
//! ```

use std::time::Duration;

use crate::model::{Instant, KeyId, Reason, TargetName, Timestamp};

use super::event::{Event, Snapshot};
use super::{Effect, Phase, Step, wait_or};

/// How old the evidence for an act may be when the act is sent (promise 4).
pub const EVIDENCE_AGE_MAX: Duration = Duration::from_secs(300);

/// How long past its time a key is not called owed yet: faults of an hour pass by themselves often enough.
const OWED_SLACK: Duration = Duration::from_secs(3600);

/// One key on its way out.
#[derive(Clone, Debug, PartialEq)]
pub struct Retirement {
    /// The key.
    pub key: KeyId,
    /// Why it goes.
    pub why: Why,
    /// Since when it waits.
    pub since: Instant,
    /// How long it stays usable from then.
    pub wait: Duration,
    /// How long it stays disabled before it is deleted.
    pub watch: Duration,
    /// Uses after this instant mean that somebody still needs it; `None` where that is not asked.
    pub silent_since: Option<Timestamp>,
    /// Whether a read-back could not tell, so that only the longer soak lets it leave the may-hold sets.
    pub unproven: bool,
    /// Whether the journal proves it ours; if not it is disabled at most.
    pub ours: bool,
    /// How far it is.
    pub stage: Stage,
    /// What the issuer said when it refused.
    pub refused: Option<String>,
    /// Where it lives and who may hold it, as its rotation had it; `None` where no rotation tells.
    pub place: Option<Box<Snapshot>>,
    /// How far apart the two listings that prove it gone must be.
    pub settle: Duration,
    /// How late its use is reported.
    pub lag: Duration,
}

/// Why a key goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// A newer key is in place.
    Superseded,
    /// It was minted and no target took it.
    TakenBack,
    /// It came of a mint whose answer was lost.
    Reclaimed,
    /// It should be gone already.
    Debt,
}

/// How far a retirement is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Still usable.
    Waiting,
    /// The order to disable it is being sent.
    Disabling(Instant),
    /// Disabled.
    Disabled(Instant),
    /// A consumer failed after it was disabled: it is being enabled again, and then the service halts with this.
    Enabling(String),
    /// The order to delete it is being sent.
    Deleting(Instant),
    /// The issuer took the deletion, or no longer lists the key.
    Deleted(Instant),
    /// One listing did not show it.
    Absent(Instant),
}

/// What evidence is gathered for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Act {
    /// To disable a key.
    Disable,
    /// To delete it.
    Delete,
}

impl Stage {
    /// The rotation's phase while its outgoing key is here.
    pub fn phase(&self) -> Phase {
        match self {
            Self::Waiting | Self::Disabling(_) => Phase::Soaking,
            Self::Disabled(_) | Self::Enabling(_) | Self::Deleting(_) => Phase::Disabled,
            Self::Deleted(_) | Self::Absent(_) => Phase::Deleted,
        }
    }

    /// Whether the key still exists and can be enabled, as far as we know.
    pub fn reversible(&self) -> bool {
        matches!(self, Self::Waiting | Self::Disabling(_) | Self::Disabled(_) | Self::Enabling(_))
    }
}

impl Retirement {
    /// What is next for this key.
    pub fn step(&self, now: &Instant) -> Step {
        let key = || self.key.clone();
        match &self.stage {
            Stage::Waiting => wait_or(now.since(&self.since), self.wait, || {
                self.when_reported(now, || Step::Run(Effect::Evidence(key(), Act::Disable)))
            }),
            Stage::Disabling(begun) if is_stale(begun, now) => Step::Run(Effect::Evidence(key(), Act::Disable)),
            Stage::Disabling(_) => Step::Run(Effect::Disable(key())),
            Stage::Disabled(since) => wait_or(now.since(since), self.watch, || {
                if self.ours {
                    Step::Run(Effect::Evidence(key(), Act::Delete))
                } else {
                    Step::Record(self.adopt_needed())
                }
            }),
            Stage::Enabling(_) => Step::Run(Effect::Enable(key())),
            Stage::Deleting(begun) if is_stale(begun, now) => Step::Run(Effect::Evidence(key(), Act::Delete)),
            Stage::Deleting(_) => Step::Run(Effect::Delete(key())),
            Stage::Deleted(_) => Step::Run(Effect::Absence(key())),
            Stage::Absent(since) => wait_or(now.since(since), self.settle, || Step::Run(Effect::Absence(key()))),
        }
    }

    /// Whether the key should be gone, or further, by now: refused, left over, or an hour past what its stage takes.
    pub fn is_owed(&self, now: &Instant) -> bool {
        let (since, takes) = match &self.stage {
            Stage::Waiting => (&self.since, self.wait.max(self.lag)),
            Stage::Disabled(since) => (since, self.watch),
            Stage::Disabling(since) | Stage::Deleting(since) => (since, Duration::ZERO),
            Stage::Deleted(since) | Stage::Absent(since) => (since, self.settle * 2),
            Stage::Enabling(_) => return false,
        };
        self.refused.is_some() || self.why == Why::Debt || now.since(since) > takes + OWED_SLACK
    }

    /// Silence can be judged only once the provider must have reported what was used before the last Confirmed.
    fn when_reported(&self, now: &Instant, then: impl FnOnce() -> Step) -> Step {
        match self.silent_since {
            Some(confirmed) => wait_or((now.wall - confirmed).to_std().unwrap_or_default(), self.lag, then),
            None => then(),
        }
    }

    /// Whether evidence for retiring this key reads a target.
    pub fn reads(&self, target: &TargetName) -> bool {
        self.place.as_ref().is_none_or(|place| place.targets.iter().any(|found| found.spec.name == *target))
    }

    fn adopt_needed(&self) -> Event {
        Event::Halted {
            reason: Reason::AdoptNeeded,
            message: format!(
                "key {} is disabled and its watch is over, but rekeyd took it on by itself and did not make it, so it is not \
                 deleted on rekeyd's word alone",
                self.key
            ),
        }
    }
}

/// Evidence of another boot has an age that nobody can tell.
fn is_stale(begun: &Instant, now: &Instant) -> bool {
    begun.boot_id != now.boot_id || now.since(begun) > EVIDENCE_AGE_MAX
}
