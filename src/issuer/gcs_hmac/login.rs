//! rekeyd's own login at Google: `google-cloud-auth` knows the ways to prove an identity; one of them is spoken here (`grant`).
//!
//! Invariant: whatever fails here fails before the request that needed the token was sent, so a fault of a login is never `Unknown`;
//! and no request for a token is repeated beneath us while we wait, but that of an impersonation.
//!
//! What the crate (1.18) does in its own way, and takes no advice about: its requests go past the account's `proxy`, `no_proxy` and
//! `ca_file` (the proxy is that of `HTTPS_PROXY`, the authorities are the system's, or those of `SSL_CERT_FILE`), it follows
//! redirects, and a task of its keeps a token fresh for as long as the credential is held. It asks for an impersonation again for a
//! minute where the answer was a 429, 503 or none. It sets no time for the answers of a token exchange and of a metadata server:
//! when we stop waiting for one, its task and its connection stay until the other side answers or hangs up, one for each try of ours.
//! A service account's file needs none of these requests; with `token_url`, the request is ours.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use google_cloud_auth::build_errors;
use google_cloud_auth::credentials::{
    AccessTokenCredentials, Builder, external_account, impersonated, service_account, user_account,
};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::account::Account;
use super::faults::Call;
use super::grant::Granted;
use super::proof::{File, Kind};
use super::said::Said;
use crate::model::{Reason, Secret, SecretRef, SystemRef};
use crate::net::client::{Answer, Client};
use crate::net::redact::Redactor;
use crate::net::secrets;
use crate::ports::Fault;

/// Names the credentials file of whoever started the process (AIP-4110).
const FILE_VARIABLE: &str = "GOOGLE_APPLICATION_CREDENTIALS";

/// What a token is asked for. Neither opens more than the identity's own roles do; both keep a stolen token from the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    /// All that is done with HMAC keys ("OAuth 2.0 scopes for Cloud Storage": making and changing them needs full control).
    Storage,
    /// To ask what the rotator may do.
    Look,
}

impl Scope {
    pub(super) fn url(self) -> &'static str {
        match self {
            Self::Storage => "https://www.googleapis.com/auth/devstorage.full_control",
            Self::Look => "https://www.googleapis.com/auth/cloud-platform.read-only",
        }
    }
}

/// One identity, with the tokens it was given.
pub(super) struct Login {
    proof: Proof,
    client: Client,
    patience: std::time::Duration,
    /// Given up when a token of theirs was refused, or none came: the crate keeps a refusal for ever, and its task asks on.
    held: Mutex<BTreeMap<Scope, Held>>,
    /// How many answers in a row refused a token.
    refused: AtomicU32,
    /// Who logs in and how, for messages: `service account x@y with key 1234 of its credentials file`.
    who: String,
    at: SystemRef,
    redactor: Redactor,
}

/// How rekeyd proves who it is.
enum Proof {
    File(File),
    /// As the machine it runs on, or with what gcloud left for its user.
    Ambient,
}

/// What was got for a scope.
#[derive(Clone)]
enum Held {
    Credential(AccessTokenCredentials),
    Token(Granted),
}

impl Login {
    /// Reads the file; sends nothing.
    pub(super) fn new(account: &Account, at: &SystemRef, client: &Client) -> Result<Self, Fault> {
        let mut redactor = Redactor::default();
        let named = account.credentials_file.clone().or_else(|| std::env::var(FILE_VARIABLE).ok().map(SecretRef::File));
        let (proof, who) = match named {
            None => (Proof::Ambient, "the machine's application default credentials".to_owned()),
            Some(reference) => {
                let file = File::read(secrets::read(&reference)?, account.token_url.as_deref()).map_err(|what| {
                    let why = format!("{}, the credentials of [{at}]: {what}", secrets::describe(&reference));
                    Fault::Refused { reason: Reason::PolicyMismatch, why }
                })?;
                file.secrets().iter().for_each(|secret| redactor.learn(secret));
                let who = file.who.clone();
                (Proof::File(file), who)
            }
        };
        let login = Self {
            proof,
            client: client.clone(),
            patience: account.reach.request_timeout(),
            held: Mutex::default(),
            refused: AtomicU32::new(0),
            who,
            at: at.clone(),
            redactor,
        };
        Ok(login)
    }

    /// What an answer to a token says of it. One that is refused is not handed out again: it may have ended although our clock says
    /// otherwise, or before a right was granted. Refused twice in a row, the login itself is.
    pub(super) fn judged(&self, answer: Result<Answer, Fault>) -> Result<Answer, Fault> {
        let (is_login, why) = match &answer {
            Err(Fault::Refused { reason: Reason::LoginRefused, why }) => (true, format!("{why} ({})", self.who)),
            Err(Fault::Refused { reason: Reason::MissingRight, why }) => (false, why.clone()),
            _ => {
                self.refused.store(0, Ordering::Relaxed);
                return answer;
            }
        };
        self.lock().clear();
        match (is_login, is_login && self.refused.fetch_add(1, Ordering::Relaxed) == 0) {
            (true, true) => Err(Fault::Retry { after: None, why }),
            (true, false) => Err(Fault::Refused { reason: Reason::LoginRefused, why }),
            (false, _) => answer,
        }
    }

