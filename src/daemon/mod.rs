//! The daemon: the one place where everything is put together, and where signals become orders.
//!
//! Order of the start, each step undone by the end of the process: policy, log, seal key, journal, engine, control socket, HTTP,
//! ready. A policy with a mistake ends it before anything is made.
//!
//! It decides nothing about keys, keeps no state of its own, and never touches a service but through an order.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tracing::{error, info, warn};

use crate::engine::{Command, Handle, Reply};
use crate::journal::sqlite::{Mode, SqliteJournal};
use crate::metrics::Metrics;
use crate::net::secrets;
use crate::policy::{Listen, Policy};
use crate::ports::JournalError;
use crate::rotation::TakeUp;
use crate::table::SecretUse;

pub mod attempts;
pub mod checkup;
pub mod clock;
pub mod connect;
pub mod control;
pub mod heartbeat;
pub mod http;
pub mod log;
pub mod protocol;
pub mod pulse;
pub mod records;
pub mod refusals;
pub mod refused;
pub mod signals;
pub mod startup;
pub mod status;
pub mod systemd;

use checkup::Checkup;
use connect::Connector;
use control::{Control, Desk};
use heartbeat::Heartbeat;
use pulse::Pulse;
use refused::{Refusal, Refusals};
use signals::{Signalled, Signals};
pub use startup::Failure;

/// The engine ends by itself within eight seconds of a stop; nothing waits longer than ten.
const END_PATIENCE: Duration = Duration::from_millis(9000);

/// Runs the daemon until a signal ends it. The log is started already.
///
/// # Errors
/// Why it did not start, or could not go on.
pub async fn run(policy_path: &Path, mut signals: Signals) -> Result<(), Failure> {
    let policy = Arc::new(startup::policy(policy_path)?);
    info!(version = env!("CARGO_PKG_VERSION"), policy = %policy_path.display(), services = policy.services.len(), "starting");
    for warning in &policy.warnings {
        warn!("{warning}");
    }
    for used in policy.secret_refs() {
        // Said now, and not only when it is needed in the night. What needs it halts by itself, and nothing else does.
        if let Err(fault) = secrets::read(&used.secret) {
            let command = TakeUp::of(&used.secret).command();
            warn!("{}: {}: {}; put it in its place, then {command}", used.at, used.key, fault.why());
        }
    }
    let journal = Arc::new(startup::journal(&policy, Mode::Create)?);
    startup::log_heads(&journal).await?;
    for (seal_key, count) in journal.sealed_with_other_keys().await? {
        warn!(%seal_key, count, "sealed secrets need another seal key than this one, and cannot be opened");
    }
    startup::rename(&policy, &journal).await?;
    let metrics = Arc::new(Metrics::new());
    let prepared =
        startup::prepare(policy.clone(), journal.clone(), journal.clone(), Arc::new(metrics.clone())).await?;
    let control = Control::bind(&policy.daemon.control)?;
    let listener = match policy.daemon.listen {
        Listen::Off => None,
        Listen::At(address) => Some(http::bind(address).await?),
    };

    let served = match listener.as_ref().map(tokio::net::TcpListener::local_addr) {
        Some(Ok(address)) => address.to_string(),
        _ => "off".to_owned(),
    };

    let handle = prepared.handle;
    let (end, ended) = oneshot::channel::<()>();
    let mut engine = tokio::spawn(prepared.engine.run(async move {
        // The sender is dropped only with the daemon itself, which is an end too.
        let _ = ended.await;
    }));
    let mut beside = tokio::task::JoinSet::new();
    let pulse = Pulse::default();
    beside.spawn(pulse.clone().keep(handle.reports()));
    let checkup = Checkup::new(prepared.connector.clone(), journal.clone(), handle.clone(), Arc::new(metrics.clone()));
    let refusals = Refusals::default();
    let refused = refusals.heard();
    let journal_at = startup::journal_path(&policy);
    let desk = Desk { handle: handle.clone(), journal: journal_at, checkup, refused: refused.clone() };
    beside.spawn(control.serve(desk));
    if let Some(listener) = listener {
        beside.spawn(http::serve(
            listener,
            http::Sources { reports: handle.reports(), pulse, metrics, refused: refused.clone() },
        ));
    }
    beside.spawn(systemd::feed_watchdog(prepared.wake.clone(), handle.reports()));
    let heartbeat = match Heartbeat::start(prepared.wake.clone()).await {
        Ok(heartbeat) => Some(heartbeat),
        Err(error) => {
            warn!("the heartbeat could not be started, so the engine wakes by its own timer alone: {error}");
            None
        }
    };
    systemd::ready(&systemd::in_a_line(&handle.reports().borrow().clone(), None));
    let status = beside.spawn(systemd::keep_status(handle.reports(), refused));
    info!(control = %policy.daemon.control.display(), listen = %served, "ready");

    let post = Post { policy_path: policy_path.to_owned(), handle, connector: prepared.connector, refusals };
    let outcome = tokio::select! {
        outcome = &mut engine => {
            error!("the engine has ended by itself; the next start replays the journal");
            Some(outcome)
        }
        name = post.obey(policy, &mut signals) => {
            info!("{name}: taking no new step, letting what runs end");
            None
        }
    };
    status.abort();
    systemd::stopping();
    let outcome = match outcome {
        Some(outcome) => outcome,
        None => {
            let _ = end.send(());
            match tokio::time::timeout(END_PATIENCE, engine).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    warn!(
                        "the engine did not end in time; what was under way is journaled as unknown at the next start"
                    );
                    return Ok(());
                }
            }
        }
    };
    if let Some(heartbeat) = heartbeat {
        // It only woke the engine, which has ended; its own end is not worth waiting for.
        let _ = tokio::time::timeout(Duration::from_millis(200), heartbeat.stop()).await;
    }
    // The control socket goes before the journal's lock does, so that who finds no socket finds no lock either.
    beside.shutdown().await;
    let outcome = outcome.map_err(|error| Failure::Internal(format!("the engine broke: {error}")))?;
    note_end(&journal).await;
    outcome.map_err(|error: JournalError| match error {
        JournalError::Write(why) => Failure::Unreachable(format!(
            "{why}; nothing more was done, since nothing is done that is not written down: mend that, and the next start goes on \
             from the journal"
        )),
        other => Failure::Unreachable(other.to_string()),
    })
}

