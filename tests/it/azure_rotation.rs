//! The main job on Azure with the real program: keys of storage accounts, what is signed with them, and an application's secret are
//! rotated while ArcGIS reads its containers with them, and nobody is refused. At the lab's blob service and at azurite, where there is
//! one; the consumers read where the keys are proved.

use std::time::{Duration, Instant};

use rekeyd_lab::{ArcGisOptions, AwsOptions, Azure, AzureOptions, Fault as Mishap, ServiceSpec, key_name};
use serde_json::{Value, json};

use super::azurite::{Azurite, azurite};
use super::support::{Daemon, PolicyText, Scene, wait_until};

/// Cloud services: one holds a key of the account, one a SAS signed with the same key, one a SAS of another account whose keys nobody
/// holds, one a secret of the application.
const KEY: &str = "blobkey001";
const SAS: &str = "blobsas001";
const OWN: &str = "blobown001";
const APP: &str = "blobapp001";
const CONTAINER: &str = "tiles";
/// How long Azure takes until everybody knows of a change.
const LAG: Duration = Duration::from_millis(300);
const HOUR: Duration = Duration::from_secs(3600);

struct Story {
    scene: Scene,
    azure: Azure,
    /// By its ARM id: the account that two services live on, and the one of the SAS alone.
    account: String,
    own: String,
    object_id: String,
    client_id: String,
    /// Of the application's secret that a person made: its id, and itself.
    by_hand: (String, String),
}

impl Story {
    /// At the lab's blob service.
    async fn new(settle: &str) -> Story {
        Story::with(settle, "gisstore", None).await
    }

    /// The accounts have this name and one that begins with it.
    async fn with(settle: &str, name: &str, azurite: Option<&'static Azurite>) -> Story {
        let options = ArcGisOptions { job_duration: Duration::from_millis(300), ..ArcGisOptions::default() };
        let scene = Scene::with(AwsOptions::default(), options).await;
        let azure = Azure::start(AzureOptions { key_lag: LAG, propagation: LAG, ..AzureOptions::default() }).await;
        if let Some(azurite) = azurite {
            azure.serve_blobs_at(&azurite.endpoint);
            azurite.follow(&azure);
        }
        let mut accounts = Vec::new();
        for name in [name.to_owned(), format!("{name}2")] {
            match azurite {
                Some(azurite) => {
                    let id = azurite.add_account(&azure, &name);
                    azurite.put_container(&name, &azure.slot(&id, "key1").value, CONTAINER).await;
                    accounts.push(id);
                }
                None => {
                    let id = azure.add_storage_account(&name);
                    azure.add_container(&id, CONTAINER);
                    accounts.push(id);
                }
            }
        }
        let [account, own] = accounts.try_into().expect("two");
        let (object_id, client_id) = azure.add_application("arcgis");
        let by_hand = azure.create_password(&object_id, "made by hand");
        let story = Story { scene, azure, account, own, object_id, client_id, by_hand };
        story.furnish(name, azurite.is_none());
        let scene = &story.scene;
        scene.write_secret("azure-secret", &story.azure.admin().1);
        scene.write_secret("by-hand", &story.by_hand.1);
        scene.write_policy(&PolicyText { more: story.policy(settle, name), ..PolicyText::default() });
        story
    }

    /// What ArcGIS holds before anybody rotates. Tokens of the lab's Entra open no container at azurite.
    fn furnish(&self, name: &str, with_application: bool) {
        let (arcgis, azure) = (&self.scene.arcgis, &self.azure);
        arcgis.use_azure(azure);
        arcgis.add_provider("azureazure", "AZURE", None);
        let store = |id: &str, held: Value| {
            arcgis.add_service_with(ServiceSpec::azure_blob_store(id, "azureazure", CONTAINER));
            arcgis.set_credential_object(id, &held);
        };
        let secret =
            json!({ "storageAccountName": name, "storageAccountKey": azure.slot(&self.account, "key1").value });
        store(KEY, json!({ "type": "STORAGE-ACCOUNT-KEY", "secret": secret }));
        let signed = |name: &str, token: &str| json!({ "type": "SAS-TOKEN", "secret": { "storageAccountName": name, "sasToken": token } });
        let token = azure.account_sas(&self.account, "key1", HOUR);
        store(SAS, signed(name, &token));
        store(OWN, signed(&format!("{name}2"), &self.by_hand_unlike(&token, &self.own, "key1")));
        if with_application {
            let principal =
                json!({ "tenantId": azure.tenant_id(), "clientId": self.client_id, "clientSecret": self.by_hand.1 });
            let secret = json!({ "storageAccountName": name });
            store(APP, json!({ "type": "SERVICE-PRINCIPAL", "secret": secret, "servicePrincipal": principal }));
        }
        self.scene.write_secret("own-sas", &self.token(OWN));
    }

