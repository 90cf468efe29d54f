//! The journal in one SQLite file: nothing to install, and readable with `sqlite3` at three in the morning.
//!
//! One thread owns the one writing connection and takes jobs one after the other; callers wait for its answer without
//! blocking their own thread. The log is write-ahead and every commit is synced (`synchronous=FULL`). Beside `journal.db`
//! stand `-wal` and `-shm` (SQLite's), `.lock` (`sqlite/lock.rs`) and `.ballast` (`sqlite/ballast.rs`).
//!
//! It does not make directories, does not back itself up, and does not repair: what does not verify is for an operator.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;

use async_trait::async_trait;
use rusqlite::ErrorCode;
use rustix::fs::{AtFlags, Mode as FileMode, OFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use tokio::sync::oneshot;

use crate::model::{Instant, KeyId, Material, Secret, ServiceName};
use crate::ports::{History, Journal, JournalError, LoginGuard};
use crate::rotation::event::Event;
use crate::seal::{KeyFile, SealKey, SealKeyId};

mod ballast;
mod lock;
mod read;
mod schema;
mod store;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use ballast::Ballast;
use lock::Lock;
pub use read::Checked;
pub use store::Resealed;
use store::{RefusedLogin, Store};

/// Whether a journal may be made where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It may (`run`).
    Create,
    /// It must be there (everything else).
    Existing,
}

type Job = Box<dyn FnOnce(&mut Store) + Send>;

/// A journal open for writing; the only one, as long as it lives. Dropping it waits for what was begun, closes the file and
/// releases the lock.
pub struct SqliteJournal {
    path: PathBuf,
    seal: Arc<SealKey>,
    jobs: Option<mpsc::Sender<Job>>,
    writer: Option<JoinHandle<()>>,
    refused: Mutex<Vec<RefusedLogin>>,
    _lock: Lock,
}

/// A journal open for reading, without a lock and without a seal key; another process may be writing to it.
pub struct ReadOnlyJournal {
    path: PathBuf,
    db: rusqlite::Connection,
}

/// The seal key of a journal, from its own file: read, or made on the first start.
///
/// Never made anew while secrets are held that only the lost one opens: that is refused, with nothing made. In
/// [`Mode::Existing`] it is only read. The caller warns when it was made.
pub fn seal_key_file(journal: &Path, key_file: &Path, mode: Mode) -> Result<KeyFile, JournalError> {
    let unreachable = |error: crate::seal::SealError| JournalError::Unreachable(error.to_string());
    if mode == Mode::Existing || key_file.symlink_metadata().is_ok() {
        return SealKey::load(key_file).map(|key| KeyFile { key, made: false }).map_err(unreachable);
    }
    if journal.symlink_metadata().is_ok() {
        let held = open_read_only(journal)?.sealed_rows()?;
        if held > 0 {
            return Err(JournalError::Unreachable(format!(
                "the seal key file {} is missing, and journal {} holds {held} {} sealed with it: restore the file from \
                 a backup; no new key was made",
                key_file.display(),
                journal.display(),
                if held == 1 { "secret" } else { "secrets" }
            )));
        }
    }
    SealKey::load_or_make(key_file).map_err(unreachable)
}

/// Where the seal key's own file is by default: `seal.key` beside the journal.
pub fn default_key_file(journal: &Path) -> PathBuf {
    directory_of(journal).join("seal.key")
}

/// Opens a journal for reading. It is not made, not locked and not changed.
pub fn open_read_only(path: &Path) -> Result<ReadOnlyJournal, JournalError> {
    must_exist(path)?;
    Ok(ReadOnlyJournal { path: path.to_owned(), db: schema::open_read_only(path)? })
}

impl ReadOnlyJournal {
    /// All histories, as [`Journal::load`].
    pub fn load(&self) -> Result<Vec<History>, JournalError> {
        read::load(&self.path, &self.db)
    }

    /// Sequence and hash (hex) of each service's last event.
    pub fn heads(&self) -> Result<Vec<(ServiceName, u64, String)>, JournalError> {
        read::heads(&self.path, &self.db)
    }

    /// Follows every chain and checks the file's pages.
    pub fn verify(&self) -> Result<Vec<Checked>, JournalError> {
        read::verify(&self.path, &self.db)
    }

    /// How many sealed secrets it holds.
    pub fn sealed_rows(&self) -> Result<u64, JournalError> {
        read::sealed_rows(&self.path, &self.db)
    }

    /// The keys of a service whose material is held, as [`Journal::materials`].
    pub fn materials(&self, service: &ServiceName) -> Result<Vec<KeyId>, JournalError> {
        store::materials(&self.path, &self.db, service)
    }

