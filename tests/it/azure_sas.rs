//! `azure-sas` on the lab's ARM and blob service, with azurite as the blob service, and held against Azure's own SDK for Python.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rekeyd::issuer::azure_sas::KIND;
use rekeyd::model::{IntentId, KeyId, Material, Reason, Secret, Shape};
use rekeyd::ports::{Fault, Issuer, Probe};
use rekeyd_lab::{Azure, AzureOptions, Fault as Mishap};

use super::azure::{OnArm, connect, connect_with, reason, sent};
use super::azurite::azurite;
use super::contract;

const CONTAINER: &str = "gis";
const OF_ACCOUNT: &str = "permissions = \"rwdl\"";
const OF_CONTAINER: &str = "permissions = \"rwdl\"\ncontainer = \"gis\"";

/// A storage account, by its ARM id.
struct Account {
    arm: OnArm,
    id: String,
}

impl Account {
    fn of(azure: Azure, issuer: Arc<dyn Issuer>, id: String) -> Account {
        let provider = "Microsoft.Storage/storageAccounts";
        Account { arm: OnArm { azure, issuer, provider, shape: Shape::Derived }, id }
    }

    async fn new(grant: &str) -> Account {
        let azure = Azure::start(AzureOptions::default()).await;
        let id = azure.add_storage_account("gisstore");
        azure.add_container(&id, CONTAINER);
        // What the lab's own blob service is reached by decides whether a token may be used without TLS.
        let more = format!("blob_url = \"{}\"\n", azure.blob_url());
        let issuer = connect_with(&KIND, &azure, &more, &policy(&id, grant));
        Account::of(azure, issuer, id)
    }

    async fn mint(&self) -> Material {
        let idle = self.slot("key2").await;
        self.issuer.mint(&IntentId::new("r1.1"), Some(&idle)).await.expect("mints").material
    }

    async fn slot(&self, name: &str) -> KeyId {
        let listing = self.issuer.list().await.expect("lists");
        let keys = listing.keys.into_iter().map(|key| key.id);
        keys.into_iter().find(|id| id.as_str().starts_with(name)).expect("two slots")
    }
}

fn policy(id: &str, grant: &str) -> String {
    format!("resource_id = \"{id}\"\nexclusive = true\n{grant}\nprobe = {{ container = \"{CONTAINER}\" }}")
}

impl std::ops::Deref for Account {
    type Target = OnArm;

    fn deref(&self) -> &OnArm {
        &self.arm
    }
}

#[tokio::test]
async fn a_sas_of_an_account_keeps_the_contract() {
    contract::suite(&Account::new(OF_ACCOUNT).await.arm).await;
}

#[tokio::test]
async fn a_sas_of_a_container_keeps_the_contract() {
    contract::suite(&Account::new(OF_CONTAINER).await.arm).await;
}

/// The real blob service, which knows the account's keys and computes the signature itself.
#[tokio::test]
async fn both_kinds_keep_the_contract_with_azurite_and_die_there_with_their_key() {
    let Some(azurite) = azurite().await else { return };
    for (name, grant) in [("signedstore", OF_ACCOUNT), ("signedgis", OF_CONTAINER)] {
        let azure = Azure::start(AzureOptions::default()).await;
        azurite.follow(&azure);
        let id = azurite.add_account(&azure, name);
        azurite.put_container(name, &azure.slot(&id, "key1").value, CONTAINER).await;
        let more = format!("blob_url = \"{}\"\n", azurite.endpoint);
        let issuer = connect_with(&KIND, &azure, &more, &policy(&id, grant));
        let account = Account::of(azure, issuer, id);
        contract::suite(&account.arm).await;

        let Material::SasToken { id: key, token, .. } = account.mint().await else { panic!("another kind") };
        let listed = async || azurite.list_with_sas(name, token.expose(), CONTAINER).await.short();
        assert_eq!(listed().await, "200");
        account.issuer.delete(&key).await.expect("the slot is replaced");
        assert_eq!(listed().await, "403 AuthorizationFailure");
    }
}

