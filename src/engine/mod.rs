//! The one loop: step, effect, record, apply. It paces and keeps budgets; what to do is the machine's decision.
//!
//! One task owns every state. Effects run beside it, one at a time for each service, so that a slow provider delays its own
//! service and no other. An event is durable before it is applied, and applied before the next effect.
//!
//! Invariants: a service has at most one effect in flight. Commands touch a service only between two effects. No error of the
//! journal is survived: the loop ends, and the next start replays.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::{self, JoinSet};
use tokio::time::Instant as Tick;
use tracing::{Instrument, error};

use crate::model::{Instant, Material, Reason, RotationId, ServiceName};
use crate::policy::Policy;
use crate::ports::{Clock, Connect, Fault, Journal, JournalError, Meter};
use crate::rotation::event::{Cause, Event, RotationKind};
use crate::rotation::{Circumstances, Effect, Finding, Pace, Step};

mod advice;
mod budget;
mod command;
mod decide;
pub mod examine;
mod look;
mod order;
mod pace;
mod perform;
mod place;
mod plan;
mod report;
mod runner;
mod say;

pub use advice::next_command;
pub use decide::{Decide, Machine};
pub use look::{Picture, look};
pub use order::{Command, Reply, Said};
pub use perform::{Performed, World};
pub use place::Place;
pub(crate) use plan::opening;
pub use plan::{Next, plan};
pub use report::{Report, ServiceReport, StateWord};

pub(crate) use runner::Runner;
use runner::put_under;
pub(crate) use say::effect_name;
use say::{log_event, log_fault};

/// How long the commit of a minted key is retried before the process gives up; the secret is held in memory meanwhile.
const MINTED_PATIENCE: Duration = Duration::from_secs(60);

/// How long a stop waits for running effects before it leaves them to be journaled as unknown at the next start.
const STOP_PATIENCE: Duration = Duration::from_secs(8);

/// No sleep is longer: a clock that was set is noticed after this.
const SLEEP_MAX: Duration = Duration::from_secs(30);

/// Everything the engine is given.
pub struct Parts {
    /// The policy in force.
    pub policy: Arc<Policy>,
    /// Where events go.
    pub journal: Arc<dyn Journal>,
    /// Both clocks.
    pub clock: Arc<dyn Clock>,
    /// Makes ports out of specs.
    pub connect: Arc<dyn Connect>,
    /// Counts requests.
    pub meter: Arc<dyn Meter>,
    /// Decides: [`Machine`].
    pub decide: Arc<dyn Decide>,
    /// Makes a rotation's id.
    pub fresh_id: Box<dyn Fn() -> RotationId + Send + Sync>,
    /// Wakes the planner; the heartbeat and everybody else who knows of something new.
    pub wake: Arc<Notify>,
}

/// The engine, before it runs.
pub struct Engine {
    policy: Arc<Policy>,
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    world: World,
    decide: Arc<dyn Decide>,
    fresh_id: Box<dyn Fn() -> RotationId + Send + Sync>,
    wake: Arc<Notify>,
    services: BTreeMap<ServiceName, Runner>,
    running: JoinSet<Finished>,
    tasks: HashMap<task::Id, (ServiceName, Effect)>,
    reports: watch::Sender<Arc<Report>>,
    commands: mpsc::Receiver<(Command, oneshot::Sender<Reply>)>,
    started: Instant,
}

struct Finished {
    service: ServiceName,
    effect: Effect,
    performed: Performed,
    /// The order this look was made for.
    pending: Option<command::Pending>,
    /// What was asked for that order besides.
    asked: command::Asked,
}

/// What is done next for one service.
enum Chosen {
    /// An event was written down; look again.
    Recorded,
    Run(Effect, Cause, RotationKind),
    Wait(Duration, String),
}

/// The handle others hold: orders in, reports out.
#[derive(Clone)]
pub struct Handle {
    commands: mpsc::Sender<(Command, oneshot::Sender<Reply>)>,
    reports: watch::Receiver<Arc<Report>>,
}

impl Handle {
    /// Gives a command and waits for the engine's answer. `None` when the engine has ended.
    pub async fn order(&self, command: Command) -> Option<Reply> {
        let (reply, answer) = oneshot::channel();
        self.commands.send((command, reply)).await.ok()?;
        answer.await.ok()
    }

    /// The newest report, and a way to wait for newer ones.
    pub fn reports(&self) -> watch::Receiver<Arc<Report>> {
        self.reports.clone()
    }
}

