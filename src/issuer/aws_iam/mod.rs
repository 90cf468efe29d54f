//! `aws-iam`: access keys of an IAM user, at AWS or at a store that speaks IAM and S3 as AWS does.
//!
//! What a store lacks (an STS, a report of the last use) its policy says; see `account`. Nothing is found out by trying: a refusal for
//! want of a right and one for want of the call look alike.
//!
//! Two keys fit to a user. A mint has no idempotency token and its secret is shown once (IAM API reference, CreateAccessKey), so a
//! lost answer leaves a key whose secret nobody has; the engine finds and contains it. This file never retries, never deletes what
//! it was not told to, and does not know which key is in use where.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_iam::types::StatusType;
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use super::s3::{self, Bucket, Form, Store};
use crate::model::{
    AccountIdentity, IntentId, IssuerSpec, KeyId, Material, MaterialKind, Reason, Secret, Shape, SystemSpec, Timestamp,
};
use crate::net::{Context, secrets};
use crate::ports::{Fault, Issuer, LastUse, ListedKey, Listing, MintedKey, Probe};
use crate::table::Table;

mod account;
mod client;
mod faults;
mod identity;
mod probe;

use account::Account;
use client::{Clients, Witness};
use faults::Call;
use probe::Owner;

/// The kind `aws-iam` and the accounts of `[aws]`.
pub const KIND: super::Kind = super::Kind {
    name: "aws-iam",
    system: Some("aws"),
    read_system: account::read,
    read,
    material,
    lifetime: super::for_ever,
    watch_min: super::at_once,
    derivation: None,
    connect,
};

/// AWS: two access keys to an IAM user, active or not, and no increase (IAM User Guide, quotas).
const QUOTA: usize = 2;
/// AWS promises no time after which a new key is known everywhere; seconds are usual and a minute was never too short where
/// people wrote down what they saw.
const PROPAGATION: Duration = Duration::from_secs(60);
/// A listing of two keys has one page. A store that pages for ever is not believed.
const PAGES_MAX: usize = 100;

/// A probe as it may be written: the consumer's own kind of request on its own bucket.
const PROBE: &str = "probe = { bucket = \"gis-store\", region = \"us-east-1\", expect = \"read\" }";

/// `[service.issuer]` of this kind, as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Config {
    user: String,
    probe: Bucket,
}

fn read(table: &mut Table<'_>, system: Option<&SystemSpec>) -> Option<IssuerSpec> {
    let account = Account::of(system);
    let user = table.text("user");
    if let Some(user) = &user
        && !is_user(user)
    {
        table.mistake(
            "user",
            format!("`{user}` is no name of an IAM user"),
            "write the name alone, without path or ARN: user = \"arcgis-object-store\" (letters, digits and _+=,.@-, at most 128)",
        );
    }
    let exclusive = table.flag("exclusive", false);
    let probe = match table.require("probe", PROBE) {
        true => {
            let form = Form { text: PROBE, region: account.as_ref().and_then(|account| account.region.as_deref()) };
            match account.as_ref().and_then(Account::s3_endpoint) {
                Some(_) => s3::read(table, form),
                None => s3::read_at_aws(table, form),
            }
        }
        false => None,
    };
    let (user, probe, account, system) = (user?, probe?, account?, system?);
    Some(IssuerSpec {
        kind: KIND.name.to_owned(),
        system: Some(system.at.clone()),
        object: format!("{}:{}:{user}", KIND.name, system.at.name),
        shape: Shape::ShownOnce,
        exclusive,
        propagation: PROPAGATION,
        settle: account.settle(),
        last_used_lag: account.last_used_lag(),
        config: serde_json::to_value(Config { user, probe }).ok()?,
    })
}

fn material(_spec: &IssuerSpec) -> Option<MaterialKind> {
    Some(MaterialKind::AccessKey)
}

/// IAM's own pattern, `[\w+=,.@-]{1,128}`.
fn is_user(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b))
}

