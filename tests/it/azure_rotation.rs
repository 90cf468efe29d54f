//! The main job on Azure with the real program: a storage account's key and an application's secret are rotated while ArcGIS reads
//! its containers with them, and nobody is refused. At the lab's blob service, and at azurite where there is one.

use std::time::{Duration, Instant};

use rekeyd_lab::{ArcGisOptions, AwsOptions, Azure, AzureOptions, Fault as Mishap, ServiceSpec, key_name};
use serde_json::json;

use super::azurite::azurite;
use super::support::{PolicyText, Scene, wait_until};

/// The cloud service that holds a key of the account, and the one that holds a secret of the application.
const KEY: &str = "blobkey001";
const APP: &str = "blobapp001";
const SERVICES: [&str; 2] = ["blob-key", "blob-app"];
const CONTAINER: &str = "tiles";

struct Story {
    scene: Scene,
    azure: Azure,
    account: String,
    object_id: String,
    client_id: String,
    /// Of the application's secret that a person made: its id, and itself.
    by_hand: (String, String),
}

impl Story {
    async fn new(settle: &str, blob_url: Option<String>, name: &str) -> Story {
        let options = ArcGisOptions { job_duration: Duration::from_millis(300), ..ArcGisOptions::default() };
        let scene = Scene::with(AwsOptions::default(), options).await;
        let azure = Azure::start(AzureOptions::default()).await;
        let account = azure.add_storage_account(name);
        azure.add_container(&account, CONTAINER);
        let (object_id, client_id) = azure.add_application("arcgis");
        let by_hand = azure.create_password(&object_id, "made by hand");
        let arcgis = &scene.arcgis;
        arcgis.use_azure(&azure);
        arcgis.add_provider("azureazure", "AZURE", None);
        for id in [KEY, APP] {
            arcgis.add_service_with(ServiceSpec::azure_blob_store(id, "azureazure", CONTAINER));
        }
        let key = azure.slot(&account, "key1").value;
        let held = json!({ "storageAccountName": name, "storageAccountKey": key });
        arcgis.set_credential_object(KEY, &json!({ "type": "STORAGE-ACCOUNT-KEY", "secret": held }));
        let principal = json!({ "tenantId": azure.tenant_id(), "clientId": client_id, "clientSecret": by_hand.1 });
        let held = json!({ "type": "SERVICE-PRINCIPAL", "secret": { "storageAccountName": name },
            "servicePrincipal": principal });
        arcgis.set_credential_object(APP, &held);
        scene.write_secret("azure-secret", &azure.admin().1);
        scene.write_secret("by-hand", &by_hand.1);
        let story = Story { scene, azure, account, object_id, client_id, by_hand };
        let blob_url = blob_url.unwrap_or_else(|| story.azure.blob_url());
        story.scene.write_policy(&PolicyText { more: story.policy(settle, &blob_url, name), ..PolicyText::default() });
        story
    }

    fn policy(&self, settle: &str, blob_url: &str, name: &str) -> String {
        let secret = self.scene.path("azure-secret").display().to_string();
        let account = super::azure::account(
            &self.azure,
            &secret,
            &format!("blob_url = \"{blob_url}\"\nsettle = \"{settle}\"\nrequest_timeout = \"5s\"\n"),
        );
        let [key, app] = [
            format!("kind = \"azure-key\"\nresource_id = \"{}\"\nexclusive = true", self.account),
            format!(
                "kind = \"entra-secret\"\napplication_object_id = \"{}\"\nclient_id = \"{}\"\nstorage_account = \"{name}\"",
                self.object_id, self.client_id
            ),
        ];
        let service = |service: &str, issuer: &str, place: &str| {
            format!(
                "[[service]]\nname = \"{service}\"\npropagation = \"0s\"\nprobes = 2\nprobe_interval = \"50ms\"\nsoak = \"300ms\"\n\
                 soak_unproven = \"300ms\"\nwatch = \"300ms\"\nobserve = \"1s\"\n[service.issuer]\naccount = \"main\"\n{issuer}\n\
                 probe = {{ container = \"{CONTAINER}\" }}\n[[service.target]]\nkind = \"arcgis\"\ndeployment = \"prod\"\n\
                 service_id = \"{place}\"\n"
            )
        };
        let [of_key, of_app] = [service(SERVICES[0], &key, KEY), service(SERVICES[1], &app, APP)];
        format!("[azure.main]\n{account}\n{of_key}{of_app}")
    }

