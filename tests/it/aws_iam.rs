//! The contract of an issuer, as `aws-iam` keeps it: the suite of every kind, and one that knows IAM, run on the lab and on moto.
//!
//! The lab is always there. moto is real in another way, written by others from the same documents: it runs when `REKEYD_MOTO` names a
//! server that `tests/moto_strict.py --propagate 2` started (`tests/run` does that); else its test says so and passes. What only a
//! lab can do on demand (a lost reply, a throttle, pages, another region) has its own tests below.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rekeyd::model::{AccountIdentity, IntentId, KeyId, Material, Reason, Secret, Shape};
use rekeyd::ports::{Fault, Issuer, LastUse, Listing, MintedKey, Probe};
use rekeyd_lab::{ArcGis, ArcGisOptions, Aws, AwsOptions, Fault as Mishap};

use super::contract::{self, Operation};
use super::moto::{Moto, PROPAGATION, Pair, connect_at, moto};

/// An AWS with these in it: user `store`, who may list every bucket and has one key that was never used; user `idle`, who may do
/// nothing and has none; bucket `gis-store`; the rotator, who may do `iam:*`; and `weak`, who may not.
#[async_trait]
trait World: Sync {
    fn endpoint(&self) -> String;
    fn account(&self) -> &str;
    fn rotator(&self) -> Pair;
    fn weak(&self) -> Pair;
    /// Waits, or sees to it, until the keys minted so far are known everywhere. Before that no fresh key is.
    async fn propagate(&self);
    /// From here on a fresh key is unknown again.
    fn stay_fresh(&self);
}

async fn suite(world: &dyn World) {
    let store = connect(world, "store", world.rotator(), "gis-store", "read");

    // Whose account it is, what is there.
    assert_eq!(store.identity().await, Ok(AccountIdentity::new(format!("aws:{}", world.account()))));
    let before = store.list().await.expect("lists");
    assert_eq!((before.keys.len(), before.keys[0].active, before.quota), (1, true, Some(2)));
    assert!(before.date.is_some() && before.keys[0].created.is_some());
    let existing = before.keys[0].id.clone();
    assert_eq!(store.last_use(&existing).await, Ok(LastUse::Never));

    // A second key fits, a third does not, and the refusal makes none.
    world.stay_fresh();
    let minted = mint(&store).await.expect("mints");
    let new = minted.material.key().clone();
    assert!(minted.created.is_some());
    assert_eq!(ids(&store).await, [existing.clone(), new.clone()]);
    refused(mint(&store).await, Reason::Quota, "LimitExceeded");
    assert_eq!(ids(&store).await.len(), 2);

    // A fresh key is not yet known, then it works; nothing else about it does.
    assert!(matches!(store.probe(&minted.material).await, Ok(Probe::NotYet(_))), "a fresh key is known at once");
    world.propagate().await;
    assert_eq!(store.probe(&minted.material).await, Ok(Probe::Works));
    let wrong = pair(&new, "0000000000000000000000000000000000000000");
    let said = store.probe(&wrong).await;
    assert!(matches!(said, Ok(Probe::Wrong(_))), "{said:?}");
    let nowhere = connect(world, "store", world.rotator(), "nowhere", "read");
    refused(nowhere.probe(&minted.material).await, Reason::NotFound, "NoSuchBucket");
    let LastUse::At { by, .. } = store.last_use(&new).await.expect("answers") else { panic!("used just now") };
    assert!(by.contains("s3"), "{by}");

    // Another user's key: without the bucket's right, enough where only authentication is expected, and not this user's.
    let idle = connect(world, "idle", world.rotator(), "gis-store", "read");
    let other = mint(&idle).await.expect("mints").material;
    world.propagate().await;
    assert!(matches!(idle.probe(&other).await, Ok(Probe::NotAllowed(why)) if why.contains("s3:ListBucket")));
    let lenient = connect(world, "idle", world.rotator(), "gis-store", "authenticates");
    assert_eq!(lenient.probe(&other).await, Ok(Probe::Works));
    assert!(matches!(store.probe(&other).await, Ok(Probe::Wrong(why)) if why.contains("belongs to idle")));

    // Disabled and enabled, both as often as one likes.
    for _ in 0..2 {
        assert_eq!(store.disable(&new).await, Ok(()));
        assert!(matches!(store.probe(&minted.material).await, Ok(Probe::NotYet(_))));
    }
    let listed = store.list().await.expect("lists");
    assert_eq!(listed.keys.iter().find(|key| key.id == new).map(|key| key.active), Some(false));
    for _ in 0..2 {
        assert_eq!(store.enable(&new).await, Ok(()));
        assert_eq!(store.probe(&minted.material).await, Ok(Probe::Works));
    }

    // Deleted, again as often as one likes; what is not there cannot be disabled.
    for _ in 0..2 {
        assert_eq!(store.delete(&new).await, Ok(()));
        assert_eq!(ids(&store).await, std::slice::from_ref(&existing));
    }
    refused(store.disable(&new).await, Reason::NotFound, "disable key");
    refused(store.enable(&new).await, Reason::NotFound, "enable key");
    assert!(matches!(store.probe(&minted.material).await, Ok(Probe::NotYet(_))));

    // What the rotator may not, is not, or has wrong, is told apart; and none of it made a key.
    let weak = connect(world, "store", world.weak(), "gis-store", "read");
    refused(mint(&weak).await, Reason::MissingRight, "the rotator needs iam:CreateAccessKey on iam user store");
    let nobody = connect(world, "nobody", world.rotator(), "gis-store", "read");
    refused(nobody.list().await, Reason::NotFound, "iam user nobody");
    refused(mint(&nobody).await, Reason::NotFound, "iam user nobody");
    let mistyped = (world.rotator().0, "mistyped".to_owned());
    let mistyped = connect(world, "store", mistyped, "gis-store", "read");
    refused(mint(&mistyped).await, Reason::LoginRefused, "the rotator's own credentials");
    refused(mistyped.identity().await, Reason::LoginRefused, "the rotator's own credentials");
    assert_eq!(ids(&store).await, [existing]);
}

