//! What each event does to the state: the only way it changes, live and in replay alike.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::model::{Instant, KeyId, TargetName};

use super::event::{AdoptedBy, Cause, Event, Outcome, RotationKind, Snapshot};
use super::retire::{Retirement, Stage, Why};
use super::{Course, Current, Halt, JobEnd, Mint, Phase, Push, Rotation, ServiceState, TargetProgress};

/// An event that cannot have happened in the state it was applied to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{event} is not possible {state}")]
pub struct IllegalEvent {
    /// The event's kind.
    pub event: String,
    /// Where it was applied.
    pub state: String,
}

/// How long a key stays disabled that was current until an operator adopted another one; its own rotation set no time.
const FORMER_WATCH: Duration = Duration::from_secs(24 * 3600);

type Applied = Result<(), IllegalEvent>;

impl ServiceState {
    /// Changes the state by one event. On an error nothing has changed.
    pub fn apply(&mut self, event: &Event, at: &Instant) -> Applied {
        let mut next = self.clone();
        next.fold(event, at).map_err(|()| IllegalEvent { event: event.kind().to_owned(), state: self.place() })?;
        if event.agrees_with_issuer() {
            next.agreed = Some(at.wall);
        }
        next.sequence += 1;
        next.last_event = Some(at.clone());
        *self = next;
        Ok(())
    }

    fn place(&self) -> String {
        match self.phase() {
            Some(phase) => format!("in phase {}", phase.as_str()),
            None => "at rest".to_owned(),
        }
    }

