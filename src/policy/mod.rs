//! The policy: which services there are, when their keys are rotated, and under what terms.
//!
//! Reads one TOML file, checks all of it in one run, and says every mistake with its place. It reads no secret (only where
//! secrets are kept), connects to nothing, and knows no provider: issuers and targets read their own tables.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono_tz::Tz;

use crate::model::{IssuerSpec, SecretRef, ServiceName, SystemRef, SystemSpec, TargetName, TargetSpec, Terms};
use crate::schedule::{Jitter, Timetable, Window};
use crate::table::{Document, Report, SecretUse, Source};
use crate::{issuer, target};

/// Where the policy is, if nobody says another place.
pub const FILE: &str = "/etc/rekeyd/policy.toml";

mod checks;
mod daemon;
mod follow;
mod service;
mod systems;
mod timing;

/// A policy without a mistake.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// The daemon itself.
    pub daemon: Daemon,
    /// Provider accounts and deployments.
    pub systems: BTreeMap<SystemRef, SystemSpec>,
    /// The services, in the order of the file.
    pub services: Vec<Service>,
    /// What is legal and perhaps not meant, each with its place.
    pub warnings: Vec<String>,
    secrets: Vec<SecretUse>,
    known_keys: BTreeSet<String>,
}

/// `[daemon]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Daemon {
    /// Where the journal is.
    pub journal: JournalAt,
    /// Where metrics and status are served.
    pub listen: Listen,
    /// The control socket.
    pub control: PathBuf,
    /// The zone of cron patterns and windows.
    pub timezone: Tz,
    /// Where the key is that seals secrets; `None`: the daemon keeps one of its own beside the journal.
    pub seal_key: Option<SecretRef>,
    /// The proxy of every client that has none of its own.
    pub proxy: Option<String>,
    /// Hosts reached without it.
    pub no_proxy: Vec<String>,
}

/// Where a journal is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalAt {
    /// A SQLite file.
    Sqlite(PathBuf),
}

/// Where metrics and status are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// Nowhere.
    Off,
    /// At this address.
    At(SocketAddr),
}

/// What becomes of drift.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDrift {
    /// Somebody is told.
    Alert,
    /// The current key is pushed again where a target lost it; somebody is told too.
    Push,
}

/// `[[service]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// The name its history stands under.
    pub renamed_from: Option<ServiceName>,
    /// When it is rotated by itself.
    pub timetable: Timetable,
    /// How far that is put off.
    pub jitter: Jitter,
    /// When a rotation may be opened; empty means any time.
    pub windows: Vec<Window>,
    /// What a rotation is opened under.
    pub terms: Terms,
    /// How often it is looked at while at rest.
    pub observe: Duration,
    /// The age from which its key is alerted on.
    pub max_age: Option<Duration>,
    /// Whether an over-aged key is rotated outside the window.
    pub break_window: bool,
    /// Whether SIGUSR1 rotates it.
    pub on_signal: bool,
    /// What becomes of drift.
    pub on_drift: OnDrift,
    /// Services of one group are never between MintBegun and Verified at the same time.
    pub group: Option<String>,
    /// Places that hold the same key and are left to somebody else.
    pub accept_holders: Vec<TargetName>,
    /// Where its keys are minted.
    pub issuer: IssuerSpec,
    /// Where its key is held, or what is derived from it; at least one.
    pub targets: Vec<TargetSpec>,
    /// The services that hold what is derived from this one's key, and move with it.
    pub followers: Vec<Follower>,
    /// How long its own keys live, where they end by themselves.
    pub valid_for: Option<Duration>,
}

/// A service of the policy without keys of its own (`from`). Its targets stand among those of the service it follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follower {
    /// Its name.
    pub name: ServiceName,
    /// The issuer that derives what its targets hold, as the status shows it.
    pub issuer: String,
    /// Its targets.
    pub targets: Vec<TargetName>,
}

/// What the surroundings say about directories (systemd's `StateDirectory=` and `RuntimeDirectory=`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// `$STATE_DIRECTORY`.
    pub state_directory: Option<PathBuf>,
    /// `$RUNTIME_DIRECTORY`.
    pub runtime_directory: Option<PathBuf>,
}

impl Environment {
    /// What this process was started with. systemd separates several directories with colons; the first is ours.
    pub fn of_process() -> Self {
        let first = |name| {
            let value = std::env::var(name).ok()?;
            value.split(':').next().filter(|path| !path.is_empty()).map(PathBuf::from)
        };
        Self { state_directory: first("STATE_DIRECTORY"), runtime_directory: first("RUNTIME_DIRECTORY") }
    }
}

/// The kinds of issuers and targets a policy may name.
#[derive(Clone, Copy)]
pub(crate) struct Kinds<'k> {
    pub(crate) issuers: &'k [issuer::Kind],
    pub(crate) targets: &'k [target::Kind],
}

