//! `azure-sas`: shared access signatures of a storage account, signed with one of its two keys.
//!
//! A SAS cannot be taken back; it ends by itself, or with the key that signed it. So a new one is signed with a new key in the idle
//! slot, and the old one is retired with the slot it was signed with: the account's keys are rotated as `azure-key` rotates them, and
//! the targets hold what is signed. A key is known by its slot and time; so is its SAS. With `from` the keys are another service's,
//! which rotates them: this kind then only signs, and tries what it signed. This file does not know which key is in use where.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::azure::account::{self, Account};
use super::azure::blob::{self, Container, Credential, Expect};
use super::azure::client::{Azure, signing_time};
use super::azure::faults::Call;
use super::azure::keys::Keys;
use super::azure::resource::{self, AccountKind, Resource};
use super::azure::slots::Slot;
use crate::model::{
    AccountIdentity, IntentId, IssuerSpec, KeyId, Material, MaterialKind, Reason, Secret, Shape, Standing, SystemSpec,
};
use crate::net::Context;
use crate::ports::{Fault, Issuer, LastUse, Listing, MintedKey, Probe};
use crate::table::{Table, Zero};

mod token;

use token::{Grant, Scope};

/// The kind `azure-sas` and the accounts of `[azure]`.
pub const KIND: super::Kind = super::Kind {
    name: "azure-sas",
    system: Some("azure"),
    read_system: account::read,
    read,
    material,
    lifetime,
    watch_min: super::at_once,
    derivation: Some(super::Derivation { read: read_derivation, over }),
    connect,
};

/// Where the policy says nothing: half a year. It must outlive a rotation and its soak, and ends earlier with its key.
const VALID_FOR: Duration = Duration::from_secs(180 * 24 * 3600);

/// Azure's letters, in the order in which the pages list them: the permissions of an account SAS, those of a container's, the
/// services, and the kinds of resources.
const ACCOUNT_PERMISSIONS: &str = "rwdxylacuptfi";
const CONTAINER_PERMISSIONS: &str = "racwdxyltfmeopi";
const SERVICES: &str = "bqtf";
const RESOURCE_TYPES: &str = "sco";

/// `[service.issuer]` of this kind, as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Config {
    resource_id: String,
    #[serde(flatten)]
    sas: Sas,
}

/// What is signed, and how it is tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Sas {
    grant: Grant,
    probe: Container,
}

fn read(table: &mut Table<'_>, system: Option<&SystemSpec>) -> Option<IssuerSpec> {
    let account = Account::of(system);
    let resource = resource::read(table).filter(|resource| is_storage(table, resource));
    let exclusive = resource::read_exclusive(table);
    let sas = read_sas(table);
    let (resource, sas, account, system) = (resource?, sas?, account?, system?);
    Some(IssuerSpec {
        kind: KIND.name.to_owned(),
        system: Some(system.at.clone()),
        // The slots are the account's, whatever is made of their keys: two services must not share them.
        object: resource::object(&resource),
        shape: Shape::Derived,
        exclusive,
        propagation: resource.kind.propagation(),
        settle: account.settle(resource.kind.settle()),
        last_used_lag: None,
        config: sas.config(&resource, &account)?,
    })
}

/// What a service with `from` says: the account is that service's, and so is the probe where it says none.
#[derive(Serialize, Deserialize)]
struct Derived {
    grant: Grant,
    probe: Option<Container>,
}

fn read_derivation(table: &mut Table<'_>) -> Option<serde_json::Value> {
    let has_probe = table.has("probe");
    let probe = if has_probe { blob::read(table) } else { None };
    table.asked("probe");
    let grant = read_grant(table, probe.as_ref());
    // A probe with a mistake is reported where it stands.
    if has_probe && probe.is_none() {
        return None;
    }
    serde_json::to_value(Derived { grant: grant?, probe }).ok()
}

fn over(sas: serde_json::Value, root: &IssuerSpec, system: Option<&SystemSpec>) -> Result<IssuerSpec, String> {
    let resource = resource::of(root).filter(|_| root.shape == Shape::Slots);
    let resource = resource.ok_or_else(|| format!("it rotates {}, which signs no SAS", root.object))?;
    if resource.kind != AccountKind::Storage {
        return Err(format!("a {} signs no SAS that ArcGIS takes", resource.kind.called()));
    }
    let derived: Option<Derived> = serde_json::from_value(sas).ok();
    let of_root = || serde_json::from_value(root.config.get("probe")?.get("container")?.clone()).ok();
    let sas = derived.and_then(|Derived { grant, probe }| Some(Sas { grant, probe: probe.or_else(of_root)? }));
    let sas = sas.ok_or("it names no container that a SAS could be tried with: say probe = { container = \"...\" }")?;
    if let Scope::Container(container) = &sas.grant.scope
        && container != sas.probe.name()
    {
        return Err(format!(
            "its probe lists container `{}`, which a SAS of `{container}` does not open",
            sas.probe.name()
        ));
    }
    let config = Account::of(system).and_then(|account| sas.config(&resource, &account));
    Ok(IssuerSpec {
        kind: KIND.name.to_owned(),
        object: format!("{}:{}", KIND.name, resource.short()),
        shape: Shape::Derived,
        config: config.ok_or("its account cannot be read")?,
        ..root.clone()
    })
}

