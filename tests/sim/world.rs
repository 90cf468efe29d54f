//! The truth: which keys live, which key each target holds, what is still on its way. Everything happens here in virtual time.
//!
//! Written from the vendors' rules and not from rekeyd: nothing here asks what rekeyd believes. Here stands what there is; what
//! requests make of it is in `deeds`, what other people do in `hand`, what is still on its way in `queue`, and what anybody gets to
//! see in `answers`.

mod answers;
mod deeds;
mod hand;
mod mirror;
mod queue;
mod shared;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rekeyd::model::{Fault, IntentId, JobId, JobState, KeyId, Reason, Shape, Timestamp};
use tokio::sync::Notify;

use crate::faults::{Op, Plan, Site, Strike};
use crate::journal::Shelf;
use crate::oracle::Oracle;
use crate::stand_in::Kept;

pub use answers::is_role;
use queue::Happening;
pub use shared::Shared;

/// True time since the world began.
pub type At = Duration;

/// When the world began, on every calendar but a wrong clock's.
pub fn epoch() -> Timestamp {
    Timestamp::from_timestamp(1_795_305_600, 0).expect("2026-11-22T00:00:00Z is a time")
}

/// Who did something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Actor {
    /// A rekeyd, by its number: a second one has a journal of its own.
    Rekeyd(usize),
    /// Anybody else.
    Human,
}

/// A key as it really is.
#[derive(Clone, Debug)]
pub struct Key {
    pub id: KeyId,
    pub secret: String,
    pub made: At,
    pub made_by: Actor,
    pub intent: Option<IntentId>,
    pub active: bool,
    pub died: Option<At>,
    pub killed_by: Option<Actor>,
    /// When it was disabled last, whoever did it.
    pub disabled: Option<At>,
    /// When somebody else enabled it again.
    pub enabled_by_hand: Option<At>,
    /// When it was used last, apart from the targets that use it all the time.
    pub used: Option<At>,
    /// Nobody ever had its secret: what a slot is filled with.
    pub filler: bool,
    /// Whether an answer has told its secret to anybody.
    pub told: bool,
}

impl Key {
    pub fn works(&self) -> bool {
        self.active && self.died.is_none()
    }

    /// When the provider says it was made: those that were there when the world began are a month old.
    pub fn born(&self) -> Timestamp {
        if self.made.is_zero() { epoch() - chrono::TimeDelta::days(31) } else { epoch() + self.made }
    }
}

/// An issuer object.
#[derive(Clone, Debug)]
pub struct Vault {
    pub shape: Shape,
    pub account: String,
    pub keys: Vec<Key>,
    pub quota: Option<usize>,
    /// How late a listing is.
    pub lag: Duration,
    /// Its horizon was reckoned with the lag of now, for something that is still on its way.
    pub steady_until: At,
    /// How long a new key is not known everywhere.
    pub propagation: Duration,
    pub settle: Duration,
    /// How late use is reported; `None` where it is not.
    pub use_lag: Option<Duration>,
    /// The stand-in that keeps its keys, where its issuer is real.
    pub kept: Option<Arc<Kept>>,
}

impl Vault {
    /// What the targets hold of a secret: itself, or what is signed with it.
    fn held_form(&self, secret: &str) -> String {
        if self.shape == Shape::Derived { format!("signed-with-{secret}") } else { secret.to_owned() }
    }
}

/// What is signed with a secret: it begins and ends otherwise, and ends alike where the secrets do.
pub fn signed(secret: &str) -> String {
    let (head, end) = secret.split_at(secret.len() - 4);
    let end: String = end.bytes().map(|digit| char::from(b'a' + digit % 16)).collect();
    format!("signed-{head}{end}")
}