    fn fold(&mut self, event: &Event, at: &Instant) -> Result<(), ()> {
        match event {
            Event::Adopted { key, by, .. } if self.is_word_about_the_old_key(key) => self.vouch(key, by),
            Event::Adopted { key, created, by, readings, account, issuer } => {
                self.adopt(key, created.unwrap_or(at.wall), by, at)?;
                // What shows no credential of its own holds none: it inherits one, from a holder that may become a target itself.
                for (target, reading) in readings {
                    if *reading == crate::model::Reading::Nothing {
                        self.may_hold.remove(target);
                        continue;
                    }
                    self.may_hold.insert(target.clone(), BTreeSet::from([key.clone()]));
                    if let (Some(tail), false) = (reading.tail(), self.tails.contains_key(key)) {
                        self.tails.insert(key.clone(), tail.clone());
                    }
                }
                if issuer.is_some() {
                    self.home = issuer.as_deref().cloned();
                }
                if account.is_some() {
                    self.account = account.clone();
                }
            }
            // An order about a key in wrong hands stands above any other.
            Event::Ordered { cause } => {
                let stronger = matches!(self.order, Some(Cause::Operator { compromised: true, .. }));
                if !stronger || matches!(cause, Cause::Operator { compromised: true, .. }) {
                    self.order = Some(cause.clone());
                }
            }
            Event::OrderDropped { .. } => {
                self.order.take().ok_or(())?;
            }
            Event::Paused { by } => self.paused = Some(by.clone()),
            Event::Resumed { .. } => self.paused = None,
            Event::Halted { reason, message } => {
                self.failures += 1;
                self.halt = Some(Halt { reason: *reason, message: message.clone(), at: at.wall });
            }
            Event::Retried { .. } => self.retried(at),
            Event::DriftFound { what } => self.drift = Some(what.clone()),
            Event::DriftCleared => self.drift = None,
            Event::StrangersSeen { keys } => self.strangers = keys.iter().cloned().collect(),
            Event::Disowned { key, .. } => {
                if self.explains(key) {
                    return Err(());
                }
                self.disowned.insert(key.clone());
                self.stranger_settled(key);
            }
            Event::ReclaimOrdered { key, unused, .. } => {
                if self.explains(key) && !self.disowned.contains(key) {
                    return Err(());
                }
                self.disowned.remove(key);
                // A key that was used before is asked to be silent from now on, and watched like any other.
                let watch = if *unused { Duration::ZERO } else { FORMER_WATCH };
                self.leave(key, Why::Debt, at, Duration::ZERO, watch);
                if let (Some(retirement), false) = (self.leaving.get_mut(key), *unused) {
                    retirement.silent_since = Some(at.wall);
                }
                self.stranger_settled(key);
            }
            Event::DespiteUseOrdered { .. } => {
                for retirement in self.leaving.values_mut() {
                    retirement.silent_since = None;
                    for (target, held) in &mut self.may_hold {
                        if !retirement.reads(target) {
                            held.remove(&retirement.key);
                        }
                    }
                }
                self.lift(super::Reason::OldKeyStillUsed);
            }
            Event::Opened { rotation, cause, kind, snapshot } => {
                let follows_order = *kind == RotationKind::Fresh || self.order.as_ref() == Some(cause);
                if self.rotation.is_some() || self.halt.is_some() {
                    return Err(());
                }
                let current = self.current.clone().ok_or(())?;
                if follows_order {
                    self.order = None;
                }
                self.last_place = Some((**snapshot).clone());
                self.open(Rotation::opened(rotation, cause, kind, snapshot, at, &current), &current.key);
            }
            Event::Closed { outcome } => self.close(outcome, at)?,
            Event::DisableBegun { key, .. } => {
                let retirement = self.leaving.get_mut(key).ok_or(())?;
                let holding = self.may_hold.iter().filter(|(_, held)| held.contains(key));
                if holding.into_iter().any(|(target, _)| !retirement.unproven || !retirement.reads(target)) {
                    return Err(());
                }
                retirement.stage = match &retirement.stage {
                    Stage::Waiting | Stage::Disabling(_) => Stage::Disabling(at.clone()),
                    _ => return Err(()),
                };
                // The longer soak is over and the key is silent: whatever could not be told by reading is now settled.
                for held in self.may_hold.values_mut() {
                    held.remove(key);
                }
            }
            Event::Disabled { key } => {
                let retirement = self.leaving.get_mut(key).ok_or(())?;
                if !matches!(retirement.stage, Stage::Disabling(_)) {
                    return Err(());
                }
                retirement.stage = Stage::Disabled(at.clone());
                retirement.refused = None;
            }
            Event::EnableBegun { key, why } => {
                let retirement = self.leaving.get_mut(key).ok_or(())?;
                retirement.stage = match retirement.stage {
                    Stage::Disabled(_) | Stage::Disabling(_) => Stage::Enabling(why.clone()),
                    _ => return Err(()),
                };
            }
            Event::Enabled { key } if self.leaving.contains_key(key) => {
                let retirement = self.leaving.get_mut(key).ok_or(())?;
                let Stage::Enabling(why) = retirement.stage.clone() else { return Err(()) };
                retirement.stage = Stage::Waiting;
                retirement.since = at.clone();
                let message = format!("{why}; key {key} is enabled again, and its secret is not held to push it back");
                self.halt = Some(Halt { reason: super::Reason::Unhealthy, message, at: at.wall });
            }
            Event::Enabled { key } => {
                let rotation = self.rotation.as_mut().ok_or(())?;
                if rotation.enable_first.as_ref() != Some(key) {
                    return Err(());
                }
                rotation.enable_first = None;
            }
            Event::DeleteBegun { key, .. } => {
                let retirement = self.leaving.get_mut(key).ok_or(())?;
                if !retirement.ours {
                    return Err(());
                }
                retirement.stage = match &retirement.stage {
                    Stage::Disabled(_) | Stage::Deleting(_) => Stage::Deleting(at.clone()),
                    _ => return Err(()),
                };
            }
            Event::Deleted { key } => {
                let retirement = self.leaving.get_mut(key).ok_or(())?;
                retirement.stage = Stage::Deleted(at.clone());
                retirement.refused = None;
                for held in self.may_hold.values_mut() {
                    held.remove(key);
                }
            }
            Event::RetireRefused { key, why } => {
                self.leaving.get_mut(key).ok_or(())?.refused = Some(why.clone());
            }
            Event::AbsentOnce { key } => {
                let retirement = self.leaving.get_mut(key).ok_or(())?;
                if !matches!(retirement.stage, Stage::Deleted(_)) {
                    return Err(());
                }
                retirement.stage = Stage::Absent(at.clone());
            }
            Event::Reappeared { key } => {
                let retirement = self.leaving.get_mut(key).ok_or(())?;
                retirement.stage = match retirement.stage {
                    // A lagging listing: start counting again.
                    Stage::Absent(_) => Stage::Deleted(at.clone()),
                    // It was never deleted, or is back: from the start, on evidence gathered anew.
                    Stage::Deleted(_) => Stage::Waiting,
                    _ => return Err(()),
                };
            }
            Event::Gone { key } => {
                if !matches!(self.leaving.get(key).ok_or(())?.stage, Stage::Absent(_)) {
                    return Err(());
                }
                let retirement = self.leaving.remove(key).ok_or(())?;
                if retirement.why == Why::Reclaimed {
                    self.tally.reclaimed += 1;
                }
                self.tails.remove(key);
                if self.previous.as_ref() == Some(key) {
                    self.previous = None;
                }
            }
            in_rotation => self.fold_rotation(in_rotation, at)?,
        }
        Ok(())
    }

