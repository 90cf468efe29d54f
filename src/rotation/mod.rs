//! The rotation machine: what happens next is decided here, and nothing happens here.
//!
//! Pure: no I/O, no clock, no log. [`ServiceState::step`] says what is next, [`ServiceState::conclude`] turns what an effect
//! found into events, and [`ServiceState::apply`] is the only thing that changes state, live and in replay alike.
//!
//! ```text
//!             MintBegun        Minted (+ sealed secret)       ProbePassed × n    per target: PushBegun · Submitted · Confirmed · Verified
//!   Opened ───────────▶ Minting ───────────▶ Minted ────────────▶ Ready ──────────▶ Deploying ─────────────────────────────┐
//!     ▲                   │ MintUnknown                              │ UndoBegun        │ UndoBegun                        │ the last Verified
//!     └── MintSettled ────┘ (look, never send again)                 ▼                  ▼                                  ▼
//!     ▲                                                            new key leaves ──▶ Closed{Failed} + halt           Deployed (no old key) ──▶ Closed{Done}
//!     └── MintFailed (surely no key)                                                                                       │ an old key
//!                                                                     RollbackBegun: installing ⇄ retiring, back to Ready ◀┤
//!                                                                                                                          ▼
//!   Closed{Done} ◀── Gone ◀── AbsentOnce ◀── Deleted ◀── DeleteBegun ── (watch) ── Disabled ◀── DisableBegun ── (soak) ── Soaking
//!
//!   any phase ── Halted{reason, message} ──▶ nothing moves until Retried, or the operator settles it
//! ```
//!
//! How keys come and go differs by issuer ([`crate::model::Shape`]), and so does this road:
//!
//! - where the client names the key, an unknown mint is sent again under its intent until it answers;
//! - where a label tells the intent, an unknown mint is settled by it;
//! - where keys live in slots, a mint replaces an idle key that the intent names, an unknown one is settled by whether that key
//!   is still there, and none is begun while a deletion may still empty a slot;
//! - where a key cannot be disabled, it is deleted after a longer soak, on stronger evidence.
//!
//! A key on its way out ([`Retirement`]) is a small machine of its own, the same for an old key, one taken back, one
//! reclaimed and a debt.

use std::time::Duration;

use crate::model::Reading;
use crate::model::{Instant, IntentId, JobId, KeyId, Keyless, Reason, RotationId, SystemRef, Tail, TargetName};

mod apply;
mod conclude;
mod ending;
pub mod event;
pub mod evidence;
mod finding;
mod lost;
mod mint;
mod passage;
mod push;
mod readback;
mod retire;
mod state;
mod words;

pub use apply::IllegalEvent;
pub use finding::{Circumstances, Conclusion, Evidence, Finding, Found, Others, Pace};
pub use readback::ReadBack;
use retire::is_stale;
pub use retire::{Act, Retirement, Stage, Why};
pub use state::{
    Course, Current, EnableFirst, Halt, JobEnd, Mint, Phase, Push, Rotation, ServiceState, Tally, TargetProgress,
};
pub use words::{TakeUp, in_words};

use event::{Cause, Event, Outcome};

/// How often one key is pushed to one target before the push counts as failed (DESIGN 5.2).
pub const PUSH_ATTEMPTS_MAX: u32 = 3;

/// How long a new key may fail its probes before it is taken back: ten times its propagation, and at least this.
pub const PROBE_PATIENCE_MIN: Duration = Duration::from_secs(600);

/// What is to be done in the world. Each is run by the engine and answered with a [`Finding`] or a fault.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Effect {
    /// Look at issuer and targets, to open a rotation.
    Survey,
    /// Look for a key that may be taken on, where none is known.
    FirstContact,
    /// Look whether the world still is as the journal says.
    Observe,
    /// Look at the issuer before a mint.
    PlanMint,
    /// Send the mint. Never repeated, except where the client names the key.
    Mint(IntentId),
    /// Look at the issuer and the targets after an unknown mint.
    SettleMint,
    /// Use the new key once.
    Probe(KeyId),
    /// Probe the key and read the target, just before a push.
    BeforePush(TargetName),
    /// Hand the key over.
    Push(TargetName),
    /// Look whether an unknown push left a job.
    SettlePush(TargetName),
    /// Look at the job.
    Poll(TargetName, JobId),
    /// Look at what the target shows after its job.
    ReadBack(TargetName),
    /// Gather what must be true before a key is disabled or deleted.
    Evidence(KeyId, Act),
    /// Disable a key.
    Disable(KeyId),
    /// Enable a key again.
    Enable(KeyId),
    /// Delete a key.
    Delete(KeyId),
    /// List, to see whether a deleted key is gone.
    Absence(KeyId),
    /// Ask the consumers whether they work, beside whatever else is going on.
    Health,
}

