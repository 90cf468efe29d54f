//! Leaving keys behind, with the real program: the targets of a service move from a key to a role, and back. In the lab the role of
//! the nodes is what a service with the credential IAM-ROLE reads its bucket with.

use std::time::{Duration, Instant};

use rekeyd_lab::{ArcGisOptions, AwsOptions, Product};

use super::support::{BUCKET, CLOUD_SERVICE, PATIENCE, PROVIDER, PolicyText, Ran, SERVICE, Scene, USER, wait_until};

const NODES: &str = "gis-nodes";
const SWITCH: [&str; 4] = ["switch", SERVICE, "--to", "iam-role"];

/// A scene whose nodes have a role that may read the bucket, or may not.
async fn scene(options: ArcGisOptions, may_read: bool) -> Scene {
    let scene = Scene::with(AwsOptions::default(), options).await;
    scene.aws.add_user(NODES);
    scene.aws.add_bucket(BUCKET, if may_read { &[USER, NODES] } else { &[USER] });
    let role = scene.aws.create_key(NODES);
    scene.arcgis.set_node_role(&role.0, &role.1);
    scene
}

fn kind_of(scene: &Scene, place: &str) -> String {
    let held = scene.arcgis.credential_object(place).expect("it holds a credential");
    held["type"].as_str().expect("a credential has a type").to_owned()
}

/// The policy of a Server in place of the scene's Kubernetes.
fn write_policy(scene: &Scene, product: Product, text: &PolicyText) {
    scene.write_policy(text);
    if product == Product::Server {
        let policy = std::fs::read_to_string(scene.policy()).expect("it was just written");
        let lines = policy.lines().filter(|line| !line.starts_with("portal_url"));
        let lines: Vec<String> = lines.map(|line| line.replace("\"kubernetes\"", "\"server\"")).collect();
        std::fs::write(scene.policy(), lines.join("\n")).expect("the policy can be written");
    }
}

/// The second of the provider's clock in which the target still used the old key is over.
fn a_use_is_told_to_the_second() {
    std::thread::sleep(Duration::from_millis(1100));
}

