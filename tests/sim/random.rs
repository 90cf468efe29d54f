//! Histories of chance: several services on one account and one deployment, requests and writes struck at random, and a hand that
//! does what operators, colleagues, clocks and backups do. Then the storm ends, and everything must come to rest and rotate again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rekeyd::engine::{Command, Handle, ServiceReport, StateWord};
use rekeyd::model::{KeyId, Keyless, Secret, ServiceName, Shape, TargetName};
use tokio::sync::Notify;

use crate::chance::Chance;
use crate::counts::{Again, Counts, Finds};
use crate::exhaustive::SHAPES;
use crate::faults::Plan;
use crate::journal::Shelf;
use crate::operator::Operator;
use crate::oracle::Promise;
use crate::run::{self, History, in_virtual_time, live};
use crate::scene::{Cast, Plant, Scene, policy};
use crate::world::{Actor, Job, Shared, is_role};

/// Plays `histories` from a seed on, or as many as fit before `end`; returns the seed after the last.
pub fn many(from: u64, histories: u64, end: Option<Instant>) -> (Counts, Finds, u64) {
    let next = AtomicU64::new(from);
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    let work = || {
        let (mut counts, mut finds) = (Counts::default(), Finds::default());
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !end.map_or(seed < from + histories, |end| Instant::now() < end) {
                next.fetch_min(seed, Ordering::Relaxed);
                return (counts, finds);
            }
            let history = play(seed, &Plant::default(), false);
            counts.add(&history);
            finds.add(|| Again::Seed(seed), &history);
        }
    };
    let parts: Vec<(Counts, Finds)> = std::thread::scope(|scope| {
        let started: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        started.into_iter().map(|worker| worker.join().expect("a worker panics only by our own mistake")).collect()
    });
    let (mut counts, mut finds) = (Counts::default(), Finds::default());
    for (more, found) in parts {
        counts.join(&more);
        finds.join(found);
    }
    (counts, finds, next.into_inner())
}

/// A history as its seed makes it.
struct Story {
    scene: Scene,
    plan: Plan,
    hand: Chance,
    storm: Duration,
    /// The one service that is struck; the others must not notice.
    victim: Option<String>,
    /// What the hand may do, by chance of the seed, so that some histories are of one trouble only.
    may: Vec<Act>,
    /// The end of a secret that targets show is one of this many.
    ends: u64,
}

/// What a hand can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Order,
    Clock,
    Reboot,
    Kill,
    Stranger,
    DeleteKey,
    SwitchKey,
    ChangeTarget,
    RestoreTargets,
    RestoreJournal,
    Twin,
    Reload,
    Jobs,
    Lag,
    Shows,
}

const ACTS: [Act; 15] = [
    Act::Order,
    Act::Clock,
    Act::Reboot,
    Act::Kill,
    Act::Stranger,
    Act::DeleteKey,
    Act::SwitchKey,
    Act::ChangeTarget,
    Act::RestoreTargets,
    Act::RestoreJournal,
    Act::Twin,
    Act::Reload,
    Act::Jobs,
    Act::Lag,
    Act::Shows,
];

/// The one that has the first journal.
const FIRST: usize = 0;
/// A second one with a copy of it.
const TWIN: usize = 1;

fn story(seed: u64) -> Story {
    let mut chance = Chance::new(seed);
    let names = ["roads", "water", "trees"];
    let services = 1 + chance.below(names.len());
    let cast: Vec<Cast> = names.iter().take(services).map(|name| cast(name, &mut chance)).collect();
    let victim = (services > 1 && chance.one_in(4)).then(|| chance.pick(&names[..services]).to_string());
    let storm = Duration::from_secs(3600 * (1 + chance.below(6)) as u64);
    let one_in = *chance.pick(&[10, 25, 60, 200, 1_000_000]);
    let plan = Plan::Random { chance: Chance::new(chance.next()), one_in, until: storm, victim: victim.clone() };
    let most = 1 + chance.below(ACTS.len());
    let mut may: Vec<Act> = (0..most).map(|_| *chance.pick(&ACTS)).collect();
    if victim.is_some() {
        // These touch everybody.
        may.retain(|act| {
            matches!(act, Act::Order | Act::DeleteKey | Act::SwitchKey | Act::ChangeTarget | Act::Jobs | Act::Stranger)
        });
    }
    let ends = *chance.pick(&[10_000, 10_000, 10_000, 3]);
    let mut scene = Scene::new(format!("seed {seed}"), cast);
    scene.rotations = 1;
    Story { scene, plan, hand: Chance::new(chance.next()), storm, victim, may, ends }
}