/// What is next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Do this in the world.
    Run(Effect),
    /// Write this down.
    Record(Event),
    /// Nothing before this much time has surely passed.
    Wait(Duration),
    /// Nothing until something happens: a due time, an order, an operator.
    Rest,
}

impl ServiceState {
    /// Folds a whole history.
    pub fn replay<'a>(
        records: impl IntoIterator<Item = (&'a Event, &'a Instant)>,
    ) -> Result<ServiceState, (u64, IllegalEvent)> {
        let mut state = ServiceState::default();
        for (event, at) in records {
            state.apply(event, at).map_err(|illegal| (state.sequence + 1, illegal))?;
        }
        Ok(state)
    }

    /// What must be written down after a start, before the first step: whatever was under way when the last process ended has
    /// an unknown outcome. Crash and timeout take the same road from here.
    pub fn recover(&self) -> Vec<Event> {
        let why = "the process ended before an answer was recorded";
        let Some(rotation) = &self.rotation else { return Vec::new() };
        let mut events = Vec::new();
        if let (Phase::Minting, Some(Mint { unknown: None, .. })) = (rotation.phase, &rotation.mint) {
            events.push(Event::MintUnknown { why: why.into() });
        }
        for target in &rotation.targets {
            if let Push::Begun { .. } = target.push {
                events.push(Event::PushUnknown { target: target.name.clone(), why: why.into() });
            }
        }
        events
    }

    /// What may be done next, in order; the engine takes the first that nothing holds up. A halted service does nothing but
    /// bring back a key that it owes a consumer.
    pub fn steps(&self, now: &Instant) -> Vec<Step> {
        if self.halt.is_some() {
            let rescued = self.leaving.values().filter(|retirement| retirement.is_rescued());
            return rescued.map(|retirement| retirement.step(now)).collect();
        }
        let rotation = self.rotation.iter().map(|rotation| rotation.step(self, now));
        // While targets move, some show the new key and some the old, and neither speaks for or against a third. And nothing that
        // is found about another key may halt a service before it is known what became of its mint.
        let moves = self.rotation.as_ref().is_some_and(|rotation| {
            let undoing = matches!(rotation.course, Course::Undoing { .. });
            !undoing && matches!(rotation.phase, Phase::Minting | Phase::Ready | Phase::Deploying)
        });
        let waits_for_rest = |step: &Step| moves && matches!(step, Step::Run(Effect::Evidence(..)) | Step::Record(_));
        let leaving = self.leaving.values().map(|retirement| retirement.step(now)).filter(|step| !waits_for_rest(step));
        // A rotation that has not minted yet may be waiting for the very slot that a key on its way out still takes.
        let opened = self.rotation.as_ref().is_some_and(|rotation| rotation.phase == Phase::Opened);
        let steps: Vec<Step> = match opened {
            true => leaving.chain(rotation).collect(),
            false => rotation.chain(leaving).collect(),
        };
        steps.into_iter().filter(|step| *step != Step::Rest).collect()
    }

    /// What is next if nothing is held up: the first step that is no wait, else the shortest wait.
    pub fn step(&self, now: &Instant) -> Step {
        let steps = self.steps(now);
        let waits = steps.iter().filter_map(|step| if let Step::Wait(left) = step { Some(*left) } else { None });
        let shortest = waits.min();
        let runnable = steps.into_iter().find(|step| !matches!(step, Step::Wait(_)));
        runnable.or(shortest.map(Step::Wait)).unwrap_or(Step::Rest)
    }

    /// Whether a rotation may be opened: nothing is open, nothing halts or pauses it, and a current key is known.
    pub fn may_open(&self) -> bool {
        self.rotation.is_none() && self.halt.is_none() && self.paused.is_none() && self.current.is_some()
    }

    /// The systems it deals with by its own account, whatever the policy names by now: where the current key lives, what an open
    /// rotation was opened with, and where a key on its way out lives and may be held.
    pub fn systems(&self) -> impl Iterator<Item = &SystemRef> {
        let opened = self.rotation.iter().map(|rotation| &rotation.snapshot);
        let places = opened.chain(self.leaving.values().filter_map(|retirement| retirement.place.as_deref()));
        let of_places = places.flat_map(|place| {
            let targets = place.targets.iter().map(|target| target.spec.system.as_ref());
            targets.chain([place.issuer.system.as_ref()])
        });
        of_places.chain(self.home.iter().map(|home| home.system.as_ref())).flatten()
    }

    /// What the service uses in place of a key, since it was switched to it.
    pub fn uses_no_key(&self) -> Option<&Keyless> {
        self.keyless.get(&self.current.as_ref()?.key)
    }

    /// Whether somebody ordered that a key in wrong hands goes, which stands above any other order.
    pub fn is_compromised_ordered(&self) -> bool {
        matches!(self.order, Some(Cause::Operator { compromised: true, .. }))
    }

    /// The keys the journal can explain: whatever else the issuer lists is a stranger.
    pub fn explains(&self, key: &KeyId) -> bool {
        self.current.as_ref().is_some_and(|current| current.key == *key)
            || self.leaving.contains_key(key)
            || self.disowned.contains(key)
            || self.rotation.as_ref().is_some_and(|rotation| {
                rotation.installing.as_ref() == Some(key) || rotation.retiring.as_ref() == Some(key)
            })
    }

    /// Whether an operator's word for another key may end the open rotation: where the world has left it behind, or nothing was
    /// made by it yet, and nothing of it is under way.
    pub fn adoption_ends_rotation(&self) -> bool {
        self.is_left_behind() || (self.has_made_nothing() && self.halt.is_some())
    }

    /// Whether a rotation is open that has made nothing yet.
    pub(super) fn has_made_nothing(&self) -> bool {
        self.rotation.as_ref().is_some_and(|rotation| rotation.phase == Phase::Opened)
    }

    /// Whether the world has left the open rotation behind, and nothing of it is under way.
    pub(super) fn is_left_behind(&self) -> bool {
        let reasons = [Reason::JournalBehind, Reason::TargetChanged, Reason::CurrentKeyBroken];
        let settled = self
            .rotation
            .as_ref()
            .is_some_and(|rotation| rotation.phase != Phase::Minting && !rotation.any_in_flight());
        settled && self.halt.as_ref().is_some_and(|halt| reasons.contains(&halt.reason))
    }

    /// The keys that should be gone and are not, past their time or refused. A key in soak or watch is none.
    pub fn debts(&self, now: &Instant) -> Vec<KeyId> {
        let owed = |retirement: &&Retirement| retirement.is_owed(now);
        self.leaving.values().filter(owed).map(|retirement| retirement.key.clone()).collect()
    }

    /// The phase as status shows it: `None` at rest.
    pub fn phase(&self) -> Option<Phase> {
        let rotation = self.rotation.as_ref()?;
        let outgoing = rotation.outgoing().filter(|key| !self.keyless.contains_key(*key));
        Some(match (rotation.phase, outgoing) {
            // A key that is not leaving any more is gone.
            (Phase::Soaking, Some(key)) => self.leaving.get(key).map_or(Phase::Deleted, Retirement::phase),
            (phase, _) => phase,
        })
    }
}

