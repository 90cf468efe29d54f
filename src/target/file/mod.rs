//! `file`: a file that an application reads its key from, as JSON, as variables, or as the bare secret.
//!
//! ```text
//! inspect   the directory, the file as it is, and whether one of that owner may be written there      changes nothing
//! push      the file replaced whole; then `on_change`, whose exit code is the push's outcome           may be done again
//! poll      how `on_change` went, which only the process knows that ran it
//! read      which of the keys it may hold the file holds, all of its values compared
//! ```
//!
//! An `on_change` that failed, or whose end nobody saw, leaves a file with the new key and no word for it: the machine pushes the same
//! key again, and with it runs the command again. It does not wait, retry or decide, and does not look whether an application
//! has read the file: that is what `on_change` can tell.

mod content;
mod owner;
mod place;

use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use self::content::Content;
use self::place::Place;
use crate::model::{Holder, JobId, Material, MaterialKind, Reason, Secret, SystemSpec, Tail, TargetName, TargetSpec};
use crate::net::Context;
use crate::net::program::{Failure, Program, in_words};
use crate::net::redact::Redactor;
use crate::ports::{Fault, Health, Inspection, JobState, Reading, Receipt, Target};
use crate::table::{Table, Zero};

/// A file as a kind of target.
pub const KIND: super::Kind = super::Kind {
    name: "file",
    system: None,
    read_system: |_| None,
    read,
    expect,
    refuses: super::nothing,
    jobs_max: |_| None,
    connect,
};

/// How long `on_change` may take where the policy says nothing.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Between two looks at an `on_change` that is over: there is nothing to wait for.
const POLL: Duration = Duration::from_secs(1);
/// What is shown of a file whose secret ends as a known key's does and is not that key: longer than any end, so no key's.
const ANOTHER: &str = "another key";

/// The mode of the file where the policy says nothing.
const PRIVATE: u32 = 0o600;

/// How a key stands in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    /// One object of texts.
    Json,
    /// A line for each value, for systemd's EnvironmentFile= and for a shell.
    Env,
    /// The secret, and nothing else, not even a newline.
    Raw,
}

/// One `[[service.target]]` of kind `file`. It is stored in the journal with an open rotation: add fields, rename none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Config {
    path: PathBuf,
    format: Format,
    mode: u32,
    /// The policy says none. A rotation that an earlier rekeyd opened does not tell.
    #[serde(default)]
    mode_is_default: bool,
    owner: Option<String>,
    on_change: Vec<String>,
    timeout: Duration,
    /// What the issuer's keys are made of; `None` where it cannot tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    material: Option<MaterialKind>,
}

fn read(table: &mut Table<'_>, _system: Option<&SystemSpec>) -> Option<TargetSpec> {
    let path = read_path(table);
    let format = match table.choice("format", &["json", "env", "raw"]) {
        Some("env") => Format::Env,
        Some("raw") => Format::Raw,
        _ => Format::Json,
    };
    let named = read_mode(table);
    let (mode, mode_is_default) = (named.unwrap_or(PRIVATE), named.is_none());
    let owner = table.text_or("owner");
    if let Some(owner) = owner.as_deref().filter(|owner| owner::parts(owner).is_none()) {
        let help = "write \"user:group\", \"user\" or \":group\", each a name or a number";
        table.mistake("owner", format!("`{owner}` is no owner"), help);
    }
    let on_change = table.texts("on_change").unwrap_or_default();
    if let Some(program) = on_change.first().filter(|program| !program.starts_with('/')) {
        let help = "name the program by its absolute path: on_change = [\"/usr/bin/systemctl\", \"reload\", \"gis\"]";
        table.mistake("on_change", format!("`{program}` is no absolute path; no shell looks for it"), help);
    }
    let timeout = table.duration("timeout", Zero::Refused).unwrap_or(TIMEOUT);
    let path = path?;
    Some(TargetSpec {
        kind: KIND.name.to_owned(),
        system: None,
        name: TargetName::new(format!("{}:{}", KIND.name, path.display())),
        readback: Duration::ZERO,
        // A command whose end nobody saw is over by then, and nothing else works on behind a push.
        job_timeout: timeout,
        poll: POLL,
        derived_by: None,
        config: serde_json::to_value(Config {
            path,
            format,
            mode,
            mode_is_default,
            owner,
            on_change,
            timeout,
            material: None,
        })
        .ok()?,
    })
}