fn cast(name: &str, chance: &mut Chance) -> Cast {
    let shape = if chance.one_in(2) { Shape::ShownOnce } else { *chance.pick(&SHAPES) };
    let mut cast = Cast::new(name, shape, 1 + chance.below(2));
    cast.every = "40m";
    cast.shows = !chance.one_in(4);
    cast.exclusive = cast.exclusive || chance.one_in(3);
    cast.on_drift_push = chance.one_in(3);
    cast.signed = shape == Shape::Slots && chance.one_in(2);
    cast.list_lag = Duration::from_secs(*chance.pick(&[0, 0, 7, 50]));
    cast
}

/// Plays the history of a seed.
pub fn play(seed: u64, plant: &Plant, tell: bool) -> History {
    let Story { mut scene, plan, hand, storm, victim, may, ends } = story(seed);
    scene.plant = plant.clone();
    in_virtual_time(async {
        let shared = Shared::new(plan, tell);
        {
            let mut world = shared.world();
            world.ends = ends;
            world.tell(|| format!("{:?}, hand {may:?}, victim {victim:?}, storm of {storm:?}", scene.cast));
        }
        scene.build(&shared);
        let panics = run::panics();
        let mut operator = Operator::default();
        let mut hand = Hand {
            shared: shared.clone(),
            cast: scene.cast.clone(),
            all: scene.cast.clone(),
            chance: hand,
            may,
            storm,
            victim: victim.clone(),
            backups: Vec::new(),
            earlier: Vec::new(),
            twin: Arc::new(Notify::new()),
        };
        let twin = hand.twin.clone();
        let first = live(&shared, &scene, FIRST, async |handle: &Handle| {
            hand.play(handle).await;
            calm_down(&shared, &mut hand, handle).await;
            check_isolation(&shared, &hand, handle);
            settle(&shared, &scene, &mut hand, handle, &mut operator).await;
        });
        let second = async {
            twin.notified().await;
            live(&shared, &scene, TWIN, async |_: &Handle| twin_ends(&shared, storm).await).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            () = first => {}
            () = second => {}
        }
        if run::panics() != panics {
            shared.world().violated(Promise::NoMistakeOfOurOwn, "an effect panicked".into());
        }
        run::end(&shared, operator.typed)
    })
}

async fn twin_ends(shared: &Shared, storm: Duration) {
    let left = storm.saturating_sub(shared.world().now());
    tokio::time::sleep(left).await;
}

/// The storm is over: clocks are right again, the twin is found and stopped, the policy is whole.
async fn calm_down(shared: &Shared, hand: &mut Hand, handle: &Handle) {
    {
        let mut world = shared.world();
        world.wall_ahead = chrono::TimeDelta::zero();
        for place in world.places.values_mut() {
            (place.failing, place.forgets) = (0, false);
        }
        world.tell(|| "the storm is over".into());
    }
    for _ in 0..40 {
        if hand.reload(handle, hand.all.clone()).await {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1800)).await;
    }
    for service in hand.all.clone() {
        let (service, by) = (ServiceName::new(service.name), "uid 0 (root)".to_owned());
        let _ = handle.order(Command::Resume { service, by }).await;
    }
}

