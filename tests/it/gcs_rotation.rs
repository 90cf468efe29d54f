//! The main job on Google with the real program: an HMAC key is rotated while ArcGIS reads its bucket with it, and nobody is refused.
//! The store that the consumers and the probes read at judges their signatures by a library that is not ours.

use std::process::Command;
use std::time::Duration;

use rekeyd_lab::s3::S3Store;
use rekeyd_lab::{ArcGisOptions, AwsOptions, Fault as Mishap, Google, GoogleOptions, ServiceSpec};
use serde_json::{Value, json};

use super::support::{PolicyText, Scene, wait_until};

const NAME: &str = "gcs-store";
/// The cloud service that holds the key.
const PLACE: &str = "gcsgcs0001";
const BUCKET: &str = "gis-tiles";
/// How long Google takes until everybody knows of a change.
const LAG: Duration = Duration::from_millis(300);
/// An answer that comes after the process is dead.
const NEVER: Duration = Duration::from_secs(3600);

struct Story {
    scene: Scene,
    google: Google,
    store: S3Store,
    email: String,
    /// The key that a person made.
    by_hand: (String, String),
}

impl Story {
    async fn new() -> Story {
        let options = ArcGisOptions { job_duration: Duration::from_millis(300), ..ArcGisOptions::default() };
        let scene = Scene::with(AwsOptions::default(), options).await;
        let google =
            Google::start(GoogleOptions { propagation: LAG, state_lag: LAG, ..GoogleOptions::default() }).await;
        let store = S3Store::start(google.lookup()).await;
        store.add_bucket(BUCKET);
        let email = google.add_service_account("arcgis");
        let by_hand = google.create_key(&email);
        let arcgis = &scene.arcgis;
        arcgis.use_google(&store.url());
        arcgis.add_provider("googlegcp0", "GCP", None);
        arcgis.add_service_with(ServiceSpec::google_cloud_storage(PLACE, "googlegcp0", BUCKET));
        let secret = json!({ "accessKey": by_hand.0, "secretKey": by_hand.1 });
        arcgis.set_credential_object(PLACE, &json!({ "type": "HMAC-KEYS", "secret": secret }));
        let story = Story { scene, google, store, email, by_hand };
        story.scene.write_secret("google.json", &story.google.service_account_file(&story.google.token_url()));
        story.scene.write_secret("by-hand", &story.by_hand.1);
        let file = format!("credentials_file = \"{}\"", story.scene.path("google.json").display());
        story.write_policy(&file);
        story
    }

    /// `login` is a line of the account.
    fn write_policy(&self, login: &str) {
        let (url, store, email) = (self.google.url(), self.store.url(), &self.email);
        let more = format!(
            "[gcp.main]\n{login}\nstorage_url = \"{url}\"\nresource_manager_url = \"{url}\"\nsettle = \"5s\"\nrequest_timeout = \"5s\"\n\
             [[service]]\nname = \"{NAME}\"\npropagation = \"0s\"\nprobes = 2\nprobe_interval = \"50ms\"\nsoak = \"600ms\"\n\
             soak_unproven = \"600ms\"\nwatch = \"900ms\"\nobserve = \"1s\"\n[service.issuer]\nkind = \"gcs-hmac\"\naccount = \"main\"\n\
             project = \"gis-prod-123\"\nservice_account = \"{email}\"\nexclusive = true\n\
             probe = {{ bucket = \"{BUCKET}\", expect = \"read\", endpoint_url = \"{store}\" }}\n\
             [[service.target]]\nkind = \"arcgis\"\ndeployment = \"prod\"\nservice_id = \"{PLACE}\"\n"
        );
        self.scene.write_policy(&PolicyText { more, ..PolicyText::default() });
    }

    fn adopt(&self) {
        let file = self.scene.path("by-hand").display().to_string();
        let adopted = self.scene.run(&["adopt", NAME, &self.by_hand.0, "--secret-file", &file]);
        assert_eq!(adopted.code, Some(0), "{adopted:?}");
    }

    /// The service as `status --json` shows it.
    fn service(&self) -> Value {
        let status: Value = serde_json::from_str(&self.scene.run(&["status", "--json"]).out).expect("JSON");
        let all = status["services"].as_array().expect("services").clone();
        all.into_iter().find(|service| service["name"] == NAME).expect("listed")
    }