    fn fold_rotation(&mut self, event: &Event, at: &Instant) -> Result<(), ()> {
        let mut rotation = self.rotation.take().ok_or(())?;
        if let Course::Undoing { .. } = rotation.course {
            return Err(());
        }
        match event {
            Event::MintBegun { intent, before } => {
                if rotation.phase != Phase::Opened || rotation.kind != RotationKind::Fresh {
                    return Err(());
                }
                rotation.mints += 1;
                rotation.phase = Phase::Minting;
                rotation.mint =
                    Some(Mint { intent: intent.clone(), before: before.clone(), begun: at.clone(), unknown: None });
            }
            Event::Minted { key, created, tail } => {
                let mint = rotation.mint.take().ok_or(())?;
                let fresh =
                    !mint.before.contains(key) && !self.explains(key) && rotation.retiring.as_ref() != Some(key);
                if rotation.phase != Phase::Minting || mint.unknown.is_some() || !fresh {
                    return Err(());
                }
                rotation.phase = Phase::Minted;
                rotation.installing = Some(key.clone());
                rotation.created = *created;
                rotation.minted = Some(at.clone());
                rotation.last_probe = None;
                if let Some(tail) = tail {
                    self.tails.insert(key.clone(), tail.clone());
                }
            }
            Event::MintFailed { .. } => {
                let mint = rotation.mint.take().ok_or(())?;
                if rotation.phase != Phase::Minting || mint.unknown.is_some() {
                    return Err(());
                }
                rotation.phase = Phase::Opened;
            }
            Event::MintUnknown { why } => {
                let mint = rotation.mint.as_mut().ok_or(())?;
                if rotation.phase != Phase::Minting || mint.unknown.is_some() {
                    return Err(());
                }
                mint.unknown = Some((why.clone(), at.clone()));
            }
            Event::MintSettled { found, reclaim } => {
                let mint = rotation.mint.take().ok_or(())?;
                let settled = match (found.as_slice(), reclaim) {
                    ([], false) => None,
                    ([key], true) if !mint.before.contains(key) => Some(key),
                    _ => return Err(()),
                };
                if rotation.phase != Phase::Minting || mint.unknown.is_none() {
                    return Err(());
                }
                rotation.phase = Phase::Opened;
                if let Some(key) = settled {
                    let place = rotation.snapshot.clone();
                    self.strangers.remove(key);
                    self.leave_from(key, Why::Reclaimed, at, Duration::ZERO, Duration::ZERO, Some(place));
                }
            }
            Event::ProbePassed { key } => {
                if rotation.phase != Phase::Minted || rotation.installing.as_ref() != Some(key) {
                    return Err(());
                }
                rotation.streak += 1;
                rotation.last_probe = Some(at.clone());
                if rotation.streak >= rotation.snapshot.terms.probes.max(1) {
                    rotation.phase = Phase::Ready;
                }
            }
            Event::ProbeFailed { key, .. } => {
                if rotation.installing.as_ref() != Some(key)
                    || !matches!(rotation.phase, Phase::Minted | Phase::Ready | Phase::Deploying)
                {
                    return Err(());
                }
                rotation.streak = 0;
                rotation.last_probe = Some(at.clone());
                // A key no target has been handed may start its row of successes again.
                if rotation.phase == Phase::Ready && rotation.minted.is_some() && rotation.course == Course::Forward {
                    rotation.phase = Phase::Minted;
                }
            }
            Event::PushBegun { target, key, jobs } => {
                if rotation.installing.as_ref() != Some(key)
                    || !matches!(rotation.phase, Phase::Ready | Phase::Deploying)
                    || rotation.enable_first.is_some()
                {
                    return Err(());
                }
                let progress = progress(&mut rotation, target)?;
                if progress.push != Push::Pending {
                    return Err(());
                }
                progress.push = Push::Begun { at: at.clone(), jobs: jobs.clone() };
                progress.attempts += 1;
                rotation.phase = Phase::Deploying;
                self.may_hold.entry(target.clone()).or_default().insert(key.clone());
            }
            Event::Submitted { target, job } => {
                let progress = progress(&mut rotation, target)?;
                let (begun, guessed) = match progress.push.clone() {
                    Push::Begun { at: begun, .. } => (begun, false),
                    Push::Unknown { at: begun, .. } => (begun, true),
                    _ => return Err(()),
                };
                progress.touched = true;
                match job {
                    Some(job) => progress.push = Push::Submitted { at: begun, job: job.clone(), guessed },
                    None => {
                        progress.push = Push::Ended { begun, at: at.clone(), how: JobEnd::Succeeded };
                        rotation.confirmed = Some(at.wall);
                    }
                }
            }
            Event::PushFailed { target, refused, why } => {
                let key = rotation.installing.clone().ok_or(())?;
                let progress = progress(&mut rotation, target)?;
                if !matches!(progress.push, Push::Begun { .. }) {
                    return Err(());
                }
                progress.push = if *refused { Push::Refused } else { Push::Pending };
                progress.attempts = progress.attempts.saturating_sub(1);
                progress.trouble = Some(why.clone());
                if !progress.touched {
                    self.let_go(target, &key);
                }
            }
            Event::PushUnknown { target, why } => {
                let progress = progress(&mut rotation, target)?;
                let Push::Begun { at: begun, jobs } = progress.push.clone() else { return Err(()) };
                progress.touched = true;
                progress.trouble = Some(why.clone());
                progress.push = Push::Unknown { at: begun, jobs };
            }
            Event::Confirmed { target } => {
                let ended = end(progress(&mut rotation, target)?, JobEnd::Succeeded, at)?;
                rotation.confirmed = Some(ended.wall);
            }
            Event::JobFailed { target, why } => {
                let progress = progress(&mut rotation, target)?;
                progress.trouble = Some(why.clone());
                end(progress, JobEnd::Failed, at)?;
            }
            Event::JobLost { target, why } => {
                let progress = progress(&mut rotation, target)?;
                progress.trouble = Some(why.clone());
                end(progress, JobEnd::Lost, at)?;
            }
            Event::NotMoved { target, shows } => {
                let key = rotation.installing.clone().ok_or(())?;
                let timeout = rotation
                    .snapshot
                    .targets
                    .iter()
                    .find(|found| found.spec.name == *target)
                    .ok_or(())?
                    .spec
                    .job_timeout;
                let progress = progress(&mut rotation, target)?;
                let Push::Ended { begun, how, .. } = progress.push.clone() else { return Err(()) };
                progress.push = Push::Pending;
                // A key leaves the may-hold set only when its job is known to be over and another key is shown.
                let over = how != JobEnd::Lost || at.since(&begun) >= timeout;
                if over && shows.as_ref() != Some(&key) && shows.is_some() {
                    progress.touched = false;
                    self.let_go(target, &key);
                }
            }
            Event::Verified { target, proven } => {
                let key = rotation.installing.clone().ok_or(())?;
                let progress = progress(&mut rotation, target)?;
                match progress.push {
                    Push::Ended { how: JobEnd::Succeeded, .. } => {}
                    Push::Ended { how: JobEnd::Guessed, .. } if *proven => {}
                    _ => return Err(()),
                }
                progress.push = Push::Verified { proven: *proven };
                if *proven {
                    self.may_hold.insert(target.clone(), BTreeSet::from([key]));
                }
                if rotation.targets.iter().all(|target| matches!(target.push, Push::Verified { .. })) {
                    self.deployed(&mut rotation, at);
                }
            }
            Event::UndoBegun { reason, why } => {
                let key = rotation.installing.clone().ok_or(())?;
                let held = self.may_hold.values().any(|held| held.contains(&key));
                if held || rotation.course != Course::Forward || rotation.kind != RotationKind::Fresh {
                    return Err(());
                }
                rotation.course = Course::Undoing { reason: *reason, why: why.clone() };
                let place = rotation.snapshot.clone();
                self.leave_from(&key, Why::TakenBack, at, Duration::ZERO, Duration::ZERO, Some(place));
            }
            Event::RollbackBegun { by } => self.roll_back(&mut rotation, by, at)?,
            _ => return Err(()),
        }
        self.rotation = Some(rotation);
        Ok(())
    }

