//! The two keys of one account, through ARM: seen, replaced, and asked for their rights.
//!
//! Two slots, each always with a key; nothing can be disabled. ARM shows both keys whenever it is asked, so a lost answer loses no
//! secret, and what became of a request is seen by looking. Every regeneration looks first and names a slot that still holds what it
//! is to replace. This file never repeats a regeneration and does not know which key is in use where, or what becomes of it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::Method;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::client::Azure;
use super::faults::Call;
use super::resource::{AccountKind, Resource};
use super::rights;
use super::slots::{self, Slot, slot_of};
use crate::model::{AccountIdentity, KeyId, Reason, Standing, Tail, Timestamp};
use crate::ports::{Fault, ListedKey, Listing};
use crate::schedule::format_duration;

/// Cosmos DB takes a regeneration on and answers before it is done. Seconds are usual; what takes longer than this is left to the
/// look that settles an unknown mint.
const WORK_MAX: Duration = Duration::from_secs(5 * 60);
/// Pause between two looks at such work.
const WORK_PAUSE: Duration = Duration::from_secs(2);

/// One account's keys.
pub(in crate::issuer) struct Keys {
    pub(in crate::issuer) resource: Resource,
    pub(in crate::issuer) azure: Azure,
    /// How long a SAS is to be good that is signed with them.
    sas_for: Option<Duration>,
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
    /// Storage: how long a SAS may be good.
    sas_policy: Option<SasPolicy>,
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

/// `SasPolicy` of the storage resource provider.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SasPolicy {
    /// `DD.HH:MM:SS`.
    sas_expiration_period: String,
    /// `Log` notes a SAS that is good for longer, `Block` denies it.
    expiration_action: String,
}

impl SasPolicy {
    /// The longest life of a SAS that is not denied; `None` where none is, or where it is not told in Azure's form.
    fn longest(&self) -> Option<Duration> {
        if !self.expiration_action.eq_ignore_ascii_case("Block") {
            return None;
        }
        let (days, time) = self.sas_expiration_period.split_once('.')?;
        let parts = std::iter::once(days).chain(time.split(':')).map(|part| part.parse::<u32>().ok().map(u64::from));
        let [days, hours, minutes, seconds] = parts.collect::<Option<Vec<u64>>>()?.try_into().ok()?;
        Some(Duration::from_secs(((days * 24 + hours) * 60 + minutes) * 60 + seconds))
    }
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

impl Keys {
    pub(in crate::issuer) fn new(resource: Resource, azure: Azure) -> Self {
        Self { resource, azure, sas_for: None, endpoint: OnceCell::new() }
    }

    /// The same, whose keys sign a SAS that is good for this long.
    pub(in crate::issuer) fn signing(self, valid_for: Duration) -> Self {
        Self { sas_for: Some(valid_for), ..self }
    }

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

    /// The account, where it takes keys and, where there is to be one, a SAS as long as this one.
    async fn usable(&self, call: &Call) -> Result<(), Fault> {
        let properties = self.account().await?;
        let closed = match (properties.allow_shared_key_access, properties.disable_local_auth) {
            (Some(false), _) => Some("its allowSharedKeyAccess is false"),
            (_, Some(true)) => Some("its disableLocalAuth is true"),
            _ => None,
        };
        if let Some(closed) = closed {
            let so = "so its keys open nothing; allow them, or switch the service to an identity";
            return Err(Fault::Refused { reason: Reason::Refused, why: call.text(format_args!("{closed}, {so}")) });
        }
        let longest = properties.sas_policy.and_then(|policy| policy.longest());
        let Some((longest, valid_for)) = longest.zip(self.sas_for).filter(|(longest, wanted)| longest < wanted) else {
            return Ok(());
        };
        let why = call.text(format_args!(
            "its sasPolicy blocks a SAS that is good for longer than {}, and valid_for is {}; shorten valid_for, or let the policy \
             log such a SAS",
            format_duration(longest),
            format_duration(valid_for)
        ));
        Err(Fault::Refused { reason: Reason::PolicyMismatch, why })
    }

    fn version(&self) -> &'static str {
        self.resource.kind.version()
    }