/// One spelling for one file: two targets of it are then seen to be one.
fn read_path(table: &mut Table<'_>) -> Option<PathBuf> {
    let text = table.text("path")?;
    let path = Path::new(&text);
    let parts: Vec<Component<'_>> = path.components().collect();
    let (what, help) = match parts[..] {
        _ if !path.is_absolute() => ("is no absolute path", "write it from the root: path = \"/etc/gis/key.json\""),
        _ if text.chars().any(char::is_control) || text.len() > 1024 => {
            ("is no path that a message could show", "give the file a plain name")
        }
        _ if text.split('/').skip(1).any(|part| ["", ".", ".."].contains(&part)) || parts.len() < 2 => {
            ("is not the plain path of a file", "write it without `//`, `.`, `..` and a `/` at its end")
        }
        _ => return Some(path.to_owned()),
    };
    table.mistake("path", format!("`{}` {what}", text.escape_debug()), help);
    None
}

fn read_mode(table: &mut Table<'_>) -> Option<u32> {
    let text = table.text_or("mode")?;
    let is_octal = (3..=4).contains(&text.len()) && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    let what = match u32::from_str_radix(&text, 8) {
        Ok(mode) if is_octal => {
            if mode & 0o007 != 0 {
                "lets everybody on this machine at the key"
            } else if mode & 0o020 != 0 {
                "lets a group write the file, so that nobody knows whose key it holds"
            } else if mode & 0o7111 != 0 {
                "is for programs; a key is not run"
            } else if mode & 0o400 == 0 {
                "lets nobody read the key"
            } else {
                return Some(mode);
            }
        }
        _ => "is no mode",
    };
    let help = "write \"0600\", or \"0640\" with an `owner` whose group may read it";
    table.mistake("mode", format!("`{text}` {what}"), help);
    None
}

/// Notes which material will come.
fn expect(spec: &mut TargetSpec, material: MaterialKind) {
    // What cannot be read is refused by `connect`, with a sentence.
    let Ok(config) = serde_json::from_value::<Config>(spec.config.clone()) else { return };
    let config = Config { material: Some(material), ..config };
    spec.config = serde_json::to_value(config).expect("a target has no key that JSON could not hold");
}

fn connect(spec: &TargetSpec, _system: Option<&SystemSpec>, _context: &Context) -> Result<Arc<dyn Target>, Fault> {
    let mismatch = |what: String| Fault::Refused {
        reason: Reason::PolicyMismatch,
        why: format!("reaching {}: {what}", spec.name),
    };
    let config: Config = serde_json::from_value(spec.config.clone())
        .map_err(|_| mismatch("not a target this rekeyd can read".to_owned()))?;
    let owner = owner::resolve(config.owner.as_deref()).map_err(mismatch)?;
    let place = Place { path: config.path.clone(), mode: config.mode, mode_is_default: config.mode_is_default, owner };
    let on_change = config
        .on_change
        .split_first()
        .map(|(program, args)| Program::new(program, args.to_vec(), Vec::new(), config.timeout));
    if let Some(program) = &on_change {
        program.check().map_err(|why| mismatch(format!("on_change: {why}")))?;
    }
    Ok(Arc::new(FileTarget { config, place, on_change, inner: Mutex::default() }))
}

/// One file.
struct FileTarget {
    config: Config,
    place: Place,
    on_change: Option<Program>,
    inner: Mutex<Inner>,
}

/// What it was told, and how the last command went.
#[derive(Default)]
struct Inner {
    secrets: Vec<Secret>,
    known: Vec<Material>,
    failed: Option<(JobId, String)>,
    count: u64,
}

impl FileTarget {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Whole values only.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse(&self, reason: Reason, doing: &str, what: &str) -> Fault {
        Fault::Refused { reason, why: format!("{doing} {}: {what}", self.config.path.display()) }
    }

    /// What stands there now, looked at apart from the engine: a disk may hang.
    async fn content(&self) -> Result<Content, Fault> {
        let place = self.place.clone();
        let bytes = blocking(move || place.read()).await?;
        let Some(bytes) = bytes else { return Ok(Content::Empty) };
        content::read(self.config.format, &bytes).map_err(|what| self.refuse(Reason::TargetChanged, "reading", &what))
    }

