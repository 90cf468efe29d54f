//! The main job with the real program: the keys of a user are rotated while ArcGIS reads its bucket with them, the daemon is killed in
//! the middle of a mint, and nobody is refused.

use std::time::Duration;

use rekeyd_lab::{ArcGisOptions, AwsOptions, Fault as Mishap, Ibm, IbmOptions, StoredCredential};
use serde_json::Value;

use super::{BUCKET, PROJECT, USER, account};
use crate::support::{PolicyText, Scene, wait_until, wait_until_or};

const SERVICE: &str = "cos-store";
const PLACE: &str = "cosstore01";
/// An answer that comes after the process is dead.
const NEVER: Duration = Duration::from_secs(60);

struct Story {
    scene: Scene,
    ibm: Ibm,
    by_hand: String,
}

impl Story {
    async fn new() -> Story {
        let arcgis = ArcGisOptions { job_duration: Duration::from_millis(300), ..ArcGisOptions::default() };
        let scene = Scene::with(AwsOptions::default(), arcgis).await;
        let lag = Duration::from_millis(200);
        let ibm = Ibm::start(IbmOptions { propagation: lag, listing_lag: lag, ..IbmOptions::default() }).await;
        ibm.add_user(PROJECT, USER);
        ibm.add_bucket(BUCKET);
        let (access_key, secret_key) = ibm.create_key(PROJECT, USER);
        let by_hand = access_key.clone();
        scene.arcgis.use_ibm(&ibm);
        scene.arcgis.add_provider("ibmcosibmc", "AWS", None);
        scene.arcgis.add_service(PLACE, "ibmcosibmc", BUCKET, Some(StoredCredential { access_key, secret_key }));
        scene.write_secret("ibm-password", &ibm.login().1);
        let story = Story { scene, ibm, by_hand };
        story.scene.write_policy(&PolicyText { more: story.policy(), ..PolicyText::default() });
        story
    }

    fn policy(&self) -> String {
        let password = self.scene.path("ibm-password").display().to_string();
        let account = account(&self.ibm, &password, "settle = \"600ms\"\nrequest_timeout = \"30s\"\n");
        format!(
            "[ibm_cos.main]\n{account}\n[[service]]\nname = \"{SERVICE}\"\npropagation = \"0s\"\nprobes = 2\n\
             probe_interval = \"50ms\"\nsoak = \"600ms\"\nsoak_unproven = \"600ms\"\nwatch = \"300ms\"\nobserve = \"1h\"\n\
             [service.issuer]\nkind = \"ibm-cos\"\naccount = \"main\"\n{}\n\
             [[service.target]]\nkind = \"arcgis\"\ndeployment = \"prod\"\nservice_id = \"{PLACE}\"\n",
            super::policy(&self.ibm, "")
        )
    }

    fn service(&self) -> Value {
        let ran = self.scene.run(&["status", "--json"]);
        let status: Value = serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
        let services = status["services"].as_array().expect("services");
        services.iter().find(|service| service["name"] == SERVICE).expect("it is listed").clone()
    }

    /// Without a secret file: the accesser shows the secret.
    fn adopt(&self) {
        let adopted = self.scene.run(&["adopt", SERVICE, &self.by_hand]);
        assert_eq!(adopted.code, Some(0), "{adopted:?}");
    }

    fn adopt_with_a_file(&self) {
        let secret = self.scene.arcgis.held_key(PLACE).expect("it holds one").1;
        self.scene.write_secret("by-hand", &secret);
        let file = self.scene.path("by-hand").display().to_string();
        let adopted = self.scene.run(&["adopt", SERVICE, &self.by_hand, "--secret-file", &file]);
        assert_eq!(adopted.code, Some(0), "{adopted:?}");
    }

    fn history(&self) -> Vec<Value> {
        let ran = self.scene.run(&["history", SERVICE, "--json"]);
        serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
    }

    fn wait_done(&self, count: u64) {
        let look = || {
            let service = self.service();
            (service["rotations"]["done"] == count && service["state"] == "idle").then_some(())
        };
        wait_until_or("the rotation is done", look, || format!("{}\n{:#?}", self.service(), self.history()));
    }