impl Sas {
    /// The whole of it, where the account and its address are known.
    fn config(mut self, resource: &Resource, account: &Account) -> Option<serde_json::Value> {
        self.grant.https_only = !self.probe.is_plain(account);
        serde_json::to_value(Config { resource_id: resource.keyed(), sas: self }).ok()
    }
}

fn is_storage(table: &mut Table<'_>, resource: &Resource) -> bool {
    let is_storage = resource.kind == AccountKind::Storage;
    if !is_storage {
        table.mistake(
            "resource_id",
            format!("a {} signs no SAS that ArcGIS takes", resource.kind.called()),
            "name a storage account; for this one there is kind = \"azure-key\"",
        );
    }
    is_storage
}

fn read_sas(table: &mut Table<'_>) -> Option<Sas> {
    let probe = blob::read(table);
    let grant = read_grant(table, probe.as_ref());
    Some(Sas { grant: grant?, probe: probe? })
}

fn read_grant(table: &mut Table<'_>, probe: Option<&Container>) -> Option<Grant> {
    let container = table.text_or("container");
    if let Some(name) = &container
        && !blob::is_container(name)
    {
        table.mistake(
            "container",
            format!("`{name}` is no container's name"),
            "write its name alone: container = \"gis\"",
        );
    }
    if let (Some(container), Some(probe)) = (&container, probe)
        && container != probe.name()
    {
        let what = format!("the probe lists container `{}`, which a SAS of `{container}` does not open", probe.name());
        table.mistake("container", what, "name the same container in both");
    }
    let of_account = container.is_none();
    let letters = if of_account { ACCOUNT_PERMISSIONS } else { CONTAINER_PERMISSIONS };
    let permissions = match table.require("permissions", "permissions = \"rwdl\"") {
        true => read_letters(table, "permissions", letters),
        false => None,
    };
    let services = read_letters(table, "services", SERVICES).unwrap_or_else(|| "b".to_owned());
    let resource_types =
        read_letters(table, "resource_types", RESOURCE_TYPES).unwrap_or_else(|| RESOURCE_TYPES.to_owned());
    for key in ["services", "resource_types"] {
        if of_account || !table.has(key) {
            continue;
        }
        let what = format!("`{key}` is for a SAS of the account, and this one is of a container");
        table.mistake(key, what, format!("remove `{key}`, or `container`"));
    }
    if of_account && !services.contains('b') {
        table.mistake("services", "the SAS would not open the blob service", "add its letter: services = \"b\"");
    }
    let valid_for = table.duration("valid_for", Zero::Refused).unwrap_or(VALID_FOR);
    let permissions = permissions?;
    let lists = permissions.contains('l') && (!of_account || resource_types.contains('c'));
    if probe.is_some_and(|probe| probe.expect() == Expect::Read) && !lists {
        let which = if permissions.contains('l') { "resource_types" } else { "permissions" };
        table.mistake(
            which,
            "the probe lists a container, which this SAS does not allow",
            "add `l` to `permissions` and `c` to `resource_types`, or write expect = \"authenticates\" in the probe",
        );
    }
    let scope = match container {
        Some(container) => Scope::Container(container),
        None => Scope::Account { services, resource_types },
    };
    Some(Grant { permissions, scope, https_only: true, valid_for_s: valid_for.as_secs() })
}

/// Letters out of `all`, put into its order: of a service SAS any other is an error to Azure.
fn read_letters(table: &mut Table<'_>, key: &'static str, all: &str) -> Option<String> {
    let text = table.text_or(key)?;
    let known = all.chars().filter(|letter| text.contains(*letter)).collect::<String>();
    if known.is_empty() || known.len() != text.len() {
        let what = format!("`{text}` is not what `{key}` may be");
        table.mistake(key, what, format!("write one or more of the letters {all}, each once"));
        return None;
    }
    Some(known)
}

fn material(_spec: &IssuerSpec) -> Option<MaterialKind> {
    Some(MaterialKind::SasToken)
}

fn lifetime(spec: &IssuerSpec) -> Option<super::Lifetime> {
    let config: Config = serde_json::from_value(spec.config.clone()).ok()?;
    Some(super::Lifetime { option: "valid_for", length: Duration::from_secs(config.sas.grant.valid_for_s) })
}

fn connect(spec: &IssuerSpec, system: Option<&SystemSpec>, context: &Context) -> Result<Arc<dyn Issuer>, Fault> {
    let config: Config = super::config(spec)?;
    let resource = Resource::parse(&config.resource_id).map_err(|why| super::mismatch(spec, why))?;
    let azure = Azure::connect(system, &spec.object, context)?;
    let Sas { grant, probe } = config.sas;
    let keys = Keys::new(resource, azure).signing(Duration::from_secs(grant.valid_for_s));
    Ok(Arc::new(AzureSas { keys, grant, probe }))
}