    fn open(&mut self, rotation: Rotation, current: &KeyId) {
        let snapshot = &rotation.snapshot;
        for found in &snapshot.targets {
            self.may_hold.entry(found.spec.name.clone()).or_default().insert(current.clone());
            if let (Some(tail), false) = (found.reading.tail(), self.tails.contains_key(current)) {
                self.tails.insert(current.clone(), tail.clone());
            }
        }
        if self.home.is_none() {
            self.home = Some(snapshot.issuer.clone());
        }
        if self.account.is_none() {
            self.account = Some(snapshot.account.clone());
        }
        self.drift = None;
        self.last_opened = Some(rotation.opened.wall);
        self.rotation = Some(rotation);
    }

    fn deployed(&mut self, rotation: &mut Rotation, at: &Instant) {
        let Some(key) = rotation.installing.clone() else { return };
        rotation.verified = Some(at.clone());
        if rotation.course == Course::Forward {
            self.last_success = Some(at.wall);
            self.failures = 0;
            self.durations.push(at.since(&rotation.opened).as_secs_f64());
        }
        if let RotationKind::Repush(_) = rotation.kind {
            rotation.phase = Phase::Deployed;
            return;
        }
        self.previous = rotation.retiring.clone();
        self.current = Some(rotation.as_current(key, at));
        let Some(retiring) = rotation.retiring.clone() else {
            rotation.phase = Phase::Deployed;
            return;
        };
        rotation.phase = Phase::Soaking;
        let proven = rotation.targets.iter().all(|target| target.push == Push::Verified { proven: true });
        let terms = &rotation.snapshot.terms;
        let wait = match (proven, rotation.compromised()) {
            (true, true) => Duration::ZERO,
            (true, false) => terms.soak,
            (false, _) => terms.soak_unproven,
        };
        let watch = terms.watch;
        // A key in wrong hands is used by them; but where nothing else tells who holds it, its silence must.
        let silent_since = if rotation.compromised() && proven { None } else { rotation.confirmed };
        let mut place = rotation.snapshot.clone();
        if let (Some(home), Some(account), Course::Forward) = (&self.home, &self.account, &rotation.course) {
            // The old key lives where the last rotation left it, which a changed policy may have moved away from.
            place.issuer = home.clone();
            place.account = account.clone();
        }
        self.leave_from(&retiring, Why::Superseded, at, wait, watch, Some(place));
        if let Some(retirement) = self.leaving.get_mut(&retiring) {
            retirement.silent_since = silent_since;
            retirement.unproven = !proven;
            retirement.ours = rotation.is_ours(&retiring);
        }
        self.home = Some(rotation.snapshot.issuer.clone());
        self.account = Some(rotation.snapshot.account.clone());
    }

