//! rekeyd's own login at Entra: `azure_identity` knows the ways to prove an identity, and our client carries its requests.
//!
//! Invariant: no request for a token is repeated beneath us, and whatever fails here fails before the request that needed the token
//! was sent. So a fault of a login is never `Unknown`.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

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
use crate::model::{Reason, Secret, SystemRef};
use crate::net::client::{self, Client, is_loopback};
use crate::net::identity::Chain;
use crate::net::redact::Redactor;
use crate::net::secrets;
use crate::ports::Fault;

/// Names a Kubernetes pod's own assertion (AKS workload identity).
const TOKEN_FILE: &str = "AZURE_FEDERATED_TOKEN_FILE";

/// One identity, with the tokens it was given.
pub(super) struct Login {
    credential: Arc<dyn TokenCredential>,
    /// Who logs in and how, for messages: `client X of tenant Y with its client secret`.
    who: String,
    at: SystemRef,
    redactor: Redactor,
}

impl Login {
    /// Reads the secret; sends nothing.
    pub(super) fn new(account: &Account, at: &SystemRef, client: &Client) -> Result<Self, Fault> {
        let tenant = account.tenant_id.as_deref().unwrap_or_default();
        let client_id = account.client_id.as_deref().unwrap_or_default();
        let options = || options(account, client);
        let mut redactor = Redactor::default();
        let (credential, way): (azure_core::Result<Arc<dyn TokenCredential>>, &str) = match &account.login {
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
        let of_tenant = account.tenant_id.as_ref().map(|tenant| format!(" of tenant {tenant}")).unwrap_or_default();
        let who = match &account.client_id {
            Some(client_id) => format!("client {client_id}{of_tenant} with {way}"),
            None => way.to_owned(),
        };
        let credential = credential.map_err(|error| Fault::Refused {
            reason: Reason::PolicyMismatch,
            why: format!("log in as {who}: {} ([{at}])", redactor.clean(&error.to_string())),
        })?;
        Ok(Self { credential, who, at: at.clone(), redactor })
    }

    /// A token for this scope; asked for anew only when the last one is about to end.
    pub(super) async fn token(&self, call: &Call, scope: &str) -> Result<Secret, Fault> {
        match self.credential.get_token(&[scope], None).await {
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
        let Some(Declined { status, said }) = find::<Declined>(error) else {
            let why = call.text(format_args!("{tried}: {}", self.redactor.clean(&first_line(&error.to_string()))));
            return Fault::Refused { reason: Reason::LoginRefused, why };
        };
        let why = call.text(format_args!("{tried}: {} ({status})", self.redactor.clean(said)));
        match *status {
            429 | 500.. => Fault::NotSent(why),
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
#[derive(Debug, thiserror::Error)]
#[error("{said} ({status})")]
struct Declined {
    status: u16,
    said: String,
}

impl Declined {
    fn of(answer: &client::Answer) -> Self {
        #[derive(Default, serde::Deserialize)]
        #[serde(default)]
        struct Body {
            error: String,
            error_description: String,
        }
        let said = match serde_json::from_slice::<Body>(&answer.body) {
            Ok(Body { error, error_description }) if error_description.is_empty() => error,
            Ok(Body { error_description, .. }) => first_line(&error_description),
            Err(_) => "a body that is no answer of a token endpoint".to_owned(),
        };
        Self { status: answer.status, said }
    }
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
        if answer.status != 200 {
            return Err(azure_core::Error::new(ErrorKind::Other, Declined::of(&answer)));
        }
        Ok(AsyncRawResponse::from_bytes(StatusCode::from(answer.status), Headers::new(), answer.body.to_vec()))
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
