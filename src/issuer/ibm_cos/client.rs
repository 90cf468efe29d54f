//! The connection to an accesser: one request, with rekeyd's own login (HTTP Basic, as in IBM's examples) on it.
//!
//! Invariant: one call, one request, no retry. The password goes with every request, so a password that was refused stops all of them
//! until it changes: nobody documents after how many wrong ones an account is locked. Whether it may go out is `login`'s to say, and what
//! an answer means `faults`'.

use std::fmt;
use std::sync::Arc;

use reqwest::Method;
use zeroize::Zeroizing;

use super::account::Account;
use super::faults::{self, Call};
use super::login::{Barred, Login};
use crate::issuer::account;
use crate::model::{Reason, Secret, SystemRef, SystemSpec};
use crate::net::client::{Answer, Client, Request};
use crate::net::redact::Redactor;
use crate::net::{Context, secrets};
use crate::ports::Fault;

/// What to do about a refused password.
const AFTER_REFUSAL: &str = "it is not sent again until it changes, or rekeyd retry is given";

/// One accesser.
pub(super) struct Accesser {
    pub(super) account: Account,
    /// For the bucket of a probe too.
    pub(super) http: Client,
    login: Arc<Login>,
    at: SystemRef,
}

impl fmt::Debug for Accesser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accesser").field("account", &self.account).finish_non_exhaustive()
    }
}

/// What is asked: method, path behind the address, parameters, body.
pub(super) struct Asked {
    method: Method,
    path: String,
    query: Vec<(&'static str, String)>,
    body: Option<Zeroizing<Vec<u8>>>,
    /// In the body, and not to come back in a message.
    secret: Option<Secret>,
}

impl Asked {
    pub(super) fn new(method: Method, path: String) -> Self {
        Self { method, path, query: Vec::new(), body: None, secret: None }
    }

    pub(super) fn query(mut self, name: &'static str, value: &str) -> Self {
        self.query.push((name, value.to_owned()));
        self
    }

    /// A body of JSON, and the secret in it.
    pub(super) fn body(self, body: Zeroizing<Vec<u8>>, secret: Option<&Secret>) -> Self {
        Self { body: Some(body), secret: secret.cloned(), ..self }
    }
}

impl Accesser {
    /// Reads the password and authorities; sends nothing. `object` opens the messages.
    pub(super) fn connect(system: Option<&SystemSpec>, object: &str, context: &Context) -> Result<Self, Fault> {
        let (at, account) = account::<Account>(system, object)?;
        let options = account.reach.options(context);
        let http = Client::new(&options)?;
        let login = Login::shared(at, &account.username, secrets::read(&account.password)?, context);
        Ok(Self { account, http, login, at: at.clone() })
    }

    /// One request; its answer, if that is a success.
    pub(super) async fn send(&self, call: &Call, asked: Asked) -> Result<Answer, Fault> {
        let (at, user) = (&self.at, &self.account.username);
        // Held to the end of this function: what became of the password is remembered by then.
        let _leave = match self.login.leave().await {
            Ok(leave) => leave,
            Err(Barred::Ending) => return Err(Fault::NotSent(call.text("not sent: this process ends"))),
            Err(Barred::Refused) => {
                let why =
                    call.text(format_args!("the password of {user} was refused before ([{at}]); {AFTER_REFUSAL}"));
                return Err(Fault::Refused { reason: Reason::LoginRefused, why });
            }
        };
        let mut request = Request::new(asked.method, format!("{}{}", self.account.accesser_url, asked.path))
            .header("authorization", self.login.header().expose())
            .header("accept", "application/json");
        for (name, value) in asked.query {
            request = request.query(name, value);
        }
        if let Some(body) = asked.body {
            request = request.body("application/json", body);
        }
        let answer = self.http.send(call.what(), request).await?;
        if answer.status == 401 {
            self.login.was_refused();
            let why =
                call.text(format_args!("the login of {user} was refused by {} ([{at}]); {AFTER_REFUSAL}", answer.host));
            return Err(Fault::Refused { reason: Reason::LoginRefused, why });
        }
        let redactor = Redactor::new(self.login.secrets().iter().chain(&asked.secret));
        let answer = faults::judge(call, answer, &redactor)?;
        // A page of somebody in between says 200 as well.
        if matches!(answer.body.trim_ascii_start().first(), None | Some(b'{')) {
            self.login.was_taken();
        }
        Ok(answer)
    }
}
