//! A key on its way out: wait, disable, watch, delete, and be seen gone twice.
//!
//! ```text
//!   Waiting ──(wait over, evidence)── DisableBegun ▶ Disabling ── Disabled ▶ Disabled ──(watch over, evidence)── DeleteBegun ▶
//!   Deleting ── Deleted ▶ Deleted ── AbsentOnce ▶ Absent ──(settle later)── Gone
//!                 ▲                                  │ Reappeared
//!                 └──────────── Deleting ◀───────────┘
//! ```
//!
//! Where a key cannot be disabled ([`Shape::can_disable`]), its deletion is the first act and cannot be undone:
//!
//! ```text
//!   Waiting ──(wait over, stronger evidence)── DeleteBegun ▶ Deleting ── Deleted ▶ … as above
//! ```
//!
//! There the time of the watch is added to the wait: a mistake that the watch would have shown and undone must show while the
//! key still works. And the current key must be probed: one that is only listed is not proven to serve.
//!
//! A request whose answer was lost may be carried out until `settle` after it was sent. So a key that comes back into service
//! is enabled at once and again when no earlier disable can be under way ([`Retirement::disable_sent`]), and does not come back
//! while a deletion may be ([`Retirement::delete_sent`]).

use std::time::Duration;

use crate::model::{Instant, KeyId, Reason, Shape, TargetName};

