//! The promises of DESIGN 1, checked at every request that is executed and every event that becomes durable.
//!
//! Held against the truth of the world and against a reading of the journal of its own; what the machine believes counts for
//! nothing here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rekeyd::model::{Instant, JobState, KeyId, Reading, Reason, ServiceName, Shape, TargetName};
use rekeyd::ports::Record;
use rekeyd::rotation::ServiceState;
use rekeyd::rotation::event::{AdoptedBy, Cause, Event, Outcome, RotationKind, Snapshot};

use crate::faults::Op;
use crate::world::{Actor, At, Deed, Job, Key, World, epoch};

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
}

/// A reading of one service's journal.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Minted by us, or ours on an operator's word.
    pub ours: BTreeSet<KeyId>,
    /// Taken on by itself: may be disabled.
    pub taken_on: BTreeSet<KeyId>,
    intents: BTreeSet<String>,
    open: Option<Open>,
    last: Option<Snapshot>,
    pub current: Option<KeyId>,
    superseded: BTreeMap<KeyId, Superseded>,
    disabled: BTreeMap<KeyId, At>,
    absent_once: BTreeMap<KeyId, At>,
    pub gone: BTreeSet<KeyId>,
    pub closed: u32,
    pub done: u32,
    pub strangers: BTreeSet<KeyId>,
    pub disowned: BTreeSet<KeyId>,
    /// An operator said that these go although they are in use.
    despite_use: BTreeSet<KeyId>,
    halt: Option<Reason>,
    /// On its way out, whatever sent it there.
    leaving: BTreeSet<KeyId>,
    /// The targets of the service when a key was sent out, which are those that may hold it.
    held_at: BTreeMap<KeyId, Vec<TargetName>>,
}

#[derive(Clone, Debug)]
struct Open {
    at: At,
    snapshot: Snapshot,
    compromised: bool,
    fresh: bool,
    former: Option<KeyId>,
    installing: Option<KeyId>,
    verified: BTreeMap<TargetName, bool>,
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

#[derive(Clone, Copy, Debug)]
struct Superseded {
    at: At,
    soak: Duration,
    watch: Duration,
    silence_asked: bool,
    /// Whoever used it before has moved.
    silent_from: At,
    /// The same by the journal's wall clock, and the boot it was told in: after another boot there is nothing else to go by.
    silent_wall: At,
    boot: u32,
}

/// Evidence may be this old when the act is sent; the requests of one look take a moment, and so does what they cannot see.
const EVIDENCE: Duration = Duration::from_secs(302);

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

