//! How an operator's own program is asked: one request on its stdin, one answer on its stdout, both JSON, with a version.
//!
//! ```text
//! {"rekeyd":1,"do":"mint","intent":"…"}     →  {"rekeyd":1,"ok":{…}}  or  {"rekeyd":1,"fault":{"kind":"refused","why":"…"}}
//! ```
//!
//! `docs/commands.md` is the protocol as those who write programs read it. A program that was started and did not answer in its terms,
//! or ended with another exit code than 0, may have done what it was asked: that is [`Fault::Unknown`], never less. Only one that was
//! not started has done nothing. This does not know what is asked for, and asks once.

mod wire;

use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub use self::wire::{Key, is_id};
use super::program::{Ended, Failure, Program, in_words};
use super::redact::Redactor;
use crate::model::{Reason, Secret};
use crate::ports::Fault;
use crate::table::{Table, Zero};

/// The language of requests and answers. A program that answers in another one is not understood.
const VERSION: u32 = 1;
/// How long one request may take where the policy says nothing.
const TIMEOUT: Duration = Duration::from_secs(60);
/// A program that asks for a longer pause is asked again after this one.
const PAUSE_MAX: u64 = 24 * 3600;

/// A program as the policy names it; part of what the journal keeps of an issuer or a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Called {
    program: PathBuf,
    args: Vec<String>,
    /// `NAME=VALUE`, or `NAME` as it is in our own environment.
    environment: Vec<String>,
    /// One request, from start to end.
    pub timeout: Duration,
}

impl Called {
    /// Reads `program`, `args`, `environment` and `timeout`. Mistakes go into the table's report.
    pub fn read(table: &mut Table<'_>) -> Option<Self> {
        let program = table.text("program");
        if let Some(program) = program.as_deref().filter(|program| !program.starts_with('/')) {
            let help = "name it by its absolute path: program = \"/usr/local/lib/rekeyd/keys\"";
            table.mistake("program", format!("`{program}` is no absolute path; no shell looks for it"), help);
        }
        let args = table.texts("args").unwrap_or_default();
        let environment = table.texts("environment").unwrap_or_default();
        let is_name = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        if environment.iter().any(|entry| !is_name(entry.split('=').next().unwrap_or_default())) {
            let help =
                "write \"NAME=VALUE\", or \"NAME\" for a variable of the daemon's own; no secrets, others can see them";
            table.mistake("environment", "an entry does not begin with the name of a variable", help);
        }
        let timeout = table.duration("timeout", Zero::Refused).unwrap_or(TIMEOUT);
        let program = program.filter(|program| program.starts_with('/'))?;
        Some(Self { program: program.into(), args, environment, timeout })
    }

    /// What it is, as status and journal write it: the program with its arguments.
    pub fn name(&self) -> String {
        let program = self.program.display().to_string();
        [program].iter().chain(&self.args).map(String::as_str).collect::<Vec<_>>().join(" ")
    }

    /// Whoever may be asked. Starts nothing yet.
    ///
    /// # Errors
    /// What is wrong with the program or the environment it is to find.
    pub fn connect(&self) -> Result<Caller, String> {
        let mut environment = Vec::with_capacity(self.environment.len());
        for entry in &self.environment {
            environment.push(match entry.split_once('=') {
                Some((name, value)) => (name.to_owned(), value.to_owned()),
                None => {
                    let value = std::env::var(entry)
                        .map_err(|_| format!("`environment` names {entry}, which is not set for rekeyd itself"))?;
                    (entry.clone(), value)
                }
            });
        }
        let program = Program::new(&self.program, self.args.clone(), environment, self.timeout).leaving_nothing();
        program.check()?;
        Ok(Caller { program, name: self.name() })
    }
}

/// A program that can be asked.
#[derive(Debug)]
pub struct Caller {
    program: Program,
    name: String,
}

/// What it is asked. What an act has no use for is left out.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Request<'a> {
    /// For which intent a key is to be made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intent: Option<&'a str>,
    /// The key it is about, by its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<&'a str>,
    /// The key it is about, with its secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<&'a Key>,
}

#[derive(Serialize)]
struct Sent<'a> {
    rekeyd: u32,
    #[serde(rename = "do")]
    act: &'a str,
    #[serde(flatten)]
    request: Request<'a>,
}

#[derive(Deserialize)]
struct Answer<T> {
    rekeyd: u32,
    ok: Option<T>,
    fault: Option<Told>,
}

/// What went wrong, in the program's words.
#[derive(Deserialize)]
struct Told {
    kind: Kind,
    #[serde(default)]
    why: String,
    #[serde(default)]
    after_seconds: Option<u64>,
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    NotSent,
    Retry,
    Refused,
    Unknown,
}

/// Reasons that a program can know; any other word is a refusal for another reason.
const REASONS: [Reason; 5] =
    [Reason::MissingRight, Reason::NotFound, Reason::LoginRefused, Reason::Quota, Reason::TlsUntrusted];

