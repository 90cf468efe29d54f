//! The log: sentences for people, and beside each what it is about (`service`, `rotation`, `phase`, `key_id`, `reason`, `next`).
//!
//! It goes to stderr, as text or as one JSON object a line; or to systemd's journal in the journal's own protocol, where each field
//! can be searched for: `journalctl -u rekeyd SERVICE=prod-object-store`. It keeps no file, rotates none, and never filters a
//! secret out: no secret gets as far as this.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use chrono::SecondsFormat;
use serde::Serialize;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber, span, warn};
use tracing_subscriber::filter::{EnvFilter, FilterExt, filter_fn};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

mod journald;

use journald::Journald;

/// What the daemon says without `RUST_LOG`: what it does, and what troubles its libraries.
pub const DAEMON: &str = "warn,rekeyd=info";
/// What a command says that does the daemon's work: only trouble; it prints its own answers.
pub const COMMAND: &str = "warn";

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Style {
    /// For systemd's journal where stderr leads there, else as text.
    Auto,
    /// Sentences, to stderr.
    Text,
    /// One JSON object a line, to stderr.
    Json,
    /// Entries of systemd's journal, with fields.
    Journal,
}

/// How long a process that has said its last word stays for it. journald learns from /proc of which unit an entry's sender is, when it
/// reads the entry: what a process says and dies is of no unit for it, and `journalctl -u rekeyd` would not show why a start failed.
const LAST_WORD: Duration = Duration::from_millis(250);

/// How long the last words may take to be sent, where the journal is slow.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// Where a log that was started goes: [`Style::Auto`] no more.
pub struct Log {
    style: Style,
    journald: Option<Arc<Journald>>,
}

impl Log {
    /// Whether the last words of a process, which stderr gets as they are, belong in the log instead: they would be no JSON, and in
    /// the journal a line each, without their weight.
    pub fn takes_last_words(&self) -> bool {
        self.style != Style::Text
    }

    /// Waits until what was said is known to be ours. Nothing may be held meanwhile that somebody waits for.
    pub async fn last_word(self) {
        if let Some(journald) = self.journald {
            // A thread that is not through in time is left behind with the process.
            let _ = tokio::task::spawn_blocking(move || journald.flush(FLUSH_MAX)).await;
            tokio::time::sleep(LAST_WORD).await;
        }
    }
}

/// Starts logging. `RUST_LOG` is honoured; without it, `usual`. Where the journal is asked for and cannot be had, it is text: what
/// is done matters more than how it is told.
///
/// Libraries never log below `info`, whatever `RUST_LOG` says: at `trace` an HTTP stack writes down headers and bodies, and
/// ours carry keys, passwords and tokens. What rekeyd itself logs holds no secret at any level.
pub fn start(usual: &str, style: Style) -> Log {
    let to_journal = std::env::var("JOURNAL_STREAM").is_ok_and(|named| stderr_is(&named));
    let wants_journal = style == Style::Journal || (style == Style::Auto && to_journal);
    let opened = wants_journal.then(|| Journald::open(journald::SOCKET).map(Arc::new));
    let in_text = || Log { style: Style::Text, journald: None };
    let (layer, log, missing) = match (style, opened) {
        (Style::Json, _) => (Structured(Arc::new(Json)).boxed(), Log { style: Style::Json, journald: None }, None),
        (_, Some(Ok(journald))) => {
            let log = Log { style: Style::Journal, journald: Some(journald.clone()) };
            (Structured(journald).boxed(), log, None)
        }
        (_, Some(Err(error))) => (text(to_journal), in_text(), Some(error)),
        (_, None) => (text(to_journal), in_text(), None),
    };
    // A second start in one process (tests) keeps the first.
    let _ = tracing_subscriber::registry().with(layer.with_filter(filter(usual))).try_init();
    if let Some(error) = missing {
        warn!("systemd's journal at {} cannot be had, so the log is text on stderr: {error}", journald::SOCKET);
    }
    log
}

