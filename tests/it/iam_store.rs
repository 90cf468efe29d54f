//! A store of somebody's own that speaks IAM as AWS does, and has no STS and no report of the last use (`sts = false`,
//! `last_used = false`): the contract of an issuer, a rotation with the real program, and what is told where the policy does not say
//! what the store lacks. Its S3, and that of one AWS here, is `s3s`, which judges our signatures and is written by others.

use std::sync::Arc;
use std::time::Duration;

use rekeyd::model::{AccountIdentity, IntentId, KeyId, Material, Reason, Secret, Shape};
use rekeyd::ports::{Fault, Issuer, LastUse, Listing, Probe};
use rekeyd_lab::s3::S3Store;
use rekeyd_lab::{ArcGis, ArcGisOptions, Aws, AwsOptions, Fault as Mishap, ServiceSpec, StoredCredential};
use serde_json::Value;

use super::contract::{self, Operation};
use super::moto::connect_at;
use super::support::{Daemon, SERVICE, Scene, wait_until_or};

const BUCKET: &str = "gis-store";
/// What its `[aws.NAME]` says of a store that lacks both.
const LACKING: &str = "sts = false\nlast_used = false\n";

#[tokio::test]
async fn a_store_keeps_the_contract_of_every_kind() {
    contract::suite(&World::start(lacking(), LACKING).await).await;
}

/// The same suite at AWS, with the bucket's signature judged by a library.
#[tokio::test]
async fn aws_keeps_the_contract_where_a_library_judges_the_signature() {
    let world = World::start(AwsOptions::default(), "").await;
    contract::suite(&world).await;
    let looks = world.s3.requests();
    assert!(!looks.is_empty() && looks.iter().all(|line| line.status == 200), "STS refuses first: {looks:?}");
}

#[tokio::test]
async fn a_key_is_proven_at_its_bucket_alone() {
    let world = World::start(lacking(), LACKING).await;
    world.aws.set_propagation(Duration::from_secs(3600));
    let issuer = contract::World::issuer(&world);
    let minted = issuer.mint(&IntentId::new("intent"), None).await.expect("mints");
    assert!(
        matches!(issuer.probe(&minted.material).await, Ok(Probe::NotYet(why)) if why.contains("InvalidAccessKeyId"))
    );
    world.aws.set_propagation(Duration::ZERO);
    assert_eq!(issuer.probe(&minted.material).await, Ok(Probe::Works));
    let wrong = pair(minted.material.key(), "0000000000000000000000000000000000000000");
    assert!(matches!(issuer.probe(&wrong).await, Ok(Probe::Wrong(why)) if why.contains("SignatureDoesNotMatch")));
    world.s3.deny(BUCKET);
    assert!(
        matches!(issuer.probe(&minted.material).await, Ok(Probe::NotAllowed(why)) if why.contains("s3:ListBucket"))
    );
    issuer.disable(minted.material.key()).await.expect("disables");
    assert!(matches!(issuer.probe(&minted.material).await, Ok(Probe::NotYet(_))));
    assert_eq!(issuer.last_use(minted.material.key()).await, Ok(LastUse::Untold));
    issuer.enable(minted.material.key()).await.expect("enables");
    let nowhere = connect_at(&world.aws.endpoint(), &world.account(), "store", world.aws.admin(), "nowhere", "read");
    let missing = nowhere.probe(&minted.material).await;
    assert!(matches!(missing, Err(Fault::Refused { reason: Reason::NotFound, .. })), "{missing:?}");
    let asked: Vec<String> = world.aws.requests().into_iter().map(|line| line.operation).collect();
    assert_eq!(
        asked,
        ["CreateAccessKey", "UpdateAccessKey", "UpdateAccessKey"],
        "neither STS nor the last use is asked for"
    );
}

