//! `azure-key` on the lab's ARM and data planes, and with azurite as the blob service.

use std::sync::Arc;
use std::time::Duration;

use rekeyd::issuer::azure_key::KIND;
use rekeyd::model::{AccountIdentity, IntentId, KeyId, Material, Reason, Shape};
use rekeyd::ports::{Fault, Issuer, Probe, Standing};
use rekeyd_lab::{Azure, AzureOptions, AzureRole, Fault as Mishap};

use super::azure::{OnArm as Account, connect, connect_with, reason, sent};
use super::azurite::azurite;
use super::contract;

const CONTAINER: &str = "gis";

impl Account {
    async fn storage() -> (Account, String) {
        let azure = Azure::start(AzureOptions::default()).await;
        let id = azure.add_storage_account("gisstore");
        azure.add_container(&id, CONTAINER);
        let issuer = connect(&KIND, &azure, &policy(&id));
        (Account { azure, issuer, provider: "Microsoft.Storage/storageAccounts", shape: Shape::Slots }, id)
    }

    async fn cosmos(options: AzureOptions) -> (Account, String) {
        let azure = Azure::start(options).await;
        let id = azure.add_cosmos_account("gisdb");
        let issuer = connect(&KIND, &azure, &format!("resource_id = \"{id}\"\nexclusive = true"));
        (Account { azure, issuer, provider: "Microsoft.DocumentDB/databaseAccounts", shape: Shape::Slots }, id)
    }

    async fn bus(expect: &str) -> (Account, String) {
        let azure = Azure::start(AzureOptions::default()).await;
        let id = azure.add_service_bus_rule("gisbus", "arcgis");
        let probe = format!("resource_id = \"{id}\"\nexclusive = true\nprobe = {{ expect = \"{expect}\" }}");
        let issuer = connect(&KIND, &azure, &probe);
        (
            Account {
                azure,
                issuer,
                provider: "Microsoft.ServiceBus/namespaces/authorizationRules",
                shape: Shape::Slots,
            },
            id,
        )
    }
}

fn policy(id: &str) -> String {
    format!("resource_id = \"{id}\"\nexclusive = true\nprobe = {{ container = \"{CONTAINER}\" }}")
}

async fn first(issuer: &Arc<dyn Issuer>) -> (KeyId, KeyId) {
    let listing = issuer.list().await.expect("lists");
    (listing.keys[0].id.clone(), listing.keys[1].id.clone())
}

#[tokio::test]
async fn a_storage_account_keeps_the_contract() {
    contract::suite(&Account::storage().await.0).await;
}

#[tokio::test]
async fn a_cosmos_account_keeps_the_contract() {
    let at_once = AzureOptions { cosmos_work: None, ..AzureOptions::default() };
    contract::suite(&Account::cosmos(at_once).await.0).await;
}

#[tokio::test]
async fn a_service_bus_policy_keeps_the_contract() {
    contract::suite(&Account::bus("authenticates").await.0).await;
}

/// The real blob service, whose keys the lab's ARM sets.
#[tokio::test]
async fn a_storage_account_keeps_the_contract_with_azurite() {
    let Some(azurite) = azurite().await else { return };
    let azure = Azure::start(AzureOptions::default()).await;
    azurite.follow(&azure);
    let id = azurite.add_account(&azure, "contractstore");
    azurite.put_container("contractstore", &azure.slot(&id, "key1").value, CONTAINER).await;
    let more = format!("blob_url = \"{}\"\n", azurite.endpoint);
    let issuer = connect_with(&KIND, &azure, &more, &policy(&id));
    contract::suite(&Account { azure, issuer, provider: "Microsoft.Storage/storageAccounts", shape: Shape::Slots })
        .await;
}

#[tokio::test]
async fn a_key_is_called_by_its_slot_and_its_time_or_by_a_fingerprint() {
    let (storage, id) = Account::storage().await;
    let at = chrono::DateTime::parse_from_rfc3339("2026-11-22T12:00:00.1234567Z").expect("a date").to_utc();
    storage.azure.set_created(&id, "key1", Some(at));
    storage.azure.set_created(&id, "key2", None);
    let (key1, key2) = first(&storage.issuer).await;
    assert_eq!(key1.as_str(), "key1@2026-11-22T12:00:00.123Z");
    assert!(key2.as_str().starts_with("key2@sha256-") && key2.as_str().len() == 24, "{key2}");
    let (cosmos, _) = Account::cosmos(AzureOptions::default()).await;
    let listing = cosmos.issuer.list().await.expect("lists");
    assert!(listing.keys[0].id.as_str().starts_with("primary@sha256-"));
    assert!(listing.keys.iter().all(|key| key.created.is_some()), "ARM tells it of the account, if not of the key");
}