    /// A SAS that does not end as another one does. What a person signs ends with `%3D` behind one of sixteen characters, and a place
    /// that shows the end of an old key would stop its rotation.
    fn by_hand_unlike(&self, other: &str, account: &str, slot: &str) -> String {
        let end = |token: &str| token[token.len() - 4..].to_owned();
        let mut tokens = (0..).map(|more| self.azure.account_sas(account, slot, HOUR + Duration::from_secs(more)));
        tokens.find(|token| end(token) != end(other)).expect("some second makes another end")
    }

    fn policy(&self, settle: &str, name: &str) -> String {
        let secret = self.scene.path("azure-secret").display().to_string();
        let blob_url = self.azure.blob_url();
        let more = format!("blob_url = \"{blob_url}\"\nsettle = \"{settle}\"\nrequest_timeout = \"5s\"\n");
        let account = super::azure::account(&self.azure, &secret, &more);
        let timing = "propagation = \"0s\"\nprobes = 2\nprobe_interval = \"50ms\"\nsoak = \"600ms\"\nsoak_unproven = \"600ms\"\n\
                      watch = \"300ms\"\nobserve = \"1s\"\n";
        let service = |service: &str, timing: &str, issuer: &str, place: &str| {
            format!(
                "[[service]]\nname = \"{service}\"\n{timing}[service.issuer]\n{issuer}\nprobe = {{ container = \"{CONTAINER}\" }}\n\
                 [[service.target]]\nkind = \"arcgis\"\ndeployment = \"prod\"\nservice_id = \"{place}\"\n"
            )
        };
        let resource = |kind: &str, id: &str| {
            format!("kind = \"{kind}\"\naccount = \"main\"\nresource_id = \"{id}\"\nexclusive = true")
        };
        let app = format!(
            "kind = \"entra-secret\"\naccount = \"main\"\napplication_object_id = \"{}\"\nclient_id = \"{}\"\n\
             storage_account = \"{name}\"",
            self.object_id, self.client_id
        );
        let of_own =
            format!("{}\npermissions = \"rwl\"\ncontainer = \"{CONTAINER}\"", resource("azure-sas", &self.own));
        [
            format!("[azure.main]\n{account}\n"),
            service("blob-key", timing, &resource("azure-key", &self.account), KEY),
            // Without a probe of its own.
            service("blob-sas", "", "kind = \"azure-sas\"\nfrom = \"blob-key\"\npermissions = \"rwdl\"", SAS).replacen(
                &format!("probe = {{ container = \"{CONTAINER}\" }}\n"),
                "",
                1,
            ),
            service("blob-own", timing, &of_own, OWN),
            service("blob-app", timing, &app, APP),
        ]
        .concat()
    }

    /// The token that a cloud service holds.
    fn token(&self, place: &str) -> String {
        let held = self.scene.arcgis.credential_object(place).expect("it holds something");
        held["secret"]["sasToken"].as_str().expect("a SAS").to_owned()
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.scene.run(&["status", "--json"]).out).expect("JSON")
    }

    /// Lets the daemon take the policy as it stands now, and look at the account under it. One look lists its keys, and asks for them
    /// again to try the key and what is signed with it; so after six of these at least one whole look lies behind us.
    fn reload(&self, daemon: &Daemon<'_>) {
        daemon.signal("HUP");
        wait_until("the reload", || daemon.log().contains("took the new policy"));
        let looked = || {
            let requests = self.azure.requests().into_iter();
            requests.filter(|line| line.operation == "ListKeys" && line.user_or_target == "gisstore").count()
        };
        let before = looked();
        wait_until("a look at the account", || looked() >= before + 6);
    }

    fn adopt_application(&self) {
        let file = self.scene.path("by-hand").display().to_string();
        let adopted = self.scene.run(&["adopt", "blob-app", &self.by_hand.0, "--secret-file", &file]);
        assert_eq!(adopted.code, Some(0), "{adopted:?}");
    }

    /// Says that `key1` is in use; returns its id.
    fn adopt_slot(&self, service: &str, more: &[&str]) -> String {
        let id = listed(&self.scene, service, "key1@");
        // The first rotation destroys what the other slot holds.
        let hasty = self.scene.run(&["adopt", service, &id]);
        let said = format!("{}{}", hasty.out, hasty.err);
        assert_eq!(hasty.code, Some(1), "{hasty:?}");
        assert!(said.contains("puts its new key in place of key2@") && said.contains("--idle-slot-free"), "{said}");
        let adopted = self.scene.run(&[&["adopt", service, &id, "--idle-slot-free"], more].concat());
        assert_eq!(adopted.code, Some(0), "{adopted:?}");
        id
    }

    /// With the token that is in use: which key signed it is seen.
    fn adopt_own(&self) {
        let file = self.scene.path("own-sas").display().to_string();
        let idle = listed(&self.scene, "blob-own", "key2@");
        let wrong = ["adopt", "blob-own", &idle, "--idle-slot-free", "--secret-file", &file];
        let wrong = self.scene.run(&wrong);
        assert_eq!(wrong.code, Some(1), "{wrong:?}");
        assert!(format!("{}{}", wrong.out, wrong.err).contains("it is signed with key key1@"), "{wrong:?}");
        self.adopt_slot("blob-own", &["--secret-file", &file]);
    }

    fn rotate(&self, services: &[&str]) {
        let ran = self.scene.run(&[&["rotate"], services, &["--wait=done"]].concat());
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }

    /// What the account's consumer holds is what ARM has in this slot.
    fn assert_holds(&self, slot: &str) {
        let name = self.account.rsplit('/').next().expect("an id has a name");
        let key = self.azure.slot(&self.account, slot).value;
        assert_eq!(self.scene.arcgis.held_key_name(KEY), Some(key_name(name, &key)));
    }

    fn assert_no_refusals(&self, places: &[&str]) {
        assert_eq!(self.scene.arcgis.consumer_refusals(), 0);
        for id in places {
            let count = self.scene.arcgis.consumer(id);
            assert!(count.requests > 20 && count.healthy && count.failures == 0, "{id}: {count:?}");
        }
    }

    fn assert_no_secret_seen(&self) {
        let mut secrets = self.azure.all_secrets();
        secrets.extend(self.scene.aws.all_secrets());
        secrets.extend(self.scene.arcgis.all_secrets());
        self.scene.assert_none_seen(secrets, &self.scene.arcgis.urls().join("\n"));
    }
}