/// One account's signatures.
struct AzureSas {
    keys: Keys,
    grant: Grant,
    probe: Container,
}

impl AzureSas {
    fn sign(&self, id: &KeyId, key: &Secret) -> Result<Material, String> {
        let account = self.keys.resource.name.clone();
        let token = self.grant.sign(&account, id, key)?;
        Ok(Material::SasToken { id: id.clone(), account, token })
    }

    /// The container a service SAS is looked for: the one it is of, or the one that the consumer reads.
    fn container(&self) -> &str {
        match &self.grant.scope {
            Scope::Container(container) => container,
            Scope::Account { .. } => self.probe.name(),
        }
    }

    /// Why a token that belongs to a slot is not worth trying: ARM shows the key that must have signed it.
    async fn contradicted(&self, id: &KeyId, token: &Secret) -> Result<Option<Probe>, Fault> {
        let call = Call::new(format!("try the SAS signed with key {id} of {}", self.keys.resource.called()));
        let Some(slot) = self.keys.slot(id).await? else {
            return Ok(Some(Probe::NotYet(call.text("no slot holds that key"))));
        };
        Ok(match self.is_signed_with(token, &slot) {
            Ok(true) => None,
            Ok(false) => Some(Probe::Wrong(call.text("it is signed with another key"))),
            Err(why) => Some(Probe::Wrong(call.text(why))),
        })
    }

    fn is_signed_with(&self, token: &Secret, slot: &Slot) -> Result<bool, String> {
        token::is_signed_with(token, &slot.key, &self.keys.resource.name, self.container())
    }
}

#[async_trait]
impl Issuer for AzureSas {
    async fn identity(&self) -> Result<AccountIdentity, Fault> {
        self.keys.identity().await
    }

    /// Of each slot, the end of what is signed with it now.
    async fn list(&self) -> Result<Listing, Fault> {
        self.keys.list_as(|slot| self.sign(&slot.id(), &slot.key).ok()?.secret().tail()).await
    }

    async fn mint(&self, _intent: &IntentId, replaces: Option<&KeyId>) -> Result<MintedKey, Fault> {
        let slot = self.keys.replace(replaces).await?;
        let call = Call::new(format!("sign a SAS with key {} of {}", slot.id(), self.keys.resource.called()));
        // The key exists by now, and what became of it is seen by looking.
        let material = self.sign(&slot.id(), &slot.key).map_err(|why| Fault::Unknown(call.text(why)))?;
        Ok(MintedKey { created: slot.created, material })
    }

    fn derive(&self, key: &Material) -> Result<Material, Fault> {
        let resource = &self.keys.resource;
        let refused = |why: String| Fault::Refused {
            reason: Reason::PolicyMismatch,
            why: format!("sign a SAS with key {} of {}: {why}", key.key(), resource.called()),
        };
        match key {
            Material::StorageAccountKey { id, account, key } if *account == resource.name => {
                self.sign(id, key).map_err(refused)
            }
            _ => Err(refused("it is none".to_owned())),
        }
    }

    async fn probe(&self, material: &Material) -> Result<Probe, Fault> {
        let resource = &self.keys.resource;
        let (id, token) = match material {
            Material::SasToken { id, account, token } if *account == resource.name => (id, token),
            _ => {
                let why = format!("probe key {} as a SAS of {}: it is none", material.key(), resource.called());
                return Err(Fault::Refused { reason: Reason::PolicyMismatch, why });
            }
        };
        if let Some(said) = self.contradicted(id, token).await? {
            return Ok(said);
        }
        let azure = &self.keys.azure;
        let endpoint = self.keys.endpoint(self.probe.endpoint(&azure.account, &resource.name)).await?;
        self.probe.look(&azure.http, &endpoint, &resource.name, Credential::Sas(token), signing_time()).await
    }

    async fn rights(&self) -> Result<Option<Standing>, Fault> {
        self.keys.rights().await.map(Some)
    }

    /// Azure reports no use of a SAS.
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

    /// A token that somebody made is shown by nobody, so it must be brought; which key signed it is seen.
    async fn known(&self, key: &KeyId, secret: Option<Secret>) -> Result<Option<Material>, Fault> {
        let Some(token) = secret else { return Ok(None) };
        let slots = self.keys.slots().await?.0;
        let call = Call::new(format!("look at the SAS brought for key {key} of {}", self.keys.resource.called()));
        let refused = |why: String| Fault::Refused { reason: Reason::Refused, why: call.text(why) };
        if slots.iter().all(|slot| slot.id() != *key) {
            return Ok(None);
        }
        for slot in slots {
            if !self.is_signed_with(&token, &slot).map_err(refused)? {
                continue;
            }
            if slot.id() != *key {
                return Err(refused(format!("it is signed with key {}", slot.id())));
            }
            let account = self.keys.resource.name.clone();
            return Ok(Some(Material::SasToken { id: key.clone(), account, token }));
        }
        Err(refused("it is signed with neither key of the account".to_owned()))
    }
}

#[cfg(test)]
mod tests;