fn connect(spec: &IssuerSpec, system: Option<&SystemSpec>, context: &Context) -> Result<Arc<dyn Issuer>, Fault> {
    let mismatch = |what: String| super::mismatch(spec, what);
    let config: Config = super::config(spec)?;
    let account = match (&spec.system, Account::of(system)) {
        (_, Some(account)) => account,
        (Some(at), None) => return Err(mismatch(format!("the policy has no usable [{at}]"))),
        (None, None) => return Err(mismatch("it names no account".to_owned())),
    };
    let endpoints = [account.iam_endpoint(), account.sts_endpoint(), config.probe.endpoint(account.s3_endpoint())];
    for endpoint in endpoints.into_iter().flatten() {
        // The policy was checked when it was read; what comes out of a journal is checked here.
        if endpoint.starts_with("http://") && !probe::is_loopback(endpoint) {
            return Err(mismatch(format!("{endpoint} is neither https nor on this host")));
        }
    }
    let login = match &account.login {
        Some(login) => Some((login.access_key_id.as_str(), secrets::read(&login.secret_access_key)?)),
        None => None,
    };
    let tls = login.is_none() || endpoints.iter().any(|endpoint| endpoint.is_none_or(|url| url.starts_with("https:")));
    let clients = Clients::new(&account, login, tls, context)?;
    let on = format!("iam user {}", config.user);
    Ok(Arc::new(AwsIam { config, account, clients, on, ours: OnceCell::new() }))
}

/// One IAM user.
struct AwsIam {
    config: Config,
    account: Account,
    clients: Clients,
    /// `iam user NAME`, for messages.
    on: String,
    /// Whose the rotator's own credentials are; asked once for the probes, and by every `identity`.
    ours: OnceCell<Owner>,
}

impl AwsIam {
    /// A call about the user that needs `action` on it.
    fn call(&self, what: &str, action: &str) -> Call {
        Call::new(format!("{what} {}", self.on)).needing(action, &self.on)
    }

    /// Sets a key's status; both ways are alike and repeatable.
    async fn set_status(&self, verb: &str, key: &KeyId, status: StatusType) -> Result<(), Fault> {
        let call = self.call(&format!("{verb} key {key} of"), "iam:UpdateAccessKey");
        let witness = Witness::default();
        let answer = self
            .clients
            .iam
            .update_access_key()
            .user_name(&self.config.user)
            .access_key_id(key.as_str())
            .status(status)
            .customize()
            .interceptor(witness.clone())
            .send()
            .await;
        faults::judge(&call, &witness, answer).map(drop)
    }
}

#[async_trait]
impl Issuer for AwsIam {
    /// `aws:123456789012`, or the partition it is in: `aws-us-gov:123456789012`. Without an STS the user stands behind it:
    /// `aws:RGW33567154695143645/3a2b…`, `ecs:ns1/AIDA…`. The address is no part of it: that is the policy's word, not the provider's.
    async fn identity(&self) -> Result<AccountIdentity, Fault> {
        if !self.account.sts {
            return self.user().await;
        }
        Ok(AccountIdentity::new(self.caller().await?.name()))
    }

    async fn list(&self) -> Result<Listing, Fault> {
        let call = self.call("list the access keys of", "iam:ListAccessKeys");
        let mut listing = Listing { keys: Vec::new(), quota: Some(QUOTA), date: None };
        let mut marker = None;
        for _ in 0..PAGES_MAX {
            let witness = Witness::default();
            let page = self
                .clients
                .iam
                .list_access_keys()
                .user_name(&self.config.user)
                .set_marker(marker.take())
                .customize()
                .interceptor(witness.clone())
                .send()
                .await;
            let page = faults::judge(&call, &witness, page)?;
            listing.date = witness.date();
            for key in page.access_key_metadata() {
                let Some(id) = key.access_key_id() else {
                    return Err(Fault::Unknown(call.text("a key without an id in the listing")));
                };
                listing.keys.push(ListedKey {
                    id: KeyId::new(id),
                    // `Inactive`, `Expired` and what may come are not usable.
                    active: key.status() == Some(&StatusType::Active),
                    created: key.create_date().and_then(timestamp),
                    // Access keys carry no description (IAM API reference, AccessKeyMetadata).
                    intent: None,
                    tail: None,
                    expires: None,
                    root_tail: None,
                });
            }
            if !page.is_truncated() {
                return Ok(listing);
            }
            marker = page.marker().filter(|marker| !marker.is_empty()).map(str::to_owned);
            if marker.is_none() {
                return Err(Fault::Unknown(call.text("the listing says it goes on and not where")));
            }
        }
        Err(Fault::Unknown(call.text(format_args!("the listing does not end after {PAGES_MAX} pages"))))
    }