fn filter<S: Subscriber>(usual: &str) -> impl tracing_subscriber::layer::Filter<S> + use<S> {
    let wanted = match std::env::var("RUST_LOG") {
        Ok(wanted) if !wanted.trim().is_empty() => {
            EnvFilter::builder().with_default_directive(LevelFilter::ERROR.into()).parse_lossy(wanted)
        }
        _ => EnvFilter::new(usual),
    };
    let ours_or_harmless = filter_fn(|about| {
        // The heartbeat's library tells at `info` what is of no use to anybody.
        let most = if about.target().starts_with("tokio_cron_scheduler") { Level::WARN } else { Level::INFO };
        is_ours(about.target()) || *about.level() <= most
    });
    FilterExt::<S>::and(wanted, ours_or_harmless)
}

fn text<S: Subscriber + for<'s> LookupSpan<'s>>(to_journal: bool) -> Box<dyn Layer<S> + Send + Sync> {
    let layer = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()).with_target(false);
    // The journal stamps each line itself.
    if to_journal { layer.without_time().boxed() } else { layer.boxed() }
}

fn is_ours(target: &str) -> bool {
    target == "rekeyd" || target.starts_with("rekeyd::")
}

/// Whether stderr is the stream that `JOURNAL_STREAM` names by device and inode. A child inherits the variable, and may have its
/// stderr elsewhere: systemd.exec(5) says to compare.
fn stderr_is(named: &str) -> bool {
    rustix::fs::fstat(std::io::stderr()).is_ok_and(|about| named == format!("{}:{}", about.st_dev, about.st_ino))
}

/// One line of the log.
struct Entry {
    level: Level,
    /// The module that says it.
    target: &'static str,
    /// Its source file and line, where they are known.
    source: Option<(&'static str, u32)>,
    message: String,
    /// What it is about: its own fields, and those of the work it is said in.
    fields: Map<String, Value>,
}

/// Where entries go. It says nothing of its own troubles but on stderr: there is no other place left.
trait Sink: Send + Sync {
    fn take(&self, entry: &Entry);
}

/// Makes entries out of what is said.
struct Structured(Arc<dyn Sink>);

/// The fields of a piece of work, kept for what is said in it.
struct About(Map<String, Value>);

impl<S: Subscriber + for<'s> LookupSpan<'s>> Layer<S> for Structured {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        // What libraries note of their work is no field of ours.
        if is_ours(attributes.metadata().target())
            && let Some(span) = context.span(id)
        {
            let mut told = Told::default();
            attributes.record(&mut told);
            span.extensions_mut().insert(About(told.fields));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut told = Told::default();
        event.record(&mut told);
        // From the innermost work outwards: the nearest word counts.
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(About(fields)) = span.extensions().get::<About>() {
                for (name, value) in fields {
                    told.fields.entry(name.as_str()).or_insert_with(|| value.clone());
                }
            }
        }
        let about = event.metadata();
        self.0.take(&Entry {
            level: *about.level(),
            target: about.target(),
            source: about.file().zip(about.line()),
            message: told.message,
            fields: told.fields,
        });
    }
}

/// Fields as they are recorded. What has no value is absent.
#[derive(Default)]
struct Told {
    message: String,
    fields: Map<String, Value>,
}

impl Told {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            (name, value) => _ = self.fields.insert(name.to_owned(), value),
        }
    }
}

