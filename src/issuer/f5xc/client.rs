//! The connection to one tenant: requests to its console, with rekeyd's own login or with a credential that is tried.
//!
//! Invariant: one call, one request, no retry. A token is read again for every request, since it may be one that this very daemon
//! rotates: what stands in its file counts, and nothing that stood there earlier.

use std::sync::atomic::{AtomicU32, Ordering};

use reqwest::Method;
use serde::Serialize;
use zeroize::Zeroizing;

use super::account::{Account, Login};
use super::faults::{self, Call};
use crate::issuer::account;
use crate::model::{Reason, Secret, SystemRef, SystemSpec, Timestamp};
use crate::net::Context;
use crate::net::client::{Answer, Client, Request};
use crate::net::identity::Chain;
use crate::net::redact::Redactor;
use crate::net::secrets;
use crate::ports::Fault;

/// Of every path of this kind: service credentials live in no other namespace (the vendor's page: "always system").
pub(super) const SYSTEM: &str = "system";

/// Larger than any request of ours, so that its buffer never grows and leaves a copy of a password behind.
const REQUEST_CAPACITY: usize = 64 * 1024;

/// One tenant's console.
#[derive(Debug)]
pub(super) struct Console {
    pub(super) account: Account,
    at: SystemRef,
    /// As rekeyd.
    own: Client,
    /// As nobody yet: what is tried brings its own proof.
    bare: Client,
    /// How many answers in a row refused rekeyd's login.
    refused: AtomicU32,
}

impl Console {
    /// Reads certificates and authorities; sends nothing. `object` opens the messages.
    pub(super) fn connect(system: Option<&SystemSpec>, object: &str, context: &Context) -> Result<Self, Fault> {
        let (at, account) = account::<Account>(system, object)?;
        let mut options = account.reach.options(context);
        let bare = Client::new(&options)?;
        if let Login::Certificate { file, key } = &account.login {
            options.identity = Some(Chain::read(file)?.with_key(secrets::read(key)?, &secrets::describe(key))?);
        }
        let own = Client::new(&options)?;
        Ok(Self { account, at: at.clone(), own, bare, refused: AtomicU32::new(0) })
    }

    /// The token that rekeyd logs in with at this moment; `None` where it logs in with a certificate.
    pub(super) fn token(&self) -> Result<Option<Secret>, Fault> {
        match &self.account.login {
            Login::Token(reference) => secrets::read(reference).map(Some),
            Login::Certificate { .. } => Ok(None),
        }
    }

    /// How messages name rekeyd's login: by where it comes from.
    pub(super) fn login(&self) -> String {
        match &self.account.login {
            Login::Token(reference) => {
                let described = secrets::describe(reference);
                let from = described.strip_prefix("reading the secret ").unwrap_or(&described);
                format!("api_token = {from} of [{}]", self.at)
            }
            Login::Certificate { file, .. } => format!("client_cert = {file:?} of [{}]", self.at),
        }
    }

    /// A GET as rekeyd.
    pub(super) async fn get(&self, call: &Call, path: &str) -> Result<Answer, Fault> {
        self.send(call, self.request(Method::GET, path), Redactor::default()).await
    }

    /// A request with a body, as rekeyd; `redactor` knows what of it no message may hold.
    pub(super) async fn write(
        &self,
        call: &Call,
        method: Method,
        path: &str,
        body: &impl Serialize,
        redactor: Redactor,
    ) -> Result<Answer, Fault> {
        let mut buffer = Zeroizing::new(Vec::with_capacity(REQUEST_CAPACITY));
        serde_json::to_writer(&mut *buffer, body).map_err(|error| {
            let why = call.text(format_args!("the request could not be written: {error}"));
            Fault::NotSent(why)
        })?;
        let request = self.request(method, path).body("application/json", buffer);
        self.send(call, request, redactor).await
    }

    async fn send(&self, call: &Call, request: Request, mut redactor: Redactor) -> Result<Answer, Fault> {
        let request = match self.token()? {
            Some(token) => {
                redactor.learn(&token);
                request.header("authorization", format!("APIToken {}", token.expose()))
            }
            None => request,
        };
        let answer = self.own.send(call.what(), request).await?;
        self.judged(faults::judge(call, answer, &redactor, &self.login()))
    }

    /// A login that is refused may be one that not every server knows yet: the first in a row is asked again later.
    fn judged(&self, answer: Result<Answer, Fault>) -> Result<Answer, Fault> {
        match answer {
            Err(Fault::Refused { reason: Reason::LoginRefused, why })
                if self.refused.fetch_add(1, Ordering::Relaxed) == 0 =>
            {
                Err(Fault::Retry { after: None, why })
            }
            Err(Fault::Refused { reason: Reason::LoginRefused, .. }) => answer,
            _ => {
                self.refused.store(0, Ordering::Relaxed);
                answer
            }
        }
    }

    /// A GET with this token and nothing of rekeyd's. The answer is not judged: here a refusal tells.
    pub(super) async fn get_as(&self, call: &Call, path: &str, token: &Secret) -> Result<Answer, Fault> {
        let request = self.request(Method::GET, path).header("authorization", format!("APIToken {}", token.expose()));
        self.bare.send(call.what(), request).await
    }

    fn request(&self, method: Method, path: &str) -> Request {
        Request::new(method, format!("{}{path}", self.account.console_url)).header("accept", "application/json")
    }
}

/// The wall clock at the edge: where an answer has no date of its own.
#[allow(clippy::disallowed_methods)]
pub(super) fn edge_time() -> Timestamp {
    chrono::Utc::now()
}