#[tokio::test]
async fn a_user_keeps_the_contract_of_every_kind() {
    contract::suite(&Lab::start(AwsOptions::default()).await).await;
}

#[tokio::test]
async fn the_lab_keeps_the_contract() {
    suite(&Lab::start(AwsOptions::default()).await).await;
}

#[tokio::test]
async fn moto_keeps_the_contract() {
    if let Some(moto) = moto().await {
        suite(&Peer(moto)).await;
    }
}

/// What went wrong, what a mint makes of it, and whether a key came of it all the same.
#[tokio::test]
async fn a_mint_that_goes_wrong_is_sent_once_and_never_called_harmless() {
    for (mishap, keys) in [
        (Mishap::LostReply, 1),
        (Mishap::ErrorAfterCommit(500), 1),
        (Mishap::ErrorAfterCommit(503), 1),
        (Mishap::DropBefore, 0),
        (Mishap::Error(500), 0),
        (Mishap::Html, 0),
        (Mishap::Redirect("https://login.example.com/".to_owned()), 0),
    ] {
        let lab = Lab::start(AwsOptions::default()).await;
        let store = connect(&lab, "store", lab.rotator(), "gis-store", "read");
        lab.aws.fault("CreateAccessKey", mishap.clone());
        let fault = mint(&store).await.expect_err("no clean answer");
        assert!(matches!(fault, Fault::Unknown(_)), "{mishap:?}: {fault:?}");
        assert_eq!(lab.aws.mints(), keys, "{mishap:?}");
        assert_eq!(lab.asked(), ["CreateAccessKey"], "{mishap:?}");
        assert_eq!(lab.aws.keys("store").len(), 1 + keys, "{mishap:?}");
    }
}

