//! rekeyd's own login at Entra: `azure_identity` knows the ways to prove an identity, and our client carries its requests.
//!
//! Invariant: no request for a token is repeated beneath us, and whatever fails here fails before the request that needed the token
//! was sent. So a fault of a login is never `Unknown`.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes; // `bytes::Bytes`, by the road that is already paid for
use azure_core::cloud::CustomConfiguration;
use azure_core::credentials::TokenCredential;
use azure_core::error::ErrorKind;
use azure_core::http::headers::{CONTENT_TYPE, Headers};
use azure_core::http::{AsyncRawResponse, ClientOptions, HttpClient, Request, RetryOptions, StatusCode, Transport};
use azure_identity::{
    ClientAssertionCredential, ClientAssertionCredentialOptions, ClientSecretCredential, ClientSecretCredentialOptions,
    ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId, WorkloadIdentityCredential,
    WorkloadIdentityCredentialOptions,
};
use zeroize::Zeroizing;

use super::account::{self, Account};
use super::certificate::Certificate;
use super::faults::Call;
use crate::model::{Reason, Secret, SystemRef, deserialize_secret};
use crate::net::client::{self, Answer, Client, is_loopback};
use crate::net::identity::Chain;
use crate::net::redact::Redactor;
use crate::net::secrets;
use crate::ports::Fault;

/// Names a Kubernetes pod's own assertion (AKS workload identity).
const TOKEN_FILE: &str = "AZURE_FEDERATED_TOKEN_FILE";

/// One identity, with the tokens it was given.
pub(super) struct Login {
    account: Account,
    client: Client,
    /// Made anew when a token of its was refused: it keeps tokens by the clock of this machine alone.
    credential: Mutex<Arc<dyn TokenCredential>>,
    /// How many answers in a row refused a token.
    refused: AtomicU32,
    /// Who logs in and how, for messages: `client X of tenant Y with its client secret`.
    who: String,
    at: SystemRef,
    redactor: Redactor,
}

impl Login {
    /// Reads the secret; sends nothing.
    pub(super) fn new(account: &Account, at: &SystemRef, client: &Client) -> Result<Self, Fault> {
        let (credential, way, redactor) = credential(account, client)?;
        let of_tenant = account.tenant_id.as_ref().map(|tenant| format!(" of tenant {tenant}")).unwrap_or_default();
        let who = match &account.client_id {
            Some(client_id) => format!("client {client_id}{of_tenant} with {way}"),
            None => way.to_owned(),
        };
        let credential = credential.map_err(|error| Fault::Refused {
            reason: Reason::PolicyMismatch,
            why: format!("log in as {who}: {} ([{at}])", redactor.clean(&error.to_string())),
        })?;
        let (account, client) = (account.clone(), client.clone());
        let (credential, refused) = (Mutex::new(credential), AtomicU32::new(0));
        Ok(Self { account, client, credential, refused, who, at: at.clone(), redactor })
    }

    /// What an answer to a token says of it. One that is refused is not handed out again: it may have ended although our clock says
    /// otherwise, or before a right was granted. Refused twice in a row, the login itself is.
    pub(super) fn judged(&self, answer: Result<Answer, Fault>) -> Result<Answer, Fault> {
        let (is_login, why) = match &answer {
            Err(Fault::Refused { reason: Reason::LoginRefused, why }) => (true, why.clone()),
            Err(Fault::Refused { reason: Reason::MissingRight, why }) => (false, why.clone()),
            _ => {
                self.refused.store(0, Ordering::Relaxed);
                return answer;
            }
        };
        if let Ok((Ok(fresh), ..)) = credential(&self.account, &self.client) {
            *self.credential.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
        }
        match is_login && self.refused.fetch_add(1, Ordering::Relaxed) == 0 {
            true => Err(Fault::Retry { after: None, why }),
            false => answer,
        }
    }

    /// A token for this scope; asked for anew only when the last one is about to end.
    pub(super) async fn token(&self, call: &Call, scope: &str) -> Result<Secret, Fault> {
        let credential = self.credential.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match credential.get_token(&[scope], None).await {
            // The SDK keeps a copy that it does not wipe, for as long as the token is good.
            Ok(token) => Ok(Secret::new(token.token.secret().to_owned())),
            Err(error) => Err(self.refusal(call, &error)),
        }
    }

    fn refusal(&self, call: &Call, error: &azure_core::Error) -> Fault {
        let tried = format!("log in as {}", self.who);
        if let Some(Sent(fault)) = find::<Sent>(error) {
            let why = call.text(format_args!("{tried}: {}", fault.why()));
            return match fault {
                Fault::Refused { reason, .. } => Fault::Refused { reason: *reason, why },
                // Only the login was sent, which changes nothing.
                _ => Fault::NotSent(why),
            };
        }
        let Some(Declined { status, said, is_oauth }) = find::<Declined>(error) else {
            let why = call.text(format_args!("{tried}: {}", self.redactor.clean(&first_line(&error.to_string()))));
            return Fault::Refused { reason: Reason::LoginRefused, why };
        };
        let why = call.text(format_args!("{tried}: {said} ({status})"));
        match *status {
            // A page of somebody in between, a metadata service that is being updated (410), a server in trouble: all of it passes.
            _ if !is_oauth => Fault::NotSent(why),
            404 | 408 | 410 | 429 | 500.. => Fault::NotSent(why),
            _ => Fault::Refused {
                reason: Reason::LoginRefused,
                why: format!("{why}; this is the rotator's own login, [{}]", self.at),
            },
        }
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("who", &self.who).finish_non_exhaustive()
    }
}