    /// A token for this scope; asked for anew only when the last one is about to end.
    pub(super) async fn token(&self, call: &Call, scope: Scope) -> Result<Secret, Fault> {
        let tried = call.text(format_args!("log in as {}", self.who));
        let token = match &self.proof {
            Proof::File(File { kind: Kind::ServiceAccount { grant: Some(grant) }, .. }) => {
                if let Some(Held::Token(granted)) = self.lock().get(&scope)
                    && granted.is_good()
                {
                    return Ok(granted.token());
                }
                let granted = grant.ask(&self.client, scope.url()).await.map(|granted| {
                    let token = granted.token();
                    self.lock().insert(scope, Held::Token(granted));
                    token
                });
                granted.map_err(|fault| self.worded(format!("{tried}: {}", fault.why()), fault))
            }
            proof => self.by_crate(proof, scope, &tried).await,
        };
        if token.is_err() {
            self.lock().remove(&scope);
        }
        token
    }

    /// By whatever `google-cloud-auth` does with the file, or finds on the machine.
    async fn by_crate(&self, proof: &Proof, scope: Scope, tried: &str) -> Result<Secret, Fault> {
        let held = self.lock().get(&scope).cloned();
        let credential = match held {
            Some(Held::Credential(credential)) => credential,
            _ => {
                let made = credential(proof, scope.url()).map_err(|error| {
                    let why = format!("{tried}: {} ([{}])", self.redactor.clean(&error.to_string()), self.at);
                    Fault::Refused { reason: Reason::PolicyMismatch, why }
                })?;
                self.lock().insert(scope, Held::Credential(made.clone()));
                made
            }
        };
        // In a task, which ends with us: the crate panics over some answers, one whose token is over already among them.
        let mut asking = JoinSet::new();
        asking.spawn(async move { credential.access_token().await });
        match timeout(self.patience, asking.join_next()).await {
            // The crate keeps a copy that it does not wipe, for as long as the token is good.
            Ok(Some(Ok(Ok(token)))) => Ok(Secret::new(token.token)),
            Ok(Some(Ok(Err(error)))) => {
                let said = Said::of(&error);
                let why = format!("{tried}: {}", self.redactor.clean(&said.text));
                Err(match said.is_final {
                    true => self.worded(why, Fault::Refused { reason: Reason::LoginRefused, why: String::new() }),
                    false => Fault::NotSent(why),
                })
            }
            Ok(_) => Err(Fault::NotSent(format!(
                "{tried}: a token that is over already, or lasts for ever; compare this machine's clock with the world's"
            ))),
            Err(_) => {
                let is_repeated = matches!(proof, Proof::File(file) if file.impersonates);
                let more = match is_repeated {
                    true => {
                        "; an impersonation that is refused for the moment (429, 503) is asked for again until then"
                    }
                    false => "",
                };
                Err(Fault::NotSent(format!("{tried}: no token within {:?}{more}", self.patience)))
            }
        }
    }

    /// The same fault in these words.
    fn worded(&self, why: String, fault: Fault) -> Fault {
        match fault {
            Fault::Refused { reason: Reason::LoginRefused, .. } => Fault::Refused {
                reason: Reason::LoginRefused,
                why: format!("{why}; this is the rotator's own login, [{}]", self.at),
            },
            Fault::Refused { reason, .. } => Fault::Refused { reason, why },
            // Only the login was sent, which changes nothing.
            _ => Fault::NotSent(why),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Scope, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("who", &self.who).finish_non_exhaustive()
    }
}

/// Retries stay off: the crate's own default for all of these is one attempt. What it does about an impersonation is no option.
fn credential(proof: &Proof, scope: &'static str) -> Result<AccessTokenCredentials, build_errors::Error> {
    let Proof::File(file) = proof else {
        return Builder::default().with_scopes([scope]).build_access_token_credentials();
    };
    // The crate keeps a copy of what is secret in it, which it does not wipe.
    let json = file.json();
    match &file.kind {
        Kind::ServiceAccount { .. } => service_account::Builder::new(json)
            .with_access_specifier(service_account::AccessSpecifier::from_scopes([scope]))
            .build_access_token_credentials(),
        Kind::Federated => external_account::Builder::new(json).with_scopes([scope]).build_access_token_credentials(),
        Kind::Impersonated => impersonated::Builder::new(json).with_scopes([scope]).build_access_token_credentials(),
        // What a user granted cannot be narrowed with every client; the crate asks for the scope, and Google decides.
        Kind::User => user_account::Builder::new(json).with_scopes([scope]).build_access_token_credentials(),
    }
}