#[tokio::test]
async fn a_mint_that_times_out_is_unknown_and_its_key_is_there() {
    let lab = Lab::start(AwsOptions::default()).await;
    let account = "request_timeout = \"200ms\"";
    let store = connect_at(&lab.endpoint(), account, "store", lab.rotator(), "gis-store", "read");
    lab.aws.fault("CreateAccessKey", Mishap::Slow(Duration::from_secs(60)));
    assert!(matches!(mint(&store).await, Err(Fault::Unknown(why)) if why.ends_with("no answer in time")));
    assert_eq!(lab.aws.mints(), 1);
}

#[tokio::test]
async fn nothing_is_asked_twice() {
    let lab = Lab::start(AwsOptions::default()).await;
    let store = connect(&lab, "store", lab.rotator(), "gis-store", "read");
    let key = KeyId::new(&lab.aws.keys("store")[0].id);
    let mut expected = Vec::new();
    for mishap in [Mishap::Throttle, Mishap::Error(500), Mishap::DropBefore, Mishap::LostReply] {
        for operation in OPERATIONS {
            lab.aws.fault(operation, mishap.clone());
            let fault = match operation {
                "GetCallerIdentity" => store.identity().await.expect_err(operation),
                "ListAccessKeys" => store.list().await.expect_err(operation),
                "CreateAccessKey" => mint(&store).await.expect_err(operation),
                "GetAccessKeyLastUsed" => store.last_use(&key).await.expect_err(operation),
                "UpdateAccessKey" => store.disable(&key).await.expect_err(operation),
                _ => store.delete(&key).await.expect_err(operation),
            };
            match mishap {
                Mishap::Throttle => assert!(matches!(fault, Fault::Retry { .. }), "{operation}: {fault:?}"),
                _ => assert!(matches!(fault, Fault::Unknown(_)), "{operation}: {fault:?}"),
            }
            expected.push(operation);
            assert_eq!(lab.asked(), expected, "{mishap:?}");
        }
    }
}

const OPERATIONS: [&str; 6] = [
    "GetCallerIdentity",
    "ListAccessKeys",
    "CreateAccessKey",
    "GetAccessKeyLastUsed",
    "UpdateAccessKey",
    "DeleteAccessKey",
];

#[tokio::test]
async fn a_page_that_says_200_has_done_nothing() {
    let lab = Lab::start(AwsOptions::default()).await;
    let store = connect(&lab, "store", lab.rotator(), "gis-store", "read");
    let (id, secret) = lab.aws.create_key("store");
    let key = KeyId::new(&id);
    for operation in ["UpdateAccessKey", "DeleteAccessKey", "ListAccessKeys", "GetAccessKeyLastUsed", "S3Get"] {
        lab.aws.fault(operation, Mishap::Html);
    }
    assert!(matches!(store.disable(&key).await, Err(Fault::Unknown(_))));
    assert!(matches!(store.delete(&key).await, Err(Fault::Unknown(_))));
    assert!(matches!(store.list().await, Err(Fault::Unknown(_))));
    assert!(matches!(store.last_use(&key).await, Err(Fault::Unknown(_))));
    assert!(matches!(store.probe(&pair(&key, &secret)).await, Err(Fault::Unknown(_))));
}

#[tokio::test]
async fn a_probe_that_is_not_answered_says_nothing_of_the_key() {
    let lab = Lab::start(AwsOptions::default()).await;
    let store = connect(&lab, "store", lab.rotator(), "gis-store", "read");
    let (id, secret) = lab.aws.create_key("store");
    let material = pair(&KeyId::new(id), &secret);
    assert_eq!(store.probe(&material).await, Ok(Probe::Works));
    assert_eq!(lab.asked(), ["GetCallerIdentity", "GetCallerIdentity", "S3Get"], "the rotator, the key, the bucket");
    for operation in ["GetCallerIdentity", "S3Get"] {
        for (mishap, expected) in
            [(Mishap::Throttle, "retry"), (Mishap::Error(500), "unknown"), (Mishap::DropBefore, "unknown")]
        {
            lab.aws.fault(operation, mishap.clone());
            let fault = store.probe(&material).await.expect_err("no answer");
            assert_eq!(fault.outcome(), expected, "{operation} {mishap:?}: {fault:?}");
        }
    }
    assert_eq!(store.probe(&material).await, Ok(Probe::Works));
}

