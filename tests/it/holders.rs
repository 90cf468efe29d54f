//! A copy of the key that the policy does not name: told before the mint, and it stops the retire.

use rekeyd_lab::{ArcGisOptions, AwsOptions, ItemView, ServiceSpec, StoredCredential};
use serde_json::json;

use super::support::{BUCKET, CLOUD_SERVICE, PROVIDER, PolicyText, SERVICE, Scene, USER, wait_until};

const COPY: &str = "uqsip6c2vm";

/// `bucket` is what the copy's consumer reads; empty for a copy that nobody uses.
async fn scene_with_a_copy(bucket: &str) -> Scene {
    let scene = Scene::new().await;
    let (access_key, secret_key) = scene.first_key.clone();
    let credential = Some(StoredCredential { access_key, secret_key });
    scene.arcgis.add_service_with(ServiceSpec { credential, ..ServiceSpec::new(COPY, PROVIDER, bucket) });
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_the_key_stops_the_retire_and_loses_nothing() {
    let scene = scene_with_a_copy(BUCKET).await;
    let daemon = scene.start_adopted();
    wait_until("it is told at rest", || {
        scene.service()["message"].as_str().is_some_and(|said| said.contains("see accept_holders"))
    });
    assert_eq!(scene.run(&["rotate", SERVICE, "--wait"]).code, Some(0));
    let service = scene.wait_for("state", "halted");
    assert_eq!(service["reason"], "old-key-still-used");
    let message = service["message"].as_str().expect("a halt says why").to_owned();
    let copy = format!("arcgis:prod:{COPY} (cloud service AWS S3 DEFAULT {BUCKET}) is no target of this service");
    assert!(message.starts_with(&copy), "{message}");
    assert_eq!(scene.arcgis.consumer(COPY).refusals, 0);

    // A target like the other: it is moved by the next rotation, and then nothing holds the old key up.
    let more =
        format!("  [[service.target]]\n  kind = \"arcgis\"\n  deployment = \"prod\"\n  service_id = \"{COPY}\"\n");
    scene.write_policy(&PolicyText { more, ..PolicyText::default() });
    daemon.signal("HUP");
    wait_until("the new policy is in force", || daemon.log().contains("the new policy is in force"));
    let held = scene.arcgis.held_key(CLOUD_SERVICE).expect("it holds one");
    scene.arcgis.set_credential(COPY, &held.0, &held.1);
    // The provider tells a use to the second, and its last one with the old key may be just behind.
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
    assert_eq!(scene.run(&["retry", SERVICE]).code, Some(0));
    scene.wait_done(1);
    scene.assert_one_live_key();
    assert_eq!(scene.arcgis.consumer_refusals(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_the_policy_accepts_is_left_to_its_owner() {
    let scene = scene_with_a_copy("").await;
    let service = format!("accept_holders = [\"arcgis:prod:{COPY}\"]");
    scene.write_policy(&PolicyText { service, ..PolicyText::default() });
    let _daemon = scene.start_adopted();
    assert_eq!(scene.run(&["rotate", SERVICE, "--wait=done"]).code, Some(0), "{}", scene.service());
    scene.assert_one_live_key();
    assert_eq!(scene.arcgis.held_key(COPY).expect("it holds one").0, scene.first_key.0, "it was not touched");
}

const ITEM: &str = "/cloudStores/imagery";

/// A registered data store with a copy of the key, which shows it in clear, and which nobody uses.
async fn scene_with_a_data_item() -> Scene {
    let options = ArcGisOptions { item_view: ItemView::Object, ..ArcGisOptions::default() };
    let scene = Scene::with(AwsOptions::default(), options).await;
    let (id, secret) = &scene.first_key;
    scene.arcgis.set_data_item(json!({
        "path": ITEM, "type": "cloudStore", "provider": "amazon",
        "info": {"isManaged": false, "objectStore": "gis-store/tiles", "connectionString": {
            "accessKeyId": id, "secretAccessKey": secret, "region": "us-east-1", "credentialType": "accessKey"}},
    }));
    scene
}

fn says(scene: &Scene, words: &str) -> bool {
    scene.service()["message"].as_str().is_some_and(|said| said.contains(words))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_the_key_in_a_data_item_stops_the_retire_too() {
    let scene = scene_with_a_data_item().await;
    let daemon = scene.start_adopted();
    let copy = format!("arcgis:prod:{ITEM} (data item amazon gis-store/tiles)");
    wait_until("it is told at rest", || says(&scene, &copy) && says(&scene, "see accept_holders"));
    assert_eq!(scene.aws.mints(), 0);
    assert_eq!(scene.run(&["rotate", SERVICE, "--wait"]).code, Some(0));
    let service = scene.wait_for("state", "halted");
    assert_eq!(service["reason"], "old-key-still-used");
    assert!(says(&scene, &format!("{copy} is no target of this service")), "{service}");
    assert!(scene.aws.keys(USER).iter().all(|key| key.active), "nothing was disabled");

    // Somebody else moves it, and the policy says so; in another case, since the site keeps no two paths that differ by it.
    let service = "accept_holders = [\"arcgis:prod:/cloudstores/Imagery\"]".to_owned();
    scene.write_policy(&PolicyText { service, ..PolicyText::default() });
    daemon.signal("HUP");
    wait_until("the new policy is in force", || daemon.log().contains("the new policy is in force"));
    // The provider tells a use to the second, and its last one with the old key may be just behind.
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
    assert_eq!(scene.run(&["retry", SERVICE]).code, Some(0));
    scene.wait_done(1);
    scene.assert_one_live_key();
    scene.assert_no_secret_seen();
    assert_eq!(scene.arcgis.held_key(ITEM).expect("it holds one").0, scene.first_key.0, "it was not touched");
}

#[tokio::test(flavor = "multi_thread")]
async fn data_items_that_the_user_may_not_read_are_told_and_stop_nothing() {
    let scene = scene_with_a_data_item().await;
    scene.arcgis.set_denied("findItems", true);
    let _daemon = scene.start_adopted();
    let unread = "arcgis:prod:/cloudStores (registered data stores) cannot be looked at: code 403";
    wait_until("it is told at rest", || says(&scene, unread) && says(&scene, "see accept_holders"));
    assert_eq!(scene.run(&["rotate", SERVICE, "--wait=done"]).code, Some(0), "{}", scene.service());
    scene.assert_one_live_key();
    let history = scene.run(&["history", SERVICE]).out;
    assert!(history.contains(unread), "the evidence says what it did not see:\n{history}");
}
