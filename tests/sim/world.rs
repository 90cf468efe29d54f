//! The truth: which keys live, which key each target holds, what is still on its way. Everything happens here in virtual time.
//!
//! Written from the vendors' rules and not from rekeyd: nothing here asks what rekeyd believes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rekeyd::model::{Fault, Health, Holder, Inspection, IntentId, JobId, JobState, KeyId, LastUse, ListedKey, Listing};
use rekeyd::model::{Material, Probe, Reading, Reason, Secret, Shape, Tail, Timestamp};
use tokio::sync::Notify;

use crate::faults::{Op, Plan, Site, Strike};
use crate::journal::Shelf;
use crate::oracle::{Oracle, Told, only_vouches};

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
}

impl Key {
    pub fn works(&self) -> bool {
        self.active && self.died.is_none()
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
}

impl Vault {
    /// What the targets hold of a secret: itself, or what is signed with it.
    fn held_form(&self, secret: &str) -> String {
        if self.shape == Shape::Derived { format!("signed-with-{secret}") } else { secret.to_owned() }
    }
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

/// What a deed came to.
#[derive(Clone, Debug)]
pub enum Outcome {
    Minted(KeyId, Timestamp),
    Job(JobId),
    Done,
}

/// What somebody else does to the world.
pub type ByHand = Arc<dyn Fn(&mut World) + Send + Sync>;

#[derive(Clone)]
enum Happening {
    /// A request arrives that was sent before.
    Late { deed: Deed, by: Actor, sent: At },
    /// A job ends.
    JobEnds { target: String, job: JobId },
    /// Somebody else does something.
    ByHand(ByHand),
}

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
    /// The most it ever was.
    pub clock_wrong: Duration,
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

/// Shared by ports, driver and operator.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<World>>);

impl Shared {
    pub fn new(plan: Plan, tell: bool) -> Self {
        Shared(Arc::new(Mutex::new(World {
            start: tokio::time::Instant::now(),
            as_of: None,
            vaults: BTreeMap::new(),
            places: BTreeMap::new(),
            queue: BTreeMap::new(),
            numbers: 0,
            plan,
            sites: Vec::new(),
            shelves: Vec::new(),
            oracle: Oracle::default(),
            tally: Tally::default(),
            bells: Vec::new(),
            dead: BTreeSet::new(),
            wall_ahead: chrono::TimeDelta::zero(),
            clock_wrong: Duration::ZERO,
            boot: 0,
            booted: Duration::ZERO,
            ends: 10_000,
            policy: None,
            down: BTreeMap::new(),
            stir: Arc::default(),
            told: tell.then(Vec::new),
        })))
    }

    /// The world, with everything that is due by now.
    pub fn world(&self) -> MutexGuard<'_, World> {
        let mut world = self.0.lock().expect("no port panics while it holds the world");
        world.catch_up();
        world
    }

    /// Passes a site; returns how it is struck. Where the process dies, this never returns.
    pub async fn arrive(&self, process: usize, op: Op, about: &str) -> Option<Strike> {
        // A request takes a moment, so that services and processes meet in every order.
        if !matches!(op, Op::Write(_) | Op::Reserve | Op::Shred) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let strike = {
            let mut world = self.world();
            if world.dead.contains(&process) { None } else { world.pass(op, about) }
        };
        if self.world().dead.contains(&process) {
            std::future::pending::<()>().await;
        }
        strike
    }

    /// The process dies here.
    pub async fn die(&self, process: usize) {
        {
            let mut world = self.world();
            world.kill_process(process);
        }
        std::future::pending::<()>().await;
    }
}

impl World {
    pub fn now(&self) -> At {
        self.as_of.unwrap_or_else(|| tokio::time::Instant::now().duration_since(self.start))
    }

