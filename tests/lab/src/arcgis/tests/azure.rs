//! Services on Azure Blob Storage really use what they hold, and a refusal is counted whichever way it comes.

use super::*;
use crate::{AzureOptions, key_name};

const BLOBS: &str = "blobblob00";
const HOUR: Duration = Duration::from_secs(3600);

/// A site whose Azure Blob Store reads the container `tiles` of the account `gisstore`.
struct Store {
    lab: Lab,
    azure: Azure,
    account: String,
}

impl Store {
    async fn new(options: ArcGisOptions, azure: AzureOptions) -> Self {
        let (lab, azure) = (Lab::new(options).await, Azure::start(azure).await);
        let account = azure.add_storage_account("gisstore");
        azure.add_container(&account, "tiles");
        lab.arcgis.use_azure(&azure);
        lab.arcgis.add_provider("azureazure", "AZURE", None);
        lab.arcgis.add_service_with(ServiceSpec::azure_blob_store(BLOBS, "azureazure", "tiles"));
        Self { lab, azure, account }
    }

    async fn plain() -> Self {
        Self::new(quick(), AzureOptions::default()).await
    }

    fn arcgis(&self) -> &ArcGis {
        &self.lab.arcgis
    }

    fn key(&self, slot: &str) -> String {
        self.azure.slot(&self.account, slot).value
    }

    fn hold_key(&self, key: &str) {
        self.arcgis().set_credential_object(BLOBS, &of_key(key));
    }

    /// An application with a password: object id, client id, key id, secret.
    fn application(&self) -> [String; 4] {
        let (object_id, client_id) = self.azure.add_application("gis");
        let (key_id, secret) = self.azure.create_password(&object_id, "by hand");
        [object_id, client_id, key_id, secret]
    }

    /// What a principal's credential looks like in this product.
    fn of_principal(&self, client_id: &str, secret: &str) -> Value {
        let principal = json!({"tenantId": self.azure.tenant_id(), "clientId": client_id, "clientSecret": secret});
        if self.arcgis().site().is_server() {
            return json!({"type": "SERVICE-PRINCIPAL", "secret": principal});
        }
        json!({"type": "SERVICE-PRINCIPAL", "secret": {"storageAccountName": "gisstore"}, "servicePrincipal": principal})
    }

    async fn until_read_with(&self, name: &str) {
        let reads = || self.arcgis().consumer(BLOBS).last_good_key.as_deref() == Some(name);
        until(&format!("read with {name}"), reads).await;
        assert_eq!(self.arcgis().held_key_name(BLOBS).as_deref(), Some(name));
    }

    /// The codes of its refusals come in this form.
    async fn until_refused(&self, refusal: &str) {
        let refused = || self.arcgis().consumer(BLOBS).last_refusal.as_deref() == Some(refusal);
        until(&format!("refused: {refusal}"), refused).await;
        assert!(!self.arcgis().consumer(BLOBS).healthy);
    }

    fn tokens(&self) -> usize {
        self.azure.requests().iter().filter(|line| line.operation == "ConsumerToken").count()
    }
}

fn of_key(key: &str) -> Value {
    json!({"type": "STORAGE-ACCOUNT-KEY", "secret": {"storageAccountName": "gisstore", "storageAccountKey": key}})
}

fn of_sas(sas: &str) -> Value {
    json!({"type": "SAS-TOKEN", "secret": {"storageAccountName": "gisstore", "sasToken": sas}})
}

#[tokio::test]
async fn a_key_reads_until_its_slot_is_regenerated() {
    let store = Store::plain().await;
    let key = store.key("key1");
    let name = key_name("gisstore", &key);
    assert_eq!((name.len(), name.contains(&key[..8])), ("gisstore#12345678".len(), false));
    store.hold_key(&key);
    store.until_read_with(&name).await;
    let used = store.azure.requests().pop().expect("a line");
    assert_eq!((used.operation.as_str(), used.access_key_id.as_str()), ("ConsumerGet", "key1"));
    store.azure.regenerate(&store.account, "key2");
    let before = store.arcgis().consumer(BLOBS).requests;
    until("use", || store.arcgis().consumer(BLOBS).requests > before + 5).await;
    assert_eq!(store.arcgis().consumer_refusals(), 0);
    store.azure.regenerate(&store.account, "key1");
    store.until_refused(&format!("{name}: AuthenticationFailed")).await;
    until("more", || store.arcgis().consumer_refusals() > 3).await;
    let count = store.arcgis().consumer(BLOBS);
    assert_eq!((count.refusals_by_key.keys().collect::<Vec<_>>(), count.failures), (vec![&name], 0));
}

