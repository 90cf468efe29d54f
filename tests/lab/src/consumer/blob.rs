//! What reads a container of Azure: by the account's key, by a SAS, or by a token of its own that it keeps as long as it is good.

use std::time::{Duration, Instant};

use chrono::Utc;
use reqwest::header::{HeaderName, HeaderValue};
use serde_json::Value;

use super::{Ended, client};
use crate::shared_key::{Signed, sign};
use crate::sigv4::sha256_hex;
use crate::{form, http};

const VERSION: &str = "2025-01-05";
const SCOPE: &str = "https://storage.azure.com/.default";

/// How a consumer's key is called that has no id of its own: the storage account, or the client id of the application, and eight
/// digits of the SHA-256 of the key, the SAS or the secret. In [`crate::ConsumerCount`] it stands where AWS has the id of the key.
pub fn key_name(holder: &str, secret: &str) -> String {
    format!("{holder}#{}", &sha256_hex(secret.as_bytes())[..8])
}

/// How a storage account is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    Key(String),
    /// With or without the question mark.
    Sas(String),
    Principal(Principal),
}

/// An application that asks for a token of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Principal {
    pub(crate) tenant: String,
    pub(crate) client_id: String,
    pub(crate) secret: String,
}

impl Pass {
    pub(crate) fn name(&self, account: &str) -> String {
        match self {
            Self::Key(secret) | Self::Sas(secret) => key_name(account, secret),
            Self::Principal(principal) => key_name(&principal.client_id, &principal.secret),
        }
    }
}

/// A container, how it is opened, and where.
pub(crate) struct Errand {
    pub(crate) blob_url: String,
    pub(crate) authority_url: String,
    /// Whom to trust, where those two are HTTPS.
    pub(crate) ca: Option<String>,
    pub(crate) account: String,
    pub(crate) container: String,
    pub(crate) pass: Pass,
}

/// A request that was not sent yet: path, query, headers.
pub(crate) type Letter = (String, String, Vec<(&'static str, String)>);

/// What lists a container with this key or SAS; with a token for a principal. `None` where the key is none.
pub(crate) fn letter(account: &str, container: &str, pass: &Pass, token: &str) -> Option<Letter> {
    let path = format!("/{}/{}", form::encode(account), form::encode(container));
    let query = "restype=container&comp=list&maxresults=1".to_owned();
    let version = ("x-ms-version", VERSION.to_owned());
    Some(match pass {
        Pass::Sas(sas) => (path, format!("{query}&{}", sas.trim_start_matches('?')), vec![version]),
        Pass::Principal(_) => (path, query, vec![version, ("authorization", format!("Bearer {token}"))]),
        Pass::Key(key) => {
            let date = http::date(Utc::now());
            let mut headers = vec![version, ("x-ms-date", date)];
            let signed = headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
            let signed = Signed { method: "GET", path: &path, query: &query, headers: signed };
            let signature = sign(key, &signed.string_to_sign(account))?;
            headers.push(("authorization", format!("SharedKey {account}:{signature}")));
            (path, query, headers)
        }
    })
}

/// One consumer's client, and the token it was given last.
pub(crate) struct Reader {
    ca: Option<String>,
    client: reqwest::Client,
    token: Option<Token>,
}

struct Token {
    of: Principal,
    text: String,
    ends: Instant,
}

impl Reader {
    pub(crate) fn new(ca: Option<&String>) -> Self {
        Self { ca: ca.cloned(), client: client(ca), token: None }
    }

    /// Whether it trusts what this errand leads to.
    pub(crate) fn suits(&self, errand: &Errand) -> bool {
        self.ca == errand.ca
    }

    pub(crate) async fn fetch(&mut self, errand: &Errand) -> Ended {
        let token = match &errand.pass {
            Pass::Principal(principal) => match self.token(errand, principal).await {
                Ok(token) => token,
                Err(ended) => return ended,
            },
            Pass::Key(_) | Pass::Sas(_) => String::new(),
        };
        let Errand { blob_url, account, container, pass, .. } = errand;
        let unusable = || Ended::Refused("the credential cannot be sent".to_owned());
        let Some((path, query, headers)) = letter(account, container, pass, &token) else { return unusable() };
        let mut request = self.client.get(format!("{blob_url}{path}?{query}"));
        for (name, value) in headers {
            // As with S3: what was mangled may be no legal header, and would have been refused.
            let Ok(value) = HeaderValue::from_str(&value) else { return unusable() };
            request = request.header(HeaderName::from_static(name), value);
        }
        match request.send().await {
            Err(_) => Ended::Failed,
            Ok(response) if response.status().is_success() => Ended::Good,
            Ok(response) if [401, 403].contains(&response.status().as_u16()) => {
                // It may be the token; the next time a new one is asked for.
                self.token = None;
                let code = response.headers().get("x-ms-error-code").and_then(|code| code.to_str().ok());
                Ended::Refused(code.unwrap_or(response.status().as_str()).to_owned())
            }
            Ok(_) => Ended::Failed,
        }
    }

    /// The one it has, where that is this principal's and not over.
    async fn token(&mut self, errand: &Errand, principal: &Principal) -> Result<String, Ended> {
        if let Some(token) = self.token.as_ref().filter(|token| token.of == *principal && token.ends > Instant::now()) {
            return Ok(token.text.clone());
        }
        let Principal { tenant, client_id, secret } = principal;
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", client_id),
            ("client_secret", secret),
            ("scope", SCOPE),
        ];
        // The host in the credential, where it names one, is Microsoft's.
        let url = format!("{}/{}/oauth2/v2.0/token", errand.authority_url, form::encode(tenant));
        let response = self.client.post(url).form(&form).send().await.map_err(|_| Ended::Failed)?;
        let good = response.status().is_success();
        let answer: Value = response.json().await.map_err(|_| Ended::Failed)?;
        let text = |name: &str| answer[name].as_str().map(str::to_owned);
        match (text("access_token"), text("error")) {
            (Some(token), _) if good => {
                let lasts = Duration::from_secs(answer["expires_in"].as_u64().unwrap_or(0));
                let ends = Instant::now() + lasts;
                self.token = Some(Token { of: principal.clone(), text: token.clone(), ends });
                Ok(token)
            }
            // The secret is wrong, or the application is gone.
            (_, Some(error)) if ["invalid_client", "unauthorized_client"].contains(&error.as_str()) => {
                Err(Ended::Refused(format!("{error} {}", answer["error_codes"][0])))
            }
            _ => Err(Ended::Failed),
        }
    }
}