async fn note_end(journal: &SqliteJournal) {
    match startup::log_heads(journal).await {
        Ok(()) => info!("ended"),
        Err(error) => warn!("ended; the journal's heads could not be read: {error}"),
    }
}

/// Where signals are turned into orders.
struct Post {
    policy_path: PathBuf,
    handle: Handle,
    connector: Arc<Connector>,
    refusals: Refusals,
}

impl Post {
    /// Obeys signals until one says stop, and names it. Orders are given beside this loop, and a reload is made in it, so that neither
    /// keeps a stop waiting; one reload follows the other.
    async fn obey(&self, mut policy: Arc<Policy>, signals: &mut Signals) -> &'static str {
        let mut reload: Option<Pin<Box<dyn Future<Output = Arc<Policy>> + Send + '_>>> = None;
        let mut once_more = false;
        loop {
            let taken = async {
                match reload.as_mut() {
                    Some(reload) => reload.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                taken = taken => {
                    policy = taken;
                    reload = std::mem::take(&mut once_more).then(|| Box::pin(self.reload(policy.clone())) as _);
                }
                signal = signals.next() => match signal {
                    Signalled::Stop(name) => return name,
                    // The file may have changed since it was read.
                    Signalled::Reload if reload.is_some() => once_more = true,
                    Signalled::Reload => reload = Some(Box::pin(self.reload(policy.clone()))),
                    Signalled::Rotate => self.order("SIGUSR1", Command::RotateOnSignal),
                    Signalled::TryNow => self.order("SIGUSR2", Command::TryNow),
                },
            }
        }
    }

