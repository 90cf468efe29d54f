//! `command`: keys that a program of the operator's makes, in a protocol of JSON lines (`docs/commands.md`).
//!
//! What the machine must know before the first key is made is declared in the policy: how keys come and go there (`shape`), and what
//! they are made of (`material`). What the program answers is checked against it. This file never retries, and knows nothing of what
//! the program speaks to.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::model::{
    AccountIdentity, IntentId, IssuerSpec, KeyId, Material, MaterialKind, Reason, Secret, Shape, SystemSpec,
};
use crate::net::Context;
use crate::net::command::{Called, Caller, Key, Request, is_id};
use crate::ports::{Fault, Issuer, LastUse, ListedKey, Listing, MintedKey, Probe};
use crate::table::{Table, Zero};

/// The kind `command`.
pub const KIND: super::Kind = super::Kind {
    name: "command",
    system: None,
    read_system: |_| None,
    read,
    material,
    lifetime: super::for_ever,
    watch_min: super::at_once,
    derivation: None,
    connect,
};

/// After a mint whose answer was lost, where the policy says nothing.
const SETTLE: Duration = Duration::from_secs(600);
/// More keys of one object are no list of keys.
const KEYS_MAX: usize = 1000;
/// Shapes a program can have. Slots, and what is derived from them, need more than this protocol says.
const SHAPES: [(&str, Shape); 3] =
    [("shown-once", Shape::ShownOnce), ("client-named", Shape::ClientNamed), ("labelled", Shape::Labelled)];

/// `[service.issuer]` of this kind, as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Config {
    called: Called,
    shape: Shape,
    material: String,
    tells_use: bool,
}

fn read(table: &mut Table<'_>, _system: Option<&SystemSpec>) -> Option<IssuerSpec> {
    let called = Called::read(table);
    let named = table.choice("shape", &SHAPES.map(|(name, _)| name));
    let shape = SHAPES.iter().find(|(name, _)| Some(*name) == named).map_or(Shape::ShownOnce, |(_, shape)| *shape);
    let material = table.choice("material", &Key::KINDS).unwrap_or("access-key").to_owned();
    let settle = table.duration("settle", Zero::Allowed).unwrap_or(SETTLE);
    let last_used_lag = table.duration("last_used_lag", Zero::Allowed);
    let exclusive = table.flag("exclusive", false);
    let called = called?;
    Some(IssuerSpec {
        kind: KIND.name.to_owned(),
        system: None,
        object: format!("{}:{}", KIND.name, called.name()),
        shape,
        exclusive,
        // How long a new key takes to be known is the program's to know; its probe tells.
        propagation: Duration::ZERO,
        // Whatever a program that is killed has sent by then counts from there.
        settle: called.timeout + settle,
        last_used_lag,
        config: serde_json::to_value(Config { called, shape, material, tells_use: last_used_lag.is_some() }).ok()?,
    })
}

fn material(spec: &IssuerSpec) -> Option<MaterialKind> {
    let config: Config = serde_json::from_value(spec.config.clone()).ok()?;
    Key::material_kind(&config.material)
}

fn connect(spec: &IssuerSpec, _system: Option<&SystemSpec>, _context: &Context) -> Result<Arc<dyn Issuer>, Fault> {
    let config: Config = super::config(spec)?;
    let caller = config.called.connect().map_err(|why| super::mismatch(spec, why))?;
    Ok(Arc::new(Command { at: spec.object.clone(), config, caller }))
}

/// A program that makes keys.
struct Command {
    config: Config,
    caller: Caller,
    /// The object, for messages.
    at: String,
}

#[derive(Deserialize)]
struct Identity {
    account: String,
}

#[derive(Deserialize)]
struct Listed {
    keys: Vec<ListedOne>,
    #[serde(default)]
    quota: Option<usize>,
    #[serde(default)]
    date: Option<DateTime<Utc>>,
}

#[derive(Deserialize)]
struct ListedOne {
    id: String,
    active: bool,
    #[serde(default)]
    created: Option<DateTime<Utc>>,
    #[serde(default)]
    intent: Option<String>,
    #[serde(default)]
    expires: Option<DateTime<Utc>>,
}

#[derive(Deserialize)]
struct Minted {
    key: Key,
    #[serde(default)]
    created: Option<DateTime<Utc>>,
}

#[derive(Deserialize)]
struct Probed {
    probe: ProbeWord,
    #[serde(default)]
    why: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ProbeWord {
    Works,
    NotYet,
    Wrong,
    NotAllowed,
}

/// `{"last_use":"never"}`, `{"last_use":"untold"}`, `{"last_use":{"at":…,"by":…}}`.
#[derive(Deserialize)]
struct Used {
    last_use: UseWord,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum UseWord {
    Word(Word),
    At {
        at: DateTime<Utc>,
        #[serde(default)]
        by: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Never,
    Untold,
}

#[derive(Deserialize)]
struct Known {
    key: Option<Key>,
}

/// What is answered where there is nothing to say.
#[derive(Deserialize)]
struct Done {}

impl Command {
    fn odd(&self, act: &str, what: &str) -> Fault {
        Fault::Unknown(format!("{act} by {}: it answered {what}", self.at.trim_start_matches("command:")))
    }

    fn about(key: &KeyId) -> Request<'_> {
        Request { id: Some(key.as_str()), ..Request::default() }
    }

    fn has_no_switch(&self, act: &str, key: &KeyId) -> Result<(), Fault> {
        if self.config.shape.can_disable() {
            return Ok(());
        }
        let why = format!("{act} key {key} of {}: keys that are labelled can only be deleted", self.at);
        Err(Fault::Refused { reason: Reason::Refused, why })
    }

    /// The key of an answer, which must be of the kind that the policy told the targets of.
    fn take(&self, act: &str, key: Key) -> Result<Material, Fault> {
        let material = key.into_material(&self.config.material).map_err(|what| self.odd(act, &what))?;
        match Key::material_kind(&self.config.material) {
            Some(expected) if material.kind() != expected => {
                Err(self.odd(act, &format!("a key that is no {}, which `material` promises", self.config.material)))
            }
            None if !matches!(material, Material::ServicePrincipal { .. }) => {
                Err(self.odd(act, &format!("a key that is no {}, which `material` promises", self.config.material)))
            }
            _ => Ok(material),
        }
    }
}

#[async_trait]
impl Issuer for Command {
    async fn identity(&self) -> Result<AccountIdentity, Fault> {
        let told: Identity = self.caller.ask("identity", Request::default(), &[], false).await?;
        if !is_id(&told.account) {
            return Err(self.odd("identity", "an `account` that is not 1 to 200 letters, digits and signs"));
        }
        Ok(AccountIdentity::new(format!("command:{}", told.account)))
    }

