//! The main job with the real program: mint, push, confirm, verify, soak, disable, delete, done; the next rotation on time; no
//! consumer refused; exactly one live key for each user at rest. Both products of ArcGIS, one service with two targets; against the
//! lab's AWS, and against moto where there is one.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use rekeyd_lab::{ArcGis, ArcGisOptions, AwsOptions, Product, StoredCredential};
use serde_json::Value;

use super::moto::{Pair, ROTATED, connect_at, moto};
use super::support::{Scene, wait_until_or};

/// The verbs of a rotation, in the order of the house.
const VERBS: [&str; 15] = [
    "opened",
    "mint_begun",
    "minted",
    "probe_passed",
    "push_begun",
    "submitted",
    "confirmed",
    "verified",
    "disable_begun",
    "disabled",
    "delete_begun",
    "deleted",
    "absent_once",
    "gone",
    "closed",
];

#[tokio::test(flavor = "multi_thread")]
async fn two_rotations_on_time_in_the_lab() {
    let scene =
        Scene::with(AwsOptions { propagation: Duration::from_millis(700), ..AwsOptions::default() }, options()).await;
    let users = ["gis-both", "gis-server"];
    let keys = users.map(|user| {
        scene.aws.add_user(user);
        scene.aws.add_bucket(user, &[user]);
        scene.aws.create_key(user)
    });
    let store = Store {
        endpoint: scene.aws.endpoint(),
        rotator: scene.aws.admin(),
        users,
        keys: keys.to_vec(),
        propagation: "800ms",
        every: 12,
    };
    let (kubernetes, server) = (
        ArcGis::start(options(), &scene.aws).await,
        ArcGis::start(ArcGisOptions { product: Product::Server, ..options() }, &scene.aws).await,
    );
    let scene = two_rotations(scene, store, kubernetes, server).await;
    assert_eq!(scene.aws.mints(), 4, "one for each rotation");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_rotations_on_time_at_moto() {
    let Some(moto) = moto().await else { return };
    let scene = Scene::with(AwsOptions::default(), options()).await;
    let store = Store {
        endpoint: moto.endpoint.clone(),
        rotator: moto.rotator.clone(),
        users: ROTATED,
        keys: moto.rotated.clone(),
        propagation: "2300ms",
        every: 20,
    };
    let (kubernetes, server) = (
        ArcGis::start_at(options(), &moto.endpoint).await,
        ArcGis::start_at(ArcGisOptions { product: Product::Server, ..options() }, &moto.endpoint).await,
    );
    two_rotations(scene, store, kubernetes, server).await;
}

fn options() -> ArcGisOptions {
    ArcGisOptions { job_duration: Duration::from_millis(500), ..ArcGisOptions::default() }
}

/// Who makes the keys.
struct Store {
    endpoint: String,
    rotator: Pair,
    users: [&'static str; 2],
    keys: Vec<Pair>,
    propagation: &'static str,
    /// In seconds.
    every: i64,
}

/// `both` has a target at each deployment, `server` one at the second.
const SERVICES: [&str; 2] = ["both", "server"];
const PLACES: [(usize, &str); 3] = [(0, "kubernetes1"), (1, "serveruser1"), (1, "serveruser2")];

async fn two_rotations(scene: Scene, store: Store, kubernetes: ArcGis, server: ArcGis) -> Scene {
    let deployments = [kubernetes, server];
    for deployment in &deployments {
        deployment.add_provider("betc4g098c", "AWS", None);
    }
    for (n, (deployment, id)) in PLACES.into_iter().enumerate() {
        let user = n / 2;
        let (access_key, secret_key) = store.keys[user].clone();
        let held = StoredCredential { access_key, secret_key };
        deployments[deployment].add_service(id, "betc4g098c", store.users[user], Some(held));
    }
    scene.write_secret("rotator-secret", &store.rotator.1);
    let policy = policy(&scene, &store, &deployments);
    // Without a timetable first: a key that was made some time ago would be due before it is adopted.
    let on_demand: Vec<&str> = policy.lines().filter(|line| !line.starts_with("every = ")).collect();
    std::fs::write(scene.policy(), on_demand.join("\n")).expect("the policy can be written");

    let told = tokio::task::spawn_blocking({
        let deployments = deployments.clone();
        let keys = store.keys.clone();
        move || {
            let daemon = scene.start();
            for (service, (key, _)) in SERVICES.into_iter().zip(&keys) {
                let ran = scene.run(&["adopt", service, key]);
                assert_eq!(ran.code, Some(0), "{ran:?}");
            }
            std::fs::write(scene.policy(), policy).expect("the policy can be written");
            daemon.signal("HUP");
            for service in SERVICES {
                let twice = || {
                    let history = history(&scene, service);
                    (history.iter().filter(|line| line["event"] == "closed").count() >= 2).then_some(())
                };
                let seen = || scene.run(&["status"]).out;
                // Two rounds of the timetable are longer than one wait is patient.
                while history(&scene, service).iter().all(|line| line["event"] != "closed") {
                    assert!(!scene.run(&["status"]).out.contains("halted"), "{}", seen());
                    std::thread::sleep(Duration::from_millis(500));
                }
                wait_until_or("two rotations are done", twice, seen);
            }
            for service in SERVICES {
                let ran = scene.run(&["pause", service]);
                assert_eq!(ran.code, Some(0), "{ran:?}");
            }
            let resting = || {
                let status: Value = serde_json::from_str(&scene.run(&["status", "--json"]).out).ok()?;
                let paused = |service: &Value| service["state"] == "paused" && service["phase"].is_null();
                status["services"].as_array()?.iter().all(paused).then_some(())
            };
            wait_until_or("both are at rest", resting, || scene.run(&["status"]).out);
            for service in SERVICES {
                is_by_the_book(&history(&scene, service), store.every);
            }
            let ledger = scene.run(&["ledger", "verify"]);
            assert_eq!(ledger.code, Some(0), "{ledger:?}");
            assert_eq!(daemon.stop().code(), Some(0));
            (scene, deployments, store)
        }
    });
    let (scene, deployments, store) = match told.await {
        Ok(told) => told,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    };

    for (n, (deployment, id)) in PLACES.into_iter().enumerate() {
        let user = n / 2;
        let deployment = &deployments[deployment];
        let consumer = deployment.consumer(id);
        assert_eq!(consumer.refusals, 0, "{consumer:?}");
        assert!(consumer.requests > 100 && consumer.healthy, "{consumer:?}");
        let held = deployment.held_key(id).map(|(key, _)| key).expect("a key is held");
        assert_eq!(consumer.last_good_key.as_ref(), Some(&held));
        let issuer = connect_at(
            &store.endpoint,
            "",
            store.users[user],
            store.rotator.clone(),
            store.users[user],
            "authenticates",
        );
        let listed = issuer.list().await.expect("lists").keys;
        let listed: Vec<_> = listed.iter().map(|key| (key.id.as_str(), key.active)).collect();
        assert_eq!(listed, [(held.as_str(), true)], "one live key, and it is the held one");
        assert_ne!(held, store.keys[user].0, "it is not the first one");
    }
    scene
}

/// Every verb of every rotation in its order, and the second one when it was due.
fn is_by_the_book(history: &[Value], every: i64) {
    let mut rotations: Vec<&str> = history.iter().filter_map(|line| line["rotation"].as_str()).collect();
    rotations.dedup();
    assert!(rotations.len() >= 2, "{history:#?}");
    for rotation in &rotations[..2] {
        let events: Vec<&str> = history
            .iter()
            .filter(|line| line["rotation"] == *rotation)
            .map(|line| line["event"].as_str().unwrap_or_default())
            .collect();
        let mut rest = events.iter();
        for verb in VERBS {
            assert!(rest.any(|event| *event == verb), "{verb} is missing or out of place: {events:?}");
        }
        assert_eq!(events.iter().filter(|event| **event == "mint_begun").count(), 1);
    }
    let at = |rotation: &str, event: &str| -> DateTime<Utc> {
        let line = history.iter().find(|line| line["rotation"] == rotation && line["event"] == event);
        let at = line.and_then(|line| line["at"].as_str()).expect("an event with a time");
        at.parse().expect("RFC 3339")
    };
    let late = at(rotations[1], "opened") - (at(rotations[0], "minted") + TimeDelta::seconds(every));
    // Both are whole seconds, and moto's idea of a creation is one too.
    assert!((-2..=4).contains(&late.num_seconds()), "the second rotation was {late} late: {history:#?}");
}

fn history(scene: &Scene, service: &str) -> Vec<Value> {
    let ran = scene.run(&["history", service, "--json"]);
    serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

fn policy(scene: &Scene, store: &Store, deployments: &[ArcGis; 2]) -> String {
    let home = scene.path("").display().to_string();
    let home = home.trim_end_matches('/');
    let Store { endpoint, rotator, users, propagation, every, .. } = store;
    let (kubernetes, server) = (deployments[0].admin_url(), deployments[1].admin_url());
    let deployment = |name: &str, product: &str, url: &str| {
        format!(
            r#"
[arcgis.{name}]
product = "{product}"
admin_url = "{url}"
username = "rotator"
password = {{ file = "{home}/arcgis-password" }}
poll = "100ms"
readback = "1s"
"#
        )
    };
    let service = |n: usize, targets: &str| {
        let (name, user) = (SERVICES[n], users[n]);
        format!(
            r#"
[[service]]
name = "{name}"
every = "{every}s"
issuer = {{ kind = "aws-iam", account = "main", user = "{user}", probe = {{ bucket = "{user}", region = "us-east-1" }} }}
target = [{targets}]
"#
        )
    };
    let target = |deployment: &str, id: &str| {
        format!(r#"{{ kind = "arcgis", deployment = "{deployment}", service_id = "{id}" }}"#)
    };
    let both = format!("{}, {}", target("kubernetes", PLACES[0].1), target("server", PLACES[1].1));
    format!(
        r#"version = 1

[daemon]
journal = "sqlite:{home}/state/journal.db"
control = "{home}/control.sock"
listen = "off"

[defaults]
propagation = "{propagation}"
probes = 2
probe_interval = "200ms"
soak = "2s"
soak_unproven = "3s"
watch = "1s"

[aws.main]
region = "us-east-1"
endpoint_url = "{endpoint}"
sts_endpoint_url = "{endpoint}"
s3_endpoint_url = "{endpoint}"
access_key_id = "{}"
secret_access_key = {{ file = "{home}/rotator-secret" }}
settle = "500ms"
last_used_lag = "1s"
{}{}{}{}"#,
        rotator.0,
        deployment("kubernetes", "kubernetes", &kubernetes),
        deployment("server", "server", &server),
        service(0, &both),
        service(1, &target("server", PLACES[2].1)),
    )
}