#[tokio::test]
async fn a_bucket_that_does_not_answer_says_nothing_of_the_key() {
    let world = World::start(lacking(), LACKING).await;
    let (issuer, key) = (contract::World::issuer(&world), world.aws.keys("store").remove(0));
    let material = pair(&KeyId::new(&key.id), &world.aws.secret_of(&key.id).expect("it was made here"));
    for (mishap, expected) in [
        (Mishap::Throttle, "retry"),
        (Mishap::Error(500), "unknown"),
        (Mishap::DropBefore, "unknown"),
        (Mishap::Html, "unknown"),
        (Mishap::Redirect("https://login.example.com/".to_owned()), "unknown"),
    ] {
        let sent = world.s3.requests().len();
        world.s3.fault("ListObjectsV2", mishap.clone());
        let fault = issuer.probe(&material).await.expect_err("no answer");
        assert_eq!(fault.outcome(), expected, "{mishap:?}: {fault:?}");
        assert_eq!(world.s3.requests().len(), sent + 1, "{mishap:?}");
    }
    assert_eq!(issuer.probe(&material).await, Ok(Probe::Works));
}

/// Two stores with one account name, and one user who was deleted and made anew: the user's own id tells.
#[tokio::test]
async fn another_store_is_another_account_though_both_call_it_the_same() {
    let (one, other) = (World::start(lacking(), LACKING).await, World::start(lacking(), LACKING).await);
    let identity = async |world: &World| contract::World::issuer(world).identity().await.expect("answers");
    let told = identity(&one).await;
    assert!(told.as_str().starts_with("aws:111122223333/AIDA"), "{told}");
    assert_eq!(identity(&one).await, told);
    assert_ne!(identity(&other).await, told);
    one.aws.set_account_id("999988887777");
    let id = told.as_str().rsplit('/').next().expect("a user's id");
    assert_eq!(identity(&one).await, AccountIdentity::new(format!("aws:999988887777/{id}")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_at_a_store_without_sts_and_last_use() {
    let story = Story::start().await;
    let told = tokio::task::spawn_blocking(move || {
        let scene = &story.scene;
        let policy = story.policy(LACKING);
        std::fs::write(scene.policy(), &policy).expect("the policy can be written");
        let daemon = scene.start();
        // Nobody tells whether its only key is used, so it is not taken for the one in use.
        let halted = scene.wait_for("reason", "no-current-key");
        assert!(halted["message"].as_str().is_some_and(|said| said.contains("has not been seen in use")), "{halted}");
        scene.adopt();
        let ran = scene.run(&["doctor"]);
        assert!(ran.out.contains("this provider does not tell when a key was used"), "{ran:?}");
        story.rotates(&daemon);
        let asked: Vec<String> = scene.aws.requests().into_iter().map(|line| line.operation).collect();
        for lacking in ["GetCallerIdentity", "GetAccessKeyLastUsed", "S3Get"] {
            assert!(!asked.iter().any(|operation| operation == lacking), "{lacking} was asked for");
        }
        assert!(asked.iter().any(|operation| operation == "GetUser"));
        assert_eq!(daemon.stop().code(), Some(0));
        let ledger = scene.run(&["ledger", "verify"]);
        assert_eq!(ledger.code, Some(0), "{ledger:?}");
        scene.assert_no_secret_seen();
        story
    });
    let story = told.await.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()));
    let (old, held) =
        (&story.scene.first_key.0, story.arcgis.held_key(PLACE).map(|(id, _)| id).expect("a key is held"));
    let keys = story.scene.aws.keys(USER);
    assert_eq!((keys.len(), keys[0].active, &keys[0].id), (1, true, &held), "one live key, and it is the held one");
    assert_ne!(&held, old);
    let consumer = story.arcgis.consumer(PLACE);
    assert_eq!((consumer.refusals, consumer.healthy), (0, true), "{consumer:?}");
    assert_eq!(consumer.last_good_key.as_ref(), Some(&held));
    let looks = story.s3.requests();
    let with = |key: &String| looks.iter().filter(|line| line.access_key_id == *key && line.status == 200).count();
    assert!(with(&held) >= 2, "the new key is tried at its bucket: {looks:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_sts_that_is_written_off_later_is_another_account() {
    let story = Story::at(AwsOptions::default()).await;
    let told = tokio::task::spawn_blocking(move || {
        let scene = &story.scene;
        std::fs::write(scene.policy(), story.policy("last_used_lag = \"0s\"")).expect("the policy can be written");
        assert_eq!(scene.start_adopted().stop().code(), Some(0));
        std::fs::write(scene.policy(), story.policy("sts = false")).expect("the policy can be written");
        let daemon = scene.start();
        let ran = scene.run(&["rotate", SERVICE, "--wait=done"]);
        assert_ne!(ran.code, Some(0), "{ran:?}");
        let halted = scene.wait_for("reason", "account-changed");
        assert!(halted["message"].as_str().is_some_and(|said| said.contains("/AIDA")), "{halted}");
        assert_eq!(scene.aws.mints(), 0);
        assert_eq!(daemon.stop().code(), Some(0));
        std::fs::write(scene.policy(), story.policy("last_used_lag = \"0s\"")).expect("the policy can be written");
        let daemon = scene.start();
        let ran = scene.run(&["retry", SERVICE]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        scene.wait_done(1);
        assert_eq!(daemon.stop().code(), Some(0));
    });
    told.await.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()));
}

/// What the policy forgot to say is in the message, with the words to write.
#[tokio::test(flavor = "multi_thread")]
async fn doctor_tells_what_a_policy_forgot_to_say_of_its_store() {
    let story = Story::start().await;
    let told = tokio::task::spawn_blocking(move || {
        let doctor = |account: &str| {
            std::fs::write(story.scene.policy(), story.policy(account)).expect("the policy can be written");
            story.scene.run(&["doctor"])
        };
        let ran = doctor("");
        assert!(ran.code != Some(0) && ran.out.contains("if this store has no STS, say sts = false"), "{ran:?}");
        let ran = doctor("sts = false");
        let said = "if this store does not tell the last use of a key, say last_used = false";
        assert!(ran.code != Some(0) && ran.out.contains(said), "{ran:?}");
        let ran = doctor(LACKING);
        assert!(!ran.out.contains("say last_used = false"), "{ran:?}");
    });
    told.await.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()));
}