fn refused(ran: &Ran, why: &str) {
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains(why), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_leaves_its_key_behind_and_comes_back_to_one() {
    for product in [Product::Kubernetes, Product::Server] {
        let scene = scene(ArcGisOptions { product, ..ArcGisOptions::default() }, true).await;
        let text = PolicyText { service: "every = \"30d\"".into(), soak: "1500ms".into(), ..PolicyText::default() };
        write_policy(&scene, product, &text);
        let daemon = scene.start_adopted();

        let ran = scene.run(&[&SWITCH[..], &["--wait=done"]].concat());
        assert_eq!(ran.code, Some(0), "{product:?}: {ran:?}");
        assert!(ran.out.contains("its targets are switched to iam-role; whether that may use the store"), "{ran:?}");
        assert_eq!(kind_of(&scene, CLOUD_SERVICE), "IAM-ROLE");
        assert_eq!(scene.aws.keys(USER), vec![], "the old key is gone");
        assert_eq!(scene.aws.mints(), 0, "nothing is minted for it");
        wait_until("the nodes' role is used", || scene.arcgis.consumer(CLOUD_SERVICE).healthy);
        assert_eq!(scene.arcgis.consumer_refusals(), 0);
        let service = scene.wait_for("state", "idle");
        assert_eq!((&service["current_key"], &service["next_rotation"]), (&"iam-role".into(), &().into()), "{service}");
        assert_eq!(service["key_created"], serde_json::Value::Null, "what is no key has no age: {service}");
        let history = scene.run(&["history", SERVICE]).out;
        assert!(history.contains("wants it switched to iam-role"), "{history}");

        refused(&scene.run(&["rotate", SERVICE]), "has no key to rotate");
        refused(&scene.run(&SWITCH), "it uses iam-role already");
        let plan = scene.run(&["plan", SERVICE]).out;
        assert!(plan.contains("uses iam-role") && plan.contains("--to key"), "{plan}");

        let ran = scene.run(&["switch", SERVICE, "--to", "key", "--wait"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert_eq!(kind_of(&scene, CLOUD_SERVICE), "ACCESS-KEY");
        scene.wait_done(2);
        scene.assert_one_live_key();
        let ran = scene.run(&["rotate", SERVICE, "--wait=done"]);
        assert_eq!(ran.code, Some(0), "it rotates as before: {ran:?}");
        scene.assert_one_live_key();
        refused(&scene.run(&["switch", SERVICE, "--to", "key"]), "it uses a key already");
        drop(daemon);
        assert_eq!(scene.run(&["ledger", "verify"]).code, Some(0));
        scene.assert_no_secret_seen();
    }
}

/// Nothing but its consumer can tell that a role may do nothing; where a health check says so, the old key is back by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_do_nothing_is_taken_back() {
    let scene = scene(ArcGisOptions::default(), false).await;
    scene.arcgis.add_backup_store("daily", CLOUD_SERVICE);
    scene.write_policy(&PolicyText { soak: "60s".into(), ..PolicyText::default() });
    let policy = std::fs::read_to_string(scene.policy()).expect("it was just written");
    let service_id = format!("  service_id = \"{CLOUD_SERVICE}\"");
    let watched = format!("{service_id}\n  health = {{ backup_store = \"daily\" }}");
    std::fs::write(scene.policy(), policy.replace(&service_id, &watched)).expect("the policy can be written");
    let _daemon = scene.start_adopted();
    let ran = scene.run(&SWITCH);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    // It is asked every 15 s, and must fail twice.
    let patience = Instant::now() + PATIENCE * 3;
    while scene.service()["reason"] != "rolled-back" {
        assert!(Instant::now() < patience, "{}", scene.service());
        std::thread::sleep(Duration::from_millis(200));
    }
    let said = scene.service()["message"].as_str().map(str::to_owned).unwrap_or_default();
    assert!(said.contains("the health check of"), "{said}");
    assert_eq!(scene.arcgis.held_key(CLOUD_SERVICE), Some(scene.first_key.clone()));
    wait_until("the consumer works", || scene.arcgis.consumer(CLOUD_SERVICE).healthy);
    assert_eq!(scene.aws.keys(USER).len(), 1, "the old key was not touched");
    assert_eq!(scene.run(&["retry", SERVICE]).code, Some(0));
    assert_eq!(scene.run(&["rotate", SERVICE, "--wait"]).code, Some(0));
}

/// Without one the operator looks, and types what the answer to the order said.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_puts_the_key_back() {
    let scene = scene(ArcGisOptions::default(), false).await;
    scene.write_policy(&PolicyText { soak: "60s".into(), ..PolicyText::default() });
    let _daemon = scene.start_adopted();
    let ran = scene.run(&[&SWITCH[..], &["--wait"]].concat());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.out.contains(&format!("type rekeyd rollback {SERVICE}")), "{ran:?}");
    wait_until("the role is refused", || scene.arcgis.consumer(CLOUD_SERVICE).refusals > 0);
    assert_eq!(scene.run(&["rollback", SERVICE]).code, Some(0));
    scene.wait_for("reason", "rolled-back");
    assert_eq!(scene.arcgis.held_key(CLOUD_SERVICE), Some(scene.first_key.clone()));
    wait_until("the consumer works", || scene.arcgis.consumer(CLOUD_SERVICE).healthy);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_switched_says_why_and_stays() {
    for (version, place, why) in [
        ("11.5", CLOUD_SERVICE, "it is version 11.5, and a credential can change its type from 12.0 on"),
        ("12.0", "inheriting1", "it has no credential of its own and inherits that of provider"),
    ] {
        let options = ArcGisOptions { version: version.into(), ..ArcGisOptions::default() };
        let scene = scene(options, true).await;
        scene.arcgis.add_service("inheriting1", PROVIDER, "", None);
        scene.write_policy(&PolicyText { cloud_service: place.into(), ..PolicyText::default() });
        let daemon = scene.start_adopted();
        assert_eq!(scene.run(&SWITCH).code, Some(0));
        let halted = scene.wait_for("state", "halted");
        assert!(halted["message"].as_str().is_some_and(|said| said.contains(why)), "{halted}");
        assert_eq!(kind_of(&scene, CLOUD_SERVICE), "ACCESS-KEY");
        assert_eq!(scene.run(&["retry", SERVICE]).code, Some(0));
        let idle = scene.wait_for("state", "idle");
        assert_eq!(idle["current_key"], scene.first_key.0.as_str(), "a halt ends the order: {idle}");
        drop(daemon);
    }
    let scene = scene(ArcGisOptions::default(), true).await;
    for (words, why) in [
        (["switch", SERVICE, "--to", "role"], "possible values: iam-role, user-assigned-identity, key"),
        (["switch", SERVICE, "--to", "user-assigned-identity"], "--client-id <ID>"),
    ] {
        let ran = scene.run(&words);
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.err.contains(why), "{ran:?}");
    }
    let _daemon = scene.start_adopted();
    let identity = scene.run(&["switch", SERVICE, "--to", "user-assigned-identity", "--client-id", "0f-client"]);
    assert_eq!(identity.code, Some(0));
    let halted = scene.wait_for("state", "halted");
    assert!(
        halted["message"].as_str().is_some_and(|said| said.contains("which has no use for user-assigned-identity")),
        "{halted}"
    );
    refused(&scene.run(&SWITCH), "halted (refused), not ordered");
}