impl Caller {
    /// Asks once, and reads the answer. `secrets` are those it is told, or told of, and that no message may repeat; what an act that makes
    /// a new one (`makes_secret`) complains about is not repeated at all.
    ///
    /// # Errors
    /// The program's own fault, or what speaks for that it did not answer.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        act: &'static str,
        request: Request<'_>,
        secrets: &[Secret],
        makes_secret: bool,
    ) -> Result<T, Fault> {
        let mut redactor = Redactor::new(secrets);
        request.key.into_iter().for_each(|key| key.secrets().iter().for_each(|secret| redactor.learn(secret)));
        let doing = format!("{act} by {}", self.name);
        let sent = sent(act, request);
        let said = |err: &str| match (makes_secret, redactor.clean(err)) {
            (true, _) => "what it complained about may hold the new secret, and is not shown".to_owned(),
            (false, said) if said.is_empty() => "it complained about nothing".to_owned(),
            (false, said) => format!("it said: {said}"),
        };
        let ended = match self.program.run(&sent).await {
            Ok(ended) => ended,
            Err(Failure::NotStarted(why)) => return Err(Fault::NotSent(format!("{doing}: {why}"))),
            Err(Failure::Broken { why, err }) => {
                return Err(Fault::Unknown(format!("{doing}: {why}; {}", said(&err))));
            }
        };
        if !ended.err.trim().is_empty() {
            tracing::debug!(program = self.name, act, "{}", said(&ended.err));
        }
        if !ended.status.success() {
            let why = format!("{doing}: it {}; {}", in_words(ended.status), said(&ended.err));
            return Err(Fault::Unknown(why));
        }
        match read::<T>(&ended) {
            Ok(Ok(ok)) => Ok(ok),
            Ok(Err(told)) => Err(fault(&doing, &told, &redactor)),
            Err(what) => Err(Fault::Unknown(format!("{doing}: {what}; {}", said(&ended.err)))),
        }
    }
}

/// A line, in one buffer of the final size, so that growing leaves no copy of a secret behind.
fn sent(act: &str, request: Request<'_>) -> Zeroizing<Vec<u8>> {
    let secrets: usize = request.key.map_or(0, |key| key.secrets().iter().map(|secret| secret.expose().len()).sum());
    let mut line = Zeroizing::new(Vec::with_capacity(6 * secrets + 16 * 1024));
    let sent = Sent { rekeyd: VERSION, act, request };
    serde_json::to_writer(&mut *line, &sent).expect("a request is plain data with text keys");
    line.push(b'\n');
    line
}

fn read<T: DeserializeOwned>(ended: &Ended) -> Result<Result<T, Told>, String> {
    #[derive(Deserialize)]
    struct Head {
        rekeyd: u32,
    }
    if ended.overlong {
        return Err("its answer is longer than 1 MiB".to_owned());
    }
    if ended.out.iter().all(u8::is_ascii_whitespace) {
        return Err("it ended without an answer".to_owned());
    }
    // What the parser says may repeat what it read; where it stopped does not.
    let at = |error: &serde_json::Error| format!("line {}, column {}", error.line(), error.column());
    let head: Head = serde_json::from_slice(&ended.out)
        .map_err(|error| format!("its answer is no JSON object with `rekeyd` in it ({})", at(&error)))?;
    if head.rekeyd != VERSION {
        return Err(format!("it answers in version {} of the protocol, and this rekeyd speaks {VERSION}", head.rekeyd));
    }
    let answer: Answer<T> = serde_json::from_slice(&ended.out)
        .map_err(|error| format!("its answer is not what docs/commands.md says ({})", at(&error)))?;
    debug_assert_eq!(answer.rekeyd, VERSION);
    match (answer.ok, answer.fault) {
        (Some(ok), None) => Ok(Ok(ok)),
        (None, Some(told)) => Ok(Err(told)),
        _ => Err("its answer has not one of `ok` and `fault`".to_owned()),
    }
}

