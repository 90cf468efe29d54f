//! What each event does to the state: the only way it changes, live and in replay alike.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::model::{Instant, KeyId, Keyless, Reading, Shape, TargetName};

use super::event::{AdoptedBy, Cause, Event, RotationKind, Snapshot};
use super::retire::{Retirement, Stage, Why};
use super::{Current, Halt, Push, Rotation, ServiceState};

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
            next.agreed = Some(at.clone());
        }
        next.correct_clocks(at);
        next.sequence += 1;
        next.last_event = Some(at.clone());
        *self = next;
        Ok(())
    }

    /// What was written before cannot have been later: a clock that was ahead then would hide uses after a boot, when only wall
    /// time says since when a key must be silent.
    fn correct_clocks(&mut self, at: &Instant) {
        for silent_since in self.leaving.values_mut().filter_map(|retirement| retirement.silent_since.as_mut()) {
            // One that lies ahead by its own meaning does so by boot time too.
            let ahead = if silent_since.boot_id == at.boot_id {
                silent_since.boot.saturating_sub(at.boot)
            } else {
                Duration::ZERO
            };
            silent_since.wall = silent_since.wall.min(at.plus(ahead).wall);
        }
    }

    fn place(&self) -> String {
        match self.phase() {
            Some(phase) => format!("in phase {}", phase.as_str()),
            None => "at rest".to_owned(),
        }
    }

    fn fold(&mut self, event: &Event, at: &Instant) -> Result<(), ()> {
        match event {
            Event::Adopted { key, by, readings, tail, .. } if self.only_vouches(key, readings, at) => {
                self.vouch(key, by);
                self.tails.extend(tail.clone().map(|tail| (key.clone(), tail)));
            }
            Event::Adopted { key, created, by, readings, account, issuer, tail, derived } => {
                let unsure = self.adopt(key, created.unwrap_or(at.wall), by, at)?;
                self.tails.extend(tail.clone().map(|tail| (key.clone(), tail)));
                self.note_derived(derived.iter());
                // Whoever adopts says that the others hold the key itself.
                self.derived
                    .retain(|target, _| derived.contains(target) || readings.iter().all(|(read, _)| read != target));
                // What shows no credential of its own holds none: it inherits one, from a holder that may become a target itself.
                for (target, reading) in readings {
                    if *reading == Reading::Nothing {
                        self.may_hold.remove(target);
                        continue;
                    }
                    self.may_hold.insert(target.clone(), BTreeSet::from([key.clone()]));
                    if let Reading::Tail(tail) = reading {
                        self.learn_end(target, key, tail);
                    }
                }
                for (target, keys) in unsure {
                    self.may_hold.entry(target).or_default().extend(keys);
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
                if !self.is_compromised_ordered() || matches!(cause, Cause::Operator { compromised: true, .. }) {
                    self.order = Some(cause.clone());
                }
            }
            Event::SwitchOrdered { to, by } => {
                let used = self.uses_no_key();
                let moves = to.as_ref().map(Keyless::id) != used.map(Keyless::id);
                if !self.may_open() || self.is_compromised_ordered() || !moves {
                    return Err(());
                }
                self.order = None;
                self.switch = Some((to.clone(), by.clone()));
            }
            Event::Paused { by } => self.paused = Some(by.clone()),
            Event::Resumed { .. } => self.paused = None,
            Event::Halted { reason, message } => {
                self.failures += 1;
                self.halt = Some(Halt { reason: *reason, message: message.clone(), at: at.wall });
                // Who is told why ordered it by hand, and knows best whether to do so again.
                self.switch = None;
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
            Event::ReclaimOrdered { key, unused, issuer, account, .. } => {
                if self.explains(key) && !self.disowned.contains(key) {
                    return Err(());
                }
                self.disowned.remove(key);
                // A key that was used before is asked to be silent from now on, and watched like any other.
                let watch = if *unused { Duration::ZERO } else { FORMER_WATCH };
                self.leave(key, Why::Debt, at, Duration::ZERO, watch);
                if let (Some(retirement), Some(issuer), Some(account)) = (self.leaving.get_mut(key), issuer, account) {
                    if let Some(place) = &mut retirement.place {
                        place.issuer = (**issuer).clone();
                        place.account.clone_from(account);
                    }
                    (retirement.shape, retirement.settle) = (issuer.shape, issuer.settle);
                    retirement.lag = issuer.last_used_lag.unwrap_or_default();
                }
                if let Some(retirement) = self.leaving.get_mut(key) {
                    retirement.unused = *unused;
                    retirement.silent_since = (!unused).then(|| at.clone());
                }
                self.stranger_settled(key);
            }
            Event::DespiteUseOrdered { .. } => {
                let served: BTreeSet<TargetName> =
                    self.may_hold.keys().filter(|target| self.serves(target)).cloned().collect();
                for retirement in self.leaving.values_mut() {
                    retirement.silent_since = None;
                    retirement.unused = false;
                    retirement.despite_use = true;
                    for (target, held) in &mut self.may_hold {
                        if !retirement.reads(target) || !served.contains(target) {
                            held.remove(&retirement.key);
                        }
                    }
                    // Where no rotation tells the targets, none is known to be read: the word stands for what reading cannot tell.
                    retirement.unproven |= self.may_hold.values().any(|held| held.contains(&retirement.key));
                }
                self.lift(super::Reason::OldKeyStillUsed);
            }
            Event::Opened { rotation, cause, kind, snapshot } => {
                let drift = *cause == Cause::Drift && self.order == Some(Cause::Drift);
                let follows_order = *kind == RotationKind::Fresh || drift;
                if self.rotation.is_some() || self.halt.is_some() {
                    return Err(());
                }
                let current = self.current.clone().ok_or(())?;
                if let RotationKind::Switch(to) = kind {
                    if current.key == to.id() {
                        return Err(());
                    }
                    self.keyless.insert(to.id(), to.clone());
                    self.tails.insert(to.id(), to.mark());
                }
                if follows_order {
                    self.order = None;
                }
                self.switch = None;
                self.last_place = Some((**snapshot).clone());
                self.open(Rotation::opened(rotation, cause, kind, snapshot, at, &current), &current.key, at);
            }
            Event::Closed { outcome } => self.close(outcome, at)?,
            Event::DisableBegun { key, .. } => {
                let retirement = self.first_act(key, at)?;
                retirement.stage = match &retirement.stage {
                    Stage::Waiting | Stage::Disabling(_) if retirement.shape.can_disable() => {
                        Stage::Disabling(at.clone())
                    }
                    _ => return Err(()),
                };
                self.forget_held(key);
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
                retirement.disable_sent = retirement.late_disable(at);
                retirement.stage = match retirement.stage {
                    Stage::Disabled(_) | Stage::Disabling(_) => Stage::Enabling(why.clone()),
                    _ => return Err(()),
                };
            }
            Event::Enabled { key } if self.leaving.contains_key(key) => {
                let retirement = self.leaving.get_mut(key).ok_or(())?;
                if let (Stage::Waiting, Some(_)) = (&retirement.stage, &retirement.disable_sent) {
                    if retirement.late_disable(at).is_some() {
                        return Err(());
                    }
                    retirement.disable_sent = None;
                    return Ok(());
                }
                let Stage::Enabling(why) = retirement.stage.clone() else { return Err(()) };
                retirement.stage = Stage::Waiting;
                retirement.since = at.clone();
                let message = format!("{why}; key {key} is enabled again, and its secret is not held to push it back");
                self.halt = Some(Halt { reason: super::Reason::Unhealthy, message, at: at.wall });
            }
            Event::Enabled { key } => {
                let rotation = self.rotation.as_mut().ok_or(())?;
                rotation.enabled(key, at)?;
            }
            Event::DeleteBegun { key, .. } if self.leaving.get(key).is_some_and(|out| !out.shape.can_disable()) => {
                let retirement = self.first_act(key, at)?;
                retirement.stage = match &retirement.stage {
                    Stage::Waiting | Stage::Deleting(_) if retirement.ours => Stage::Deleting(at.clone()),
                    _ => return Err(()),
                };
                self.forget_held(key);
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
                // One that only was not listed may be listed again, and what holds it then still does.
                let by_us = !matches!(retirement.stage, Stage::Waiting);
                if let Some(until) = retirement.emptied_until() {
                    self.explain_slots(&until, at);
                }
                let retirement = self.leaving.get_mut(key).ok_or(())?;
                retirement.stage = Stage::Deleted(at.clone());
                retirement.refused = None;
                if by_us {
                    self.forget_held(key);
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
                    Stage::Deleted(ref since) => {
                        retirement.delete_sent = Some(since.clone());
                        Stage::Waiting
                    }
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
                self.forget_held(key);
                self.tails.remove(key);
                self.derived.values_mut().for_each(|ends| drop(ends.remove(key)));
                self.derived_until.values_mut().for_each(|ends| {
                    ends.remove(key);
                });
                if self.previous.as_ref() == Some(key) {
                    self.previous = None;
                }
            }
            in_rotation => self.fold_rotation(in_rotation, at)?,
        }
        Ok(())
    }

    fn adopt(
        &mut self,
        key: &KeyId,
        created: chrono::DateTime<chrono::Utc>,
        by: &AdoptedBy,
        at: &Instant,
    ) -> Result<Vec<(TargetName, Vec<KeyId>)>, ()> {
        let ours = matches!(by, AdoptedBy::Operator(_));
        let mut unsure = Vec::new();
        if self.rotation.is_some() && !self.adoption_ends_rotation() {
            return Err(());
        }
        // A key that was taken out of service and is in it again.
        if let Some(retirement) = self.leaving.get(key) {
            if !retirement.may_serve_again(at) {
                return Err(());
            }
            self.leaving.remove(key);
        }
        if let Some(rotation) = self.rotation.take() {
            self.tally.abandoned += 1;
            let terms = &rotation.snapshot.terms;
            let both: Vec<KeyId> = [&rotation.installing, &rotation.retiring].into_iter().flatten().cloned().collect();
            // A push that was lost may still be carried out after the operator has looked.
            let lost = rotation.lost_pushes(at);
            self.remember_lost_pushes(&rotation, at);
            let longest = lost.iter().map(|push| push.left(at)).max();
            let wait = longest.map_or(terms.soak, |left| left.max(terms.soak_unproven));
            unsure.extend(lost.into_iter().map(|push| (push.target, vec![push.key])));
            for other in both.iter().filter(|other| *other != key) {
                if !self.leaving.contains_key(other) {
                    let place = self.where_it_lives(&rotation, other);
                    self.leave_from(other, Why::Superseded, at, wait, FORMER_WATCH, Some(place));
                    if let Some(retirement) = self.leaving.get_mut(other) {
                        retirement.ours = rotation.is_ours(other);
                        retirement.silent_since = Some(at.clone());
                        retirement.unproven = longest.is_some();
                    }
                }
            }
        }
        self.disowned.remove(key);
        self.strangers.remove(key);
        self.slots_explained = Some(at.clone());
        match self.current.replace(Current { key: key.clone(), created, ours }) {
            Some(former) if former.key != *key && self.leaving.contains_key(&former.key) => {
                self.previous = Some(former.key);
            }
            Some(former) if former.key != *key => {
                self.previous = Some(former.key.clone()).filter(|key| !self.keyless.contains_key(key));
                let mut place = self.last_place.clone();
                if let (Some(place), Some(home), Some(account)) = (&mut place, &self.home, &self.account) {
                    // The last rotation may have looked at another issuer object and gone back.
                    place.issuer = home.clone();
                    place.account = account.clone();
                }
                let soak = place.as_ref().map_or(FORMER_WATCH, |place| place.terms.soak);
                self.leave_from(&former.key, Why::Superseded, at, soak, FORMER_WATCH, place);
                if let Some(retirement) = self.leaving.get_mut(&former.key) {
                    retirement.ours = former.ours;
                    retirement.silent_since = Some(at.clone());
                }
            }
            // The same key again: an operator's word is added to what was known.
            Some(former) => self.current = Some(Current { ours: ours || former.ours, ..former }),
            None => {}
        }
        self.halt = None;
        self.drift = None;
        Ok(unsure)
    }

    /// Whether an operator's word is about a key that is on its way out, or is to be replaced: it may be deleted, and its secret
    /// may have come with the word. What the targets hold is not what the word is about. At rest, or where the
    /// rotation has come to nothing, it is the word that the targets hold the key, and makes it current again, if nothing that
    /// was sent can still hit it, they do not show another, and its deletion is not what the service asked for.
    pub fn only_vouches(&self, key: &KeyId, readings: &[(TargetName, Reading)], now: &Instant) -> bool {
        if let Some(retirement) = self.leaving.get(key) {
            let asked = self.halt.as_ref().is_some_and(|halt| halt.reason == super::Reason::AdoptNeeded);
            // A key that leaves was at its targets already, and how they hold it is known.
            let derived: Vec<_> = self.derived.keys().map(|target| (target.clone(), None)).collect();
            let shown = self.adoption_contradicted(key, None, readings, &derived).is_none();
            let goes_on = self.rotation.is_some() && !self.adoption_ends_rotation();
            return goes_on || asked || !retirement.may_serve_again(now) || !shown;
        }
        let replaced = self.rotation.as_ref().is_some_and(|rotation| rotation.former.key == *key);
        replaced && !self.is_left_behind()
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
        // The word may have brought it; what still lacks it halts again.
        self.lift(super::Reason::SecretNotHeld);
    }

    /// The key's first act that a consumer would feel: no target may hold it, or only as far as the longer soak has settled, and
    /// nothing that was sent can give it to one later.
    fn first_act(&mut self, key: &KeyId, at: &Instant) -> Result<&mut Retirement, ()> {
        if !self.lost_push_left(key, at).is_zero() {
            return Err(());
        }
        let retirement = self.leaving.get_mut(key).ok_or(())?;
        let holding = self.may_hold.iter().filter(|(_, held)| held.contains(key));
        let unsettled = holding.into_iter().any(|(target, _)| !retirement.unproven || !retirement.reads(target));
        if unsettled || retirement.disable_sent.is_some() { Err(()) } else { Ok(retirement) }
    }

    /// The longer soak is over and the key is silent, or it is gone: whatever could not be told by reading is now settled.
    fn forget_held(&mut self, key: &KeyId) {
        for held in self.may_hold.values_mut() {
            held.remove(key);
        }
    }

    fn retried(&mut self, at: &Instant) {
        let halt = self.halt.take().map(|halt| halt.reason);
        for retirement in self.leaving.values_mut() {
            match (halt, &retirement.stage) {
                // Whoever used it is said to have moved: from now on it must be silent.
                (Some(super::Reason::OldKeyStillUsed), _) if retirement.silent_since.is_some() || retirement.unused => {
                    retirement.unused = false;
                    retirement.silent_since = Some(at.clone());
                }
                // Whoever enabled it is said to need it no more: from the start.
                (Some(super::Reason::EnabledAgain), Stage::Disabled(_) | Stage::Deleting(_)) => {
                    if let Stage::Deleting(_) = retirement.stage {
                        retirement.delete_sent = Some(at.clone());
                    }
                    retirement.stage = Stage::Waiting;
                    retirement.since = at.clone();
                    retirement.silent_since = Some(at.clone());
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

    /// Where a key of a rotation lives: the former one at home, until every target was Verified, wherever the new one is made.
    pub(super) fn where_it_lives(&self, rotation: &Rotation, key: &KeyId) -> Snapshot {
        let mut place = rotation.snapshot.clone();
        if let Some(known) = self.leaving.get(key).and_then(|leaving| leaving.place.as_deref()) {
            place.clone_from(known);
        } else if let (true, Some(home), Some(account)) = (rotation.former.key == *key, &self.home, &self.account) {
            let moved = self.current.as_ref().is_some_and(|current| current.key != *key);
            if !moved {
                place.issuer.clone_from(home);
                place.account.clone_from(account);
            }
        }
        place
    }

    fn leave(&mut self, key: &KeyId, why: Why, at: &Instant, wait: Duration, watch: Duration) {
        let place = self.rotation.as_ref().map(|rotation| rotation.snapshot.clone()).or(self.last_place.clone());
        self.leave_from(key, why, at, wait, watch, place);
    }

    pub(super) fn leave_from(
        &mut self,
        key: &KeyId,
        why: Why,
        at: &Instant,
        wait: Duration,
        watch: Duration,
        place: Option<Snapshot>,
    ) {
        if self.keyless.contains_key(key) {
            // Nothing is left behind by what was never made.
            return;
        }
        let issuer = place.as_ref().map(|place| &place.issuer).or(self.home.as_ref());
        let settle = issuer.map_or(Duration::from_secs(600), |issuer| issuer.settle);
        let lag = issuer.and_then(|issuer| issuer.last_used_lag).unwrap_or_default();
        let shape = issuer.map_or(Shape::default(), |issuer| issuer.shape);
        // Without a watch, a mistake must show while the key still works.
        let (wait, watch) = if shape.can_disable() { (wait, watch) } else { (wait + watch, Duration::ZERO) };
        self.leaving.insert(
            key.clone(),
            Retirement {
                key: key.clone(),
                why,
                since: at.clone(),
                wait,
                watch,
                silent_since: None,
                unused: why == Why::Reclaimed,
                despite_use: false,
                unproven: false,
                ours: true,
                stage: Stage::Waiting,
                refused: None,
                place: place.map(Box::new),
                settle,
                lag,
                shape,
                disable_sent: None,
                delete_sent: None,
            },
        );
    }

    /// What was put into the slots until then is idle: an operator said so, or we did it.
    pub(super) fn explain_slots(&mut self, until: &Instant, now: &Instant) {
        let until = if until.is_after(now) { now } else { until };
        if self.slots_explained.as_ref().is_none_or(|known| until.is_after(known)) {
            self.slots_explained = Some(until.clone());
        }
    }

    fn stranger_settled(&mut self, key: &KeyId) {
        self.strangers.remove(key);
        if self.strangers.is_empty() {
            self.lift(super::Reason::Stranger);
            self.lift(super::Reason::MintUnsettled);
            self.lift(super::Reason::JournalBehind);
            // A key said to be ours makes room when it goes.
            self.lift(super::Reason::Quota);
        }
    }

    fn lift(&mut self, reason: super::Reason) {
        if self.halt.as_ref().is_some_and(|halt| halt.reason == reason) {
            self.halt = None;
        }
    }

    pub(super) fn let_go(&mut self, target: &TargetName, key: &KeyId) {
        if let Some(held) = self.may_hold.get_mut(target) {
            held.remove(key);
        }
    }
}