/// A place that holds a key and uses it all the time.
#[derive(Clone, Debug)]
pub struct Place {
    pub object: String,
    pub holds: Option<KeyId>,
    pub since: At,
    pub put_by: Actor,
    pub jobs: Vec<Job>,
    /// How long a job takes.
    pub takes: Duration,
    pub job_timeout: Duration,
    /// Whether it shows the end of the secret.
    pub shows: bool,
    /// The next jobs come to nothing, this many.
    pub failing: u32,
    /// The next jobs say that they worked and store nothing, this many.
    pub hollow: u32,
    /// A job is forgotten by the target (restarting site) from then on.
    pub forgets: bool,
    /// A push is done when its answer comes, and no job is known of.
    pub jobless: bool,
    /// Whether its consumer is watched: it works while the key it holds does, unless something else ails it.
    pub watched: bool,
    /// It fails for a reason of its own.
    pub sick: bool,
    /// It takes what is signed with a key, and not the key.
    pub is_signed: bool,
    /// What it was handed of each key, where that is a real issuer's.
    pub forms: BTreeMap<KeyId, String>,
}

#[derive(Clone, Debug)]
pub struct Job {
    pub id: JobId,
    pub key: KeyId,
    pub by: Actor,
    pub state: JobState,
}

/// A request that changes something.
#[derive(Clone, Debug)]
pub enum Deed {
    Mint { object: String, intent: IntentId, replaces: Option<KeyId> },
    Disable { object: String, key: KeyId },
    Enable { object: String, key: KeyId },
    Delete { object: String, key: KeyId },
    Push { target: String, key: KeyId },
}

impl Deed {
    /// The issuer object it is about.
    pub fn object(&self) -> Option<&str> {
        match self {
            Deed::Mint { object, .. }
            | Deed::Disable { object, .. }
            | Deed::Enable { object, .. }
            | Deed::Delete { object, .. } => Some(object),
            Deed::Push { .. } => None,
        }
    }
}

/// What a deed came to.
#[derive(Clone, Debug)]
pub enum Outcome {
    Minted(KeyId, Timestamp),
    Job(JobId),
    Done,
}

/// What somebody else does to the world.
pub type ByHand = Arc<dyn Fn(&mut World) + Send + Sync>;

/// How much was done, for the counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub strikes: u64,
    pub requests: u64,
    pub writes: u64,
    pub crashes: u64,
}

/// Everything there is.
pub struct World {
    start: tokio::time::Instant,
    /// When that happens which is being caught up with.
    as_of: Option<At>,
    pub vaults: BTreeMap<String, Vault>,
    pub places: BTreeMap<String, Place>,
    queue: BTreeMap<(At, u64), Happening>,
    numbers: u64,
    pub plan: Plan,
    pub sites: Vec<Site>,
    pub shelves: Vec<Shelf>,
    pub oracle: Oracle,
    pub tally: Tally,
    /// One of each process; rung when it is to die.
    pub bells: Vec<Arc<Notify>>,
    /// Whether a process is dead and only waits to be buried.
    pub dead: BTreeSet<usize>,
    /// How far the wall clock is off.
    pub wall_ahead: chrono::TimeDelta,
    /// The least and the most it ever was.
    pub clock_range: (chrono::TimeDelta, chrono::TimeDelta),
    pub boot: u32,
    pub booted: At,
    /// The end of a secret is one of this many.
    pub ends: u64,
    /// The policy in force, where it was changed since the beginning.
    pub policy: Option<Arc<rekeyd::policy::Policy>>,
    /// Whatever of this kind is asked is struck like this, whatever the plan says.
    pub down: BTreeMap<Op, Strike>,
    /// Rung at every site, for whoever acts on what has just happened.
    pub stir: Arc<Notify>,
    told: Option<Vec<String>>,
}

impl World {
    pub fn now(&self) -> At {
        self.as_of.unwrap_or_else(|| tokio::time::Instant::now().duration_since(self.start))
    }

    /// The date as the rest of the world has it.
    pub fn date(&self) -> Timestamp {
        epoch() + self.now()
    }