type Made = azure_core::Result<Arc<dyn TokenCredential>>;

/// The way to prove who we are that the policy says, what it is called, and what of it no message may hold.
fn credential(account: &Account, client: &Client) -> Result<(Made, &'static str, Redactor), Fault> {
    let tenant = account.tenant_id.as_deref().unwrap_or_default();
    let client_id = account.client_id.as_deref().unwrap_or_default();
    let options = || options(account, client);
    let mut redactor = Redactor::default();
    let (made, way): (Made, &str) = match &account.login {
        account::Login::Secret(reference) => {
            let secret = secrets::read(reference)?;
            redactor.learn(&secret);
            let options = ClientSecretCredentialOptions { client_options: options() };
            // The SDK keeps a copy of the secret that it does not wipe.
            let secret = azure_core::credentials::Secret::new(secret.expose().to_owned());
            let made = ClientSecretCredential::new(tenant, client_id.to_owned(), secret, Some(options));
            (made.map(|made| made as _), "its client secret")
        }
        account::Login::Certificate { file, key } => {
            let identity = Chain::read(file)?.with_key(secrets::read(key)?, &secrets::describe(key))?;
            let certificate = Certificate::new(identity, client_id, account.authority(), tenant);
            let options = ClientAssertionCredentialOptions { client_options: options() };
            let made =
                ClientAssertionCredential::new(tenant.to_owned(), client_id.to_owned(), certificate, Some(options));
            (made.map(|made| made as _), "its certificate")
        }
        account::Login::Workload(file) => (workload(account, Some(file.into()), options()), "a federated token"),
        account::Login::Ambient if std::env::var_os(TOKEN_FILE).is_some() => {
            (workload(account, None, options()), "a federated token")
        }
        account::Login::Ambient => {
            let options = ManagedIdentityCredentialOptions {
                user_assigned_id: account.client_id.clone().map(UserAssignedId::ClientId),
                client_options: options(),
            };
            let made = ManagedIdentityCredential::new(Some(options));
            (made.map(|made| made as _), "the machine's managed identity")
        }
    };
    Ok((made, way, redactor))
}

fn workload(
    account: &Account,
    file: Option<PathBuf>,
    client_options: ClientOptions,
) -> azure_core::Result<Arc<dyn TokenCredential>> {
    let options = WorkloadIdentityCredentialOptions {
        credential_options: ClientAssertionCredentialOptions { client_options },
        client_id: account.client_id.clone(),
        tenant_id: account.tenant_id.clone(),
        token_file_path: file,
    };
    WorkloadIdentityCredential::new(Some(options)).map(|made| made as _)
}

fn options(account: &Account, client: &Client) -> ClientOptions {
    let mut cloud = CustomConfiguration::default();
    // The SDK takes no other scheme; `Wire` puts a stand-in's back.
    let (authority, plain) = match reqwest::Url::parse(account.authority()) {
        Ok(mut url) if url.scheme() == "http" && is_loopback(&url) => {
            let plain = client::host_of(&url);
            let changed = url.set_scheme("https").is_ok();
            (url.to_string(), changed.then_some(plain))
        }
        _ => (account.authority().to_owned(), None),
    };
    cloud.authority_host = authority;
    ClientOptions {
        transport: Some(Transport::new(Arc::new(Wire { client: client.clone(), plain }))),
        retry: RetryOptions::none(),
        cloud: Some(Arc::new(cloud.into())),
        ..ClientOptions::default()
    }
}

/// A token, as every endpoint gives it (RFC 6749, 5.1).
#[derive(serde::Deserialize)]
pub(in crate::issuer) struct Granted {
    #[serde(deserialize_with = "deserialize_secret")]
    pub(in crate::issuer) access_token: Secret,
}

/// Carries the SDK's requests over our client: its proxy, authorities and timeouts are the policy's.
#[derive(Debug)]
struct Wire {
    client: Client,
    /// A stand-in on this machine that speaks without TLS: host and port.
    plain: Option<String>,
}

/// A fault of our client, on its way through the SDK's errors.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.0.why())]
struct Sent(Fault);

/// No token, and what was said instead: read here, since the SDK cannot read a description with a line break in it.
///
/// Its Display, which the SDK writes to the log, says nothing of the body: whoever repeats what was sent repeats a secret.
#[derive(Debug, thiserror::Error)]
#[error("no token ({status})")]
struct Declined {
    status: u16,
    said: String,
    /// Whether it was in OAuth's form.
    is_oauth: bool,
}