    fn roll_back(&mut self, rotation: &mut Rotation, by: &str, at: &Instant) -> Result<(), ()> {
        let (new, old) = (rotation.installing.clone().ok_or(())?, rotation.retiring.clone().ok_or(())?);
        if rotation.course != Course::Forward || rotation.phase < Phase::Ready {
            return Err(());
        }
        if let Some(retirement) = self.leaving.get(&old) {
            if !retirement.stage.reversible() {
                return Err(());
            }
            if retirement.stage != Stage::Waiting {
                rotation.enable_first = Some(old.clone());
            }
            self.leaving.remove(&old);
        }
        self.halt = None;
        rotation.course = Course::RollingBack { by: by.to_owned(), since: at.clone() };
        rotation.installing = Some(old);
        rotation.retiring = Some(new);
        rotation.phase = Phase::Ready;
        rotation.verified = None;
        for target in &mut rotation.targets {
            *target = TargetProgress::pending(target.name.clone());
        }
        Ok(())
    }

    fn close(&mut self, outcome: &Outcome, at: &Instant) -> Result<(), ()> {
        let rotation = self.rotation.take().ok_or(())?;
        match outcome {
            Outcome::Done if rotation.phase >= Phase::Deployed => self.tally.done += 1,
            Outcome::RolledBack if rotation.phase >= Phase::Deployed => {
                self.tally.rolled_back += 1;
                self.failures += 1;
                // The restored key is as old as it was, and the next rotation would be opened at once.
                let by = if let Course::RollingBack { by, .. } = &rotation.course { by.as_str() } else { "" };
                let key = rotation.installing.as_ref().map_or("", KeyId::as_str);
                let message = format!(
                    "key {key} was put back, on the word of {by}; the newer key is gone, and no other is made until somebody \
                     has looked"
                );
                self.halt = Some(Halt { reason: super::Reason::RolledBack, message, at: at.wall });
            }
            Outcome::Failed { reason, why } if matches!(rotation.course, Course::Undoing { .. }) => {
                self.tally.failed += 1;
                self.failures += 1;
                self.halt = Some(Halt { reason: *reason, message: why.clone(), at: at.wall });
            }
            Outcome::Abandoned { holds, .. } => {
                self.tally.abandoned += 1;
                self.abandon(&rotation, holds.as_ref(), at)?;
            }
            _ => return Err(()),
        }
        Ok(())
    }