/// The power goes at any instant, again and again, and the switch comes to its end.
#[tokio::test(flavor = "multi_thread")]
async fn a_switch_survives_kills() {
    let scene =
        scene(ArcGisOptions { job_duration: Duration::from_millis(600), ..ArcGisOptions::default() }, true).await;
    scene.write_policy(&PolicyText { soak: "1500ms".into(), watch: "500ms".into(), ..PolicyText::default() });
    let daemon = scene.start_adopted();
    assert_eq!(scene.run(&SWITCH).code, Some(0));
    daemon.kill9();
    let mut kills = 1;
    for pause in [150, 350, 700, 1200, 400, 900] {
        let daemon = scene.start();
        std::thread::sleep(Duration::from_millis(pause));
        daemon.kill9();
        kills += 1;
    }
    let _daemon = scene.start();
    scene.wait_done(1);
    assert_eq!((kind_of(&scene, CLOUD_SERVICE).as_str(), scene.aws.mints(), kills), ("IAM-ROLE", 0, 7));
    assert_eq!(scene.aws.keys(USER), vec![]);
    assert_eq!(scene.arcgis.consumer_refusals(), 0);
}

/// A human who moved the service to a role is not overruled.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_somebody_switched_is_drift_and_stops_the_rotation() {
    let scene = scene(ArcGisOptions::default(), true).await;
    let _daemon = scene.start_adopted();
    a_use_is_told_to_the_second();
    scene.arcgis.set_credential_object(CLOUD_SERVICE, &serde_json::json!({"type": "IAM-ROLE"}));
    wait_until("it is told at rest", || {
        scene.service()["message"]
            .as_str()
            .is_some_and(|said| said.contains("uses iam-role, which is no key, instead of"))
    });
    assert_eq!(scene.run(&["rotate", SERVICE]).code, Some(0));
    let halted = scene.wait_for("state", "halted");
    assert_eq!(halted["reason"], "target-changed", "{halted}");
    assert_eq!((scene.aws.mints(), kind_of(&scene, CLOUD_SERVICE).as_str()), (0, "IAM-ROLE"));
}

