//! `gcs-hmac`: HMAC keys of a Google Cloud service account, with which ArcGIS speaks to Cloud Storage as to S3.
//!
//! Ten keys fit to an account. A mint has no idempotency token and its secret is shown once, so a lost answer leaves a key whose
//! secret nobody has; the engine finds and contains it. A key is disabled before it is deleted: Google deletes no other. This file
//! never retries, never deletes what it was not told to, and does not know which key is in use where.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::WatchMin;
use super::s3::{self, Bucket, Form, Store};
use crate::model::{
    AccountIdentity, IntentId, IssuerSpec, KeyId, Material, MaterialKind, Reason, Secret, Shape, Standing, SystemSpec,
    Timestamp, deserialize_secret,
};
use crate::net::Context;
use crate::ports::{Fault, Issuer, LastUse, ListedKey, Listing, MintedKey, Probe};
use crate::table::Table;

mod account;
mod client;
mod faults;
mod grant;
mod login;
mod proof;
mod rights;
mod said;

use account::{Account, is_project, is_service_account};
use client::{Google, signing_time};
use faults::Call;

/// The kind `gcs-hmac` and the accounts of `[gcp]`.
pub const KIND: super::Kind = super::Kind {
    name: "gcs-hmac",
    system: Some("gcp"),
    read_system: account::read,
    read,
    material,
    lifetime: super::for_ever,
    watch_min,
    derivation: None,
    connect,
};

/// "You can have a maximum of 10 HMAC keys per service account. Deleted keys do not count" (Cloud Storage, "HMAC keys", 2026-04-08).
const QUOTA: usize = 10;
/// "After creation, it can take up to 60 seconds for a service account HMAC key to become useable" (the same page).
const PROPAGATION: Duration = Duration::from_secs(60);
/// "You should wait at least 3 minutes between making an HMAC key inactive and deleting the key", since a change of state takes that
/// long to be known everywhere ("Manage HMAC keys for service accounts", 2026-05-29).
const WATCH_MIN: Duration = Duration::from_secs(3 * 60);
/// A listing of ten keys has one page; a service that pages for ever is not believed.
const PAGES_MAX: usize = 20;
/// A bucket's probe as it may be written.
const FORM: &str = "probe = { bucket = \"gis-store\", expect = \"read\" }";
/// What Cloud Storage takes for the region in a signature ("V4 signing process"): the bucket's location does not matter to it.
const REGION: &str = "auto";

/// `[service.issuer]` of this kind, as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Config {
    project: String,
    service_account: String,
    probe: Bucket,
    /// At Google itself [`WATCH_MIN`], in seconds; a stand-in has no such wait.
    watch_min_s: u64,
}

fn read(table: &mut Table<'_>, system: Option<&SystemSpec>) -> Option<IssuerSpec> {
    let account = Account::of(system);
    let project = table.text("project");
    if let Some(project) = &project
        && !is_project(project)
    {
        let help = "write its id, as `gcloud projects list` shows it under PROJECT_ID: project = \"gis-prod-123\"; neither its name \
                    nor its number";
        table.mistake("project", format!("`{project}` is no id of a project"), help);
    }
    let service_account = table.text("service_account");
    if let Some(email) = &service_account
        && !is_service_account(email)
    {
        let help = "write its address: service_account = \"arcgis-store@gis-prod-123.iam.gserviceaccount.com\"";
        table.mistake("service_account", format!("`{email}` is no service account"), help);
    }
    let exclusive = table.flag("exclusive", false);
    let probe = match table.require("probe", FORM) {
        true => s3::read(table, Form { text: FORM, region: Some(REGION) }),
        false => None,
    };
    let (project, service_account, probe) = (project?, service_account?.to_lowercase(), probe?);
    let (account, system) = (account?, system?);
    let watch_min = if account.is_stand_in() { Duration::ZERO } else { WATCH_MIN };
    let config = Config { project, service_account, probe, watch_min_s: watch_min.as_secs() };
    Some(IssuerSpec {
        kind: KIND.name.to_owned(),
        system: Some(system.at.clone()),
        // Without the table's name: one service account under two of them is still one.
        object: format!("{}:{}", KIND.name, config.service_account),
        shape: Shape::ShownOnce,
        exclusive,
        propagation: PROPAGATION,
        settle: account.settle(),
        last_used_lag: None,
        config: serde_json::to_value(config).ok()?,
    })
}

