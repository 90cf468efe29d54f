//! `ibm-cos`: access keys of a user of a storage account, at an IBM Cloud Object Storage system in container mode, through the
//! credential API of its accessers (IBM COS 3.20.1, "Container Mode Credentials Management API").
//!
//! The access key is chosen here, from the intent; its secret is the system's, and shown again whenever somebody looks. So a mint whose
//! answer was lost is no loss: the same intent asks for the same name, looks first whether it is there, and takes what it finds. When a
//! key was made or last used, no answer tells. This file never retries, never changes a key that is not this user's, and does not know
//! which key is in use where. IBM Cloud's own keys (resource controller) and vault mode (Manager) have other APIs, which are not spoken
//! here.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::{Method, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::s3::{self, Bucket, Form, Store};
use crate::model::{
    AccountIdentity, IntentId, IssuerSpec, KeyId, Material, MaterialKind, Reason, Secret, Shape, Standing, SystemSpec,
};
use crate::net::client::{Answer, is_loopback};
use crate::net::{Context, form};
use crate::ports::{Fault, Issuer, LastUse, ListedKey, Listing, MintedKey, Probe};
use crate::table::Table;

mod account;
mod client;
mod credential;
mod faults;
mod name;

use account::Account;
use client::{Accesser, Asked};
use credential::{All, Credential, One, Owner};
use faults::{Call, LISTING, MANAGEMENT};

/// The kind `ibm-cos` and the accounts of `[ibm_cos]`.
pub const KIND: super::Kind = super::Kind {
    name: "ibm-cos",
    system: Some("ibm_cos"),
    read_system: account::read,
    read,
    material,
    valid_for: super::for_ever,
    derivation: None,
    connect,
};

/// No page says when every accesser knows a new key; a minute is what stores of this kind are given elsewhere in this house.
const PROPAGATION: Duration = Duration::from_secs(60);
/// After a conflict: how long it is looked whether the key is there, at most, and how often.
const LOOKED_FOR_MAX: Duration = Duration::from_secs(60);
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// A probe as it may be written.
const FORM: &str = "probe = { endpoint = \"https://s3.example.com\", bucket = \"gis-store\", expect = \"read\" }";
/// What a signature names where the policy names no region: a system of one's own has none, and takes this one.
const REGION: &str = "us-east-1";
/// What the bucket asks of the key's user.
const RIGHT: &str = "the key's storage account needs READ on the bucket";

/// `[service.issuer]` of this kind, as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Config {
    project_id: String,
    user_id: String,
    subject_ibm_id: Option<String>,
    probe: Bucket,
}

fn read(table: &mut Table<'_>, system: Option<&SystemSpec>) -> Option<IssuerSpec> {
    let account = Account::of(system);
    let project_id = read_id(table, "project_id");
    let user_id = read_id(table, "user_id");
    let subject_ibm_id = match table.has("subject_ibm_id") {
        true => read_id(table, "subject_ibm_id"),
        false => None,
    };
    let exclusive = table.flag("exclusive", false);
    let probe = match table.require("probe", FORM) {
        true => s3::read_at(table, Form { text: FORM, region: Some(REGION) }),
        false => None,
    };
    let (project_id, user_id, probe) = (project_id?, user_id?, probe?);
    let (account, system) = (account?, system?);
    Some(IssuerSpec {
        kind: KIND.name.to_owned(),
        system: Some(system.at.clone()),
        object: format!("{}:{}:{project_id}/{user_id}", KIND.name, system.at.name),
        shape: Shape::ClientNamed,
        exclusive,
        propagation: PROPAGATION,
        settle: account.settle(),
        last_used_lag: None,
        config: serde_json::to_value(Config { project_id, user_id, subject_ibm_id, probe }).ok()?,
    })
}

/// An id as the system has it: no page says how ids are made, so only what nobody can mean is refused.
fn read_id(table: &mut Table<'_>, key: &'static str) -> Option<String> {
    let id = table.text(key)?;
    if id.len() > 255 || id.chars().any(|c| c.is_control() || c.is_whitespace()) {
        let help = match key {
            "project_id" => {
                "write the id of the storage account, as its credentials show it: project_id = \"731fc6f265cd486d\""
            }
            "user_id" => {
                "write the id of the user, as the credentials of the storage account show it: user_id = \"bb5476fd1288\""
            }
            _ => {
                "write the identity in IBM's IAM, such as \"IBMid-61KR43CAFF\", or leave it out: an empty one is refused"
            }
        };
        table.mistake(key, format!("`{id}` is no id"), help);
        return None;
    }
    Some(id)
}