    /// The date as the rest of the world has it.
    pub fn date(&self) -> Timestamp {
        epoch() + self.now()
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

    /// Whether something is still on its way.
    pub fn quiet_at(&self) -> Option<At> {
        self.queue.keys().next_back().map(|(at, _)| *at)
    }

    fn catch_up(&mut self) {
        let now = self.now();
        while let Some(((at, _), _)) = self.queue.first_key_value()
            && *at <= now
        {
            let ((at, _), happening) = self.queue.pop_first().expect("it was just looked at");
            // Nobody looked since, and it happened when it was due.
            self.as_of = Some(at);
            match happening {
                Happening::Late { deed, by, sent } => {
                    self.tell(|| format!("what was sent at {:.2} s arrives: {deed:?}", sent.as_secs_f64()));
                    let _ = self.execute(&deed, by, sent, true);
                }
                Happening::JobEnds { target, job } => self.job_ends(&target, &job),
                Happening::ByHand(deed) => deed(self),
            }
        }
        self.as_of = None;
    }

    /// Somebody else will do something.
    pub fn schedule(&mut self, at: At, deed: ByHand) {
        let number = self.number();
        self.queue.insert((at, number), Happening::ByHand(deed));
    }

    /// A request that is executed when it is too late for its answer.
    pub fn send_late(&mut self, deed: Deed, by: Actor, edge: bool) {
        let delay = match (&deed, edge) {
            (_, false) => Duration::from_secs(3),
            (Deed::Push { target, .. }, true) => {
                let place = &self.places[target];
                place.job_timeout.saturating_sub(place.takes + Duration::from_secs(2))
            }
            (
                Deed::Mint { object, .. }
                | Deed::Disable { object, .. }
                | Deed::Enable { object, .. }
                | Deed::Delete { object, .. },
                true,
            ) => {
                // The horizon is that of a look, and what arrives must be listed by then.
                let vault = &self.vaults[object];
                vault.settle.saturating_sub(vault.lag + Duration::from_secs(2))
            }
        };
        let sent = self.now();
        if let Deed::Mint { object, .. } | Deed::Disable { object, .. } | Deed::Delete { object, .. } = &deed {
            let vault = self.vaults.get_mut(object).expect("a deed is about a vault that is there");
            vault.steady_until = sent + vault.settle;
        }
        let number = self.number();
        self.queue.insert((sent + delay, number), Happening::Late { deed, by, sent });
    }

    /// Keys that a target holds, or may be given by what is on its way already.
    pub fn held_or_coming(&self, target: &str) -> BTreeSet<KeyId> {
        let place = &self.places[target];
        let running = place.jobs.iter().filter(|job| matches!(job.state, JobState::Running(_)));
        let mut keys: BTreeSet<KeyId> = running.map(|job| job.key.clone()).collect();
        keys.extend(place.holds.clone());
        for happening in self.queue.values() {
            if let Happening::Late { deed: Deed::Push { target: at, key }, .. } = happening
                && at == target
            {
                keys.insert(key.clone());
            }
        }
        keys
    }

    /// Whether a push that another process sent is on its way, and no job tells of it yet.
    pub fn is_coming_from_another(&self, target: &str, key: &KeyId, process: usize) -> bool {
        self.queue.values().any(|happening| match happening {
            Happening::Late { deed: Deed::Push { target: at, key: pushed }, by, .. } => {
                at == target && pushed == key && *by != Actor::Rekeyd(process)
            }
            _ => false,
        })
    }

    /// Does what a request asks. `sent` is when it left; `late` that nobody waits for its answer.
    pub fn execute(&mut self, deed: &Deed, by: Actor, sent: At, late: bool) -> Result<Outcome, Fault> {
        match deed {
            Deed::Mint { object, intent, replaces } => self.mint(object, intent, replaces.as_ref(), by, sent, late),
            Deed::Disable { object, key } => {
                self.must_exist(object, key)?;
                if self.key(object, key).is_some_and(Key::works) {
                    self.check_kill(object, key, Op::Disable, by, sent);
                }
                self.tell(|| format!("{object}: key {key} is disabled by {by:?}"));
                let now = self.now();
                if let Some(key) = self.key_mut(object, key) {
                    (key.active, key.killed_by, key.disabled) = (false, Some(by), Some(now));
                }
                Ok(Outcome::Done)
            }
            Deed::Enable { object, key } => {
                self.must_exist(object, key)?;
                self.tell(|| format!("{object}: key {key} is enabled by {by:?}"));
                if let Some(key) = self.key_mut(object, key) {
                    (key.active, key.killed_by) = (true, None);
                }
                Ok(Outcome::Done)
            }
            Deed::Delete { object, key } => {
                let slots = self.vaults[object].shape.has_slots();
                // The look whether the slot still holds the key came before; a late request hits whatever is there.
                let hit = if slots && late { self.in_slot_of(object, key) } else { Some(key.clone()) };
                let Some(hit) = hit.filter(|hit| self.key(object, hit).is_some_and(|key| key.died.is_none())) else {
                    return Ok(Outcome::Done);
                };
                self.check_kill(object, &hit, Op::Delete, by, sent);
                self.bury(object, &hit, by);
                if slots {
                    let _ = self.fill(object, &slot_of(&hit), by, None, true);
                }
                Ok(Outcome::Done)
            }
            Deed::Push { target, key } => {
                let now = self.now();
                let id = JobId::new(format!("job-{}", self.number()));
                let place = self.places.get_mut(target).expect("targets do not vanish");
                if place.jobless {
                    // For the oracle's eyes only.
                    place.jobs.push(Job { id, key: key.clone(), by, state: JobState::Succeeded });
                    self.put(target, key, by, now);
                    self.tell(|| format!("{target}: holds key {key} by {by:?} at once"));
                    self.check_store(target, key, by);
                    return Ok(Outcome::Done);
                }
                let ends = now + place.takes;
                let state = JobState::Running("in progress".into());
                place.jobs.push(Job { id: id.clone(), key: key.clone(), by, state });
                self.tell(|| format!("{target}: takes key {key} from {by:?} as {id}"));
                let number = self.number();
                self.queue.insert((ends, number), Happening::JobEnds { target: target.clone(), job: id.clone() });
                Ok(Outcome::Job(id))
            }
        }
    }

    fn must_exist(&self, object: &str, key: &KeyId) -> Result<(), Fault> {
        match self.key(object, key).is_some_and(|key| key.died.is_none()) {
            true => Ok(()),
            false => {
                Err(Fault::Refused { reason: Reason::NotFound, why: format!("{object}: key {key} does not exist") })
            }
        }
    }

    fn mint(
        &mut self,
        object: &str,
        intent: &IntentId,
        replaces: Option<&KeyId>,
        by: Actor,
        sent: At,
        late: bool,
    ) -> Result<Outcome, Fault> {
        let refused = |why: &str| Err(Fault::Refused { reason: Reason::Refused, why: why.to_owned() });
        let vault = &self.vaults[object];
        let living = vault.keys.iter().filter(|key| key.died.is_none()).count();
        let shape = vault.shape;
        if shape == Shape::ClientNamed
            && let Some(known) = vault.keys.iter().find(|key| key.intent.as_ref() == Some(intent))
        {
            return match known.died {
                None => Ok(Outcome::Minted(known.id.clone(), epoch() + known.made)),
                Some(_) => refused("a key of that name was deleted"),
            };
        }
        if shape.has_slots() {
            let Some(replaced) = replaces else { return refused("no slot is named") };
            let slot = slot_of(replaced);
            let there = self.in_slot_of(object, replaced);
            if !late && there.as_ref() != Some(replaced) {
                return refused("the slot holds another key by now");
            }
            if let Some(there) = there {
                self.check_kill(object, &there, Op::Mint, by, sent);
                self.bury(object, &there, by);
            }
            return Ok(self.fill(object, &slot, by, Some(intent.clone()), false));
        }
        if vault.quota.is_some_and(|quota| living >= quota) {
            return Err(Fault::Refused { reason: Reason::Quota, why: "no key fits any more".into() });
        }
        let id = match shape {
            Shape::ClientNamed => KeyId::new(format!("{intent}-key")),
            _ => KeyId::new(format!("KEY{}", self.number())),
        };
        Ok(self.make(object, id, by, Some(intent.clone()), false))
    }

    fn fill(&mut self, object: &str, slot: &str, by: Actor, intent: Option<IntentId>, filler: bool) -> Outcome {
        let id = KeyId::new(format!("{slot}@{}", self.number()));
        self.make(object, id, by, intent, filler)
    }

    /// Makes a key, whoever wants it.
    pub fn make(&mut self, object: &str, id: KeyId, by: Actor, intent: Option<IntentId>, filler: bool) -> Outcome {
        let (now, number) = (self.now(), self.number());
        self.tell(|| format!("{object}: key {id} is made by {by:?}"));
        let secret = format!("{:036}{:04}", number * 7919, number % self.ends);
        let key = Key {
            id: id.clone(),
            secret,
            made: now,
            made_by: by,
            intent,
            active: true,
            died: None,
            killed_by: None,
            disabled: None,
            enabled_by_hand: None,
            used: None,
            filler,
        };
        self.vaults.get_mut(object).expect("issuers do not vanish").keys.push(key);
        Outcome::Minted(id, epoch() + now)
    }

    fn bury(&mut self, object: &str, key: &KeyId, by: Actor) {
        let now = self.now();
        self.tell(|| format!("{object}: key {key} is deleted by {by:?}"));
        if let Some(key) = self.key_mut(object, key) {
            (key.died, key.killed_by) = (Some(now), Some(by));
        }
    }

    /// Somebody else deletes a key.
    pub fn bury_by_hand(&mut self, object: &str, key: &KeyId) {
        self.bury(object, key, Actor::Human);
        if self.vaults[object].shape.has_slots() {
            let _ = self.fill(object, &slot_of(key), Actor::Human, None, true);
        }
    }

    /// Somebody has read the secret of what fills a slot.
    pub fn unfill(&mut self, object: &str, key: &KeyId) {
        if let Some(key) = self.key_mut(object, key) {
            key.filler = false;
        }
    }

    /// Somebody else disables a key that is active, or enables one that is not.
    pub fn switch_by_hand(&mut self, object: &str, key: &KeyId) {
        let now = self.now();
        if let Some(known) = self.key_mut(object, key) {
            known.active = !known.active;
            match known.active {
                true => known.enabled_by_hand = Some(now),
                false => known.disabled = Some(now),
            }
            known.killed_by = (!known.active).then_some(Actor::Human);
            let active = known.active;
            self.tell(|| format!("{object}: somebody makes key {key} active: {active}"));
        }
    }

    /// Targets hold what they held, and know the jobs they knew.
    pub fn restore_places(&mut self, earlier: &BTreeMap<String, (Option<KeyId>, Vec<Job>)>) {
        let now = self.now();
        for (name, (held, jobs)) in earlier {
            let Some(place) = self.places.get_mut(name) else { continue };
            place.jobs.clone_from(jobs);
            for job in &mut place.jobs {
                // What ran then runs no more.
                if matches!(job.state, JobState::Running(_)) {
                    job.state = JobState::Failed("the site was restored".into());
                }
            }
            if let Some(key) = held.clone().filter(|key| place.holds.as_ref() != Some(key)) {
                self.tell(|| format!("{name} holds key {key} again"));
                self.put(name, &key, Actor::Human, now);
            }
        }
    }

    /// A process finds another journal; what was read of the old one is forgotten.
    pub fn restore_shelf(&mut self, process: usize, shelf: Shelf) {
        self.oracle.forget(process);
        for (service, records) in &shelf.records {
            let times = shelf.times.get(service).cloned().unwrap_or_default();
            for (index, (record, at)) in records.iter().zip(times).enumerate() {
                let vouches = only_vouches(&records[..index], &record.event, &record.at);
                self.oracle.read(process, service, &record.event, at, Told::of(&record.at), vouches);
            }
        }
        // What the journal does not know of was done by an earlier life, and is as good as anybody else's doing.
        let last = shelf.times.values().flatten().max().copied().unwrap_or_default();
        for place in self.places.values_mut().filter(|place| place.put_by == Actor::Rekeyd(process)) {
            if place.since >= last {
                place.put_by = Actor::Human;
            }
        }
        // And so was what it is still handing over.
        for job in
            self.places.values_mut().flat_map(|place| &mut place.jobs).filter(|job| job.by == Actor::Rekeyd(process))
        {
            job.by = Actor::Human;
        }
        for happening in self.queue.values_mut() {
            if let Happening::Late { deed: Deed::Push { .. }, by, .. } = happening
                && *by == Actor::Rekeyd(process)
            {
                *by = Actor::Human;
            }
        }
        self.shelves[process] = shelf;
    }

    pub fn in_slot_of(&self, object: &str, key: &KeyId) -> Option<KeyId> {
        let slot = slot_of(key);
        let there = self.vaults[object].keys.iter().find(|key| key.died.is_none() && slot_of(&key.id) == slot);
        there.map(|key| key.id.clone())
    }

    fn job_ends(&mut self, target: &str, id: &JobId) {
        let now = self.now();
        let place = self.places.get_mut(target).expect("targets do not vanish");
        let running = |job: &&mut Job| job.id == *id && matches!(job.state, JobState::Running(_));
        let Some(job) = place.jobs.iter_mut().find(running) else { return };
        if place.failing > 0 {
            place.failing -= 1;
            job.state = JobState::Failed("the store did not answer".into());
            self.tell(|| format!("{target}: {id} fails"));
            return;
        }
        job.state = JobState::Succeeded;
        if place.hollow > 0 {
            place.hollow -= 1;
            self.tell(|| format!("{target}: {id} says that it is done, and stored nothing"));
            return;
        }
        let (key, by) = (job.key.clone(), job.by);
        self.put(target, &key, by, now);
        self.tell(|| format!("{target}: {id} is done, it holds key {key}"));
        self.check_store(target, &key, by);
    }

    /// A target holds a key from now on.
    pub fn put(&mut self, target: &str, key: &KeyId, by: Actor, now: At) {
        let place = self.places.get_mut(target).expect("targets do not vanish");
        let (object, former) = (place.object.clone(), place.holds.replace(key.clone()));
        let same = former.as_ref() == Some(key);
        if !same {
            (place.since, place.put_by) = (now, by);
        }
        if let Some(former) = former.filter(|_| !same) {
            self.touch(&object, &former, now);
        }
    }

    fn touch(&mut self, _object: &str, key: &KeyId, now: At) {
        for vault in self.vaults.values_mut() {
            for known in vault.keys.iter_mut().filter(|known| known.id == *key) {
                known.used = Some(now);
            }
        }
    }

    /// Uses a key as somebody who has its secret.
    pub fn use_key(&mut self, key: &KeyId) {
        let now = self.now();
        self.touch("", key, now);
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

    // What the world answers.

    pub fn list(&self, object: &str) -> Result<Listing, Fault> {
        let (vault, now) = (&self.vaults[object], self.now());
        let seen = |at: At| at + vault.lag <= now;
        let shown =
            vault.keys.iter().filter(|key| (seen(key.made) || key.made.is_zero()) && !key.died.is_some_and(seen));
        let told = |key: &Key| match vault.shape {
            Shape::Labelled | Shape::ClientNamed => key.intent.clone(),
            Shape::ShownOnce | Shape::Slots | Shape::Derived => None,
        };
        let keys = shown.map(|key| ListedKey {
            id: key.id.clone(),
            active: key.active,
            created: Some(born(key)),
            intent: told(key),
        });
        Ok(Listing { keys: keys.collect(), quota: vault.quota, date: Some(self.date()) })
    }

    pub fn probe(&mut self, object: &str, material: &Material) -> Result<Probe, Fault> {
        self.use_key(material.key());
        let now = self.now();
        let vault = &self.vaults[object];
        let Some(key) = vault.keys.iter().find(|key| key.id == *material.key()) else {
            return Ok(Probe::NotYet("unknown key".into()));
        };
        if !key.works() || (!key.made.is_zero() && key.made + vault.propagation > now) {
            return Ok(Probe::NotYet("unknown key".into()));
        }
        if vault.held_form(&key.secret) != material.secret().expose() {
            return Ok(Probe::Wrong("wrong secret".into()));
        }
        Ok(Probe::Works)
    }

    pub fn last_use(&self, object: &str, key: &KeyId) -> Result<LastUse, Fault> {
        self.must_exist(object, key)?;
        let vault = &self.vaults[object];
        let Some(lag) = vault.use_lag else { return Ok(LastUse::Untold) };
        let told_until = self.now().saturating_sub(lag);
        let held = self.places.values().filter(|place| place.holds.as_ref() == Some(key));
        let by_targets = held.map(|place| place.since).min().filter(|since| *since <= told_until).map(|_| told_until);
        let before = self.key(object, key).and_then(|key| key.used).filter(|used| *used <= told_until);
        Ok(match by_targets.max(before) {
            Some(at) => LastUse::At { at: epoch() + at, by: "s3 in us-east-1".into() },
            None => LastUse::Never,
        })
    }

    pub fn read(&self, target: &str) -> Reading {
        let place = &self.places[target];
        let Some(key) = &place.holds else { return Reading::Nothing };
        match self.find(key) {
            Some((_, key)) if place.shows => Reading::Tail(Tail::new(&key.secret[key.secret.len() - 4..])),
            _ => Reading::Hidden,
        }
    }

    pub fn health(&self, target: &str) -> Health {
        let place = &self.places[target];
        let works = place.holds.as_ref().and_then(|key| self.find(key)).is_some_and(|(_, key)| key.works());
        match (place.watched, works && !place.sick) {
            (false, _) => Health::NotWatched,
            (true, true) => Health::Good,
            (true, false) => Health::Bad("it answers 503".into()),
        }
    }

    pub fn inspect(&self, target: &str) -> Inspection {
        Inspection { holder: Holder::new(target), reading: self.read(target), jobs: self.jobs(target) }
    }

    pub fn jobs(&self, target: &str) -> Vec<JobId> {
        let place = &self.places[target];
        if place.forgets || place.jobless { Vec::new() } else { place.jobs.iter().map(|job| job.id.clone()).collect() }
    }

    pub fn poll(&self, target: &str, id: &JobId) -> JobState {
        let place = &self.places[target];
        match place.jobs.iter().find(|job| job.id == *id) {
            Some(job) if !place.forgets => job.state.clone(),
            _ => JobState::Vanished(format!("{id} is not known")),
        }
    }

    /// What a target needs of a key.
    pub fn material(&self, key: &KeyId) -> Option<Material> {
        let (object, known) = self.find(key)?;
        let secret = self.vaults[object].held_form(&known.secret);
        Some(Material::AccessKey { id: known.id.clone(), secret: Secret::new(secret) })
    }
}

/// When the provider says a key was made: those that were there when the world began are a month old.
fn born(key: &Key) -> Timestamp {
    if key.made.is_zero() { epoch() - chrono::TimeDelta::days(31) } else { epoch() + key.made }
}

/// `slot1` of `slot1@7`.
pub fn slot_of(key: &KeyId) -> String {
    key.as_str().split('@').next().unwrap_or_default().to_owned()
}
