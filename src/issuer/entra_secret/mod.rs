//! `entra-secret`: client secrets of an Entra application, through Microsoft Graph.
//!
//! A secret is shown once, in the answer to its making; its label says for which intent it was made, so a secret whose answer was lost
//! is found and taken away. It cannot be disabled, only removed, and it ends by itself. How many fit is told for applications that
//! personal accounts may use (two); for others Graph states no number. This file never retries and does not know which secret is in
//! use where.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::azure::account::{self, Account, is_storage_account};
use super::azure::blob::{self, Container, Credential};
use super::azure::client::{Azure, signing_time};
use super::azure::faults::{self, Call};
use super::azure::rights;
use crate::model::{
    AccountIdentity, IntentId, IssuerSpec, KeyId, Material, MaterialKind, Reason, Secret, Shape, Standing, SystemSpec,
    Timestamp, deserialize_secret,
};
use crate::net::Context;
use crate::ports::{Fault, Issuer, LastUse, ListedKey, Listing, MintedKey, Probe};
use crate::table::{Table, Zero};

mod token;

/// The kind `entra-secret` and the accounts of `[azure]`.
pub const KIND: super::Kind = super::Kind {
    name: "entra-secret",
    system: Some("azure"),
    read_system: account::read,
    read,
    material,
    lifetime,
    watch_min: super::at_once,
    derivation: None,
    connect,
};

/// 4 to 18 seconds were seen until every replica knew a new secret (microsoft-graph-docs issue 17966); no page promises a time.
const PROPAGATION: Duration = Duration::from_secs(60);
/// Where the policy says nothing: half a year. Graph's own default is two, which is long for a secret that is rotated.
const VALID_FOR: Duration = Duration::from_secs(180 * 24 * 3600);
/// What a label begins with; the intent follows.
const LABEL: &str = "rekeyd ";
/// An application that personal accounts may use holds two secrets and no third (azure-cli issue 12946).
const QUOTA_PERSONAL: usize = 2;

/// `[service.issuer]` of this kind, as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Config {
    application_object_id: String,
    client_id: String,
    tenant_id: String,
    storage_account: String,
    valid_for_s: u64,
    probe: Container,
    /// Where tokens are asked for, in clouds other than the public one; targets are told.
    authority_host: Option<String>,
}

fn read(table: &mut Table<'_>, system: Option<&SystemSpec>) -> Option<IssuerSpec> {
    let account = Account::of(system);
    let object_id = read_id(table, "application_object_id");
    let client_id = read_id(table, "client_id");
    let storage_account = table.text("storage_account");
    if let Some(name) = &storage_account
        && !is_storage_account(name)
    {
        let help = "write the name alone, without address: storage_account = \"gisstore\" (3 to 24 of a-z and 0-9)";
        table.mistake("storage_account", format!("`{name}` is no name of a storage account"), help);
    }
    let valid_for = table.duration("valid_for", Zero::Refused).unwrap_or(VALID_FOR);
    let exclusive = table.flag("exclusive", false);
    let probe = blob::read(table);
    if let (Some(account), Some(system)) = (&account, system)
        && account.tenant_id.is_none()
    {
        let what = format!("[{}] names no tenant, and ArcGIS must know in which one the application is", system.at);
        table.mistake("account", what, format!("add tenant_id = \"...\" to [{}]", system.at));
    }
    if let (Some(account), Some(client_id), Some(system)) = (&account, &client_id, system)
        && account.logs_in_with_a_secret_of(client_id)
    {
        let what = format!("`{client_id}` is the application that rekeyd itself logs in as ([{}])", system.at);
        table.mistake(
            "client_id",
            what,
            "its secrets would be removed under rekeyd's feet: give rekeyd an identity of its own",
        );
    }
    let (account, system) = (account?, system?);
    let config = Config {
        client_id: client_id?,
        tenant_id: account.tenant_id.clone()?,
        storage_account: storage_account?,
        valid_for_s: valid_for.as_secs(),
        probe: probe?,
        authority_host: account.authority_if_other().map(str::to_owned),
        application_object_id: object_id?,
    };
    Some(IssuerSpec {
        kind: KIND.name.to_owned(),
        system: Some(system.at.clone()),
        // Without the table's name: one application under two of them is still one.
        object: format!("{}:{}", KIND.name, config.application_object_id),
        shape: Shape::Labelled,
        exclusive,
        propagation: PROPAGATION,
        settle: account.settle(account::SETTLE),
        last_used_lag: None,
        config: serde_json::to_value(config).ok()?,
    })
}