    /// One CreateAccessKey, at most once on the wire (see `client`). The user is always named: without it IAM takes the signing
    /// key's own user. IAM knows no token for the intent, so the intent stays in the journal.
    ///
    /// A rotator may stand in for the very user whose keys it mints. Nothing here forbids it, but whoever does that must give the
    /// rotator the new key in the same rotation, or its retiring calls fail once the old one is disabled.
    async fn mint(&self, _intent: &IntentId, _replaces: Option<&KeyId>) -> Result<MintedKey, Fault> {
        let call = self.call("create an access key for", "iam:CreateAccessKey");
        let witness = Witness::default();
        let answer = self
            .clients
            .iam
            .create_access_key()
            .user_name(&self.config.user)
            .customize()
            .interceptor(witness.clone())
            .send()
            .await;
        let answer = faults::judge(&call, &witness, answer)?;
        // The SDK fills what an answer lacks with empty texts (its `..._output_correct_errors`), so emptiness means absence.
        let Some(key) =
            answer.access_key.filter(|key| !key.access_key_id.is_empty() && !key.secret_access_key.is_empty())
        else {
            return Err(Fault::Unknown(call.text("an answer without the key's id or secret")));
        };
        // The SDK's own string moves into the wiped one. Not ours to wipe: the answer's body in the SDK's and the TLS layer's
        // buffers and the XML decoder's scratch; they are freed, not overwritten, when the call ends.
        let secret = Secret::new(key.secret_access_key);
        Ok(MintedKey {
            material: Material::AccessKey { id: KeyId::new(key.access_key_id), secret },
            created: key.create_date.as_ref().and_then(timestamp),
        })
    }

    async fn probe(&self, material: &Material) -> Result<Probe, Fault> {
        let Material::AccessKey { id, secret } = material else {
            let why = format!("probe key {} as one of {}: it is no access key", material.key(), self.on);
            return Err(Fault::Refused { reason: Reason::PolicyMismatch, why });
        };
        if self.account.sts
            && let Some(said) = self.foreign(id, secret).await?
        {
            return Ok(said);
        }
        let store = Store { endpoint: self.account.s3_endpoint(), right: "the key's user needs s3:ListBucket there" };
        self.config.probe.look(&self.clients.plain, store, id, secret, client::signing_time()).await
    }

    async fn last_use(&self, key: &KeyId) -> Result<LastUse, Fault> {
        if self.account.last_used_lag().is_none() {
            return Ok(LastUse::Untold);
        }
        let call = self.call(&format!("ask for the last use of key {key} of"), "iam:GetAccessKeyLastUsed");
        let witness = Witness::default();
        let answer = self
            .clients
            .iam
            .get_access_key_last_used()
            .access_key_id(key.as_str())
            .customize()
            .interceptor(witness.clone())
            .send()
            .await;
        let advice = "if this store does not tell the last use of a key, say last_used = false";
        let answer = self.advised(advice, &call, &witness, answer)?;
        // A key never used has no date, and "N/A" for service and region. An answer without the element itself tells nothing,
        // and "never" would be evidence for a deletion.
        let Some(used) = answer.access_key_last_used() else {
            return Err(Fault::Unknown(call.text("an answer without what was asked")));
        };
        match used.last_used_date() {
            None => Ok(LastUse::Never),
            Some(date) => match timestamp(date) {
                Some(at) => Ok(LastUse::At { at, by: format!("{} in {}", used.service_name(), used.region()) }),
                None => Err(Fault::Unknown(call.text("a date that is none"))),
            },
        }
    }

    async fn disable(&self, key: &KeyId) -> Result<(), Fault> {
        self.set_status("disable", key, StatusType::Inactive).await
    }

    async fn enable(&self, key: &KeyId) -> Result<(), Fault> {
        self.set_status("enable", key, StatusType::Active).await
    }

    /// AWS shows a secret once, so it is the operator's or none.
    async fn known(&self, key: &KeyId, secret: Option<Secret>) -> Result<Option<Material>, Fault> {
        Ok(secret.map(|secret| Material::AccessKey { id: key.clone(), secret }))
    }

    async fn delete(&self, key: &KeyId) -> Result<(), Fault> {
        let call = self.call(&format!("delete key {key} of"), "iam:DeleteAccessKey");
        let witness = Witness::default();
        let answer = self
            .clients
            .iam
            .delete_access_key()
            .user_name(&self.config.user)
            .access_key_id(key.as_str())
            .customize()
            .interceptor(witness.clone())
            .send()
            .await;
        match &answer {
            Err(error) if faults::answer_of(error).is_some_and(|answer| answer.code == Some("NoSuchEntity")) => Ok(()),
            _ => faults::judge(&call, &witness, answer).map(drop),
        }
    }
}

fn timestamp(date: &aws_smithy_types::DateTime) -> Option<Timestamp> {
    Timestamp::from_timestamp(date.secs(), date.subsec_nanos())
}

#[cfg(test)]
mod tests;
