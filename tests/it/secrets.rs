//! Every secret that exists while these stories are told is looked for in everything that could show it: logs at the finest level,
//! the output of every command, status, metrics, the journal's files, command lines, environments, URLs. None may be found, raw,
//! percent-encoded, in base64, in hex, or escaped for JSON.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rekeyd_lab::{ArcGisOptions, AwsOptions, JobScript};
use serde_json::Value;

use super::support::{CLOUD_SERVICE, Daemon, PolicyText, SERVICE, Scene, USER, wait_until, wait_until_or};

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_seen_anywhere() {
    let scene = Scene::with(AwsOptions::default(), ArcGisOptions::default()).await;
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("a plain client");
    let handle = tokio::runtime::Handle::current();
    let told = tokio::task::spawn_blocking(move || {
        let get = |path: &str| {
            let url = scene.http(path);
            handle.block_on(async { http.get(url).send().await.expect("it answers").text().await.expect("a text") })
        };
        let mut seen = Seen::default();
        tell(&scene, &mut seen, &get);

        let mut secrets = scene.aws.all_secrets();
        secrets.extend(scene.arcgis.all_secrets());
        secrets.push(WRONG_PASSWORD.to_owned());
        secrets.push(std::fs::read_to_string(scene.path("state/seal.key")).expect("the seal key").trim().to_owned());
        secrets.retain(|secret| secret.len() >= 8);
        secrets.sort();
        secrets.dedup();
        // The rotator's, the first, two that were minted, two passwords, tokens, the seal key.
        assert!(secrets.len() >= 8, "{}", secrets.len());
        assert!(seen.0.len() > 30, "{} places", seen.0.len());
        let found = seen.search(&secrets);
        assert!(found.is_empty(), "{found:#?}");
    });
    if let Err(failed) = told.await {
        std::panic::resume_unwind(failed.into_panic());
    }
}

const WRONG_PASSWORD: &str = "wr0ng+pass/word=&%";

