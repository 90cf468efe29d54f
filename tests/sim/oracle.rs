//! The promises of DESIGN 1, checked at every request that is executed and every event that becomes durable.
//!
//! Held against the truth of the world and against a reading of the journal of its own; what the machine believes counts for
//! nothing here. Here stand the promises and what was seen of them; the journal is read in `ledger`, and each occasion to check has a
//! file: `sending`, `killing`, `recording`, `ending`.

mod ending;
mod killing;
mod ledger;
mod recording;
mod sending;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rekeyd::model::{Instant, KeyId, ServiceName};
use rekeyd::ports::Record;
use rekeyd::rotation::ServiceState;
use rekeyd::rotation::event::Event;

use crate::faults::Op;
use crate::journal::Shelf;
use crate::world::{At, Deed, World, epoch};

use ledger::Ledger;

/// What a violation breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Promise {
    /// 1: no act of rekeyd makes a credential that a target may hold stop working.
    NoOutage,
    /// 2: a mint is sent at most once for a durable intent, and what was minted is known or found.
    NoUntrackedKey,
    /// 3: only a key the journal proves ours is deleted.
    StrangersSafe,
    /// 4: the old key goes only on fresh evidence, after its soak, disabled and watched where that can be.
    FreshEvidence,
    /// 5: what should be gone is gone, or owed.
    NothingForgotten,
    /// 8: one service's trouble is its own.
    Isolation,
    /// No way out: neither by itself nor by what an operator is told to type.
    NoDeadEnd,
    /// The machine refuses its own event, or something panics.
    NoMistakeOfOurOwn,
}

impl Promise {
    pub const ALL: [Promise; 8] = [
        Self::NoOutage,
        Self::NoUntrackedKey,
        Self::StrangersSafe,
        Self::FreshEvidence,
        Self::NothingForgotten,
        Self::Isolation,
        Self::NoDeadEnd,
        Self::NoMistakeOfOurOwn,
    ];

    fn place(self) -> usize {
        Self::ALL.iter().position(|promise| *promise == self).expect("all are listed")
    }
}

/// A promise broken.
#[derive(Clone, Debug)]
pub struct Violation {
    pub promise: Promise,
    pub what: String,
}

/// What was seen of the promises.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    /// Of each journal and service.
    pub ledgers: BTreeMap<(usize, ServiceName), Ledger>,
    pub violations: Vec<Violation>,
    /// How often each promise was checked, in the order of [`Promise::ALL`].
    pub checks: [u64; 8],
    seen: BTreeMap<(usize, Op, String), At>,
    /// When each intent was sent, and by whom.
    sends: BTreeMap<(usize, String), u32>,
    /// Of each issuer object: the last mint that was sent and never answered.
    unanswered: BTreeMap<(usize, String), (String, At)>,
    /// Keys that a journal calls ours after an unknown mint, and nothing proves it.
    guessed: BTreeSet<KeyId>,
    /// A journal was replaced by an older one, or copied.
    restored: bool,
    /// Of each process: what stood in the journals it had before, in the order they were replaced.
    replaced: BTreeMap<usize, Vec<Replaced>>,
}

/// A journal that was replaced, as its process knew it last.
#[derive(Clone, Debug)]
struct Replaced {
    at: At,
    ledgers: BTreeMap<(usize, ServiceName), Ledger>,
    /// Whose secrets it held.
    held: BTreeSet<(ServiceName, KeyId)>,
}

/// When an event was written by the clocks of its machine.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    pub wall: At,
    pub boot: u32,
}

impl Told {
    pub fn of(at: &Instant) -> Told {
        let boot = at.boot_id.strip_prefix("boot-").and_then(|number| number.parse().ok());
        Told { wall: (at.wall - epoch()).to_std().unwrap_or_default(), boot: boot.expect("the ports name boots so") }
    }
}

/// Evidence may be this old when the act is sent; the requests of one look take a moment, and so does what they cannot see.
const EVIDENCE: Duration = Duration::from_secs(302);

/// Whether an event is a word that only adds to what is known of a key. What it does follows from what the targets showed, and the
/// machine is asked for that: a word that it took otherwise than the targets show breaks a promise later, if it matters.
pub fn only_vouches(before: &[Record], event: &Event, at: &Instant) -> bool {
    let Event::Adopted { key, readings, .. } = event else { return false };
    let state = ServiceState::replay(before.iter().map(|record| (&record.event, &record.at)));
    state.is_ok_and(|state| state.only_vouches(key, readings, at))
}

impl Oracle {
    fn checked(&mut self, promise: Promise) {
        self.checks[promise.place()] += 1;
    }

