//! `azure-key`: the keys of a storage account, a Cosmos DB account or a Service Bus namespace's policy, through ARM.
//!
//! Two slots, each always with a key. A mint regenerates the idle one, which destroys what that held; a retire regenerates the one
//! that leaves, by a key that nobody has. How that is done stands in [`azure::keys`](super::azure::keys); here stands what a policy
//! says of such a service, what targets need of a key, and how each of the three products is asked whether it takes one.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::azure::account::{self, Account};
use super::azure::blob::{self, Container, Credential, Expect};
use super::azure::client::{Azure, signing_time};
use super::azure::faults::Call;
use super::azure::keys::Keys;
use super::azure::resource::{self, AccountKind, Resource};
use crate::model::{
    AccountIdentity, IntentId, IssuerSpec, KeyId, Material, MaterialKind, Reason, Secret, Shape, Standing, SystemSpec,
};
use crate::net::Context;
use crate::ports::{Fault, Issuer, LastUse, Listing, MintedKey, Probe};
use crate::table::Table;

mod probe;

/// The kind `azure-key` and the accounts of `[azure]`.
pub const KIND: super::Kind = super::Kind {
    name: "azure-key",
    system: Some("azure"),
    read_system: account::read,
    read,
    material,
    lifetime: super::for_ever,
    watch_min: super::at_once,
    derivation: None,
    connect,
};

/// `[service.issuer]` of this kind, as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Config {
    resource_id: String,
    probe: Look,
}

/// How a key is tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Look {
    /// A storage account: by listing the consumer's container.
    Container(Container),
    /// Cosmos DB and Service Bus: by listing what the account has.
    Data {
        expect: Expect,
        /// Comes before the endpoint that ARM tells.
        endpoint_url: Option<String>,
    },
}

fn read(table: &mut Table<'_>, system: Option<&SystemSpec>) -> Option<IssuerSpec> {
    let account = Account::of(system);
    let resource = resource::read(table);
    let exclusive = resource::read_exclusive(table);
    let probe = match resource.as_ref().map(|resource| resource.kind) {
        Some(AccountKind::Storage) => blob::read(table).map(Look::Container),
        Some(AccountKind::Cosmos | AccountKind::ServiceBus) => read_look(table),
        None => {
            table.asked("probe");
            None
        }
    };
    let (resource, probe, account, system) = (resource?, probe?, account?, system?);
    Some(IssuerSpec {
        kind: KIND.name.to_owned(),
        system: Some(system.at.clone()),
        object: resource::object(&resource),
        shape: Shape::Slots,
        exclusive,
        propagation: resource.kind.propagation(),
        settle: account.settle(resource.kind.settle()),
        last_used_lag: None,
        config: serde_json::to_value(Config { resource_id: resource.keyed(), probe }).ok()?,
    })
}

/// `probe` may be left out where there is nothing that must be said.
fn read_look(table: &mut Table<'_>) -> Option<Look> {
    let Some(mut probe) = table.table("probe") else {
        return (!table.has("probe")).then_some(Look::Data { expect: Expect::Read, endpoint_url: None });
    };
    let expect = blob::read_expect(&mut probe);
    let endpoint_url = probe.url("endpoint_url");
    Some(Look::Data { expect, endpoint_url })
}

fn material(spec: &IssuerSpec) -> Option<MaterialKind> {
    let config: Config = serde_json::from_value(spec.config.clone()).ok()?;
    Some(match Resource::parse(&config.resource_id).ok()?.kind {
        AccountKind::Storage => MaterialKind::StorageAccountKey,
        AccountKind::Cosmos => MaterialKind::CosmosAccountKey,
        AccountKind::ServiceBus => MaterialKind::ServiceBusKey,
    })
}

fn connect(spec: &IssuerSpec, system: Option<&SystemSpec>, context: &Context) -> Result<Arc<dyn Issuer>, Fault> {
    let config: Config = super::config(spec)?;
    let resource = Resource::parse(&config.resource_id).map_err(|why| super::mismatch(spec, why))?;
    let azure = Azure::connect(system, &spec.object, context)?;
    Ok(Arc::new(AzureKey { keys: Keys::new(resource, azure), probe: config.probe }))
}

/// One account's keys, and how they are tried.
struct AzureKey {
    keys: Keys,
    probe: Look,
}