    /// Both slots as they are now.
    pub(in crate::issuer) async fn slots(&self) -> Result<(Vec<Slot>, Option<Timestamp>), Fault> {
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
        let answer = self.azure.arm(call, Method::POST, &path, self.version(), Some(&body)).await?;
        // A login page in between says 200 as well, and has done nothing.
        let is_answer = match self.resource.kind {
            AccountKind::Cosmos => answer.body.is_empty() || serde_json::from_slice::<IgnoredAny>(&answer.body).is_ok(),
            kind => slots::read(kind, &answer.body).is_some(),
        };
        match is_answer {
            true => Ok(()),
            false => Err(Fault::Unknown(call.text("an answer that is none of this service"))),
        }
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
            let mut pause = WORK_PAUSE;
            match self.slots().await {
                Ok((slots, _)) => {
                    if let Some(slot) = new(slots) {
                        return Ok(slot);
                    }
                }
                Err(fault @ Fault::Refused { .. }) => {
                    return Err(Fault::Unknown(call.text(format_args!("answered; {}", fault.why()))));
                }
                // A server that is too busy is not helped by being asked at once.
                Err(Fault::Retry { after: Some(after), .. }) => pause = after.max(WORK_PAUSE),
                // What passes by itself may do so meanwhile.
                Err(_) => {}
            }
            let Some(left) = WORK_MAX.checked_sub(begun.elapsed()) else {
                return Err(Fault::Unknown(call.text("answered, and the slot still holds the same key")));
            };
            tokio::time::sleep(pause.min(left.max(WORK_PAUSE))).await;
        }
    }

    /// `azure:` with the account's name, which is unique in its cloud, and what tells it from one that was made again under that name.
    /// Not the ARM id: an account keeps its keys when it is moved to another group or subscription.
    pub(in crate::issuer) async fn identity(&self) -> Result<AccountIdentity, Fault> {
        let properties = self.account().await?;
        let made = properties.creation_time.or(properties.created_at).map(|at| at.timestamp_millis().to_string());
        let instance = properties.instance_id.filter(|id| uuid::Uuid::try_parse(id).is_ok());
        let made = instance.or(made).map(|made| format!("#{made}")).unwrap_or_default();
        Ok(AccountIdentity::new(format!("azure:{}{made}", self.resource.short())))
    }

    /// What is in the slots.
    pub(in crate::issuer) async fn list(&self) -> Result<Listing, Fault> {
        self.list_as(|slot| slot.key.tail()).await
    }

    /// The same, where the targets hold something else than the key itself: with the end of that beside the key's own.
    pub(in crate::issuer) async fn list_as(&self, tail: impl Fn(&Slot) -> Option<Tail>) -> Result<Listing, Fault> {
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
            tail: tail(slot),
            root_tail: slot.key.tail(),
            expires: None,
        });
        Ok(Listing { keys: keys.collect(), quota: Some(slots.len()), date })
    }

    /// A new key in the slot that holds the key `replaces`: one regeneration, at most once on the wire. The slot is looked at just
    /// before; what is in it must be what is to be replaced.
    pub(in crate::issuer) async fn replace(&self, replaces: Option<&KeyId>) -> Result<Slot, Fault> {
        let call = self.regeneration("make a new key for");
        let refused = |why: String| Fault::Refused { reason: Reason::Stranger, why: call.text(why) };
        let replaces = replaces.ok_or_else(|| refused("no slot is named".to_owned()))?;
        // Nothing was sent that changes anything while this look fails.
        self.usable(&call).await.map_err(before_sending)?;
        let (slots, _) = self.slots().await.map_err(before_sending)?;
        let Some(held) = slots.iter().find(|slot| slot.id() == *replaces) else {
            let held = slots.iter().map(|slot| slot.id().to_string()).collect::<Vec<_>>().join(" and ");
            return Err(refused(format!(
                "no slot holds key {replaces} any more; they hold {held}, and rekeyd retry looks again"
            )));
        };
        self.regenerate(&call, held.name).await?;
        self.regenerated(&call, held).await
    }

    /// Regenerates the slot that still holds the key, and no other; the key that comes of it is told to nobody.
    pub(in crate::issuer) async fn destroy(&self, key: &KeyId) -> Result<(), Fault> {
        let call = self.regeneration(&format!("replace key {key} of"));
        let Some(slot) = slot_of(self.resource.kind, key) else {
            return Err(Fault::Refused { reason: Reason::PolicyMismatch, why: call.text("it names no slot") });
        };
        let (slots, _) = self.slots().await.map_err(before_sending)?;
        let Some(held) = slots.into_iter().find(|held| held.name == slot && held.id() == *key) else { return Ok(()) };
        self.regenerate(&call, slot).await?;
        self.regenerated(&call, &held).await.map(drop)
    }

    /// The slot that holds this key.
    pub(in crate::issuer) async fn slot(&self, key: &KeyId) -> Result<Option<Slot>, Fault> {
        let (slots, _) = self.slots().await?;
        Ok(slots.into_iter().find(|slot| slot.id() == *key))
    }

    /// Whether the rotator may look at the account, list its keys and regenerate them; and whether they open anything.
    pub(in crate::issuer) async fn rights(&self) -> Result<Standing, Fault> {
        let (action, _) = self.resource.kind.regeneration();
        let needed = ["read", "listKeys/action", &format!("{action}/action")].map(|action| self.resource.right(action));
        self.usable(&self.call("look at", "read")).await?;
        let on = self.resource.called();
        rights::at_arm(&self.azure, &self.resource.account, &on, &needed).await
    }

    /// Where the data plane is: as the policy says (`named`), else as ARM does.
    pub(in crate::issuer) async fn endpoint(&self, named: Option<String>) -> Result<String, Fault> {
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

    /// Keys in slots are never absent and never asleep.
    pub(in crate::issuer) fn no_switch(&self, verb: &str, key: &KeyId) -> Fault {
        let why = format!("{verb} key {key} of {}: keys of an account can only be replaced", self.resource.called());
        Fault::Refused { reason: Reason::Refused, why }
    }
}

/// Where a body stops being what it should, without a word of it.
fn place(error: &serde_json::Error) -> String {
    format!("line {}, column {}", error.line(), error.column())
}

/// A look that failed before anything that changes something was sent.
fn before_sending(fault: Fault) -> Fault {
    match fault {
        Fault::Unknown(why) | Fault::Retry { why, .. } => Fault::NotSent(why),
        other => other,
    }
}