/// An id, in the one spelling that Entra shows.
fn read_id(table: &mut Table<'_>, key: &'static str) -> Option<String> {
    let id = table.text(key)?;
    if let Ok(parsed) = uuid::Uuid::try_parse(&id) {
        return Some(parsed.hyphenated().to_string());
    }
    let help = match key {
        "client_id" => "the application's page in Entra shows it as \"Application (client) ID\"",
        _ => "the application's page in Entra shows it as \"Object ID\"; it is not the client id",
    };
    table.mistake(key, format!("`{id}` is no id of Entra"), help);
    None
}

fn material(spec: &IssuerSpec) -> Option<MaterialKind> {
    let config: Config = serde_json::from_value(spec.config.clone()).ok()?;
    Some(MaterialKind::ServicePrincipal { authority_host: config.authority_host.is_some(), storage_account: true })
}

fn lifetime(spec: &IssuerSpec) -> Option<super::Lifetime> {
    let config: Config = serde_json::from_value(spec.config.clone()).ok()?;
    Some(super::Lifetime { option: "valid_for", length: Duration::from_secs(config.valid_for_s) })
}

fn connect(spec: &IssuerSpec, system: Option<&SystemSpec>, context: &Context) -> Result<Arc<dyn Issuer>, Fault> {
    let config: Config = super::config(spec)?;
    if !is_storage_account(&config.storage_account) {
        return Err(super::mismatch(spec, format!("`{}` is no name of a storage account", config.storage_account)));
    }
    let azure = Azure::connect(system, &spec.object, context)?;
    let on = format!("application {}", config.application_object_id);
    Ok(Arc::new(EntraSecret { config, azure, on }))
}

/// One application's secrets.
struct EntraSecret {
    config: Config,
    azure: Azure,
    /// `application ID`, for messages.
    on: String,
}

/// The application, as far as `$select` asks for it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Application {
    id: String,
    app_id: String,
    #[serde(default)]
    sign_in_audience: Option<String>,
    password_credentials: Vec<Password>,
}

/// A secret as Graph lists it: without the secret, but for its first three characters.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Password {
    key_id: String,
    #[serde(default)]
    display_name: Option<String>,
    #[serde(default)]
    start_date_time: Option<DateTime<Utc>>,
    #[serde(default)]
    end_date_time: Option<DateTime<Utc>>,
    #[serde(default)]
    hint: Option<String>,
}

/// A secret as it is shown once.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Added {
    key_id: String,
    #[serde(deserialize_with = "deserialize_secret")]
    secret_text: Secret,
    #[serde(default)]
    start_date_time: Option<DateTime<Utc>>,
}

impl EntraSecret {
    /// A call about the application's secrets. Graph says the same of a missing permission and of an application one does not own.
    fn call(&self, what: &str) -> Call {
        let on = &self.on;
        Call::new(format!("{what} {on}"))
            .needing(format!("the application permission Application.ReadWrite.OwnedBy, and to be an owner of {on}"))
    }