impl Policy {
    /// Reads and checks a policy file.
    ///
    /// # Errors
    ///
    /// Every mistake of the file, or that it cannot be read.
    pub fn load(path: &Path, environment: &Environment) -> Result<Self, Report> {
        let file = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|error| unreadable(&file, &error))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            let what = format!("is not UTF-8 text: byte {at} belongs to no character");
            Report::about(&file, what, "save it as UTF-8")
        })?;
        let mut policy = Self::parse(text, &file, environment)?;
        policy.warnings.extend(writable_by_others(path));
        Ok(policy)
    }

    /// Checks the text of a policy; `file` is its name in messages.
    ///
    /// # Errors
    ///
    /// Every mistake of the text.
    pub fn parse(text: impl Into<String>, file: &str, environment: &Environment) -> Result<Self, Report> {
        Self::parse_for(text, file, environment, Kinds { issuers: issuer::KINDS, targets: target::KINDS })
    }

    pub(crate) fn parse_for(
        text: impl Into<String>,
        file: &str,
        environment: &Environment,
        kinds: Kinds<'_>,
    ) -> Result<Self, Report> {
        let source = Source::new(text, file);
        let document = Document::parse(&source);
        let mut root = document.root();
        version(&mut root);
        let daemon = daemon::read(&mut root, environment);
        let systems = systems::read(&mut root, kinds);
        let defaults = timing::Timing::defaults(&mut root);
        let zone = daemon.as_ref().map_or(Tz::UTC, |daemon| daemon.timezone);
        let tables = root.tables("service");
        if tables.is_empty() && !document.is_partial() {
            root.warn("service", "the policy has no services, so that there is nothing to do");
        }
        drop(root);
        let mut drafts: Vec<service::Draft> =
            tables.into_iter().map(|table| service::read(table, &defaults, &systems, kinds, zone)).collect();
        follow::join(&document, &mut drafts, &systems, kinds, zone);
        checks::between(&document, &drafts);
        let findings = document.finish()?;
        let own = drafts.into_iter().filter(|draft| draft.follows.is_none());
        let services: Option<Vec<Service>> = own.map(|draft| draft.service).collect();
        let (Some(daemon), Some(services)) = (daemon, services) else {
            // A reader gave up without a word. That is our mistake, and no reason for a running daemon to panic on a reload.
            let help = "this is a mistake of rekeyd, not of the policy: please report it, with the policy";
            return Err(Report::about(file, "a table could not be read, and its reader does not say why", help));
        };
        Ok(Self {
            daemon,
            systems: systems.into_specs(),
            services,
            warnings: findings.warnings,
            secrets: findings.secrets,
            known_keys: findings.known,
        })
    }

    /// Where the control socket is by a file that has mistakes elsewhere, for a question to the daemon that runs on an older one.
    /// `None` where that cannot be told for sure: an order must not reach a daemon that it was not meant for.
    pub fn control_of(path: &Path, environment: &Environment) -> Option<PathBuf> {
        let text = String::from_utf8(std::fs::read(path).ok()?).ok()?;
        daemon::control_of(text, environment, path == Path::new(FILE))
    }

    /// A service by its name.
    pub fn service(&self, name: &ServiceName) -> Option<&Service> {
        self.services.iter().find(|service| service.name == *name)
    }

    /// The service whose keys another one's targets move with, where that one has none of its own.
    pub fn followed_by(&self, name: &ServiceName) -> Option<&Service> {
        self.services.iter().find(|service| service.followers.iter().any(|follower| follower.name == *name))
    }

    /// What to say to whoever names a service that has no keys of its own.
    pub fn no_keys_of_its_own(&self, name: &ServiceName) -> Option<String> {
        let root = &self.followed_by(name)?.name;
        Some(format!(
            "{name} has no key of its own: what its targets hold is derived from the key of {root} and moves with it; name {root}"
        ))
    }

    /// The accounts and deployments that services refer to.
    pub fn systems_in_use(&self) -> BTreeSet<&SystemRef> {
        self.services
            .iter()
            .flat_map(|service| {
                let targets = service.targets.iter().filter_map(|target| target.system.as_ref());
                service.issuer.system.iter().chain(targets)
            })
            .collect()
    }

    /// Every secret the policy refers to, and where it does.
    pub fn secret_refs(&self) -> &[SecretUse] {
        &self.secrets
    }

    /// What differs from `old` and is taken up by a restart only; empty if a reload will do.
    pub fn changes_needing_restart(&self, old: &Policy) -> Vec<String> {
        let (new, old) = (&self.daemon, &old.daemon);
        let changes = [
            ("journal", new.journal != old.journal),
            ("seal_key", new.seal_key != old.seal_key),
            ("listen", new.listen != old.listen),
            ("control", new.control != old.control),
        ];
        changes.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key.to_owned()).collect()
    }

    /// Every key the readers asked for, with the path of its table (`aws.*.region`): what a policy may say.
    pub fn known_keys(&self) -> &BTreeSet<String> {
        &self.known_keys
    }
}

/// The version of the policy's language.
const VERSION: i64 = 1;

fn version(root: &mut crate::table::Table<'_>) {
    if root.require("version", "version = 1")
        && let Some(version) = root.integer_or("version", 1..=i64::MAX)
        && version != VERSION
    {
        let what = format!("this policy is written in version {version}, and this rekeyd reads version {VERSION}");
        root.mistake("version", what, "write `version = 1`, or run the rekeyd this policy was written for");
    }
}

fn unreadable(file: &str, error: &std::io::Error) -> Report {
    let (what, help) = match error.kind() {
        std::io::ErrorKind::NotFound => (
            "there is no such file".to_owned(),
            "write one (config/policy.toml shows every option), or name another with --policy",
        ),
        std::io::ErrorKind::PermissionDenied => {
            ("this user may not read it".to_owned(), "let the user that rekeyd runs as read it; it holds no secrets")
        }
        _ => (format!("cannot read it: {error}"), "name a readable file with --policy"),
    };
    Report::about(file, what, help)
}

/// Whoever can write the policy can have a key pushed to a place of their own.
fn writable_by_others(path: &Path) -> Option<String> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).ok()?.permissions().mode();
    (mode & 0o002 != 0).then(|| {
        let path = path.display();
        format!("{path}: everybody on this machine can write it (mode {:04o}); chmod o-w {path}", mode & 0o7777)
    })
}

#[cfg(test)]
mod tests;