    /// The sealed material of a key, as [`Journal::material`]; the reader brings the seal key.
    pub fn material(
        &self,
        seal: &SealKey,
        service: &ServiceName,
        key: &KeyId,
    ) -> Result<Option<Material>, JournalError> {
        store::material(&self.path, &self.db, seal, service, key)
    }

    /// Whether this password was refused at this system, as [`LoginGuard::is_refused`].
    pub fn is_refused(
        &self,
        seal: &SealKey,
        system: &str,
        user: &str,
        password: &Secret,
    ) -> Result<bool, JournalError> {
        let login = RefusedLogin::of(seal, system, user, password);
        Ok(store::refused_logins(&self.path, &self.db)?.iter().any(|refused| refused.forbids(&login)))
    }

    /// Whether any password of this user was refused at this system: all that can be told without a seal key.
    pub fn is_any_refused(&self, system: &str, user: &str) -> Result<bool, JournalError> {
        let refused = store::refused_logins(&self.path, &self.db)?;
        Ok(refused.iter().any(|refused| (refused.system.as_str(), refused.user.as_str()) == (system, user)))
    }
}

impl SqliteJournal {
    /// Opens a journal for writing and takes its lock. What a killed process left in the log is recovered by that.
    ///
    /// `Locked` names the process that has it; `Newer` and `Damaged` say what was found.
    pub fn open(path: &Path, seal: SealKey, mode: Mode) -> Result<Self, JournalError> {
        if mode == Mode::Existing {
            // Before the lock: where there is no journal, nothing is left behind.
            must_exist(path)?;
        }
        let lock = Lock::take(path)?;
        if mode == Mode::Create && path.symlink_metadata().is_err() {
            schema::create(path, schema::MIGRATIONS)?;
        }
        let seal = Arc::new(seal);
        let store = Store {
            path: path.to_owned(),
            db: schema::open(path, schema::MIGRATIONS)?,
            seal: Arc::clone(&seal),
            ballast: Ballast::beside(path),
        };
        let refused = Mutex::new(store.refused_logins()?);
        let (jobs, writer) = start(store)
            .map_err(|error| JournalError::Unreachable(format!("cannot start the journal's thread: {error}")))?;
        Ok(Self { path: path.to_owned(), seal, jobs: Some(jobs), writer: Some(writer), refused, _lock: lock })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sequence and hash (hex) of each service's last event. Logged at start and at the end, because a chain whose last events
    /// were cut off still verifies.
    pub async fn heads(&self) -> Result<Vec<(ServiceName, u64, String)>, JournalError> {
        self.run(|store| read::heads(&store.path, &store.db)).await
    }

    /// Follows every chain and checks the file's pages.
    pub async fn verify(&self) -> Result<Vec<Checked>, JournalError> {
        self.run(|store| read::verify(&store.path, &store.db)).await
    }

    /// How many sealed secrets it holds.
    pub async fn sealed_rows(&self) -> Result<u64, JournalError> {
        self.run(|store| read::sealed_rows(&store.path, &store.db)).await
    }

    /// Which other seal keys sealed how many of the secrets held. Each of them needs `reseal`, or its key back.
    pub async fn sealed_with_other_keys(&self) -> Result<Vec<(SealKeyId, u64)>, JournalError> {
        self.run(|store| store.sealed_with_other_keys()).await
    }

    /// Seals with this journal's key what `old` sealed, all of it or nothing. Repeatable. Refused logins cannot be taken
    /// over (a fingerprint does not give its password back): they stay refused, whatever the password, until `forgive`.
    pub async fn reseal(&self, old: SealKey) -> Result<Resealed, JournalError> {
        self.run(move |store| store.reseal(&old)).await
    }

    /// Gives a service another name and keeps its history (`renamed_from`). Repeatable. Nothing happens where the journal does
    /// not know the old name; `Write` where both names have a history of their own.
    ///
    /// Only the name in the service's row changes: the chain and what is sealed stay bound to the name the service had first,
    /// so no event is rewritten.
    pub async fn rename(&self, old: &ServiceName, new: &ServiceName) -> Result<(), JournalError> {
        let (old, new) = (old.clone(), new.clone());
        self.run(move |store| store.rename(&old, &new)).await
    }

    /// Hands a job to the writer and waits for its answer. A caller that stops waiting does not stop the job.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Store) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let (reply, answer) = oneshot::channel();
        self.send(Box::new(move |store| {
            // Nobody may be waiting any more.
            let _ = reply.send(work(store));
        }))?;
        answer.await.map_err(|_| self.ended())?
    }