    /// The application as Graph shows it, and when it did.
    async fn application(&self) -> Result<(Application, Option<Timestamp>), Fault> {
        let call = self.call("look at");
        let path = format!(
            "/applications/{}?$select=id,appId,signInAudience,passwordCredentials",
            self.config.application_object_id
        );
        let answer = self.azure.graph(&call, Method::GET, &path, None).await?;
        let shown: Application = serde_json::from_slice(&answer.body)
            .map_err(|_| Fault::Unknown(call.text("an answer that shows no application")))?;
        let ids = shown.password_credentials.iter().map(|password| &password.key_id).chain([&shown.id, &shown.app_id]);
        if ids.into_iter().any(|id| uuid::Uuid::try_parse(id).is_err()) {
            return Err(Fault::Unknown(call.text("an answer with an id that is none")));
        }
        if !shown.app_id.eq_ignore_ascii_case(&self.config.client_id) {
            return Err(Fault::Refused {
                reason: Reason::PolicyMismatch,
                why: call.text(format_args!(
                    "its client id is {}, and client_id in the policy is another application's",
                    shown.app_id
                )),
            });
        }
        Ok((shown, answer.date))
    }

    fn path(&self, action: &str) -> String {
        format!("/applications/{}/{action}", self.config.application_object_id)
    }

    fn material(&self, id: KeyId, secret: Secret) -> Material {
        Material::ServicePrincipal {
            id,
            tenant: self.config.tenant_id.clone(),
            client: self.config.client_id.clone(),
            secret,
            authority_host: self.config.authority_host.clone(),
            storage_account: Some(self.config.storage_account.clone()),
        }
    }

    /// What a refused secret is: Entra says the same of one that a replica does not know yet and of one that was never right. Graph
    /// lists the secret, with its first characters.
    async fn why_refused(&self, id: &KeyId, secret: &Secret, said: String) -> Result<Probe, Fault> {
        let (application, _) = self.application().await?;
        let mut all = application.password_credentials.iter();
        let listed = all.find(|password| password.key_id.eq_ignore_ascii_case(id.as_str()));
        Ok(match listed {
            None => Probe::NotYet(format!("{said}; the application lists no secret {id}")),
            Some(Password { hint: Some(hint), .. }) if !secret.expose().starts_with(hint.as_str()) => {
                Probe::Wrong(format!("{said}; secret {id} begins otherwise"))
            }
            Some(_) => Probe::NotYet(format!("{said}; the application lists it, so not every server knows it yet")),
        })
    }

    fn no_switch(&self, verb: &str, key: &KeyId) -> Fault {
        let why = format!("{verb} secret {key} of {}: a client secret can only be removed", self.on);
        Fault::Refused { reason: Reason::Refused, why }
    }
}

#[async_trait]
impl Issuer for EntraSecret {
    /// `entra:` with object id and client id: one made again under its name has other ids.
    async fn identity(&self) -> Result<AccountIdentity, Fault> {
        let (application, _) = self.application().await?;
        Ok(AccountIdentity::new(format!("entra:{}/{}", application.id, application.app_id).to_lowercase()))
    }

    async fn list(&self) -> Result<Listing, Fault> {
        let (application, date) = self.application().await?;
        let quota = match application.sign_in_audience.as_deref() {
            Some(audience) if audience.contains("PersonalMicrosoftAccount") => Some(QUOTA_PERSONAL),
            _ => None,
        };
        let now = date.unwrap_or_else(signing_time);
        let keys = application.password_credentials.into_iter().map(|password| {
            let label = password.display_name.as_deref().and_then(|name| name.strip_prefix(LABEL));
            ListedKey {
                active: password.end_date_time.is_none_or(|end| end > now),
                created: password.start_date_time,
                intent: label.map(IntentId::new),
                tail: None,
                expires: password.end_date_time,
                id: KeyId::new(password.key_id.to_lowercase()),
                root_tail: None,
            }
        });
        Ok(Listing { keys: keys.collect(), quota, date })
    }

