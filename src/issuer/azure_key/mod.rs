//! `azure-key`: the keys of a storage account, a Cosmos DB account or a Service Bus namespace's policy, through ARM.
//!
//! Two slots, each always with a key. A mint regenerates the idle one, which destroys what that held; a retire regenerates the one
//! that leaves, by a key that nobody has; nothing can be disabled. ARM shows both keys whenever it is asked, so a lost answer loses no
//! secret, and what became of a request is seen by looking. Every regeneration looks first and names a slot that still holds what it
//! is to replace. This file never repeats a regeneration and does not know which key is in use where.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::azure::account::{self, Account};
use super::azure::blob::{self, Container, Credential, Expect};
use super::azure::client::{Azure, signing_time};
use super::azure::faults::Call;
use super::azure::rights;
use crate::model::{
    AccountIdentity, IntentId, IssuerSpec, KeyId, Material, MaterialKind, Reason, Secret, Shape, Standing, SystemSpec,
    Timestamp,
};
use crate::net::Context;
use crate::ports::{Fault, Issuer, LastUse, ListedKey, Listing, MintedKey, Probe};
use crate::table::Table;

mod data;
mod resource;
mod slots;

use resource::{AccountKind, FORM, Resource};
use slots::{Slot, slot_of};

/// The kind `azure-key` and the accounts of `[azure]`.
pub const KIND: super::Kind = super::Kind {
    name: "azure-key",
    system: Some("azure"),
    read_system: account::read,
    read,
    material,
    valid_for: super::for_ever,
    connect,
};

/// Cosmos DB takes a regeneration on and answers before it is done. Seconds are usual; what takes longer than this is left to the
/// look that settles an unknown mint.
const WORK_MAX: Duration = Duration::from_secs(5 * 60);
/// Pause between two looks at such work.
const WORK_PAUSE: Duration = Duration::from_secs(2);

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
    let resource = read_resource(table);
    let exclusive = table.flag("exclusive", false);
    if !exclusive {
        table.mistake(
            "exclusive",
            "an account has two keys and a rotation replaces the one that is not in use, so both must be rekeyd's to manage",
            "see that nobody uses the other key, then write exclusive = true",
        );
    }
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
        // Without the table's name: one account under two of them is still one, and its slots are too.
        object: format!("{}:{}", KIND.name, resource.short()),
        shape: Shape::Slots,
        exclusive,
        propagation: resource.kind.propagation(),
        settle: account.settle(resource.kind.settle()),
        last_used_lag: None,
        config: serde_json::to_value(Config { resource_id: resource.keyed(), probe }).ok()?,
    })
}

fn read_resource(table: &mut Table<'_>) -> Option<Resource> {
    let id = table.text("resource_id")?;
    match Resource::parse(&id) {
        Ok(resource) => Some(resource),
        Err(why) => {
            table.mistake(
                "resource_id",
                format!("`resource_id` names no account with keys: {why}"),
                format!("write `{FORM}`"),
            );
            None
        }
    }
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
    let mismatch = |what: String| Fault::Refused {
        reason: Reason::PolicyMismatch,
        why: format!("connect to issuer {}: {what}", spec.object),
    };
    let config: Config = serde_json::from_value(spec.config.clone())
        .map_err(|error| mismatch(format!("its configuration was written by another rekeyd: {error}")))?;
    let resource = Resource::parse(&config.resource_id).map_err(mismatch)?;
    let azure = Azure::connect(system, &spec.object, context)?;
    Ok(Arc::new(AzureKey { probe: config.probe, resource, azure, endpoint: OnceCell::new() }))
}

/// One account's keys.
struct AzureKey {
    resource: Resource,
    probe: Look,
    azure: Azure,
    /// Where the account's data plane is, as ARM says; it does not change while the account exists.
    endpoint: OnceCell<String>,
}