#[tokio::test]
async fn a_bucket_in_another_region_is_named_with_its_region() {
    let lab = Lab::start(AwsOptions { bucket_region: "eu-central-1".to_owned(), ..AwsOptions::default() }).await;
    let store = connect(&lab, "store", lab.rotator(), "gis-store", "read");
    let (id, secret) = lab.aws.create_key("store");
    let outcome = store.probe(&pair(&KeyId::new(id), &secret)).await;
    refused(outcome, Reason::Refused, "eu-central-1");
}

#[tokio::test]
async fn a_listing_has_all_pages_and_the_providers_time() {
    let lab = Lab::start(AwsOptions { page_size: 1, quota: 3, ..AwsOptions::default() }).await;
    let store = connect(&lab, "store", lab.rotator(), "gis-store", "read");
    lab.aws.create_key("store");
    lab.aws.create_key("store");
    lab.aws.set_date_skew(chrono::Duration::hours(1));
    let (listing, now) = (store.list().await.expect("lists"), chrono::Utc::now());
    assert_eq!(listing.keys.len(), 3);
    let ahead = (listing.date.expect("dated") - now).num_seconds();
    assert!((3500..3700).contains(&ahead), "{ahead}");
}

#[tokio::test]
async fn another_account_is_noticed() {
    let lab = Lab::start(AwsOptions::default()).await;
    let store = connect(&lab, "store", lab.rotator(), "gis-store", "read");
    let (id, secret) = lab.aws.create_key("store");
    let material = pair(&KeyId::new(id), &secret);
    assert_eq!(store.probe(&material).await, Ok(Probe::Works));
    lab.aws.set_account_id("999988887777");
    assert_eq!(store.identity().await, Ok(AccountIdentity::new("aws:999988887777")));
    assert!(matches!(store.probe(&material).await, Ok(Probe::Wrong(why)) if why.contains("aws:999988887777")));
}

/// Any server will do whose certificate nobody here trusts; it is no IAM, and says so once it is trusted.
#[tokio::test]
async fn a_certificate_nobody_trusts_stops_a_mint_before_it_is_sent() {
    let lab = Lab::start(AwsOptions::default()).await;
    let other = ArcGis::start(ArcGisOptions { tls: true, ..ArcGisOptions::default() }, &lab.aws).await;
    let url = other.admin_url();
    let elsewhere = format!("sts_endpoint_url = \"{}\"", lab.endpoint());
    let distrustful = connect_at(&url, &elsewhere, "store", lab.rotator(), "gis-store", "read");
    refused(mint(&distrustful).await, Reason::TlsUntrusted, "name its file in ca_file");
    let (id, secret) = lab.aws.create_key("store");
    refused(
        distrustful.probe(&pair(&KeyId::new(id), &secret)).await,
        Reason::TlsUntrusted,
        "list one object of bucket",
    );

    let mut authorities = tempfile::NamedTempFile::new().expect("a file");
    authorities.write_all(other.ca_pem().expect("with tls").as_bytes()).expect("written");
    let trusting = format!("{elsewhere}\nca_file = \"{}\"", authorities.path().display());
    let trusting = connect_at(&url, &trusting, "store", lab.rotator(), "gis-store", "read");
    let outcome = mint(&trusting).await;
    assert!(matches!(outcome, Err(Fault::Unknown(_))), "{outcome:?}");
}

