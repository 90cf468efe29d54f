//! What an account shows of itself, so that a client can tell it from one made later under the same name.

use super::*;

async fn properties(client: &Client<'_>, id: &str, version: &str) -> Value {
    let answer = client.get(&format!("{id}?{version}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()["properties"].clone()
}

#[tokio::test]
async fn a_storage_account_shows_its_age_and_what_it_asks_of_its_keys() {
    let azure = plain().await;
    let account = azure.add_storage_account("gisstore");
    let client = Client::new(&azure).await;
    let shown = properties(&client, &account, STORAGE_VERSION).await;
    let created = DateTime::parse_from_rfc3339(shown["creationTime"].as_str().expect("a time")).expect("RFC 3339");
    assert!((Utc::now() - created.to_utc()).abs() < TimeDelta::minutes(1));
    for absent in ["keyPolicy", "sasPolicy", "allowSharedKeyAccess"] {
        assert!(shown.get(absent).is_none(), "{absent}");
    }
    azure.set_creation_time(&account, Some("2017-06-01T02:42:41.7633306Z".parse().expect("a time")));
    azure.set_key_policy(&account, Some(60));
    azure.set_sas_policy(&account, Some(("1.15:59:59", "Log")));
    let shown = properties(&client, &account, STORAGE_VERSION).await;
    assert_eq!(shown["creationTime"], "2017-06-01T02:42:41.7633306Z");
    assert_eq!(shown["keyPolicy"], json!({"keyExpirationPeriodInDays": 60}));
    assert_eq!(shown["sasPolicy"], json!({"sasExpirationPeriod": "1.15:59:59", "expirationAction": "Log"}));
    // Azure shows the policy and takes the keys all the same.
    azure.set_created(&account, "key1", Some(Utc::now() - TimeDelta::days(61)));
    assert!(azure.works(&account, &value(&azure, &account, "key1")));
    azure.set_creation_time(&account, None);
    azure.set_key_policy(&account, None);
    azure.set_sas_policy(&account, None);
    let shown = properties(&client, &account, STORAGE_VERSION).await;
    assert!(["creationTime", "keyPolicy", "sasPolicy"].iter().all(|absent| shown.get(*absent).is_none()));
}

#[tokio::test]
async fn an_account_made_again_has_its_name_and_nothing_else() {
    let azure = plain().await;
    let (storage, cosmos) = (azure.add_storage_account("gisstore"), azure.add_cosmos_account("gis-cosmos"));
    let client = Client::new(&azure).await;
    for (id, version, mark) in [(&storage, STORAGE_VERSION, "creationTime"), (&cosmos, COSMOS_VERSION, "instanceId")] {
        azure.set_key_policy(id, Some(60));
        azure.allow_keys(id, false);
        let (before, old) = (properties(&client, id, version).await, azure.slots(id));
        // A regeneration is no new account.
        azure.regenerate(id, &old[0].name);
        assert_eq!(properties(&client, id, version).await[mark], before[mark]);
        azure.recreate(id);
        let (after, new) = (properties(&client, id, version).await, azure.slots(id));
        assert!(before[mark].is_string() && after[mark].is_string() && before[mark] != after[mark], "{after}");
        assert!(after.get("keyPolicy").is_none());
        assert!(old.iter().all(|key| !azure.works(id, &key.value)));
        assert!(new.iter().all(|key| azure.works(id, &key.value) && azure.all_secrets().contains(&key.value)));
    }
}

#[tokio::test]
async fn a_rule_made_again_stands_in_the_namespace_that_was_there() {
    let azure = plain().await;
    let (one, other) =
        (azure.add_service_bus_rule("gis-bus", "arcgis"), azure.add_service_bus_rule("gis-bus", "other"));
    let client = Client::new(&azure).await;
    let namespace = one.split("/AuthorizationRules").next().expect("a namespace").to_owned();
    let created = || async { properties(&client, &namespace, BUS_VERSION).await["createdAt"].clone() };
    let before = created().await;
    assert!(before.is_string());
    let (old, kept) = (azure.slots(&one), azure.slots(&other));
    azure.recreate(&one);
    assert_eq!(created().await, before);
    assert!(azure.slots(&other) == kept && !azure.works(&one, &old[0].value));
    // The whole namespace.
    azure.recreate(&namespace);
    let after = created().await;
    assert!(after != before && azure.slots(&other) != kept);
    // A rule that comes later does not make it younger.
    azure.add_service_bus_rule("gis-bus", "late");
    assert_eq!(created().await, after);
    azure.set_creation_time(&other, Some("2017-05-25T22:26:36.76Z".parse().expect("a time")));
    assert_eq!(created().await, "2017-05-25T22:26:36.7600000Z");
}

#[tokio::test]
async fn whoever_plays_the_data_plane_hears_of_every_key_of_an_account_made_again() {
    let azure = plain().await;
    let account = azure.add_storage_account("gisstore");
    let (told, heard) = mpsc::channel();
    azure.on_regenerated(move |key| told.send(key.value.clone()).expect("heard"));
    azure.recreate(&account);
    let new: Vec<String> = azure.slots(&account).into_iter().map(|slot| slot.value).collect();
    assert_eq!(heard.try_iter().collect::<Vec<_>>(), new);
    assert_eq!(azure.regenerations(), 0);
}

#[tokio::test]
async fn what_cosmos_works_on_ends_with_the_account() {
    let azure = start(AzureOptions { cosmos_work: Some(HOUR), ..AzureOptions::default() }).await;
    let account = azure.add_cosmos_account("gis-cosmos");
    let client = Client::new(&azure).await;
    let taken = client.regenerate_cosmos(&account, "primary").await;
    let status = taken.header("azure-asyncoperation").strip_prefix(&azure.arm_url()).expect("ours").to_owned();
    assert_eq!(client.get(&status).await.json()["status"], "Dequeued");
    azure.recreate(&account);
    assert_eq!(client.get(&status).await.json()["status"], "Failed");
    assert_eq!(client.regenerate_cosmos(&account, "primary").await.status, 202);
}
