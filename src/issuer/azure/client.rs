//! The connection of one account: requests to ARM and Graph, each with a token of its own audience.
//!
//! Invariant: one call, one request, no retry. Does not decide what an answer means: that is `faults`.

use reqwest::Method;
use serde_json::Value;

use super::account::Account;
use super::faults::{self, Call};
use super::login::Login;
use crate::issuer::account;
use crate::model::{SystemSpec, Timestamp};
use crate::net::Context;
use crate::net::client::{Answer, Client, Request};
use crate::ports::Fault;

/// One account's doors.
#[derive(Debug)]
pub(in crate::issuer) struct Azure {
    pub(in crate::issuer) account: Account,
    /// For data planes too, where a probe asks them.
    pub(in crate::issuer) http: Client,
    login: Login,
}

impl Azure {
    /// Reads secrets and authorities; sends nothing. `object` opens the messages.
    pub(in crate::issuer) fn connect(
        system: Option<&SystemSpec>,
        object: &str,
        context: &Context,
    ) -> Result<Self, Fault> {
        let (at, account) = account::<Account>(system, object)?;
        let options = account.reach.options(context);
        let http = Client::new(&options)?;
        let login = Login::new(&account, at, &http)?;
        Ok(Self { account, http, login })
    }

    /// One request to ARM. `path` begins with the resource's id.
    pub(in crate::issuer) async fn arm(
        &self,
        call: &Call,
        method: Method,
        path: &str,
        version: &'static str,
        body: Option<&Value>,
    ) -> Result<Answer, Fault> {
        let url = format!("{}{path}", self.account.arm());
        let request = request(method, url, body).query("api-version", version);
        self.send(call, &self.account.arm_scope(), request).await
    }

    /// One request to Graph. `path` begins behind the version.
    pub(in crate::issuer) async fn graph(
        &self,
        call: &Call,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, Fault> {
        let url = format!("{}/v1.0{path}", self.account.graph());
        self.send(call, &self.account.graph_scope(), request(method, url, body)).await
    }

    async fn send(&self, call: &Call, scope: &str, request: Request) -> Result<Answer, Fault> {
        let token = self.login.token(call, scope).await?;
        let request = request.header("authorization", format!("Bearer {}", token.expose()));
        self.login.judged(faults::judge(call, self.http.send(call.what(), request).await?))
    }
}

fn request(method: Method, url: String, body: Option<&Value>) -> Request {
    match body {
        Some(body) => Request::post_json(url, body),
        None => Request::new(method, url),
    }
}

/// The wall clock at the edge: for the date in a signature, for the end of what is made, and where an answer has no date of its own.
#[allow(clippy::disallowed_methods)]
pub(in crate::issuer) fn signing_time() -> Timestamp {
    chrono::Utc::now()
}
