//! Remembers refused logins for commands that ask a system while no daemon runs, so that a wrong password is not sent by one run after
//! another until ArcGIS locks the account.
//!
//! Where the journal can be used, it is asked without its lock, and opened for the moment of writing a refusal down. Where it cannot
//! (there is none yet, or this user may not), a small file of this user's is used, in memory where the system has such a place: it
//! holds who was refused where and when, and one byte of a hash, which tells a corrected password from the refused one and tells
//! nobody the password. A refusal there counts for an hour, and so does an answer that may have been one in other words. That is longer than the fifteen minutes within which ArcGIS counts five.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{Access, OFlags};
use serde::{Deserialize, Serialize};
use tracing::warn;
use zeroize::Zeroizing;

use crate::journal::sqlite::{self, Mode};
use crate::model::Secret;
use crate::policy::Policy;
use crate::ports::{Attempt, LoginGuard};
use crate::seal::SealKey;

use super::attempts::Attempts;
use super::startup;

/// How long a refusal in the file counts.
const COUNTS_FOR: Duration = Duration::from_secs(3600);

/// A longer file is none of ours.
const FILE_MAX: u64 = 256 * 1024;

/// The memory of refused logins.
pub struct Refusals {
    policy: Arc<Policy>,
    attempts: Attempts,
    seal: Option<SealKey>,
    file: PathBuf,
    refused: Mutex<Vec<(String, String, Secret)>>,
}

/// One line of the file.
#[derive(Serialize, Deserialize)]
struct Line {
    /// Seconds since 1970.
    at: u64,
    system: String,
    user: String,
    /// One byte of a hash of the password.
    mark: u8,
}

impl Refusals {
    /// The memory for commands under this policy. Nothing is made before something is refused. `attempts` are waited for by the
    /// process before it ends.
    pub fn new(policy: Arc<Policy>, attempts: Attempts) -> Self {
        let seal = startup::seal_key(&policy, Mode::Existing).ok();
        Refusals { policy, attempts, seal, file: file_of_this_user(), refused: Mutex::default() }
    }

    /// Why a refusal could not be remembered for the next run, if it could not.
    pub fn why_forgetful(&self) -> Option<String> {
        let journal = startup::journal_path(&self.policy);
        if self.seal.is_some() && rustix::fs::access(&journal, Access::WRITE_OK).is_ok() {
            return None;
        }
        let place = match self.file.symlink_metadata() {
            Ok(_) => is_ours(&self.file),
            Err(_) => self.file.parent().is_some_and(|parent| rustix::fs::access(parent, Access::WRITE_OK).is_ok()),
        };
        (!place).then(|| {
            format!(
                "a refused password could be remembered neither in the journal nor in {}, and ArcGIS locks an account after five",
                self.file.display()
            )
        })
    }

    fn in_journal(&self, system: &str, user: &str, password: &Secret) -> bool {
        let looked =
            sqlite::open_read_only(&startup::journal_path(&self.policy)).and_then(|journal| match &self.seal {
                Some(seal) => journal.is_refused(seal, system, user, password),
                // Nobody can tell without it that this is another password than the refused one.
                None => journal.is_any_refused(system, user),
            });
        looked.unwrap_or(false)
    }

    /// Whether the journal took it.
    fn write_into_journal(&self, system: &str, user: &str, password: &Secret) -> bool {
        if self.seal.is_none() {
            return false;
        }
        let Ok(journal) = startup::journal(&self.policy, Mode::Existing) else { return false };
        journal.refused(system, user, password);
        drop(journal);
        startup::give_back(&startup::journal_path(&self.policy));
        self.in_journal(system, user, password)
    }
}

impl LoginGuard for Refusals {
    fn attempt(&self) -> Option<Attempt> {
        self.attempts.begin()
    }

    fn is_refused(&self, system: &str, user: &str, password: &Secret) -> bool {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let here = refused.iter().any(|(at, who, what)| (at.as_str(), who.as_str(), what) == (system, user, password));
        here || self.in_journal(system, user, password) || in_file(&self.file, system, user, password)
    }

