//! `ibm-cos`: access keys of a user of a storage account, at an IBM Cloud Object Storage system in container mode, through the
//! credential API of its accessers (IBM COS 3.20.1, "Container Mode Credentials Management API").
//!
//! The access key is chosen here, from the intent; its secret is the system's, and shown again whenever somebody looks. So a mint whose
//! answer was lost is no loss: the same intent asks for the same name, looks first whether it is there, and takes what it finds. When a
//! key was made or last used, no answer tells. This file never retries, never changes a key that is not this user's, and does not know
//! which key is in use where. IBM Cloud's own keys (resource controller) and vault mode (Manager) have other APIs, which are not spoken
//! here.

use std::sync::Arc;

use async_trait::async_trait;
use reqwest::{Method, Url};
use serde::de::DeserializeOwned;

use super::s3::Store;
use crate::model::{AccountIdentity, IntentId, IssuerSpec, KeyId, Material, Reason, Secret, Standing, SystemSpec};
use crate::net::client::{Answer, is_loopback};
use crate::net::{Context, form};
use crate::ports::{Fault, Issuer, LastUse, ListedKey, Listing, MintedKey, Probe};

mod account;
mod client;
mod credential;
mod faults;
mod login;
mod mint;
mod name;
mod policy;

use client::{Accesser, Asked};
use credential::{All, Credential, One, Owner};
use faults::{Call, LISTING, MANAGEMENT};
use policy::Config;

/// The kind `ibm-cos` and the accounts of `[ibm_cos]`.
pub const KIND: super::Kind = super::Kind {
    name: "ibm-cos",
    system: Some("ibm_cos"),
    read_system: account::read,
    read: |table, system| policy::read("ibm-cos", table, system),
    material: policy::material,
    lifetime: super::for_ever,
    watch_min: super::at_once,
    derivation: None,
    connect,
};

/// What the bucket asks of the key's user.
const RIGHT: &str = "the key's storage account needs READ on the bucket";

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

/// What a look at a name shows.
enum Shown {
    /// A key of this user.
    Ours(Credential),
    /// A key of somebody else.
    Anothers,
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
        let all: All = parsed(&call, &answer, "a list of credentials")?;
        // How it would go on nobody documents, and a key that is not on the first page is not gone.
        if all.goes_on() {
            return Err(Fault::Unknown(call.text("a list that says it goes on, which is not known of this API")));
        }
        let mut credentials = all.credentials;
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

    /// What there is of this name, as the accesser shows it; `None` where it knows none.
    async fn look_at(&self, key: &KeyId) -> Result<Option<Shown>, Fault> {
        let call = self.call("look at", key, LISTING);
        match self.accesser.send(&call, Asked::new(Method::GET, path(key))).await {
            Ok(answer) => {
                let One { credential } = parsed(&call, &answer, "a credential")?;
                let names_a_user = credential.names_a_user();
                let shown = self.whose(&call, key, credential)?;
                // The question named no user. Then that of the list does.
                if !names_a_user && !self.is_listed(key).await? {
                    return Ok(Some(Shown::Anothers));
                }
                Ok(Some(shown))
            }
            Err(Fault::Refused { reason: Reason::NotFound, .. }) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    async fn is_listed(&self, key: &KeyId) -> Result<bool, Fault> {
        Ok(self.credentials().await?.0.iter().any(|credential| credential.key() == *key))
    }

    /// This user's key of this name.
    async fn shown(&self, key: &KeyId) -> Result<Option<Credential>, Fault> {
        match self.look_at(key).await? {
            None => Ok(None),
            Some(Shown::Ours(credential)) => Ok(Some(credential)),
            Some(Shown::Anothers) => {
                let call = self.call("look at", key, LISTING);
                let why = call.text("the key is another user's, and is left alone");
                Err(Fault::Refused { reason: Reason::Refused, why })
            }
        }
    }

    /// Whose a credential is that was answered where this key was asked for: it must be that key.
    fn whose(&self, call: &Call, key: &KeyId, credential: Credential) -> Result<Shown, Fault> {
        if credential.flaw().is_some() || credential.key() != *key {
            return Err(Fault::Unknown(call.text("an answer about another access key")));
        }
        match credential.is_of(self.owner()) {
            true => Ok(Shown::Ours(credential)),
            false => Ok(Shown::Anothers),
        }
    }

    /// Sends the shown credential back with another status; both ways are alike and repeatable. Whether it was done is seen from what
    /// is answered or, where that is about another key (as in IBM's own example) or says nothing of the status, from another look.
    async fn set_status(&self, verb: &str, key: &KeyId, active: bool) -> Result<(), Fault> {
        let call = self.call(verb, key, MANAGEMENT);
        let Some(shown) = self.shown(key).await? else {
            let why = call.text("there is no such key");
            return Err(Fault::Refused { reason: Reason::NotFound, why });
        };
        let asked = Asked::new(Method::PATCH, path(key)).body(shown.with_status(active, self.owner()), shown.secret());
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

    async fn mint(&self, intent: &IntentId, _replaces: Option<&KeyId>) -> Result<MintedKey, Fault> {
        self.make(intent).await
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

    /// Names are chosen by whoever makes a key, so one that somebody else freed may be another user's by now: that is looked at first. A
    /// name that no look shows is sent all the same, since a look may be behind.
    async fn delete(&self, key: &KeyId) -> Result<(), Fault> {
        let call = self.call("delete", key, MANAGEMENT);
        self.shown(key).await?;
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
