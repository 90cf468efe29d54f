//! What the daemon's log looks like where it is not text: entries of systemd's journal, with fields that tell one service's story,
//! and JSON, a line each. A journald is played: its socket, at the place where the real one's is, in a mount namespace of the
//! daemon's own. That a real journald takes such entries is shown by the tests that boot a systemd.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{IoSliceMut, Read, Seek};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::{Arc, Mutex};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::Value;

use super::support::{BUCKET, Daemon, PolicyText, SERVICE, Scene, wait_until, wait_until_or};

/// The fields of one entry.
type Entry = BTreeMap<String, String>;

/// Some lines longer than any datagram may be.
const LONG: usize = 300_000;

/// What stands in the journal for systemd's sake and not for a reader of ours.
const OF_EVERY_ENTRY: [&str; 4] = ["MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "TARGET"];

#[tokio::test(flavor = "multi_thread")]
async fn the_journal_tells_one_services_story_by_its_fields() {
    let Some((scene, journal)) = stage().await else { return };
    // A probe that is denied and counts as working: what a port says by itself, knowing of no service.
    scene.aws.add_bucket("private", &[]);
    let policy = std::fs::read_to_string(scene.policy()).expect("it is there");
    let probe = format!("bucket = \"{BUCKET}\", region = \"us-east-1\", expect = \"read\"");
    let denied = "bucket = \"private\", region = \"us-east-1\", expect = \"authenticates\"";
    assert!(policy.contains(&probe));
    std::fs::write(scene.policy(), policy.replace(&probe, denied)).expect("it can be written");
    let daemon = under(&scene, "auto");
    journal.wait_for("it is ready", |entry| entry["MESSAGE"].starts_with("ready ("));
    scene.adopt();
    assert_eq!(scene.run(&["rotate", SERVICE, "--wait=done"]).code, Some(0));
    scene.wait_done(1);
    let history: Vec<Value> = serde_json::from_str(&scene.run(&["history", SERVICE, "--json"]).out).expect("an array");
    let rotation = history.iter().find_map(|line| line["rotation"].as_str()).expect("one was opened").to_owned();
    let new_key = scene.service()["current_key"].as_str().expect("there is one").to_owned();
    journal.wait_for("the end is told", |entry| entry["MESSAGE"].contains("done"));

    let entries = journal.entries();
    for entry in &entries {
        assert!(OF_EVERY_ENTRY.iter().all(|name| entry.contains_key(*name)), "{entry:?}");
        assert_eq!(entry["SYSLOG_IDENTIFIER"], "rekeyd");
        assert!(entry.contains_key("SERVICE") || !entry.contains_key("ROTATION"), "{entry:?}");
    }
    let of_service: Vec<&Entry> = entries.iter().filter(|entry| value(entry, "SERVICE") == Some(SERVICE)).collect();
    let of_rotation: Vec<&Entry> =
        of_service.iter().copied().filter(|entry| value(entry, "ROTATION") == Some(&rotation)).collect();
    // Every event of the rotation is one entry of it, with the phase it left the rotation in.
    let begins = |text: &str, entry: &&&Entry| text.starts_with(told(entry));
    for line in history.iter().filter(|line| line["rotation"] == rotation.as_str()) {
        let text = line["text"].as_str().expect("a text");
        let found = of_rotation.iter().find(|entry| begins(text, entry));
        let found = found.unwrap_or_else(|| panic!("no entry of the rotation says {text:?}: {of_rotation:#?}"));
        assert!(found.contains_key("PHASE"), "{found:?}");
        assert_eq!(found["PRIORITY"], "6", "{found:?}");
    }
    let said = |start: &str| {
        let found = of_rotation.iter().find(|entry| told(entry).starts_with(start));
        *found.unwrap_or_else(|| panic!("nothing begins with {start:?}: {of_rotation:#?}"))
    };
    assert_eq!(value(said("opened rotation"), "PHASE"), Some("opened"));
    assert_eq!(value(said("minted key"), "KEY_ID"), Some(&*new_key));
    assert_eq!(value(said("minted key"), "PHASE"), Some("minted"));
    let old_key = scene.first_key.0.as_str();
    for (start, key) in [("pushing", &*new_key), ("disabled", old_key), ("deleted", old_key), ("shredded", old_key)] {
        assert_eq!(value(said(start), "KEY_ID"), Some(key), "{start}");
    }
    let of_port = said("the probe was denied access");
    assert_eq!((value(of_port, "KEY_ID"), value(of_port, "TARGET")), (Some(&*new_key), Some("rekeyd::issuer::s3")));
    // What is about no service says so by silence; an order is about the one it names.
    for start in ["starting", "ready"] {
        let found = entries.iter().find(|entry| entry["MESSAGE"].starts_with(start)).expect("it was said");
        assert!(!found.contains_key("SERVICE"), "{found:?}");
    }
    assert!(of_service.iter().any(|entry| told(entry).starts_with("order: rotate")), "{of_service:#?}");
    assert_eq!(daemon.log(), "", "all of it is in the journal, and nothing on stderr");
    journal.holds_no_secret(&scene);
    assert_eq!(daemon.stop().code(), Some(0));
    journal.wait_for("the end is told", |entry| entry["MESSAGE"] == "ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_halt_in_the_journal_has_its_reason_and_the_next_command() {
    let Some((scene, journal)) = stage().await else { return };
    assert_eq!(scene.start_adopted().stop().code(), Some(0));
    scene.write_policy(&PolicyText { cloud_service: "nosuchthing".into(), ..PolicyText::default() });
    let daemon = under(&scene, "journal");
    journal.wait_for("it is ready", |entry| entry["MESSAGE"].starts_with("ready ("));
    scene.run(&["rotate", SERVICE]);
    let halted = journal.wait_for("the halt is told", |entry| told(entry).starts_with("halted: "));
    assert_eq!((value(&halted, "SERVICE"), value(&halted, "REASON")), (Some(SERVICE), Some("not-found")));
    assert_eq!(halted["PRIORITY"], "3");
    let next = scene.service()["next_command"].as_str().expect("there is one").to_owned();
    assert_eq!(value(&halted, "NEXT"), Some(&*next));
    // What is seen without asking for fields says the same.
    let seen = &halted["MESSAGE"];
    assert!(seen.starts_with(&format!("{SERVICE}: halted: ")) && seen.ends_with(&format!("; next: {next}")), "{seen}");
    let fault = journal.wait_for("its cause is told", |entry| value(entry, "OUTCOME") == Some("refused"));
    assert_eq!((value(&fault, "SERVICE"), value(&fault, "REASON")), (Some(SERVICE), Some("not-found")));

    // A policy with more mistakes than a datagram holds: one entry, and all of it.
    let wrong: String = (0..LONG / 50).map(|number| format!("mistake_{number} = 1\n")).collect();
    let text = std::fs::read_to_string(scene.policy()).expect("it is there");
    std::fs::write(scene.policy(), text.replace("watch = ", &format!("{wrong}watch = "))).expect("it can be written");
    daemon.signal("HUP");
    let refused =
        journal.wait_for("the refusal is told", |entry| entry["MESSAGE"].starts_with("the policy in force stays"));
    let mistakes = format!("{} mistakes in {}", LONG / 50, scene.policy().display());
    assert!(refused["MESSAGE"].len() > LONG, "{}", refused["MESSAGE"].len());
    let last = refused["MESSAGE"].lines().last().unwrap_or_default();
    assert!(last.starts_with(&format!("{mistakes}; next: rekeyd check")), "{last}");
    assert_eq!(refused["PRIORITY"], "3");

    // And the last words of a start that fails.
    assert_eq!(daemon.stop().code(), Some(0));
    let mut daemon = under(&scene, "auto");
    assert_eq!(daemon.ended().code(), Some(78));
    let last = journal.wait_for("the mistakes are told", |entry| {
        entry["MESSAGE"].ends_with(&mistakes) && !entry["MESSAGE"].starts_with("the policy in force")
    });
    assert_eq!((last["PRIORITY"].as_str(), daemon.log().as_str()), ("3", ""));
    journal.holds_no_secret(&scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_one_object_a_line_with_the_same_names() {
    let scene = Scene::new().await;
    let daemon = scene.spawn(scene.command(&["run", "--log", "json"]));
    wait_until("the daemon is ready", || daemon.log().contains("\"message\":\"ready\""));
    scene.adopt();
    assert_eq!(scene.run(&["rotate", SERVICE, "--wait=done"]).code, Some(0));
    scene.wait_done(1);
    let rotation = scene.run(&["history", SERVICE, "--json"]).out;
    let rotation: Vec<Value> = serde_json::from_str(&rotation).expect("an array");
    let rotation = rotation.iter().find_map(|line| line["rotation"].as_str()).expect("one was opened").to_owned();
    scene.write_policy(&PolicyText { service: "sok = \"1h\"\nmax_age = \"-1d\"".into(), ..PolicyText::default() });
    daemon.signal("HUP");
    wait_until("the refusal is logged", || daemon.log().contains("2 mistakes in"));
    let lines: Vec<Value> = daemon.log().lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    for line in &lines {
        let time = line["time"].as_str().expect("a time");
        assert!(chrono::DateTime::parse_from_rfc3339(time).is_ok_and(|at| at.timestamp() > 1_700_000_000), "{line}");
        assert!(["error", "warn", "info", "debug", "trace"].contains(&line["level"].as_str().expect("a level")));
        assert!(line["message"].is_string() && line["target"].is_string(), "{line}");
    }
    let minted = lines.iter().find(|line| line["message"].as_str().is_some_and(|said| said.starts_with("minted key")));
    let minted = minted.expect("it was said");
    assert_eq!(minted["service"], SERVICE);
    assert_eq!((&minted["rotation"], &minted["phase"]), (&rotation.as_str().into(), &"minted".into()));
    assert!(minted["key_id"].as_str().is_some_and(|key| minted["message"].as_str().unwrap_or_default().contains(key)));
    let refused = lines.iter().find(|line| line["message"].as_str().is_some_and(|said| said.contains('\n')));
    assert_eq!(refused.expect("several lines in one")["level"], "error");
    assert_eq!(daemon.stop().code(), Some(0));

    let ran = scene.run(&["run", "--log=json"]);
    assert_eq!(ran.code, Some(78));
    let last: Value = serde_json::from_str(ran.err.lines().last().expect("it says why")).expect("JSON");
    assert!(last["message"].as_str().is_some_and(|said| said.contains("2 mistakes in")), "{last}");
    assert_eq!(scene.run(&["run", "--log", "xml"]).code, Some(2));
    scene.assert_no_secret_seen();
}

/// The program of systemd's that is here, by itself and in a place of its own, takes what is sent to it: an entry of a few lines, and one
/// that comes as a file. No unit is known to it here.
#[tokio::test(flavor = "multi_thread")]
async fn a_real_journald_takes_an_entry_whole() {
    const JOURNALD: &str = "/lib/systemd/systemd-journald";
    // It would read the kernel's log, and switch its audit on or off: an empty setting leaves that alone (journald.conf(5)).
    const SCRIPT: &str = "mount -t tmpfs none /run && mkdir -p /run/systemd/journald.conf.d /run/log/journal && \
        printf '[Journal]\\nStorage=volatile\\nReadKMsg=no\\nAudit=\\n' > /run/systemd/journald.conf.d/test.conf || exit 9; \
        \"$0\" & journald=$!; for try in $(seq 100); do test -S /run/systemd/journal/socket && break; sleep 0.1; done; \
        for policy in \"$2\" \"$3\"; do \"$1\" run --log journal --policy \"$policy\"; done; journalctl --sync; \
        journalctl --no-pager --all -o json -t rekeyd; kill $journald; wait";
    let home = tempfile::tempdir().expect("a temporary directory can be made");
    let (short, long) = (home.path().join("short.toml"), home.path().join("long.toml"));
    std::fs::write(&short, "version = 1\nsok = 1\n").expect("it can be written");
    let wrong: String = (0..LONG / 50).map(|number| format!("mistake_{number} = 1\n")).collect();
    std::fs::write(&long, format!("version = 1\n[daemon]\n{wrong}")).expect("it can be written");
    let may =
        may_mount() && std::path::Path::new(JOURNALD).exists() && Command::new("journalctl").arg("-h").output().is_ok();
    if !may {
        println!("NOT RUN: a real journald needs systemd's programs, and the right to mount");
        return;
    }
    let mut command = Command::new("unshare");
    // Whatever becomes of this test, nothing of it stays.
    command
        .args([
            "--mount",
            "--pid",
            "--fork",
            "--kill-child=KILL",
            "--mount-proc",
            "--",
            "sh",
            "-c",
            SCRIPT,
            JOURNALD,
            env!("CARGO_BIN_EXE_rekeyd"),
        ])
        .args([&short, &long]);
    let ran = command.env_remove("RUST_LOG").output().expect("it can be run");
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    let entries: Vec<Value> = said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let told = |of: &std::path::Path, count: usize| {
        let end = format!("{count} mistake{} in {}", if count == 1 { "" } else { "s" }, of.display());
        let found = entries.iter().find(|entry| entry["MESSAGE"].as_str().is_some_and(|said| said.ends_with(&end)));
        found.unwrap_or_else(|| {
            panic!("no entry ends with {end:?}: {} {}", said.len(), String::from_utf8_lossy(&ran.stderr))
        })
    };
    let few = told(&short, 1);
    assert_eq!(
        (&few["PRIORITY"], &few["TARGET"], &few["_TRANSPORT"]),
        (&"3".into(), &"rekeyd::cli".into(), &"journal".into())
    );
    // It was there still when its sender was looked up.
    assert_eq!(few["_EXE"], env!("CARGO_BIN_EXE_rekeyd"));
    assert!(told(&long, LONG / 50)["MESSAGE"].as_str().is_some_and(|said| said.len() > LONG));
}

/// The variable is inherited by whatever a unit starts, wherever that one's stderr leads.
#[tokio::test(flavor = "multi_thread")]
async fn a_stderr_that_is_not_the_journals_gets_text() {
    let scene = Scene::new().await;
    let mut command = scene.command(&["run"]);
    command.env("JOURNAL_STREAM", "8:12345678");
    let daemon = scene.spawn(command);
    wait_until("the daemon is ready", || daemon.log().contains("ready"));
    let line = daemon.log().lines().find(|line| line.contains("starting")).expect("it was said").to_owned();
    let time = line.split_whitespace().next().unwrap_or_default();
    assert!(chrono::DateTime::parse_from_rfc3339(time).is_ok(), "nobody else stamps it: {line}");
    assert!(!daemon.log().contains("cannot be had"), "nor is the journal looked for: {}", daemon.log());
}

/// A scene and a journald beside it; `None` where this user may not put a socket where journald's is.
async fn stage() -> Option<(Scene, Journal)> {
    if !may_mount() {
        println!("NOT RUN: a journal of the test's own needs the right to mount");
        return None;
    }
    let scene = Scene::new().await;
    let journal = Journal::at(&scene);
    Some((scene, journal))
}

fn may_mount() -> bool {
    let may = Command::new("unshare").args(["--mount", "--", "mount", "-t", "tmpfs", "none", "/run"]).output();
    may.is_ok_and(|output| output.status.success())
}

/// Starts the daemon with stderr led to the journal, as systemd says it, and with the played socket at the real one's place.
fn under<'s>(scene: &'s Scene, style: &str) -> Daemon<'s> {
    let script = "mount -t tmpfs none /run && mkdir -p /run/systemd/journal && touch /run/systemd/journal/socket && \
                  mount --bind \"$0\" /run/systemd/journal/socket && \
                  JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec \"$@\"";
    let daemon = scene.command(&["run", "--log", style]);
    let mut command = Command::new("unshare");
    command.args(["--mount", "--", "sh", "-c", script]).arg(scene.path("journal.sock"));
    command.arg(daemon.get_program()).args(daemon.get_args());
    for (name, value) in daemon.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    scene.spawn(command)
}

/// What an entry says, without the service it says it of.
fn told(entry: &Entry) -> &str {
    let said = entry["MESSAGE"].as_str();
    said.strip_prefix(SERVICE).and_then(|said| said.strip_prefix(": ")).unwrap_or(said)
}

fn value<'e>(entry: &'e Entry, name: &str) -> Option<&'e str> {
    entry.get(name).map(String::as_str)
}