    /// One addPassword, at most once on the wire, labelled with the intent.
    async fn mint(&self, intent: &IntentId, _replaces: Option<&KeyId>) -> Result<MintedKey, Fault> {
        let call = self.call("add a secret to");
        let valid_for = i64::try_from(self.config.valid_for_s).ok().and_then(TimeDelta::try_seconds);
        let end = valid_for.and_then(|valid_for| signing_time().checked_add_signed(valid_for)).ok_or_else(|| {
            let why = call.text("valid_for reaches beyond what a date can say");
            Fault::Refused { reason: Reason::PolicyMismatch, why }
        })?;
        let body = json!({ "passwordCredential": {
            "displayName": format!("{LABEL}{intent}"),
            "endDateTime": end.to_rfc3339_opts(SecondsFormat::Secs, true),
        }});
        let answer = self.azure.graph(&call, Method::POST, &self.path("addPassword"), Some(&body)).await?;
        let added: Added = serde_json::from_slice(&answer.body)
            .map_err(|_| Fault::Unknown(call.text("an answer without the secret or its id")))?;
        if uuid::Uuid::try_parse(&added.key_id).is_err() || added.secret_text.expose().is_empty() {
            return Err(Fault::Unknown(call.text("an answer without the secret or its id")));
        }
        let material = self.material(KeyId::new(added.key_id.to_lowercase()), added.secret_text);
        Ok(MintedKey { material, created: added.start_date_time })
    }

    async fn probe(&self, material: &Material) -> Result<Probe, Fault> {
        let (id, secret) = match material {
            Material::ServicePrincipal { id, client, secret, .. }
                if client.eq_ignore_ascii_case(&self.config.client_id) =>
            {
                (id, secret)
            }
            _ => {
                let why = format!("probe key {} as a secret of {}: it is none", material.key(), self.on);
                return Err(Fault::Refused { reason: Reason::PolicyMismatch, why });
            }
        };
        let account = &self.azure.account;
        let asked =
            token::ask(&self.azure.http, account.authority(), &self.config.tenant_id, &self.config.client_id, secret);
        let token = match asked.await? {
            token::Asked::Given(token) => token,
            token::Asked::Unknown(said) => return self.why_refused(id, secret, said).await,
            token::Asked::Over(said) => return Ok(Probe::Wrong(said)),
        };
        let storage = &self.config.storage_account;
        let probe = &self.config.probe;
        let endpoint = probe.endpoint(account, storage).unwrap_or_else(|| account.blob_endpoint(storage));
        let credential = Credential::Token(&token);
        probe.look(&self.azure.http, &endpoint, storage, credential, signing_time()).await
    }

    async fn rights(&self) -> Result<Option<Standing>, Fault> {
        rights::at_graph(&self.azure, &self.config.application_object_id).await.map(Some)
    }

    /// Graph reports no use of a single secret.
    async fn last_use(&self, _key: &KeyId) -> Result<LastUse, Fault> {
        Ok(LastUse::Untold)
    }

    async fn disable(&self, key: &KeyId) -> Result<(), Fault> {
        Err(self.no_switch("disable", key))
    }

    async fn enable(&self, key: &KeyId) -> Result<(), Fault> {
        Err(self.no_switch("enable", key))
    }

    /// A secret is shown once, so it is the operator's or none.
    async fn known(&self, key: &KeyId, secret: Option<Secret>) -> Result<Option<Material>, Fault> {
        Ok(secret.map(|secret| self.material(key.clone(), secret)))
    }

    /// 204. A secret that is not there is answered with 400, which is a success here; so is one that a replica does not know yet, which
    /// is why absence is proven by listings.
    async fn delete(&self, key: &KeyId) -> Result<(), Fault> {
        let call = self.call(&format!("remove secret {key} from"));
        let body = json!({ "keyId": key.as_str() });
        match self.azure.graph(&call, Method::POST, &self.path("removePassword"), Some(&body)).await {
            Ok(answer) if answer.status == 204 => Ok(()),
            Ok(answer) => Err(Fault::Unknown(call.text(format_args!("status {} and not 204", answer.status)))),
            Err(Fault::Refused { reason: Reason::NotFound, why }) if why.contains(faults::NO_SUCH_SECRET) => Ok(()),
            Err(fault) => Err(fault),
        }
    }
}

#[cfg(test)]
mod tests;
