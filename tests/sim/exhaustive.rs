//! Every single strike, and every ordered pair (a strike during the recovery from a strike), in a world of every shape and with one
//! and two targets.

use std::sync::atomic::{AtomicUsize, Ordering};

use rekeyd::model::Shape;

use crate::counts::{Again, Counts, Finds};
use crate::faults::{Plan, Site, Strike};
use crate::run::{History, play};
use crate::scene::Scene;

/// Every shape an issuer may have.
pub const SHAPES: [Shape; 5] = [Shape::ShownOnce, Shape::ClientNamed, Shape::Labelled, Shape::Slots, Shape::Derived];

/// Which strikes are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// One in each history.
    Singles,
    /// Two, one after the other.
    Pairs,
}

/// Plays every history of a scene to this depth.
pub fn exhaust(scene: &Scene, depth: Depth, seen: &mut dyn FnMut(&History)) -> (Counts, Finds) {
    let mut finds = Finds::default();
    let mut counts = Counts::default();
    let calm = play(scene, Plan::calm(), false);
    counts.add(&calm);
    finds.add(|| Again::Struck(Box::new(scene.clone()), Plan::calm()), &calm);
    seen(&calm);
    let firsts = strikes(&calm.sites, 0);
    let next = AtomicUsize::new(0);
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    let parts: Vec<(Counts, Finds, Vec<History>)> = std::thread::scope(|scope| {
        let started: Vec<_> = (0..workers)
            .map(|_| {
                scope.spawn(|| {
                    let (mut counts, mut finds, mut singles) = (Counts::default(), Finds::default(), Vec::new());
                    while let Some(first) = firsts.get(next.fetch_add(1, Ordering::Relaxed)) {
                        singles.push(after(scene, *first, depth, &mut counts, &mut finds));
                    }
                    (counts, finds, singles)
                })
            })
            .collect();
        started.into_iter().map(|worker| worker.join().expect("a worker panics only by our own mistake")).collect()
    });
    for (more, found, singles) in parts {
        counts.join(&more);
        finds.join(found);
        singles.iter().for_each(&mut *seen);
    }
    (counts, finds)
}

/// One first strike, and everything that may strike after it.
fn after(scene: &Scene, first: (usize, Strike), depth: Depth, counts: &mut Counts, finds: &mut Finds) -> History {
    let plan = Plan::one(first.0, first.1);
    let single = play(scene, plan.clone(), false);
    counts.add(&single);
    finds.add(|| Again::Struck(Box::new(scene.clone()), plan), &single);
    if depth == Depth::Pairs {
        for second in strikes(&single.sites, first.0 + 1) {
            let plan = Plan::two(first, second);
            let pair = play(scene, plan.clone(), false);
            counts.add(&pair);
            finds.add(|| Again::Struck(Box::new(scene.clone()), plan), &pair);
        }
    }
    single
}

fn strikes(sites: &[Site], from: usize) -> Vec<(usize, Strike)> {
    let later = sites.iter().filter(|site| site.index >= from);
    later.flat_map(|site| site.op.strikes().iter().map(|strike| (site.index, *strike))).collect()
}
