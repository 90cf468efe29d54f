//! `f5xc`: service credentials of F5 Distributed Cloud, as API tokens or API certificates.
//!
//! A credential is shown once, in the answer to its making. Its name says for which intent it was made, so one whose answer was lost is
//! found and revoked. It ends by itself. It is never disabled: the one request that could (`activate`) takes no word for which of the
//! two is meant, and no page says what it does to a credential that is active, so a revocation is the whole of the retire. Nor is it
//! ever renewed: `renew` moves the end of a token and leaves the token as it is, and here a new one is made instead.
//!
//! What a living credential may do follows the policy: see [`F5xc::follow_policy`]. This file never retries and does not know which credential
//! is in use where, but it asks which one rekeyd itself logs in with, and neither revokes that nor takes rights from it.

use std::sync::Arc;

use async_trait::async_trait;
use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::Method;
use serde::de::DeserializeOwned;
use serde_json::json;
use zeroize::Zeroizing;

use crate::model::{AccountIdentity, IntentId, IssuerSpec, KeyId, Material, Reason, Secret, SystemSpec, Timestamp};
use crate::net::Context;
use crate::net::client::Answer;
use crate::net::redact::Redactor;
use crate::ports::{Fault, Issuer, LastUse, ListedKey, Listing, MintedKey, Probe, Standing};

mod account;
mod client;
mod faults;
mod login;
mod misnamed;
mod names;
mod policy;
mod probe;
mod rights;
mod wire;

use client::{Console, SYSTEM, edge_time};
use faults::Call;
use login::Tokens;
use policy::{Config, Credential, WHOAMI};
use wire::{API_CERTIFICATE, API_TOKEN, Create, Created, Done, Empty, Item, Items, NamespaceRole, Password, Who};

/// The kind `f5xc` and the accounts of `[f5xc]`.
pub const KIND: super::Kind = super::Kind {
    name: "f5xc",
    system: Some("f5xc"),
    read_system: account::read,
    read: |table, system| policy::read("f5xc", table, system),
    material: policy::material,
    lifetime: policy::lifetime,
    watch_min: super::at_once,
    derivation: None,
    connect,
};

const CREDENTIALS: &str = "/api/web/namespaces/system/service_credentials";
const REVOKE: &str = "/api/web/namespaces/system/revoke/service_credentials";

/// More than a tenant has; a longer listing is not read to its end, and a part of one proves nothing.
const ITEMS_MAX: usize = 10_000;

fn connect(spec: &IssuerSpec, system: Option<&SystemSpec>, context: &Context) -> Result<Arc<dyn Issuer>, Fault> {
    let config: Config = super::config(spec)?;
    if names::stem(&config.stem) != Some(config.stem.as_str()) {
        return Err(super::mismatch(spec, format!("`{}` cannot begin the name of a service credential", config.stem)));
    }
    let console = Console::connect(system, &spec.object, context)?;
    let on = console.account.host().to_owned();
    let tokens = Tokens::of(&on, context);
    Ok(Arc::new(F5xc { config, console, on, tokens }))
}

/// The service credentials of one tenant whose names begin alike.
struct F5xc {
    config: Config,
    console: Console,
    /// The tenant's host, for messages.
    on: String,
    tokens: Arc<Tokens>,
}

impl F5xc {
    fn call(&self, what: &str) -> Call {
        Call::new(format!("{what} at {}", self.on))
    }

    async fn who(&self) -> Result<Who, Fault> {
        let call = self.call("ask who rekeyd is");
        read(&call, &self.console.get(&call, WHOAMI).await?, "an answer that names no tenant")
    }

    /// Every service credential of the tenant, and when it was listed.
    async fn items(&self) -> Result<(Vec<Item>, Option<Timestamp>), Fault> {
        let call = self.call("list the service credentials");
        let answer = self.console.get(&call, CREDENTIALS).await?;
        let Items { items } = read(&call, &answer, "an answer without a list")?;
        if items.len() > ITEMS_MAX {
            return Err(Fault::Unknown(call.text(format_args!("more than {ITEMS_MAX} credentials"))));
        }
        Ok((items, answer.date))
    }

    /// One credential, by its name.
    async fn item(&self, key: &KeyId) -> Result<Item, Fault> {
        let call = self.call(&format!("look at service credential {key}"));
        let path = path_of(key).ok_or_else(|| no_name(&call))?;
        let item: Item = read(&call, &self.console.get(&call, &path).await?, "an answer that shows no credential")?;
        match item.name == key.as_str() {
            true => Ok(item),
            false => Err(Fault::Unknown(call.text("an answer that shows another credential"))),
        }
    }

    /// What targets need of a credential, made of what was shown of it or brought for it.
    fn material(&self, id: KeyId, data: Secret, password: Option<Secret>) -> Option<Material> {
        match (self.config.credential, password) {
            (Credential::ApiToken, _) => Some(Material::ApiToken { id, token: data }),
            (Credential::Certificate, Some(password)) => Some(Material::ApiCertificate { id, pkcs12: data, password }),
            (Credential::Certificate, None) => None,
        }
    }