/// Minted tokens field by field, by code that is not ours: `generate_account_sas` and `generate_container_sas` of azure-storage-blob.
#[tokio::test]
async fn azures_own_sdk_signs_the_same() {
    let Ok(python) = std::env::var("REKEYD_AZURE_SDK") else {
        println!("skipped: needs azure-storage-blob, run tests/run");
        return;
    };
    for grant in [OF_ACCOUNT, OF_CONTAINER] {
        let account = Account::new(grant).await;
        let minted = account.mint().await;
        let key = account.azure.slot(&account.id, "key2").value;
        let ran = Command::new(&python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/azure_sdk_sas.py"))
            .args(["gisstore", CONTAINER])
            .env("ACCOUNT_KEY", &key)
            .env("SAS", minted.secret().expose())
            .output()
            .expect("python runs");
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success(), "{said}{}", String::from_utf8_lossy(&ran.stderr));
        assert_eq!(said.trim(), "the same signature", "{grant}");
    }
}

#[tokio::test]
async fn a_policy_that_blocks_long_tokens_is_met_before_anything_is_made() {
    let account = Account::new(&format!("{OF_ACCOUNT}\nvalid_for = \"90d\"")).await;
    let idle = account.slot("key2").await;
    let intent = IntentId::new("r1.1");
    account.azure.set_sas_policy(&account.id, Some(("30.00:00:00", "Block")));
    for refused in [account.issuer.rights().await.map(drop), account.issuer.mint(&intent, Some(&idle)).await.map(drop)]
    {
        let (why, said) = reason(refused);
        assert_eq!(why, Reason::PolicyMismatch);
        assert!(said.contains("blocks a SAS that is good for longer than 30d, and valid_for is 90d"), "{said}");
    }
    assert_eq!(account.azure.regenerations(), 0);
    for lenient in [("30.00:00:00", "Log"), ("90.00:00:00", "Block"), ("soon", "Block")] {
        account.azure.set_sas_policy(&account.id, Some(lenient));
        account.issuer.rights().await.unwrap_or_else(|fault| panic!("{lenient:?}: {fault:?}"));
    }
}

#[tokio::test]
async fn a_token_is_made_of_the_slot_and_ends_a_fixed_time_after_its_key_was_made() {
    let account = Account::new(&format!("{OF_ACCOUNT}\nvalid_for = \"90d\"")).await;
    let minted = account.mint().await;
    let made = account.azure.slot(&account.id, "key2").created.expect("a regeneration is dated");
    let ends = minted.ends().expect("a token says when it ends");
    // Keys are called by milliseconds, and Azure counts finer.
    assert_eq!(ends.timestamp_millis() - made.timestamp_millis(), chrono::TimeDelta::days(90).num_milliseconds());
    assert!(!minted.secret().expose().contains("st="), "a beginning would be refused by a clock that is behind");
    let listed = account.issuer.list().await.expect("lists");
    let tails: Vec<_> = listed.keys.iter().map(|key| key.tail.clone()).collect();
    assert!(tails.contains(&minted.secret().tail()));
}

/// A key that was never regenerated has no time, and no SAS that could be made again; the mint makes one that has.
#[tokio::test]
async fn a_slot_without_a_time_is_listed_and_can_be_replaced() {
    let account = Account::new(OF_ACCOUNT).await;
    account.azure.set_created(&account.id, "key2", None);
    let listed = account.issuer.list().await.expect("lists");
    assert!(listed.keys.iter().any(|key| key.id.as_str().starts_with("key2@sha256-") && key.tail.is_none()));
    assert_eq!(account.issuer.probe(&account.mint().await).await, Ok(Probe::Works));
}

/// The answer to the regeneration shows no time: what was made is looked for, as after any answer that tells nothing.
#[tokio::test]
async fn a_new_key_without_a_time_signs_nothing() {
    let account = Account::new(OF_ACCOUNT).await;
    let idle = account.slot("key2").await;
    let (azure, id) = (account.azure.clone(), account.id.clone());
    account.azure.on_regenerated(move |_| azure.set_created(&id, "key2", None));
    let fault = account.issuer.mint(&IntentId::new("r1.1"), Some(&idle)).await.expect_err("nothing to sign with");
    assert!(matches!(&fault, Fault::Unknown(why) if why.contains("nothing tells when key key2@sha256-")), "{fault:?}");
}