    /// Somebody sets the wall clock so far ahead of the true time.
    pub fn set_clock(&mut self, ahead: chrono::TimeDelta) {
        let (least, most) = self.clock_range;
        self.clock_range = (least.min(ahead), most.max(ahead));
        self.wall_ahead = ahead;
    }

    pub fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub fn tell(&mut self, line: impl FnOnce() -> String) {
        let at = self.now();
        if let Some(told) = &mut self.told {
            told.push(format!("{:>9.2} s  {}", at.as_secs_f64(), line()));
        }
    }

    pub fn take_story(&mut self) -> Vec<String> {
        self.told.take().unwrap_or_default()
    }

    pub fn kill_process(&mut self, process: usize) {
        if self.dead.insert(process) {
            self.tally.crashes += 1;
            self.tell(|| format!("rekeyd {process} dies"));
            self.bells[process].notify_one();
        }
    }

    fn pass(&mut self, op: Op, about: &str) -> Option<Strike> {
        let site = Site { index: self.sites.len(), op };
        self.sites.push(site);
        self.stir.notify_one();
        match op {
            Op::Write(_) | Op::Reserve | Op::Shred => self.tally.writes += 1,
            _ => self.tally.requests += 1,
        }
        let now = self.now();
        let strike = self.down.get(&op).copied().or_else(|| self.plan.strikes(site, about, now))?;
        self.tally.strikes += 1;
        self.tell(|| format!("site {}: {op:?} of {about} is struck: {strike:?}", site.index));
        Some(strike)
    }

    pub fn key(&self, object: &str, key: &KeyId) -> Option<&Key> {
        self.vaults.get(object)?.keys.iter().find(|known| known.id == *key)
    }

    fn key_mut(&mut self, object: &str, key: &KeyId) -> Option<&mut Key> {
        self.vaults.get_mut(object)?.keys.iter_mut().find(|known| known.id == *key)
    }

    /// A key wherever it lives.
    pub fn find(&self, key: &KeyId) -> Option<(&str, &Key)> {
        let mut all = self.vaults.iter().flat_map(|(object, vault)| vault.keys.iter().map(move |key| (&**object, key)));
        all.find(|(_, known)| known.id == *key)
    }

    /// Whether targets hold what is derived from this key by its own issuer.
    pub fn is_derived(&self, key: &KeyId) -> bool {
        self.find(key).is_some_and(|(object, _)| self.vaults[object].shape == Shape::Derived)
    }

    /// Whether a key lives in a slot.
    pub fn is_in_slot(&self, key: &KeyId) -> bool {
        self.find(key).is_some_and(|(object, _)| self.vaults[object].shape.has_slots())
    }

    /// Whether somebody may have the secret of a key: one that is shown only in the answer to its mint is nobody's where that was
    /// lost.
    pub fn is_anybodys(&self, object: &str, key: &Key) -> bool {
        let once = matches!(self.vaults[object].shape, Shape::ShownOnce | Shape::Labelled);
        !key.filler && (key.told || !once)
    }

    /// The answer to a mint has arrived.
    pub fn tell_secret(&mut self, object: &str, key: &KeyId) {
        if let Some(key) = self.key_mut(object, key) {
            key.told = true;
        }
    }

    pub fn in_slot_of(&self, object: &str, key: &KeyId) -> Option<KeyId> {
        let slot = slot_of(key);
        let there = self.vaults[object].keys.iter().find(|key| key.died.is_none() && slot_of(&key.id) == slot);
        there.map(|key| key.id.clone())
    }

    fn must_exist(&self, object: &str, key: &KeyId) -> Result<(), Fault> {
        match self.key(object, key).is_some_and(|key| key.died.is_none()) {
            true => Ok(()),
            false => {
                Err(Fault::Refused { reason: Reason::NotFound, why: format!("{object}: key {key} does not exist") })
            }
        }
    }
}

/// `slot1` of `slot1@7`.
pub fn slot_of(key: &KeyId) -> String {
    key.as_str().split('@').next().unwrap_or_default().to_owned()
}