    async fn revoke(&self, call: &Call, key: &KeyId) -> Result<(), Fault> {
        let body = json!({ "namespace": SYSTEM, "name": key.as_str() });
        match self.console.write(call, Method::POST, REVOKE, &body, Redactor::default()).await {
            Ok(answer) => match read::<Done>(call, &answer, "an answer that does not say whether it was done")? {
                Done { status: true } => Ok(()),
                Done { status: false } => Err(Fault::Unknown(call.text("status 200, which says that it was not done"))),
            },
            Err(Fault::Refused { reason: Reason::NotFound, .. }) => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    fn no_switch(&self, verb: &str, key: &KeyId) -> Fault {
        let why = format!("{verb} service credential {key} at {}: a service credential can only be revoked", self.on);
        Fault::Refused { reason: Reason::Refused, why }
    }
}

#[async_trait]
impl Issuer for F5xc {
    /// `f5xc:` with the tenant's own id (`acme-abcdefgh`).
    async fn identity(&self) -> Result<AccountIdentity, Fault> {
        let who = self.who().await?;
        if who.tenant.is_empty() || !names::is_name(&who.tenant) {
            return Err(Fault::Unknown(self.call("ask who rekeyd is").text("an answer that names no tenant")));
        }
        Ok(AccountIdentity::new(format!("f5xc:{}", who.tenant)))
    }

    async fn list(&self) -> Result<Listing, Fault> {
        let (items, date) = self.items().await?;
        let (now, stem) = (date.unwrap_or_else(edge_time), &self.config.stem);
        let mut keys = Vec::new();
        for item in items.into_iter().filter(|item| names::belongs(stem, &item.name)) {
            if !names::is_name(&item.name) {
                let call = self.call("list the service credentials");
                return Err(Fault::Unknown(call.text("an answer with a name that is none")));
            }
            keys.push(ListedKey {
                active: item.is_alive(now),
                created: item.create_timestamp,
                intent: names::intent_of(stem, &item.name),
                tail: None,
                root_tail: None,
                expires: item.expiry_timestamp,
                id: KeyId::new(item.name),
            });
        }
        Ok(Listing { keys, quota: None, date })
    }

    /// One create, at most once on the wire, under a name that tells the intent. What the console makes of that name counts, as long as
    /// listings find it.
    async fn mint(&self, intent: &IntentId, _replaces: Option<&KeyId>) -> Result<MintedKey, Fault> {
        let call = self.call("create a service credential");
        let name = names::name_of(&self.config.stem, intent).ok_or_else(|| {
            let why = call.text(format_args!("the intent {intent} makes no name"));
            Fault::Refused { reason: Reason::PolicyMismatch, why }
        })?;
        let password = (self.config.credential == Credential::Certificate).then(new_password).transpose();
        let password = password.map_err(|()| Fault::NotSent(call.text("the system has no randomness")))?;
        let roles = self.config.access.roles.iter();
        let roles =
            roles.flat_map(|(namespace, roles)| roles.iter().map(move |role| NamespaceRole { namespace, role }));
        let body = Create {
            name: &name,
            namespace: SYSTEM,
            expiration_days: self.config.days,
            namespace_roles: roles.collect(),
            user_group_names: &self.config.access.groups,
            kind: match self.config.credential {
                Credential::ApiToken => API_TOKEN,
                Credential::Certificate => API_CERTIFICATE,
            },
            api_token: password.is_none().then_some(Empty {}),
            api_certificate: password.as_ref().map(|password| Password { password: password.expose() }),
        };
        let redactor = Redactor::new(&password);
        let answer = match self.console.write(&call, Method::POST, CREDENTIALS, &body, redactor).await {
            // No two intents have one name: somebody else's credential has it, and waiting changes nothing of that.
            Err(Fault::Retry { why, .. }) if why.ends_with("(409)") => {
                let why = format!("{why}; see in the console whether there is a service credential {name}");
                return Err(Fault::Refused { reason: Reason::Refused, why });
            }
            answer => answer?,
        };
        let created: Created = read(&call, &answer, "an answer without the credential or its name")?;
        let is_sound = names::is_name(&created.name) && !created.data.expose().is_empty();
        let is_whole = password.is_none() || is_pkcs12(&created.data);
        if !is_sound || !is_whole {
            return Err(Fault::Unknown(call.text("an answer without the credential or its name")));
        }
        if !names::belongs(&self.config.stem, &created.name) {
            return Err(self.undo_misnamed(&call, &name, KeyId::new(created.name), answer.date).await);
        }
        let material = self.material(KeyId::new(created.name), created.data, password);
        // A certificate is minted with a password, so there is one.
        let material = material.ok_or_else(|| Fault::Unknown(call.text("no password for the certificate")))?;
        Ok(MintedKey { material, created: None })
    }

    async fn probe(&self, material: &Material) -> Result<Probe, Fault> {
        // Whatever the policy makes today: the one in use may be of the other sort.
        match material {
            Material::ApiToken { id, token } => self.probe_token(id, token).await,
            Material::ApiCertificate { id, .. } => self.probe_certificate(id).await,
            _ => {
                let what = "it is no service credential";
                let why = format!("try key {} at {}: {what}", material.key(), self.on);
                Err(Fault::Refused { reason: Reason::PolicyMismatch, why })
            }
        }
    }

    /// No request tells what a role lets its user do with service credentials.
    async fn rights(&self) -> Result<Option<Standing>, Fault> {
        self.items().await?;
        let said = "rekeyd's login may list the tenant's service credentials; whether it may make, replace and revoke them, no request \
                    tells before it is tried";
        Ok(Some(Standing::Untold(said.to_owned())))
    }

    /// F5 reports no use of a credential.
    async fn last_use(&self, _key: &KeyId) -> Result<LastUse, Fault> {
        Ok(LastUse::Untold)
    }

    async fn disable(&self, key: &KeyId) -> Result<(), Fault> {
        Err(self.no_switch("disable", key))
    }

    async fn enable(&self, key: &KeyId) -> Result<(), Fault> {
        Err(self.no_switch("enable", key))
    }

    /// A credential is shown once, so it is the operator's or none. A token of another one, or of a person, is refused where the console
    /// tells. A certificate needs its password too: a second line.
    async fn known(&self, key: &KeyId, secret: Option<Secret>) -> Result<Option<Material>, Fault> {
        let Some(secret) = secret else { return Ok(None) };
        if self.config.credential == Credential::ApiToken {
            if let Some(owner) = self.other_owner(key, &secret).await {
                let why =
                    format!("take on service credential {key} at {}: the token given is that of {owner}", self.on);
                return Err(Fault::Refused { reason: Reason::PolicyMismatch, why });
            }
            return Ok(self.material(key.clone(), secret, None));
        }
        let text = secret.expose();
        let parts = text.split_once('\n').map(|(data, password)| (data.trim(), password.trim_end_matches('\r')));
        let hidden = |text: &str| Secret::new(text.to_owned());
        let parts = parts.map(|(data, password)| (hidden(data), hidden(password)));
        match parts.filter(|(data, password)| is_pkcs12(data) && !password.expose().is_empty()) {
            Some((data, password)) => Ok(self.material(key.clone(), data, Some(password))),
            None => {
                let why = format!(
                    "take on the certificate {key}: the file must have two lines, the PKCS#12 in base64 and then its password \
                     (base64 -w0 FILE.p12)"
                );
                Err(Fault::Refused { reason: Reason::PolicyMismatch, why })
            }
        }
    }

    /// See [`F5xc::follow_policy`].
    async fn keep(&self, key: &KeyId) -> Result<Option<String>, Fault> {
        self.follow_policy(key).await
    }

    /// A revocation, which is for ever. One that is not there is a success, and no proof: absence is told by listings.
    async fn delete(&self, key: &KeyId) -> Result<(), Fault> {
        let call = self.call(&format!("revoke service credential {key}"));
        path_of(key).ok_or_else(|| no_name(&call))?;
        self.refuse_to_lock_ourselves_out(key).await?;
        self.revoke(&call, key).await
    }
}

/// What an answer says, where it says what it should; `lacking` is the message where it does not.
fn read<T: DeserializeOwned>(call: &Call, answer: &Answer, lacking: &str) -> Result<T, Fault> {
    // The parser's own words may repeat what it read.
    serde_json::from_slice(&answer.body).map_err(|_| Fault::Unknown(call.text(lacking)))
}

fn path_of(key: &KeyId) -> Option<String> {
    names::is_name(key.as_str()).then(|| format!("{CREDENTIALS}/{key}"))
}

fn no_name(call: &Call) -> Fault {
    Fault::Refused { reason: Reason::PolicyMismatch, why: call.text("that is no name of a service credential") }
}

/// 43 characters of 32 random bytes; F5 takes 6 to 50.
fn new_password() -> Result<Secret, ()> {
    let mut bytes = Zeroizing::new([0; 32]);
    rand::fill(&mut *bytes).map_err(|_| ())?;
    Ok(Secret::new(URL_SAFE_NO_PAD.encode(*bytes)))
}

/// Whether a text is base64 of something that begins as a PKCS#12 does (RFC 7292, 4: a sequence of more than a few bytes).
fn is_pkcs12(data: &Secret) -> bool {
    let bytes = STANDARD.decode(data.expose()).map(Zeroizing::new);
    bytes.is_ok_and(|bytes| bytes.len() > 64 && bytes.starts_with(&[0x30]))
}

#[cfg(test)]
mod tests;