impl Visit for Told {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.put(field, Value::String(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, Value::String(value.to_owned()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Value::Bool(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }
}

/// JSON on stderr. Names may be added, none is ever changed.
struct Json;

#[derive(Serialize)]
struct JsonLine<'e> {
    time: String,
    level: String,
    message: &'e str,
    #[serde(flatten)]
    fields: Map<String, Value>,
    target: &'e str,
}

impl JsonLine<'_> {
    /// The names that every line has; a field of a library's that is called the same is left out.
    const OWN: [&'static str; 4] = ["time", "level", "message", "target"];
}

impl Sink for Json {
    fn take(&self, entry: &Entry) {
        // One write for a line, so that two threads do not mix theirs; and nobody is left to be told that it failed.
        let _ = std::io::stderr().lock().write_all(json_line(entry, chrono::Utc::now()).as_bytes());
    }
}

fn json_line(entry: &Entry, now: chrono::DateTime<chrono::Utc>) -> String {
    let mut fields = entry.fields.clone();
    fields.retain(|name, _| !JsonLine::OWN.contains(&name.as_str()));
    let line = JsonLine {
        time: now.to_rfc3339_opts(SecondsFormat::Micros, true),
        level: entry.level.as_str().to_ascii_lowercase(),
        message: &entry.message,
        fields,
        target: entry.target,
    };
    let mut line = serde_json::to_string(&line).expect("a line is plain data");
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Level, message and fields.
    type Line = (Level, String, Map<String, Value>);

    #[derive(Default)]
    struct Kept(Mutex<Vec<Line>>);

    impl Sink for Kept {
        fn take(&self, entry: &Entry) {
            let told = (entry.level, entry.message.clone(), entry.fields.clone());
            self.0.lock().expect("nobody panics here").push(told);
        }
    }

    #[test]
    fn only_our_own_modules_are_ours() {
        assert!(is_ours("rekeyd") && is_ours("rekeyd::engine::perform"));
        assert!(!is_ours("rekeyd_lab::http") && !is_ours("hyper::proto") && !is_ours("aws_smithy_runtime"));
    }

    #[test]
    fn a_line_has_its_own_fields_and_those_of_the_work_it_is_said_in() {
        let kept = Arc::new(Kept::default());
        let subscriber = tracing_subscriber::registry().with(Structured(kept.clone()).with_filter(filter("trace")));
        tracing::subscriber::with_default(subscriber, || {
            let work = tracing::error_span!("effect", service = "a", phase = "ready", key_id = None::<&str>);
            let _work = work.enter();
            let foreign = tracing::error_span!(target: "hyper", "request", uri = "https://x/?token=hush");
            let _inside = foreign.enter();
            tracing::info!(phase = "deploying", tries = 3, "two\nlines");
            tracing::debug!(target: "hyper", "a library at a finer level than info is not heard");
        });
        let kept = kept.0.lock().expect("nobody panics here");
        let fields = serde_json::json!({"service": "a", "phase": "deploying", "tries": 3});
        let expected = (Level::INFO, "two\nlines".to_owned(), fields.as_object().expect("an object").clone());
        assert_eq!(*kept, [expected]);
    }

    #[test]
    fn a_json_line_is_one_line_and_its_own_names_win() {
        let at = chrono::DateTime::from_timestamp(1_795_000_000, 5_000).expect("a time of this century");
        let fields = serde_json::json!({"service": "a", "time": "never", "count": 2});
        let entry = Entry {
            level: Level::WARN,
            target: "rekeyd::engine",
            source: None,
            message: "one\ntwo \"three\"".into(),
            fields: fields.as_object().expect("an object").clone(),
        };
        let line = "{\"time\":\"2026-11-18T11:06:40.000005Z\",\"level\":\"warn\",\"message\":\"one\\ntwo \\\"three\\\"\",\
                    \"count\":2,\"service\":\"a\",\"target\":\"rekeyd::engine\"}\n";
        assert_eq!(json_line(&entry, at), line);
    }

    #[test]
    fn stderr_is_known_by_device_and_inode() {
        let about = rustix::fs::fstat(std::io::stderr()).expect("a test has a stderr");
        assert!(stderr_is(&format!("{}:{}", about.st_dev, about.st_ino)));
        assert!(!stderr_is(&format!("{}:{}", about.st_dev, about.st_ino + 1)) && !stderr_is(""));
    }
}