#[tokio::test]
async fn no_secret_is_in_what_is_said() {
    let lab = Lab::start(AwsOptions::default()).await;
    let store = connect(&lab, "store", lab.rotator(), "gis-store", "read");
    let minted = mint(&store).await.expect("mints");
    let mut said = format!("{minted:?}");
    for mishap in [Mishap::Error(500), Mishap::Throttle, Mishap::Html, Mishap::DropBefore] {
        lab.aws.fault("S3Get", mishap);
        said += &format!("{:?}", store.probe(&minted.material).await);
    }
    said += &format!("{:?}", store.probe(&pair(minted.material.key(), "another")).await);
    for secret in lab.aws.all_secrets() {
        assert!(!said.contains(&secret), "{said}");
    }
}

// ---- the noise ----

struct Lab {
    aws: Aws,
    weak: Pair,
}

impl Lab {
    async fn start(options: AwsOptions) -> Self {
        let aws = Aws::start(options).await;
        for user in ["store", "idle", "weak"] {
            aws.add_user(user);
        }
        aws.add_bucket("gis-store", &["store"]);
        aws.create_key("store");
        let weak = aws.create_key("weak");
        Self { aws, weak }
    }

    /// The operations asked for, in order.
    fn asked(&self) -> Vec<String> {
        self.aws.requests().into_iter().map(|line| line.operation).collect()
    }
}

#[async_trait]
impl World for Lab {
    fn endpoint(&self) -> String {
        self.aws.endpoint()
    }
    fn account(&self) -> &str {
        "111122223333"
    }
    fn rotator(&self) -> Pair {
        self.aws.admin()
    }
    fn weak(&self) -> Pair {
        self.weak.clone()
    }
    async fn propagate(&self) {
        self.aws.set_propagation(Duration::ZERO);
    }
    fn stay_fresh(&self) {
        self.aws.set_propagation(Duration::from_secs(3600));
    }
}

impl contract::World for Lab {
    fn issuer(&self) -> Arc<dyn Issuer> {
        connect(self, "store", self.rotator(), "gis-store", "read")
    }

    fn shape(&self) -> Shape {
        Shape::ShownOnce
    }

    fn in_use(&self, listing: &Listing) -> KeyId {
        listing.keys[0].id.clone()
    }

    fn request(&self, operation: Operation) -> &'static str {
        match operation {
            Operation::Identity => "GetCallerIdentity",
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
        if yes {
            self.aws.allow(&action)
        } else {
            self.aws.deny(&action)
        }
        action
    }
}

/// moto, as all tests of this process find it.
struct Peer(&'static Moto);

#[async_trait]
impl World for Peer {
    fn endpoint(&self) -> String {
        self.0.endpoint.clone()
    }
    fn account(&self) -> &str {
        "123456789012"
    }
    fn rotator(&self) -> Pair {
        self.0.rotator.clone()
    }
    fn weak(&self) -> Pair {
        self.0.weak.clone()
    }
    async fn propagate(&self) {
        tokio::time::sleep(PROPAGATION).await;
    }
    fn stay_fresh(&self) {}
}

fn connect(world: &dyn World, user: &str, rotator: Pair, bucket: &str, expect: &str) -> Arc<dyn Issuer> {
    connect_at(&world.endpoint(), "", user, rotator, bucket, expect)
}

async fn mint(issuer: &Arc<dyn Issuer>) -> Result<MintedKey, Fault> {
    issuer.mint(&IntentId::new("intent"), None).await
}

async fn ids(issuer: &Arc<dyn Issuer>) -> Vec<KeyId> {
    issuer.list().await.expect("lists").keys.into_iter().map(|key| key.id).collect()
}

fn pair(id: &KeyId, secret: &str) -> Material {
    Material::AccessKey { id: id.clone(), secret: Secret::new(secret.to_owned()) }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<T, Fault>, expected: Reason, text: &str) {
    match outcome {
        Err(Fault::Refused { reason, why }) if reason == expected && why.contains(text) => {}
        other => panic!("expected {expected} with {text:?}, got {other:?}"),
    }
}
