//! Where the demo's keys come from, one type for each kind of issuer, as the clouds know them and not as rekeyd does: the first key
//! that a person made, and later what there is in truth.

use std::time::Duration;

use chrono::SecondsFormat;
use rekeyd::model::{KeyId, Secret};
use rekeyd_lab::{ArcGis, Aws, Azure, ServiceSpec, SlotView, StoredCredential};
use serde_json::{Value, json};

use crate::Place;

const PROVIDER: &str = "betc4g098c";

/// The storage account that the connection of the lab's Azure Blob Stores names, and what they read in it.
const ACCOUNT: &str = "gisstore";
const CONTAINER: &str = "tiles";

/// The cloud service that holds a SAS of that account.
const SAS_HOLDER: &str = "blobsas001";

/// What the demo asks of an issuer.
pub trait Issuer {
    /// As a person calls it.
    fn title(&self) -> String;

    /// The value of `issuer` in the policy.
    fn policy(&self) -> String;

    /// Sets up a place with what somebody put there by hand: the first key.
    fn furnish(&self, arcgis: &ArcGis, place: Place);

    /// What an operator says of the first key.
    fn adoption(&self) -> Adoption;

    /// Every key there is now, with the word for its state. `held` is what ArcGIS holds, as an object in clear.
    fn keys(&self, held: &Value) -> Vec<String>;

    /// How many keys there are while nothing is rotated.
    fn keys_at_rest(&self) -> usize {
        1
    }

    /// Whether what ArcGIS holds opens anything now.
    fn takes(&self, held: &Value) -> bool;

    /// A second service, without keys of its own: what it holds is signed with these.
    fn follower(&self) -> Option<Follower> {
        None
    }
}

/// A service that moves with another one.
pub struct Follower {
    pub name: &'static str,
    /// The cloud service that holds what is signed.
    pub cloud_service: &'static str,
    /// The value of `issuer` in the policy.
    pub policy: String,
}

/// The arguments of `rekeyd adopt`.
pub struct Adoption {
    pub key: KeyId,
    /// Of a secret that cannot be read again, so that rekeyd can go back to it.
    pub secret: Option<Secret>,
    /// The first rotation puts its key into the other slot, and only a person can know that nobody uses what is there.
    pub idle_slot_free: bool,
}

/// `aws-iam`: the access keys of a user with a bucket.
pub fn iam_user(aws: &Aws, name: &'static str) -> Box<dyn Issuer> {
    aws.add_user(name);
    aws.add_bucket(&bucket_of(name), &[name]);
    let (access_key, secret_key) = aws.create_key(name);
    Box::new(IamUser { aws: aws.clone(), name, first: StoredCredential { access_key, secret_key } })
}

/// Gives the nodes below an ArcGIS a role that may read this user's bucket too.
pub fn give_nodes_a_role(arcgis: &ArcGis, aws: &Aws, user: &str) {
    const NODES: &str = "nodes-of-kubernetes";
    aws.add_user(NODES);
    aws.add_bucket(&bucket_of(user), &[user, NODES]);
    let (access_key, secret) = aws.create_key(NODES);
    arcgis.set_node_role(&access_key, &secret);
}

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

struct IamUser {
    aws: Aws,
    name: &'static str,
    first: StoredCredential,
}

impl Issuer for IamUser {
    fn title(&self) -> String {
        format!("IAM user {}", self.name)
    }

    fn policy(&self) -> String {
        let (user, bucket) = (self.name, bucket_of(self.name));
        format!(
            r#"{{ kind = "aws-iam", account = "main", user = "{user}", probe = {{ bucket = "{bucket}", region = "us-east-1" }} }}"#
        )
    }

    fn furnish(&self, arcgis: &ArcGis, place: Place) {
        let (held, bucket) = (self.first.clone(), bucket_of(self.name));
        match place {
            Place::CloudService(id) => {
                arcgis.add_provider(PROVIDER, "AWS", None);
                arcgis.add_service(id, PROVIDER, &bucket, Some(held));
            }
            Place::Provider(id, services) => {
                arcgis.add_provider(id, "AWS", Some(held));
                services.iter().for_each(|service| arcgis.add_service(service, id, &bucket, None));
            }
            Place::DataItem(path) => arcgis.add_data_item(path, &bucket, held),
        }
    }

    fn adoption(&self) -> Adoption {
        Adoption { key: KeyId::new(&self.first.access_key), secret: None, idle_slot_free: false }
    }

    fn keys(&self, _: &Value) -> Vec<String> {
        let state = |active| if active { "active" } else { "inactive" };
        self.aws.keys(self.name).into_iter().map(|key| format!("{} {}", key.id, state(key.active))).collect()
    }

    fn takes(&self, held: &Value) -> bool {
        self.aws.keys(self.name).iter().any(|key| held["secret"]["accessKey"] == *key.id && key.active)
    }
}

fn bucket_of(user: &str) -> String {
    format!("{user}-bucket")
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

    fn furnish(&self, arcgis: &ArcGis, place: Place) {
        let secret = json!({ "storageAccountName": ACCOUNT, "storageAccountKey": self.first.value });
        add_blob_store(arcgis, &self.azure, place, &json!({ "type": "STORAGE-ACCOUNT-KEY", "secret": secret }));
        let token = self.azure.account_sas(&self.id, &self.first.name, Duration::from_secs(3600));
        let secret = json!({ "storageAccountName": ACCOUNT, "sasToken": token });
        let held = json!({ "type": "SAS-TOKEN", "secret": secret });
        add_blob_store(arcgis, &self.azure, Place::CloudService(SAS_HOLDER), &held);
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
    fn furnish(&self, arcgis: &ArcGis, place: Place) {
        let (tenant, (_, secret)) = (self.azure.tenant_id(), &self.first);
        let secret = json!({ "tenantId": tenant, "clientId": self.client_id, "clientSecret": secret });
        add_blob_store(arcgis, &self.azure, place, &json!({ "type": "SERVICE-PRINCIPAL", "secret": secret }));
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
fn add_blob_store(arcgis: &ArcGis, azure: &Azure, place: Place, held: &Value) {
    let id = place.holder();
    arcgis.use_azure(azure);
    arcgis.add_provider(PROVIDER, "AZURE", None);
    arcgis.add_service_with(ServiceSpec::azure_blob_store(id, PROVIDER, CONTAINER));
    arcgis.set_credential_object(id, held);
}
