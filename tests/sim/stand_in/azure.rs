//! Azure's kinds: keys in slots, what is signed with them, and labelled secrets, at the lab's Resource Manager, Graph and Entra.

use std::time::Duration;

use chrono::SecondsFormat;
use rekeyd::model::KeyId;
use rekeyd_lab::{Azure, AzureOptions};
use tempfile::NamedTempFile;

use super::{Living, Mishaps, NOWHERE, Provider, fresh, goes_wrong, login, outside};
use crate::faults::Op;
use crate::scene::Tables;

/// What every account of these worlds has, and every probe lists.
const CONTAINER: &str = "gis";

thread_local! {
    /// One for all histories of a thread: each has an account or an application of its own.
    static AZURE: Azure = outside(Azure::start(AzureOptions::default()));
}

fn azure() -> Azure {
    AZURE.with(Clone::clone)
}

goes_wrong!(Azure);

/// `[azure.main]`, as it is and with nobody at its addresses.
fn accounts(azure: &Azure, secret: &NamedTempFile) -> [String; 2] {
    let here = [azure.authority_url(), azure.arm_url(), azure.graph_url(), azure.blob_url()];
    let nowhere = std::array::from_fn(|_| NOWHERE.to_owned());
    [here, nowhere].map(|[authority, arm, graph, blob]| {
        format!(
            "[azure.main]\ntenant_id = \"{}\"\nclient_id = \"{}\"\nclient_secret = {{ file = \"{}\" }}\nsettle = \"2m\"\n\
             request_timeout = \"30s\"\nauthority_url = \"{authority}\"\narm_url = \"{arm}\"\ngraph_url = \"{graph}\"\n\
             blob_url = \"{blob}\"\n",
            azure.tenant_id(),
            azure.admin().0,
            secret.path().display(),
        )
    })
}

/// A storage account with its two slots.
struct Account {
    azure: Azure,
    id: String,
    name: String,
    _secret: NamedTempFile,
}

/// A storage account whose keys the targets hold; at the second target what is signed with them, where the scene is of that.
pub fn keys(signed: bool) -> Tables {
    let (account, accounts) = Account::new();
    let (id, probe) = (&account.id, format!("probe = {{ container = \"{CONTAINER}\" }}\n"));
    let issuer = format!("kind = \"azure-key\"\naccount = \"main\"\nresource_id = \"{id}\"\nexclusive = true\n{probe}");
    let follower = signed.then(|| {
        format!("kind = \"azure-sas\"\naccount = \"main\"\nfrom = \"store\"\ncontainer = \"{CONTAINER}\"\npermissions = \"rl\"\n")
    });
    let first = account.key_id("key1");
    Tables { accounts, issuer: [issuer.clone(), issuer], follower, first, secret: None, provider: Box::new(account) }
}

/// A storage account whose targets hold what is signed with its keys.
pub fn signatures() -> Tables {
    let (account, accounts) = Account::new();
    let issuer = format!(
        "kind = \"azure-sas\"\naccount = \"main\"\nresource_id = \"{}\"\nexclusive = true\ncontainer = \"{CONTAINER}\"\n\
         permissions = \"rl\"\nprobe = {{ container = \"{CONTAINER}\" }}\n",
        account.id
    );
    // Nobody shows what somebody signed.
    let by_hand = account.azure.container_sas(&account.id, CONTAINER, "key1", Duration::from_secs(180 * 24 * 3600));
    let (first, secret) = (account.key_id("key1"), Some(by_hand));
    Tables { accounts, issuer: [issuer.clone(), issuer], follower: None, first, secret, provider: Box::new(account) }
}

impl Account {
    fn new() -> (Account, [String; 2]) {
        let (azure, name) = (azure(), fresh("store"));
        let id = azure.add_storage_account(&name);
        azure.add_container(&id, CONTAINER);
        let secret = login(&azure.admin().1);
        let accounts = accounts(&azure, &secret);
        (Account { azure, id, name, _secret: secret }, accounts)
    }

    fn key_id(&self, slot: &str) -> KeyId {
        let slot = self.azure.slot(&self.id, slot);
        let created = slot.created.expect("the lab dates every key");
        KeyId::new(format!("{}@{}", slot.name, created.to_rfc3339_opts(SecondsFormat::Millis, true)))
    }
}

impl Provider for Account {
    fn keys(&self) -> Vec<Living> {
        let in_slot =
            |slot| Living { id: self.key_id(slot), secret: self.azure.slot(&self.id, slot).value, active: true };
        ["key1", "key2"].map(in_slot).into()
    }

    fn request(&self, op: Op) -> &'static str {
        match op {
            Op::Identity => "GetAccount",
            Op::Mint | Op::Delete => "RegenerateKey",
            Op::Probe => "ListBlobs",
            _ => "ListKeys",
        }
    }

    fn mishaps(&self, _op: Op) -> &dyn Mishaps {
        &self.azure
    }

    fn remove(&self, key: &KeyId) {
        let (slot, _) = key.as_str().split_once('@').expect("keys here are called by their slots");
        self.azure.regenerate(&self.id, slot);
    }

    fn make(&self) {
        unreachable!("a slot is never empty");
    }

    fn opens(&self, held: &str, is_signed: bool) -> bool {
        match is_signed {
            true => self.azure.sas_opens(&self.name, CONTAINER, held),
            false => self.azure.works(&self.id, held),
        }
    }
}

/// An application with one secret that a person made.
struct Application {
    azure: Azure,
    object_id: String,
    client_id: String,
    _secret: NamedTempFile,
}

/// An application whose secrets the targets hold.
pub fn secrets() -> Tables {
    let (azure, name) = (azure(), fresh("store"));
    let storage = azure.add_storage_account(&name);
    azure.add_container(&storage, CONTAINER);
    let (object_id, client_id) = azure.add_application(&name);
    let (first, by_hand) = azure.create_password(&object_id, "made by hand");
    let secret = login(&azure.admin().1);
    let accounts = accounts(&azure, &secret);
    let issuer = format!(
        "kind = \"entra-secret\"\naccount = \"main\"\napplication_object_id = \"{object_id}\"\nclient_id = \"{client_id}\"\n\
         storage_account = \"{name}\"\nprobe = {{ container = \"{CONTAINER}\" }}\n"
    );
    let provider = Box::new(Application { azure, object_id, client_id, _secret: secret });
    Tables {
        accounts,
        issuer: [issuer.clone(), issuer],
        follower: None,
        first: KeyId::new(first),
        secret: Some(by_hand),
        provider,
    }
}

impl Provider for Application {
    fn keys(&self) -> Vec<Living> {
        let living = self.azure.passwords(&self.object_id).into_iter().map(|password| password.key_id);
        let secret = |id: &str| self.azure.secret_of(id).expect("the lab forgets no secret");
        living.map(|id| Living { secret: secret(&id), id: KeyId::new(id), active: true }).collect()
    }

    fn request(&self, op: Op) -> &'static str {
        match op {
            Op::Mint => "AddPassword",
            Op::Delete => "RemovePassword",
            Op::Probe => "ListBlobs",
            _ => "GetApplication",
        }
    }

    fn mishaps(&self, _op: Op) -> &dyn Mishaps {
        &self.azure
    }

    fn remove(&self, key: &KeyId) {
        self.azure.remove_password(&self.object_id, key.as_str());
    }

    fn make(&self) {
        self.azure.create_password(&self.object_id, "made by hand");
    }

    fn opens(&self, held: &str, _is_signed: bool) -> bool {
        self.azure.signs_in(&self.client_id, held)
    }
}