fn material(_spec: &IssuerSpec) -> Option<MaterialKind> {
    Some(MaterialKind::AccessKey)
}

fn connect(spec: &IssuerSpec, system: Option<&SystemSpec>, context: &Context) -> Result<Arc<dyn Issuer>, Fault> {
    let config: Config = super::config(spec)?;
    // The policy was checked when it was read; what comes out of a journal is checked here.
    if let Some(endpoint) = config.probe.endpoint(None) {
        let is_safe = Url::parse(endpoint).is_ok_and(|url| url.scheme() == "https" || is_loopback(&url));
        if !is_safe {
            return Err(super::mismatch(spec, format!("{endpoint} is neither https nor on this host")));
        }
    }
    let accesser = Accesser::connect(system, &spec.object, context)?;
    let on = format!("user {} of storage account {}", config.user_id, config.project_id);
    Ok(Arc::new(IbmCos { config, accesser, on }))
}

/// The keys of one user of one storage account.
struct IbmCos {
    config: Config,
    accesser: Accesser,
    /// `user U of storage account P`, for messages.
    on: String,
}

impl IbmCos {
    fn owner(&self) -> Owner<'_> {
        Owner { project_id: &self.config.project_id, user_id: &self.config.user_id }
    }

    /// A call about one key.
    fn call(&self, verb: &str, key: &KeyId, needs: &'static str) -> Call {
        Call::new(format!("{verb} access key {key} of {}", self.on), needs)
    }

    /// This user's credentials, and the answer they stand in.
    async fn credentials(&self) -> Result<(Vec<Credential>, Answer), Fault> {
        let call = Call::new(format!("list the access keys of {}", self.on), LISTING);
        let asked = Asked::new(Method::GET, "/credentials/".to_owned())
            .query("project_id", &self.config.project_id)
            .query("user_id", &self.config.user_id);
        let answer = self.accesser.send(&call, asked).await?;
        let All { mut credentials } = parsed(&call, &answer, "a list of credentials")?;
        // The parameters are filters; whoever ignores one shows others' keys too, which are none of this service's.
        credentials.retain(|credential| credential.is_of(self.owner()));
        let mut seen = std::collections::BTreeSet::new();
        for credential in &credentials {
            if let Some(flaw) = credential.flaw() {
                return Err(Fault::Unknown(call.text(format_args!("an answer with {flaw}"))));
            }
            if !seen.insert(credential.key()) {
                return Err(Fault::Unknown(call.text("an answer with one access key twice")));
            }
        }
        Ok((credentials, answer))
    }

    /// The key as the accesser shows it; `None` where it knows none of this name.
    async fn shown(&self, key: &KeyId) -> Result<Option<Credential>, Fault> {
        let call = self.call("look at", key, LISTING);
        match self.accesser.send(&call, Asked::new(Method::GET, path(key))).await {
            Ok(answer) => {
                let One { credential } = parsed(&call, &answer, "a credential")?;
                self.checked(&call, key, credential).map(Some)
            }
            Err(Fault::Refused { reason: Reason::NotFound, .. }) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// A credential that was answered where this key was asked for: it must be that key, and this user's.
    fn checked(&self, call: &Call, key: &KeyId, credential: Credential) -> Result<Credential, Fault> {
        if credential.flaw().is_some() || credential.key() != *key {
            return Err(Fault::Unknown(call.text("an answer about another access key")));
        }
        if !credential.is_of(self.owner()) {
            let why = call.text("the key is another user's, and is left alone");
            return Err(Fault::Refused { reason: Reason::Refused, why });
        }
        Ok(credential)
    }

    /// What an intent's key is good for, now that it is there.
    fn made(&self, call: &Call, credential: Credential) -> Result<MintedKey, Fault> {
        let id = credential.key();
        let Some(secret) = credential.into_secret() else {
            // A retry then finds it by its name, takes it away and makes another.
            let why = call.text("the key is there, and no answer shows its secret; it can only be deleted");
            return Err(Fault::Refused { reason: Reason::Refused, why });
        };
        Ok(MintedKey { material: Material::AccessKey { id, secret }, created: None })
    }

    /// A key whose POST was refused, where it is there all the same. A conflict says that this may be so, and a look may be behind for
    /// as long as `settle` says; so it is looked again and again, for a minute at most.
    async fn looked_for(&self, key: &KeyId, refusal: &Fault) -> Option<Credential> {
        let may_be_there = matches!(refusal, Fault::Refused { reason: Reason::Quota, .. });
        let until = Instant::now() + self.accesser.account.settle().min(LOOKED_FOR_MAX);
        loop {
            if let Ok(Some(credential)) = self.shown(key).await {
                return Some(credential);
            }
            if !may_be_there || Instant::now() >= until {
                return None;
            }
            tokio::time::sleep_until(until.min(Instant::now() + LOOK_PAUSE)).await;
        }
    }

    /// Why no key was made, as far as it can be told.
    async fn why_not_made(&self, refusal: Fault) -> Fault {
        let Fault::Refused { reason: Reason::Quota, why } = refusal else { return refusal };
        // How many keys a user may have is told by nobody; how many it has is.
        let held = match self.credentials().await {
            Ok((credentials, _)) => {
                let ids: Vec<String> = credentials.iter().map(|credential| credential.key().to_string()).collect();
                format!("; no look shows this key, and the user has {}: {}", ids.len(), ids.join(", "))
            }
            Err(_) => String::new(),
        };
        Fault::Refused { reason: Reason::Quota, why: format!("{why}{held}") }
    }

    /// Sends the shown credential back with another status; both ways are alike and repeatable. Whether it was done is seen from what
    /// is answered or, where that is about another key (as in IBM's own example) or says nothing of the status, from another look.
    async fn set_status(&self, verb: &str, key: &KeyId, active: bool) -> Result<(), Fault> {
        let call = self.call(verb, key, MANAGEMENT);
        let Some(shown) = self.shown(key).await? else {
            let why = call.text("there is no such key");
            return Err(Fault::Refused { reason: Reason::NotFound, why });
        };
        let asked = Asked::new(Method::PATCH, path(key)).body(shown.with_status(active), shown.secret());
        let answer = self.accesser.send(&call, asked).await?;
        if !answer.body.trim_ascii().is_empty() {
            let One { credential } = parsed(&call, &answer, "a credential")?;
            if credential.key() == *key && credential.is_said_to_be(active) {
                return Ok(());
            }
        }
        match self.shown(key).await? {
            Some(shown) if shown.is_said_to_be(active) => Ok(()),
            _ => Err(Fault::Unknown(call.text("it was answered as done, and the key does not show it"))),
        }
    }
}

#[async_trait]
impl Issuer for IbmCos {
    /// `ibm-cos:HOST/STORAGE-ACCOUNT/USER`. An accesser tells nothing of the system it belongs to; the host, whose certificate is
    /// verified, is all that tells one system from another, and storage account and user are the ones it has just answered for.
    async fn identity(&self) -> Result<AccountIdentity, Fault> {
        let (_, answer) = self.credentials().await?;
        let Config { project_id, user_id, .. } = &self.config;
        Ok(AccountIdentity::new(format!("ibm-cos:{}/{project_id}/{user_id}", answer.host)))
    }

    async fn list(&self) -> Result<Listing, Fault> {
        let (credentials, answer) = self.credentials().await?;
        let keys = credentials.iter().map(|credential| ListedKey {
            id: credential.key(),
            active: credential.is_active(),
            created: None,
            intent: name::intent(&credential.key()),
            tail: credential.secret().and_then(Secret::tail),
            root_tail: None,
            expires: None,
        });
        Ok(Listing { keys: keys.collect(), quota: None, date: answer.date })
    }

    /// One POST at most, for a key of the intent's name, and none where that is there already: what a second POST for a name that is
    /// taken does (409, the same key again, another secret for it) is not documented. Whatever refusal comes back, it is looked once
    /// more, since an earlier request of the same intent may have arrived meanwhile, and 409 has more than one cause.
    async fn mint(&self, intent: &IntentId, _replaces: Option<&KeyId>) -> Result<MintedKey, Fault> {
        let key = name::of(intent);
        let call = self.call("create", &key, MANAGEMENT);
        if let Some(credential) = self.shown(&key).await.map_err(nothing_sent)? {
            return self.made(&call, credential);
        }
        let body = credential::asked(&key, self.owner(), self.config.subject_ibm_id.as_deref());
        let asked = Asked::new(Method::POST, "/credentials".to_owned()).body(body, None);
        let refusal = match self.accesser.send(&call, asked).await {
            Ok(answer) => {
                let One { credential } = parsed(&call, &answer, "a credential")?;
                if credential.secret().is_some() && credential.key() == key {
                    return self.made(&call, self.checked(&call, &key, credential)?);
                }
                Fault::Unknown(call.text("an answer about another access key, or without a secret"))
            }
            Err(fault @ Fault::Refused { reason: Reason::LoginRefused | Reason::TlsUntrusted, .. }) => {
                return Err(fault);
            }
            Err(fault @ Fault::Refused { .. }) => fault,
            Err(fault) => return Err(fault),
        };
        match self.looked_for(&key, &refusal).await {
            Some(credential) => self.made(&call, credential),
            None => Err(self.why_not_made(refusal).await),
        }
    }

    async fn probe(&self, material: &Material) -> Result<Probe, Fault> {
        let Material::AccessKey { id, secret } = material else {
            let why = format!("probe key {} as one of {}: it is no access key", material.key(), self.on);
            return Err(Fault::Refused { reason: Reason::PolicyMismatch, why });
        };
        let store = Store { endpoint: None, right: RIGHT };
        self.config.probe.look(self.accesser.http.beneath(), store, id, secret, signing_time()).await
    }

    /// That the keys may be listed is shown by doing it. Whether the rotator may make, change and delete them, no request tells: a
    /// PATCH of nothing is still a change, and a DELETE of a key that never was would stand in the system's audit log and prove nothing,
    /// since no page says whether the right or the key is looked at first.
    async fn rights(&self) -> Result<Option<Standing>, Fault> {
        self.credentials().await?;
        Ok(Some(Standing::Untold(format!(
            "the rotator may list the keys of {}; whether it may make, disable and delete them ({MANAGEMENT}), no request tells \
             before it is tried",
            self.on
        ))))
    }

    /// The API tells nothing of it.
    async fn last_use(&self, _key: &KeyId) -> Result<LastUse, Fault> {
        Ok(LastUse::Untold)
    }

    async fn disable(&self, key: &KeyId) -> Result<(), Fault> {
        self.set_status("disable", key, false).await
    }

    async fn enable(&self, key: &KeyId) -> Result<(), Fault> {
        self.set_status("enable", key, true).await
    }

    /// The secret is shown again, so one that an operator brings is held against it.
    async fn known(&self, key: &KeyId, secret: Option<Secret>) -> Result<Option<Material>, Fault> {
        let shown = self.shown(key).await?.and_then(Credential::into_secret);
        if let (Some(brought), Some(shown)) = (&secret, &shown)
            && brought != shown
        {
            let why = format!("look at access key {key} of {}: the secret given is not the one it has", self.on);
            return Err(Fault::Refused { reason: Reason::Refused, why });
        }
        Ok(secret.or(shown).map(|secret| Material::AccessKey { id: key.clone(), secret }))
    }

    async fn delete(&self, key: &KeyId) -> Result<(), Fault> {
        let call = self.call("delete", key, MANAGEMENT);
        match self.accesser.send(&call, Asked::new(Method::DELETE, path(key))).await {
            // The table says 204 and the example "204 OK"; a page with 200 is a login's.
            Ok(answer) if answer.body.trim_ascii().is_empty() => Ok(()),
            Ok(_) => Err(Fault::Unknown(call.text("an answer with a body, which a deletion does not have"))),
            Err(Fault::Refused { reason: Reason::NotFound, .. }) => Ok(()),
            Err(fault) => Err(fault),
        }
    }
}

/// Where one credential is.
fn path(key: &KeyId) -> String {
    format!("/credentials/{}", form::component(key.as_str()).as_str())
}

/// A fault of a look before the request that counts: whatever became of the look, that request was not sent.
fn nothing_sent(fault: Fault) -> Fault {
    match fault {
        Fault::Unknown(why) => Fault::NotSent(why),
        other => other,
    }
}

/// The content of a success. Nothing of a body that could not be read is repeated: it holds secrets.
fn parsed<T: DeserializeOwned>(call: &Call, answer: &Answer, what: &str) -> Result<T, Fault> {
    serde_json::from_slice(&answer.body)
        .map_err(|_| Fault::Unknown(call.text(format_args!("status {} and a body that is not {what}", answer.status))))
}

/// The wall clock at the edge: for the date in a signature.
#[allow(clippy::disallowed_methods)]
fn signing_time() -> std::time::SystemTime {
    std::time::SystemTime::now()
}

#[cfg(test)]
mod tests;