/// A role is never probed, so what is left where it fails is the old key: without its secret there is no way back.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_could_not_be_put_back_is_not_left_behind_unasked() {
    let scene = scene(ArcGisOptions::default(), false).await;
    scene.write_policy(&PolicyText { soak: "60s".into(), ..PolicyText::default() });
    let _daemon = scene.start();
    assert_eq!(scene.run(&["adopt", SERVICE, &scene.first_key.0]).code, Some(0));
    let why =
        format!("the secret of key {} is not held, so it could not be put back if the role fails", scene.first_key.0);
    refused(&scene.run(&SWITCH), &why);
    assert_eq!(kind_of(&scene, CLOUD_SERVICE), "ACCESS-KEY");

    let ran = scene.run(&[&SWITCH[..], &["--no-way-back", "--wait"]].concat());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let abandon = ["abandon", SERVICE, "--holds", "iam-role"];
    assert!(
        ran.out.contains(&format!("type rekeyd {}, then rekeyd switch {SERVICE} --to key", abandon.join(" "))),
        "{ran:?}"
    );
    wait_until("the role is refused", || scene.arcgis.consumer(CLOUD_SERVICE).refusals > 0);
    assert_eq!(scene.run(&abandon).code, Some(0));
    let ran = scene.run(&["switch", SERVICE, "--to", "key", "--wait"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    wait_until("the consumer works", || scene.arcgis.consumer(CLOUD_SERVICE).healthy);
}

/// The policy names another user by now, and the key in use was made for the first: a switch moves no house.
#[tokio::test(flavor = "multi_thread")]
async fn the_old_key_is_put_back_though_the_policy_has_moved_on() {
    let scene = scene(ArcGisOptions::default(), false).await;
    scene.aws.add_user("another");
    scene.write_policy(&PolicyText { soak: "60s".into(), ..PolicyText::default() });
    let daemon = scene.start_adopted();
    let policy = std::fs::read_to_string(scene.policy()).expect("it was just written");
    let moved = policy.replace(&format!("user = \"{USER}\""), "user = \"another\"");
    std::fs::write(scene.policy(), moved).expect("the policy can be written");
    daemon.signal("HUP");
    wait_until("the new policy is in force", || daemon.log().contains("the new policy is in force"));
    assert_eq!(scene.run(&[&SWITCH[..], &["--wait"]].concat()).code, Some(0));
    wait_until("the role is refused", || scene.arcgis.consumer(CLOUD_SERVICE).refusals > 0);
    let ran = scene.run(&["rollback", SERVICE]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    scene.wait_for("reason", "rolled-back");
    assert_eq!(scene.arcgis.held_key(CLOUD_SERVICE), Some(scene.first_key.clone()));
}

/// What a rotation was ordered for and halted at, a switch may be the answer to; and nobody is kept waiting for what halted before.
#[tokio::test(flavor = "multi_thread")]
async fn a_halted_order_gives_way_to_the_switch_that_somebody_began_by_hand() {
    let scene = scene(ArcGisOptions::default(), true).await;
    scene.write_policy(&PolicyText { soak: "1500ms".into(), ..PolicyText::default() });
    let _daemon = scene.start_adopted();
    a_use_is_told_to_the_second();
    scene.arcgis.set_credential_object(CLOUD_SERVICE, &serde_json::json!({"type": "IAM-ROLE"}));
    assert_eq!(scene.run(&["rotate", SERVICE]).code, Some(0));
    scene.wait_for("reason", "target-changed");
    let ran = scene.run(&[&SWITCH[..], &["--wait=done"]].concat());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!((scene.aws.keys(USER), scene.service()["state"].clone()), (vec![], "idle".into()));
    let all = scene.run(&["rotate", "--all", "--wait"]);
    assert_eq!((all.code, all.out.as_str()), (Some(0), "no service has a key to rotate\n"), "{all:?}");
}

/// The user is deleted once nothing uses its keys, and what happens to the target is told all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_a_key_is_watched_though_its_user_is_gone() {
    let scene = scene(ArcGisOptions::default(), true).await;
    scene.write_policy(&PolicyText { soak: "1500ms".into(), ..PolicyText::default() });
    let _daemon = scene.start_adopted();
    assert_eq!(scene.run(&[&SWITCH[..], &["--wait=done"]].concat()).code, Some(0));
    scene.aws.deny("ListAccessKeys");
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(scene.service()["message"], serde_json::Value::Null, "that nobody may list its keys is no drift");
    scene.arcgis.set_credential(CLOUD_SERVICE, &scene.first_key.0, &scene.first_key.1);
    wait_until("it is told", || {
        scene.service()["message"].as_str().is_some_and(|said| said.contains("that is not key iam-role"))
    });
}

/// Whoever looks while the old key soaks, when it is gone, and while the site is down, is told of no trouble of the service's.
#[tokio::test(flavor = "multi_thread")]
async fn doctor_finds_no_fault_in_a_service_that_was_switched() {
    let scene = scene(ArcGisOptions::default(), true).await;
    let soak = |soak: &str| PolicyText { soak: soak.into(), ..PolicyText::default() };
    scene.write_policy(&soak("4s"));
    let _daemon = scene.start_adopted();
    let ran = scene.run(&[&SWITCH[..], &["--wait"]].concat());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let is_sound = |when: &str, ran: &Ran| {
        assert!(ran.out.contains("  ok       keys: it uses iam-role and no key"), "{when}: {ran:?}");
        assert!(ran.out.contains("  ok       probe: it uses iam-role and no key"), "{when}: {ran:?}");
        assert!(!ran.out.contains("TROUBLE  keys") && !ran.out.contains("--secret-file"), "{when}: {ran:?}");
    };
    let soaking = scene.run(&["doctor"]);
    assert_eq!((soaking.code, scene.service()["state"].as_str()), (Some(0), Some("soaking")), "{soaking:?}");
    is_sound("while the old key soaks", &soaking);
    assert!(soaking.out.contains(&scene.first_key.0), "the old key is told: {soaking:?}");
    scene.wait_done(1);
    let rests = scene.run(&["doctor"]);
    assert_eq!(rests.code, Some(0), "{rests:?}");
    is_sound("at rest", &rests);
    scene.arcgis.down(true);
    is_sound("while the site is down", &scene.run(&["doctor"]));
    scene.arcgis.down(false);

    // A key that somebody made beside it is nobody's.
    let (left, _) = scene.aws.create_key(USER);
    let ran = scene.run(&["doctor"]);
    assert!(ran.out.contains(&format!("and active at the issuer are {left}")), "{ran:?}");
}