// ---- the noise ----

fn lacking() -> AwsOptions {
    AwsOptions { sts: false, last_used: false, ..AwsOptions::default() }
}

fn pair(id: &KeyId, secret: &str) -> Material {
    Material::AccessKey { id: id.clone(), secret: Secret::new(secret.to_owned()) }
}

/// An account with user `store`, who has one key, and a store of its own for the bucket.
struct World {
    aws: Aws,
    s3: S3Store,
    more: &'static str,
}

impl World {
    async fn start(options: AwsOptions, more: &'static str) -> Self {
        let aws = Aws::start(options).await;
        aws.add_user("store");
        aws.create_key("store");
        let s3 = S3Store::start(aws.lookup()).await;
        s3.add_bucket(BUCKET);
        s3.set_region("us-east-1");
        Self { aws, s3, more }
    }

    /// More of the account's table.
    fn account(&self) -> String {
        format!("s3_endpoint_url = \"{}\"\n{}", self.s3.url(), self.more)
    }
}

impl contract::World for World {
    fn issuer(&self) -> Arc<dyn Issuer> {
        connect_at(&self.aws.endpoint(), &self.account(), "store", self.aws.admin(), BUCKET, "read")
    }

    fn shape(&self) -> Shape {
        Shape::ShownOnce
    }

    fn tells_use(&self) -> bool {
        self.more.is_empty()
    }

    fn in_use(&self, listing: &Listing) -> KeyId {
        listing.keys[0].id.clone()
    }

    fn request(&self, operation: Operation) -> &'static str {
        match operation {
            Operation::Identity if self.more.is_empty() => "GetCallerIdentity",
            Operation::Identity => "GetUser",
            Operation::List => "ListAccessKeys",
            Operation::Mint => "CreateAccessKey",
            Operation::Delete => "DeleteAccessKey",
        }
    }

    fn fault(&self, request: &str, mishap: Mishap) {
        self.aws.fault(request, mishap);
    }

    fn sent(&self, request: &str) -> usize {
        self.aws.requests().iter().filter(|line| line.operation == request).count()
    }

    fn allow(&self, operation: Operation, yes: bool) -> String {
        let action = format!("iam:{}", contract::World::request(self, operation));
        match yes {
            true => self.aws.allow(&action),
            false => self.aws.deny(&action),
        }
        action
    }
}