/// The id of a key that a service's issuer lists, by how it begins: an adoption of what is not there names what is.
fn listed(scene: &Scene, service: &str, slot: &str) -> String {
    let ran = scene.run(&["adopt", service, "no-such-key"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let said = format!("{}{}", ran.out, ran.err);
    let id = said.split_whitespace().map(|word| word.trim_matches([',', '.'])).find(|word| word.starts_with(slot));
    id.unwrap_or_else(|| panic!("no {slot} in {said}")).to_owned()
}

/// Lists the container with a token, as anybody who has it could.
async fn opens(story: &Story, name: &str, token: &str) -> u16 {
    let url = format!("{}/{name}/{CONTAINER}?restype=container&comp=list&{token}", story.azure.blob_url());
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("a plain client");
    http.get(url).send().await.expect("the blob service answers").status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_what_is_signed_with_it_and_a_secret_are_rotated_and_nobody_is_refused() {
    let story = Story::new("300ms").await;
    tokio::task::spawn_blocking(move || two_rotations(&story)).await.expect("it ends well");
}

fn two_rotations(story: &Story) {
    let daemon = story.scene.start();
    story.adopt_application();
    let first = story.adopt_slot("blob-key", &[]);
    story.adopt_own();
    for (round, slot) in [(1, "key2"), (2, "key1")] {
        story.rotate(&["blob-key", "blob-own", "blob-app"]);
        story.assert_holds(slot);
        assert_eq!(
            story.azure.regenerations(),
            4 * round,
            "of each account one to make a key, one to retire the other"
        );
        assert_eq!(story.azure.mints(), round, "one secret for each rotation");
        let left = story.azure.passwords(&story.object_id);
        assert_eq!(left.len(), 1, "{left:?}");
        assert!(left[0].display_name.as_deref().is_some_and(|label| label.starts_with("rekeyd ")), "{left:?}");
        assert_used_before_the_other_was_removed(&story.azure, &left[0].key_id);
    }
    let history = story.scene.run(&["history", "blob-key"]);
    assert!(history.out.contains(&first) && history.out.contains("who says that the idle slot is free"), "{history:?}");
    // The key that was adopted without a secret file was known all the same: ARM shows it.
    story.assert_no_refusals(&[KEY, SAS, OWN, APP]);
    let doctor = story.scene.run(&["doctor"]);
    assert!(doctor.out.contains("azure-key:gisstore") && doctor.out.contains("idle is key2@"), "{doctor:?}");
    drop(daemon);
    story.assert_no_secret_seen();
}

/// A consumer keeps its token for an hour, and would not notice that the secret behind it is gone: so the order is told by who asked for
/// what.
fn assert_used_before_the_other_was_removed(azure: &Azure, new: &str) {
    let requests = azure.requests();
    let at = |operation: &str, about: &str| {
        let asked = |line: &&rekeyd_lab::RequestLine| line.operation == operation && line.access_key_id == about;
        requests.iter().filter(|line| line.executed).find(asked).map(|line| line.at)
    };
    let used = at("ConsumerToken", new).expect("the consumer logged in with the new secret");
    let removed = requests.iter().rfind(|line| line.operation == "RemovePassword" && line.executed);
    assert!(removed.is_some_and(|line| line.at > used), "the old secret went before the new one was in use");
}

/// One rotation moves the account's key and what is signed with it, and both before the old slot dies.
#[tokio::test(flavor = "multi_thread")]
async fn a_sas_moves_with_the_key_it_is_signed_with() {
    let story = Story::new("300ms").await;
    let by_hand = story.token(SAS);
    let (story, tokens) = tokio::task::spawn_blocking(move || {
        let daemon = story.scene.start();
        story.adopt_slot("blob-key", &[]);
        // It has no keys of its own, and says whose it has.
        let said = "blob-sas has no key of its own: what its targets hold is derived from the key of blob-key and moves with it";
        for (words, code) in [(&["rotate", "blob-sas"][..], 1), (&["pause", "blob-sas"], 1), (&["plan", "blob-sas"], 2)] {
            let ran = story.scene.run(words);
            assert_eq!(ran.code, Some(code), "{ran:?}");
            assert!(format!("{}{}", ran.out, ran.err).contains(said), "{ran:?}");
        }
        let mut tokens = vec![by_hand];
        for _ in 0..2 {
            story.rotate(&["blob-key"]);
            tokens.push(story.token(SAS));
        }
        let status = story.status();
        let services = status["services"].as_array().expect("services");
        let of = |name: &str| services.iter().find(|service| service["name"] == name).expect("it is listed").clone();
        let (root, follower) = (of("blob-key"), of("blob-sas"));
        assert_eq!(follower["targets"], json!(["arcgis:prod:blobsas001"]));
        assert_eq!((&follower["issuer"], &follower["message"]), (&json!("azure-sas:gisstore"), &json!("moves with blob-key")));
        assert_eq!((&follower["current_key"], &follower["state"]), (&root["current_key"], &json!("idle")));
        assert_eq!(root["targets"], json!(["arcgis:prod:blobkey001", "arcgis:prod:blobsas001"]));

        // It has no timetable, and what is signed ends after half a year: the next rotation is due before that.
        let due = || {
            let status = story.status();
            let services = status["services"].as_array()?.iter();
            let root = services.clone().find(|service| service["name"] == "blob-key")?;
            root["next_rotation"].as_str()?.parse::<chrono::DateTime<chrono::Utc>>().ok()
        };
        wait_until("the end to be seen", || due().is_some());
        let days = due().map(|due| (due - chrono::Utc::now()).num_days());
        assert_eq!(days, Some(161), "a tenth of its life before it ends");
        let planned = story.scene.run(&["plan", "blob-key", "--offline"]).out;
        assert!(planned.contains("which ends by itself 20") && planned.starts_with("blob-key: due 20"), "{planned}");

        let history = story.scene.run(&["history", "blob-key"]).out;
        let line = |from: usize, what: &str| history[from..].find(what).map(|at| from + at);
        let pushed = line(0, "pushing what is derived from key key2@").unwrap_or_else(|| panic!("never pushed: {history}"));
        let verified = line(pushed, "arcgis:prod:blobsas001").expect("and verified");
        let deleted = line(0, "deleting").unwrap_or_else(|| panic!("nothing was retired: {history}"));
        assert!(verified < deleted, "{history}");
        story.assert_no_refusals(&[KEY, SAS]);
        drop(daemon);
        story.assert_no_secret_seen();
        (story, tokens)
    })
    .await
    .expect("it ends well");
    tokio::time::sleep(LAG).await;
    for (n, (token, status)) in tokens.iter().zip([403, 403, 200]).enumerate() {
        assert_eq!(opens(&story, "gisstore", token).await, status, "token {n}");
    }
}

/// The blob service of others: from ARM's answer on it refuses a regenerated key and what is signed with it, and the consumers read
/// there.
#[tokio::test(flavor = "multi_thread")]
async fn keys_and_sas_are_rotated_at_azurite_and_nobody_is_refused() {
    let Some(azurite) = azurite().await else { return };
    let name = "rotatedstore";
    let story = Story::with("300ms", name, Some(azurite)).await;
    let keys = ["key1", "key2"].map(|slot| story.azure.slot(&story.account, slot).value);
    let tokens = [story.token(SAS), story.token(OWN)];
    let story = tokio::task::spawn_blocking(move || {
        let daemon = story.scene.start();
        story.adopt_slot("blob-key", &[]);
        story.adopt_own();
        for slot in ["key2", "key1"] {
            story.rotate(&["blob-key", "blob-own"]);
            story.assert_holds(slot);
        }
        story.assert_no_refusals(&[KEY, SAS, OWN]);
        drop(daemon);
        story.assert_no_secret_seen();
        story
    });
    let story = story.await.expect("it ends well");
    // Of all that there ever was azurite takes what is in the slots and what is signed with it.
    for (n, key) in keys.iter().enumerate() {
        assert_eq!(azurite.list(name, key, CONTAINER).await.short(), "403 AuthorizationFailure", "key {n} is dead");
    }
    for (token, name) in tokens.iter().zip([name, "rotatedstore2"]) {
        assert_eq!(azurite.list_with_sas(name, token, CONTAINER).await.short(), "403 AuthorizationFailure");
    }
    let now = story.azure.slot(&story.account, "key1").value;
    assert_eq!(azurite.list(name, &now, CONTAINER).await.short(), "200");
    assert_eq!(azurite.list_with_sas(name, &story.token(SAS), CONTAINER).await.short(), "200");
}

/// A request sent before this start, and forgotten with an older journal, would take whatever is in its slot when it arrives.
#[tokio::test(flavor = "multi_thread")]
async fn no_slot_is_filled_before_what_was_sent_earlier_must_have_arrived() {
    let story = Story::new("3s").await;
    let started = tokio::task::spawn_blocking(move || {
        let started = Instant::now();
        let daemon = story.scene.start();
        story.adopt_slot("blob-key", &[]);
        let ran = story.scene.run(&["rotate", "blob-key"]);
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
    let story = Story::new("2s").await;
    tokio::task::spawn_blocking(move || {
        let daemon = story.scene.start();
        story.adopt_application();
        story.adopt_slot("blob-key", &[]);
        story.azure.fault("RegenerateKey", Mishap::LostReply);
        story.azure.fault("AddPassword", Mishap::LostReply);
        story.rotate(&["blob-key", "blob-app"]);
        story.assert_holds("key2");
        assert_eq!(story.azure.regenerations(), 3, "one was lost, one made the key, one retired the other");
        let left = story.azure.passwords(&story.object_id);
        assert_eq!((story.azure.mints(), left.len()), (2, 1), "the secret nobody has was found by its label: {left:?}");
        story.assert_no_refusals(&[KEY, SAS, APP]);
        drop(daemon);
        story.assert_no_secret_seen();
    })
    .await
    .expect("it ends well");
}

/// What two slots mean stands in what an operator reads before anything is done; and what is printed to type is taken.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_is_told_what_two_slots_mean() {
    let story = Story::new("300ms").await;
    tokio::task::spawn_blocking(move || {
        let daemon = story.scene.start();
        let run = |words: &[&str]| {
            let ran = story.scene.run(words);
            (ran.code, format!("{}{}", ran.out, ran.err))
        };
        let (_, planned) = run(&["plan", "blob-key", "--offline"]);
        for said in [
            "rekeyd adopt blob-key KEY_ID --idle-slot-free",
            "make a new key at azure-key:gisstore in the idle slot, which ends whatever key is there",
            "sign with it (azure-sas:gisstore), probe what is signed, push it to arcgis:prod:blobsas001",
            "usable for 900ms (900ms where a read-back cannot tell)",
            "nothing here can be disabled, and the end of the old key cannot be undone",
            "by a key that nobody has, which ends every SAS signed with it too",
        ] {
            assert!(planned.contains(said), "{said}: {planned}");
        }
        assert!(!planned.contains("silent") && !planned.contains("disable it"), "{planned}");
        story.adopt_slot("blob-key", &[]);

        let right = "Microsoft.Storage/storageAccounts/regenerateKey/action";
        story.azure.deny(right);
        let (code, said) = run(&["doctor"]);
        assert!(code == Some(1) && said.contains(&format!("it has no role with {right}")), "{said}");
        assert_eq!(story.azure.regenerations(), 0, "doctor changes nothing");
        story.azure.allow(right);

        // Somebody fills the idle slot by hand. Whoever did uses it, for all that anybody knows.
        story.azure.regenerate(&story.account, "key2");
        // Clocks may differ by five minutes, so that much after the word a key counts as what the word was about.
        story.azure.set_created(&story.account, "key2", Some(chrono::Utc::now() + chrono::TimeDelta::minutes(10)));
        wait_until("the stranger to be seen", || run(&["strangers"]).1.contains("key2@"));
        let (code, said) = run(&["doctor"]);
        assert!(code == Some(1) && said.contains("nobody can explain key2@"), "{said}");
        let (code, said) = run(&["rotate", "blob-key", "--wait"]);
        assert!(code == Some(1) && said.contains("key2@") && said.contains("the journal cannot explain"), "{said}");
        assert_eq!(story.azure.regenerations(), 0, "but the one in the portal");
        let status: Value = serde_json::from_str(&run(&["status", "--json"]).1).expect("JSON");
        let of = |name: &str| {
            let services = status["services"].as_array().expect("services").iter();
            services.clone().find(|service| service["name"] == name).expect("listed").clone()
        };
        assert_eq!((&of("blob-key")["state"], &of("blob-sas")["state"]), (&json!("halted"), &json!("halted")));
        assert_eq!(
            (&of("blob-key")["strangers"].as_array().map(Vec::len), &of("blob-sas")["strangers"]),
            (&Some(1), &json!([]))
        );
        drop(daemon);
    })
    .await
    .expect("it ends well");
}

/// Killed again and again on its way, at Azure's side and at ArcGIS': each start takes the rotation up where it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_of_key_and_sas_survives_its_daemon() {
    let story = Story::new("300ms").await;
    let by_hand = story.token(SAS);
    let story = tokio::task::spawn_blocking(move || {
        let (azure, arcgis) = (&story.azure, &story.scene.arcgis);
        let asked = |operation: &str| {
            let requests = azure.requests().into_iter().chain(arcgis.requests());
            requests.filter(|line| line.operation == operation).count()
        };
        // Each daemon is held in a request that is carried out, and is dead before its answer comes: the mint, a probe, the pushes of
        // the key and of what is signed with it, the retire.
        let (mint, probe, push, retire) = ("RegenerateKey", "ListBlobs", "credential/update", "RegenerateKey");
        for (step, operation) in [mint, probe, push, push, retire].into_iter().enumerate() {
            azure.fault(operation, Mishap::Slow(HOUR));
            arcgis.fault(operation, Mishap::Slow(HOUR));
            let before = asked(operation);
            let daemon = story.scene.start();
            if step == 0 {
                story.adopt_slot("blob-key", &[]);
                let ordered = story.scene.run(&["rotate", "blob-key"]);
                assert_eq!(ordered.code, Some(0), "{ordered:?}");
            }
            wait_until(&format!("step {step}: {operation}"), || asked(operation) > before);
            daemon.kill9();
            azure.clear_faults();
            arcgis.clear_faults();
        }
        let daemon = story.scene.start();
        wait_until("the rotation's end", || story.scene.run(&["history", "blob-key"]).out.contains("  done"));
        story.assert_holds("key2");
        story.assert_no_refusals(&[KEY, SAS]);
        drop(daemon);
        story.assert_no_secret_seen();
        story
    });
    let story = story.await.expect("it ends well");
    tokio::time::sleep(LAG).await;
    assert_eq!(opens(&story, "gisstore", &by_hand).await, 403);
    assert_eq!(opens(&story, "gisstore", &story.token(SAS)).await, 200);
}

/// The other two products, whose keys nobody in the lab uses but rekeyd's own probe: what ARM has in the new slot is what ArcGIS holds,
/// and the old key opens nothing.
#[tokio::test(flavor = "multi_thread")]
async fn keys_of_a_database_and_of_a_namespace_are_rotated_too() {
    let options = ArcGisOptions { job_duration: Duration::from_millis(300), ..ArcGisOptions::default() };
    let scene = Scene::with(AwsOptions::default(), options).await;
    let slow = Some(Duration::from_millis(500));
    let azure = Azure::start(AzureOptions { key_lag: LAG, cosmos_work: slow, ..AzureOptions::default() }).await;
    let (tables, queue) = (azure.add_cosmos_account("gistables"), azure.add_service_bus_rule("gisqueue", "arcgis"));
    let arcgis = &scene.arcgis;
    arcgis.use_azure(&azure);
    arcgis.add_provider("azureazure", "AZURE", None);
    arcgis.add_service_with(ServiceSpec::azure_cosmos_db("tables0001", "azureazure"));
    arcgis.add_service_with(ServiceSpec::azure_service_bus("queue00001", "azureazure"));
    let key = |id: &str, slot: &str| azure.slot(id, slot).value;
    let held = json!({ "accountName": "gistables", "accountKey": key(&tables, "primary") });
    arcgis.set_credential_object("tables0001", &json!({ "type": "COSMOSDB-ACCOUNT-KEY", "secret": held }));
    let held = json!({ "sharedAccessKeyName": "arcgis", "sharedAccessKey": key(&queue, "PrimaryKey") });
    arcgis.set_credential_object("queue00001", &json!({ "type": "SERVICEBUS-ACCESS-KEY", "secret": held }));
    scene.write_secret("azure-secret", &azure.admin().1);

    let secret = scene.path("azure-secret").display().to_string();
    let account = super::azure::account(&azure, &secret, "settle = \"2s\"\nrequest_timeout = \"5s\"\n");
    let service = |name: &str, id: &str, probe: &str, place: &str| {
        format!(
            "[[service]]\nname = \"{name}\"\npropagation = \"0s\"\nprobes = 2\nprobe_interval = \"50ms\"\nsoak = \"600ms\"\n\
             soak_unproven = \"600ms\"\nwatch = \"300ms\"\n[service.issuer]\nkind = \"azure-key\"\naccount = \"main\"\n\
             resource_id = \"{id}\"\nexclusive = true\nprobe = {{ expect = \"{probe}\" }}\n[[service.target]]\nkind = \"arcgis\"\n\
             deployment = \"prod\"\nservice_id = \"{place}\"\n"
        )
    };
    let more = [
        format!("[azure.main]\n{account}\n"),
        service("tables", &tables, "read", "tables0001"),
        service("queue", &queue, "authenticates", "queue00001"),
    ];
    scene.write_policy(&PolicyText { more: more.concat(), ..PolicyText::default() });
    tokio::task::spawn_blocking(move || {
        let daemon = scene.start();
        let keys = |id: &str, slots: [&str; 2]| slots.map(|slot| azure.slot(id, slot).value);
        let (of_tables, of_queue) = (["primary", "secondary"], ["PrimaryKey", "SecondaryKey"]);
        let before = [keys(&tables, of_tables), keys(&queue, of_queue)].concat();
        for (name, slot) in [("tables", "primary@"), ("queue", "PrimaryKey@")] {
            let adopted = scene.run(&["adopt", name, &listed(&scene, name, slot), "--idle-slot-free"]);
            assert_eq!(adopted.code, Some(0), "{adopted:?}");
        }
        for new in [1, 0] {
            let ran = scene.run(&["rotate", "tables", "queue", "--wait=done"]);
            assert_eq!(ran.code, Some(0), "{ran:?}");
            let held =
                |place: &str| scene.arcgis.credential_object(place).expect("it holds something")["secret"].clone();
            assert_eq!(held("tables0001")["accountKey"], *keys(&tables, of_tables)[new]);
            assert_eq!(held("queue00001")["sharedAccessKey"], *keys(&queue, of_queue)[new]);
        }
        for (n, old) in before.iter().enumerate() {
            let id = if n < 2 { &tables } else { &queue };
            wait_until("the old keys' end", || !azure.works(id, old));
        }
        drop(daemon);
        let mut secrets = azure.all_secrets();
        secrets.extend(scene.arcgis.all_secrets());
        scene.assert_none_seen(secrets, &scene.arcgis.urls().join("\n"));
    })
    .await
    .expect("it ends well");
}

/// A machine at Azure, and a pod: the policy names no secret, and the login comes from where the process was started.
#[tokio::test(flavor = "multi_thread")]
async fn rekeyd_logs_in_as_the_machine_it_runs_on() {
    let azure = Azure::start(AzureOptions::default()).await;
    azure.trust_assertions(&azure.rotator());
    let id = azure.add_storage_account("gisstore");
    azure.add_container(&id, CONTAINER);
    let scene = Scene::new().await;
    let account = format!("{}blob_url = \"{}\"\n", super::azure::addresses(&azure), azure.blob_url());
    let service = format!(
        "[[service]]\nname = \"blob-key\"\n[service.issuer]\nkind = \"azure-key\"\naccount = \"main\"\nresource_id = \"{id}\"\n\
         exclusive = true\nprobe = {{ container = \"{CONTAINER}\" }}\n[[service.target]]\nkind = \"arcgis\"\ndeployment = \"prod\"\n\
         service_id = \"none000001\"\n"
    );
    scene.write_policy(&PolicyText { more: format!("[azure.main]\n{account}\n{service}"), ..PolicyText::default() });
    // header {"alg":"RS256"}, claims {"sub":"x","exp":4102444800}
    scene.write_secret("token", "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4IiwiZXhwIjo0MTAyNDQ0ODAwfQ.c2lnbmVk");
    let token_file = scene.path("token").display().to_string();
    tokio::task::spawn_blocking(move || {
        let (endpoint, header) = azure.machine();
        let (tenant, (client, _)) = (azure.tenant_id(), azure.admin());
        let machine = [("IDENTITY_ENDPOINT", endpoint.as_str()), ("IDENTITY_HEADER", &header)];
        let pod = [
            ("AZURE_FEDERATED_TOKEN_FILE", token_file.as_str()),
            ("AZURE_TENANT_ID", &tenant),
            ("AZURE_CLIENT_ID", &client),
        ];
        let wrong = [machine[0], ("IDENTITY_HEADER", "somebody-elses-header-0123456789")];
        let has_rights = "ok       rights: the rotator has Microsoft.Storage/storageAccounts/read";
        for (surroundings, said) in [
            (&machine[..], has_rights),
            (&pod[..], has_rights),
            (&wrong[..], "log in as the machine's managed identity"),
        ] {
            let mut command = scene.command(&["doctor"]);
            for name in ["IDENTITY_ENDPOINT", "IDENTITY_HEADER", "AZURE_FEDERATED_TOKEN_FILE"] {
                command.env_remove(name);
            }
            let ran = command.envs(surroundings.iter().copied()).output().expect("the program can be run");
            let told = String::from_utf8_lossy(&ran.stdout).into_owned();
            assert!(told.contains(said), "{surroundings:?}: {told}");
            let seen = format!("{told}{}", String::from_utf8_lossy(&ran.stderr));
            for (name, value) in surroundings.iter().filter(|(name, _)| *name == "IDENTITY_HEADER") {
                assert!(!seen.contains(value), "{name} is shown: {seen}");
            }
        }
        let tokens: Vec<String> = azure.all_secrets();
        scene.assert_none_seen(tokens, "");
    })
    .await
    .expect("it ends well");
}

/// Whoever holds the key itself loses it with the SAS that it signed.
#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_holds_the_key_itself_stops_the_end_of_a_sas() {
    let story = Story::new("300ms").await;
    let arcgis = &story.scene.arcgis;
    arcgis.add_service_with(ServiceSpec::azure_blob_store("rawkey0001", "azureazure", CONTAINER));
    let key = story.azure.slot(&story.own, "key1").value;
    let secret = json!({ "storageAccountName": "gisstore2", "storageAccountKey": key });
    arcgis.set_credential_object("rawkey0001", &json!({ "type": "STORAGE-ACCOUNT-KEY", "secret": secret }));
    tokio::task::spawn_blocking(move || {
        let daemon = story.scene.start();
        story.adopt_own();
        let ran = story.scene.run(&["rotate", "blob-own", "--wait=done"]);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.err.contains("rawkey0001") && ran.err.contains("shows the end of old key key1@"), "{ran:?}");
        assert!(story.azure.works(&story.own, &key), "and it still opens what it opened");
        story.assert_no_refusals(&[OWN, "rawkey0001"]);
        drop(daemon);
    })
    .await
    .expect("it ends well");
}

/// What its targets hold is what counts, whatever the policy says by now.
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_changes_does_not_hide_when_a_sas_ends() {
    let story = Story::new("300ms").await;
    tokio::task::spawn_blocking(move || {
        let mut text = std::fs::read_to_string(story.scene.policy()).expect("it was written");
        text = text.replace("permissions = \"rwdl\"", "permissions = \"rwdl\"\nvalid_for = \"30d\"");
        std::fs::write(story.scene.policy(), &text).expect("written");
        let daemon = story.scene.start();
        story.adopt_slot("blob-key", &[]);
        story.rotate(&["blob-key"]);
        let due = || {
            let status = story.status();
            let services = status["services"].as_array()?.iter();
            let root = services.clone().find(|service| service["name"] == "blob-key")?;
            let due = root["next_rotation"].as_str()?.parse::<chrono::DateTime<chrono::Utc>>().ok()?;
            Some((due - chrono::Utc::now()).num_days())
        };
        assert_eq!(due(), Some(26), "a tenth of thirty days before the end");
        std::fs::write(story.scene.policy(), text.replace("\"30d\"", "\"300d\"")).expect("written");
        story.reload(&daemon);
        assert_eq!(due(), Some(26), "what is there ends no later than before");
        // Handed over again, it is the longer one; and nothing of it is taken for somebody else's.
        let pushed = story.scene.run(&["repush", "blob-key"]);
        assert_eq!(pushed.code, Some(0), "{pushed:?}");
        wait_until("the end of the push", || daemon.log().matches("  INFO done service=blob-key").count() == 2);
        let status = story.status();
        assert!(status["services"].as_array().expect("services").iter().all(|one| one["drift"].is_null()), "{status}");
        story.assert_no_refusals(&[KEY, SAS]);
        drop(daemon);
    })
    .await
    .expect("it ends well");
}

/// A SAS that a person made long after the root was taken on: it joins, and moves with the next rotation.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_joins_a_root_that_was_rotated_before() {
    let story = Story::new("300ms").await;
    tokio::task::spawn_blocking(move || {
        let whole = std::fs::read_to_string(story.scene.policy()).expect("it was written");
        let (start, end) =
            (whole.find("[[service]]\nname = \"blob-sas\""), whole.find("[[service]]\nname = \"blob-own\""));
        let (start, end) = (start.expect("the follower"), end.expect("what stands behind it"));
        std::fs::write(story.scene.policy(), format!("{}{}", &whole[..start], &whole[end..])).expect("written");
        let daemon = story.scene.start();
        story.adopt_slot("blob-key", &[]);
        // What nobody told rekeyd of would end with the slot, so its maker signs anew after the rotation.
        story.rotate(&["blob-key"]);
        let token = story.by_hand_unlike(&story.token(OWN), &story.account, "key2");
        let secret = json!({ "storageAccountName": "gisstore", "sasToken": token });
        story.scene.arcgis.set_credential_object(SAS, &json!({ "type": "SAS-TOKEN", "secret": secret }));
        // A consumer that read what was there before may be on its way with it still.
        let mut seen = (story.scene.arcgis.consumer_refusals(), Instant::now());
        wait_until("nobody is refused any more", || {
            if story.scene.arcgis.consumer_refusals() != seen.0 {
                seen = (story.scene.arcgis.consumer_refusals(), Instant::now());
            }
            seen.1.elapsed() > Duration::from_secs(1)
        });
        let refused = seen.0;

        std::fs::write(story.scene.policy(), &whole).expect("written");
        story.reload(&daemon);
        let status = story.status();
        let root = status["services"].as_array().expect("services").iter().find(|one| one["name"] == "blob-key");
        assert!(root.is_some_and(|root| root["drift"].is_null() && root["state"] == "idle"), "{root:?}");
        story.rotate(&["blob-key"]);
        assert_ne!(story.token(SAS), token);
        assert_eq!(story.scene.arcgis.consumer_refusals(), refused, "since it joined, nobody was refused");
        drop(daemon);
    })
    .await
    .expect("it ends well");
}