fn material(_spec: &IssuerSpec) -> Option<MaterialKind> {
    Some(MaterialKind::HmacKey)
}

fn watch_min(spec: &IssuerSpec) -> Option<WatchMin> {
    let config: Config = serde_json::from_value(spec.config.clone()).ok()?;
    let wait = Duration::from_secs(config.watch_min_s);
    Some(WatchMin { wait, why: "Google may take 3m to know everywhere that it is" })
}

fn connect(spec: &IssuerSpec, system: Option<&SystemSpec>, context: &Context) -> Result<Arc<dyn Issuer>, Fault> {
    let config: Config = super::config(spec)?;
    if !is_project(&config.project) || !is_service_account(&config.service_account) {
        return Err(super::mismatch(spec, "its project or its service account is none"));
    }
    let google = Google::connect(system, &spec.object, context)?;
    let on = format!("service account {}", config.service_account);
    Ok(Arc::new(GcsHmac { config, google, on }))
}

/// One service account's HMAC keys.
struct GcsHmac {
    config: Config,
    google: Google,
    /// `service account EMAIL`, for messages.
    on: String,
}

/// One page of a listing.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    kind: String,
    #[serde(default)]
    items: Vec<Metadata>,
    #[serde(default)]
    next_page_token: Option<String>,
}

/// A key as Google shows it, without its secret.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    access_id: String,
    project_id: String,
    service_account_email: String,
    state: String,
    #[serde(default)]
    time_created: Option<DateTime<Utc>>,
    #[serde(default)]
    etag: Option<String>,
}

/// A key as it is shown once.
#[derive(Deserialize)]
struct Created {
    metadata: Metadata,
    #[serde(deserialize_with = "deserialize_secret")]
    secret: Secret,
}