    /// The same for callers that are not async; they block, for the time of a commit.
    fn run_blocking(
        &self,
        work: impl FnOnce(&mut Store) -> Result<(), JournalError> + Send + 'static,
    ) -> Result<(), JournalError> {
        let (reply, answer) = mpsc::channel();
        self.send(Box::new(move |store| {
            let _ = reply.send(work(store));
        }))?;
        answer.recv().map_err(|_| self.ended())?
    }

    fn send(&self, job: Job) -> Result<(), JournalError> {
        let jobs = self.jobs.as_ref().expect("the sender is only taken by drop");
        jobs.send(job).map_err(|_| self.ended())
    }

    fn ended(&self) -> JournalError {
        JournalError::Unreachable(format!("journal {}: its thread has ended", self.path.display()))
    }

    fn refused_logins(&self) -> MutexGuard<'_, Vec<RefusedLogin>> {
        // A list of plain values is whole at every moment.
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn login(&self, system: &str, user: &str, password: &Secret) -> RefusedLogin {
        RefusedLogin::of(&self.seal, system, user, password)
    }
}

impl Drop for SqliteJournal {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!(journal = %self.path.display(), "the journal's thread did not end well");
        }
    }
}

#[async_trait]
impl Journal for SqliteJournal {
    async fn load(&self) -> Result<Vec<History>, JournalError> {
        self.run(|store| read::load(&store.path, &store.db)).await
    }

    async fn append(
        &self,
        service: &ServiceName,
        expected: u64,
        at: &Instant,
        event: &Event,
        material: Option<&Material>,
    ) -> Result<(), JournalError> {
        let (service, at, event, material) = (service.clone(), at.clone(), event.clone(), material.cloned());
        self.run(move |store| store.append(&service, expected, &at, &event, material.as_ref())).await
    }

    async fn material(&self, service: &ServiceName, key: &KeyId) -> Result<Option<Material>, JournalError> {
        let (service, key) = (service.clone(), key.clone());
        self.run(move |store| store.material(&service, &key)).await
    }

    async fn materials(&self, service: &ServiceName) -> Result<Vec<KeyId>, JournalError> {
        let service = service.clone();
        self.run(move |store| store.materials(&service)).await
    }

    async fn shred(&self, service: &ServiceName, key: &KeyId) -> Result<(), JournalError> {
        let (service, key) = (service.clone(), key.clone());
        self.run(move |store| store.shred(&service, &key)).await
    }

    async fn reserve(&self) -> Result<(), JournalError> {
        self.run(|store| store.reserve()).await
    }
}

impl LoginGuard for SqliteJournal {
    fn is_refused(&self, system: &str, user: &str, password: &Secret) -> bool {
        let login = self.login(system, user, password);
        self.refused_logins().iter().any(|refused| refused.forbids(&login))
    }

    /// Where it cannot be written down, this process still remembers it, and the log says what a restart would forget.
    fn refused(&self, system: &str, user: &str, password: &Secret) {
        let login = self.login(system, user, password);
        self.refused_logins().push(login.clone());
        if let Err(error) = self.run_blocking(move |store| store.remember_refused(&login)) {
            tracing::error!(%system, %user, %error, "a refused login could not be written down; a restart would try it again");
        }
    }

    fn forgive(&self, system: &str) {
        self.refused_logins().retain(|refused| refused.system != system);
        let of = system.to_owned();
        if let Err(error) = self.run_blocking(move |store| store.forgive(&of)) {
            tracing::error!(%system, %error, "a refused login could not be forgiven for good; a restart will refuse it again");
        }
    }
}

/// The writer: takes jobs until nobody is left to send one.
fn start(mut store: Store) -> std::io::Result<(mpsc::Sender<Job>, JoinHandle<()>)> {
    let (jobs, queue) = mpsc::channel::<Job>();
    let writer = std::thread::Builder::new().name("journal".into()).spawn(move || {
        for job in queue {
            job(&mut store);
        }
    })?;
    Ok((jobs, writer))
}

fn must_exist(path: &Path) -> Result<(), JournalError> {
    match path.metadata() {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(JournalError::Unreachable(format!(
            "journal {} does not exist; only `rekeyd run` makes one",
            path.display()
        ))),
        Err(error) => Err(JournalError::Unreachable(format!("cannot open journal {}: {error}", path.display()))),
    }
}

/// A path with something behind its last name.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