#[tokio::test]
async fn keys_that_are_not_ours_to_rotate_are_left_alone() {
    let (storage, id) = Account::storage().await;
    storage.azure.enable_kerberos(&id);
    let before = storage.azure.slots(&id);
    let (_, idle) = first(&storage.issuer).await;
    storage.issuer.mint(&IntentId::new("r1.1"), Some(&idle)).await.expect("mints");
    let after = storage.azure.slots(&id);
    let changed: Vec<_> = before.iter().zip(&after).filter(|(b, a)| b.value != a.value).map(|(b, _)| &b.name).collect();
    assert_eq!(changed, ["key2"]);
    assert_eq!(storage.issuer.list().await.expect("lists").keys.len(), 2);
}

#[tokio::test]
async fn each_service_makes_what_its_targets_need() {
    let mint = async |issuer: Arc<dyn Issuer>| {
        let (_, idle) = first(&issuer).await;
        issuer.mint(&IntentId::new("r1.1"), Some(&idle)).await.expect("mints").material
    };
    let (storage, id) = Account::storage().await;
    let Material::StorageAccountKey { account, key, .. } = mint(storage.issuer).await else { panic!("another kind") };
    assert_eq!((account.as_str(), key.expose()), ("gisstore", storage.azure.slot(&id, "key2").value.as_str()));
    let (cosmos, id) = Account::cosmos(AzureOptions::default()).await;
    let Material::CosmosAccountKey { account, key, .. } = mint(cosmos.issuer).await else { panic!("another kind") };
    assert_eq!((account.as_str(), key.expose()), ("gisdb", cosmos.azure.slot(&id, "secondary").value.as_str()));
    let (bus, id) = Account::bus("authenticates").await;
    let Material::ServiceBusKey { key_name, key, .. } = mint(bus.issuer).await else { panic!("another kind") };
    assert_eq!((key_name.as_str(), key.expose()), ("arcgis", bus.azure.slot(&id, "SecondaryKey").value.as_str()));
}

/// Cosmos DB answers before it is done; the mint looks until it is.
#[tokio::test]
async fn work_that_goes_on_is_looked_at_until_it_is_done() {
    let slow = AzureOptions { cosmos_work: Some(Duration::from_millis(2500)), ..AzureOptions::default() };
    let (cosmos, id) = Account::cosmos(slow).await;
    let (_, idle) = first(&cosmos.issuer).await;
    let minted = cosmos.issuer.mint(&IntentId::new("r1.1"), Some(&idle)).await.expect("mints");
    assert_eq!(minted.material.secret().expose(), cosmos.azure.slot(&id, "secondary").value);
    assert_eq!(sent(&cosmos.azure, "RegenerateKey"), 1);
    assert_eq!(cosmos.issuer.probe(&minted.material).await, Ok(Probe::Works));
    // One change at a time: what is refused meanwhile waits.
    let (_, newer) = first(&cosmos.issuer).await;
    let (one, two) = tokio::join!(cosmos.issuer.delete(&newer), async {
        while sent(&cosmos.azure, "RegenerateKey") < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        cosmos.issuer.delete(&newer).await
    });
    assert_eq!(one, Ok(()));
    assert!(matches!(&two, Err(Fault::Retry { why, .. }) if why.contains("PreconditionFailed")), "{two:?}");
    assert!(first(&cosmos.issuer).await.1 != newer, "it was waited for");
}

#[tokio::test]
async fn a_slot_that_somebody_filled_meanwhile_is_not_replaced() {
    let (storage, id) = Account::storage().await;
    let (_, idle) = first(&storage.issuer).await;
    let theirs = storage.azure.regenerate(&id, "key2");
    let (why, said) = reason(storage.issuer.mint(&IntentId::new("r1.1"), Some(&idle)).await);
    assert_eq!(why, Reason::Stranger);
    assert!(said.contains(&format!("no slot holds key {idle} any more; they hold key1@")), "{said}");
    storage.issuer.delete(&idle).await.expect("it is gone");
    assert_eq!((storage.azure.slot(&id, "key2").value, sent(&storage.azure, "RegenerateKey")), (theirs, 0));
}

#[tokio::test]
async fn a_probe_knows_what_arm_knows() {
    let (storage, id) = Account::storage().await;
    let (in_use, _) = first(&storage.issuer).await;
    let held = storage.issuer.known(&in_use, None).await.expect("answers").expect("ARM shows it");
    assert_eq!(storage.issuer.probe(&held).await, Ok(Probe::Works));
    storage.azure.set_options(|options| options.key_lag = Duration::from_secs(600));
    storage.azure.regenerate(&id, "key1");
    // The data plane still takes the old key; it will not for long.
    let said = storage.issuer.probe(&held).await;
    assert!(matches!(&said, Ok(Probe::NotYet(why)) if why.contains("no slot holds it")), "{said:?}");
    let (now, _) = first(&storage.issuer).await;
    let fresh = storage.issuer.known(&now, None).await.expect("answers").expect("ARM shows it");
    let said = storage.issuer.probe(&fresh).await;
    assert!(matches!(&said, Ok(Probe::NotYet(why)) if why.contains("AuthenticationFailed")), "{said:?}");
}