/// Whoever brings the token in use need not know which key signed it.
#[tokio::test]
async fn a_token_that_is_brought_tells_its_slot() {
    let account = Account::new(OF_ACCOUNT).await;
    let (key1, key2) = (account.slot("key1").await, account.slot("key2").await);
    let hour = Duration::from_secs(3600);
    for (token, slot) in [
        (account.azure.account_sas(&account.id, "key1", hour), &key1),
        (format!("?{}", account.azure.container_sas(&account.id, CONTAINER, "key2", hour)), &key2),
    ] {
        let brought = async |key: &KeyId| account.issuer.known(key, Some(Secret::new(token.clone()))).await;
        let known = brought(slot).await.expect("answers").expect("it is its own");
        assert_eq!((known.key(), known.secret().expose()), (slot, token.as_str()), "as it was brought");
        assert_eq!(account.issuer.probe(&known).await, Ok(Probe::Works));
        let other = if *slot == key1 { &key2 } else { &key1 };
        let (why, said) = reason(brought(other).await);
        assert_eq!(why, Reason::Refused);
        assert!(said.ends_with(&format!("it is signed with key {slot}")), "{said}");
        assert!(!said.contains("sig="), "{said}");
    }
    let stale = account.azure.account_sas(&account.id, "key1", hour);
    account.azure.regenerate(&account.id, "key1");
    let now = account.slot("key1").await;
    let (_, said) = reason(account.issuer.known(&now, Some(Secret::new(stale))).await);
    assert!(said.contains("it is signed with neither key of the account"), "{said}");
}

#[tokio::test]
async fn a_probe_knows_what_arm_knows_and_says_no_word_of_the_token() {
    let account = Account::new(OF_ACCOUNT).await;
    let minted = account.mint().await;
    assert_eq!(account.issuer.probe(&minted).await, Ok(Probe::Works));
    account.azure.regenerate(&account.id, "key2");
    let said = account.issuer.probe(&minted).await;
    assert!(matches!(&said, Ok(Probe::NotYet(why)) if why.contains("no slot holds that key")), "{said:?}");

    let other = account.mint().await;
    account.azure.fault("ListBlobs", Mishap::DropBefore);
    let fault = account.issuer.probe(&other).await.expect_err("nobody answers");
    assert!(!format!("{fault:?}").contains("sig"), "{fault:?}");
}

/// The consumer's own container, which this token does not open.
#[tokio::test]
async fn a_token_that_may_not_list_is_told_from_a_wrong_one() {
    let strict = "permissions = \"r\"";
    let azure = Azure::start(AzureOptions::default()).await;
    let id = azure.add_storage_account("gisstore");
    azure.add_container(&id, CONTAINER);
    let probe = "probe = { container = \"gis\", expect = \"authenticates\" }";
    let text = format!("resource_id = \"{id}\"\nexclusive = true\n{strict}\n{probe}");
    let more = format!("blob_url = \"{}\"\n", azure.blob_url());
    let issuer = connect_with(&KIND, &azure, &more, &text);
    let account = Account::of(azure, issuer, id);
    assert_eq!(account.issuer.probe(&account.mint().await).await, Ok(Probe::Works));
}

#[tokio::test]
async fn an_endpoint_that_only_arm_names_is_asked_for() {
    let account = Account::new(OF_ACCOUNT).await;
    let minted = account.mint().await;
    let issuer = connect(&KIND, &account.azure, &policy(&account.id, OF_ACCOUNT));
    let before = sent(&account.azure, "GetAccount");
    assert_eq!(issuer.probe(&minted).await, Ok(Probe::Works));
    assert_eq!(sent(&account.azure, "GetAccount"), before + 1);
}
