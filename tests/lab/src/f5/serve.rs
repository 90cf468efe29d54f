//! One request from the wire to the answer: what it asks, what fault awaits it, what it does.

use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::{HeaderValue, Response, header};
use chrono::{TimeDelta, Utc};
use serde_json::json;

use super::Words;
use super::api::{Asked, Outcome};
use super::state::{State, lock};
use crate::faults::{Stumbling, carry_out};
use crate::http::{Handler, Reply, ReplyFuture, Request, answer};
use crate::{RequestLine, http};

pub(crate) struct Server {
    pub(crate) state: Arc<Mutex<State>>,
}

pub(crate) struct Call {
    request: Request,
    asked: Asked,
}

impl Server {
    /// So many seconds from now, by the clock we show.
    fn shown(&self, seconds: u32) -> String {
        http::date(Utc::now() + lock(&self.state).date_skew + TimeDelta::seconds(i64::from(seconds)))
    }

    fn answer(&self, outcome: Outcome) -> Response<Body> {
        let words = lock(&self.state).options.words;
        let body = match (outcome.body, words) {
            (Ok(body), _) => body.to_string(),
            // "string format: string", under the media type of JSON.
            (Err(said), Words::Quoted) => json!(said).to_string(),
            (Err(said), Words::Bare) => said,
            (Err(said), Words::Gateway) => json!({ "code": 7, "details": [], "message": said }).to_string(),
        };
        self.date(answer(outcome.status, "application/json", body))
    }

    fn log(&self, call: &Call, name: &str, status: u16, executed: bool) {
        lock(&self.state).requests.push(RequestLine {
            at: Utc::now(),
            operation: call.asked.operation().to_owned(),
            user_or_target: name.to_owned(),
            access_key_id: String::new(),
            status,
            executed,
        });
    }

    /// One more request; whether it is one too many.
    fn is_too_much(&self) -> bool {
        let mut state = lock(&self.state);
        let Some(max) = state.options.requests_per_second else { return false };
        let now = Utc::now();
        state.lately.retain(|at| now - *at < TimeDelta::seconds(1));
        state.lately.push(now);
        state.lately.len() > max
    }
}

impl Stumbling for Server {
    type Call = Call;

    fn execute(&self, call: &Call, status: Option<u16>) -> Reply {
        if self.is_too_much() {
            self.log(call, "", 429, false);
            return Reply::Answer(self.throttle(call));
        }
        let outcome = call.asked.execute(&call.request, &mut lock(&self.state), Utc::now());
        self.log(call, &outcome.name, status.unwrap_or(outcome.status), outcome.executed);
        Reply::Answer(self.answer(outcome))
    }

    fn spare(&self, call: &Call, status: u16) {
        self.log(call, "", status, false);
    }

    fn fail(&self, _call: &Call, status: u16) -> Response<Body> {
        let said = match status {
            401 => "invalid or expired credentials",
            403 => "access denied by role",
            404 => "service credential not found",
            409 => "operation in conflict with another",
            429 => "too many requests",
            503 => "service unavailable",
            504 => "upstream timed out",
            _ => "internal error",
        };
        self.answer(Outcome::refused(status, said))
    }

    fn throttle(&self, call: &Call) -> Response<Body> {
        self.later(call, 429, 1, false)
    }

    fn later(&self, call: &Call, status: u16, seconds: u32, as_date: bool) -> Response<Body> {
        let wait = if as_date { self.shown(seconds) } else { seconds.to_string() };
        let mut response = self.fail(call, status);
        let wait = HeaderValue::from_str(&wait).expect("a number or a date is a legal header value");
        response.headers_mut().insert(header::RETRY_AFTER, wait);
        response
    }

    fn refuse(&self, _call: &Call, message: &str) -> Response<Body> {
        self.answer(Outcome::refused(403, message))
    }

    fn date(&self, mut response: Response<Body>) -> Response<Body> {
        let date = HeaderValue::from_str(&self.shown(0)).expect("a date is a legal header value");
        response.headers_mut().insert(header::DATE, date);
        response
    }
}

impl Handler for Server {
    fn is_down(&self) -> bool {
        lock(&self.state).down
    }

    fn handle(self: Arc<Self>, request: Request) -> ReplyFuture {
        let asked = Asked::read(&request);
        let fault = lock(&self.state).faults.take(asked.operation());
        carry_out(self, Call { request, asked }, fault)
    }
}
