//! The world as ports, driver and operator share it: one at a time, and never without what is due by now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::{Tally, World};
use crate::faults::{Op, Plan, Strike};
use crate::oracle::Oracle;

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
            clock_range: Default::default(),
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