    fn refused(&self, system: &str, user: &str, password: &Secret) {
        let known = (system.to_owned(), user.to_owned(), password.clone());
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).push(known);
        if self.write_into_journal(system, user, password) {
            return;
        }
        if let Err(error) = write_into_file(&self.file, system, user, password) {
            warn!(%system, %user, "a refused login could not be remembered in {} ({error}): the next run would try it again", self.file.display());
        }
    }

    /// Counted for an hour and not for good: the file is the first place. The journal would keep the daemon from it too.
    fn doubted(&self, system: &str, user: &str, password: &Secret) {
        let known = (system.to_owned(), user.to_owned(), password.clone());
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).push(known);
        if let Err(error) = write_into_file(&self.file, system, user, password)
            && !self.write_into_journal(system, user, password)
        {
            warn!(%system, %user, "a login that may have been refused could not be remembered in {} ({error}): the next run would try it again", self.file.display());
        }
    }

    /// Only the daemon's own memory is told to forget.
    fn forgive(&self, _: &str) {}
}

/// In memory where the system has a place for that: it goes with the boot, and into no backup.
fn file_of_this_user() -> PathBuf {
    let uid = rustix::process::geteuid();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty()).map(PathBuf::from);
    let directory = runtime.unwrap_or_else(|| {
        let of_user = PathBuf::from(format!("/run/user/{}", uid.as_raw()));
        match (of_user.is_dir(), uid.is_root()) {
            (true, _) => of_user,
            (false, true) => PathBuf::from("/run"),
            (false, false) => std::env::temp_dir(),
        }
    });
    directory.join(format!("rekeyd-refused-logins-{}", uid.as_raw()))
}

fn is_ours(path: &Path) -> bool {
    let own = rustix::process::geteuid().as_raw();
    path.symlink_metadata().is_ok_and(|found| found.is_file() && found.uid() == own && found.len() <= FILE_MAX)
}

fn in_file(path: &Path, system: &str, user: &str, password: &Secret) -> bool {
    let (now, mark) = (now(), mark(system, user, password));
    let counts = |line: Line| {
        let is_young = now.saturating_sub(line.at) < COUNTS_FOR.as_secs();
        is_young && line.at <= now && line.system == system && line.user == user && line.mark == mark
    };
    read(path).lines().filter_map(|line| serde_json::from_str(line).ok()).any(counts)
}

fn read(path: &Path) -> String {
    let mut text = String::new();
    if is_ours(path)
        && let Ok(file) = File::open(path)
    {
        // One that cannot be read says nothing.
        let _ = file.take(FILE_MAX).read_to_string(&mut text);
    }
    text
}