    /// The operator says which key the targets hold; the other one becomes a debt.
    fn abandon(&mut self, rotation: &Rotation, holds: Option<&KeyId>, at: &Instant) -> Result<(), ()> {
        self.halt = None;
        let both = [rotation.installing.clone(), rotation.retiring.clone()];
        let holds = match holds {
            Some(key) => key.clone(),
            // Nothing was pushed, so the targets hold what they held.
            None if !rotation.any_touched() && rotation.course == Course::Forward => rotation.former.key.clone(),
            None => return Err(()),
        };
        for target in &rotation.targets {
            self.may_hold.insert(target.name.clone(), BTreeSet::from([holds.clone()]));
        }
        self.leaving.remove(&holds);
        for key in both.into_iter().flatten() {
            if key == holds {
                self.current = Some(rotation.as_current(key, at));
            } else if !self.leaving.contains_key(&key) && rotation.kind == RotationKind::Fresh {
                let watch = rotation.snapshot.terms.watch;
                self.leave_from(&key, Why::Debt, at, Duration::ZERO, watch, Some(rotation.snapshot.clone()));
                if let Some(retirement) = self.leaving.get_mut(&key) {
                    retirement.ours = rotation.is_ours(&key);
                    retirement.silent_since = Some(at.wall);
                }
            }
        }
        Ok(())
    }