impl Engine {
    /// Replays the journal. Fails if it cannot be read or was written by a newer version; a damaged service is halted alone.
    pub async fn open(parts: Parts) -> Result<(Engine, Handle), JournalError> {
        let (sender, commands) = mpsc::channel(64);
        let (reports, watcher) = watch::channel(Arc::new(Report::default()));
        let started = parts.clock.now();
        let mut engine = Engine {
            world: World { connect: parts.connect, journal: parts.journal.clone(), meter: parts.meter },
            policy: parts.policy.clone(),
            journal: parts.journal,
            clock: parts.clock,
            decide: parts.decide,
            fresh_id: parts.fresh_id,
            wake: parts.wake,
            services: BTreeMap::new(),
            running: JoinSet::new(),
            tasks: HashMap::new(),
            reports,
            commands,
            started,
        };
        engine.replay().await?;
        engine.take_policy(parts.policy);
        engine.recover().await?;
        engine.publish();
        Ok((engine, Handle { commands: sender, reports: watcher }))
    }

    /// Runs until `stop` resolves or the journal fails.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), JournalError> {
        tokio::pin!(stop);
        loop {
            let sleep = self.advance().await?;
            self.publish();
            let wake = self.wake.clone();
            tokio::select! {
                biased;
                () = &mut stop => break,
                Some(joined) = self.running.join_next_with_id(), if !self.running.is_empty() => self.joined(joined).await?,
                Some((command, reply)) = self.commands.recv() => self.command(command, reply).await?,
                () = wake.notified() => {}
                () = tokio::time::sleep(sleep) => {}
            }
        }
        self.stop().await
    }

    /// How everything stands.
    pub fn report(&self) -> Report {
        report::report(&self.services, &self.policy, &self.clock.now())
    }

    async fn replay(&mut self) -> Result<(), JournalError> {
        for history in self.journal.load().await? {
            let (service, runner) = Runner::replayed(history);
            if let Some(damage) = &runner.damage {
                error!(%service, "the journal of this service is damaged, and it is halted alone: {damage}");
            }
            self.services.insert(service, runner);
        }
        Ok(())
    }

    /// Makes the policy the one in force: new services appear, others lose their policy and leave once they are clean.
    fn take_policy(&mut self, policy: Arc<Policy>) {
        put_under(&mut self.services, &policy);
        self.policy = policy;
    }

    async fn recover(&mut self) -> Result<(), JournalError> {
        let names: Vec<ServiceName> = self.services.keys().cloned().collect();
        for name in names {
            if self.services[&name].damage.is_some() {
                continue;
            }
            for event in self.services[&name].state.recover() {
                say::log_recovery(&name, &event, &self.services[&name].state);
                self.record(&name, event, None).await?;
            }
            self.sweep(&name, say::rotation_of(&self.services[&name].state)).await?;
        }
        Ok(())
    }

    /// Shreds the secrets of keys that need none any more; repeats what a crash may have cut off.
    /// `rotation` is the one that the last event was of.
    async fn sweep(&self, name: &ServiceName, rotation: Option<&str>) -> Result<(), JournalError> {
        let runner = &self.services[name];
        let state = &runner.state;
        let needed = |key: &crate::model::KeyId| {
            let dropped = runner
                .policy
                .as_ref()
                .is_some_and(|service| service.terms.keep_secret == crate::model::KeepSecret::Rotation)
                && state.rotation.is_none()
                // Nothing is deleted for good unless the current key is probed.
                && state.leaving.values().all(|leaving| leaving.shape.can_disable());
            let current = state.current.as_ref().is_some_and(|current| current.key == *key);
            (current && !dropped)
                || state.leaving.contains_key(key)
                || (state.rotation.is_some() && state.explains(key))
        };
        for key in self.journal.materials(name).await? {
            if !needed(&key) {
                // A reader can hold it up for a while; the next sweep finishes it, and the secret stays sealed until then.
                say::log_shred(name, rotation, &key, self.journal.shred(name, &key).await);
            }
        }
        Ok(())
    }

    /// Takes every service as far as it goes without waiting, and says how long nothing will happen by itself.
    async fn advance(&mut self) -> Result<Duration, JournalError> {
        let mut sleep = SLEEP_MAX;
        let names: Vec<ServiceName> = self.services.keys().cloned().collect();
        for name in names {
            sleep = sleep.min(self.advance_one(&name).await?);
        }
        Ok(sleep.max(Duration::from_millis(1)))
    }

    async fn advance_one(&mut self, name: &ServiceName) -> Result<Duration, JournalError> {
        loop {
            let now = self.clock.now();
            let runner = &self.services[name];
            if runner.busy.is_some() {
                return Ok(SLEEP_MAX);
            }
            if let Some((command, reply)) = self.runner(name).queue.pop_front() {
                self.obey(name, command, reply).await?;
                continue;
            }
            let runner = &self.services[name];
            if runner.damage.is_some() {
                return Ok(SLEEP_MAX);
            }
            let watched = runner.state.rotation.as_ref().is_some_and(|rotation| rotation.watches_health());
            if watched && runner.state.halt.is_none() && runner.pacing.health_is_due() {
                self.start(name, Effect::Health, Cause::Timetable, RotationKind::Fresh);
                return Ok(SLEEP_MAX);
            }
            match self.next(name, &now).await? {
                Chosen::Recorded => continue,
                Chosen::Run(effect, cause, kind) => {
                    self.start(name, effect, cause, kind);
                    return Ok(SLEEP_MAX);
                }
                Chosen::Wait(left, why) => {
                    self.runner(name).waits_for = why;
                    return Ok(left);
                }
            }
        }
    }

    /// The first thing that may be done now: a step of the machine, else what the plan wants of a service at rest.
    async fn next(&mut self, name: &ServiceName, now: &Instant) -> Result<Chosen, JournalError> {
        let (mut wait, mut waits_for) = (SLEEP_MAX, String::new());
        let runner = &self.services[name];
        let steps = self.decide.steps(&runner.state, now);
        let planned = self.planned(runner, now);
        let planned = planned.map(|next| match next {
            Next::Run(effect, cause, kind) => (Step::Run(effect), cause, kind, String::new()),
            Next::Wait(left, why) => (Step::Wait(left), Cause::Timetable, RotationKind::Fresh, why),
        });
        let stepped = steps.into_iter().map(|step| (step, Cause::Timetable, RotationKind::Fresh, String::new()));
        for (step, cause, kind, why) in stepped.chain(planned) {
            match step {
                Step::Rest => {}
                Step::Record(event) => {
                    self.record(name, event, None).await?;
                    return Ok(Chosen::Recorded);
                }
                Step::Wait(left) => {
                    wait = wait.min(left);
                    waits_for = if waits_for.is_empty() { why } else { waits_for };
                }
                Step::Run(effect) => {
                    if let Some(left) = self.services[name].pacing.left(&effect) {
                        wait = wait.min(left);
                    } else if let Some(why) = budget::full(&self.services, name, &effect, &self.policy) {
                        waits_for = why;
                    } else if self.may_mint(name, &effect).await {
                        return Ok(Chosen::Run(effect, cause, kind));
                    }
                }
            }
        }
        Ok(Chosen::Wait(wait, waits_for))
    }

    /// What a service wants besides the machine's steps: a rotation opened, or a look at the world.
    fn planned(&self, runner: &Runner, now: &Instant) -> Option<Next> {
        let policy = runner.policy.as_ref();
        match runner.state.rotation {
            Some(_) => plan::observe(&runner.state, policy, runner.observed),
            None => Some(plan(&runner.state, policy, self.policy.daemon.timezone, now, runner.seen())),
        }
    }

    /// A mint is not begun unless its result can surely be written down.
    async fn may_mint(&mut self, name: &ServiceName, effect: &Effect) -> bool {
        if let Some(left) = self.horizon_of_an_earlier_life(name, effect) {
            let why = "a request that was sent before this start, and that a restored journal would not know of, could still \
                       arrive, and would take the key that is minted into a slot"
                .to_owned();
            self.runner(name).pacing.again(name, effect, Pace::After(left), None, why);
            return false;
        }
        let (Effect::PlanMint, Err(error)) = (effect, self.reserve_for(effect).await) else { return true };
        let why = format!("no key is minted while it could not be written down: {error}");
        say::log_held_up(name, &self.services[name].state, &why);
        self.runner(name).pacing.again(name, effect, Pace::BackOff, None, why);
        false
    }

    /// How long until nothing that was sent before this start can be carried out any more, where keys live in slots: a mint or a
    /// deletion names a slot there, and not the key in it. A journal that was restored from an older copy knows of no such request.
    fn horizon_of_an_earlier_life(&self, name: &ServiceName, effect: &Effect) -> Option<Duration> {
        let rotation = self.services[name].state.rotation.as_ref().filter(|_| *effect == Effect::PlanMint)?;
        let issuer = &rotation.snapshot.issuer;
        let left = issuer.settle.saturating_sub(self.clock.now().since(&self.started));
        (issuer.shape.has_slots() && !left.is_zero()).then_some(left)
    }

    async fn reserve_for(&self, effect: &Effect) -> Result<(), JournalError> {
        if *effect == Effect::PlanMint { self.journal.reserve().await } else { Ok(()) }
    }

    fn start(&mut self, name: &ServiceName, effect: Effect, cause: Cause, kind: RotationKind) {
        let at_home = matches!(kind, RotationKind::Repush(_) | RotationKind::Switch(_));
        let Some(mut place) = self.place(name, &effect) else {
            let why = "it left the policy, and the journal does not say where its keys live".to_owned();
            self.runner(name).pacing.again(name, &effect, Pace::BackOff, None, why);
            return;
        };
        if let (true, Some(home)) = (at_home, place.current_at.take_if(|_| at_home)) {
            // The key that is pushed again, or put back after a switch, lives where it was made, whatever the policy says of the next.
            place.issuer = home;
        }
        if let RotationKind::Switch(to) = &kind {
            place.switch_to = Some(to.clone());
        }
        let runner = self.runner(name);
        runner.pacing.opening = (cause, kind);
        if effect == Effect::Observe || effect == Effect::FirstContact {
            runner.observed = Some(Tick::now());
        }
        self.spawn(name, effect, place, None);
    }

    /// Runs an effect beside the loop. What it comes to arrives as [`Finished`], even if it panics.
    fn spawn(&mut self, name: &ServiceName, effect: Effect, place: Place, pending: Option<command::Pending>) {
        let (world, service, doing) = (self.world.clone(), name.clone(), effect.clone());
        let runner = self.runner(name);
        runner.busy = Some(effect.clone());
        runner.waits_for.clear();
        let state = runner.state.clone();
        let span = say::work(name, &effect, &state);
        let work = async move {
            let performed = world.perform(&effect, &place, &state).await;
            let asked = match &pending {
                Some(pending) => pending.ask(&world, &place, &performed).await,
                None => command::Asked::default(),
            };
            Finished { service, effect, performed, pending, asked }
        };
        let task = self.running.spawn(work.instrument(span));
        self.tasks.insert(task.id(), (name.clone(), doing));
    }

    /// An effect is over. One that panicked has an unknown outcome, like one that was cut off.
    async fn joined(&mut self, joined: Result<(task::Id, Finished), task::JoinError>) -> Result<(), JournalError> {
        let finished = match joined {
            Ok((id, finished)) => {
                self.tasks.remove(&id);
                finished
            }
            Err(error) => {
                let Some((service, effect)) = self.tasks.remove(&error.id()) else { return Ok(()) };
                let rotation = say::rotation_of(&self.services[&service].state);
                error!(%service, rotation, effect = effect_name(&effect), "an effect did not end well; this is a mistake of rekeyd's own");
                let found = Err(Fault::Unknown(format!(
                    "{} did not end well, a mistake of rekeyd's own",
                    effect_name(&effect)
                )));
                Finished {
                    service,
                    effect,
                    performed: Performed { found, material: None },
                    pending: None,
                    asked: command::Asked::default(),
                }
            }
        };
        self.finished(finished).await
    }

    async fn finished(&mut self, finished: Finished) -> Result<(), JournalError> {
        let Finished { service, effect, performed, pending, asked } = finished;
        let now = self.clock.now();
        let runner = self.runner(&service);
        runner.busy = None;
        if let Some(pending) = pending {
            return self.finish_command(&service, pending, performed, asked).await;
        }
        let (cause, kind) = runner.pacing.opening.clone();
        let push_on_drift =
            runner.policy.as_ref().is_some_and(|service| service.on_drift == crate::policy::OnDrift::Push);
        let tries = runner.pacing.tries(&effect);
        let targets = runner.policy.iter().flat_map(|service| &service.targets);
        let derived = targets.filter(|spec| spec.derived_by.is_some()).map(|spec| spec.name.clone()).collect();
        let around = Circumstances { cause, kind, fresh_id: (self.fresh_id)(), tries, push_on_drift, derived };
        if let Err(fault) = &performed.found {
            log_fault(&service, &effect, fault, &self.services[&service].state);
        }
        if let Ok(Finding::Observed { listing, .. }) = &performed.found {
            self.runner(&service).note_expiry(listing, &now);
        }
        let (material, is_untold) = (performed.material, performed.found.is_err());
        let state = &self.services[&service].state;
        let conclusion = self.decide.conclude(state, &effect, performed.found, &now, &around);
        for event in conclusion.events {
            if matches!(event, Event::RollbackBegun { .. } | Event::EnableBegun { .. }) {
                // A consumer is down: no earlier back-off holds up its rescue.
                self.runner(&service).pacing.hurry();
            }
            let with = matches!(event, Event::Minted { .. }).then_some(material.as_ref()).flatten();
            if !self.record(&service, event, with).await? {
                break;
            }
        }
        let poll = self.place(&service, &effect).and_then(|place| place.poll_of(&effect));
        let runner = self.runner(&service);
        if effect == Effect::Health {
            runner.pacing.health_seen(conclusion.pace == Pace::Now);
            return Ok(());
        }
        if conclusion.pace != Pace::Now && matches!(effect, Effect::Observe | Effect::FirstContact) {
            // It saw nothing: the back-off, and not the next round, says when it is tried again.
            runner.observed = None;
        }
        runner.pacing.again(&service, &effect, conclusion.pace, poll, conclusion.waits_for);
        // A back-off grows with its tries; a pause that somebody asked for does not.
        if is_untold && matches!(conclusion.pace, Pace::After(_)) {
            runner.pacing.untold(&effect);
        }
        Ok(())
    }

    /// Writes an event down and applies it; false where the machine cannot take it, which is our own mistake and halts the service.
    pub(crate) async fn record(
        &mut self,
        name: &ServiceName,
        event: Event,
        material: Option<&Material>,
    ) -> Result<bool, JournalError> {
        let now = self.clock.now();
        let runner = self.services.get(name).expect("events belong to services the engine runs");
        let mut next = runner.state.clone();
        if let Err(illegal) = next.apply(&event, &now) {
            let rotation = say::rotation_of(&runner.state);
            error!(service = %name, rotation, "{illegal}; this is a mistake of rekeyd's own, and the service is halted");
            let message = format!("{illegal}; this is a mistake of rekeyd's own; nothing was changed");
            if !matches!(event, Event::Halted { .. }) {
                Box::pin(self.record(name, Event::Halted { reason: Reason::Refused, message }, None)).await?;
            }
            return Ok(false);
        }
        self.append(name, runner.state.sequence + 1, &now, &event, material).await?;
        let command = next_command(name, &next, &self.policy).unwrap_or_default();
        let runner = self.runner(name);
        let before = std::mem::replace(&mut runner.state, next);
        log_event(name, &event, &before, &runner.state, &command);
        let clean = matches!(event, Event::Gone { .. } | Event::Closed { .. } | Event::Adopted { .. });
        if clean {
            let rotation = say::rotation_of(&before).or(say::rotation_of(&self.services[name].state));
            self.sweep(name, rotation).await?;
        }
        Ok(true)
    }

    async fn append(
        &self,
        name: &ServiceName,
        sequence: u64,
        now: &Instant,
        event: &Event,
        material: Option<&Material>,
    ) -> Result<(), JournalError> {
        let started = Tick::now();
        loop {
            match self.journal.append(name, sequence, now, event, material).await {
                // The one event whose loss would lose a key: the secret is held here and the commit tried again.
                Err(error @ JournalError::Write(_))
                    if matches!(event, Event::Minted { .. }) && started.elapsed() < MINTED_PATIENCE =>
                {
                    say::log_unwritten(name, event, &self.services[name].state, &error);
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                other => return other,
            }
        }
    }

    async fn stop(mut self) -> Result<(), JournalError> {
        let deadline = Tick::now() + STOP_PATIENCE;
        let wake = self.wake.clone();
        loop {
            tokio::select! {
                joined = self.running.join_next_with_id() => match joined {
                    Some(joined) => self.joined(joined).await?,
                    None => break,
                },
                // Whoever asks whether the engine lives, as the watchdog does, is answered while it ends too.
                () = wake.notified() => self.publish(),
                () = tokio::time::sleep_until(deadline) => break,
            }
        }
        self.running.abort_all();
        let names: Vec<ServiceName> = self.services.keys().cloned().collect();
        for name in names {
            if self.services[&name].busy.is_some() {
                for event in self.services[&name].state.recover() {
                    self.record(&name, event, None).await?;
                }
            }
        }
        self.publish();
        Ok(())
    }

    fn runner(&mut self, name: &ServiceName) -> &mut Runner {
        self.services.get_mut(name).expect("the engine is asked only for services it runs")
    }

    fn publish(&self) {
        self.reports.send_replace(Arc::new(self.report()));
    }
}