    /// Says which keys are in use; returns the id of the account's.
    fn adopt(&self) -> String {
        let file = self.scene.path("by-hand").display().to_string();
        let adopted = self.scene.run(&["adopt", SERVICES[1], &self.by_hand.0, "--secret-file", &file]);
        assert_eq!(adopted.code, Some(0), "{adopted:?}");
        self.adopt_key()
    }

    fn adopt_key(&self) -> String {
        let listed = self.scene.run(&["adopt", SERVICES[0], "no-such-key"]);
        assert_eq!(listed.code, Some(1), "{listed:?}");
        let said = format!("{}{}", listed.out, listed.err);
        let id =
            said.split_whitespace().map(|word| word.trim_matches([',', '.'])).find(|word| word.starts_with("key1@"));
        let id = id.unwrap_or_else(|| panic!("no key1 in {said}")).to_owned();
        // The first rotation destroys what the other slot holds.
        let hasty = self.scene.run(&["adopt", SERVICES[0], &id]);
        let said = format!("{}{}", hasty.out, hasty.err);
        assert_eq!(hasty.code, Some(1), "{hasty:?}");
        assert!(said.contains("puts its new key in place of key2@") && said.contains("--idle-slot-free"), "{said}");
        let adopted = self.scene.run(&["adopt", SERVICES[0], &id, "--idle-slot-free"]);
        assert_eq!(adopted.code, Some(0), "{adopted:?}");
        id
    }