    fn adopt(
        &mut self,
        key: &KeyId,
        created: chrono::DateTime<chrono::Utc>,
        by: &AdoptedBy,
        at: &Instant,
    ) -> Result<(), ()> {
        let ours = matches!(by, AdoptedBy::Operator(_));
        if self.rotation.is_some() && !self.adoption_ends_rotation() {
            return Err(());
        }
        if let Some(rotation) = self.rotation.take() {
            self.tally.abandoned += 1;
            let place = Some(rotation.snapshot.clone());
            for other in [&rotation.installing, &rotation.retiring].into_iter().flatten() {
                if other != key && !self.leaving.contains_key(other) {
                    self.leave_from(other, Why::Debt, at, Duration::ZERO, FORMER_WATCH, place.clone());
                    if let Some(retirement) = self.leaving.get_mut(other) {
                        retirement.ours = rotation.is_ours(other);
                        retirement.silent_since = Some(at.wall);
                    }
                }
            }
        }
        self.disowned.remove(key);
        self.strangers.remove(key);
        match self.current.replace(Current { key: key.clone(), created, ours }) {
            Some(former) if former.key != *key && self.leaving.contains_key(&former.key) => {
                self.previous = Some(former.key);
            }
            Some(former) if former.key != *key => {
                self.previous = Some(former.key.clone());
                self.leave(&former.key, Why::Debt, at, Duration::ZERO, FORMER_WATCH);
                if let Some(retirement) = self.leaving.get_mut(&former.key) {
                    retirement.ours = former.ours;
                    retirement.silent_since = Some(at.wall);
                }
            }
            // The same key again: an operator's word is added to what was known.
            Some(former) => self.current = Some(Current { ours: ours || former.ours, ..former }),
            None => {}
        }
        self.halt = None;
        self.drift = None;
        Ok(())
    }

    /// An operator's word about a key that is on its way out, or is to be replaced: it may be deleted, and its secret may have
    /// come with the word. What the targets hold is not what the word is about.
    fn is_word_about_the_old_key(&self, key: &KeyId) -> bool {
        let replaced = self.rotation.as_ref().is_some_and(|rotation| rotation.former.key == *key);
        self.leaving.contains_key(key) || (replaced && !self.adoption_ends_rotation())
    }

    fn vouch(&mut self, key: &KeyId, by: &AdoptedBy) {
        let ours = matches!(by, AdoptedBy::Operator(_));
        if let Some(retirement) = self.leaving.get_mut(key) {
            retirement.ours |= ours;
        }
        if let Some(rotation) = self.rotation.as_mut().filter(|rotation| rotation.former.key == *key) {
            rotation.former.ours |= ours;
        }
        if let Some(current) = self.current.as_mut().filter(|current| current.key == *key) {
            current.ours |= ours;
        }
        self.lift(super::Reason::AdoptNeeded);
    }

    fn retried(&mut self, at: &Instant) {
        let halt = self.halt.take().map(|halt| halt.reason);
        for retirement in self.leaving.values_mut() {
            match (halt, &retirement.stage) {
                // Whoever used it is said to have moved: from now on it must be silent.
                (Some(super::Reason::OldKeyStillUsed), _) if retirement.silent_since.is_some() => {
                    retirement.silent_since = Some(at.wall);
                }
                // Whoever enabled it is said to need it no more: from the start.
                (Some(super::Reason::EnabledAgain), Stage::Disabled(_)) => {
                    retirement.stage = Stage::Waiting;
                    retirement.since = at.clone();
                    retirement.silent_since = Some(at.wall);
                }
                _ => {}
            }
        }
        if let Some(rotation) = &mut self.rotation {
            for target in &mut rotation.targets {
                if matches!(target.push, Push::Pending | Push::Refused) {
                    target.attempts = 0;
                    target.push = Push::Pending;
                }
            }
        }
        for retirement in self.leaving.values_mut() {
            retirement.refused = None;
        }
    }

    fn leave(&mut self, key: &KeyId, why: Why, at: &Instant, wait: Duration, watch: Duration) {
        let place = self.rotation.as_ref().map(|rotation| rotation.snapshot.clone()).or(self.last_place.clone());
        self.leave_from(key, why, at, wait, watch, place);
    }