const USER: &str = super::support::USER;
/// The cloud service of the story.
const PLACE: &str = "ecsstore01";
/// As the store calls the region of its IAM, and that of its buckets (no capitals there: `s3s` takes none).
const REGIONS: [&str; 2] = ["RegionOne", "default"];

/// A store that lacks both and calls its region as it likes, an ArcGIS that reads there, and the program.
struct Story {
    scene: Scene,
    s3: S3Store,
    arcgis: ArcGis,
}

impl Story {
    async fn start() -> Story {
        Story::at(lacking()).await
    }

    async fn at(options: AwsOptions) -> Story {
        let scene =
            Scene::with(AwsOptions { iam_region: REGIONS[0].to_owned(), ..options }, ArcGisOptions::default()).await;
        let s3 = S3Store::start(scene.aws.lookup()).await;
        s3.add_bucket(BUCKET);
        s3.set_region(REGIONS[1]);
        let arcgis = ArcGis::start_at(ArcGisOptions::default(), &s3.url()).await;
        arcgis.add_provider("betc4g098c", "AWS", None);
        let (access_key, secret_key) = scene.first_key.clone();
        let held = StoredCredential { access_key, secret_key };
        let service = ServiceSpec::new(PLACE, "betc4g098c", BUCKET);
        arcgis.add_service_with(ServiceSpec { region: REGIONS[1].to_owned(), credential: Some(held), ..service });
        Story { scene, s3, arcgis }
    }

    fn rotates(&self, daemon: &Daemon<'_>) {
        let scene = &self.scene;
        let ran = scene.run(&["rotate", SERVICE, "--wait=done"]);
        assert_eq!(ran.code, Some(0), "{ran:?}\n{}", daemon.log());
        scene.wait_done(1);
        let ran = scene.run(&["history", SERVICE, "--json"]);
        let history: Vec<Value> = serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
        let mut events = history.iter().filter_map(|line| line["event"].as_str());
        for verb in [
            "opened",
            "mint_begun",
            "minted",
            "probe_passed",
            "push_begun",
            "verified",
            "disabled",
            "deleted",
            "closed",
        ] {
            assert!(events.any(|event| event == verb), "{verb} is missing or out of place: {}", ran.out);
        }
        let looked = || (self.arcgis.consumer(PLACE).requests > 20).then_some(());
        wait_until_or("the consumer reads", looked, || format!("{:?}", self.arcgis.consumer(PLACE)));
    }

    fn policy(&self, account: &str) -> String {
        let home = self.scene.path("").display().to_string();
        let home = home.trim_end_matches('/');
        let (iam, s3, admin) = (self.scene.aws.endpoint(), self.s3.url(), self.scene.aws.admin().0);
        let admin_url = self.arcgis.admin_url();
        format!(
            r#"version = 1

[daemon]
journal = "sqlite:{home}/state/journal.db"
control = "{home}/control.sock"
listen = "off"

[aws.main]
region = "{}"
endpoint_url = "{iam}"
s3_endpoint_url = "{s3}"
access_key_id = "{admin}"
secret_access_key = {{ file = "{home}/aws-secret" }}
settle = "300ms"
request_timeout = "5s"
{account}

[arcgis.prod]
product = "kubernetes"
admin_url = "{admin_url}"
username = "rotator"
password = {{ file = "{home}/arcgis-password" }}
poll = "50ms"
readback = "5s"

[[service]]
name = "{SERVICE}"
propagation = "0s"
probes = 2
probe_interval = "50ms"
soak = "300ms"
soak_unproven = "300ms"
watch = "300ms"
observe = "1s"

  [service.issuer]
  kind = "aws-iam"
  account = "main"
  user = "{USER}"
  probe = {{ bucket = "{BUCKET}", region = "{}" }}

  [[service.target]]
  kind = "arcgis"
  deployment = "prod"
  service_id = "{PLACE}"
"#,
            REGIONS[0], REGIONS[1]
        )
    }
}