    /// Forgets what was read of a journal that was replaced.
    pub fn forget(&mut self, process: usize) {
        self.restored = true;
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

    /// A changing request leaves: its intent must be durable, and a mint is sent once.
    pub fn check_sent(&mut self, process: usize, deed: &Deed) {
        if let Deed::Push { target, .. } = deed {
            self.check_overwritten(process, target);
        }
        let Deed::Mint { object, intent, .. } = deed else { return };
        let durable = self
            .oracle
            .ledgers
            .iter()
            .any(|((of, _), ledger)| *of == process && ledger.intents.contains(intent.as_str()));
        self.hold(Promise::NoUntrackedKey, durable, || {
            format!("a mint of {intent} is sent, and its intent is not durable")
        });
        let sends = self.oracle.sends.entry((process, intent.to_string())).or_default();
        *sends += 1;
        let (sends, shape) = (*sends, self.vaults[object].shape);
        let once = sends == 1 || shape == Shape::ClientNamed;
        self.hold(Promise::NoUntrackedKey, once, || format!("a mint of {intent} is sent {sends} times"));
        let (now, settle) = (self.now(), self.vaults[object].settle);
        let place = (process, object.clone());
        let lost = self.oracle.unanswered.get(&place).filter(|(other, _)| *other != intent.as_str()).cloned();
        // Where a mint replaces what a slot holds, the slot says what came of the one before.
        if let Some((other, sent)) = lost.filter(|_| !shape.has_slots()) {
            let waited = now.saturating_sub(sent) + Duration::from_secs(1);
            self.hold(Promise::NoUntrackedKey, waited >= settle, || {
                format!("a mint of {intent} is sent while that of {other}, never answered, may still arrive")
            });
        }
        self.oracle.unanswered.insert(place, (intent.to_string(), now));
    }

    /// A request was answered, so that its sender knows what it came to.
    pub fn note_answered(&mut self, process: usize, deed: &Deed) {
        if let Deed::Mint { object, .. } = deed {
            self.oracle.unanswered.remove(&(process, object.clone()));
        }
    }

    /// What somebody else put into a target since the rotation was opened, and rekeyd has seen there, is not overwritten.
    fn check_overwritten(&mut self, process: usize, target: &str) {
        let name = TargetName::new(target);
        let place = &self.places[target];
        let mut ledgers = self.oracle.ledgers.iter().filter(|((of, _), _)| *of == process).map(|(_, ledger)| ledger);
        let moving = ledgers.find_map(|ledger| {
            let open = ledger.open.as_ref().filter(|open| open.fresh)?;
            open.snapshot.targets.iter().any(|found| found.spec.name == name).then_some((ledger, open))
        });
        let Some((ledger, open)) = moving else { return };
        let changed = place.put_by != Actor::Rekeyd(process) && place.since > open.at;
        let seen = place.shows && self.seen_since(process, Op::Read, target, place.since);
        // An end that a key of ours has as well tells nothing.
        let end = |key: &KeyId| self.find(key).map(|(_, key)| key.secret[key.secret.len() - 4..].to_owned());
        let ends: BTreeSet<_> = [&open.former, &open.installing].into_iter().flatten().map(end).collect();
        let stranger = place.holds.clone().filter(|held| !ledger.knows(held) && !ends.contains(&end(held)));
        // Where nothing was shown when the rotation opened, what is shown now may be what was there then.
        let mut found = open.snapshot.targets.iter().filter(|found| found.spec.name == name);
        let known = found.any(|found| found.reading != Reading::Hidden);
        let overwritten = stranger.filter(|_| changed && seen && known);
        self.hold(Promise::StrangersSafe, overwritten.is_none(), || {
            format!("{target} was changed by hand to key {overwritten:?}, which was seen, and it is overwritten")
        });
    }

    /// A request of rekeyd's makes a key unusable: by disabling it, deleting it, or filling its slot.
    pub fn check_kill(&mut self, object: &str, key: &KeyId, op: Op, by: Actor, sent: At) {
        let Actor::Rekeyd(process) = by else { return };
        let names: Vec<String> = self.places.keys().cloned().collect();
        for name in names {
            let coming = self.held_or_coming(&name).contains(key);
            let excused = coming && self.is_excused(&name, key, process, sent);
            self.hold(Promise::NoOutage, !coming || excused, || {
                format!("{op:?} of key {key}, which {name} holds or is about to be given")
            });
        }
        self.check_ours(key, op, process);
        if op != Op::Mint {
            self.check_evidence(object, key, op, process, sent);
        }
    }

    /// What somebody else did to a target after it was last looked at, or what a look cannot show, is not of our making.
    fn is_excused(&self, target: &str, key: &KeyId, process: usize, sent: At) -> bool {
        let despite = self.ledger_of(process, key).is_some_and(|(_, ledger)| ledger.despite_use.contains(key));
        if despite {
            return true;
        }
        let place = &self.places[target];
        // Two daemons on slots that are said to be one's own: the one cannot know what the other left in which.
        let twins = |(object, key): (&str, &Key)| {
            let by_other = matches!(key.made_by, Actor::Rekeyd(other) if other != process);
            by_other && self.vaults[object].shape.has_slots()
        };
        // Nor can an older journal know which slot was filled since it was copied, where a target shows nothing.
        let slots = self.find(key).is_some_and(|(object, _)| self.vaults[object].shape.has_slots());
        let blind = self.oracle.restored && slots && !place.shows;
        // What a second daemon with a copy of the journal is handing over at this moment shows nowhere yet.
        let by_twin = |job: &Job| {
            job.key == *key && job.by != Actor::Rekeyd(process) && matches!(job.state, JobState::Running(_))
        };
        let on_its_way = place.jobs.iter().any(by_twin) || self.is_coming_from_another(target, key, process);
        if place.holds.as_ref() != Some(key) && on_its_way {
            return true;
        }
        if blind || self.find(key).is_some_and(twins) {
            return true;
        }
        // What somebody puts into a place that is no target of the service is nobody's business but theirs.
        let targets = self
            .ledger_of(process, key)
            .and_then(|(_, ledger)| ledger.open.as_ref().map(|open| &open.snapshot).or(ledger.last.as_ref()));
        let served =
            targets.is_none_or(|snapshot| snapshot.targets.iter().any(|found| found.spec.name.as_str() == target));
        if !served && (place.put_by == Actor::Human || self.oracle.restored) {
            return true;
        }
        if place.holds.as_ref() != Some(key) || place.put_by == Actor::Rekeyd(process) {
            return false;
        }
        let seen = self.oracle.seen.get(&(process, Op::Read, target.to_owned())).copied().unwrap_or_default();
        if place.since >= seen && sent.saturating_sub(seen) <= EVIDENCE {
            return true;
        }
        // Where the end of the secret tells nothing, only the provider's report of its use does, and that comes late.
        let vault = self.find(key).map(|(object, _)| &self.vaults[object]);
        let ends_alike = |key: &KeyId| self.find(key).map(|(_, key)| key.secret[key.secret.len() - 4..].to_owned());
        let object = self.find(key).map(|(object, _)| object);
        let at_home = |ledger: &Ledger| ledger.last.as_ref().is_some_and(|last| Some(&*last.issuer.object) == object);
        let mut of_process = self.oracle.ledgers.iter().filter(|((of, _), _)| *of == process);
        // What a lost mint put into a slot no journal knows by name.
        let current = of_process.clone().find(|(_, ledger)| ledger.knows(key));
        let current = current.or_else(|| of_process.find(|(_, ledger)| at_home(ledger)));
        let same_end = current
            .and_then(|(_, ledger)| ledger.current.as_ref())
            .is_some_and(|current| ends_alike(current) == ends_alike(key));
        // Nobody asks for the silence of a key that no target was ever handed, nor of one in wrong hands, which use it.
        let unasked = current
            .is_some_and(|(_, ledger)| ledger.superseded.get(key).is_none_or(|superseded| !superseded.silence_asked));
        match vault.and_then(|vault| vault.use_lag) {
            _ if place.shows && !same_end => false,
            // What it held from the beginning nobody else changed.
            _ if place.since.is_zero() => false,
            Some(lag) => unasked || place.since + lag + EVIDENCE >= sent,
            None => true,
        }
    }

    /// After a boot only wall time tells how much has passed, and a clock that was wrong at one end shortens it by as much.
    fn clock_slack(&self) -> Duration {
        let wrong = if self.boot > 0 { self.clock_wrong } else { Duration::ZERO };
        Duration::from_secs(1) + wrong
    }

    fn ledger_of(&self, process: usize, key: &KeyId) -> Option<(&ServiceName, &Ledger)> {
        let mut of = self.oracle.ledgers.iter().filter(|((of, _), _)| *of == process);
        of.find(|(_, ledger)| ledger.knows(key)).map(|((_, service), ledger)| (service, ledger))
    }

    fn check_ours(&mut self, key: &KeyId, op: Op, process: usize) {
        let ledger = self.ledger_of(process, key).map(|(_, ledger)| ledger);
        let proven = match op {
            Op::Disable => ledger.is_some_and(|ledger| ledger.ours.contains(key) || ledger.taken_on.contains(key)),
            // Where keys live in slots, `exclusive` says that an idle one is ours to replace.
            Op::Mint => true,
            // Nobody ever had the secret of what fills a slot.
            _ if self.find(key).is_some_and(|(_, key)| key.filler) => true,
            _ => ledger.is_some_and(|ledger| ledger.ours.contains(key)),
        };
        let proven = proven && !self.oracle.guessed.contains(key);
        self.hold(Promise::StrangersSafe, proven, || {
            format!("{op:?} of key {key}, which the journal does not prove ours")
        });
    }

    fn check_evidence(&mut self, object: &str, key: &KeyId, op: Op, process: usize, sent: At) {
        let Some((service, ledger)) = self.ledger_of(process, key) else { return };
        let (service, ledger) = (service.clone(), ledger.clone());
        let since = sent.saturating_sub(EVIDENCE);
        let mut missing = Vec::new();
        if !self.seen_since(process, Op::Identity, object, since) {
            missing.push(format!("the account of {object}"));
        }
        if !self.seen_since(process, Op::List, object, since) {
            missing.push(format!("the keys of {object}"));
        }
        if self.vaults[object].use_lag.is_some() && !self.seen_since(process, Op::LastUse, key.as_str(), since) {
            missing.push("its last use".to_owned());
        }
        if let Some(current) = &ledger.current
            && self.shelves[process].materials.contains_key(&(service.clone(), current.clone()))
            && !self.seen_since(process, Op::Probe, current.as_str(), since)
        {
            missing.push(format!("a probe of current key {current}"));
        }
        let targets = ledger.held_at.get(key).cloned().unwrap_or_else(|| ledger.targets());
        for target in targets {
            if !self.seen_since(process, Op::Read, target.as_str(), since) {
                missing.push(format!("a reading of {target}"));
            }
        }
        self.hold(Promise::FreshEvidence, missing.is_empty(), || {
            format!("{op:?} of key {key} without having seen in five minutes: {}", missing.join(", "))
        });
        if let Some(superseded) = ledger.superseded.get(key) {
            let waited = sent.saturating_sub(superseded.at);
            let second = self.clock_slack();
            self.hold(Promise::FreshEvidence, waited + second >= superseded.soak, || {
                format!(
                    "{op:?} of key {key} {waited:?} after every target was Verified, before its soak of {:?}",
                    superseded.soak
                )
            });
        }
        if op == Op::Delete && self.vaults[object].shape.can_disable() {
            let disabled = ledger.disabled.get(key).copied();
            self.hold(Promise::FreshEvidence, disabled.is_some(), || {
                format!("key {key} is deleted and never was disabled")
            });
            // The journal's word for it is not enough.
            let truth = self.key(object, key).filter(|key| key.active).cloned();
            let never = truth.as_ref().is_some_and(|key| key.disabled.is_none());
            self.hold(Promise::FreshEvidence, !never, || {
                format!("key {key} is deleted and in truth never was disabled")
            });
            let again = truth.and_then(|key| key.enabled_by_hand);
            let lag = self.vaults[object].lag;
            let ignored = again.filter(|again| self.seen_since(process, Op::List, object, *again + lag));
            self.hold(Promise::FreshEvidence, ignored.is_none(), || {
                format!(
                    "key {key} is deleted, which somebody enabled again {ignored:?} and the listing shows as active"
                )
            });
            if let (Some(disabled), Some(superseded)) = (disabled, ledger.superseded.get(key)) {
                let watched = sent.saturating_sub(disabled) + self.clock_slack();
                self.hold(Promise::FreshEvidence, watched >= superseded.watch, || {
                    format!("key {key} is deleted {watched:?} after it was disabled, before its watch is over")
                });
            }
        }
        // Silence: where its use is reported, nobody may have used it since the last Confirmed, as far as that was told.
        if let (Some(lag), Some(superseded)) = (self.vaults[object].use_lag, ledger.superseded.get(key).copied())
            && superseded.silence_asked
            && !ledger.despite_use.contains(key)
        {
            let told = sent.saturating_sub(lag);
            let same_boot = superseded.boot == self.boot;
            let silent_from = superseded.silent_from.max(if same_boot { At::ZERO } else { superseded.silent_wall });
            let used = self.key(object, key).and_then(|key| key.used);
            let used = used.filter(|used| *used > silent_from + Duration::from_secs(1) && *used + EVIDENCE <= told);
            self.hold(Promise::FreshEvidence, used.is_none(), || {
                format!("{op:?} of key {key}, which was used {used:?} after every target was confirmed to hold another")
            });
        }
    }

    /// A job has stored a key: it must work, unless somebody else killed it.
    pub fn check_store(&mut self, target: &str, key: &KeyId, by: Actor) {
        let Actor::Rekeyd(_) = by else { return };
        let now = self.now();
        let known = self.find(key).map(|(object, key)| {
            let everywhere = key.made.is_zero() || key.made + self.vaults[object].propagation <= now;
            (key.works() && everywhere, key.killed_by)
        });
        // What somebody else killed, or the twin that has a copy of the journal, this one could not know.
        let by_other = |killed_by: Option<Actor>| killed_by.is_some_and(|killer| killer != by);
        let fine = known.is_some_and(|(works, killed_by)| works || by_other(killed_by));
        self.hold(Promise::NoOutage, fine, || format!("{target} is given key {key}, which does not work"));
    }

    /// An event has become durable.
    pub fn check_event(&mut self, process: usize, service: &ServiceName, event: &Event, at: &Instant) {
        let now = self.now();
        match event {
            Event::Gone { key } => {
                let alive = self.find(key).is_some_and(|(_, key)| key.died.is_none());
                self.hold(Promise::NothingForgotten, !alive, || format!("key {key} is called gone and lives"));
                let settle = self.find(key).map(|(object, _)| self.vaults[object].settle).unwrap_or_default();
                let ledger = self.oracle.ledgers.get(&(process, service.clone()));
                let apart =
                    ledger.and_then(|ledger| ledger.absent_once.get(key)).map(|once| now - *once).unwrap_or_default();
                let slack = self.clock_slack();
                self.hold(Promise::NothingForgotten, apart + slack >= settle, || {
                    format!("key {key} is called gone on listings {apart:?} apart, and not {settle:?}")
                });
            }
            Event::Closed { outcome: Outcome::Done } => {
                let open = self.oracle.ledgers.get(&(process, service.clone())).and_then(|ledger| ledger.open.clone());
                if let Some(open) = open.filter(|open| open.fresh) {
                    let old = open.former.filter(|old| Some(old) != open.installing.as_ref());
                    let alive = old.as_ref().and_then(|old| self.find(old)).is_some_and(|(_, key)| key.died.is_none());
                    self.hold(Promise::NothingForgotten, !alive, || {
                        format!("a rotation is done and key {old:?} lives")
                    });
                    for target in &open.snapshot.targets {
                        let verified = open.verified.contains_key(&target.spec.name);
                        self.hold(Promise::NoOutage, verified, || {
                            format!("a rotation is done and {} was never Verified", target.spec.name)
                        });
                    }
                }
            }
            Event::Verified { target, proven: true } => {
                let ledger = self.oracle.ledgers.get(&(process, service.clone()));
                let installing = ledger.and_then(|ledger| ledger.open.as_ref()?.installing.clone());
                let opened = ledger.and_then(|ledger| Some(ledger.open.as_ref()?.at)).unwrap_or_default();
                let shown_before = ledger.and_then(|ledger| {
                    let targets = &ledger.open.as_ref()?.snapshot.targets;
                    targets.iter().find(|found| found.spec.name == *target)?.reading.tail().cloned()
                });
                let place = &self.places[target.as_str()];
                // What somebody else put there since is not of our making; what was there all the time is.
                let excused = place.put_by != Actor::Rekeyd(process) && place.since > opened;
                let holds = place.holds == installing;
                self.hold(Promise::NoOutage, holds || excused, || {
                    format!("{target} is called proven to hold key {installing:?} and does not")
                });
                // Of a key that was minted since, only a change of what is shown proves that it arrived.
                let new = installing.as_ref().and_then(|key| self.find(key)).map(|(_, key)| key);
                let new = new.filter(|key| key.made >= opened);
                let shows = |key: &Key| shown_before.as_ref().is_some_and(|end| key.secret.ends_with(end.as_str()));
                let told = self.places[target.as_str()].shows && !new.is_some_and(shows);
                self.hold(Promise::FreshEvidence, told, || {
                    format!("{target} is called proven to hold key {installing:?}, and what it shows cannot tell")
                });
            }
            Event::Halted { reason, message } => {
                let own = message.contains("mistake of rekeyd's own");
                self.hold(Promise::NoMistakeOfOurOwn, !own, || format!("{service} halts ({reason}): {message}"));
            }
            _ => {}
        }
        match event {
            Event::MintSettled { found, reclaim: true } => {
                let guessed: Vec<KeyId> =
                    found.iter().filter(|key| !self.is_proven_by_look(process, service, key)).cloned().collect();
                self.oracle.guessed.extend(guessed);
            }
            Event::ReclaimOrdered { key, .. } | Event::Adopted { key, .. } => _ = self.oracle.guessed.remove(key),
            _ => {}
        }
        let told = Told::of(at);
        let before = self.shelves[process].records.get(service).and_then(|records| records.split_last());
        let vouches = before.is_some_and(|(_, before)| only_vouches(before, event, at));
        self.oracle.read(process, service, event, now, told, vouches);
    }

    /// Whether a service's last rotation was at this issuer object.
    fn is_home(&self, process: usize, object: &str) -> bool {
        let mut ledgers = self.oracle.ledgers.iter().filter(|((of, _), _)| *of == process).map(|(_, ledger)| ledger);
        ledgers.any(|ledger| ledger.last.as_ref().is_some_and(|last| last.issuer.object == object))
    }

    /// Whether a look after an unknown mint proves a key ours: where every key is rekeyd's to manage, or where the listing tells
    /// what each was made for.
    fn is_proven_by_look(&self, process: usize, service: &ServiceName, key: &KeyId) -> bool {
        let Some(ledger) = self.oracle.ledgers.get(&(process, service.clone())) else { return false };
        let Some(issuer) = ledger.open.as_ref().map(|open| &open.snapshot.issuer) else { return false };
        let intent = self.find(key).and_then(|(_, key)| key.intent.as_ref());
        let told = matches!(issuer.shape, Shape::Labelled | Shape::ClientNamed);
        issuer.exclusive || (told && intent.is_some_and(|intent| ledger.intents.contains(intent.as_str())))
    }

    /// Whether the journal says that a key is on its way out.
    fn is_leaving(&self, process: usize, key: &KeyId) -> bool {
        self.shelves[process].records.values().any(|records| {
            let state = ServiceState::replay(records.iter().map(|record| (&record.event, &record.at)));
            state.is_ok_and(|state| state.leaving.contains_key(key))
        })
    }

    /// At the end of a history, when nothing is on its way: everything that was made is accounted for.
    pub fn check_end(&mut self, process: usize, halted: &BTreeMap<ServiceName, Reason>) {
        let keys: Vec<(String, KeyId)> = self
            .vaults
            .iter()
            // What lives at an object that no policy names any more, in a journal that was lost, is beyond anybody's sight.
            .filter(|(object, _)| !self.oracle.restored || self.is_home(process, object))
            .flat_map(|(object, vault)| {
                let made = vault.keys.iter().filter(|key| key.died.is_none() && key.made_by == Actor::Rekeyd(process));
                made.filter(|key| !key.filler).map(move |key| (object.clone(), key.id.clone()))
            })
            .collect();
        for (object, key) in keys {
            let slots = self.vaults[&object].shape.has_slots();
            let ledgers: Vec<&Ledger> =
                self.oracle.ledgers.iter().filter(|((of, _), _)| *of == process).map(|(_, ledger)| ledger).collect();
            let known = ledgers.iter().any(|ledger| {
                ledger.ours.contains(&key) || ledger.strangers.contains(&key) || ledger.disowned.contains(&key)
            });
            self.hold(Promise::NoUntrackedKey, known || slots, || {
                format!("key {key} was minted, lives, and nobody knows it")
            });
            let ledgers = self.oracle.ledgers.iter().filter(|((of, _), _)| *of == process);
            let needed = ledgers.into_iter().any(|(_, ledger)| {
                ledger.current.as_ref() == Some(&key)
                    || ledger.strangers.contains(&key)
                    || ledger.disowned.contains(&key)
            });
            let waiting = !halted.is_empty() || self.is_leaving(process, &key);
            self.hold(Promise::NothingForgotten, needed || slots || waiting, || {
                format!("key {key} of {object} is not needed, lives, and nothing is done about it")
            });
        }
    }
}

/// Whether an event is a word that only adds to what is known of a key. What it does follows from what the targets showed, and the
/// machine is asked for that: a word that it took otherwise than the targets show breaks a promise later, if it matters.
pub fn only_vouches(before: &[Record], event: &Event, at: &Instant) -> bool {
    let Event::Adopted { key, readings, .. } = event else { return false };
    let state = ServiceState::replay(before.iter().map(|record| (&record.event, &record.at)));
    state.is_ok_and(|state| state.only_vouches(key, readings, at))
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
    fn targets(&self) -> Vec<TargetName> {
        let snapshot = self.open.as_ref().map(|open| &open.snapshot).or(self.last.as_ref());
        snapshot.into_iter().flat_map(|snapshot| &snapshot.targets).map(|found| found.spec.name.clone()).collect()
    }

    /// `vouches`: the event is an operator's word about a key that is replaced, or on its way out, and does not make it current.
    fn read(&mut self, event: &Event, now: At, told: Told, vouches: bool) {
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
                self.despite_use.extend(self.leaving.iter().chain(self.superseded.keys()).cloned());
            }
            Event::Opened { cause, kind, snapshot, .. } => {
                let fresh = *kind == RotationKind::Fresh;
                self.last = Some((**snapshot).clone());
                self.open = Some(Open {
                    at: now,
                    snapshot: (**snapshot).clone(),
                    compromised: matches!(cause, Cause::Operator { compromised: true, .. }),
                    fresh,
                    former: self.current.clone(),
                    installing: if fresh { None } else { self.current.clone() },
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
