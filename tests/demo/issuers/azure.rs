//! Azure: the keys of a storage account, what is signed with them, and the secrets of an application.

use std::time::Duration;

use chrono::SecondsFormat;
use rekeyd::model::{KeyId, Secret};
use rekeyd_lab::{ArcGis, Azure, ServiceSpec, SlotView};
use serde_json::{Value, json};

use super::{Adoption, Follower, Issuer};
use crate::places::{Deployment, PROVIDER, Place};

/// The storage account that the connection of the lab's Azure Blob Stores names, and what they read in it.
const ACCOUNT: &str = "gisstore";
const CONTAINER: &str = "tiles";

/// The cloud service that holds a SAS of that account.
const SAS_HOLDER: &str = "blobsas001";

/// `azure-key`: the two keys of a storage account with a container, and beside them `azure-sas`: a SAS that one of them signs.
pub fn storage_account(azure: &Azure) -> Box<dyn Issuer> {
    let id = azure.add_storage_account(ACCOUNT);
    azure.add_container(&id, CONTAINER);
    let first = azure.slot(&id, "key1");
    Box::new(StorageAccount { azure: azure.clone(), id, first })
}

/// `entra-secret`: the client secrets of an application that may read the same container.
pub fn application(azure: &Azure, name: &'static str) -> Box<dyn Issuer> {
    let (object_id, client_id) = azure.add_application(name);
    let first = azure.create_password(&object_id, "made by hand");
    Box::new(Application { azure: azure.clone(), name, object_id, client_id, first })
}

struct StorageAccount {
    azure: Azure,
    /// In Azure Resource Manager.
    id: String,
    first: SlotView,
}

impl Issuer for StorageAccount {
    fn title(&self) -> String {
        format!("storage account {ACCOUNT}")
    }

    fn policy(&self) -> String {
        let id = &self.id;
        format!(
            r#"{{ kind = "azure-key", account = "main", resource_id = "{id}", exclusive = true, probe = {{ container = "{CONTAINER}" }} }}"#
        )
    }

    fn furnish(&self, place: &Place) {
        let Deployment { arcgis, holder, .. } = place.deployment();
        let secret = json!({ "storageAccountName": ACCOUNT, "storageAccountKey": self.first.value });
        add_blob_store(arcgis, &self.azure, holder.name(), &json!({ "type": "STORAGE-ACCOUNT-KEY", "secret": secret }));
        let token = self.azure.account_sas(&self.id, &self.first.name, Duration::from_secs(3600));
        let secret = json!({ "storageAccountName": ACCOUNT, "sasToken": token });
        let held = json!({ "type": "SAS-TOKEN", "secret": secret });
        add_blob_store(arcgis, &self.azure, SAS_HOLDER, &held);
    }

    fn follower(&self) -> Option<Follower> {
        let policy = format!(
            r#"{{ kind = "azure-sas", from = "blob-key", permissions = "rwdl", probe = {{ container = "{CONTAINER}" }} }}"#
        );
        Some(Follower { name: "blob-sas", cloud_service: SAS_HOLDER, policy })
    }

    fn adoption(&self) -> Adoption {
        // Its secret is no question: ARM shows what is in both slots.
        Adoption { key: KeyId::new(key_in(&self.first)), secret: None, idle_slot_free: true }
    }

    fn keys(&self, held: &Value) -> Vec<String> {
        let held = &held["secret"]["storageAccountKey"];
        let state = |slot: &SlotView| if *held == *slot.value { "in use" } else { "idle" };
        self.azure.slots(&self.id).iter().map(|slot| format!("{} {}", key_in(slot), state(slot))).collect()
    }

    /// A slot is never empty.
    fn keys_at_rest(&self) -> usize {
        2
    }

    fn takes(&self, held: &Value) -> bool {
        held["secret"]["storageAccountKey"].as_str().is_some_and(|key| self.azure.works(&self.id, key))
    }
}

/// The slot's name alone does not tell a key from the one before it.
fn key_in(slot: &SlotView) -> String {
    let created = slot.created.map(|at| at.to_rfc3339_opts(SecondsFormat::Millis, true));
    format!("{}@{}", slot.name, created.unwrap_or_default())
}

struct Application {
    azure: Azure,
    name: &'static str,
    object_id: String,
    client_id: String,
    /// Id and secret.
    first: (String, String),
}

impl Issuer for Application {
    fn title(&self) -> String {
        format!("application {}", self.name)
    }

    fn policy(&self) -> String {
        let (object, client) = (&self.object_id, &self.client_id);
        format!(
            r#"{{ kind = "entra-secret", account = "main", application_object_id = "{object}", client_id = "{client}", storage_account = "{ACCOUNT}", probe = {{ container = "{CONTAINER}" }} }}"#
        )
    }

    /// In the form of Server, which names no account: the connection of its store does.
    fn furnish(&self, place: &Place) {
        let Deployment { arcgis, holder, .. } = place.deployment();
        let (tenant, (_, secret)) = (self.azure.tenant_id(), &self.first);
        let secret = json!({ "tenantId": tenant, "clientId": self.client_id, "clientSecret": secret });
        add_blob_store(arcgis, &self.azure, holder.name(), &json!({ "type": "SERVICE-PRINCIPAL", "secret": secret }));
    }

    fn adoption(&self) -> Adoption {
        let (id, secret) = self.first.clone();
        Adoption { key: KeyId::new(id), secret: Some(Secret::new(secret)), idle_slot_free: false }
    }

    fn keys(&self, held: &Value) -> Vec<String> {
        let held = held["secret"]["clientSecret"].as_str();
        let state = |id: &str| if self.azure.secret_of(id).as_deref() == held { "in use" } else { "not in use" };
        let ids = self.azure.passwords(&self.object_id).into_iter().map(|secret| secret.key_id);
        ids.map(|id| format!("{id} {}", state(&id))).collect()
    }

    fn takes(&self, held: &Value) -> bool {
        held["secret"]["clientSecret"].as_str().is_some_and(|secret| self.azure.signs_in(&self.client_id, secret))
    }
}

/// An Azure Blob Store on the container, holding this. Only cloud services hold keys of Azure here: a registered data store takes
/// Amazon's alone.
fn add_blob_store(arcgis: &ArcGis, azure: &Azure, id: &str, held: &Value) {
    arcgis.use_azure(azure);
    arcgis.add_provider(PROVIDER, "AZURE", None);
    arcgis.add_service_with(ServiceSpec::azure_blob_store(id, PROVIDER, CONTAINER));
    arcgis.set_credential_object(id, held);
}
