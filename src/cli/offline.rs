//! The daemon's work while the daemon is down: an engine in this process, under the journal's lock, for the named services only.
//!
//! It gives one order and goes no further than that order needs. Services that are not named are not even read, so that a command
//! about one never moves another.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::daemon::control::user;
use crate::daemon::protocol::{Ask, Told};
use crate::daemon::{Failure, log, startup};
use crate::engine::{Handle, Report};
use crate::journal::sqlite::{Mode, SqliteJournal};
use crate::metrics::Metrics;
use crate::model::{Instant, KeyId, Material, ServiceName};
use crate::policy::Policy;
use crate::ports::{History, Journal, JournalError};
use crate::rotation::event::Event;
use crate::schedule::Timetable;

/// An engine that runs in this process.
pub(super) struct Offline {
    /// Orders in, reports out.
    pub(super) handle: Handle,
    engine: JoinHandle<Result<(), JournalError>>,
    end: oneshot::Sender<()>,
    journal: PathBuf,
}

/// Gives one order and ends. What it sets in motion is the daemon's to finish.
pub(super) async fn order(policy: Policy, ask: Ask) -> Result<Told, Failure> {
    let Some(service) = ask.service().cloned() else {
        return Err(Failure::Unreachable(format!("no daemon answers at {}", policy.daemon.control.display())));
    };
    let offline = Offline::start(policy, vec![service]).await?;
    let by = own_name();
    let told = match ask.into_order(by) {
        Ok(command) => offline.handle.order(command).await.map(Told::from),
        Err(_) => None,
    };
    offline.end().await?;
    told.ok_or_else(|| Failure::Unreachable("the order was not answered".into()))
}

impl Offline {
    /// Opens the journal, which must be there and free, and runs an engine over it.
    pub(super) async fn start(mut policy: Policy, services: Vec<ServiceName>) -> Result<Offline, Failure> {
        log::start(log::COMMAND, log::Style::Text);
        let path = startup::journal_path(&policy);
        let journal = Arc::new(startup::journal(&policy, Mode::Existing)?);
        // Whoever names a service that moves with another one is told so by the engine, which must know of it.
        policy.services.retain(|service| {
            let follows = service.followers.iter().any(|follower| services.contains(&follower.name));
            follows || services.contains(&service.name)
        });
        for service in &mut policy.services {
            // Only what is ordered is begun here.
            service.timetable = Timetable::OnDemand;
        }
        let only = Arc::new(Only { journal: journal.clone(), services });
        let meter = Arc::new(Metrics::new());
        let prepared = startup::prepare(Arc::new(policy), only, journal, meter).await?;
        let (end, ended) = oneshot::channel::<()>();
        let engine = tokio::spawn(prepared.engine.run(async move {
            let _ = ended.await;
        }));
        Ok(Offline { handle: prepared.handle, engine, end, journal: path })
    }

    /// The newest report, and a way to wait for newer ones.
    pub(super) fn reports(&self) -> watch::Receiver<Arc<Report>> {
        self.handle.reports()
    }

    /// Lets what runs end, and closes the journal.
    pub(super) async fn end(self) -> Result<(), Failure> {
        let _ = self.end.send(());
        drop(self.handle);
        let ended = self.engine.await;
        startup::give_back(&self.journal);
        ended.map_err(|error| Failure::Internal(format!("the engine broke: {error}")))??;
        Ok(())
    }
}

/// Who gives an order here.
pub(super) fn own_name() -> String {
    format!("{}, without a daemon", user(rustix::process::getuid().as_raw()))
}

/// A journal of which only some services are seen.
struct Only {
    journal: Arc<SqliteJournal>,
    services: Vec<ServiceName>,
}

#[async_trait]
impl Journal for Only {
    async fn load(&self) -> Result<Vec<History>, JournalError> {
        let mut histories = self.journal.load().await?;
        histories.retain(|history| self.services.contains(&history.service));
        Ok(histories)
    }

    async fn append(
        &self,
        service: &ServiceName,
        expected: u64,
        at: &Instant,
        event: &Event,
        material: Option<&Material>,
    ) -> Result<(), JournalError> {
        self.journal.append(service, expected, at, event, material).await
    }

    async fn material(&self, service: &ServiceName, key: &KeyId) -> Result<Option<Material>, JournalError> {
        self.journal.material(service, key).await
    }

    async fn materials(&self, service: &ServiceName) -> Result<Vec<KeyId>, JournalError> {
        self.journal.materials(service).await
    }

    async fn shred(&self, service: &ServiceName, key: &KeyId) -> Result<(), JournalError> {
        self.journal.shred(service, key).await
    }

    async fn reserve(&self) -> Result<(), JournalError> {
        self.journal.reserve().await
    }
}
