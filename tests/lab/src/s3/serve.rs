//! One request from the wire to the answer: which operation it is, what fault awaits it, and what the library makes of it.

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use axum::body::Body;
use axum::http::{Method, Response};
use chrono::Utc;
use s3s::service::S3Service;

use super::{State, lock};
use crate::faults::{Stumbling, carry_out};
use crate::http::{Handler, Reply, ReplyFuture, Request};
use crate::sigv4::{Authorization, Refusal};
use crate::xml::escape;
use crate::{RequestLine, chance, consumer, form, http};

pub(super) struct Server {
    state: Arc<Mutex<State>>,
    library: S3Service,
}

/// A call, as far as it can be told before it is believed.
pub(super) struct Call {
    request: Request,
    /// The queue its faults wait in, and its name in the log.
    operation: String,
    authorization: Result<Authorization, Refusal>,
}

impl Call {
    fn read(request: Request) -> Self {
        let authorization = Authorization::parse(&request);
        let in_bucket = request.path.trim_start_matches('/').split_once('/').is_some_and(|(_, key)| !key.is_empty());
        let lists = form::value(&form::pairs(&request.query), "list-type") == Some("2");
        let operation = match request.method {
            _ if request.header("user-agent") == Some(consumer::USER_AGENT) => "ConsumerGet".to_owned(),
            Method::GET if in_bucket => "GetObject".to_owned(),
            Method::GET if lists => "ListObjectsV2".to_owned(),
            _ => format!("S3{}", request.method),
        };
        Self { request, operation, authorization }
    }

    fn bucket(&self) -> String {
        let path = form::decode(&self.request.path, false);
        path.trim_start_matches('/').split('/').next().unwrap_or_default().to_owned()
    }
}

impl Server {
    pub(super) fn new(state: Arc<Mutex<State>>, library: S3Service) -> Self {
        Self { state, library }
    }

    /// The library's answer. It waits for nothing: the body is here, and so are secrets and buckets.
    fn ask(&self, call: &Call) -> Response<Body> {
        if let Ok(authorization) = &call.authorization
            && authorization.check_signed(&call.request).is_err()
        {
            return error(403, "AccessDenied", "There were headers present in the request which were not signed");
        }
        let path = match call.request.query.as_str() {
            "" => call.request.path.clone(),
            query => format!("{}?{query}", call.request.path),
        };
        let mut request = axum::http::Request::new(s3s::Body::from(call.request.body.clone()));
        *request.method_mut() = call.request.method.clone();
        *request.uri_mut() = path.parse().expect("it was a request's path a moment ago");
        *request.headers_mut() = call.request.headers.clone();
        let answered = pin!(self.library.call(request));
        match answered.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(answer)) => answer.map(Body::new),
            Poll::Ready(Err(_)) => error(500, "InternalError", "We encountered an internal error."),
            Poll::Pending => unreachable!("nothing here waits"),
        }
    }

    fn log(&self, call: &Call, status: u16, executed: bool) {
        let mut state = lock(&self.state);
        if call.operation == "ConsumerGet" {
            state.consumer_requests += 1;
            return;
        }
        state.requests.push(RequestLine {
            at: Utc::now(),
            operation: call.operation.clone(),
            user_or_target: call.bucket(),
            access_key_id: call.authorization.as_ref().map(|a| a.key_id.clone()).unwrap_or_default(),
            status,
            executed,
        });
    }
}

impl Stumbling for Server {
    type Call = Call;

    fn execute(&self, call: &Call, status: Option<u16>) -> Reply {
        let answer = self.ask(call);
        let executed = answer.status().is_success();
        self.log(call, status.unwrap_or(answer.status().as_u16()), executed);
        Reply::Answer(answer)
    }

    fn spare(&self, call: &Call, status: u16) {
        self.log(call, status, false);
    }

    fn fail(&self, _: &Call, status: u16) -> Response<Body> {
        let code = if status == 503 { "ServiceUnavailable" } else { "InternalError" };
        error(status, code, "We encountered an internal error.")
    }

    fn throttle(&self, _: &Call) -> Response<Body> {
        error(503, "SlowDown", "Please reduce your request rate.")
    }

    fn refuse(&self, _: &Call, message: &str) -> Response<Body> {
        error(403, "AccessDenied", message)
    }
}

impl Handler for Server {
    fn is_down(&self) -> bool {
        lock(&self.state).stopped
    }

    fn handle(self: Arc<Self>, request: Request) -> ReplyFuture {
        let call = Call::read(request);
        let fault = lock(&self.state).faults.take(&call.operation);
        carry_out(self, call, fault)
    }
}

/// A refusal of the lab's own, in the library's words.
fn error(status: u16, code: &str, message: &str) -> Response<Body> {
    let xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{}</Message>\
         <RequestId>{}</RequestId></Error>",
        escape(message),
        chance::request_id()
    );
    http::answer(status, "application/xml", xml)
}
