//! What every process that acts under a policy does first: read the policy, find the seal key, open the journal. Used by the
//! daemon and by commands that do its work while it is down.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::{info, warn};

use crate::engine::{Engine, Handle, Machine, Parts};
use crate::journal::sqlite::{self, Mode, SqliteJournal};
use crate::model::RotationId;
use crate::net::secrets;
use crate::policy::{Environment, JournalAt, Policy};
use crate::ports::{JournalError, Meter};
use crate::seal::SealKey;

use super::clock::SystemClock;
use super::connect::Connector;

/// Why a process cannot do its work, by what its exit code says.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The policy has mistakes, or cannot be followed (78).
    #[error("{0}")]
    Policy(String),
    /// The daemon or the journal cannot be reached, is locked, or was written by a newer version (69).
    #[error("{0}")]
    Unreachable(String),
    /// A mistake of rekeyd's own (1).
    #[error("{0}")]
    Internal(String),
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Self {
        Failure::Unreachable(error.to_string())
    }
}

/// What to do where another daemon has what this one needs.
pub const TWO_WAYS_OUT: &str =
    "stop it first (systemctl stop rekeyd), or give this one a control and journal of its own in [daemon]";

/// Reads the policy.
///
/// # Errors
/// All its mistakes.
pub fn policy(path: &Path) -> Result<Policy, Failure> {
    Policy::load(path, &Environment::of_process()).map_err(|report| Failure::Policy(report.to_string()))
}

/// Where the journal is.
pub fn journal_path(policy: &Policy) -> PathBuf {
    let JournalAt::Sqlite(path) = &policy.daemon.journal;
    path.clone()
}

/// Opens the journal for writing, with its seal key. Only the daemon may make one ([`Mode::Create`]).
///
/// # Errors
/// [`Failure::Policy`] where the policy names a seal key that cannot be had; else what the journal says.
pub fn journal(policy: &Policy, mode: Mode) -> Result<SqliteJournal, Failure> {
    let path = journal_path(policy);
    if mode == Mode::Create
        && let Some(directory) = path.parent()
        && !directory.exists()
    {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|error| {
            Failure::Unreachable(format!("making the journal's directory {} failed: {error}", directory.display()))
        })?;
    }
    let seal = seal_key(policy, mode)?;
    SqliteJournal::open(&path, seal, mode).map_err(|error| match (error, mode) {
        (JournalError::Locked(why), Mode::Create) => {
            Failure::Unreachable(format!("{why}, and was left alone: {}", TWO_WAYS_OUT))
        }
        (error, _) => error.into(),
    })
}

/// The key that seals the journal's secrets. Made only in [`Mode::Create`].
///
/// # Errors
/// [`Failure::Policy`] where the policy names one that cannot be had; else what its file says.
pub fn seal_key(policy: &Policy, mode: Mode) -> Result<SealKey, Failure> {
    let path = journal_path(policy);
    match &policy.daemon.seal_key {
        Some(reference) => {
            let text = secrets::read(reference)
                .map_err(|fault| Failure::Policy(format!("[daemon] seal_key: {}", fault.why())))?;
            SealKey::from_secret(&text).map_err(|error| {
                let what = secrets::describe(reference);
                Failure::Policy(format!("[daemon] seal_key: {what}: {error}"))
            })
        }
        None => {
            if mode == Mode::Existing && !path.exists() {
                return Err(Failure::Unreachable(format!(
                    "journal {} does not exist; only `rekeyd run` makes one",
                    path.display()
                )));
            }
            let file = sqlite::default_key_file(&path);
            let found = sqlite::seal_key_file(&path, &file, mode)?;
            if found.made {
                warn!(
                    "made the seal key {}; without a copy of it, kept apart from the journal's backups, every sealed secret \
                     is lost with this disk ([daemon] seal_key names a better place)",
                    file.display()
                );
            }
            Ok(found.key)
        }
    }
}

/// Files that root made beside the daemon's journal would keep the daemon out of it: they get the journal's owner.
pub fn give_back(journal: &Path) {
    for (path, error) in sqlite::give_back(journal) {
        eprintln!("rekeyd: giving {} to the journal's owner failed: {error}", path.display());
    }
}

/// Writes each chain's head into the log, so that a tail cut off later can be noticed.
///
/// # Errors
/// The journal cannot be read.
pub async fn log_heads(journal: &SqliteJournal) -> Result<(), Failure> {
    for (service, sequence, head) in journal.heads().await? {
        info!(%service, sequence, head, "journal head");
    }
    Ok(())
}

/// An engine over a journal, not running yet.
pub struct Prepared {
    /// The engine.
    pub engine: Engine,
    /// Orders in, reports out.
    pub handle: Handle,
    /// Its ports.
    pub connector: Arc<Connector>,
    /// What wakes it.
    pub wake: Arc<tokio::sync::Notify>,
}

/// Puts an engine together. `journal` is what it reads and writes, `guard` what remembers refused logins (the same file).
///
/// # Errors
/// The journal cannot be read; or it needs what the policy no longer has.
pub async fn prepare(
    policy: Arc<Policy>,
    journal: Arc<dyn crate::ports::Journal>,
    guard: Arc<dyn crate::ports::LoginGuard>,
    meter: Arc<dyn Meter>,
) -> Result<Prepared, Failure> {
    let connector = Arc::new(Connector::new(policy.clone(), guard));
    let wake = Arc::new(tokio::sync::Notify::new());
    let parts = Parts {
        policy: policy.clone(),
        journal,
        clock: Arc::new(SystemClock::new()),
        connect: connector.clone(),
        meter,
        decide: Arc::new(Machine),
        // Ordered by time, so that a history sorted by rotation is sorted by time too.
        fresh_id: Box::new(|| RotationId::new(uuid::Uuid::now_v7().to_string())),
        wake: wake.clone(),
    };
    let (engine, handle) = Engine::open(parts).await?;
    let objections = engine.objections(&policy);
    if !objections.is_empty() {
        return Err(Failure::Policy(objections.join("\n")));
    }
    Ok(Prepared { engine, handle, connector, wake })
}

/// Gives services their history under a new name, where the policy says `renamed_from`.
///
/// # Errors
/// Both names have a history of their own.
pub async fn rename(policy: &Policy, journal: &SqliteJournal) -> Result<(), Failure> {
    for service in &policy.services {
        if let Some(old) = &service.renamed_from {
            journal.rename(old, &service.name).await?;
        }
    }
    Ok(())
}