fn write_into_file(path: &Path, system: &str, user: &str, password: &Secret) -> std::io::Result<()> {
    let no_follow = i32::try_from(OFlags::NOFOLLOW.bits()).expect("a flag of open fits its argument");
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(no_follow).open(path)?;
    if !is_ours(path) {
        return Err(std::io::Error::other("it is not this user's own"));
    }
    let line = Line { at: now(), system: system.to_owned(), user: user.to_owned(), mark: mark(system, user, password) };
    let line = serde_json::to_string(&line).expect("a line is plain data");
    writeln!(file, "{line}")
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// One byte: another password has another one but for one time in 256, and that one waits for an hour.
fn mark(system: &str, user: &str, password: &Secret) -> u8 {
    SealKey::new(Zeroizing::new([0; 32])).fingerprint(&[system, user], password)[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::sqlite::SqliteJournal;
    use crate::policy::{Environment, Policy};

    /// What a run under a policy with its journal there remembers.
    fn run_in(home: &Path, seal: Option<SealKey>) -> Refusals {
        let text = format!(
            "version = 1\n[daemon]\njournal = \"sqlite:{home}/journal.db\"\n[aws.main]\nregion = \"us-east-1\"\n\
             [arcgis.prod]\nproduct = \"kubernetes\"\nadmin_url = \"https://gis.example.com/x/admin\"\nusername = \"rotator\"\n\
             password = {{ file = \"/p\" }}\n[[service]]\nname = \"a\"\n[service.issuer]\nkind = \"aws-iam\"\naccount = \"main\"\n\
             user = \"a\"\nprobe = {{ bucket = \"gis-store\", region = \"us-east-1\", expect = \"read\" }}\n\
             [[service.target]]\nkind = \"arcgis\"\ndeployment = \"prod\"\nservice_id = \"a1\"\n",
            home = home.display()
        );
        let policy =
            Policy::parse(text, "policy.toml", &Environment::default()).unwrap_or_else(|report| panic!("{report}"));
        let (attempts, refused) = (Attempts::default(), Mutex::default());
        Refusals { policy: Arc::new(policy), attempts, seal, file: home.join("refused"), refused }
    }

    #[test]
    fn a_doubt_of_one_run_keeps_the_next_from_trying() {
        let home = tempfile::tempdir().expect("a temporary directory can be made");
        let (wrong, other) = (Secret::new("not-the-password".into()), Secret::new("the-password".into()));
        run_in(home.path(), None).doubted("arcgis.prod", "rotator", &wrong);
        let next = run_in(home.path(), None);
        assert!(next.is_refused("arcgis.prod", "rotator", &wrong));
        assert!(!next.is_refused("arcgis.prod", "rotator", &other));
    }

    #[test]
    fn a_refusal_that_cannot_be_compared_counts_for_every_password() {
        let home = tempfile::tempdir().expect("a temporary directory can be made");
        let seal = || SealKey::new(Zeroizing::new([7; 32]));
        let journal =
            SqliteJournal::open(&home.path().join("journal.db"), seal(), Mode::Create).expect("it can be made");
        let (wrong, other) = (Secret::new("not-the-password".into()), Secret::new("the-password".into()));
        journal.refused("arcgis.prod", "rotator", &wrong);
        drop(journal);
        let knows = run_in(home.path(), Some(seal()));
        assert!(
            knows.is_refused("arcgis.prod", "rotator", &wrong) && !knows.is_refused("arcgis.prod", "rotator", &other)
        );
        let cannot_tell = run_in(home.path(), None);
        assert!(cannot_tell.is_refused("arcgis.prod", "rotator", &wrong));
        assert!(cannot_tell.is_refused("arcgis.prod", "rotator", &other), "it may be the refused one");
        assert!(
            !cannot_tell.is_refused("arcgis.prod", "somebody", &other)
                && !cannot_tell.is_refused("arcgis.test", "rotator", &other)
        );
    }

    #[test]
    fn a_refused_password_is_known_for_an_hour_and_another_one_is_not() {
        let home = tempfile::tempdir().expect("a temporary directory can be made");
        let path = home.path().join("refused");
        let (wrong, other) = (Secret::new("not-the-password".into()), Secret::new("the-password".into()));
        assert_ne!(mark("arcgis.prod", "rotator", &wrong), mark("arcgis.prod", "rotator", &other));
        let is_refused = |system: &str, user: &str, password: &Secret| in_file(&path, system, user, password);
        assert!(!is_refused("arcgis.prod", "rotator", &wrong));
        write_into_file(&path, "arcgis.prod", "rotator", &wrong).expect("it can be written");
        assert!(is_refused("arcgis.prod", "rotator", &wrong));
        assert!(!is_refused("arcgis.prod", "rotator", &other));
        assert!(!is_refused("arcgis.test", "rotator", &wrong));
        assert!(!is_refused("arcgis.prod", "Rotator", &wrong));
        let text = std::fs::read_to_string(&path).expect("it is there");
        assert!(!text.contains("password"), "{text}");
        std::fs::write(&path, text.replace("\"at\":", "\"at\":1,\"then\":")).expect("it can be written");
        assert!(!is_refused("arcgis.prod", "rotator", &wrong), "an hour is over");
    }

    #[test]
    fn a_link_is_not_followed() {
        let home = tempfile::tempdir().expect("a temporary directory can be made");
        let (path, elsewhere) = (home.path().join("refused"), home.path().join("elsewhere"));
        std::fs::write(&elsewhere, "kept").expect("it can be written");
        std::os::unix::fs::symlink(&elsewhere, &path).expect("a link can be made");
        let password = Secret::new("not-the-password".into());
        assert!(write_into_file(&path, "arcgis.prod", "rotator", &password).is_err());
        assert_eq!(std::fs::read_to_string(&elsewhere).expect("it is there"), "kept");
        assert!(!is_ours(&path));
    }
}