impl Rotation {
    /// The key this rotation sends out at its end: the old one, or the new one when it is taken back.
    pub fn outgoing(&self) -> Option<&KeyId> {
        match self.course {
            Course::Undoing { .. } => self.installing.as_ref(),
            Course::Forward | Course::RollingBack { .. } => self.retiring.as_ref(),
        }
    }

    /// How far a target is.
    pub fn target(&self, name: &TargetName) -> Option<&TargetProgress> {
        self.targets.iter().find(|target| target.name == *name)
    }

    /// Whether the old key is in wrong hands.
    pub fn compromised(&self) -> bool {
        matches!(self.cause, Cause::Operator { compromised: true, .. })
    }

    /// Whether a consumer that worked before is to be watched now: from the first push until the old key is deleted.
    pub fn watches_health(&self) -> bool {
        self.course == Course::Forward
            && self.phase >= Phase::Deploying
            && self.retiring.is_some()
            && self.snapshot.targets.iter().any(|found| found.healthy)
    }

    /// Between MintBegun and Verified: the time of which no two services of one group may share any.
    pub fn moving(&self) -> bool {
        matches!(self.phase, Phase::Minting | Phase::Minted | Phase::Ready | Phase::Deploying)
    }

    /// Why the previous key cannot be put back now.
    pub fn cannot_turn_back(&self) -> Option<String> {
        match self.course {
            Course::RollingBack { .. } => Some("the previous key is being put back already".into()),
            Course::Undoing { .. } => Some("the new key is being taken back already; no target holds it".into()),
            Course::Forward if self.any_in_flight() => Some("a push is under way; wait until its job has ended".into()),
            Course::Forward => None,
        }
    }

