//! The worlds in which a mistake shows: the least that tells a right implementation from a wrong one.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::TimeDelta;
use rekeyd::model::{KeyId, Shape};

use crate::scene::{Cast, Scene};
use crate::world::{Actor, At, Deed, Place, Vault, World};

const OBJECT: &str = "aws-iam:main:store";
const TARGET: &str = "arcgis:prod:store-1";

fn at(seconds: u64) -> At {
    Duration::from_secs(seconds)
}

fn old() -> KeyId {
    KeyId::new("store-old")
}

fn vault(world: &mut World) -> &mut Vault {
    world.vaults.get_mut(OBJECT).expect("the scene has this issuer object")
}

fn place(world: &mut World) -> &mut Place {
    world.places.get_mut(TARGET).expect("the scene has this target")
}

fn of(title: &str, cast: Cast) -> Scene {
    Scene::new(title, vec![cast])
}

fn store() -> Cast {
    Cast::new("store", Shape::ShownOnce, 1)
}

/// Nothing of a secret is shown, and nobody tells of a key's use: only the job speaks.
fn blind(targets: usize) -> Cast {
    Cast { shows: false, use_lag: None, ..Cast::new("store", Shape::ShownOnce, targets) }
}

pub fn plain() -> Scene {
    of("one target", store())
}

pub fn two_targets() -> Scene {
    of("two targets", Cast::new("store", Shape::ShownOnce, 2))
}

pub fn slots() -> Scene {
    of("two slots", Cast::new("store", Shape::Slots, 1))
}

pub fn client_named() -> Scene {
    of("keys named by the client", Cast::new("store", Shape::ClientNamed, 1))
}

pub fn hidden() -> Scene {
    of("a target that shows nothing", Cast { shows: false, ..store() })
}

pub fn blind_two() -> Scene {
    of("two targets that show nothing", blind(2))
}

pub fn blind_failing() -> Scene {
    of("a target that shows nothing, and whose first job fails", blind(1)).by_hand(at(0), |world| {
        place(world).failing = 1;
    })
}

pub fn blind_forgetting() -> Scene {
    let scene = of("a site that restarts, forgets its jobs, and did not finish the first", blind(1));
    let scene = scene.by_hand(at(0), |world| (place(world).failing, place(world).forgets) = (1, true));
    scene.by_hand(at(20), |world| place(world).forgets = false)
}

pub fn hollow() -> Scene {
    of("a job that says it worked and stored nothing", store()).by_hand(at(0), |world| place(world).hollow = 1)
}

pub fn slow() -> Scene {
    let scene = of("a job that takes longer than its time", store());
    let scene = scene.by_hand(at(0), |world| place(world).takes = at(900));
    scene.by_hand(at(60), |world| place(world).takes = at(5))
}

pub fn slow_to_spread() -> Scene {
    of("a new key that is known everywhere only after a minute", store())
        .by_hand(at(0), |world| vault(world).propagation = at(60))
}

pub fn ends_alike() -> Scene {
    of("secrets that end alike", Cast { ends_alike: true, ..store() })
}

/// Somebody else's key, which an operator leaves alone.
pub fn a_stranger() -> Scene {
    beside_a_stranger("a stranger beside ours", store())
}

/// The same where no target tells that it is not the key in use.
pub fn a_stranger_untold() -> Scene {
    beside_a_stranger("a stranger beside ours, and a target that shows nothing", Cast { shows: false, ..store() })
}

fn beside_a_stranger(title: &str, cast: Cast) -> Scene {
    of(title, cast).by_hand(at(0), |world| {
        vault(world).quota = Some(3);
        world.make(OBJECT, KeyId::new("break-glass"), Actor::Human, None, false);
    })
}

/// The same where it takes the last place, until its owner gives that up.
pub fn no_room() -> Scene {
    let scene = of("no room beside a stranger", store()).by_hand(at(0), |world| {
        world.make(OBJECT, KeyId::new("break-glass"), Actor::Human, None, false);
    });
    scene.by_hand(at(600), |world| world.bury_by_hand(OBJECT, &KeyId::new("break-glass")))
}

pub fn a_stranger_meanwhile() -> Scene {
    made_meanwhile(store())
}

pub fn a_stranger_without_label() -> Scene {
    made_meanwhile(Cast::new("store", Shape::Labelled, 1))
}

/// Somebody else makes a key while it is not known what came of our mint.
fn made_meanwhile(cast: Cast) -> Scene {
    let scene = of("a stranger made after a lost mint", cast).by_hand(at(0), |world| vault(world).quota = Some(3));
    scene.by_hand(at(30), |world| {
        world.make(OBJECT, KeyId::new("break-glass"), Actor::Human, None, false);
    })
}

/// Where nobody tells of a key's use, only reading the target again shows it.
pub fn put_back_by_hand() -> Scene {
    of("a target put back by hand", Cast { use_lag: None, ..store() }).by_hand(at(120), |world| {
        let now = world.now();
        world.put(TARGET, &old(), Actor::Human, now);
    })
}

/// Somebody tries another credential, just before the push, and takes it back.
pub fn changed_by_hand() -> Scene {
    let scene = of("a target changed by hand", store()).by_hand(at(4), |world| {
        let elsewhere = Vault { keys: Vec::new(), ..vault(world).clone() };
        world.vaults.insert("elsewhere".into(), elsewhere);
        let theirs = KeyId::new("theirs");
        world.make("elsewhere", theirs.clone(), Actor::Human, None, false);
        let now = world.now();
        world.put(TARGET, &theirs, Actor::Human, now);
    });
    scene.by_hand(at(20), |world| {
        let now = world.now();
        world.put(TARGET, &old(), Actor::Human, now);
    })
}

/// Somebody else hands the old key over again, in a job of his own, just when ours is lost.
pub fn a_job_of_others() -> Scene {
    of("a job of somebody else", store()).by_hand(Duration::from_millis(8_000), |world| {
        let (now, deed) = (world.now(), Deed::Push { target: TARGET.into(), key: old() });
        let _ = world.execute(&deed, Actor::Human, now, false);
    })
}

/// Something that rekeyd does not know of goes on using the old key for a while.
pub fn used_by_others() -> Scene {
    of("an old key that somebody else uses", store()).by_hand(at(120), |world| world.use_key(&old()))
}

/// Somebody needs the old key while it is watched.
pub fn enabled_by_hand() -> Scene {
    of("an old key that somebody enables again", store()).by_hand(at(500), |world| world.switch_by_hand(OBJECT, &old()))
}

/// The machine's clock is an hour ahead for twenty minutes.
pub fn clock_ahead() -> Scene {
    let scene = of("a clock that is ahead", store()).by_hand(at(60), |world| world.wall_ahead = TimeDelta::hours(1));
    scene.by_hand(at(1260), |world| world.wall_ahead = TimeDelta::zero())
}

/// The journal is put back from a copy made before the rotation.
pub fn journal_restored() -> Scene {
    let copy = Arc::new(Mutex::new(None));
    let kept = copy.clone();
    let scene = of("a journal restored from an older copy", Cast { every: "40m", ..store() });
    let scene = scene.by_hand(at(0), move |world| {
        *kept.lock().expect("nobody panics here") = Some(world.shelves[0].clone());
    });
    let scene = scene.by_hand(at(1500), move |world| {
        world.kill_process(0);
        world.restore_shelf(0, copy.lock().expect("nobody panics here").clone().expect("a copy was made"));
    });
    // The history is not over before somebody has looked at what that left.
    scene.by_hand(at(1600), |_| {})
}