impl AzureKey {
    fn material(&self, id: KeyId, key: Secret) -> Material {
        let resource = &self.keys.resource;
        let account = resource.name.clone();
        match (resource.kind, &resource.rule) {
            (AccountKind::Storage, _) => Material::StorageAccountKey { id, account, key },
            (AccountKind::Cosmos, _) => Material::CosmosAccountKey { id, account, key },
            (AccountKind::ServiceBus, rule) => {
                Material::ServiceBusKey { id, key_name: rule.clone().unwrap_or_default(), key }
            }
        }
    }

    /// Where the data plane is.
    async fn endpoint(&self) -> Result<String, Fault> {
        let named = match &self.probe {
            Look::Container(container) => container.endpoint(&self.keys.azure.account, &self.keys.resource.name),
            Look::Data { endpoint_url, .. } => endpoint_url.clone(),
        };
        self.keys.endpoint(named).await
    }

    /// Why a key that belongs to a slot is not worth trying: ARM shows what is in the slot.
    async fn contradicted(&self, id: &KeyId, key: &Secret) -> Result<Option<Probe>, Fault> {
        let call = Call::new(format!("try key {id} of {}", self.keys.resource.called()));
        Ok(match self.keys.slot(id).await? {
            None => Some(Probe::NotYet(call.text("no slot holds it"))),
            Some(slot) if slot.key != *key => Some(Probe::Wrong(call.text("the slot holds another secret"))),
            Some(_) => None,
        })
    }
}

#[async_trait]
impl Issuer for AzureKey {
    async fn identity(&self) -> Result<AccountIdentity, Fault> {
        self.keys.identity().await
    }

    async fn list(&self) -> Result<Listing, Fault> {
        self.keys.list().await
    }

    async fn mint(&self, _intent: &IntentId, replaces: Option<&KeyId>) -> Result<MintedKey, Fault> {
        let slot = self.keys.replace(replaces).await?;
        Ok(MintedKey { created: slot.created, material: self.material(slot.id(), slot.key) })
    }

    async fn probe(&self, material: &Material) -> Result<Probe, Fault> {
        let (resource, http) = (&self.keys.resource, &self.keys.azure.http);
        let name = &resource.name;
        let (id, key) = match (resource.kind, material) {
            (AccountKind::Storage, Material::StorageAccountKey { id, account, key }) if account == name => (id, key),
            (AccountKind::Cosmos, Material::CosmosAccountKey { id, account, key }) if account == name => (id, key),
            (AccountKind::ServiceBus, Material::ServiceBusKey { id, key, .. }) => (id, key),
            _ => {
                let why = format!("probe key {} as one of {}: it is none", material.key(), resource.called());
                return Err(Fault::Refused { reason: Reason::PolicyMismatch, why });
            }
        };
        if let Some(said) = self.contradicted(id, key).await? {
            return Ok(said);
        }
        let endpoint = self.endpoint().await?;
        let now = signing_time();
        match (&self.probe, &resource.rule) {
            (Look::Container(container), _) => container.look(http, &endpoint, name, Credential::Key(key), now).await,
            (Look::Data { expect, .. }, Some(rule)) => {
                probe::look_into_bus(http, &endpoint, rule, key, *expect, now).await
            }
            (Look::Data { .. }, None) => probe::look_into_cosmos(http, &endpoint, name, key, now).await,
        }
    }

    async fn rights(&self) -> Result<Option<Standing>, Fault> {
        self.keys.rights().await.map(Some)
    }

    /// Azure reports no use of an account key.
    async fn last_use(&self, _key: &KeyId) -> Result<LastUse, Fault> {
        Ok(LastUse::Untold)
    }

    async fn disable(&self, key: &KeyId) -> Result<(), Fault> {
        Err(self.keys.no_switch("disable", key))
    }

    async fn enable(&self, key: &KeyId) -> Result<(), Fault> {
        Err(self.keys.no_switch("enable", key))
    }

    async fn delete(&self, key: &KeyId) -> Result<(), Fault> {
        self.keys.destroy(key).await
    }

    /// ARM shows it again, so a secret that somebody brings is compared.
    async fn known(&self, key: &KeyId, secret: Option<Secret>) -> Result<Option<Material>, Fault> {
        let Some(slot) = self.keys.slot(key).await? else { return Ok(None) };
        if secret.is_some_and(|secret| secret != slot.key) {
            let why = format!("look at key {key} of {}: its slot holds another secret", self.keys.resource.called());
            return Err(Fault::Refused { reason: Reason::Refused, why });
        }
        Ok(Some(self.material(key.clone(), slot.key)))
    }
}

#[cfg(test)]
mod tests;