    async fn list(&self) -> Result<Listing, Fault> {
        let told: Listed = self.caller.ask("list", Request::default(), &[], false).await?;
        if told.keys.len() > KEYS_MAX {
            return Err(self.odd("list", "more than 1000 keys"));
        }
        if told.keys.iter().any(|key| !is_id(&key.id) || key.intent.as_deref().is_some_and(|intent| !is_id(intent))) {
            return Err(self.odd("list", "an id or an intent that is not 1 to 200 letters, digits and signs"));
        }
        let ids: BTreeSet<&str> = told.keys.iter().map(|key| key.id.as_str()).collect();
        if ids.len() != told.keys.len() {
            return Err(self.odd("list", "one id twice"));
        }
        let labels = self.config.shape != Shape::ShownOnce;
        let keys = told.keys.into_iter().map(|key| ListedKey {
            id: KeyId::new(key.id),
            active: key.active,
            created: key.created,
            intent: key.intent.filter(|_| labels).map(IntentId::new),
            tail: None,
            root_tail: None,
            expires: key.expires,
        });
        Ok(Listing { keys: keys.collect(), quota: told.quota, date: told.date })
    }

    /// One run of the program, which makes one key at most: that is what its protocol asks of it.
    async fn mint(&self, intent: &IntentId, _replaces: Option<&KeyId>) -> Result<MintedKey, Fault> {
        let request = Request { intent: Some(intent.as_str()), ..Request::default() };
        let minted: Minted = self.caller.ask("mint", request, &[], true).await?;
        Ok(MintedKey { material: self.take("mint", minted.key)?, created: minted.created })
    }

    async fn probe(&self, material: &Material) -> Result<Probe, Fault> {
        let key = Key::from(material);
        let request = Request { key: Some(&key), ..Request::default() };
        let secrets = material.secrets();
        let probed: Probed = self.caller.ask("probe", request, &secrets, false).await?;
        let redactor = crate::net::redact::Redactor::new(&secrets);
        let why = redactor.clean(&probed.why);
        Ok(match probed.probe {
            ProbeWord::Works => Probe::Works,
            ProbeWord::NotYet => Probe::NotYet(why),
            ProbeWord::Wrong => Probe::Wrong(why),
            ProbeWord::NotAllowed => Probe::NotAllowed(why),
        })
    }

    async fn last_use(&self, key: &KeyId) -> Result<LastUse, Fault> {
        if !self.config.tells_use {
            return Ok(LastUse::Untold);
        }
        let used: Used = self.caller.ask("last_use", Self::about(key), &[], false).await?;
        Ok(match used.last_use {
            UseWord::Word(Word::Never) => LastUse::Never,
            UseWord::Word(Word::Untold) => LastUse::Untold,
            UseWord::At { at, by } => LastUse::At { at, by: crate::net::redact::Redactor::default().clean(&by) },
        })
    }

    async fn disable(&self, key: &KeyId) -> Result<(), Fault> {
        self.has_no_switch("disable", key)?;
        self.caller.ask("disable", Self::about(key), &[], false).await.map(|Done {}| ())
    }

    async fn enable(&self, key: &KeyId) -> Result<(), Fault> {
        self.has_no_switch("enable", key)?;
        self.caller.ask("enable", Self::about(key), &[], false).await.map(|Done {}| ())
    }

    /// An id and a secret are the whole of most keys; of the others the program tells the rest.
    async fn known(&self, key: &KeyId, secret: Option<Secret>) -> Result<Option<Material>, Fault> {
        let Some(secret) = secret else { return Ok(None) };
        match self.config.material.as_str() {
            "access-key" => return Ok(Some(Material::AccessKey { id: key.clone(), secret })),
            "hmac-key" => return Ok(Some(Material::HmacKey { id: key.clone(), secret })),
            _ => {}
        }
        // As a key that is an id and a secret, which is what is known of it.
        let brought = Key::from(&Material::AccessKey { id: key.clone(), secret: secret.clone() }).without_kind();
        let request = Request { key: Some(&brought), ..Request::default() };
        let known: Known = self.caller.ask("known", request, &[secret], false).await?;
        let Some(known) = known.key else { return Ok(None) };
        let material = self.take("known", known)?;
        match material.key() == key {
            true => Ok(Some(material)),
            false => Err(self.odd("known", "another key than it was asked about")),
        }
    }

    async fn delete(&self, key: &KeyId) -> Result<(), Fault> {
        match self.caller.ask("delete", Self::about(key), &[], false).await {
            Ok(Done {}) | Err(Fault::Refused { reason: Reason::NotFound, .. }) => Ok(()),
            Err(fault) => Err(fault),
        }
    }
}
