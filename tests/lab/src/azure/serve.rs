//! One request from the wire to the answer: which of them it asks, what fault awaits it, what it does.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Response, header};
use chrono::{DateTime, TimeDelta, Utc};

use super::state::{State, lock};
use super::wire::Outcome;
use super::{arm, authorization, blob, cosmos, entra, graph, service_bus};
use crate::faults::{Stumbling, carry_out};
use crate::http::{Handler, Reply, ReplyFuture, Request};
use crate::{RequestLine, consumer, http};

/// What a port plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Face {
    Entra,
    Arm,
    Graph,
    Blob,
    Cosmos,
    ServiceBus,
}

pub(crate) struct Server {
    state: Arc<Mutex<State>>,
    face: Face,
}

/// A call, as far as it can be told before it is believed.
pub(crate) struct Call {
    face: Face,
    request: Request,
    asked: Asked,
    /// The queue its faults wait in, and its name in the log.
    operation: String,
}

enum Asked {
    Entra(entra::Asked),
    Arm(Box<arm::Asked>),
    Authorization(Box<authorization::Asked>),
    Graph(graph::Asked),
    Blob(blob::Asked),
    Cosmos(cosmos::Asked),
    ServiceBus(service_bus::Asked),
    /// No such path, or not with this method.
    Nothing,
}

impl Call {
    fn read(request: Request, face: Face) -> Self {
        let asked = match face {
            Face::Entra => entra::Asked::read(&request).map(Asked::Entra),
            Face::Arm => match authorization::Asked::read(&request) {
                Some(asked) => Some(Asked::Authorization(Box::new(asked))),
                None => arm::Asked::read(&request).map(|asked| Asked::Arm(Box::new(asked))),
            },
            Face::Graph => graph::Asked::read(&request).map(Asked::Graph),
            Face::Blob => blob::Asked::read(&request).map(Asked::Blob),
            Face::Cosmos => cosmos::Asked::read(&request).map(Asked::Cosmos),
            Face::ServiceBus => service_bus::Asked::read(&request).map(Asked::ServiceBus),
        };
        let asked = asked.unwrap_or(Asked::Nothing);
        let is_consumer = request.header("user-agent") == Some(consumer::USER_AGENT);
        let operation = match &asked {
            // What is queued for a test's own requests must not go to those of the consumers, who never rest.
            Asked::Entra(_) if is_consumer => "ConsumerToken".to_owned(),
            Asked::Blob(_) if is_consumer => "ConsumerGet".to_owned(),
            Asked::Entra(_) => "Token".to_owned(),
            Asked::Arm(asked) => asked.operation().to_owned(),
            Asked::Authorization(asked) => asked.operation().to_owned(),
            Asked::Graph(asked) => asked.operation().to_owned(),
            Asked::Blob(asked) => asked.operation().to_owned(),
            Asked::Cosmos(_) => "ListDatabases".to_owned(),
            Asked::ServiceBus(asked) => asked.operation().to_owned(),
            Asked::Nothing => format!("{} {}", request.method, request.path),
        };
        Self { face, request, asked, operation }
    }

    fn is_storage(&self) -> bool {
        matches!(&self.asked, Asked::Arm(asked) if asked.is_storage())
    }

    /// What it is about, as far as the path tells.
    fn target(&self) -> &str {
        match &self.asked {
            Asked::Arm(asked) => asked.name(),
            Asked::Authorization(asked) => asked.name(),
            Asked::Graph(asked) => asked.name(),
            Asked::Blob(asked) => asked.account(),
            Asked::Cosmos(asked) => asked.name(),
            Asked::ServiceBus(asked) => asked.name(),
            Asked::Entra(_) | Asked::Nothing => "",
        }
    }

    fn execute(&self, state: &mut State, now: DateTime<Utc>) -> Outcome {
        match &self.asked {
            Asked::Entra(asked) => asked.execute(&self.request, state, now),
            Asked::Arm(asked) => asked.execute(&self.request, state, now),
            Asked::Authorization(asked) => asked.execute(&self.request, state, now),
            Asked::Graph(asked) => asked.execute(&self.request, state, now),
            Asked::Blob(asked) => asked.execute(&self.request, state, now),
            Asked::Nothing if self.face == Face::Blob => blob::not_offered(&self.request),
            Asked::Cosmos(asked) => asked.execute(&self.request, state, now),
            Asked::ServiceBus(asked) => asked.execute(&self.request, state, now),
            Asked::Nothing => Outcome::error(404, "NotFound", "There is nothing at this address."),
        }
    }
}

impl Server {
    pub(crate) fn new(state: Arc<Mutex<State>>, face: Face) -> Self {
        Self { state, face }
    }

    fn answer(&self, call: &Call, outcome: Outcome) -> Response<Body> {
        self.date(outcome.into_response(self.face, &call.request))
    }

    /// By the clock we show, so many seconds from now.
    fn shown(&self, seconds: u32) -> String {
        let skew = lock(&self.state).date_skew;
        let at = Utc::now() + skew + TimeDelta::seconds(i64::from(seconds));
        http::date(at)
    }

    /// How each tells how long to wait. Cosmos DB counts milliseconds and knows no date.
    fn wait(&self, outcome: Outcome, seconds: u32, as_date: bool) -> Outcome {
        match (self.face, as_date) {
            (Face::Cosmos, _) => outcome.header("x-ms-retry-after-ms", u64::from(seconds) * 1000),
            (_, true) => outcome.header("retry-after", self.shown(seconds)),
            (_, false) => outcome.header("retry-after", seconds),
        }
    }