#[tokio::test]
async fn a_key_that_may_only_send_is_told_from_a_wrong_one() {
    let (bus, _) = Account::bus("read").await;
    let (in_use, _) = first(&bus.issuer).await;
    let held = bus.issuer.known(&in_use, None).await.expect("answers").expect("ARM shows it");
    let said = bus.issuer.probe(&held).await;
    assert!(matches!(&said, Ok(Probe::NotAllowed(why)) if why.contains("expect = \"authenticates\"")), "{said:?}");
}

/// An account that takes no keys is told by `doctor`, and nothing is made in it; what is to be retired there still can be.
#[tokio::test]
async fn an_account_that_takes_no_keys_is_refused_before_anything_is_done() {
    let (storage, id) = Account::storage().await;
    let (in_use, idle) = first(&storage.issuer).await;
    storage.azure.allow_keys(&id, false);
    for refused in [
        storage.issuer.rights().await.map(drop),
        storage.issuer.mint(&IntentId::new("r1.1"), Some(&idle)).await.map(drop),
    ] {
        let (why, said) = reason(refused);
        assert_eq!(why, Reason::Refused);
        assert!(said.contains("its allowSharedKeyAccess is false, so its keys open nothing"), "{said}");
    }
    assert_eq!(storage.azure.regenerations(), 0);
    storage.issuer.identity().await.expect("it is the same account");
    storage.issuer.delete(&in_use).await.expect("a key that is left over can go");
    let (cosmos, id) = Account::cosmos(AzureOptions::default()).await;
    cosmos.azure.allow_keys(&id, false);
    assert!(reason(cosmos.issuer.rights().await).1.contains("its disableLocalAuth is true"));
}

#[tokio::test]
async fn each_right_of_the_role_is_needed_and_asked_for() {
    let accounts =
        [Account::storage().await, Account::cosmos(AzureOptions::default()).await, Account::bus("read").await];
    for (file, (account, _)) in ["storage", "cosmos", "servicebus"].into_iter().zip(accounts) {
        let text = std::fs::read_to_string(format!("config/azure/rekeyd-{file}.json")).expect("a role");
        let role: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let actions = role["Actions"].as_array().expect("a list");
        let actions: Vec<String> = actions.iter().filter_map(|action| action.as_str().map(str::to_owned)).collect();
        let grant = |actions: &[String]| {
            let role = AzureRole { actions: actions.to_vec(), not_actions: Vec::new() };
            account.azure.set_roles(vec![role]);
        };
        grant(&actions);
        let told = account.issuer.rights().await;
        assert!(matches!(&told, Ok(Some(Standing::Enough(_)))), "{file}: {told:?}");
        let (_, idle) = first(&account.issuer).await;
        account.issuer.identity().await.expect("answers");
        account.issuer.mint(&IntentId::new("r1.1"), Some(&idle)).await.expect("mints");
        for missing in &actions {
            let rest: Vec<String> = actions.iter().filter(|action| *action != missing).cloned().collect();
            grant(&rest);
            if missing.ends_with("permissions/read") {
                let told = account.issuer.rights().await;
                assert!(matches!(&told, Ok(Some(Standing::Untold(_)))), "{file}: {told:?}");
                continue;
            }
            let (why, said) = reason(account.issuer.rights().await);
            assert!(why == Reason::MissingRight && said.contains(missing.as_str()), "{file}: {said}");
            let refused = match missing.rsplit('/').nth(usize::from(missing.ends_with("/action"))) {
                Some("read") => account.issuer.identity().await.map(drop),
                Some("listKeys") => account.issuer.list().await.map(drop),
                _ => {
                    let (_, idle) = first(&account.issuer).await;
                    account.issuer.mint(&IntentId::new("r2.1"), Some(&idle)).await.map(drop)
                }
            };
            let (why, said) = reason(refused);
            assert!(why == Reason::MissingRight && said.contains(missing.as_str()), "{file}: {said}");
        }
    }
}

#[tokio::test]
async fn a_lock_is_named_with_the_way_out() {
    let (storage, id) = Account::storage().await;
    storage.azure.lock(&id);
    let (why, said) = reason(storage.issuer.list().await);
    assert_eq!(why, Reason::Refused);
    assert!(said.contains("ScopeLocked (409)") && said.contains("a CanNotDelete lock does not"), "{said}");
}

