//! The daemon's own login at F5, rotated by the real program: it writes the new token into the file that it logs in with, and revokes
//! the old one with it. A consumer reads the same file all the while.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rekeyd_lab::{F5, F5Options, Fault as Mishap};
use serde_json::Value;

use super::support::{PolicyText, Scene, wait_until_or};

const LOGIN: &str = "f5-login";
const BY_HAND: &str = "rekeyd-by-hand";
const ADMIN: &str = "ves-io-admin-role in system";

/// A tenant that rekeyd logs in at with a token that a person made, and a policy that rotates it.
struct Story {
    scene: Scene,
    f5: F5,
}

impl Story {
    /// The target writes into this file of the scene's folder; rekeyd reads `f5-token`.
    async fn new(written: &str) -> Story {
        let (scene, f5) = (Scene::new().await, F5::start(F5Options::default()).await);
        let token = f5.create_token(BY_HAND, &[("system", "ves-io-admin-role")]);
        scene.write_secret("f5-token", &token);
        scene.write_secret("by-hand", &token);
        scene.write_secret(written, &token);
        let story = Story { scene, f5 };
        story.write_policy(written, "");
        story
    }

    fn write_policy(&self, written: &str, more: &str) {
        let (login, written) = (self.scene.path("f5-token"), self.scene.path(written));
        let more = format!(
            r#"[f5xc.main]
console_url = "{}"
api_token = {{ file = {login:?} }}
settle = "1s"
request_timeout = "20s"

[[service]]
name = "{LOGIN}"
propagation = "0s"
probes = 2
probe_interval = "50ms"
soak = "600ms"
soak_unproven = "600ms"
watch = "300ms"
observe = "1s"

  [service.issuer]
  kind = "f5xc"
  account = "main"
  name_prefix = "rekeyd"
  namespace_roles = [{{ namespace = "system", role = "ves-io-admin-role" }}]
  {more}

  [[service.target]]
  kind = "file"
  path = {written:?}
  format = "raw"
"#,
            self.f5.url()
        );
        self.scene.write_policy(&PolicyText { more, ..PolicyText::default() });
    }