use super::event::{Event, Snapshot};
use super::evidence::CLOCK_WRONG_MAX;
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
    pub silent_since: Option<Instant>,
    /// Whether nobody was ever given it, as far as was known when it was sent out: any use at all means that somebody took it. That
    /// is judged by what is reported, and not waited for.
    pub unused: bool,
    /// Whether an operator said that it goes although it is in use.
    pub despite_use: bool,
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
    /// How keys go at its issuer.
    pub shape: Shape,
    /// When a disable was last sent that may still be carried out, for a key that was enabled since or is being enabled: it is
    /// enabled once more when that can no longer be.
    pub disable_sent: Option<Instant>,
    /// When a deletion was last sent that did not take, or may not have.
    pub delete_sent: Option<Instant>,
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
            Stage::Waiting if self.disable_sent.is_some() => {
                let sent = self.disable_sent.as_ref().expect("just seen");
                wait_or(now.since(sent), self.settle, || Step::Run(Effect::Enable(key())))
            }
            Stage::Waiting => wait_or(now.since(&self.since), self.wait, || {
                self.when_reported(now, || match (self.shape.can_disable(), self.ours) {
                    (true, _) => Step::Run(Effect::Evidence(key(), Act::Disable)),
                    (false, true) => Step::Run(Effect::Evidence(key(), Act::Delete)),
                    (false, false) => Step::Record(self.adopt_needed()),
                })
            }),
            Stage::Disabling(begun) if is_stale(begun, now) => {
                self.when_reported(now, || Step::Run(Effect::Evidence(key(), Act::Disable)))
            }
            Stage::Disabling(_) => Step::Run(Effect::Disable(key())),
            Stage::Disabled(since) => wait_or(now.since(since), self.watch, || {
                self.when_reported(now, || match self.ours {
                    true => Step::Run(Effect::Evidence(key(), Act::Delete)),
                    false => Step::Record(self.adopt_needed()),
                })
            }),
            Stage::Enabling(_) => Step::Run(Effect::Enable(key())),
            Stage::Deleting(begun) if is_stale(begun, now) => {
                self.when_reported(now, || Step::Run(Effect::Evidence(key(), Act::Delete)))
            }
            Stage::Deleting(_) => Step::Run(Effect::Delete(key())),
            Stage::Deleted(_) => Step::Run(Effect::Absence(key())),
            Stage::Absent(since) => {
                // Across a boot only wall time tells how far apart two listings are, and it may have been wrong at both of them.
                let unsure = if since.boot_id == now.boot_id { Duration::ZERO } else { CLOCK_WRONG_MAX * 2 };
                wait_or(now.since(since), self.settle + unsure, || Step::Run(Effect::Absence(key())))
            }
        }
    }

    /// The rotation's phase while its outgoing key is here.
    pub fn phase(&self) -> Phase {
        match &self.stage {
            Stage::Waiting | Stage::Disabling(_) => Phase::Soaking,
            // Nothing was disabled before.
            Stage::Deleting(_) if !self.shape.can_disable() => Phase::Deleted,
            Stage::Disabled(_) | Stage::Enabling(_) | Stage::Deleting(_) => Phase::Disabled,
            Stage::Deleted(_) | Stage::Absent(_) => Phase::Deleted,
        }
    }

    /// Whether the key may serve again: it still exists, and no deletion that was sent can take it away later.
    pub fn may_come_back(&self, now: &Instant) -> bool {
        self.stage.reversible() && self.delete_sent.as_ref().is_none_or(|sent| now.since(sent) >= self.settle)
    }

    /// Whether the key can be relied on as it is: nothing was done to it, and nothing that was sent can still hit it.
    pub fn is_untouched(&self, now: &Instant) -> bool {
        self.stage == Stage::Waiting && self.disable_sent.is_none() && self.may_come_back(now)
    }

    /// Whether the key can be relied on where its issuer lists it as active: also one that we disabled and somebody enabled.
    pub fn may_serve_again(&self, now: &Instant) -> bool {
        let enabled = matches!(&self.stage, Stage::Disabled(since) if now.since(since) >= self.settle);
        self.is_untouched(now) || (enabled && self.may_come_back(now))
    }

    /// Whether a deletion was sent and its slot may be emptied by it still.
    pub fn deletion_pending(&self) -> bool {
        matches!(self.stage, Stage::Deleting(_) | Stage::Deleted(_) | Stage::Absent(_)) || self.delete_sent.is_some()
    }

    /// Until when a deletion that was sent may have emptied its slot.
    pub(super) fn emptied_until(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Deleting(begun) => Some(begun.plus(EVIDENCE_AGE_MAX + self.settle)),
            _ => Some(self.delete_sent.as_ref()?.plus(self.settle)),
        }
    }

    /// When a disable may last have been sent, if it may still be carried out at `at`.
    pub(super) fn late_disable(&self, at: &Instant) -> Option<Instant> {
        let sent = match &self.stage {
            Stage::Disabling(_) => Some(at.clone()),
            Stage::Disabled(since) => Some(since.clone()),
            _ => self.disable_sent.clone(),
        };
        sent.filter(|sent| at.since(sent) < self.settle)
    }

    /// Whether it is owed to a consumer that the key is enabled, whatever else stands still.
    pub(super) fn is_rescued(&self) -> bool {
        matches!(self.stage, Stage::Enabling(_)) || (self.stage == Stage::Waiting && self.disable_sent.is_some())
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

    /// Silence can be judged only once the provider must have reported what was used before the last Confirmed, or before an
    /// operator said that its user has moved.
    fn when_reported(&self, now: &Instant, then: impl FnOnce() -> Step) -> Step {
        match &self.silent_since {
            Some(confirmed) => wait_or(now.since(confirmed), self.lag, then),
            None => then(),
        }
    }

    /// Whether evidence for retiring this key reads a target.
    pub fn reads(&self, target: &TargetName) -> bool {
        self.place.as_ref().is_none_or(|place| place.targets.iter().any(|found| found.spec.name == *target))
    }

    fn adopt_needed(&self) -> Event {
        let done = if self.shape.can_disable() { "is disabled and its watch is over" } else { "has soaked" };
        Event::Halted {
            reason: Reason::AdoptNeeded,
            message: format!(
                "key {} {done}, but rekeyd took it on by itself and did not make it, so it is not deleted on rekeyd's word \
                 alone",
                self.key
            ),
        }
    }
}

/// Evidence of another boot has an age that nobody can tell. Within one boot its age is the boot time that passed: a wall clock set
/// back meanwhile makes it no younger.
pub(super) fn is_stale(begun: &Instant, now: &Instant) -> bool {
    begun.boot_id != now.boot_id || now.boot.saturating_sub(begun.boot) > EVIDENCE_AGE_MAX
}
