//! The daemon is killed as by a power cut, in every phase of a rotation, and started again: it continues or undoes, never mints
//! twice for one intent, never loses a key, and no consumer notices.
//!
//! Each story holds the real process in one phase, by an answer that takes long or a job that does, and ends it there. What must
//! hold afterwards is the same for all, and stands in [`Story::ends_well`].

use std::time::Duration;

use rekeyd_lab::{ArcGisOptions, AwsOptions, Fault, RequestLine};
use serde_json::Value;

use super::support::{CLOUD_SERVICE, Daemon, PolicyText, SERVICE, Scene, USER, wait_until, wait_until_or};

/// An answer that comes after the process is dead.
const NEVER: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_the_mint() {
    // The first listing of the order is the survey's, the second the one just before the mint.
    story(|story| story.killed_while_aws_answers("ListAccessKeys", 2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_during_the_mint_of_an_exclusive_user() {
    story(|story| {
        story.exclusive();
        story.killed_while_aws_answers("CreateAccessKey", 1);
        story.recovered();
        assert_eq!(story.scene.aws.mints(), 2, "the lost key and the one in its place");
        let history = story.history();
        assert_eq!(count(&history, "mint_begun"), 2);
        assert!(has(&history, "mint_settled", "which is destroyed"), "{history:#?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_during_the_mint_of_a_shared_user() {
    story(|story| {
        story.killed_while_aws_answers("CreateAccessKey", 1);
        let _daemon = story.scene.start();
        let halted = story.scene.wait_for("state", "halted");
        let lost = story.key_besides_the_first();
        assert_eq!(halted["reason"], "mint-unsettled", "{halted}");
        assert_eq!(halted["strangers"], serde_json::json!([lost]));
        let said = halted["message"].as_str().expect("a message");
        assert!(said.contains(&lost) && said.contains("nothing proves that rekeyd made it"), "{said}");
        assert!(
            halted["next_command"].as_str().is_some_and(|next| next.contains(&format!("reclaim {SERVICE} {lost}")))
        );
        assert_eq!(story.scene.aws.mints(), 1, "nothing is minted while one is unsettled");
        assert_eq!(story.scene.aws.keys(USER).len(), 2, "nothing is destroyed without a word");

        let ran = story.scene.run(&["reclaim", SERVICE, &lost]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        story.scene.wait_done(1);
        assert_eq!(story.scene.aws.mints(), 2);
        assert!(story.scene.aws.keys(USER).iter().all(|key| key.id != lost), "the lost key is gone");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_just_after_minted() {
    story(|story| {
        story.edit("propagation = \"0s\"", "propagation = \"3s\"");
        story.killed_after("minted");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_probing() {
    story(|story| story.killed_while_aws_answers("S3Get", 2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_during_the_push() {
    story(|story| story.killed_while_arcgis_answers("credential/update", 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_the_job_runs() {
    story(|story| {
        story.scene.arcgis.set_job_duration(Duration::from_secs(3));
        story.killed_after("submitted");
    })
    .await;
}

/// Who ordered the rotation and waits for it sees the daemon die, and the next one end what was begun.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_rotation_waits_through_a_kill() {
    story(|story| {
        story.scene.arcgis.set_job_duration(Duration::from_secs(3));
        story.ready();
        let ran = std::thread::scope(|scope| {
            let scene = &story.scene;
            let waits = scope.spawn(|| scene.run(&["rotate", SERVICE, "--wait"]));
            story.wait_for_event("submitted");
            story.daemon.take().expect("a daemon runs").kill9();
            story.daemon = Some(scene.start());
            waits.join().expect("it ends by itself")
        });
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(
            ran.err.contains("the daemon ended before the rotation did; it goes on when the daemon is back"),
            "{ran:?}"
        );
        assert!(ran.out.contains(&format!("{SERVICE}: verified, every target holds key ")), "{ran:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_the_read_back() {
    story(|story| {
        story.scene.arcgis.set_job_duration(Duration::from_secs(2));
        story.order();
        story.wait_for_event("submitted");
        // From here to the read-back only the job is asked for.
        story.scene.arcgis.fault("services", Fault::Slow(NEVER));
        story.wait_for_event("confirmed");
        story.kill();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_soaking() {
    story(|story| {
        story.edit("soak = \"300ms\"", "soak = \"3s\"");
        story.killed_after("verified");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_evidence_is_gathered() {
    // Of the survey, the plan, and then the evidence before the old key is disabled.
    story(|story| story.killed_while_aws_answers("ListAccessKeys", 3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_during_the_disabling() {
    story(|story| story.killed_while_aws_answers("UpdateAccessKey", 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_watching() {
    story(|story| {
        story.edit("watch = \"300ms\"", "watch = \"3s\"");
        story.killed_after("disabled");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_during_the_deletion() {
    story(|story| story.killed_while_aws_answers("DeleteAccessKey", 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_the_two_listings_that_prove_it_gone() {
    story(|story| {
        story.edit("settle = \"300ms\"", "settle = \"3s\"");
        story.killed_after("absent_once");
    })
    .await;
}

/// No phase in particular: every few hundred milliseconds, wherever it is, until the rotation is through all the same.
#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again() {
    story(|story| {
        story.exclusive();
        story.edit("settle = \"300ms\"", "settle = \"600ms\"");
        story.scene.arcgis.set_job_duration(Duration::from_millis(700));
        story.order();
        let mut kills = 0;
        while count(&story.history(), "closed") == 0 {
            assert!(kills < 60, "{:#?}", story.history());
            // Long enough for a step or two, and never twice the same.
            std::thread::sleep(Duration::from_millis(120 + 37 * (kills % 11)));
            story.kill();
            story.daemon = Some(story.scene.start());
            kills += 1;
        }
        assert!(kills > 2, "it was too quick to be killed");
    })
    .await;
}

// ---- the noise ----

/// One scene and its daemon, in a thread of its own: its waiting must not hold up the lab.
struct Story<'s> {
    scene: &'s Scene,
    daemon: Option<Daemon<'s>>,
    /// Requests before the order.
    before: (usize, usize),
}

/// Sets the scene, adopts the first key, tells the story, and looks whether everything ended well.
async fn story(tell: impl FnOnce(&mut Story<'_>) + Send + 'static) {
    let arcgis = ArcGisOptions { job_duration: Duration::from_millis(300), ..ArcGisOptions::default() };
    let scene = Scene::with(AwsOptions::default(), arcgis).await;
    let told = tokio::task::spawn_blocking(move || {
        scene.write_policy(&PolicyText::default());
        let mut story = Story { scene: &scene, daemon: None, before: (0, 0) };
        // Only the rotation asks for anything, so that its requests can be counted.
        story.edit("observe = \"1s\"", "observe = \"1h\"");
        tell(&mut story);
        story.ends_well();
    });
    if let Err(failed) = told.await {
        std::panic::resume_unwind(failed.into_panic());
    }
}

impl<'s> Story<'s> {
    /// Changes the policy; before the daemon is started.
    fn edit(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.scene.policy()).expect("the policy is there");
        assert!(text.contains(from), "{from} is not in the policy");
        std::fs::write(self.scene.policy(), text.replace(from, to)).expect("it can be written");
    }

    /// Lets every key of the user be rekeyd's.
    fn exclusive(&self) {
        self.edit("kind = \"aws-iam\"", "kind = \"aws-iam\"\n  exclusive = true");
    }

    /// Starts a daemon that knows the first key, waits until it has nothing to do, and orders a rotation.
    fn order(&mut self) {
        self.ready();
        self.rotate();
    }

    fn ready(&mut self) {
        self.daemon = Some(self.scene.start_adopted());
        let mut seen = (self.requests(), std::time::Instant::now());
        wait_until("nothing is asked any more", || {
            if self.requests() != seen.0 {
                seen = (self.requests(), std::time::Instant::now());
            }
            seen.1.elapsed() > Duration::from_millis(400)
        });
        self.before = seen.0;
    }

    fn rotate(&self) {
        let ran = self.scene.run(&["rotate", SERVICE]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }

    fn requests(&self) -> (usize, usize) {
        (self.scene.aws.requests().len(), self.scene.arcgis.requests().len())
    }

    /// Rotates, and kills while AWS keeps the answer to the `nth` of these requests to itself. It was carried out.
    fn killed_while_aws_answers(&mut self, operation: &str, nth: usize) {
        self.ready();
        for _ in 1..nth {
            self.scene.aws.fault(operation, Fault::Slow(Duration::ZERO));
        }
        self.scene.aws.fault(operation, Fault::Slow(NEVER));
        self.rotate();
        let before = self.before.0;
        wait_until("the request is there", || asked(&self.scene.aws.requests()[before..], operation) == nth);
        self.kill();
    }

    /// The same of ArcGIS.
    fn killed_while_arcgis_answers(&mut self, operation: &str, nth: usize) {
        self.ready();
        for _ in 1..nth {
            self.scene.arcgis.fault(operation, Fault::Slow(Duration::ZERO));
        }
        self.scene.arcgis.fault(operation, Fault::Slow(NEVER));
        self.rotate();
        let before = self.before.1;
        wait_until("the request is there", || asked(&self.scene.arcgis.requests()[before..], operation) == nth);
        self.kill();
    }

    /// Rotates, and kills when this event stands in the journal.
    fn killed_after(&mut self, event: &str) {
        self.order();
        self.wait_for_event(event);
        self.kill();
        assert_eq!(count(&self.history(), "closed"), 0, "it was through before it was killed");
    }

    fn wait_for_event(&self, event: &str) {
        let what = format!("the journal has {event}");
        let look = || (count(&self.history(), event) > 0).then_some(());
        wait_until_or(&what, look, || self.scene.service().to_string());
    }

    /// SIGKILL. What is still held back is let go: nobody waits for it any more.
    fn kill(&mut self) {
        self.daemon.take().expect("a daemon runs").kill9();
        self.scene.aws.clear_faults();
        self.scene.arcgis.clear_faults();
    }

    /// Starts again, if that has not been done, and waits until the rotation is through.
    fn recovered(&mut self) {
        if self.daemon.is_none() {
            self.daemon = Some(self.scene.start());
        }
        let look = || {
            let service = self.scene.service();
            (service["rotations"]["done"] == 1 && service["state"] == "idle").then_some(())
        };
        wait_until_or("the rotation is done", look, || format!("{}\n{:#?}", self.scene.service(), self.history()));
    }

    fn history(&self) -> Vec<Value> {
        let ran = self.scene.run(&["history", SERVICE, "--json"]);
        serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
    }

    fn key_besides_the_first(&self) -> String {
        let keys = self.scene.aws.keys(USER);
        let other = keys.iter().find(|key| key.id != self.scene.first_key.0);
        other.unwrap_or_else(|| panic!("only the first key: {keys:?}")).id.clone()
    }

    /// One rotation is done, one key lives and it is the held one, nobody was refused, nothing was minted but on an intent,
    /// the journal knows every key there ever was and verifies, and the next rotation goes through as well.
    fn ends_well(&mut self) {
        self.recovered();
        self.is_sound();
        assert_eq!(count(&self.history(), "closed"), 1, "one rotation, not two: {:#?}", self.history());
        let ran = self.scene.run(&["rotate", SERVICE, "--wait=done"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        self.is_sound();
    }

    fn is_sound(&self) {
        let scene = self.scene;
        scene.assert_one_live_key();
        let history = self.history();
        let (mints, intents) = (scene.aws.mints(), count(&history, "mint_begun"));
        assert!(mints <= intents, "{mints} mints of {intents} intents: {history:#?}");
        let held = scene.arcgis.held_key(CLOUD_SERVICE).map(|(id, _)| id);
        assert_eq!(scene.service()["current_key"].as_str(), held.as_deref());
        let rotator = scene.aws.admin().0;
        for key in scene.aws.all_key_ids().iter().filter(|key| **key != rotator) {
            let is_gone = has(&history, "gone", key);
            assert!(is_gone || Some(key) == held.as_ref(), "key {key} is lost: {history:#?}");
        }
        let ledger = scene.run(&["ledger", "verify"]);
        assert_eq!(ledger.code, Some(0), "{ledger:?}");
        assert_eq!(scene.service()["debt"], serde_json::json!([]));
    }
}

fn asked(requests: &[RequestLine], operation: &str) -> usize {
    requests.iter().filter(|line| line.operation == operation).count()
}

fn count(history: &[Value], event: &str) -> usize {
    history.iter().filter(|line| line["event"] == event).count()
}

fn has(history: &[Value], event: &str, text: &str) -> bool {
    history.iter().any(|line| line["event"] == event && line["text"].as_str().is_some_and(|said| said.contains(text)))
}