/// What ARM shows of an account, as far as it matters here. The three services call the same things differently, and each leaves out
/// what it does not have.
#[derive(Deserialize)]
struct Shown {
    id: String,
    #[serde(default)]
    properties: Option<Properties>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Properties {
    /// Storage: absent means yes.
    allow_shared_key_access: Option<bool>,
    /// Cosmos DB and Service Bus.
    disable_local_auth: Option<bool>,
    /// Storage: when the account was made.
    creation_time: Option<DateTime<Utc>>,
    /// Service Bus: the same.
    created_at: Option<DateTime<Utc>>,
    /// Cosmos DB: "a unique identifier assigned to the database account".
    instance_id: Option<String>,
    primary_endpoints: Option<Endpoints>,
    document_endpoint: Option<String>,
    service_bus_endpoint: Option<String>,
    /// Cosmos DB: when each key was made.
    keys_metadata: Option<Metadata>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Endpoints {
    blob: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    primary_master_key: Option<Made>,
    secondary_master_key: Option<Made>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Made {
    generation_time: Option<DateTime<Utc>>,
}

impl AzureKey {
    /// A call about the account that needs the right to `action` on it.
    fn call(&self, what: &str, action: &str) -> Call {
        let on = self.resource.called();
        Call::new(format!("{what} {on}")).needing(format!("{} on {on}", self.resource.right(action)))
    }

    /// The account as ARM shows it.
    async fn account(&self) -> Result<Properties, Fault> {
        let call = self.call("look at", "read");
        let answer = self.azure.arm(&call, Method::GET, &self.resource.account, self.version(), None).await?;
        let shown: Shown = serde_json::from_slice(&answer.body).map_err(|error| {
            Fault::Unknown(call.text(format_args!("an answer that shows no account ({})", place(&error))))
        })?;
        match shown.id.trim_end_matches('/').eq_ignore_ascii_case(&self.resource.account) {
            true => Ok(shown.properties.unwrap_or_default()),
            false => Err(Fault::Unknown(call.text("an answer that shows another account"))),
        }
    }

    /// The account, where it takes keys.
    async fn usable(&self, call: &Call) -> Result<(), Fault> {
        let properties = self.account().await?;
        let closed = match (properties.allow_shared_key_access, properties.disable_local_auth) {
            (Some(false), _) => "its allowSharedKeyAccess is false",
            (_, Some(true)) => "its disableLocalAuth is true",
            _ => return Ok(()),
        };
        let why = call
            .text(format_args!("{closed}, so its keys open nothing; allow them, or switch the service to an identity"));
        Err(Fault::Refused { reason: Reason::Refused, why })
    }

    fn version(&self) -> &'static str {
        self.resource.kind.version()
    }

    /// Both slots as they are now.
    async fn slots(&self) -> Result<(Vec<Slot>, Option<Timestamp>), Fault> {
        let call = self.call("list the keys of", "listKeys/action");
        let path = format!("{}/listKeys", self.resource.keyed());
        let answer = self.azure.arm(&call, Method::POST, &path, self.version(), None).await?;
        let slots = slots::read(self.resource.kind, &answer.body)
            .ok_or_else(|| Fault::Unknown(call.text("an answer that does not show both keys")))?;
        Ok((slots, answer.date))
    }

    /// Replaces the key in a slot. NOT REPEATABLE. Whoever calls this has just seen that the slot holds what is to be replaced.
    async fn regenerate(&self, call: &Call, slot: &str) -> Result<(), Fault> {
        let (action, member) = self.resource.kind.regeneration();
        let path = format!("{}/{action}", self.resource.keyed());
        let body: Value = json!({ member: slot });
        self.azure.arm(call, Method::POST, &path, self.version(), Some(&body)).await.map(drop)
    }

    fn regeneration(&self, what: &str) -> Call {
        let (action, _) = self.resource.kind.regeneration();
        self.call(what, &format!("{action}/action"))
    }

    /// What is in the slot after a regeneration that was answered; `before` is what it held.
    ///
    /// As `listKeys` shows it, whatever stands in the answer: a key is called by the time that ARM shows beside it, and the document's
    /// own example of the answer shows none (SPEC storage `StorageAccountRegenerateKey.json`).
    async fn regenerated(&self, call: &Call, before: &Slot) -> Result<Slot, Fault> {
        let new = |slots: Vec<Slot>| slots.into_iter().find(|slot| slot.name == before.name && slot.key != before.key);
        // Cosmos DB may not be done yet. A look changes nothing, so it may be repeated.
        let begun = Instant::now();
        loop {
            match self.slots().await {
                Ok((slots, _)) => {
                    if let Some(slot) = new(slots) {
                        return Ok(slot);
                    }
                }
                Err(fault @ Fault::Refused { .. }) => {
                    return Err(Fault::Unknown(call.text(format_args!("answered; {}", fault.why()))));
                }
                // What passes by itself may do so meanwhile.
                Err(_) => {}
            }
            if begun.elapsed() >= WORK_MAX {
                return Err(Fault::Unknown(call.text("answered, and the slot still holds the same key")));
            }
            tokio::time::sleep(WORK_PAUSE).await;
        }
    }

    fn material(&self, id: KeyId, key: Secret) -> Material {
        let account = self.resource.name.clone();
        match (self.resource.kind, &self.resource.rule) {
            (AccountKind::Storage, _) => Material::StorageAccountKey { id, account, key },
            (AccountKind::Cosmos, _) => Material::CosmosAccountKey { id, account, key },
            (AccountKind::ServiceBus, rule) => {
                Material::ServiceBusKey { id, key_name: rule.clone().unwrap_or_default(), key }
            }
        }
    }

    /// Where the data plane is: as the policy says, else as ARM does.
    async fn endpoint(&self) -> Result<String, Fault> {
        let named = match &self.probe {
            Look::Container(container) => container.endpoint(&self.azure.account, &self.resource.name),
            Look::Data { endpoint_url, .. } => endpoint_url.clone(),
        };
        if let Some(named) = named {
            return Ok(named);
        }
        let told = self.endpoint.get_or_try_init(|| async {
            let properties = self.account().await?;
            let told = match self.resource.kind {
                AccountKind::Storage => properties.primary_endpoints.and_then(|endpoints| endpoints.blob),
                AccountKind::Cosmos => properties.document_endpoint,
                AccountKind::ServiceBus => properties.service_bus_endpoint,
            };
            let call = self.call("look at", "read");
            told.ok_or_else(|| Fault::Unknown(call.text("an answer that does not say where its data is")))
        });
        Ok(told.await?.trim_end_matches('/').to_owned())
    }

    /// Why a key that belongs to a slot is not worth trying: ARM shows what is in the slot.
    async fn contradicted(&self, id: &KeyId, key: &Secret) -> Result<Option<Probe>, Fault> {
        let call = Call::new(format!("try key {id} of {}", self.resource.called()));
        let (slots, _) = self.slots().await?;
        Ok(match slots.iter().find(|slot| slot.id() == *id) {
            None => Some(Probe::NotYet(call.text("no slot holds it"))),
            Some(slot) if slot.key != *key => Some(Probe::Wrong(call.text("the slot holds another secret"))),
            Some(_) => None,
        })
    }
}

#[async_trait]
impl Issuer for AzureKey {
    /// `azure:` with the account's name, which is unique in its cloud, and what tells it from one that was made again under that name.
    /// Not the ARM id: an account keeps its keys when it is moved to another group or subscription.
    async fn identity(&self) -> Result<AccountIdentity, Fault> {
        let properties = self.account().await?;
        let made = properties.creation_time.or(properties.created_at).map(|at| at.timestamp_millis().to_string());
        let instance = properties.instance_id.filter(|id| uuid::Uuid::try_parse(id).is_ok());
        let made = instance.or(made).map(|made| format!("#{made}")).unwrap_or_default();
        Ok(AccountIdentity::new(format!("azure:{}{made}", self.resource.short())))
    }

    async fn list(&self) -> Result<Listing, Fault> {
        let made = match self.resource.kind {
            AccountKind::Cosmos => self.account().await?.keys_metadata.unwrap_or_default(),
            AccountKind::Storage | AccountKind::ServiceBus => Metadata::default(),
        };
        let generated = |made: &Option<Made>| made.as_ref().and_then(|made| made.generation_time);
        let (slots, date) = self.slots().await?;
        let created = |slot: &Slot| match slot.name {
            "primary" => generated(&made.primary_master_key),
            "secondary" => generated(&made.secondary_master_key),
            _ => slot.created,
        };
        let keys = slots.iter().map(|slot| ListedKey {
            id: slot.id(),
            active: true,
            created: created(slot),
            // Azure notes nobody's intent beside a key.
            intent: None,
            tail: slot.key.tail(),
            expires: None,
        });
        Ok(Listing { keys: keys.collect(), quota: Some(slots.len()), date })
    }

    /// One regeneration, at most once on the wire. The slot is looked at just before; what is in it must be what is to be replaced.
    async fn mint(&self, _intent: &IntentId, replaces: Option<&KeyId>) -> Result<MintedKey, Fault> {
        let call = self.regeneration("make a new key for");
        let refused = |why: String| Fault::Refused { reason: Reason::Stranger, why: call.text(why) };
        let replaces = replaces.ok_or_else(|| refused("no slot is named".to_owned()))?;
        // Nothing was sent that changes anything while this look fails.
        self.usable(&call).await.map_err(before)?;
        let (slots, _) = self.slots().await.map_err(before)?;
        let held: Vec<_> = slots.iter().map(|slot| slot.id().to_string()).collect();
        let Some(before) = slots.into_iter().find(|slot| slot.id() == *replaces) else {
            let held = held.join(" and ");
            return Err(refused(format!(
                "no slot holds key {replaces} any more; they hold {held}, and rekeyd retry looks again"
            )));
        };
        self.regenerate(&call, before.name).await?;
        let slot = self.regenerated(&call, &before).await?;
        Ok(MintedKey { created: slot.created, material: self.material(slot.id(), slot.key) })
    }

    async fn probe(&self, material: &Material) -> Result<Probe, Fault> {
        let (kind, azure, name) = (self.resource.kind, &self.azure, &self.resource.name);
        let (id, key) = match (kind, material) {
            (AccountKind::Storage, Material::StorageAccountKey { id, account, key }) if account == name => (id, key),
            (AccountKind::Cosmos, Material::CosmosAccountKey { id, account, key }) if account == name => (id, key),
            (AccountKind::ServiceBus, Material::ServiceBusKey { id, key, .. }) => (id, key),
            _ => {
                let why = format!("probe key {} as one of {}: it is none", material.key(), self.resource.called());
                return Err(Fault::Refused { reason: Reason::PolicyMismatch, why });
            }
        };
        if let Some(said) = self.contradicted(id, key).await? {
            return Ok(said);
        }
        let endpoint = self.endpoint().await?;
        let now = signing_time();
        match (&self.probe, &self.resource.rule) {
            (Look::Container(container), _) => {
                container.look(&azure.http, &endpoint, name, Credential::Key(key), now).await
            }
            (Look::Data { expect, .. }, Some(rule)) => {
                data::look_into_bus(&azure.http, &endpoint, rule, key, *expect, now).await
            }
            (Look::Data { .. }, None) => data::look_into_cosmos(&azure.http, &endpoint, name, key, now).await,
        }
    }

    async fn rights(&self) -> Result<Option<Standing>, Fault> {
        let (action, _) = self.resource.kind.regeneration();
        let needed = ["read", "listKeys/action", &format!("{action}/action")].map(|action| self.resource.right(action));
        self.usable(&self.call("look at", "read")).await?;
        let on = self.resource.called();
        rights::at_arm(&self.azure, &self.resource.account, &on, &needed).await.map(Some)
    }

    /// Azure reports no use of an account key.
    async fn last_use(&self, _key: &KeyId) -> Result<LastUse, Fault> {
        Ok(LastUse::Untold)
    }

    async fn disable(&self, key: &KeyId) -> Result<(), Fault> {
        Err(self.no_switch("disable", key))
    }

    async fn enable(&self, key: &KeyId) -> Result<(), Fault> {
        Err(self.no_switch("enable", key))
    }

    /// Regenerates the slot that still holds the key, and no other; the key that comes of it is told to nobody.
    async fn delete(&self, key: &KeyId) -> Result<(), Fault> {
        let call = self.regeneration(&format!("replace key {key} of"));
        let Some(slot) = slot_of(self.resource.kind, key) else {
            return Err(Fault::Refused { reason: Reason::PolicyMismatch, why: call.text("it names no slot") });
        };
        let (slots, _) = self.slots().await.map_err(before)?;
        let Some(before) = slots.into_iter().find(|held| held.name == slot && held.id() == *key) else { return Ok(()) };
        self.regenerate(&call, slot).await?;
        self.regenerated(&call, &before).await.map(drop)
    }

    /// ARM shows it again, so a secret that somebody brings is compared.
    async fn known(&self, key: &KeyId, secret: Option<Secret>) -> Result<Option<Material>, Fault> {
        let (slots, _) = self.slots().await?;
        let Some(slot) = slots.into_iter().find(|slot| slot.id() == *key) else { return Ok(None) };
        if secret.is_some_and(|secret| secret != slot.key) {
            let why = format!("look at key {key} of {}: its slot holds another secret", self.resource.called());
            return Err(Fault::Refused { reason: Reason::Refused, why });
        }
        Ok(Some(self.material(key.clone(), slot.key)))
    }
}

impl AzureKey {
    fn no_switch(&self, verb: &str, key: &KeyId) -> Fault {
        let why = format!("{verb} key {key} of {}: keys of an account can only be replaced", self.resource.called());
        Fault::Refused { reason: Reason::Refused, why }
    }
}

/// Where a body stops being what it should, without a word of it.
fn place(error: &serde_json::Error) -> String {
    format!("line {}, column {}", error.line(), error.column())
}

/// A look that failed before anything that changes something was sent.
fn before(fault: Fault) -> Fault {
    match fault {
        Fault::Unknown(why) | Fault::Retry { why, .. } => Fault::NotSent(why),
        other => other,
    }
}

#[cfg(test)]
mod tests;