    fn sent(&self, operation: &str) -> usize {
        self.ibm.requests().iter().filter(|line| line.operation == operation).count()
    }

    /// One key lives, it is the one ArcGIS holds, and its consumer read all the time.
    fn ends_well(&self) {
        let keys = self.ibm.keys(PROJECT, USER);
        let held = self.scene.arcgis.held_key(PLACE).map(|(id, _)| id);
        assert_eq!(keys.len(), 1, "{keys:?}");
        assert!(keys[0].active && keys[0].access.starts_with("rk0"), "{keys:?}");
        assert_eq!(Some(&keys[0].access), held.as_ref());
        assert_eq!(self.service()["current_key"].as_str(), held.as_deref());
        let count = self.scene.arcgis.consumer(PLACE);
        assert!(count.requests > 20 && count.healthy && count.refusals == 0 && count.failures == 0, "{count:?}");
        assert_eq!(self.scene.arcgis.consumer_refusals(), 0);
        let mut secrets = self.ibm.all_secrets();
        secrets.extend(self.scene.arcgis.all_secrets());
        self.scene.assert_none_seen(secrets, &self.scene.arcgis.urls().join("\n"));
    }
}

fn count(history: &[Value], event: &str) -> usize {
    history.iter().filter(|line| line["event"] == event).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_keys_are_rotated_and_nobody_is_refused() {
    let story = Story::new().await;
    tokio::task::spawn_blocking(move || {
        let daemon = story.scene.start();
        story.adopt();
        for round in [1, 2] {
            let ran = story.scene.run(&["rotate", SERVICE, "--wait=done"]);
            assert_eq!(ran.code, Some(0), "{ran:?}");
            assert_eq!((story.ibm.mints(), story.sent("CreateCredential")), (round, round));
            // Of the key that leaves: disabled, watched, deleted.
            assert_eq!((story.sent("UpdateCredential"), story.sent("DeleteCredential")), (round, round));
        }
        let doctor = story.scene.run(&["doctor"]);
        assert!(doctor.out.contains("no request tells before it is tried"), "{doctor:?}");
        drop(daemon);
        story.ends_well();
    })
    .await
    .expect("it ends well");
}

/// The first POST never arrives, the second is carried out while nobody is left to hear of it; the process after that finds the key by
/// its name, and takes its secret from there.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_during_the_mint_finds_its_key_again() {
    let story = Story::new().await;
    tokio::task::spawn_blocking(move || {
        let daemon = story.scene.start();
        story.adopt();
        story.ibm.fault("CreateCredential", Mishap::DropBefore);
        story.ibm.fault("CreateCredential", Mishap::Slow(NEVER));
        let ran = story.scene.run(&["rotate", SERVICE]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        wait_until("the second request is there", || story.sent("CreateCredential") == 2);
        daemon.kill9();
        story.ibm.clear_faults();
        let daemon = story.scene.start();
        story.wait_done(1);
        let history = story.history();
        assert_eq!(count(&history, "mint_begun"), 1, "one intent: {history:#?}");
        // A third may have gone before a look showed the key; it was refused.
        let sent = story.sent("CreateCredential");
        assert!(
            (2..=3).contains(&sent) && story.ibm.mints() == 1,
            "asked for {sent} times, made {} times",
            story.ibm.mints()
        );
        let before = story.ibm.keys(PROJECT, USER);
        let ran = story.scene.run(&["rotate", SERVICE, "--wait=done"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(story.ibm.keys(PROJECT, USER) != before, "and the next rotation goes through as well");
        drop(daemon);
        story.ends_well();
    })
    .await
    .expect("it ends well");
}

/// Where a secret is shown once, a key whose answer was lost is found by its name and can only be taken away; then another is made.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_key_whose_secret_nobody_shows_is_taken_away_on_a_retry() {
    let story = Story::new().await;
    tokio::task::spawn_blocking(move || {
        story.ibm.set_options(|options| options.shows_secrets = false);
        let daemon = story.scene.start();
        story.adopt_with_a_file();
        story.ibm.fault("CreateCredential", Mishap::LostReply);
        let ran = story.scene.run(&["rotate", SERVICE, "--wait"]);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        let halted = story.service();
        assert_eq!(
            (halted["reason"].as_str(), halted["phase"].as_str()),
            (Some("refused"), Some("minting")),
            "{halted}"
        );
        assert_eq!(halted["next_command"], format!("rekeyd retry {SERVICE}"), "{halted}");
        let ran = story.scene.run(&["retry", SERVICE]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        story.wait_done(1);
        assert_eq!((story.ibm.mints(), count(&story.history(), "mint_begun")), (2, 2));
        drop(daemon);
        story.ends_well();
    })
    .await
    .expect("it ends well");
}

/// An accesser that makes the key for another user than it is asked to, for the caller say: no listing of ours ever shows that key, and
/// rekeyd may not take it away. It is named until somebody has, and no other is made beside it.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_went_to_another_user_is_named_until_it_is_gone() {
    let story = Story::new().await;
    tokio::task::spawn_blocking(move || {
        let daemon = story.scene.start();
        story.adopt();
        story.ibm.set_options(|options| {
            options.listing_lag = Duration::ZERO;
            options.made_for = Some("rotator".to_owned());
        });
        let ran = story.scene.run(&["rotate", SERVICE, "--wait"]);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        let astray = story.ibm.keys(PROJECT, "rotator")[0].access.clone();
        let named = format!("access key {astray}, which this rotation asked for, is there as another user's");
        let is_named = || {
            let halted = story.service();
            assert_eq!((story.ibm.mints(), story.sent("CreateCredential")), (1, 1), "{halted}");
            let says_so = halted["message"].as_str().is_some_and(|said| said.contains(&named));
            (halted["state"] == "halted" && says_so).then(|| halted["phase"].clone())
        };
        assert_eq!(is_named().expect("it is halted"), "minting");
        // The first retry settles the intent, which no listing shows a key for; those after it begin with a new one.
        for _ in 0..2 {
            let ran = story.scene.run(&["retry", SERVICE]);
            assert_eq!(ran.code, Some(0), "{ran:?}");
            let opened = || is_named().filter(|phase| phase == "opened");
            wait_until_or("it is halted again", opened, || format!("{}\n{:#?}", story.service(), story.history()));
        }
        story.ibm.set_options(|options| options.made_for = None);
        story.ibm.delete_key(&astray);
        let ran = story.scene.run(&["retry", SERVICE]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        story.wait_done(1);
        assert_eq!((story.ibm.mints(), story.ibm.keys(PROJECT, "rotator").len()), (2, 0));
        drop(daemon);
        story.ends_well();
    })
    .await
    .expect("it ends well");
}

/// A password that somebody changed stops the service with a word, and goes on when it is right again.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_halts_until_the_password_is_right() {
    let story = Story::new().await;
    tokio::task::spawn_blocking(move || {
        let daemon = story.scene.start();
        story.adopt();
        story.ibm.set_password("changed-by-somebody-else");
        let ran = story.scene.run(&["rotate", SERVICE, "--wait"]);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        let halted = story.service();
        assert_eq!(
            (halted["state"].as_str(), halted["reason"].as_str()),
            (Some("halted"), Some("login-refused")),
            "{halted}"
        );
        let next = halted["next_command"].as_str().expect("a command");
        assert!(
            next.starts_with("correct the login named above") && next.ends_with(&format!("rekeyd retry {SERVICE}")),
            "{next}"
        );
        assert_eq!(story.ibm.refused_logins(), 1, "one wrong password is enough");
        story.scene.write_secret("ibm-password", &story.ibm.login().1);
        let ran = story.scene.run(&["retry", SERVICE]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        wait_until("the halt is over", || story.service()["state"] == "idle");
        let ran = story.scene.run(&["rotate", SERVICE, "--wait=done"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        drop(daemon);
        story.ends_well();
    })
    .await
    .expect("it ends well");
}