/// A journald that keeps what it is sent.
struct Journal {
    entries: Arc<Mutex<Vec<Entry>>>,
}

impl Journal {
    fn at(scene: &Scene) -> Journal {
        let socket = UnixDatagram::bind(scene.path("journal.sock")).expect("a socket can be made");
        let entries = Arc::new(Mutex::new(Vec::new()));
        let kept = entries.clone();
        // It ends with the test's process.
        std::thread::spawn(move || {
            loop {
                let entry = read(&receive(&socket));
                kept.lock().expect("nobody panics here").push(entry);
            }
        });
        Journal { entries }
    }

    fn entries(&self) -> Vec<Entry> {
        self.entries.lock().expect("nobody panics here").clone()
    }

    fn wait_for(&self, what: &str, is_it: impl Fn(&Entry) -> bool) -> Entry {
        let found = || self.entries().into_iter().find(|entry| is_it(entry));
        wait_until_or(what, found, || format!("{:#?}", self.entries().iter().rev().take(5).collect::<Vec<_>>()))
    }

    fn holds_no_secret(&self, scene: &Scene) {
        let text = format!("{:?}", self.entries());
        let mut secrets = scene.aws.all_secrets();
        secrets.extend(scene.arcgis.all_secrets());
        secrets.push(std::fs::read_to_string(scene.path("state/seal.key")).expect("the seal key").trim().to_owned());
        secrets.retain(|secret| secret.len() >= 8);
        assert!(secrets.len() >= 4 && text.contains(SERVICE), "there is something to look for, and to look in");
        assert!(!secrets.iter().any(|secret| text.contains(secret.as_str())), "a secret stands in the journal");
    }
}

