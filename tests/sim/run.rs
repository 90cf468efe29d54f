//! One history: a process that lives, dies and is started again, an operator who does what status says, and the end, where
//! everything must be at rest and accounted for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rekeyd::engine::{Engine, Handle, Parts, Report, ServiceReport, StateWord};
use rekeyd::model::{Reason, RotationId, ServiceName};
use tokio::sync::Notify;

use crate::faults::{Plan, Site};
use crate::journal::Shelf;
use crate::operator::Operator;
use crate::oracle::{Promise, Violation};
use crate::ports::{NoMeter, SimClock};
use crate::scene::Scene;
use crate::world::{Shared, Tally};

/// No history is longer.
pub const LONGEST: Duration = Duration::from_secs(96 * 3600);

/// What a history came to.
pub struct History {
    pub violations: Vec<Violation>,
    pub sites: Vec<Site>,
    pub tally: Tally,
    pub checks: [u64; 8],
    pub story: Vec<String>,
    pub shelves: Vec<Shelf>,
    /// How often the operator had to type something.
    pub typed: u32,
}

/// Runs a future in a time of its own.
pub fn in_virtual_time<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without threads or sockets can always be made").block_on(future)
}

/// Plays a scene under a plan of strikes.
pub fn play(scene: &Scene, plan: Plan, tell: bool) -> History {
    in_virtual_time(async {
        let shared = Shared::new(plan, tell);
        scene.build(&shared);
        let mut operator = Operator::default();
        let panics = PANICS.get();
        live(&shared, scene, 0, async |handle: &Handle| until_at_rest(&shared, scene, handle, &mut operator).await)
            .await;
        if PANICS.get() != panics {
            shared.world().violated(Promise::NoMistakeOfOurOwn, "an effect panicked".into());
        }
        end(&shared, operator.typed)
    })
}

thread_local! {
    /// Panics of this thread; the engine turns one in an effect into an unknown outcome, and it must not pass unseen.
    static PANICS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// How many panics this thread has seen.
pub fn panics() -> u64 {
    PANICS.get()
}

/// Notes a panic; for the hook.
pub fn note_panic() {
    PANICS.set(PANICS.get() + 1);
}

/// Takes the world apart.
pub fn end(shared: &Shared, typed: u32) -> History {
    let mut world = shared.world();
    History {
        violations: std::mem::take(&mut world.oracle.violations),
        sites: std::mem::take(&mut world.sites),
        tally: world.tally,
        checks: world.oracle.checks,
        story: world.take_story(),
        shelves: std::mem::take(&mut world.shelves),
        typed,
    }
}

/// Lets a process live, die and be started again until `during` is over.
pub async fn live(shared: &Shared, scene: &Scene, process: usize, mut during: impl AsyncFnMut(&Handle)) {
    loop {
        let bell = {
            let mut world = shared.world();
            world.dead.remove(&process);
            world.bells[process] = Arc::new(Notify::new());
            world.tell(|| format!("rekeyd {process} starts"));
            world.bells[process].clone()
        };
        let opened = tokio::select! {
            biased;
            () = bell.notified() => None,
            opened = Engine::open(parts(shared, scene, process)) => opened.ok(),
        };
        if let Some((engine, handle)) = opened {
            let over = tokio::select! {
                biased;
                () = bell.notified() => false,
                ended = engine.run(std::future::pending()) => {
                    shared.world().tell(|| format!("rekeyd {process} ends: {ended:?}"));
                    false
                }
                () = during(&handle) => true,
            };
            if over {
                return;
            }
        }
        shared.world().dead.insert(process);
        if shared.world().is_broken() {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        if shared.world().now() > LONGEST * 2 {
            shared.world().violated(Promise::NoDeadEnd, "the process never stays up".into());
            return;
        }
    }
}

fn parts(shared: &Shared, scene: &Scene, process: usize) -> Parts {
    let ids = shared.clone();
    let policy = shared.world().policy.clone().unwrap_or_else(|| scene.policy.clone());
    Parts {
        policy,
        journal: scene.plant.journal(shared, process),
        clock: Arc::new(SimClock(shared.clone())),
        connect: scene.plant.connect(shared, process),
        meter: Arc::new(NoMeter),
        decide: scene.plant.decide.clone(),
        fresh_id: Box::new(move || RotationId::new(format!("r{}-{process}", ids.world().number()))),
        wake: Arc::new(Notify::new()),
    }
}

/// Waits until every service has done what it was to do and is at rest; an operator looks after those that are halted.
pub async fn until_at_rest(shared: &Shared, scene: &Scene, handle: &Handle, operator: &mut Operator) {
    let mut reports = handle.reports();
    loop {
        // What follows from a broken promise is not worth the time.
        if shared.world().is_broken() {
            return;
        }
        let report = reports.borrow_and_update().clone();
        let quiet = shared.world().quiet_at();
        let rests = report.services.iter().all(|service| is_at_rest(shared, scene, service));
        if rests && quiet.is_none() && !report.services.is_empty() {
            let mut world = shared.world();
            world.hold(Promise::NoDeadEnd, true, String::new);
            world.check_end(0, &halted(&report));
            return;
        }
        if shared.world().now() > LONGEST || operator.gave_up {
            let left: Vec<String> =
                report.services.iter().filter(|service| !is_at_rest(shared, scene, service)).map(in_a_line).collect();
            shared.world().violated(Promise::NoDeadEnd, left.join("; "));
            return;
        }
        if let Some(service) = report.services.iter().find(|service| service.state == StateWord::Halted) {
            tokio::time::sleep(Duration::from_secs(30)).await;
            let still = reports.borrow_and_update().clone();
            let still = still.services.iter().find(|now| now.name == service.name).cloned();
            if let Some(service) = still.filter(|service| service.state == StateWord::Halted) {
                operator.act(shared, scene, handle, &service).await;
            }
            continue;
        }
        tokio::select! {
            biased;
            changed = reports.changed() => if changed.is_err() { std::future::pending::<()>().await },
            () = tokio::time::sleep(Duration::from_secs(600)) => {}
        }
    }
}

/// A service as a violation shows it.
pub fn in_a_line(service: &ServiceReport) -> String {
    let reason = service.reason.map_or("", Reason::as_str);
    let message = service.message.as_deref().unwrap_or("nothing is said");
    format!("{} is {} {reason}: {message}", service.name, service.state.as_str())
}

fn halted(report: &Report) -> BTreeMap<ServiceName, Reason> {
    report.services.iter().filter_map(|service| Some((service.name.clone(), service.reason?))).collect()
}

fn is_at_rest(shared: &Shared, scene: &Scene, service: &ServiceReport) -> bool {
    let done = {
        let world = shared.world();
        if world.policy.as_ref().is_some_and(|policy| policy.followed_by(&service.name).is_some()) {
            // It has no rotations of its own.
            return true;
        }
        world.oracle.ledgers.get(&(0, service.name.clone())).map_or(0, |ledger| ledger.done)
    };
    done >= scene.rotations
        && service.state == StateWord::Idle
        && service.phase.is_none()
        && service.debt.is_empty()
        && service.strangers.is_empty()
}