    fn adopt(&self) {
        let file = self.scene.path("by-hand").display().to_string();
        let ran = self.scene.run(&["adopt", LOGIN, BY_HAND, "--secret-file", &file]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }

    fn status(&self) -> Value {
        let ran = self.scene.run(&["status", "--json"]);
        let status: Value = serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
        let services = status["services"].as_array().expect("services");
        services.iter().find(|service| service["name"] == LOGIN).expect("it is listed").clone()
    }

    fn wait(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        wait_until_or(what, || Some(self.status()).filter(|status| holds(status)), || self.status().to_string())
    }

    fn made(&self) -> usize {
        self.f5.requests().iter().filter(|line| line.operation == "CreateServiceCredentials" && line.executed).count()
    }

    fn assert_no_secret_seen(&self) {
        self.scene.assert_none_seen(self.f5.all_secrets(), "");
    }
}

fn token_in(file: &Path) -> String {
    std::fs::read_to_string(file).expect("the file is there").trim_end().to_owned()
}

/// Reads the file for each request, as an application does; one that is refused although the file still says the same is an outage.
struct Consumer {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
}

impl Consumer {
    fn start(f5: &F5, file: PathBuf) -> Consumer {
        let consumer = Consumer { stop: Arc::default(), asked: Arc::default(), refused: Arc::default() };
        let (stop, asked, refused) = (consumer.stop.clone(), consumer.asked.clone(), consumer.refused.clone());
        let url = format!("{}/api/web/namespaces", f5.url());
        tokio::spawn(async move {
            let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("a plain client");
            while !stop.load(Ordering::Relaxed) {
                let token = token_in(&file);
                let request = http.get(&url).header("authorization", format!("APIToken {token}"));
                let status = request.send().await.map(|answer| answer.status().as_u16()).unwrap_or_default();
                asked.fetch_add(1, Ordering::Relaxed);
                if status != 200 && token_in(&file) == token {
                    refused.fetch_add(1, Ordering::Relaxed);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        consumer
    }

    fn assert_never_refused(&self) {
        self.stop.store(true, Ordering::Relaxed);
        let (asked, refused) = (self.asked.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed));
        assert!(asked > 20 && refused == 0, "{refused} of {asked}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rekeyd_rotates_its_own_login_and_never_stands_before_a_locked_door() {
    let story = Story::new("f5-token").await;
    let file = story.scene.path("f5-token");
    let consumer = Consumer::start(&story.f5, file.clone());
    tokio::task::spawn_blocking(move || {
        let daemon = story.scene.start();
        story.adopt();
        let mut before = token_in(&file);
        for round in 1..=2 {
            let ran = story.scene.run(&["rotate", LOGIN, "--wait=done"]);
            assert_eq!(ran.code, Some(0), "{ran:?}");
            let left = story.f5.credentials();
            assert_eq!(left.len(), 1, "{left:?}");
            assert!(left[0].name.starts_with("rekeyd-") && left[0].name != BY_HAND, "{left:?}");
            assert_ne!(token_in(&file), before);
            assert_eq!(story.made(), round);
            before = token_in(&file);
        }
        // A changed policy reaches the credential in use, and its token stays.
        let ours = story.f5.credentials()[0].name.clone();
        story.write_policy("f5-token", "user_groups = [\"ops\"]");
        daemon.signal("HUP");
        wait_until_or(
            "the group to be given",
            || story.f5.credentials()[0].access.contains("group ops").then_some(()),
            || daemon.log(),
        );
        let after = story.f5.credentials();
        assert!(after[0].name == ours && after[0].access.contains(ADMIN) && after.len() == 1, "{after:?}");
        assert_eq!(token_in(&file), before);
        wait_until_or(
            "the log to say so",
            || daemon.log().contains("the current key follows the policy").then_some(()),
            || daemon.log(),
        );
        consumer.assert_never_refused();
        drop(daemon);
        story.assert_no_secret_seen();
    })
    .await
    .expect("it ends well");
}

/// Where the new token goes elsewhere, the old one is what rekeyd still logs in with: it lives, as a debt, until that is put right.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_the_new_token_does_not_reach_is_not_cut_off() {
    let story = Story::new("elsewhere").await;
    tokio::task::spawn_blocking(move || {
        let daemon = story.scene.start();
        story.adopt();
        let ran = story.scene.run(&["rotate", LOGIN, "--wait"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        story.wait("the old key is owed", |status| status["debt"].to_string().contains(BY_HAND));
        assert!(story.f5.credentials().iter().any(|one| one.name == BY_HAND && one.active));
        let log = daemon.log();
        assert!(
            log.contains("rekeyd itself logs in with it") && log.contains("put another one into api_token"),
            "{log}"
        );
        story.scene.write_secret("f5-token", &token_in(&story.scene.path("elsewhere")));
        daemon.signal("USR2");
        story.wait("nothing is owed", |status| status["debt"].as_array().is_some_and(Vec::is_empty));
        wait_until_or(
            "the old one to be revoked",
            || (story.f5.credentials().len() == 1).then_some(()),
            || format!("{:?}", story.f5.credentials()),
        );
        assert_ne!(story.f5.credentials()[0].name, BY_HAND);
        drop(daemon);
        story.assert_no_secret_seen();
    })
    .await
    .expect("it ends well");
}

/// The answer to the create dies with the daemon. The next one finds the credential by its name, revokes it, and makes another.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_in_a_mint_leaves_no_credential_behind() {
    let story = Story::new("f5-token").await;
    let file = story.scene.path("f5-token");
    let consumer = Consumer::start(&story.f5, file.clone());
    tokio::task::spawn_blocking(move || {
        let before = token_in(&file);
        let daemon = story.scene.start();
        story.adopt();
        story.f5.fault("CreateServiceCredentials", Mishap::Slow(Duration::from_secs(600)));
        let ran = story.scene.run(&["rotate", LOGIN]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        wait_until_or("a credential to be made", || (story.made() == 1).then_some(()), || daemon.log());
        daemon.kill9();
        let lost = story.f5.credentials().into_iter().find(|one| one.name != BY_HAND).expect("it was made");
        let daemon = story.scene.start();
        story.wait("another one is in use", |status| {
            status["state"] == "idle" && status["current_key"] != BY_HAND && status["current_key"] != Value::Null
        });
        let left = story.f5.credentials();
        assert!(left.len() == 1 && left[0].name != lost.name && left[0].name != BY_HAND, "{left:?}");
        assert_eq!(story.made(), 2);
        assert_ne!(token_in(&file), before);
        consumer.assert_never_refused();
        drop(daemon);
        story.assert_no_secret_seen();
    })
    .await
    .expect("it ends well");
}