    fn leave_from(
        &mut self,
        key: &KeyId,
        why: Why,
        at: &Instant,
        wait: Duration,
        watch: Duration,
        place: Option<Snapshot>,
    ) {
        let issuer = place.as_ref().map(|place| &place.issuer).or(self.home.as_ref());
        let settle = issuer.map_or(Duration::from_secs(600), |issuer| issuer.settle);
        let lag = issuer.and_then(|issuer| issuer.last_used_lag).unwrap_or_default();
        self.leaving.insert(
            key.clone(),
            Retirement {
                key: key.clone(),
                why,
                since: at.clone(),
                wait,
                watch,
                silent_since: None,
                unproven: false,
                ours: true,
                stage: Stage::Waiting,
                refused: None,
                place: place.map(Box::new),
                settle,
                lag,
            },
        );
    }

    fn stranger_settled(&mut self, key: &KeyId) {
        self.strangers.remove(key);
        if self.strangers.is_empty() {
            self.lift(super::Reason::Stranger);
            self.lift(super::Reason::MintUnsettled);
            self.lift(super::Reason::JournalBehind);
        }
    }

    fn lift(&mut self, reason: super::Reason) {
        if self.halt.as_ref().is_some_and(|halt| halt.reason == reason) {
            self.halt = None;
        }
    }

    fn let_go(&mut self, target: &TargetName, key: &KeyId) {
        if let Some(held) = self.may_hold.get_mut(target) {
            held.remove(key);
        }
    }
}

impl Rotation {
    fn opened(
        id: &super::RotationId,
        cause: &super::Cause,
        kind: &RotationKind,
        snapshot: &Snapshot,
        at: &Instant,
        current: &Current,
    ) -> Self {
        let names: Vec<TargetName> = match kind {
            RotationKind::Fresh => snapshot.targets.iter().map(|target| target.spec.name.clone()).collect(),
            RotationKind::Repush(names) => names.clone(),
        };
        let fresh = *kind == RotationKind::Fresh;
        Rotation {
            id: id.clone(),
            cause: cause.clone(),
            kind: kind.clone(),
            snapshot: snapshot.clone(),
            opened: at.clone(),
            phase: if fresh { Phase::Opened } else { Phase::Ready },
            course: Course::Forward,
            former: current.clone(),
            installing: (!fresh).then(|| current.key.clone()),
            retiring: fresh.then(|| current.key.clone()),
            mint: None,
            mints: 0,
            minted: None,
            created: None,
            streak: 0,
            last_probe: None,
            enable_first: None,
            targets: names.into_iter().map(TargetProgress::pending).collect(),
            verified: None,
            confirmed: None,
        }
    }
}

impl Rotation {
    /// The key as the current one: the former keeps its birthday and its standing, a new one is ours.
    fn as_current(&self, key: KeyId, at: &Instant) -> Current {
        if key == self.former.key {
            return self.former.clone();
        }
        Current { key, created: self.created.unwrap_or(at.wall), ours: true }
    }

    fn is_ours(&self, key: &KeyId) -> bool {
        *key != self.former.key || self.former.ours
    }
}

impl TargetProgress {
    fn pending(name: TargetName) -> Self {
        Self { name, push: Push::Pending, attempts: 0, touched: false, trouble: None }
    }
}

fn progress<'a>(rotation: &'a mut Rotation, name: &TargetName) -> Result<&'a mut TargetProgress, ()> {
    rotation.targets.iter_mut().find(|target| target.name == *name).ok_or(())
}

fn end<'a>(progress: &mut TargetProgress, how: JobEnd, at: &'a Instant) -> Result<&'a Instant, ()> {
    let (begun, how) = match &progress.push {
        Push::Submitted { at: begun, guessed: true, .. } if how == JobEnd::Succeeded => {
            (begun.clone(), JobEnd::Guessed)
        }
        Push::Submitted { at: begun, .. } => (begun.clone(), how),
        // A push whose answer was lost ends as lost when no job can be found for it.
        Push::Unknown { at: begun, .. } if how == JobEnd::Lost => (begun.clone(), how),
        _ => return Err(()),
    };
    progress.push = Push::Ended { begun, at: at.clone(), how };
    Ok(at)
}
