//! Stories of chance for the pairs that the written ones leave: a hand that types anything, changes anything, and in weather that
//! comes and goes. What it does to the targets is not judged here; only where events occur.

use std::time::Duration;

use rekeyd::engine::Handle;
use rekeyd::model::{KeyId, ServiceName, Shape};
use tokio::time::sleep;

use super::Coverage;
use super::script::{Eye, OBJECT, SERVICE, Say, TARGET};
use crate::chance::Chance;
use crate::faults::Plan;
use crate::operator::Operator;
use crate::run::{History, end, in_virtual_time, live};
use crate::scene::{Cast, Scene};
use crate::world::{Actor, Shared, World};

/// How many stories of chance are told at least, for the states they lead to, and at most.
const SEEDS_MIN: u64 = 24;
const SEEDS_MAX: u64 = 24;

/// How long each goes on.
const LENGTH: Duration = Duration::from_secs(2 * 3600);

/// Plays one seed after the other until every legal pair has been visited.
pub fn fill(coverage: &mut Coverage) {
    let workers = std::thread::available_parallelism().map_or(2, usize::from) as u64;
    let mut seed = 0;
    while seed < SEEDS_MIN || (seed < SEEDS_MAX && !coverage.missing().is_empty()) {
        let histories: Vec<History> = std::thread::scope(|scope| {
            let started: Vec<_> = (seed..seed + workers).map(|seed| scope.spawn(move || play(seed, false))).collect();
            started.into_iter().map(|worker| worker.join().expect("a story panics only by our own mistake")).collect()
        });
        histories.iter().for_each(|history| coverage.see(history));
        seed += workers;
    }
    println!("coverage: {seed} stories of chance");
}

/// One story of chance.
pub fn play(seed: u64, tell: bool) -> History {
    let mut chance = Chance::new(seed);
    let scene = scene(&mut chance);
    in_virtual_time(async {
        let shared = Shared::new(weather(&mut chance, 40), tell);
        scene.build(&shared);
        stage(&mut shared.world(), &mut chance);
        let (mut eye, mut operator) = (Eye::new(&shared), Operator::default());
        live(&shared, &scene, 0, async |handle: &Handle| {
            while shared.world().now() < LENGTH {
                eye.wait(Duration::from_secs(60)).await;
                eye.fresh.clear();
                if eye.state.halt.is_some() && chance.one_in(3) {
                    sleep(Duration::from_secs(10)).await;
                    eye.look();
                    attend(&shared, &scene, handle, &mut operator, &eye, &mut chance).await;
                } else if chance.one_in(8) {
                    for _ in 0..=chance.below(3) {
                        act(&shared, handle, &eye, &mut chance);
                    }
                }
            }
        })
        .await;
        end(&shared, operator.typed)
    })
}

fn scene(chance: &mut Chance) -> Scene {
    let mut cast = Cast::new(SERVICE, Shape::ShownOnce, 1 + chance.below(2));
    cast.exclusive = chance.one_in(2);
    cast.on_drift_push = chance.one_in(3);
    cast.shows = !chance.one_in(4);
    Scene::new("chance", vec![cast])
}

fn stage(world: &mut World, chance: &mut Chance) {
    if chance.one_in(8) {
        // Nothing is known of the key: the first contact.
        world.shelves[0] = Default::default();
    }
    if !chance.one_in(4) {
        vault(world).quota = None;
    }
    let watched = !chance.one_in(3);
    world.places.values_mut().for_each(|place| place.watched = watched);
}

fn weather(chance: &mut Chance, one_in: u32) -> Plan {
    Plan::Random { chance: Chance::new(chance.next()), one_in, until: LENGTH, victim: None }
}

async fn attend(
    shared: &Shared,
    scene: &Scene,
    handle: &Handle,
    operator: &mut Operator,
    eye: &Eye,
    chance: &mut Chance,
) {
    if chance.one_in(3) {
        eye.say(handle, *chance.pick(&[Say::Retry, Say::AdoptHeld, Say::Abandon, Say::Disown, Say::Reclaim]));
        return;
    }
    let report = handle.reports().borrow().clone();
    let service = report.services.iter().find(|service| service.name == ServiceName::new(SERVICE));
    if let Some(service) = service {
        operator.gave_up = false;
        operator.act(shared, scene, handle, service).await;
    }
}

const SAYINGS: [Say; 17] = [
    Say::Rotate,
    Say::Rotate,
    Say::Rotate,
    Say::RotateCompromised,
    Say::Pause,
    Say::Resume,
    Say::Retry,
    Say::Rollback,
    Say::Repush,
    Say::DespiteUse,
    Say::AdoptHeld,
    Say::AdoptOld,
    Say::Abandon,
    Say::AbandonNothing,
    Say::Reclaim,
    Say::ReclaimDisowned,
    Say::Disown,
];

fn act(shared: &Shared, handle: &Handle, eye: &Eye, chance: &mut Chance) {
    if chance.one_in(2) {
        eye.say(handle, *chance.pick(&SAYINGS));
        return;
    }
    let mut world = shared.world();
    let world = &mut *world;
    let some_key = some_key(world, chance);
    match chance.below(13) {
        0 | 1 => {
            let id = KeyId::new(format!("HUMAN{}", world.number()));
            let _ = world.make(OBJECT, id, Actor::Human, None, false);
        }
        2 => {
            let held = world.places.keys().any(|place| world.held_or_coming(place).contains(&some_key));
            if !held {
                world.bury_by_hand(OBJECT, &some_key);
            }
        }
        3 => set_active(world, &some_key, false),
        4 => set_active(world, &some_key, true),
        5 => {
            let now = world.now();
            world.put(TARGET, &some_key, Actor::Human, now);
        }
        6 => {
            let sick = chance.one_in(2);
            world.places.values_mut().for_each(|place| place.sick = sick);
        }
        7 => {
            let failing = chance.below(5) as u32;
            world.places.values_mut().for_each(|place| place.failing = failing);
        }
        8 => {
            let forgets = chance.one_in(2);
            world.places.values_mut().for_each(|place| place.forgets = forgets);
        }
        9 => vault(world).lag = Duration::from_secs(*chance.pick(&[0, 60, 200])),
        10 => vault(world).propagation = Duration::from_secs(*chance.pick(&[5, 5, 60, 700])),
        11 => {
            let takes = Duration::from_secs(*chance.pick(&[5, 5, 60, 300]));
            world.places.values_mut().for_each(|place| place.takes = takes);
        }
        _ => {
            let one_in = *chance.pick(&[3, 40, 1000]);
            world.plan = weather(chance, one_in);
        }
    }
}

pub fn vault(world: &mut World) -> &mut crate::world::Vault {
    world.vaults.get_mut(OBJECT).expect("the scene has put it there")
}

/// A key that lives, or one that there never was.
fn some_key(world: &World, chance: &mut Chance) -> KeyId {
    let living: Vec<&KeyId> =
        world.vaults[OBJECT].keys.iter().filter(|key| key.died.is_none()).map(|key| &key.id).collect();
    if living.is_empty() { KeyId::new("NONE") } else { (*chance.pick(&living)).clone() }
}

/// A human enables or disables a key at the console.
pub fn set_active(world: &mut World, id: &KeyId, active: bool) {
    for key in vault(world).keys.iter_mut().filter(|key| key.id == *id) {
        (key.active, key.killed_by) = (active, (!active).then_some(Actor::Human));
    }
}
