//! One request from the wire to the answer: which door it asks, what fault awaits it, what it does.

use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::{HeaderValue, Response, header};
use chrono::{DateTime, TimeDelta, Utc};

use super::state::{State, lock};
use super::wire::{Content, Outcome};
use super::{hmac, oauth, resource_manager};
use crate::faults::{Stumbling, carry_out};
use crate::http::{Handler, Reply, ReplyFuture, Request};
use crate::{RequestLine, http};

pub(crate) struct Server {
    state: Arc<Mutex<State>>,
}

/// A call, as far as it can be told before it is believed.
pub(crate) struct Call {
    request: Request,
    asked: Asked,
    /// The queue its faults wait in, and its name in the log.
    operation: String,
}

enum Asked {
    Storage(hmac::Asked),
    ResourceManager(resource_manager::Asked),
    OAuth(oauth::Asked),
    /// No such path, or not with this method.
    Nothing,
}

impl Call {
    fn read(request: Request) -> Self {
        let asked = hmac::Asked::read(&request)
            .map(Asked::Storage)
            .or_else(|| resource_manager::Asked::read(&request).map(Asked::ResourceManager))
            .or_else(|| oauth::Asked::read(&request).map(Asked::OAuth))
            .unwrap_or(Asked::Nothing);
        let operation = match &asked {
            Asked::Storage(asked) => asked.operation().to_owned(),
            Asked::ResourceManager(_) => "TestIamPermissions".to_owned(),
            Asked::OAuth(asked) => asked.operation().to_owned(),
            Asked::Nothing => format!("{} {}", request.method, request.path),
        };
        Self { request, asked, operation }
    }

    fn execute(&self, state: &mut State, now: DateTime<Utc>) -> Outcome {
        match &self.asked {
            Asked::Storage(asked) => asked.execute(&self.request, state, now),
            Asked::ResourceManager(asked) => asked.execute(&self.request, state, now),
            Asked::OAuth(asked) => asked.execute(&self.request, state, now),
            Asked::Nothing => Outcome::page(404, "The requested URL was not found on this server."),
        }
    }

    /// How each door words a status that has no reason in the request.
    fn failure(&self, status: u16) -> Outcome {
        let (reason, word, message) = match status {
            429 => (
                "rateLimitExceeded",
                "RESOURCE_EXHAUSTED",
                "The rate of change requests is too high. Please reduce it.",
            ),
            503 => ("backendError", "UNAVAILABLE", "The service is currently unavailable."),
            _ => ("backendError", "INTERNAL", "We encountered an internal error. Please try again."),
        };
        match &self.asked {
            Asked::ResourceManager(_) | Asked::OAuth(oauth::Asked::Impersonation) => {
                Outcome::new(status, Content::Api(word, None, message.to_owned()), false)
            }
            Asked::OAuth(oauth::Asked::Machine) => Outcome::page(status, message),
            Asked::OAuth(_) => Outcome::oauth(status, "internal_failure", message),
            Asked::Storage(_) | Asked::Nothing => Outcome::storage(status, reason, message),
        }
    }
}

impl Server {
    pub(crate) fn new(state: Arc<Mutex<State>>) -> Self {
        Self { state }
    }

    fn answer(&self, outcome: Outcome) -> Response<Body> {
        self.date(outcome.into_response())
    }

    /// By the clock we show, so many seconds from now.
    fn shown(&self, seconds: u32) -> String {
        let skew = lock(&self.state).date_skew;
        http::date(Utc::now() + skew + TimeDelta::seconds(i64::from(seconds)))
    }
}

impl Stumbling for Server {
    type Call = Call;

    fn execute(&self, call: &Call, status: Option<u16>) -> Reply {
        let mut state = lock(&self.state);
        let outcome = call.execute(&mut state, Utc::now());
        log(&mut state, call, &outcome, status.unwrap_or(outcome.status));
        drop(state);
        Reply::Answer(self.answer(outcome))
    }

    fn spare(&self, call: &Call, status: u16) {
        let spared = Outcome::new(status, Content::Nothing, false);
        let spared = match &call.asked {
            Asked::Storage(asked) => spared.of_key(asked.id()),
            _ => spared,
        };
        log(&mut lock(&self.state), call, &spared, status);
    }

    fn fail(&self, call: &Call, status: u16) -> Response<Body> {
        self.answer(call.failure(status))
    }

    fn throttle(&self, call: &Call) -> Response<Body> {
        self.later(call, 429, 1, false)
    }

    fn later(&self, call: &Call, status: u16, seconds: u32, as_date: bool) -> Response<Body> {
        let wait = if as_date { self.shown(seconds) } else { seconds.to_string() };
        self.answer(call.failure(status).header("retry-after", wait))
    }

    fn refuse(&self, call: &Call, message: &str) -> Response<Body> {
        self.answer(match &call.asked {
            Asked::ResourceManager(_) | Asked::OAuth(oauth::Asked::Impersonation) => {
                Outcome::new(403, Content::Api("PERMISSION_DENIED", None, message.to_owned()), false)
            }
            Asked::OAuth(_) => Outcome::oauth(400, "invalid_grant", message),
            Asked::Storage(_) | Asked::Nothing => Outcome::storage(403, "forbidden", message),
        })
    }

    fn date(&self, mut response: Response<Body>) -> Response<Body> {
        let date = HeaderValue::from_str(&self.shown(0)).expect("a date is a legal header value");
        response.headers_mut().insert(header::DATE, date);
        response
    }
}

impl Handler for Server {
    fn is_down(&self) -> bool {
        false
    }

    fn handle(self: Arc<Self>, request: Request) -> ReplyFuture {
        let call = Call::read(request);
        let fault = lock(&self.state).faults.take(&call.operation);
        carry_out(self, call, fault)
    }
}

fn log(state: &mut State, call: &Call, outcome: &Outcome, status: u16) {
    state.requests.push(RequestLine {
        at: Utc::now(),
        operation: call.operation.clone(),
        user_or_target: outcome.target.clone(),
        access_key_id: outcome.key.clone(),
        status,
        executed: outcome.executed,
    });
}