fn fault(doing: &str, told: &Told, redactor: &Redactor) -> Fault {
    let said = redactor.clean(&told.why);
    let why = format!("{doing}: {}", if said.is_empty() { "it does not say why" } else { &said });
    match told.kind {
        Kind::NotSent => Fault::NotSent(why),
        Kind::Unknown => Fault::Unknown(why),
        Kind::Retry => {
            let after = told.after_seconds.map(|seconds| Duration::from_secs(seconds.min(PAUSE_MAX)));
            Fault::Retry { after, why }
        }
        Kind::Refused => {
            let named = REASONS.into_iter().find(|reason| told.reason.as_deref() == Some(reason.as_str()));
            Fault::Refused { reason: named.unwrap_or(Reason::Refused), why }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table;

    #[derive(Debug, Deserialize)]
    struct Made {
        id: String,
    }

    async fn answered(script: &str) -> Result<Made, Fault> {
        let program = Program::new("/bin/sh", vec!["-c".into(), script.into()], Vec::new(), Duration::from_secs(20));
        let caller = Caller { program, name: "/opt/keys gis".to_owned() };
        let secrets = [Secret::new("hush-hush".to_owned())];
        caller.ask("disable", Request { id: Some("AKIA"), ..Request::default() }, &secrets, false).await
    }

    #[tokio::test]
    async fn an_answer_in_terms_is_taken() {
        let made = answered(r#"read line; echo "{\"rekeyd\":1,\"new\":[],\"ok\":{\"id\":\"x\",\"more\":1}}""#).await;
        assert_eq!(made.expect("it is one").id, "x");
        let script = r#"read line; [ "$line" = '{"rekeyd":1,"do":"disable","id":"AKIA"}' ] && echo '{"rekeyd":1,"ok":{"id":"y"}}'"#;
        assert_eq!(answered(script).await.expect("the request is what the manual says").id, "y");
    }

    #[tokio::test]
    async fn a_fault_is_what_it_says_it_is() {
        let told = async |fault: &str| {
            let script = format!("cat >/dev/null; echo '{{\"rekeyd\":1,\"fault\":{fault}}}'");
            answered(&script).await.expect_err("it is a fault")
        };
        let at = "disable by /opt/keys gis: ";
        assert_eq!(
            told(r#"{"kind":"refused","reason":"missing-right","why":"no hush-hush for you"}"#).await,
            Fault::Refused { reason: Reason::MissingRight, why: format!("{at}no *** for you") }
        );
        assert_eq!(
            told(r#"{"kind":"refused","reason":"journal-damaged"}"#).await,
            Fault::Refused { reason: Reason::Refused, why: format!("{at}it does not say why") }
        );
        assert_eq!(
            told(r#"{"kind":"retry","after_seconds":7,"why":"busy"}"#).await,
            Fault::Retry { after: Some(Duration::from_secs(7)), why: format!("{at}busy") }
        );
        assert_eq!(told(r#"{"kind":"not_sent","why":"no route"}"#).await, Fault::NotSent(format!("{at}no route")));
        assert_eq!(told(r#"{"kind":"unknown","why":"cut"}"#).await, Fault::Unknown(format!("{at}cut")));
    }

    #[tokio::test]
    async fn everything_else_may_have_been_done() {
        for (script, what) in [
            ("", "it ended without an answer"),
            ("echo '{\"rekeyd\":1,\"ok\":{\"id\":\"x\"}}'; exit 3", "it ended with exit code 3"),
            ("echo oops hush-hush >&2; kill -9 $$", "it was ended by signal 9; it said: oops ***"),
            ("echo '<html>'", "its answer is no JSON object"),
            ("echo '{\"rekeyd\":2,\"ok\":{\"id\":\"x\"}}'", "it answers in version 2 of the protocol"),
            ("echo '{\"rekeyd\":1,\"ok\":{\"id\":\"hush-hush}}'", "(line 1, column 35)"),
            ("echo '{\"rekeyd\":1,\"ok\":{\"id\":1}}'", "its answer is not what docs/commands.md says"),
            ("echo '{\"rekeyd\":1}'", "not one of `ok` and `fault`"),
            (
                "echo '{\"rekeyd\":1,\"ok\":{\"id\":\"x\"},\"fault\":{\"kind\":\"retry\"}}'",
                "not one of `ok` and `fault`",
            ),
            ("echo '{\"rekeyd\":1,\"fault\":{\"kind\":\"perhaps\"}}'", "its answer is not what"),
            ("echo '{\"rekeyd\":1,\"ok\":{\"id\":\"x\"}} trailing'", "its answer is no JSON object"),
            ("head -c 2000000 /dev/zero", "its answer is longer than 1 MiB"),
        ] {
            let fault = answered(script).await.expect_err("nobody knows what it did");
            assert!(matches!(&fault, Fault::Unknown(why) if why.contains(what)), "{script}: {fault:?}");
            assert!(!fault.why().contains("hush-hush"));
        }
    }

    #[test]
    fn a_program_has_an_absolute_path_and_no_nameless_environment() {
        let read = |text: &str| table::read(text, "policy.toml", Called::read).map_err(|report| report.to_string());
        let called =
            read("program = \"/opt/keys\"\nargs = [\"--user\", \"gis\"]").expect("it is sound").expect("it is");
        assert_eq!((called.name().as_str(), called.timeout), ("/opt/keys --user gis", TIMEOUT));
        let report = read("program = \"keys\"\nenvironment = [\"=x\"]\ntimeout = \"0s\"").expect_err("three mistakes");
        assert!(report.contains("`keys` is no absolute path"), "{report}");
        assert!(report.contains("does not begin with the name of a variable"), "{report}");
        let called =
            read("program = \"/bin/sh\"\nenvironment = \"NO_SUCH_VARIABLE\"").expect("it is sound").expect("it is");
        let why = called.connect().expect_err("nobody set it");
        assert_eq!(why, "`environment` names NO_SUCH_VARIABLE, which is not set for rekeyd itself");
    }
}