/// Google's have 61 letters and digits for a service account ("HMAC keys"). It becomes part of addresses, and goes to the journal and
/// to ArcGIS.
fn is_access_id(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

const ACTIVE: &str = "ACTIVE";
const INACTIVE: &str = "INACTIVE";
/// A deleted key is shown where it is asked for, for a while: it counts as gone.
const DELETED: &str = "DELETED";

impl GcsHmac {
    fn call(&self, what: &str, permission: &'static str) -> Call {
        Call::new(format!("{what} {}", self.on)).needing(permission)
    }

    fn path(&self) -> String {
        format!("/projects/{}/hmacKeys", self.config.project)
    }

    fn path_of(&self, call: &Call, key: &KeyId) -> Result<String, Fault> {
        // Whatever else an operator types is no key of Google's.
        match is_access_id(key.as_str()) {
            true => Ok(format!("{}/{key}", self.path())),
            false => Err(Fault::Refused { reason: Reason::NotFound, why: call.text("this is no access id") }),
        }
    }

    /// Whether it is a key of this account in this project: an answer about another one is none to our question.
    fn owned(&self, call: &Call, key: Metadata) -> Result<Metadata, Fault> {
        let (project, email) = (&self.config.project, &self.config.service_account);
        if key.project_id == *project
            && key.service_account_email.eq_ignore_ascii_case(email)
            && is_access_id(&key.access_id)
        {
            return Ok(key);
        }
        Err(Fault::Unknown(
            call.text(format_args!("an answer with a key that is none of {email} in project {project}")),
        ))
    }

    /// Every key of the account that is not deleted, and when Google said so. An account or a project that is not there is
    /// `not-found`, so an empty listing is one of an account without keys.
    async fn keys(&self) -> Result<(Vec<Metadata>, Option<Timestamp>), Fault> {
        let call = self.call("list the HMAC keys of", "storage.hmacKeys.list");
        let mut keys = Vec::new();
        let mut next: Option<String> = None;
        for _ in 0..PAGES_MAX {
            let mut query =
                vec![("serviceAccountEmail", self.config.service_account.as_str()), ("showDeletedKeys", "false")];
            query.extend(next.as_deref().map(|token| ("pageToken", token)));
            let answer = self.google.storage(&call, Method::GET, &self.path(), &query, None).await?;
            let page: Option<Page> = serde_json::from_slice(&answer.body).ok();
            let Some(page) = page.filter(|page| page.kind == "storage#hmacKeysMetadata") else {
                return Err(Fault::Unknown(call.text("an answer that is no listing of HMAC keys")));
            };
            for key in page.items {
                let key = self.owned(&call, key)?;
                if key.state != DELETED {
                    keys.push(key);
                }
            }
            match page.next_page_token.filter(|token| !token.is_empty()) {
                None => return Ok((keys, answer.date)),
                Some(token) if next.as_ref() == Some(&token) => {
                    return Err(Fault::Unknown(call.text("the listing goes on where it was")));
                }
                Some(token) => next = Some(token),
            }
        }
        Err(Fault::Unknown(call.text(format_args!("the listing does not end after {PAGES_MAX} pages"))))
    }

    /// One key as it is now; `not-found` where it is deleted.
    async fn look(&self, key: &KeyId) -> Result<Metadata, Fault> {
        let call = self.call(&format!("look at key {key} of"), "storage.hmacKeys.get");
        let path = self.path_of(&call, key)?;
        let answer = self.google.storage(&call, Method::GET, &path, &[], None).await?;
        let shown = self.metadata(&call, &answer.body, key)?;
        match shown.state.as_str() {
            DELETED => Err(Fault::Refused { reason: Reason::NotFound, why: call.text("it is deleted") }),
            _ => Ok(shown),
        }
    }

    fn metadata(&self, call: &Call, body: &[u8], key: &KeyId) -> Result<Metadata, Fault> {
        let shown: Option<Metadata> = serde_json::from_slice(body).ok();
        let shown = shown.filter(|shown| shown.access_id == key.as_str());
        self.owned(call, shown.ok_or_else(|| Fault::Unknown(call.text("an answer that does not show this key")))?)
    }

    /// Sets a key's state, unless it has it: Google refuses a change that changes nothing. Conditional on what was seen, so that
    /// nobody else's change is undone unseen.
    async fn set_state(&self, verb: &str, key: &KeyId, state: &str) -> Result<(), Fault> {
        let seen = self.look(key).await?;
        if seen.state == state {
            return Ok(());
        }
        let call = self.call(&format!("{verb} key {key} of"), "storage.hmacKeys.update");
        let path = self.path_of(&call, key)?;
        let mut body = json!({ "state": state });
        if let Some(etag) = seen.etag {
            body["etag"] = etag.into();
        }
        let answer = self.google.storage(&call, Method::PUT, &path, &[], Some(&body)).await?;
        let shown = self.metadata(&call, &answer.body, key)?;
        match shown.state == state {
            true => Ok(()),
            false => Err(Fault::Unknown(call.text(format_args!("an answer that does not show it {state}")))),
        }
    }

    /// What a refused deletion was about: the key may be gone already, or somebody may have enabled it.
    async fn why_kept(&self, key: &KeyId, refusal: Fault) -> Result<(), Fault> {
        match self.look(key).await {
            Err(Fault::Refused { reason: Reason::NotFound, .. }) => Ok(()),
            Ok(shown) if shown.state == ACTIVE => Err(Fault::Refused {
                reason: Reason::Refused,
                why: format!("{}; it is active, and only a disabled key can be deleted", refusal.why()),
            }),
            _ => Err(refusal),
        }
    }
}

#[async_trait]
impl Issuer for GcsHmac {
    /// `gcp:` with the project's id and the account's address. It is proven by a complete listing: Google answers one only for a
    /// project and an account that are there, and each key in it names both. An id of a project is never given to another ("Create
    /// and manage projects"). An account made again under its address is not told apart, and need not be: its keys went with it.
    async fn identity(&self) -> Result<AccountIdentity, Fault> {
        self.keys().await?;
        Ok(AccountIdentity::new(format!("gcp:{}/{}", self.config.project, self.config.service_account)))
    }

    async fn list(&self) -> Result<Listing, Fault> {
        let (keys, date) = self.keys().await?;
        let keys = keys.into_iter().map(|key| ListedKey {
            // `INACTIVE`, and what may come, is not usable.
            active: key.state == ACTIVE,
            id: KeyId::new(key.access_id),
            created: key.time_created,
            // HMAC keys carry no description.
            intent: None,
            tail: None,
            root_tail: None,
            expires: None,
        });
        Ok(Listing { keys: keys.collect(), quota: Some(QUOTA), date })
    }

    /// One create, at most once on the wire. Google knows no token for the intent, so the intent stays in the journal.
    async fn mint(&self, _intent: &IntentId, _replaces: Option<&KeyId>) -> Result<MintedKey, Fault> {
        let call = self.call("create an HMAC key for", "storage.hmacKeys.create");
        let query = [("serviceAccountEmail", self.config.service_account.as_str())];
        let answer = self.google.storage(&call, Method::POST, &self.path(), &query, None).await?;
        let created: Option<Created> = serde_json::from_slice(&answer.body).ok();
        let Some(created) = created.filter(|created| !created.secret.expose().is_empty()) else {
            return Err(Fault::Unknown(call.text("an answer without the key or its secret")));
        };
        let key = self.owned(&call, created.metadata)?;
        let material = Material::HmacKey { id: KeyId::new(key.access_id), secret: created.secret };
        Ok(MintedKey { material, created: key.time_created })
    }

    async fn probe(&self, material: &Material) -> Result<Probe, Fault> {
        let Material::HmacKey { id, secret } = material else {
            let why = format!("probe key {} as one of {}: it is no HMAC key", material.key(), self.on);
            return Err(Fault::Refused { reason: Reason::PolicyMismatch, why });
        };
        let store = Store {
            endpoint: Some(self.google.account.storage()),
            right: "the service account needs storage.objects.list on the bucket",
        };
        self.config.probe.look(self.google.http.beneath(), store, id, secret, signing_time().into()).await
    }

    async fn rights(&self) -> Result<Option<Standing>, Fault> {
        rights::ask(&self.google, &self.config.project).await.map(Some)
    }

    /// Cloud Storage itself does not tell. Cloud Monitoring counts authentications by access id, without saying how late, whether
    /// those that failed are among them, or that a key it has no count of was never used; and it would need a right and an API of
    /// its own. That is a hint for people (docs/google.md) and no evidence for a deletion.
    async fn last_use(&self, _key: &KeyId) -> Result<LastUse, Fault> {
        Ok(LastUse::Untold)
    }

    async fn disable(&self, key: &KeyId) -> Result<(), Fault> {
        self.set_state("disable", key, INACTIVE).await
    }

    async fn enable(&self, key: &KeyId) -> Result<(), Fault> {
        self.set_state("enable", key, ACTIVE).await
    }

    /// Google shows a secret once, so it is the operator's or none.
    async fn known(&self, key: &KeyId, secret: Option<Secret>) -> Result<Option<Material>, Fault> {
        Ok(secret.map(|secret| Material::HmacKey { id: key.clone(), secret }))
    }

    /// 204. A key that is not there, or not there any more, is a success; one that is active is refused by Google.
    async fn delete(&self, key: &KeyId) -> Result<(), Fault> {
        let call = self.call(&format!("delete key {key} of"), "storage.hmacKeys.delete");
        let path = self.path_of(&call, key)?;
        match self.google.storage(&call, Method::DELETE, &path, &[], None).await {
            Ok(answer) if answer.status == 204 => Ok(()),
            Ok(answer) => Err(Fault::Unknown(call.text(format_args!("status {} and not 204", answer.status)))),
            Err(Fault::Refused { reason: Reason::NotFound, .. }) => Ok(()),
            Err(fault @ Fault::Refused { reason: Reason::Refused, .. }) => self.why_kept(key, fault).await,
            Err(fault) => Err(fault),
        }
    }
}

#[cfg(test)]
mod tests;