/// Whoever was not struck has rotated and never stood still.
fn check_isolation(shared: &Shared, hand: &Hand, handle: &Handle) {
    let Some(victim) = &hand.victim else { return };
    let report = handle.reports().borrow().clone();
    let mut world = shared.world();
    for cast in hand.all.iter().filter(|cast| cast.name != *victim) {
        let name = ServiceName::new(cast.name.clone());
        let done = world.oracle.ledgers.get(&(FIRST, name.clone())).map_or(0, |ledger| ledger.done);
        let halted = report.services.iter().any(|service| service.name == name && service.state == StateWord::Halted);
        world.hold(Promise::Isolation, done >= 1 && !halted, || {
            format!("{name} was not struck, and has done {done} rotations, halted: {halted}")
        });
    }
}

/// Everything comes to rest, and every service rotates once more.
async fn settle(shared: &Shared, base: &Scene, hand: &mut Hand, handle: &Handle, operator: &mut Operator) {
    let before: BTreeMap<ServiceName, u32> = {
        let world = shared.world();
        let ledgers = world.oracle.ledgers.iter().filter(|((of, _), _)| *of == FIRST);
        ledgers.map(|((_, service), ledger)| (service.clone(), ledger.done)).collect()
    };
    let began = shared.world().now();
    let mut held_back = false;
    loop {
        if hand.cast.len() != hand.all.len()
            || hand.cast.iter().zip(&hand.all).any(|(now, all)| now.user != all.user || now.targets != all.targets)
        {
            // What the journal still needs of the old policy may be done by now.
            hand.reload(handle, hand.all.clone()).await;
        }
        let scene = Scene { cast: hand.cast.clone(), ..base.clone() };
        let report = handle.reports().borrow().clone();
        let (now, quiet) = {
            let world = shared.world();
            (world.now(), world.quiet_at())
        };
        let rests = report.services.iter().all(|service| {
            let world = shared.world();
            let done = world.oracle.ledgers.get(&(FIRST, service.name.clone())).map_or(0, |ledger| ledger.done);
            let known = hand.all.iter().any(|cast| cast.name == service.name.as_str());
            let more = !known || done > before.get(&service.name).copied().unwrap_or_default();
            let at_rest = matches!(service.state, StateWord::Idle | StateWord::Paused);
            more && at_rest && service.phase.is_none() && service.debt.is_empty()
        });
        let all_more = hand.all.iter().all(|cast| {
            let name = ServiceName::new(cast.name.clone());
            let world = shared.world();
            let done = world.oracle.ledgers.get(&(FIRST, name.clone())).map_or(0, |ledger| ledger.done);
            done > before.get(&name).copied().unwrap_or_default()
        });
        if all_more && !held_back {
            // Every one has rotated; nothing new is opened, so that they come to rest together.
            held_back = true;
            for cast in &hand.all {
                let (service, by) = (ServiceName::new(cast.name.clone()), "uid 0 (root)".to_owned());
                let _ = handle.order(Command::Pause { service, by }).await;
            }
        }
        if rests && quiet.is_none() {
            let mut world = shared.world();
            world.hold(Promise::NoDeadEnd, true, String::new);
            world.check_end(FIRST, &BTreeMap::new());
            return;
        }
        if now - began > run::LONGEST || operator.gave_up {
            let left: Vec<String> = report.services.iter().map(run::in_a_line).collect();
            shared.world().violated(Promise::NoDeadEnd, left.join("; "));
            return;
        }
        let uses_role = |service: &&ServiceReport| service.current_key.as_ref().is_some_and(is_role);
        for service in report.services.iter().filter(uses_role).filter(|service| service.state == StateWord::Idle) {
            // It rotates no more by itself.
            let (service, by) = (service.name.clone(), "uid 0 (root)".to_owned());
            let reply = handle.order(Command::Switch { service, to: None, no_way_back: true, by }).await;
            shared.world().tell(|| format!("the operator wants a key again: {reply:?}"));
        }
        match report.services.iter().find(|service| service.state == StateWord::Halted) {
            Some(service) => operator.act(shared, &scene, handle, service).await,
            None => operator.look_after_strangers(shared, handle, &report).await,
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
}

/// What every target held, and the jobs it knew.
type Held = BTreeMap<String, (Option<KeyId>, Vec<Job>)>;

/// Operators, colleagues, clocks and backups, while the storm lasts.
struct Hand {
    shared: Shared,
    /// The policy's services as they are now, and as they were and will be.
    cast: Vec<Cast>,
    all: Vec<Cast>,
    chance: Chance,
    may: Vec<Act>,
    storm: Duration,
    victim: Option<String>,
    /// Copies of the journal, and of what the targets held.
    backups: Vec<Shelf>,
    earlier: Vec<Held>,
    twin: Arc<Notify>,
}

impl Hand {
    /// Acts until the storm is over. Begins anew where the process was started again.
    async fn play(&mut self, handle: &Handle) {
        loop {
            let left = self.storm.saturating_sub(self.shared.world().now());
            if left.is_zero() {
                return;
            }
            let pause = match self.chance.below(4) {
                0 => self.chance.below(15),
                1 => self.chance.below(120),
                _ => self.chance.below(1500),
            };
            tokio::time::sleep(Duration::from_secs(1 + pause as u64).min(left)).await;
            self.back_up();
            if let Some(act) = (!self.may.is_empty()).then(|| *self.chance.pick(&self.may)) {
                self.act(act, handle).await;
            }
        }
    }

    fn back_up(&mut self) {
        let world = self.shared.world();
        if self.chance.one_in(3) {
            self.backups.push(world.shelves[FIRST].clone());
        }
        if self.chance.one_in(3) {
            let held =
                world.places.iter().map(|(name, place)| (name.clone(), (place.holds.clone(), place.jobs.clone())));
            self.earlier.push(held.collect());
        }
    }

    /// One of the services the hand may touch.
    fn one(&mut self) -> Cast {
        match &self.victim {
            Some(victim) => self.all.iter().find(|cast| cast.name == *victim).expect("it is one of them").clone(),
            None => self.chance.pick(&self.all).clone(),
        }
    }

    async fn act(&mut self, act: Act, handle: &Handle) {
        let shared = self.shared.clone();
        match act {
            Act::Order => self.order(handle).await,
            Act::Clock => {
                let seconds = *self.chance.pick(&[30, 400, 3600, 90_000]);
                let back = self.chance.one_in(2);
                let mut world = shared.world();
                let ahead = if self.chance.one_in(2) {
                    0
                } else if back {
                    -seconds
                } else {
                    seconds
                };
                world.set_clock(chrono::TimeDelta::seconds(ahead));
                world.tell(|| format!("the clock is set {ahead} s off"));
            }
            Act::Reboot => {
                let mut world = shared.world();
                world.boot += 1;
                world.booted = world.now();
                world.tell(|| "the machine starts again".into());
                world.kill_process(FIRST);
            }
            Act::Kill => shared.world().kill_process(FIRST),
            Act::Stranger => self.stranger(),
            Act::DeleteKey | Act::SwitchKey => self.touch_key(act),
            Act::ChangeTarget => self.change_target(),
            Act::RestoreTargets => self.restore_targets(),
            Act::RestoreJournal => self.restore_journal(),
            Act::Twin => self.start_twin(),
            Act::Reload => {
                let cast = self.another_policy();
                self.reload(handle, cast).await;
            }
            Act::Jobs => {
                let cast = self.one();
                let target = self.chance.pick(&cast.target_names()).clone();
                let (failing, forgets) = (self.chance.below(5) as u32, self.chance.one_in(3));
                let mut world = shared.world();
                if let Some(place) = world.places.get_mut(&target) {
                    (place.failing, place.forgets) = (failing, forgets);
                    world.tell(|| format!("{target}: {failing} jobs will fail, jobs forgotten: {forgets}"));
                }
            }
            Act::Lag => {
                let (cast, lag) = (self.one(), *self.chance.pick(&[0, 3, 50, 110]));
                let mut world = shared.world();
                let now = world.now();
                if let Some(vault) = world.vaults.get_mut(&cast.object()).filter(|vault| vault.steady_until <= now) {
                    vault.lag = Duration::from_secs(lag);
                    world.tell(|| format!("{}: listings lag {lag} s", cast.object()));
                }
            }
            Act::Shows => {
                let cast = self.one();
                let mut world = shared.world();
                for target in cast.target_names() {
                    if let Some(place) = world.places.get_mut(&target) {
                        place.shows = !place.shows;
                        let shows = place.shows;
                        world.tell(|| format!("{target} shows the end of its secret: {shows}"));
                    }
                }
            }
        }
    }

    /// An order as an operator may give it at any time: without having read the status, but without a lie.
    async fn order(&mut self, handle: &Handle) {
        let cast = self.one();
        let (service, by) = (ServiceName::new(cast.name.clone()), "uid 0 (root)".to_owned());
        let held = self.held_by_all(&cast);
        let command = match self.chance.below(19) {
            0 | 1 => Command::Rotate { services: vec![service], compromised: false, by },
            2 => Command::Rotate { services: vec![service], compromised: true, by },
            3 if self.victim.is_none() => Command::RotateOnSignal,
            4 => Command::Pause { service, by },
            5 => Command::Resume { service, by },
            6 | 7 => Command::Retry { service, by },
            8 | 9 => Command::Rollback { service, by },
            10 => Command::Repush { service, target: None, by },
            11 => {
                let target = TargetName::new(self.chance.pick(&cast.target_names()).clone());
                Command::Repush { service, target: Some(target), by }
            }
            12 => Command::RetireDespiteUse { service, by },
            13 => Command::Abandon { service, holds: held.filter(|_| !self.chance.one_in(4)), by },
            15 | 16 => Command::Switch { service, to: Some(Keyless::IamRole), no_way_back: true, by },
            17 => Command::Switch { service, to: None, no_way_back: true, by },
            // A role is no key that could be adopted.
            14 => match held.filter(|key| !is_role(key)) {
                Some(key) => {
                    let secret = self.shared.world().material(&key).filter(|_| self.chance.one_in(2));
                    let secret = secret.map(|material| Secret::new(material.secret().expose().to_owned()));
                    let idle_slot_free = self.shared.world().is_in_slot(&key);
                    Command::Adopt { service, key, secret, idle_slot_free, by }
                }
                None => Command::TryNow,
            },
            _ => Command::TryNow,
        };
        let shown = format!("{command:?}");
        // Not waited for too long: an order is answered between two effects.
        let answer = tokio::time::timeout(Duration::from_secs(120), handle.order(command)).await;
        self.shared.world().tell(|| format!("somebody orders {shown}: {answer:?}"));
    }

    /// The key that every target of a service holds, as anybody can see who looks.
    fn held_by_all(&self, cast: &Cast) -> Option<KeyId> {
        let world = self.shared.world();
        let mut held = cast.target_names().into_iter().map(|target| world.places.get(&target)?.holds.clone());
        let first = held.next()??;
        // Somebody who looks while a job runs does not say that he knows.
        let coming = cast.target_names().iter().any(|target| world.held_or_coming(target).len() > 1);
        (!coming && held.all(|other| other.as_ref() == Some(&first))).then_some(first)
    }

    fn stranger(&mut self) {
        let cast = self.one();
        let mut world = self.shared.world();
        // Where every key is said to be rekeyd's, nobody else makes one.
        let living = world.vaults[&cast.object()].keys.iter().filter(|key| key.died.is_none()).count();
        if cast.exclusive || world.vaults[&cast.object()].quota.is_some_and(|quota| living >= quota) {
            return;
        }
        let id = KeyId::new(format!("THEIRS{}", world.number()));
        world.make(&cast.object(), id.clone(), Actor::Human, None, false);
        if self.chance.one_in(2) {
            world.use_key(&id);
        }
    }

    fn touch_key(&mut self, act: Act) {
        let cast = self.one();
        let object = cast.object();
        let mut world = self.shared.world();
        let living: Vec<KeyId> =
            world.vaults[&object].keys.iter().filter(|key| key.died.is_none()).map(|key| key.id.clone()).collect();
        if living.is_empty() {
            return;
        }
        let key = self.chance.pick(&living).clone();
        match act {
            Act::DeleteKey => world.bury_by_hand(&object, &key),
            _ if !cast.shape.can_disable() => {}
            _ => world.switch_by_hand(&object, &key),
        }
    }

    fn change_target(&mut self) {
        let cast = self.one();
        let target = self.chance.pick(&cast.target_names()).clone();
        let mut world = self.shared.world();
        let Some(object) = world.places.get(&target).map(|place| place.object.clone()) else { return };
        let keys = world.vaults[&object].keys.iter();
        let known: Vec<KeyId> = keys.filter(|key| world.is_anybodys(&object, key)).map(|key| key.id.clone()).collect();
        if known.is_empty() {
            return;
        }
        let key = self.chance.pick(&known).clone();
        let now = world.now();
        world.tell(|| format!("somebody puts key {key} into {target}"));
        world.put(&target, &key, Actor::Human, now);
    }

    fn restore_targets(&mut self) {
        let Some(earlier) = (!self.earlier.is_empty()).then(|| self.chance.pick(&self.earlier).clone()) else { return };
        let mut world = self.shared.world();
        world.tell(|| "ArcGIS is restored from a backup".into());
        world.restore_places(&earlier);
    }

    fn restore_journal(&mut self) {
        let Some(backup) = (!self.backups.is_empty()).then(|| self.chance.pick(&self.backups).clone()) else { return };
        let mut world = self.shared.world();
        world.tell(|| "the journal is restored from a backup".into());
        world.kill_process(FIRST);
        world.restore_shelf(FIRST, backup);
    }

    fn start_twin(&mut self) {
        let mut world = self.shared.world();
        if world.shelves.len() > 1 {
            return;
        }
        let copy = world.shelves[FIRST].clone();
        world.tell(|| "a second rekeyd is started with a copy of the journal".into());
        world.shelves.push(Shelf::default());
        world.bells.push(Default::default());
        world.restore_shelf(TWIN, copy);
        // The copy holds what was seen, too.
        world.oracle.copy_seen(FIRST, TWIN);
        self.twin.notify_one();
    }

    /// The services with one added, removed, moved to another issuer object, or with a target more or less.
    fn another_policy(&mut self) -> Vec<Cast> {
        let mut cast = self.cast.clone();
        let one = self.one();
        let there = cast.iter().position(|cast| cast.name == one.name);
        match (self.chance.below(4), there) {
            (0, Some(place)) if cast.len() > 1 => _ = cast.remove(place),
            (1, Some(place)) if !cast[place].shape.has_slots() => {
                cast[place].user = format!("{}-{}", one.name, if cast[place].user == one.name { "b" } else { "c" });
            }
            (2, Some(place)) => cast[place].targets = 3 - cast[place].targets.min(2),
            (_, None) => cast.push(one),
            _ => {}
        }
        cast
    }

    /// Reloads the policy; whether it was taken.
    async fn reload(&mut self, handle: &Handle, cast: Vec<Cast>) -> bool {
        {
            let mut world = self.shared.world();
            for cast in &cast {
                cast.put_in_place(&mut world);
            }
        }
        let policy = Arc::new(policy(&cast));
        let reply = handle.order(Command::Reload(policy.clone())).await;
        let taken = reply.as_ref().is_some_and(rekeyd::engine::Reply::all_accepted);
        let mut world = self.shared.world();
        let shown: Vec<String> =
            cast.iter().map(|cast| format!("{} at {} × {}", cast.name, cast.user, cast.targets)).collect();
        world.tell(|| format!("the policy is reloaded with {}: {reply:?}", shown.join(", ")));
        if taken {
            world.policy = Some(policy);
            self.cast = cast;
        }
        taken
    }
}
