//! A reading of a journal of the oracle's own: what a service has done and knows, by its events alone. It asks neither the machine
//! nor the world.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rekeyd::model::{KeyId, Reason, TargetName};
use rekeyd::rotation::event::{AdoptedBy, Cause, Event, Outcome, RotationKind, Snapshot};

use super::Told;
use crate::world::At;

/// A reading of one service's journal.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Minted by us, or ours on an operator's word.
    pub ours: BTreeSet<KeyId>,
    /// Taken on by itself: may be disabled.
    pub taken_on: BTreeSet<KeyId>,
    pub(super) intents: BTreeSet<String>,
    pub(super) open: Option<Open>,
    pub(super) last: Option<Snapshot>,
    pub current: Option<KeyId>,
    pub(super) superseded: BTreeMap<KeyId, Superseded>,
    pub(super) disabled: BTreeMap<KeyId, At>,
    pub(super) absent_once: BTreeMap<KeyId, At>,
    pub gone: BTreeSet<KeyId>,
    pub closed: u32,
    pub done: u32,
    pub strangers: BTreeSet<KeyId>,
    pub disowned: BTreeSet<KeyId>,
    /// An operator said that these go although they are in use.
    pub(super) despite_use: BTreeSet<KeyId>,
    halt: Option<Reason>,
    /// On its way out, whatever sent it there.
    leaving: BTreeSet<KeyId>,
    /// The targets of the service when a key was sent out, which are those that may hold it.
    pub(super) held_at: BTreeMap<KeyId, Vec<TargetName>>,
}

#[derive(Clone, Debug)]
pub(super) struct Open {
    pub(super) at: At,
    pub(super) snapshot: Snapshot,
    compromised: bool,
    pub(super) fresh: bool,
    pub(super) former: Option<KeyId>,
    pub(super) installing: Option<KeyId>,
    pub(super) verified: BTreeMap<TargetName, bool>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Superseded {
    pub(super) at: At,
    pub(super) soak: Duration,
    pub(super) watch: Duration,
    pub(super) silence_asked: bool,
    /// Whoever used it before has moved.
    pub(super) silent_from: At,
    /// The same by the journal's wall clock, and the boot it was told in: after another boot there is nothing else to go by.
    pub(super) silent_wall: At,
    pub(super) boot: u32,
}

impl Superseded {
    fn is_silent_from(&mut self, now: At, told: Told) {
        (self.silent_from, self.silent_wall, self.boot) = (now, told.wall, told.boot);
    }
}

impl Ledger {
    pub fn knows(&self, key: &KeyId) -> bool {
        self.ours.contains(key) || self.taken_on.contains(key) || self.current.as_ref() == Some(key)
    }

    /// The targets of the service as a rotation last found them.
    pub(super) fn targets(&self) -> Vec<TargetName> {
        let snapshot = self.open.as_ref().map(|open| &open.snapshot).or(self.last.as_ref());
        snapshot.into_iter().flat_map(|snapshot| &snapshot.targets).map(|found| found.spec.name.clone()).collect()
    }