    /// Reads an event of a journal.
    pub fn read(&mut self, process: usize, service: &ServiceName, event: &Event, at: At, told: Told, vouches: bool) {
        self.ledgers.entry((process, service.clone())).or_default().read(event, at, told, vouches);
    }

    /// What one process has seen stands in the copy of its journal that another one has.
    pub fn copy_seen(&mut self, from: usize, to: usize) {
        let seen: Vec<_> =
            self.seen.iter().filter(|((of, ..), _)| *of == from).map(|(key, at)| (key.clone(), *at)).collect();
        self.seen.extend(seen.into_iter().map(|((_, op, about), at)| ((to, op, about), at)));
    }

    /// Forgets what was read of a journal that is replaced, but for what is still under way by its word.
    pub fn forget(&mut self, process: usize, shelf: &Shelf, at: At) {
        self.restored = true;
        let ledgers = self.ledgers.iter().filter(|((of, _), _)| *of == process);
        let ledgers = ledgers.map(|(whose, ledger)| (whose.clone(), ledger.clone())).collect();
        let held = shelf.materials.keys().cloned().collect();
        self.replaced.entry(process).or_default().push(Replaced { at, ledgers, held });
        // An older journal sends an intent again that it does not know of: nothing can tell it.
        self.sends.retain(|(of, _), _| *of != process);
        self.unanswered.retain(|(of, _), _| *of != process);
        self.ledgers.retain(|(of, _), _| *of != process);
    }
}

impl World {
    pub fn violated(&mut self, promise: Promise, what: String) {
        self.tell(|| format!("VIOLATION of {promise:?}: {what}"));
        self.oracle.violations.push(Violation { promise, what });
    }

    /// Whether a promise was broken.
    pub fn is_broken(&self) -> bool {
        !self.oracle.violations.is_empty()
    }

    pub fn hold(&mut self, promise: Promise, holds: bool, what: impl FnOnce() -> String) {
        self.oracle.checked(promise);
        if !holds {
            self.violated(promise, what());
        }
    }

    /// A process saw something; evidence is made of this.
    pub fn note_seen(&mut self, process: usize, op: Op, about: &str) {
        // An inspection is a reading too.
        let op = if op == Op::Inspect { Op::Read } else { op };
        let now = self.now();
        self.oracle.seen.insert((process, op, about.to_owned()), now);
    }

    fn seen_since(&self, process: usize, op: Op, about: &str, since: At) -> bool {
        self.oracle.seen.get(&(process, op, about.to_owned())).is_some_and(|at| *at >= since)
    }

    /// A request was answered, so that its sender knows what it came to.
    pub fn note_answered(&mut self, process: usize, deed: &Deed) {
        if let Deed::Mint { object, .. } = deed {
            self.oracle.unanswered.remove(&(process, object.clone()));
        }
    }

    /// After a boot only wall time tells how much has passed, and a clock that was behind at one end and ahead at the other shortens
    /// it by as much.
    fn clock_slack(&self) -> Duration {
        let (least, most) = self.clock_range;
        let wrong = if self.boot > 0 { (most - least).to_std().unwrap_or_default() } else { Duration::ZERO };
        Duration::from_secs(1) + wrong
    }

    /// The journal that a process had when it sent something, if it was replaced since: what it sent then may be carried out when
    /// it has an older one, which knows nothing of it.
    fn replaced_since(&self, process: usize, sent: At) -> Option<&Replaced> {
        self.oracle.replaced.get(&process)?.iter().find(|replaced| replaced.at >= sent)
    }

    /// What a process knew by its journal when it sent something.
    fn ledgers_at(&self, process: usize, sent: At) -> impl Iterator<Item = (&ServiceName, &Ledger)> + Clone {
        let then = self.replaced_since(process, sent).map_or(&self.oracle.ledgers, |replaced| &replaced.ledgers);
        let of_process = then.iter().filter(move |((of, _), _)| *of == process);
        of_process.map(|((_, service), ledger)| (service, ledger))
    }

    fn ledger_of(&self, process: usize, key: &KeyId, sent: At) -> Option<(&ServiceName, &Ledger)> {
        self.ledgers_at(process, sent).find(|(_, ledger)| ledger.knows(key))
    }

    /// Whether a process held the secret of a key when it sent something.
    fn held_secret(&self, process: usize, service: &ServiceName, key: &KeyId, sent: At) -> bool {
        let whose = (service.clone(), key.clone());
        match self.replaced_since(process, sent) {
            Some(replaced) => replaced.held.contains(&whose),
            None => self.shelves[process].materials.contains_key(&whose),
        }
    }
}