    fn rotate(&self) {
        let ran = self.scene.run(&["rotate", SERVICES[0], SERVICES[1], "--wait=done"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }

    /// What the account's consumer holds is what ARM has in this slot.
    fn assert_holds(&self, slot: &str) {
        let name = self.account.rsplit('/').next().expect("an id has a name");
        let key = self.azure.slot(&self.account, slot).value;
        assert_eq!(self.scene.arcgis.held_key_name(KEY), Some(key_name(name, &key)));
    }

    fn assert_no_secret_seen(&self) {
        let mut secrets = self.azure.all_secrets();
        secrets.extend(self.scene.aws.all_secrets());
        secrets.extend(self.scene.arcgis.all_secrets());
        self.scene.assert_none_seen(secrets, &self.scene.arcgis.urls().join("\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_and_a_secret_are_rotated_and_nobody_is_refused() {
    let story = Story::new("300ms", None, "gisstore").await;
    tokio::task::spawn_blocking(move || two_rotations(&story)).await.expect("it ends well");
}

fn two_rotations(story: &Story) {
    let daemon = story.scene.start();
    let first = story.adopt();
    for (round, slot) in [(1, "key2"), (2, "key1")] {
        story.rotate();
        story.assert_holds(slot);
        assert_eq!(story.azure.regenerations(), 2 * round, "one to make a key, one to retire the other");
        assert_eq!(story.azure.mints(), round, "one secret for each rotation");
        let left = story.azure.passwords(&story.object_id);
        assert_eq!(left.len(), 1, "{left:?}");
        assert!(left[0].display_name.as_deref().is_some_and(|label| label.starts_with("rekeyd ")), "{left:?}");
    }
    let history = story.scene.run(&["history", SERVICES[0]]);
    assert!(history.out.contains(&first) && history.out.contains("who says that the idle slot is free"), "{history:?}");
    // The key that was adopted without a secret file was known all the same: ARM shows it.
    assert_eq!(story.scene.arcgis.consumer_refusals(), 0);
    for id in [KEY, APP] {
        let count = story.scene.arcgis.consumer(id);
        assert!(count.requests > 20 && count.healthy && count.failures == 0, "{id}: {count:?}");
    }
    let doctor = story.scene.run(&["doctor"]);
    assert!(doctor.out.contains("azure-key:gisstore") && doctor.out.contains("idle is key2@"), "{doctor:?}");
    drop(daemon);
    story.assert_no_secret_seen();
}

/// The blob service of others: it refuses a regenerated key from ARM's answer on. It takes no tokens of the lab's, so the application
/// is left alone there.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_rotated_at_azurite_and_nobody_is_refused() {
    let Some(azurite) = azurite().await else { return };
    let azure_name = "rotatedstore";
    let story = Story::new("300ms", Some(azurite.endpoint.clone()), azure_name).await;
    azurite.follow(&story.azure);
    let keys = ["key1", "key2"].map(|slot| story.azure.slot(&story.account, slot).value);
    azurite.set_keys(azure_name, [&keys[0], &keys[1]]);
    azurite.put_container(azure_name, &keys[0], CONTAINER).await;
    let story = tokio::task::spawn_blocking(move || {
        let daemon = story.scene.start();
        story.adopt_key();
        for slot in ["key2", "key1"] {
            let ran = story.scene.run(&["rotate", SERVICES[0], "--wait=done"]);
            assert_eq!(ran.code, Some(0), "{ran:?}");
            story.assert_holds(slot);
        }
        assert_eq!(story.scene.arcgis.consumer_refusals(), 0);
        drop(daemon);
        story.assert_no_secret_seen();
        story
    });
    let story = story.await.expect("it ends well");
    // Of all the keys there ever were azurite takes the two that are in the slots.
    for (n, key) in keys.iter().enumerate() {
        let answer = azurite.list(azure_name, key, CONTAINER).await;
        assert_eq!(answer.short(), "403 AuthorizationFailure", "key {n} is dead");
    }
    let now = story.azure.slot(&story.account, "key1").value;
    assert_eq!(azurite.list(azure_name, &now, CONTAINER).await.short(), "200");
}

/// A request sent before this start, and forgotten with an older journal, would take whatever is in its slot when it arrives.
#[tokio::test(flavor = "multi_thread")]
async fn no_slot_is_filled_before_what_was_sent_earlier_must_have_arrived() {
    let story = Story::new("3s", None, "gisstore").await;
    let started = tokio::task::spawn_blocking(move || {
        let started = Instant::now();
        let daemon = story.scene.start();
        story.adopt();
        let ran = story.scene.run(&["rotate", SERVICES[0]]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        wait_until("the first regeneration", || story.azure.regenerations() == 1);
        drop(daemon);
        started.elapsed()
    });
    // The program started a moment after the watch.
    assert!(started.await.expect("it ends well") >= Duration::from_secs(3));
}

/// The answer to a regeneration is lost: it is settled by looking, and the slot is left alone until nothing can arrive any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_costs_time_and_nothing_else() {
    let story = Story::new("2s", None, "gisstore").await;
    tokio::task::spawn_blocking(move || {
        let daemon = story.scene.start();
        story.adopt();
        story.azure.fault("RegenerateKey", Mishap::LostReply);
        story.azure.fault("AddPassword", Mishap::LostReply);
        story.rotate();
        story.assert_holds("key2");
        assert_eq!(story.azure.regenerations(), 3, "one was lost, one made the key, one retired the other");
        let left = story.azure.passwords(&story.object_id);
        assert_eq!((story.azure.mints(), left.len()), (2, 1), "the secret nobody has was found by its label: {left:?}");
        assert_eq!(story.scene.arcgis.consumer_refusals(), 0);
        drop(daemon);
        story.assert_no_secret_seen();
    })
    .await
    .expect("it ends well");
}