    /// `vouches`: the event is an operator's word about a key that is replaced, or on its way out, and does not make it current.
    pub(super) fn read(&mut self, event: &Event, now: At, told: Told, vouches: bool) {
        for superseded in self.superseded.values_mut() {
            superseded.silent_wall = superseded.silent_wall.min(told.wall);
        }
        // Whatever this event sends out, the targets are those of now.
        let (current, installing) = (self.current.clone(), self.open.as_ref().and_then(|open| open.installing.clone()));
        let targets = self.targets();
        for key in [current, installing].into_iter().flatten().filter(|key| !self.leaving.contains(key)) {
            self.held_at.insert(key, targets.clone());
        }
        match event {
            Event::Adopted { key, by, .. } => {
                match by {
                    // An operator is known by his uid; nobody else's word counts as one.
                    AdoptedBy::Operator(by) if by.starts_with("uid ") => {
                        self.ours.insert(key.clone());
                    }
                    AdoptedBy::Operator(_) => {}
                    AdoptedBy::FirstContact => {
                        self.taken_on.insert(key.clone());
                    }
                }
                if !vouches {
                    self.current = Some(key.clone());
                    self.open = None;
                    self.superseded.remove(key);
                    self.disabled.remove(key);
                    self.leaving.remove(key);
                    self.despite_use.remove(key);
                    self.halt = None;
                }
            }
            Event::Halted { reason, .. } => self.halt = Some(*reason),
            Event::Retried { .. } => {
                if matches!(self.halt, Some(Reason::OldKeyStillUsed | Reason::EnabledAgain)) {
                    self.superseded.values_mut().for_each(|superseded| superseded.is_silent_from(now, told));
                }
                self.halt = None;
            }
            Event::StrangersSeen { keys } => self.strangers = keys.iter().cloned().collect(),
            Event::Disowned { key, .. } => {
                self.disowned.insert(key.clone());
                self.strangers.remove(key);
            }
            Event::ReclaimOrdered { key, .. } => {
                self.leaving.insert(key.clone());
                self.ours.insert(key.clone());
                self.strangers.remove(key);
                self.disowned.remove(key);
            }
            Event::DespiteUseOrdered { .. } => {
                let installing = self.open.as_ref().and_then(|open| open.installing.as_ref());
                let stays = |key: &&KeyId| Some(*key) == self.current.as_ref() || Some(*key) == installing;
                let going = self.ours.iter().chain(&self.taken_on).filter(|key| !stays(key)).cloned();
                self.despite_use.extend(going.collect::<Vec<_>>());
            }
            Event::Opened { cause, kind, snapshot, .. } => {
                let fresh = kind.replaces();
                self.last = Some((**snapshot).clone());
                self.open = Some(Open {
                    at: now,
                    snapshot: (**snapshot).clone(),
                    compromised: matches!(cause, Cause::Operator { compromised: true, .. }),
                    fresh,
                    former: self.current.clone(),
                    installing: match kind {
                        RotationKind::Fresh => None,
                        RotationKind::Repush(_) => self.current.clone(),
                        RotationKind::Switch(to) => Some(to.id()),
                    },
                    verified: BTreeMap::new(),
                });
            }
            Event::MintBegun { intent, .. } => {
                self.intents.insert(intent.to_string());
            }
            Event::Minted { key, .. } => {
                self.ours.insert(key.clone());
                if let Some(open) = &mut self.open {
                    open.installing = Some(key.clone());
                }
            }
            Event::MintSettled { found, reclaim: true } => {
                self.ours.extend(found.iter().cloned());
                self.leaving.extend(found.iter().cloned());
            }
            Event::UndoBegun { .. } => self.leaving.extend(self.open.as_ref().and_then(|open| open.installing.clone())),
            Event::Verified { target, proven } => self.verified(target, *proven, now, told),
            Event::RollbackBegun { .. } => {
                if let Some(open) = &mut self.open {
                    std::mem::swap(&mut open.installing, &mut open.former);
                    open.verified.clear();
                    if let Some(back) = &open.installing {
                        self.superseded.remove(back);
                        self.disabled.remove(back);
                        self.leaving.remove(back);
                        self.despite_use.remove(back);
                    }
                }
            }
            Event::Closed { outcome } => {
                self.closed += 1;
                self.done += u32::from(*outcome == Outcome::Done);
                if let Outcome::Abandoned { holds: Some(key), .. } = outcome {
                    self.leaving.remove(key);
                    self.current = Some(key.clone());
                    self.superseded.remove(key);
                }
                self.open = None;
            }
            Event::Disabled { key } => {
                self.disabled.insert(key.clone(), now);
            }
            Event::Enabled { key } => {
                self.disabled.remove(key);
            }
            Event::AbsentOnce { key } => {
                self.absent_once.insert(key.clone(), now);
            }
            Event::Reappeared { key } => {
                self.absent_once.remove(key);
            }
            Event::Gone { key } => {
                self.gone.insert(key.clone());
                self.despite_use.remove(key);
                self.superseded.remove(key);
            }
            _ => {}
        }
    }

    fn verified(&mut self, target: &TargetName, proven: bool, now: At, told: Told) {
        let Some(open) = &mut self.open else { return };
        open.verified.insert(target.clone(), proven);
        let all = open.snapshot.targets.iter().all(|found| open.verified.contains_key(&found.spec.name));
        if !all || !open.fresh {
            return;
        }
        let terms = &open.snapshot.terms;
        let proven = open.verified.values().all(|proven| *proven);
        let soak = match (proven, open.compromised) {
            (true, true) => Duration::ZERO,
            (true, false) => terms.soak,
            (false, _) => terms.soak_unproven,
        };
        let silence_asked = !(open.compromised && proven);
        let (silent_wall, boot) = (told.wall, told.boot);
        let watch = terms.watch;
        // What a target asked for with the old key may be seen as long as its read-back may lag.
        let readback = open.snapshot.targets.iter().map(|found| found.spec.readback).max().unwrap_or_default();
        let (silent_from, silent_wall) = (now + readback, silent_wall + readback);
        let superseded = Superseded { at: now, soak, watch, silence_asked, silent_from, silent_wall, boot };
        if let Some(old) = open.former.clone() {
            self.superseded.insert(old, superseded);
        }
        self.current.clone_from(&open.installing);
    }
}