    /// One key is left, ArcGIS holds it, and nobody was refused or hurried.
    fn assert_one_live_key(&self) {
        let keys = self.google.keys(&self.email);
        let held = self.scene.arcgis.held_key(PLACE).expect("it holds a key");
        assert_eq!(keys.len(), 1, "{keys:?}");
        assert_eq!((&keys[0].id, keys[0].active), (&held.0, true));
        assert_eq!(self.google.secret_of(&held.0), Some(held.1));
        assert_eq!(self.google.hasty_deletions(), 0, "every deletion came after the store knew the key was disabled");
        assert_eq!(self.scene.arcgis.consumer_refusals(), 0);
        let count = self.scene.arcgis.consumer(PLACE);
        assert!(count.requests > 20 && count.healthy && count.failures == 0, "{count:?}");
        assert!(!self.google.opens(&self.by_hand.0, &self.by_hand.1), "the key that a person made is dead");
    }

    fn assert_no_secret_seen(&self) {
        let mut secrets = self.google.all_secrets();
        secrets.extend(self.scene.aws.all_secrets());
        secrets.extend(self.scene.arcgis.all_secrets());
        self.scene.assert_none_seen(secrets, &self.scene.arcgis.urls().join("\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_rotated_and_nobody_is_refused() {
    let story = Story::new().await;
    tokio::task::spawn_blocking(move || {
        let daemon = story.scene.start();
        story.adopt();
        for round in 1..=2 {
            let ran = story.scene.run(&["rotate", NAME, "--wait=done"]);
            assert_eq!(ran.code, Some(0), "{ran:?}");
            story.assert_one_live_key();
            assert_eq!(story.google.mints(), round);
        }
        let doctor = story.scene.run(&["doctor"]);
        for said in [
            "rights: the rotator has storage.hmacKeys.create",
            "this provider does not tell when a key was used",
            &format!("gcs-hmac:{}", story.email),
        ] {
            assert!(doctor.out.contains(said), "no {said:?} in {doctor:?}");
        }
        let service = story.service();
        assert_eq!((&service["state"], &service["strangers"]), (&json!("idle"), &json!([])));
        drop(daemon);
        story.assert_no_secret_seen();
    })
    .await
    .expect("it ends well");
}

/// Killed again and again on its way, at Google's side and at ArcGIS': each start takes the rotation up where it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_survives_its_daemon() {
    let story = Story::new().await;
    tokio::task::spawn_blocking(move || {
        let (google, store, arcgis) = (&story.google, &story.store, &story.scene.arcgis);
        let asked = |operation: &str| {
            let requests = google.requests().into_iter().chain(store.requests()).chain(arcgis.requests());
            requests.filter(|line| line.operation == operation).count()
        };
        // The first daemon is held in the mint, which is carried out, and is dead before its answer comes. Google tells nobody whether
        // a key was ever used, so a person has to say that the one which was found is the lost one.
        google.fault("CreateHmacKey", Mishap::Slow(NEVER));
        let daemon = story.scene.start();
        story.adopt();
        let ordered = story.scene.run(&["rotate", NAME]);
        assert_eq!(ordered.code, Some(0), "{ordered:?}");
        wait_until("the mint", || asked("CreateHmacKey") == 1);
        daemon.kill9();
        let daemon = story.scene.start();
        wait_until("the lost key to be found", || story.service()["reason"] == "mint-unsettled");
        assert_eq!(google.mints(), 1, "nothing is minted while one is unsettled");
        let lost = story.service()["strangers"][0].as_str().expect("its id").to_owned();
        let reclaimed = story.scene.run(&["reclaim", NAME, &lost]);
        assert_eq!(reclaimed.code, Some(0), "{reclaimed:?}");
        // Killed between the deed and its line in the journal, this one would be lost too.
        let is_written = || {
            let history = story.scene.run(&["history", NAME, "--json"]).out;
            let lines: Vec<Value> = serde_json::from_str(&history).expect("an array");
            lines.iter().any(|line| line["event"] == "minted")
        };
        wait_until("the mint in its place to be written down", is_written);
        assert_eq!(google.mints(), 2);
        daemon.kill9();
        // The next ones are held in the same way: in a probe, the push, the disabling of the old key and its deletion.
        let steps = ["ListObjectsV2", "credential/update", "UpdateHmacKey", "DeleteHmacKey"];
        for (step, operation) in steps.into_iter().enumerate() {
            google.fault(operation, Mishap::Slow(NEVER));
            arcgis.fault(operation, Mishap::Slow(NEVER));
            if operation == "ListObjectsV2" {
                store.fault(operation, Mishap::Slow(NEVER));
            }
            let before = asked(operation);
            let daemon = story.scene.start();
            wait_until(&format!("step {step}: {operation}"), || asked(operation) > before);
            daemon.kill9();
            google.clear_faults();
            arcgis.clear_faults();
        }
        let daemon = story.scene.start();
        wait_until("the rotation's end", || story.scene.run(&["history", NAME]).out.contains("  done"));
        // What a person takes away is disabled, and watched for a day.
        let kept = google.keys(&story.email);
        let kept = kept.iter().find(|key| key.id == lost).expect("the lost key is still there");
        assert!(!kept.active, "{kept:?}");
        google.delete_key(&lost);
        story.assert_one_live_key();
        assert_eq!(google.mints(), 2, "the lost key and the one in its place");
        drop(daemon);
        story.assert_no_secret_seen();
    })
    .await
    .expect("it ends well");
}

/// A policy against Google itself gives the store the time that Google asks for.
#[tokio::test(flavor = "multi_thread")]
async fn three_minutes_are_asked_for_at_google_itself() {
    let story = Story::new().await;
    tokio::task::spawn_blocking(move || {
        let text = std::fs::read_to_string(story.scene.policy()).expect("it was written");
        let own = format!("storage_url = \"{}\"\n", story.google.url());
        std::fs::write(story.scene.policy(), text.replace(&own, "")).expect("written");
        let checked = story.scene.run(&["check"]);
        assert_eq!(checked.code, Some(78), "{checked:?}");
        let said = format!("{}{}", checked.out, checked.err);
        let what = "`gcs-store` would delete a key 900ms after it is disabled: Google may take 3m to know everywhere that it is";
        assert!(said.contains(what) && said.contains("help: make `watch` 3m or longer"), "{said}");
    })
    .await
    .expect("it ends well");
}

/// A machine at Google, and a process that was given a file: the policy names no secret, and the login comes from where the process was
/// started.
#[tokio::test(flavor = "multi_thread")]
async fn rekeyd_logs_in_as_the_machine_it_runs_on() {
    let story = Story::new().await;
    story.write_policy("");
    tokio::task::spawn_blocking(move || {
        let (host, home) = (story.google.metadata_host(), story.scene.path("").display().to_string());
        let file = story.scene.path("google.json").display().to_string();
        let doctor = |surroundings: &[(&str, &str)]| {
            let mut command: Command = story.scene.command(&["doctor"]);
            for name in ["GOOGLE_APPLICATION_CREDENTIALS", "GCE_METADATA_HOST"] {
                command.env_remove(name);
            }
            // No credentials of whoever runs the tests.
            command.env("HOME", &home).envs(surroundings.iter().copied());
            let ran = command.output().expect("the program can be run");
            let told = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
            // What the scene does not start itself it does not look through.
            let secrets = story.google.all_secrets().into_iter().filter(|secret| secret.len() >= 8);
            secrets.for_each(|secret| assert!(!told.contains(secret.as_str()), "a secret was printed"));
            told
        };
        let machine = [("GCE_METADATA_HOST", host.as_str())];
        let has_rights = "ok       rights: the rotator has storage.hmacKeys.create";
        for surroundings in [machine, [("GOOGLE_APPLICATION_CREDENTIALS", file.as_str())]] {
            let told = doctor(&surroundings);
            assert!(told.contains(has_rights), "{surroundings:?}: {told}");
        }
        // A machine that was made to read only.
        let read_only = "https://www.googleapis.com/auth/devstorage.read_only".to_owned();
        story.google.set_options(|options| options.machine_scopes = vec![read_only]);
        let told = doctor(&machine);
        assert!(told.contains("insufficient authentication scopes") && told.contains("access scopes"), "{told}");
        // A server in trouble, and a page of somebody in between: neither is a login that was refused.
        for (mishap, what) in
            [(Mishap::Error(503), "status 503 and a body"), (Mishap::Html, "a body that is no answer")]
        {
            story.google.clear_faults();
            for _ in 0..4 {
                story.google.fault("MachineToken", mishap.clone());
            }
            let told = doctor(&machine);
            let who = "log in as the machine's application default credentials: ";
            assert!(told.contains(&format!("{who}{what}")) && told.contains("goes on by itself"), "{told}");
        }
        story.scene.assert_none_seen(story.google.all_secrets(), "");
    })
    .await
    .expect("it ends well");
}