#[tokio::test]
async fn a_sas_reads_until_the_slot_it_was_signed_with_is_regenerated() {
    let store = Store::plain().await;
    // With its question mark and without.
    for (slot, sas) in [
        ("key1", format!("?{}", store.azure.account_sas(&store.account, "key1", HOUR))),
        ("key2", store.azure.container_sas(&store.account, "tiles", "key2", HOUR)),
    ] {
        store.arcgis().set_credential_object(BLOBS, &of_sas(&sas));
        let name = key_name("gisstore", &sas);
        store.until_read_with(&name).await;
        store.azure.regenerate(&store.account, slot);
        store.until_refused(&format!("{name}: AuthenticationFailed")).await;
    }
}

#[tokio::test]
async fn a_principal_reads_with_one_token_until_that_ends() {
    for options in [quick(), server()] {
        let store = Store::new(options, AzureOptions::default()).await;
        let [object_id, client_id, key_id, secret] = store.application();
        store.arcgis().set_credential_object(BLOBS, &store.of_principal(&client_id, &secret));
        let name = key_name(&client_id, &secret);
        store.until_read_with(&name).await;
        until("use", || store.arcgis().consumer(BLOBS).requests > 5).await;
        assert_eq!(store.tokens(), 1);
        // Another secret asks for a token of its own, though the first one is still good.
        let (other_id, other) = store.azure.create_password(&object_id, "another");
        store.arcgis().set_credential_object(BLOBS, &store.of_principal(&client_id, &other));
        store.until_read_with(&key_name(&client_id, &other)).await;
        assert_eq!(store.tokens(), 2);
        // One that is refused with 401 is not used again.
        store.azure.fault("ConsumerGet", crate::Fault::Error(401));
        until("a third token", || store.tokens() == 3).await;
        until("use", || store.arcgis().consumer(BLOBS).healthy).await;
        assert_eq!(store.arcgis().consumer_refusals(), 1);
        // The secrets go; the token stays.
        store.azure.remove_password(&object_id, &other_id);
        store.azure.remove_password(&object_id, &key_id);
        let before = store.arcgis().consumer(BLOBS).requests;
        until("use", || store.arcgis().consumer(BLOBS).requests > before + 5).await;
        assert_eq!((store.arcgis().consumer_refusals(), store.tokens()), (1, 3));
        // The token goes, and no other is given for that secret.
        store.azure.deny_data(&client_id);
        store.until_refused(&format!("{}: invalid_client 7000215", key_name(&client_id, &other))).await;
        store.azure.allow_data(&client_id);
        let (_, secret) = store.azure.create_password(&object_id, "a new one");
        store.arcgis().set_credential_object(BLOBS, &store.of_principal(&client_id, &secret));
        store.until_read_with(&key_name(&client_id, &secret)).await;
    }
}

#[tokio::test]
async fn a_principals_token_is_asked_for_again_when_it_is_over_or_refused() {
    let store =
        Store::new(quick(), AzureOptions { token_lifetime: Duration::from_secs(1), ..Default::default() }).await;
    let [_, client_id, _, secret] = store.application();
    store.arcgis().set_credential_object(BLOBS, &store.of_principal(&client_id, &secret));
    let name = key_name(&client_id, &secret);
    store.until_read_with(&name).await;
    until("a second token", || store.tokens() == 2).await;
    store.azure.deny_data(&client_id);
    store.until_refused(&format!("{name}: AuthorizationPermissionMismatch")).await;
    until("more tokens", || store.tokens() > 4).await;
    store.azure.allow_data(&client_id);
    until("use", || store.arcgis().consumer(BLOBS).healthy).await;
    assert_eq!(store.arcgis().consumer(BLOBS).failures, 0);
}

#[tokio::test]
async fn a_rotation_done_well_is_not_noticed() {
    let store = Store::plain().await;
    store.hold_key(&store.key("key1"));
    store.until_read_with(&key_name("gisstore", &store.key("key1"))).await;
    let new = store.azure.regenerate(&store.account, "key2");
    let (token, credential) = (store.lab.token().await, of_key(&new).to_string());
    let form = [("credential", credential.as_str()), ("f", "json"), ("token", &token)];
    let url = format!("{}/cloud/services/{BLOBS}/credential/update", store.arcgis().admin_url());
    let accepted = json(store.lab.http.post(url).header("referer", "https://rekeyd").form(&form)).await;
    assert!(accepted["cloudCredentialRotationJobId"].is_string(), "{accepted}");
    store.until_read_with(&key_name("gisstore", &new)).await;
    store.azure.regenerate(&store.account, "key1");
    let before = store.arcgis().consumer(BLOBS).requests;
    until("use", || store.arcgis().consumer(BLOBS).requests > before + 5).await;
    let count = store.arcgis().consumer(BLOBS);
    assert_eq!((count.refusals, count.failures, count.healthy), (0, 0, true));
}

