//! The kinds `command`, with real programs: the contract every issuer keeps, in each of their shapes; what a target's program may
//! answer; and a rotation through both. Real logins of a real PostgreSQL are in `postgres`.

mod postgres;
mod rotation;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rekeyd::model::{IntentId, IssuerSpec, JobId, KeyId, Material, Reason, Secret, Shape, Tail, TargetSpec};
use rekeyd::ports::{Fault, Issuer, JobState, Listing, Reading, Target};
use rekeyd::table;
use rekeyd::{issuer, target};
use rekeyd_lab::Fault as Mishap;

use super::contract::{Operation, World, context, suite};

/// The folder of one program.
struct State(tempfile::TempDir);

impl State {
    fn new() -> State {
        let state = State(tempfile::tempdir().expect("a temporary directory can be made"));
        for folder in ["keys", "faults", "denied"] {
            std::fs::create_dir(state.path(folder)).expect("it can be made");
        }
        state
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn add_key(&self, id: &str, secret: &str) {
        add_key(self.0.path(), id, secret);
    }

    fn log(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

/// A key that is there already.
fn add_key(state: &Path, id: &str, secret: &str) {
    let created = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    std::fs::write(state.join("keys").join(id), format!("true\n{secret}\n{created}\n\n")).expect("it can be written");
}

/// The lines of policy that run one of the programs beside this file; no shell is looked for, and no file need be executable.
fn program(name: &str, state: &Path, more: &str) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/command").join(name);
    format!("program = \"/bin/sh\"\nargs = [{script:?}, {state:?}{more}]\ntimeout = \"8s\"\n")
}

fn issuer_of(text: &str) -> (IssuerSpec, Arc<dyn Issuer>) {
    let kind = issuer::KINDS.iter().find(|kind| kind.name == "command").expect("it is there");
    let spec = table::read(text, "policy.toml", |table| (kind.read)(table, None));
    let spec = spec.unwrap_or_else(|report| panic!("{report}")).expect("it is sound");
    let port = (kind.connect)(&spec, None, &context()).expect("it connects");
    (spec, port)
}

fn target_of(text: &str) -> (TargetSpec, Arc<dyn Target>) {
    let kind = target::KINDS.iter().find(|kind| kind.name == "command").expect("it is there");
    let spec = table::read(text, "policy.toml", |table| (kind.read)(table, None));
    let spec = spec.unwrap_or_else(|report| panic!("{report}")).expect("it is sound");
    let port = (kind.connect)(&spec, None, &context()).expect("it connects");
    (spec, port)
}

struct Keys {
    state: State,
    shape: Shape,
    issuer: Arc<dyn Issuer>,
}

impl Keys {
    fn new(word: &str, more: &str) -> Keys {
        let state = State::new();
        state.add_key("KEYFIRST", "first-secret-0123456789");
        let text = program("keys.sh", state.0.path(), &format!(", {word:?}"));
        let (spec, issuer) = issuer_of(&format!("{text}shape = {word:?}\n{more}\n"));
        Keys { shape: spec.shape, state, issuer }
    }
}

impl World for Keys {
    fn issuer(&self) -> Arc<dyn Issuer> {
        self.issuer.clone()
    }

    fn shape(&self) -> Shape {
        self.shape
    }

    fn in_use(&self, listing: &Listing) -> KeyId {
        listing.keys.iter().map(|key| &key.id).find(|id| id.as_str() == "KEYFIRST").expect("it is listed").clone()
    }

    fn request(&self, operation: Operation) -> &'static str {
        match operation {
            Operation::Identity => "identity",
            Operation::List => "list",
            Operation::Mint => "mint",
            Operation::Delete => "delete",
        }
    }

    fn fault(&self, request: &str, mishap: Mishap) {
        let word = match mishap {
            Mishap::LostReply => "lost",
            Mishap::ErrorAfterCommit(500) => "error-after",
            Mishap::ErrorAfterCommit(_) => "garbage-after",
            Mishap::DropBefore => "drop",
            Mishap::Error(_) => "error",
            Mishap::Html => "html",
            Mishap::Redirect(_) => "redirect",
            Mishap::Throttle => "throttle",
            other => panic!("keys.sh knows no {other:?}"),
        };
        std::fs::write(self.state.path("faults").join(request), word).expect("it can be written");
    }

    /// A program is not asked for what it has made.
    fn shows_secrets(&self) -> bool {
        false
    }

    fn sent(&self, request: &str) -> usize {
        self.state.log().iter().filter(|act| *act == request).count()
    }

    fn allow(&self, operation: Operation, yes: bool) -> String {
        let (act, denied) = (self.request(operation), self.state.path("denied"));
        match yes {
            true => std::fs::remove_file(denied.join(act)).expect("it was denied"),
            false => std::fs::write(denied.join(act), "").expect("it can be written"),
        }
        format!("keys:{act}")
    }
}

#[tokio::test]
async fn the_contract_holds_for_keys_that_are_shown_once() {
    suite(&Keys::new("shown-once", "last_used_lag = \"0s\"")).await;
}

#[tokio::test]
async fn the_contract_holds_for_keys_that_the_client_names() {
    suite(&Keys::new("client-named", "")).await;
}

#[tokio::test]
async fn the_contract_holds_for_keys_that_are_labelled() {
    suite(&Keys::new("labelled", "")).await;
}

#[tokio::test]
async fn no_secret_is_in_arguments_or_environment() {
    let world = Keys::new("shown-once", "");
    let minted = world.issuer.mint(&IntentId::new("intent"), None).await.expect("mints");
    world.issuer.probe(&minted.material).await.expect("answers");
    let (_, place) = target_of(&program("place.sh", world.state.0.path(), ""));
    place.push(&minted.material).await.expect("it is handed over");
    let seen = std::fs::read_to_string(world.state.path("seen")).expect("they wrote it down");
    assert!(!seen.contains(minted.material.secret().expose()));
    let names: Vec<&str> = seen.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    assert!(names.contains(&"PATH") && !names.contains(&"HOME") && !names.contains(&"CARGO_MANIFEST_DIR"), "{names:?}");
}

/// What a program says is held against what it may say.
#[tokio::test]
async fn an_answer_that_cannot_be_is_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let says = |ok: &str, more: &str| {
        let file = folder.path().join("answer");
        std::fs::write(&file, format!("{{\"rekeyd\":1,\"ok\":{ok}}}")).expect("it can be written");
        issuer_of(&format!("program = \"/bin/cat\"\nargs = [{file:?}]\n{more}\n")).1
    };
    for (ok, what) in [
        (r#"{"keys":[{"id":"a","active":true},{"id":"a","active":false}]}"#, "it answered one id twice"),
        (r#"{"keys":[{"id":"a b","active":true}]}"#, "an id or an intent that is not"),
        (r#"{"keys":[{"id":"a"}]}"#, "its answer is not what docs/commands.md says"),
        (r#"{"keys":[{"id":"a","active":true,"created":"yesterday"}]}"#, "its answer is not what"),
        (r#"{}"#, "its answer is not what docs/commands.md says"),
    ] {
        let fault = says(ok, "").list().await.expect_err("it is no listing");
        assert!(matches!(&fault, Fault::Unknown(why) if why.contains(what)), "{ok}: {fault:?}");
    }
    let many: Vec<String> = (0..1001).map(|n| format!("{{\"id\":\"k{n}\",\"active\":true}}")).collect();
    let fault = says(&format!("{{\"keys\":[{}]}}", many.join(",")), "").list().await.expect_err("too many");
    assert!(fault.why().contains("more than 1000 keys"), "{fault:?}");
    let fault = says(r#"{"account":"a\nb"}"#, "").identity().await.expect_err("no name");
    assert!(matches!(fault, Fault::Unknown(_)), "{fault:?}");
    let intent = IntentId::new("i");
    for (ok, more, what) in [
        (r#"{"key":{"id":"a","secret":"hush-hush"}}"#, "material = \"hmac-key\"", ""),
        (
            r#"{"key":{"kind":"access-key","id":"a","secret":"hush-hush"}}"#,
            "material = \"hmac-key\"",
            "a key that is no hmac-key",
        ),
        (
            r#"{"key":{"kind":"access-key","id":"a","secret":"hush-hush"}}"#,
            "material = \"service-principal\"",
            "a key that is no service-principal",
        ),
        (r#"{"key":{"id":"a","secret":"hush-hush"}}"#, "material = \"sas-token\"", "a sas-token without its `account`"),
        (r#"{"key":{"id":"a","secret":""}}"#, "", "a key whose secret is empty"),
        (r#"{"key":{"id":"a"}}"#, "", "its answer is not what"),
    ] {
        match says(ok, more).mint(&intent, None).await {
            Ok(_) => assert_eq!(what, "", "{ok} {more}"),
            // It was made all the same, perhaps.
            Err(Fault::Unknown(why)) => {
                assert!(!what.is_empty() && why.contains(what) && !why.contains("hush"), "{why}")
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn what_a_program_complains_about_while_it_mints_is_not_repeated() {
    let script = "args = [\"-c\", \"echo my-new-$((1))secret >&2; exit 1\"]\n";
    let (_, issuer) = issuer_of(&format!("program = \"/bin/sh\"\n{script}"));
    let fault = issuer.mint(&IntentId::new("i"), None).await.expect_err("it failed");
    assert!(
        matches!(&fault, Fault::Unknown(why) if !why.contains("my-new-1secret") && why.contains("not shown")),
        "{fault:?}"
    );
    let fault = issuer.list().await.expect_err("it failed");
    assert!(fault.why().contains("it said: my-new-1secret"), "{fault:?}");
}

#[tokio::test]
async fn a_program_that_is_gone_has_done_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let tool = folder.path().join("tool");
    std::fs::copy("/bin/true", &tool).expect("there is a program to copy");
    let (_, issuer) = issuer_of(&format!("program = {tool:?}\n"));
    std::fs::remove_file(&tool).expect("it is there");
    let fault = issuer.mint(&IntentId::new("i"), None).await.expect_err("it is gone");
    assert!(matches!(&fault, Fault::NotSent(why) if why.contains("cannot be looked at")), "{fault:?}");
}

fn key(id: &str, secret: &str) -> Material {
    Material::AccessKey { id: KeyId::new(id), secret: Secret::new(secret.to_owned()) }
}

#[tokio::test]
async fn a_target_is_handed_a_key_and_shows_which() {
    let state = State::new();
    let (spec, place) = target_of(&program("place.sh", state.0.path(), ""));
    let (old, new) = (key("OLD", "old-secret-0123456789AAAA"), key("NEW", "new-secret-0123456789BBBB"));
    let end = |key: &Material| Reading::Tail(key.secret().tail().expect("it is long enough"));
    place.compare_with(vec![old.clone(), new.clone()]);
    let found = place.inspect().await.expect("it answers");
    assert_eq!((found.holder.as_str(), found.reading), ("command:there/1", Reading::Nothing));
    for key in [&old, &new, &new] {
        assert_eq!(place.push(key).await.expect("it is handed over").job, None);
        assert_eq!(place.read().await, Ok(end(key)));
    }
    // Executed, and the word of it lost: read, it shows.
    std::fs::write(state.path("mishap"), "lost").expect("it can be written");
    let fault = place.push(&old).await.expect_err("no clean answer");
    assert!(matches!(&fault, Fault::Unknown(why) if why.contains("it ended with exit code 1")), "{fault:?}");
    assert_eq!((place.read().await, place.jobs().await), (Ok(end(&old)), Ok(Vec::new())));
    std::fs::write(state.path("mishap"), "refuse").expect("it can be written");
    let fault = place.push(&new).await.expect_err("it is refused");
    assert!(
        matches!(&fault, Fault::Refused { reason: Reason::Refused, why } if why.ends_with("not this one")),
        "{fault:?}"
    );
    // Another id, or another secret with the same end, is another key.
    for held in ["ODD\nnew-secret-0123456789BBBB\n", "NEW\nodd-secret-0123456789BBBB\n"] {
        std::fs::write(state.path("held"), held).expect("it can be written");
        let shown = place.read().await.expect("it answers");
        assert!(shown.tail().is_some() && shown != end(&new) && shown != end(&old), "{shown:?}");
    }
    let job = JobId::new("1");
    assert!(matches!(place.poll(&job).await, Ok(JobState::Vanished(_))));
    assert!(spec.name.as_str().starts_with("command:/bin/sh "), "{}", spec.name);
}

#[tokio::test]
async fn a_place_may_show_less() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("answer");
    let (_, place) = target_of(&format!("program = \"/bin/cat\"\nargs = [{file:?}]\n"));
    let new = key("NEW", "new-secret-0123456789BBBB");
    let shows = async |reading: &str| {
        std::fs::write(&file, format!("{{\"rekeyd\":1,\"ok\":{{\"reading\":{reading}}}}}")).expect("it can be written");
        place.read().await.map(|reading| match reading {
            Reading::Tail(end) => end.to_string(),
            other => format!("{other:?}"),
        })
    };
    assert_eq!(shows(r#"{"id":"NEW"}"#).await, Ok("Hidden".to_owned()), "nobody knows whose id that is");
    place.compare_with(vec![new]);
    assert_eq!(shows(r#"{"id":"NEW"}"#).await, Ok("BBBB".to_owned()));
    assert_eq!(shows(r#"{"id":"OLD"}"#).await, Ok("another key".to_owned()), "which it is not, whoever's it may be");
    place.known_as([(KeyId::new("OLD"), Tail::new("AAAA"))].into());
    assert_eq!(shows(r#"{"id":"OLD"}"#).await, Ok("AAAA".to_owned()), "a key whose secret is not held has an id too");
    assert_eq!(shows(r#"{"id":"NEW"}"#).await, Ok("BBBB".to_owned()));
    assert_eq!(shows(r#"{"id":"OLD","secret":"new-secret-0123456789BBBB"}"#).await, Ok("another key".to_owned()));
    assert_eq!(shows(r#"{"secret":"odd-secret-0123456789CCCC"}"#).await, Ok("CCCC".to_owned()));
    assert_eq!(shows(r#"{"end":"BBBB"}"#).await, Ok("BBBB".to_owned()));
    assert_eq!(shows(r#"{"secret":"odd-secret-01234567\u0038\n9DDDD"}"#).await, Ok("DDDD".to_owned()));
    assert_eq!(shows(r#""hidden""#).await, Ok("Hidden".to_owned()));
    assert_eq!(shows(r#""h\u0069dden""#).await, Ok("Hidden".to_owned()));
    assert_eq!(shows(r#""nothing""#).await, Ok("Nothing".to_owned()));
    for odd in [
        r#"{}"#,
        r#"{"end":"BBBBB"}"#,
        r#"{"end":"BBBB","id":"NEW"}"#,
        r#""perhaps""#,
        r#"{"name":"NEW"}"#,
        "7",
        "[]",
        "null",
    ] {
        let fault = shows(odd).await.expect_err("it is no reading");
        assert!(matches!(fault, Fault::Unknown(_)), "{odd}: {fault:?}");
    }
}