    /// Whether a push is under way somewhere: nothing else may be pushed there before its job has ended.
    pub fn any_in_flight(&self) -> bool {
        let under_way =
            |push: &Push| matches!(push, Push::Begun { .. } | Push::Unknown { .. } | Push::Submitted { .. });
        self.targets.iter().any(|target| under_way(&target.push))
    }

    /// How long a key may fail its probes before that counts.
    pub fn probe_patience(&self) -> Duration {
        PROBE_PATIENCE_MIN.max(self.snapshot.issuer.propagation * 10)
    }

    /// Whether any target may hold the key being installed.
    pub fn any_touched(&self) -> bool {
        self.targets.iter().any(|target| target.touched)
    }

    fn step(&self, state: &ServiceState, now: &Instant) -> Step {
        if self.phase >= Phase::Deployed || matches!(self.course, Course::Undoing { .. }) {
            return self.close_when_gone(state);
        }
        match self.phase {
            // A key reclaimed after an unknown mint must be gone before its slot is used again.
            Phase::Opened if state.leaving.values().any(|retirement| retirement.why == Why::Reclaimed) => Step::Rest,
            Phase::Opened => Step::Run(Effect::PlanMint),
            Phase::Minting => self.minting_step(now),
            Phase::Minted => self.probing_step(now),
            _ => self.deploying_step(now),
        }
    }

    fn close_when_gone(&self, state: &ServiceState) -> Step {
        if self.outgoing().is_some_and(|key| state.leaving.contains_key(key)) {
            return Step::Rest;
        }
        let outcome = match &self.course {
            Course::Forward => Outcome::Done,
            Course::RollingBack { .. } => Outcome::RolledBack,
            Course::Undoing { reason, why } => Outcome::Failed { reason: *reason, why: why.clone() },
        };
        Step::Record(Event::Closed { outcome })
    }

    fn minting_step(&self, now: &Instant) -> Step {
        let mint = self.mint.as_ref().expect("apply sets the mint with the phase Minting");
        let shape = self.snapshot.issuer.shape;
        let Some((_, lost)) = &mint.unknown else {
            // What a mint destroys was idle when it was looked at; after a halt in between it is looked at again.
            if shape.has_slots() && is_stale(&mint.begun, now) {
                let why = "it was not sent in time, so what it replaces is looked at again";
                return Step::Record(Event::MintFailed { why: why.into() });
            }
            return Step::Run(Effect::Mint(mint.intent.clone()));
        };
        if shape.mint_may_be_repeated() && !mint.refused {
            return Step::Run(Effect::Mint(mint.intent.clone()));
        }
        // From when the answer was known to be lost: a machine that slept may have sent the request just before it woke.
        // Across a boot only wall time tells how long ago that was, and at both ends it may be as wrong as a mint is sent with.
        let unsure = if lost.boot_id == now.boot_id { Duration::ZERO } else { evidence::CLOCK_WRONG_MAX * 2 };
        wait_or(now.since(lost), self.snapshot.issuer.settle + unsure, || Step::Run(Effect::SettleMint))
    }

    fn probing_step(&self, now: &Instant) -> Step {
        let key = self.installing.clone().expect("apply sets the key with the phase Minted");
        let minted = self.minted.as_ref().expect("apply sets the time with the phase Minted");
        wait_or(now.since(minted), self.snapshot.issuer.propagation, || match &self.last_probe {
            Some(last) => {
                wait_or(now.since(last), self.snapshot.terms.probe_interval, || Step::Run(Effect::Probe(key.clone())))
            }
            None => Step::Run(Effect::Probe(key.clone())),
        })
    }