/// An adoption with its secret, a rotation, a failing job that echoes, a rollback, a wrong password; and all there is to see of it.
fn tell(scene: &Scene, seen: &mut Seen, get: &dyn Fn(&str) -> String) {
    let policy = PolicyText { soak: "6s".into(), ..PolicyText::default() };
    scene.write_policy(&policy);
    let daemon = scene.start_adopted();
    seen.process("the first daemon", &daemon);
    let ran = scene.run(&["rotate", SERVICE, "--wait"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    seen.files("a key soaks", &scene.path("state"));
    look(scene, seen, get, "soaking");
    let ran = scene.run(&["rollback", SERVICE]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let rolled_back = || {
        let service = scene.service();
        (service["rotations"]["rolled_back"] == 1 && service["reason"] == "rolled-back").then_some(())
    };
    wait_until_or("it is rolled back", rolled_back, || scene.service().to_string());
    assert_eq!(scene.arcgis.held_key(CLOUD_SERVICE).map(|(id, _)| id).as_ref(), Some(&scene.first_key.0));

    assert_eq!(scene.run(&["retry", SERVICE]).code, Some(0));

    // A job that fails and says what it was given, as a careless administrator of ArcGIS's would write it down.
    let (id, secret) = scene.first_key.clone();
    let echo = format!("could not use {{\"access_key\":\"{id}\",\"secret_key\":\"{secret}\"}}");
    for _ in 0..4 {
        scene.arcgis.job_script(JobScript::Fail(echo.clone()));
    }
    let ran = scene.run(&["repush", SERVICE]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    wait_until_or(
        "the echo is told",
        || (scene.service()["state"] == "halted").then_some(()),
        || scene.service().to_string(),
    );
    let history = scene.run(&["history", SERVICE]);
    assert!(history.out.contains("could not use"), "the failing job was not told of: {}", history.out);
    look(scene, seen, get, "halted");
    let ran = scene.run(&["abandon", SERVICE, "--holds", &id]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    seen.add("the first daemon's log", daemon.log());
    assert_eq!(daemon.stop().code(), Some(0));

    // A wrong password, and a file with a wrong secret.
    scene.write_secret("arcgis-password", WRONG_PASSWORD);
    let daemon = scene.spawn(scene.command(&["run", "--log", "json"]));
    wait_until("the daemon is ready", || daemon.log().contains("\"message\":\"ready\""));
    scene.write_secret("wrong-secret", "wr0ng/secret+of=a&key%0123456789abcdefgh");
    let file = scene.path("wrong-secret").display().to_string();
    let ran = scene.run(&["adopt", SERVICE, &id, "--secret-file", &file]);
    seen.add("adopt with a wrong secret", format!("{ran:?}"));
    scene.run(&["rotate", SERVICE]);
    wait_until_or(
        "the login is refused",
        || (scene.service()["reason"] == "login-refused").then_some(()),
        || scene.service().to_string(),
    );
    look(scene, seen, get, "refused");
    seen.process("the second daemon", &daemon);

    // And on to the end, with a key minted and shredded.
    scene.write_secret("arcgis-password", &ArcGisOptions::default().password);
    scene.write_policy(&PolicyText::default());
    daemon.signal("HUP");
    wait_until("the new policy is in force", || daemon.log().contains("the new policy is in force"));
    assert_eq!(scene.run(&["retry", SERVICE]).code, Some(0));
    let settled = || (scene.service()["state"] != "halted").then_some(());
    wait_until_or("it goes on", settled, || scene.service().to_string());
    let ran = scene.run(&["rotate", SERVICE, "--wait=done"]);
    seen.add("rotate --wait=done", format!("{ran:?}"));
    wait_until_or(
        "one key lives",
        || (scene.aws.keys(USER).len() == 1 && scene.service()["state"] == "idle").then_some(()),
        || scene.service().to_string(),
    );
    look(scene, seen, get, "done");
    seen.add("the second daemon's log", daemon.log());
    assert_eq!(daemon.stop().code(), Some(0));
    seen.files("at the end", &scene.path("state"));
    look_without(scene, seen);
    seen.add("what ArcGIS logged of URLs", scene.arcgis.urls().join("\n"));
    assert_eq!(scene.arcgis.consumer_refusals(), 0);
}

const LOOKS: [&[&str]; 11] = [
    &["doctor"],
    &["doctor", "--json"],
    &["advise"],
    &["status"],
    &["status", "--json"],
    &["plan"],
    &["strangers"],
    &["check"],
    &["history", SERVICE],
    &["history", SERVICE, "--json"],
    &["ledger", "verify"],
];

fn look(scene: &Scene, seen: &mut Seen, get: &dyn Fn(&str) -> String, when: &str) {
    look_without(scene, seen);
    for path in ["/metrics", "/api/v1/status", "/healthz", "/readyz"] {
        seen.add(format!("{path} while {when}"), get(path));
    }
    seen.files(when, &scene.path("state"));
}

fn look_without(scene: &Scene, seen: &mut Seen) {
    for words in LOOKS {
        let ran = scene.run(words);
        seen.add(format!("rekeyd {}", words.join(" ")), format!("{}{}", ran.out, ran.err));
    }
}

/// A searcher that finds nothing proves nothing unless it finds what is there.
#[test]
fn a_planted_secret_is_found_in_every_disguise() {
    let secret = "aB3/+=&%\"\\ä0123456789";
    let disguises = [
        secret.to_owned(),
        "aB3%2F%2B%3D%26%25%22%5C%C3%A40123456789".to_owned(),
        "aB3%2f%2b%3d%26%25%22%5c%c3%a40123456789".to_owned(),
        STANDARD.encode(secret),
        // As part of something longer, at each of the three places a byte can have in base64.
        STANDARD.encode(format!("x{secret}y")),
        STANDARD.encode(format!("xx{secret}yy")),
        serde_json::to_string(&Value::from(secret)).expect("a text"),
        secret.bytes().map(|byte| format!("{byte:02x}")).collect(),
    ];
    for disguise in &disguises {
        let mut seen = Seen::default();
        seen.add("clean", "nothing to see here, aB3/+".to_owned());
        seen.add("planted", format!("before {disguise} after"));
        assert_eq!(seen.search(&[secret.to_owned()]), ["a secret of 21 characters in planted"], "{disguise}");
    }
    let mut seen = Seen::default();
    seen.0.push(("bytes".into(), [&[0, 255], secret.as_bytes(), &[1]].concat()));
    assert_eq!(seen.search(&[secret.to_owned()]).len(), 1);
}

/// The process cannot be read by others of the same user, leaves no core, and takes no secret in its environment or its words.
#[tokio::test(flavor = "multi_thread")]
async fn the_process_is_not_dumpable() {
    let scene = Scene::new().await;
    tokio::task::block_in_place(|| {
        let daemon = scene.start();
        let proc = format!("/proc/{}", daemon.pid());
        // The kernel gives the files of a process that is not dumpable to root, whoever runs it; see proc(5).
        let limits = std::fs::read_to_string(format!("{proc}/limits")).expect("every user may read the limits");
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("every kernel has it");
        assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
        // The same look at a process like any other shows that it sees something where it may.
        let mut other = std::process::Command::new("sleep").arg("30").spawn().expect("every system sleeps");
        let control = is_open_to_its_own_user(other.id());
        other.kill().and_then(|()| other.wait()).expect("it can be ended");
        if control {
            assert!(!is_open_to_its_own_user(daemon.pid()), "another process of the same user may read its memory");
        } else {
            println!("NOT RUN: looking at a process without root's rights needs setpriv and the right to use it");
        }
    });
}

/// Whether a process of the same user may look into this one. root may look into every process, so it gives up its rights first.
fn is_open_to_its_own_user(pid: u32) -> bool {
    let environ = format!("/proc/{pid}/environ");
    let look = std::process::Command::new("setpriv")
        .args(["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--", "head", "-c", "1", &environ])
        .output();
    look.is_ok_and(|look| look.status.success())
}

/// Everything that was seen, by where.
#[derive(Default)]
struct Seen(Vec<(String, Vec<u8>)>);

impl Seen {
    fn add(&mut self, place: impl Into<String>, text: String) {
        self.0.push((place.into(), text.into_bytes()));
    }

    fn process(&mut self, what: &str, daemon: &Daemon<'_>) {
        for file in ["cmdline", "environ"] {
            let bytes = std::fs::read(format!("/proc/{}/{file}", daemon.pid())).unwrap_or_default();
            self.0.push((format!("{file} of {what}"), bytes));
        }
    }

    /// Every file of the journal: database, log, index, ballast, lock. The seal key's own file is what it is.
    fn files(&mut self, when: &str, folder: &Path) {
        for entry in std::fs::read_dir(folder).expect("it is there").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != "seal.key" && entry.path().is_file() {
                // A file may be gone again: a checkpoint truncates.
                self.0.push((format!("{name} when {when}"), std::fs::read(entry.path()).unwrap_or_default()));
            }
        }
    }

    /// Where which secret was found. It is named by its length alone.
    fn search(&self, secrets: &[String]) -> Vec<String> {
        let mut found = Vec::new();
        for secret in secrets {
            let disguises = disguises(secret);
            for (place, bytes) in &self.0 {
                if disguises.iter().any(|disguise| contains(bytes, disguise)) {
                    found.push(format!("a secret of {} characters in {place}", secret.chars().count()));
                }
            }
        }
        found
    }
}

fn disguises(secret: &str) -> Vec<Vec<u8>> {
    let percent = |upper: bool| -> String {
        let encoded = |byte: u8| match byte {
            byte if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => char::from(byte).to_string(),
            byte if upper => format!("%{byte:02X}"),
            byte => format!("%{byte:02x}"),
        };
        secret.bytes().map(encoded).collect()
    };
    // Base64 depends on what stands before and after: of each alignment, the characters that hang on the secret alone.
    let base64 = (0..3).map(|before| {
        let encoded = STANDARD.encode([&[b'x'].repeat(before), secret.as_bytes()].concat());
        let sure = (before + secret.len()) * 8 / 6;
        encoded.as_bytes()[(before * 8).div_ceil(6)..sure].to_vec()
    });
    let json = serde_json::to_string(&Value::from(secret)).expect("a text");
    let mut all: Vec<Vec<u8>> = base64.collect();
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let plain = [secret.to_owned(), percent(true), percent(false), json[1..json.len() - 1].to_owned(), hex];
    all.extend(plain.into_iter().map(String::into_bytes));
    all
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    let Some(first) = wanted.first() else { return false };
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        if rest[at..].starts_with(wanted) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}