    fn order(&self, signal: &'static str, command: Command) {
        info!("order: {signal}");
        let handle = self.handle.clone();
        tokio::spawn(async move {
            if let Some(reply) = handle.order(command).await {
                log_reply(signal, &reply);
            }
        });
    }

    /// Reads policy and secrets again; returns the policy in force after that.
    async fn reload(&self, old: Arc<Policy>) -> Arc<Policy> {
        systemd::reloading();
        let policy = match self.take(&old).await {
            Ok(policy) => {
                self.refusals.clear();
                policy
            }
            Err(refusal) => {
                error!(
                    next = refusal.next,
                    "the policy in force stays, since the new one was refused:\n{}", refusal.why
                );
                self.refusals.refuse(refusal);
                old
            }
        };
        let refusal = self.refusals.heard().refusal();
        systemd::ready(&systemd::in_a_line(&self.handle.reports().borrow().clone(), refusal.as_deref()));
        policy
    }

    async fn take(&self, old: &Arc<Policy>) -> Result<Arc<Policy>, Refusal> {
        let path = self.policy_path.clone();
        let read = tokio::task::spawn_blocking(move || startup::policy(&path)).await;
        let read = read.map_err(|error| Refusal::new(format!("reading it broke: {error}"), Refusal::MENDED))?;
        let new = read.map_err(|failure| Refusal::new(failure.to_string(), Refusal::MISTAKES))?;
        let mut changes = new.changes_needing_restart(old);
        if renamings(&new).iter().any(|renaming| !renamings(old).contains(renaming)) {
            changes.push("renamed_from".into());
        }
        if !changes.is_empty() {
            return Err(Refusal::new(format!("restart needed: {} changed", changes.join(", ")), Refusal::RESTART));
        }
        let lacking = lacking(&new, old);
        if !lacking.is_empty() {
            return Err(Refusal::new(lacking.join("\n"), Refusal::LACKING));
        }
        for warning in &new.warnings {
            warn!("{warning}");
        }
        let new = Arc::new(new);
        // Before the engine takes it, so that nothing it starts under the new policy meets the old accounts.
        self.connector.take(new.clone());
        match self.handle.order(Command::Reload(new.clone())).await {
            Some(reply) if reply.all_accepted() => {
                log_reply("SIGHUP", &reply);
                Ok(new)
            }
            answer => {
                self.connector.take(old.clone());
                let said = answer.unwrap_or_default().said;
                let why = said.into_iter().map(|said| said.message).collect::<Vec<_>>().join("\n");
                Err(Refusal::new(why, Refusal::MENDED))
            }
        }
    }
}

/// A history that changes hands does so before the engine has read it.
fn renamings(policy: &Policy) -> Vec<(&str, &str)> {
    policy
        .services
        .iter()
        .filter_map(|service| Some((service.renamed_from.as_ref()?.as_str(), service.name.as_str())))
        .collect()
}

/// What the new policy wants of systemd and this process was not given at its start, which no reload brings. What the policy in force
/// lacks already is told where it is needed, and keeps no other change out.
fn lacking(new: &Policy, old: &Policy) -> Vec<String> {
    let is_new = |used: &&SecretUse| old.secret_refs().iter().all(|known| known.secret != used.secret);
    let of_systemd = |used: &&SecretUse| TakeUp::of(&used.secret) == TakeUp::Restart;
    let wanted = new.secret_refs().iter().filter(is_new).filter(of_systemd);
    let missing = wanted.filter_map(|used| Some((used, secrets::read(&used.secret).err()?)));
    missing
        .map(|(used, fault)| {
            let (at, key, command) = (&used.at, &used.key, TakeUp::Restart.command());
            format!("{at}: {key}: {}; put it in its place, then {command}", fault.why())
        })
        .collect()
}

fn log_reply(signal: &'static str, reply: &Reply) {
    for said in &reply.said {
        let service = said.service.as_ref().map(|service| service.as_str());
        match said.accepted {
            true => info!(signal, service, "{}", said.message),
            false => warn!(signal, service, "{}", said.message),
        }
    }
}