    /// How each words a status that has no reason in the request. Entra's is of its list of codes, with the status asked for.
    fn failure(&self, call: &Call, status: u16) -> Outcome {
        let writes_directory = ["AddPassword", "RemovePassword"].contains(&call.operation.as_str());
        match (self.face, status) {
            (Face::Entra, _) => Outcome::sts(
                status,
                "temporarily_unavailable",
                90_033,
                "A transient error has occurred. Please try again.",
            ),
            (Face::Blob, _) => blob::failure(status),
            (Face::Cosmos, _) => cosmos::failure(status),
            (Face::ServiceBus, _) => service_bus::failure(status),
            (Face::Graph, 409 | 503) if writes_directory => graph::concurrency(status),
            (Face::Graph, 429) => Outcome::error(429, "TooManyRequests", "Too many requests."),
            (Face::Arm, 429) => Outcome::error(
                429,
                "TooManyRequests",
                "The request is being throttled as the limit has been reached for operation type - Read_ObservationWindow_00:05:00. \
                 For more information, see - https://aka.ms/srpthrottlinglimits",
            ),
            (Face::Arm, 409) if call.is_storage() => Outcome::error(
                409,
                "StorageAccountOperationInProgress",
                "An operation is currently performing on this storage account that requires exclusive access.",
            ),
            (_, 409) => Outcome::error(409, "Conflict", "Another operation is in progress."),
            (_, 503) => Outcome::error(503, "ServiceUnavailable", "The service is temporarily unavailable."),
            _ => {
                Outcome::error(status, "InternalServerError", "The server encountered an internal error. Please retry.")
            }
        }
    }
}

impl Stumbling for Server {
    type Call = Call;

    /// Whoever plays the data plane is told without the lock.
    fn execute(&self, call: &Call, status: Option<u16>) -> Reply {
        let mut state = lock(&self.state);
        let outcome = call.execute(&mut state, Utc::now());
        log(&mut state, call, &outcome, status.unwrap_or(outcome.status), outcome.executed);
        let hook = state.hook.clone();
        let work = state.options.cosmos_work.unwrap_or_default();
        drop(state);
        if let (Some(hook), Some(key)) = (hook, &outcome.regenerated) {
            hook(key);
        }
        if let Some(id) = &outcome.goes_on {
            go_on(self.state.clone(), id.clone(), work);
        }
        Reply::Answer(self.answer(call, outcome))
    }

    fn spare(&self, call: &Call, status: u16) {
        let spared = Outcome::done(status).about(call.target());
        log(&mut lock(&self.state), call, &spared, status, false);
    }

    fn fail(&self, call: &Call, status: u16) -> Response<Body> {
        self.answer(call, self.failure(call, status))
    }

    fn throttle(&self, call: &Call) -> Response<Body> {
        // The Blob service does not know 429.
        let status = if self.face == Face::Blob { 503 } else { 429 };
        self.later(call, status, 1, false)
    }

    fn later(&self, call: &Call, status: u16, seconds: u32, as_date: bool) -> Response<Body> {
        self.answer(call, self.wait(self.failure(call, status), seconds, as_date))
    }

    fn refuse(&self, call: &Call, message: &str) -> Response<Body> {
        let outcome = match self.face {
            Face::Entra => Outcome::sts(401, "invalid_client", 7_000_112, message),
            Face::Arm => Outcome::error(403, "AuthorizationFailed", message),
            Face::Graph => Outcome::error(403, "Authorization_RequestDenied", message),
            Face::Blob => Outcome::error(403, "AuthorizationFailure", message),
            Face::Cosmos => Outcome::error(403, "Forbidden", message),
            Face::ServiceBus => Outcome::error(401, "Unauthorized", message),
        };
        self.answer(call, outcome)
    }

    fn date(&self, mut response: Response<Body>) -> Response<Body> {
        let date = HeaderValue::from_str(&self.shown(0)).expect("a date is a legal header value");
        response.headers_mut().insert(header::DATE, date);
        response
    }
}

/// What was answered with 202 is done when its time has come, whether or not anybody asks.
fn go_on(state: Arc<Mutex<State>>, id: String, work: Duration) {
    let finish = move || {
        let mut state = lock(&state);
        let key = state.finish(&id, Utc::now());
        let hook = state.hook.clone();
        drop(state);
        if let (Some(hook), Some(key)) = (hook, key) {
            hook(&key);
        }
    };
    if work.is_zero() {
        return finish();
    }
    tokio::spawn(async move {
        tokio::time::sleep(work).await;
        finish();
    });
}

impl Handler for Server {
    fn is_down(&self) -> bool {
        lock(&self.state).down
    }

    fn handle(self: Arc<Self>, request: Request) -> ReplyFuture {
        let call = Call::read(request, self.face);
        let fault = lock(&self.state).faults.take(&call.operation);
        carry_out(self, call, fault)
    }
}

fn log(state: &mut State, call: &Call, outcome: &Outcome, status: u16, executed: bool) {
    state.requests.push(RequestLine {
        at: Utc::now(),
        operation: call.operation.clone(),
        user_or_target: outcome.target.clone(),
        access_key_id: outcome.key.clone(),
        status,
        executed,
    });
}