fn directory_of(path: &Path) -> PathBuf {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

/// Opens a file beside a journal for writing, made where it is missing, and gives it to the journal's owner where it is this process's:
/// `rotate` as root must not leave files the daemon cannot use. SQLite does the same for its log.
///
/// The directory is the daemon's user's, and root works in it too: what is not a plain file with one name may be a way to somebody
/// else's file, and is not touched.
fn open_beside(journal: &Path, path: &Path) -> io::Result<File> {
    let no_follow = i32::try_from(OFlags::NOFOLLOW.bits()).expect("a flag of open fits its argument");
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(no_follow);
    let file = options.open(path).map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::LOOP) => foreign(),
        _ => error,
    })?;
    match give(&file, journal) {
        // Only root may give anything away.
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => Err(error),
        _ => Ok(file),
    }
}

/// Gives a file of this process's own to the journal's owner; one that is somebody else's stays as it is.
fn give(file: &File, journal: &Path) -> io::Result<()> {
    let about = file.metadata()?;
    if !about.is_file() || about.nlink() != 1 {
        return Err(foreign());
    }
    let owner = journal.metadata().ok().filter(|owner| owner.uid() != about.uid());
    let Some(owner) = owner.filter(|_| about.uid() == rustix::process::geteuid().as_raw()) else { return Ok(()) };
    let (user, group) = (Uid::from_raw(owner.uid()), Gid::from_raw(owner.gid()));
    Ok(rustix::fs::chownat(file, "", Some(user), Some(group), AtFlags::EMPTY_PATH)?)
}

fn foreign() -> io::Error {
    io::Error::other("it is a link, or no plain file, and was left alone; remove it")
}

/// Gives what root made beside a journal to the journal's owner, whom it would keep out. Says which could not be given, and why.
pub fn give_back(journal: &Path) -> Vec<(PathBuf, io::Error)> {
    let (Some(name), Ok(about)) = (journal.file_name(), journal.metadata()) else { return Vec::new() };
    if !rustix::process::geteuid().is_root() || about.uid() == 0 {
        return Vec::new();
    }
    let entries = std::fs::read_dir(directory_of(journal)).into_iter().flatten().flatten();
    let beside = entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(name.as_encoded_bytes()));
    let of_root = beside.filter(|entry| entry.metadata().is_ok_and(|found| found.is_file() && found.uid() == 0));
    let given = of_root.map(|entry| {
        let path = entry.path();
        // Not opened but for its place: closing a file gives back every lock that SQLite has on it in this process.
        let place = rustix::fs::open(&path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, FileMode::empty());
        let given = place.map_err(io::Error::from).and_then(|place| give(&place.into(), journal));
        (path, given)
    });
    given.filter_map(|(path, given)| Some((path, given.err()?))).collect()
}

/// What a failed read says to the caller.
fn read_fault(path: &Path, error: &rusqlite::Error) -> JournalError {
    let message = format!("cannot read journal {}: {}", path.display(), say(error));
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            JournalError::Damaged(format!("{message}: {}", read::RESTORE))
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => JournalError::Locked(message),
        Some(_) => JournalError::Unreachable(message),
        // What is stored is not of the type the schema says.
        None => JournalError::Damaged(message),
    }
}

/// What a failed write says to the caller.
fn write_fault(path: &Path, error: &rusqlite::Error) -> JournalError {
    let more = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => free_space(&directory_of(path)),
        // SQLite keeps the system's own number to itself.
        Some(ErrorCode::SystemIoFailure) => format!(
            ": the disk, its file system or a quota refused it, and the kernel's log may say why (journalctl -k){}",
            free_space(&directory_of(path))
        ),
        _ => String::new(),
    };
    JournalError::Write(format!("cannot write to journal {}: {}{more}", path.display(), say(error)))
}

/// SQLite's own words, and where they say little, what it was about, and its number.
fn say(error: &rusqlite::Error) -> String {
    match error.sqlite_error() {
        Some(code) if code.code == ErrorCode::SystemIoFailure => {
            let during = match code.extended_code {
                rusqlite::ffi::SQLITE_IOERR_READ | rusqlite::ffi::SQLITE_IOERR_SHORT_READ => " during a read",
                rusqlite::ffi::SQLITE_IOERR_WRITE => " during a write",
                rusqlite::ffi::SQLITE_IOERR_FSYNC | rusqlite::ffi::SQLITE_IOERR_DIR_FSYNC => " during a sync",
                rusqlite::ffi::SQLITE_IOERR_TRUNCATE => " during a truncation",
                _ => "",
            };
            format!("{error}{during} (sqlite error {})", code.extended_code)
        }
        _ => error.to_string(),
    }
}

/// How much is free where a file stands, as the end of a message.
fn free_space(directory: &Path) -> String {
    match rustix::fs::statvfs(directory) {
        Ok(about) => format!(" ({} KiB free in {})", about.f_bavail * about.f_frsize / 1024, directory.display()),
        Err(_) => String::new(),
    }
}