/// One entry as it came: in the datagram, or in the file that came with it.
fn receive(socket: &UnixDatagram) -> Vec<u8> {
    let mut bytes = vec![0; 256 * 1024];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::empty()).expect("it can be read");
    bytes.truncate(received.bytes);
    let file = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    if let Some(file) = file {
        assert!(bytes.is_empty(), "an entry is in one place");
        let mut file = File::from(file);
        file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("it can be read");
    }
    bytes
}

/// The fields of an entry, by the protocol's own rules; a name that journald would not take fails the test.
fn read(mut bytes: &[u8]) -> Entry {
    let mut entry = Entry::new();
    while let Some(end) = bytes.iter().position(|byte| matches!(byte, b'=' | b'\n')) {
        let name = String::from_utf8(bytes[..end].to_vec()).expect("names are ASCII");
        let is_sound = |char: char| char.is_ascii_uppercase() || char.is_ascii_digit() || char == '_';
        assert!(name.chars().all(is_sound) && name.starts_with(|first: char| first.is_ascii_uppercase()), "{name:?}");
        let rest = &bytes[end + 1..];
        let (value, rest) = if bytes[end] == b'=' {
            let end = rest.iter().position(|byte| *byte == b'\n').expect("a line ends");
            (&rest[..end], &rest[end..])
        } else {
            let length = u64::from_le_bytes(rest[..8].try_into().expect("eight bytes"));
            rest[8..].split_at(usize::try_from(length).expect("it fits"))
        };
        assert_eq!(rest.first(), Some(&b'\n'), "a field ends with its line");
        bytes = &rest[1..];
        let double = entry.insert(name.clone(), String::from_utf8_lossy(value).into_owned());
        assert_eq!(double, None, "{name} stands twice");
    }
    entry
}