#[tokio::test]
async fn what_is_no_refusal_is_counted_apart() {
    let store = Store::plain().await;
    store.azure.down(true);
    store.hold_key(&store.key("key1"));
    until("failures", || store.arcgis().consumer(BLOBS).failures > 0).await;
    store.azure.down(false);
    until("use", || store.arcgis().consumer(BLOBS).healthy).await;
    let [_, client_id, _, secret] = store.application();
    store.azure.fault("ConsumerToken", crate::Fault::Error(503));
    store.arcgis().set_credential_object(BLOBS, &store.of_principal(&client_id, &secret));
    until("spent", || store.azure.faults_left("ConsumerToken") == 0).await;
    store.until_read_with(&key_name(&client_id, &secret)).await;
    // A container that is not there is nobody's key's fault.
    let spec = ServiceSpec::azure_blob_store("nocontain0", "azureazure", "missing");
    store.arcgis().add_service_with(spec);
    store.arcgis().set_credential_object("nocontain0", &of_key(&store.key("key1")));
    until("failures", || store.arcgis().consumer("nocontain0").failures > 0).await;
    assert_eq!(store.arcgis().consumer_refusals(), 0);
    // A key that is none cannot sign: an outage like any other.
    store.hold_key("no Base64");
    store.until_refused(&format!("{}: the credential cannot be sent", key_name("gisstore", "no Base64"))).await;
}

#[tokio::test]
async fn a_service_uses_its_providers_credential_over_https_too() {
    let store = Store::new(quick(), AzureOptions { tls: true, ..Default::default() }).await;
    store.arcgis().set_credential_object("azureazure", &of_key(&store.key("key2")));
    store.until_read_with(&key_name("gisstore", &store.key("key2"))).await;
    let [_, client_id, _, secret] = store.application();
    store.arcgis().set_credential_object("azureazure", &store.of_principal(&client_id, &secret));
    store.until_read_with(&key_name(&client_id, &secret)).await;
    assert_eq!(store.arcgis().consumer_refusals(), 0);
}

#[tokio::test]
async fn validations_find_out_whether_the_container_opens() {
    let store = Store::plain().await;
    store.arcgis().add_backup_store("nightly", BLOBS);
    let found = async || {
        let token = store.lab.token().await;
        let status = json(store.lab.get(&format!("cloud/services/{BLOBS}/status?f=json"), &token)).await;
        let url = format!("{}/system/disasterrecovery/stores/nightly/validate", store.arcgis().admin_url());
        let form = [("f", "json"), ("token", token.as_str())];
        let validated = json(store.lab.http.post(url).header("referer", "https://rekeyd").form(&form)).await;
        assert_eq!(validated["isReady"] == true, status["status"] == "AVAILABLE", "{validated} {status}");
        validated["isReady"] == true
    };
    assert!(!found().await, "it holds nothing");
    store.hold_key(&store.key("key1"));
    assert!(found().await);
    store.azure.regenerate(&store.account, "key1");
    assert!(!found().await);
    let sas = store.azure.account_sas(&store.account, "key1", HOUR);
    store.arcgis().set_credential_object(BLOBS, &of_sas(&sas));
    assert!(found().await);
    store.azure.allow_keys(&store.account, false);
    assert!(!found().await);
    let [object_id, client_id, key_id, secret] = store.application();
    store.arcgis().set_credential_object(BLOBS, &store.of_principal(&client_id, &secret));
    assert!(found().await);
    store.azure.deny_data(&client_id);
    assert!(!found().await);
    store.azure.allow_data(&client_id);
    store.azure.remove_password(&object_id, &key_id);
    assert!(!found().await);
    // None of these looks is in the log.
    assert!(store.azure.requests().iter().all(|line| line.operation.starts_with("Consumer")));
}

#[tokio::test]
async fn without_an_azure_nobody_uses_what_is_held() {
    let lab = Lab::new(quick()).await;
    lab.arcgis.add_provider("azureazure", "AZURE", None);
    lab.arcgis.add_service_with(ServiceSpec::azure_blob_store(BLOBS, "azureazure", "tiles"));
    lab.arcgis.set_credential_object(BLOBS, &of_key("d3Jvbmc="));
    until("use of S3", || lab.arcgis.consumer(SERVICE).requests > 3).await;
    assert_eq!(lab.arcgis.consumer(BLOBS), ConsumerCount::default());
}