    fn deploying_step(&self, now: &Instant) -> Step {
        if let Some(first) = &self.enable_first {
            let enable = || Step::Run(Effect::Enable(first.key.clone()));
            return match &first.disable_sent {
                Some(sent) if first.enabled => wait_or(now.since(sent), first.settle, enable),
                _ => enable(),
            };
        }
        let left = self.targets.iter().filter(|target| !matches!(target.push, Push::Verified { .. }));
        // A target that must wait for a lost job holds up no other.
        let steps: Vec<Step> = left.map(|target| self.target_step(target, now)).collect();
        let waits = steps.iter().filter_map(|step| if let Step::Wait(left) = step { Some(*left) } else { None });
        let shortest = waits.min();
        let runnable = steps.into_iter().find(|step| !matches!(step, Step::Wait(_)));
        runnable.or(shortest.map(Step::Wait)).unwrap_or(Step::Rest)
    }

    /// How long the job of another key's push that was lost may still run at a target.
    pub(crate) fn other_job_left(&self, target: &TargetProgress, now: &Instant) -> Duration {
        let Some(begun) = &target.other_lost else { return Duration::ZERO };
        self.job_timeout(&target.name).saturating_sub(now.since(begun))
    }

    fn job_timeout(&self, target: &TargetName) -> Duration {
        let found = self.snapshot.targets.iter().find(|found| found.spec.name == *target);
        found.map_or(Duration::ZERO, |found| found.spec.job_timeout)
    }

    fn target_step(&self, target: &TargetProgress, now: &Instant) -> Step {
        let name = target.name.clone();
        let other_job = self.other_job_left(target, now);
        match &target.push {
            Push::Pending if target.attempts >= PUSH_ATTEMPTS_MAX => {
                Step::Record(self.give_up(target, Reason::PushFailed))
            }
            Push::Pending if !other_job.is_zero() => Step::Wait(other_job),
            Push::Pending => Step::Run(Effect::BeforePush(name)),
            Push::Begun { .. } => Step::Run(Effect::Push(name)),
            Push::Unknown { .. } => Step::Run(Effect::SettlePush(name)),
            Push::Submitted { job, .. } => Step::Run(Effect::Poll(name, job.clone())),
            Push::Ended { .. } => Step::Run(Effect::ReadBack(name)),
            Push::Refused => Step::Record(self.give_up(target, Reason::PushRefused)),
            Push::Verified { .. } => Step::Rest,
        }
    }

    /// A target that cannot be moved: take the new key back if no target may hold it, else stand still with both keys alive.
    fn give_up(&self, target: &TargetProgress, reason: Reason) -> Event {
        let trouble = target.trouble.as_deref().unwrap_or("no reason was given");
        let key = self.installing.as_ref().map_or("", KeyId::as_str);
        if !self.any_touched() && self.course == Course::Forward && self.kind.replaces() {
            return Event::UndoBegun { reason, why: format!("{} did not take key {key}: {trouble}", target.name) };
        }
        let (touched, untouched): (Vec<_>, Vec<_>) = self.targets.iter().partition(|target| target.touched);
        let names = |targets: Vec<&TargetProgress>| {
            let names: Vec<_> = targets.iter().map(|target| target.name.as_str()).collect();
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        };
        let reason = if self.targets.len() > 1 { Reason::StuckBetween } else { Reason::PushUnproven };
        Event::Halted {
            reason,
            message: format!(
                "{} cannot be moved to key {key}: {trouble}; targets that may hold it: {}; targets that do not: {}; \
                 both keys are alive and nothing is retired",
                target.name,
                names(touched),
                names(untouched)
            ),
        }
    }
}

impl Reading {
    /// What is shown of it that can be compared: the end of a secret, or the type of a credential without a key.
    pub fn tail(&self) -> Option<&Tail> {
        match self {
            Reading::Tail(tail) | Reading::Keyless(tail) => Some(tail),
            Reading::Hidden | Reading::Nothing => None,
        }
    }
}

pub(crate) fn wait_or(passed: Duration, needed: Duration, then: impl FnOnce() -> Step) -> Step {
    match needed.checked_sub(passed) {
        Some(left) if !left.is_zero() => Step::Wait(left),
        _ => then(),
    }
}

#[cfg(test)]
mod tests;