    /// The end of the secret, as every target shows it; but of one that only ends like a known key, that it is another.
    fn reading(&self, content: &Content) -> Reading {
        let inner = self.inner();
        let end = |secret: &Secret| secret.tail().map_or(Reading::Hidden, Reading::Tail);
        if let Some(known) = inner.known.iter().find(|known| content.holds(known)) {
            return end(known.secret());
        }
        let Some(secret) = content.secret() else {
            return Reading::Nothing;
        };
        let ends_alike = |known: &Material| known.secret() == secret || known.secret().tail() == secret.tail();
        if secret.tail().is_some() && inner.known.iter().any(ends_alike) {
            return Reading::Tail(Tail::new(ANOTHER));
        }
        end(secret)
    }

    /// Runs `on_change`; `Some`: why that cannot count as done.
    async fn tell(&self, material: &Material) -> Option<String> {
        let program = self.on_change.as_ref()?;
        let (why, err) = match program.run(b"").await {
            Ok(ended) if ended.status.success() => return None,
            Ok(ended) => (format!("{} {}", program.name(), in_words(ended.status)), said(&ended.out, &ended.err)),
            Err(Failure::NotStarted(why)) => (why, String::new()),
            Err(Failure::Broken { why, err }) => (why, err.to_string()),
        };
        let err = zeroize::Zeroizing::new(err);
        let mut redactor = Redactor::new(&self.inner().secrets);
        material.secrets().iter().for_each(|secret| redactor.learn(secret));
        let said = redactor.clean(&err);
        let said = if said.is_empty() { "and said nothing".to_owned() } else { format!("and said: {said}") };
        Some(format!("{} is written, and on_change did not succeed: {why}, {said}", self.config.path.display()))
    }
}

/// What a program complained about, or what it printed where it complained about nothing.
fn said(out: &[u8], err: &str) -> String {
    if err.trim().is_empty() { String::from_utf8_lossy(out).into_owned() } else { err.to_owned() }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Fault> + Send + 'static) -> Result<T, Fault> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Fault::Unknown(format!("working on a file was cut short: {error}")))?
}

#[async_trait]
impl Target for FileTarget {
    async fn inspect(&self) -> Result<Inspection, Fault> {
        if let (Format::Raw, Some(material)) = (self.config.format, self.config.material)
            && content::needs_more_than_the_secret(material)
        {
            return Err(self.refuse(Reason::PolicyMismatch, "looking at", content::RAW_TOO_LITTLE));
        }
        if let Some(program) = &self.on_change {
            let unfit = |why: String| self.refuse(Reason::PolicyMismatch, "looking at", &format!("on_change: {why}"));
            program.check().map_err(unfit)?;
        }
        let place = self.place.clone();
        blocking(move || place.rehearse()).await?;
        let content = self.content().await?;
        Ok(Inspection { holder: Holder::new(self.place.holder()), reading: self.reading(&content), jobs: Vec::new() })
    }

    async fn read(&self) -> Result<Reading, Fault> {
        let content = self.content().await?;
        Ok(self.reading(&content))
    }

    /// A file written and a command that succeeded is a push that is done. A command that did not is a job that failed.
    async fn push(&self, material: &Material) -> Result<Receipt, Fault> {
        let written = content::written(self.config.format, material)
            .map_err(|what| self.refuse(Reason::PolicyMismatch, "writing", &what))?;
        // What somebody else put there is not overwritten, whatever happened since the look before.
        self.content().await?;
        let place = self.place.clone();
        blocking(move || place.replace(&written)).await?;
        let Some(why) = self.tell(material).await else { return Ok(Receipt { job: None }) };
        let mut inner = self.inner();
        inner.count += 1;
        let job = JobId::new(format!("on_change-{}", inner.count));
        inner.failed = Some((job.clone(), why));
        Ok(Receipt { job: Some(job) })
    }

    /// None is ever under way when this is asked: a push waits for its command.
    async fn jobs(&self) -> Result<Vec<JobId>, Fault> {
        Ok(Vec::new())
    }

    async fn poll(&self, job: &JobId) -> Result<JobState, Fault> {
        Ok(match &self.inner().failed {
            Some((failed, why)) if failed == job => JobState::Failed(why.clone()),
            _ => JobState::Vanished(format!(
                "how on_change of {} ended was known to a process that is gone; it is run again",
                self.config.path.display()
            )),
        })
    }

    async fn health(&self) -> Health {
        Health::NotWatched
    }

    fn know(&self, secrets: Vec<Secret>) {
        self.inner().secrets = secrets;
    }

    fn compare_with(&self, materials: Vec<Material>) {
        self.inner().known = materials;
    }
}