impl Declined {
    /// `proof` is the form that was sent: what it holds may be repeated.
    fn of(answer: &client::Answer, proof: &[u8]) -> Self {
        #[derive(Default, serde::Deserialize)]
        #[serde(default)]
        struct Body {
            error: String,
            error_description: String,
        }
        let body: Option<Body> = serde_json::from_slice(&answer.body).ok().filter(|body: &Body| !body.error.is_empty());
        let is_oauth = body.is_some();
        let said = match body {
            Some(Body { error, error_description }) if error_description.is_empty() => error,
            Some(Body { error_description, .. }) => first_line(&error_description),
            None => "a body that is no answer of a token endpoint".to_owned(),
        };
        Self { status: answer.status, said: secrets_of(proof).clean(&said), is_oauth }
    }
}

/// What of a request for a token no message may hold: the secret that a policy names, as much as an assertion made for the occasion.
fn secrets_of(form: &[u8]) -> Redactor {
    let mut redactor = Redactor::default();
    let query = Zeroizing::new(String::from_utf8_lossy(form).into_owned());
    let Ok(mut url) = reqwest::Url::parse("https://localhost/") else { return redactor };
    url.set_query(Some(&query));
    for (name, value) in url.query_pairs() {
        if ["client_secret", "client_assertion"].contains(&&*name) {
            redactor.learn(&Secret::new(value.into_owned()));
        }
    }
    redactor
}

#[async_trait::async_trait]
impl HttpClient for Wire {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let mut url = request.url().clone();
        if self.plain.as_deref() == Some(client::host_of(&url).as_str()) {
            let _ = url.set_scheme("http");
        }
        let method = reqwest::Method::from_bytes(request.method().as_ref().as_bytes())
            .map_err(|error| azure_core::Error::new(ErrorKind::Other, error))?;
        let mut ours = client::Request::new(method, url.to_string());
        for (name, value) in request.headers().iter() {
            match name.as_str() {
                // These the client sets, or goes without: who we are and what we run on is nobody's business.
                "user-agent" | "content-length" | "x-ms-client-request-id" => {}
                "metadata" => ours = ours.header("metadata", value.as_str()),
                "x-identity-header" => ours = ours.header("x-identity-header", value.as_str()),
                _ => {}
            }
        }
        let body: &[u8] = match request.body() {
            azure_core::http::request::Body::Bytes(bytes) => bytes,
            azure_core::http::request::Body::SeekableStream(_) => &[],
        };
        if request.headers().get_optional_str(&CONTENT_TYPE).is_some() {
            ours = ours.body(crate::net::form::CONTENT_TYPE, Zeroizing::new(body.to_vec()));
        }
        let answer = self.client.send("asking for a token", ours).await;
        let answer = answer.map_err(|fault| azure_core::Error::new(ErrorKind::Other, Sent(fault)))?;
        if answer.status != 200 || serde_json::from_slice::<Granted>(&answer.body).is_err() {
            return Err(azure_core::Error::new(ErrorKind::Other, Declined::of(&answer, body)));
        }
        Ok(AsyncRawResponse::from_bytes(
            StatusCode::from(answer.status),
            Headers::new(),
            Bytes::from_owner(answer.body),
        ))
    }
}

/// The first error of a chain that is a `T`.
fn find<T: std::error::Error + 'static>(error: &azure_core::Error) -> Option<&T> {
    let mut next = Some(error);
    while let Some(found) = next {
        if let Some(inner) = found.downcast_ref::<T>() {
            return Some(inner);
        }
        next = found.get_ref().and_then(|inner| inner.downcast_ref());
    }
    None
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declined(status: u16, body: &str, form: &str) -> Declined {
        let answer = Answer {
            status,
            host: String::new(),
            location: None,
            retry_after: None,
            date: None,
            body: Zeroizing::new(body.as_bytes().to_vec()),
        };
        Declined::of(&answer, form.as_bytes())
    }

    #[test]
    fn what_repeats_the_proof_is_said_without_it() {
        let form = "client_id=rotator&client_secret=hush%2Fhush%2Bhush&grant_type=client_credentials";
        let body = r#"{"error":"invalid_client","error_description":"bad secret hush/hush+hush\r\nTrace ID: 1"}"#;
        let said = declined(401, body, form);
        assert!(said.is_oauth && said.said.starts_with("bad secret ") && !said.said.contains("hush"), "{}", said.said);
        // An assertion is made for the occasion, and known to nobody beforehand.
        let form = "client_assertion=header.claims.signature-of-it";
        let said = declined(401, r#"{"error":"bad header.claims.signature-of-it"}"#, form);
        assert!(!said.said.contains("signature"), "{}", said.said);
    }

    /// The SDK writes the Display of any error to the log.
    #[test]
    fn what_the_sdk_may_log_holds_nothing_that_was_said() {
        let said = declined(401, r#"{"error":"hush"}"#, "");
        assert_eq!(said.to_string(), "no token (401)");
        assert!(!declined(502, "<html>", "").is_oauth);
    }
}