#[tokio::test]
async fn an_account_made_again_under_its_name_is_another_one() {
    for (account, id) in
        [Account::storage().await, Account::cosmos(AzureOptions::default()).await, Account::bus("read").await]
    {
        let before = account.issuer.identity().await.expect("answers");
        assert!(before.as_str().starts_with("azure:") && before.as_str().contains('#'), "{before}");
        // Two are never made in one millisecond, but here.
        tokio::time::sleep(Duration::from_millis(5)).await;
        // Of a policy made again in its namespace nothing but the keys is new.
        let whole = id.split("/AuthorizationRules").next().expect("an id");
        account.azure.recreate(whole);
        let after: AccountIdentity = account.issuer.identity().await.expect("answers");
        assert_ne!(before, after);
    }
}

#[tokio::test]
async fn a_wrong_login_is_the_rotators_own() {
    let (storage, id) = Account::storage().await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "mistyped-secret-of-the-rotator").expect("written");
    let account = super::azure::account(&storage.azure, &file.path().display().to_string(), "");
    let issuer = super::azure::connect_as(&KIND, &account, &policy(&id)).expect("connects");
    let (why, said) = reason(issuer.list().await);
    assert_eq!(why, Reason::LoginRefused);
    assert!(said.contains("AADSTS7000215") && said.contains("this is the rotator's own login, [azure.main]"), "{said}");
    assert!(!said.contains("mistyped"), "{said}");
    // Entra down, or a page of somebody in between, is no refusal, and nothing was sent to ARM.
    storage.azure.fault("Token", Mishap::Error(503));
    let down = connect(&KIND, &storage.azure, &policy(&id));
    assert!(matches!(down.list().await, Err(Fault::NotSent(_))));
    storage.azure.fault("Token", Mishap::Html);
    assert!(matches!(down.list().await, Err(Fault::NotSent(_))));
    assert_eq!(sent(&storage.azure, "ListKeys"), 0);
}

/// The SDK keeps a token by our clock alone; one that ARM refuses is not sent again.
#[tokio::test]
async fn a_token_that_is_refused_is_replaced_once() {
    let (storage, id) = Account::storage().await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), storage.azure.admin().1).expect("written");
    let account = super::azure::account(&storage.azure, &file.path().display().to_string(), "");
    let issuer = super::azure::connect_as(&KIND, &account, &policy(&id)).expect("connects");
    issuer.list().await.expect("logs in");
    for healed in [true, false] {
        let tokens = sent(&storage.azure, "Token");
        storage.azure.fault("ListKeys", Mishap::Error(401));
        let first = issuer.list().await;
        assert!(matches!(first, Err(Fault::Retry { .. })), "{first:?}");
        if !healed {
            storage.azure.fault("ListKeys", Mishap::Error(401));
            assert_eq!(reason(issuer.list().await).0, Reason::LoginRefused);
        }
        issuer.list().await.expect("with a token of its own");
        assert!(sent(&storage.azure, "Token") > tokens);
    }
}

/// The rotator's other ways to log in: somebody else's assertion from a file, and one signed with a certificate.
#[tokio::test]
async fn an_assertion_logs_in_too() {
    let (storage, id) = Account::storage().await;
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (azure, client) = (&storage.azure, storage.azure.admin().0);
    azure.trust_assertions(&azure.rotator());
    let login = |lines: &str| {
        let account = format!(
            "tenant_id = \"{}\"\nclient_id = \"{client}\"\n{lines}\n{}",
            azure.tenant_id(),
            super::azure::addresses(azure)
        );
        super::azure::connect_as(&KIND, &account, &policy(&id)).expect("connects")
    };
    let key = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).expect("a key");
    let made = rcgen::CertificateParams::new(Vec::new()).and_then(|params| params.self_signed(&key)).expect("made");
    std::fs::write(path("c.pem"), made.pem()).expect("written");
    std::fs::write(path("k.pem"), key.serialize_pem()).expect("written");
    let certificate = format!("client_cert = \"{}\"\nclient_key = {{ file = \"{}\" }}", path("c.pem"), path("k.pem"));
    assert_eq!(login(&certificate).list().await.expect("lists").keys.len(), 2);
    // header {"alg":"RS256"}, claims {"sub":"x","exp":4102444800}
    std::fs::write(path("token"), "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4IiwiZXhwIjo0MTAyNDQ0ODAwfQ.c2lnbmVk")
        .expect("written");
    let federated = format!("federated_token_file = \"{}\"", path("token"));
    assert_eq!(login(&federated).list().await.expect("lists").keys.len(), 2);
}
