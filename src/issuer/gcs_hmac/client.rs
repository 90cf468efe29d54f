//! The connection of one account: requests to Cloud Storage and to Resource Manager, each with a token of the least scope that does.
//!
//! Invariant: one call, one request, no retry. Does not decide what an answer means: that is `faults`.

use reqwest::Method;
use serde_json::Value;
use zeroize::Zeroizing;

use super::account::Account;
use super::faults::{self, Call};
use super::login::{Login, Scope};
use crate::issuer::account;
use crate::model::{SystemSpec, Timestamp};
use crate::net::Context;
use crate::net::client::{Answer, Client, Request};
use crate::ports::Fault;

/// One account's doors.
#[derive(Debug)]
pub(super) struct Google {
    pub(super) account: Account,
    /// For the probe of a bucket too.
    pub(super) http: Client,
    login: Login,
}

impl Google {
    /// Reads secrets and authorities; sends nothing. `object` opens the messages.
    pub(super) fn connect(system: Option<&SystemSpec>, object: &str, context: &Context) -> Result<Self, Fault> {
        let (at, account) = account::<Account>(system, object)?;
        let options = account.reach.options(context);
        let http = Client::new(&options)?;
        let login = Login::new(&account, at, &http)?;
        Ok(Self { account, http, login })
    }

    /// One request to the JSON API of Cloud Storage. `path` begins behind the version.
    pub(super) async fn storage(
        &self,
        call: &Call,
        method: Method,
        path: &str,
        query: &[(&'static str, &str)],
        body: Option<&Value>,
    ) -> Result<Answer, Fault> {
        let url = format!("{}/storage/v1{path}", self.account.storage());
        let request =
            query.iter().fold(request(method, url, body), |request, (name, value)| request.query(name, *value));
        self.send(call, Scope::Storage, request).await
    }

    /// One request to Resource Manager, which changes nothing. `path` begins behind the version.
    pub(super) async fn resource_manager(&self, call: &Call, path: &str, body: &Value) -> Result<Answer, Fault> {
        let url = format!("{}/v3{path}", self.account.resource_manager());
        self.send(call, Scope::Look, request(Method::POST, url, Some(body))).await
    }

    async fn send(&self, call: &Call, scope: Scope, request: Request) -> Result<Answer, Fault> {
        let token = self.login.token(call, scope).await?;
        let request = request.header("authorization", format!("Bearer {}", token.expose()));
        self.login.judged(faults::judge(call, self.http.send(call.what(), request).await?))
    }
}

fn request(method: Method, url: String, body: Option<&Value>) -> Request {
    let request = Request::new(method, url);
    match body {
        Some(body) => request.body("application/json", Zeroizing::new(body.to_string().into_bytes())),
        None => request,
    }
}

/// The wall clock at the edge: for the date in a signature or an assertion.
#[allow(clippy::disallowed_methods)]
pub(super) fn signing_time() -> Timestamp {
    chrono::Utc::now()
}
