//! One request from the wire to the answer: who signed it, which service it is for, what fault awaits it, what it does.

use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::{HeaderValue, Method, Response, header};
use chrono::{DateTime, Utc};

use super::state::{State, lock};
use super::wire::{Dialect, Outcome};
use super::{iam, s3, sts};
use crate::faults::{Stumbling, carry_out};
use crate::http::{Handler, Reply, ReplyFuture, Request};
use crate::sigv4::{Authorization, Refusal};
use crate::{RequestLine, consumer, form, http};

pub(crate) struct Server {
    state: Arc<Mutex<State>>,
}

/// A call, as far as it can be told before it is believed.
pub(crate) struct Call {
    pub(crate) request: Request,
    pub(crate) dialect: Dialect,
    /// The queue its faults wait in, and its name in the log.
    operation: String,
    authorization: Result<Authorization, Refusal>,
    pub(crate) form: Vec<(String, String)>,
}

/// Who is calling, once the signature is proven.
pub(crate) struct Caller {
    pub(crate) user: String,
}

impl Call {
    fn read(request: Request) -> Self {
        let authorization = Authorization::parse(&request);
        let form = request.form();
        let action = form::value(&form, "Action").unwrap_or_default().to_owned();
        let dialect = match authorization.as_ref().map(|a| a.service.as_str()) {
            Ok("s3") => Dialect::S3,
            Ok("sts") => Dialect::Sts,
            Ok(_) => Dialect::Iam,
            Err(_) if action.is_empty() => Dialect::S3,
            Err(_) if action == "GetCallerIdentity" => Dialect::Sts,
            Err(_) => Dialect::Iam,
        };
        let operation = match (dialect, &request.method) {
            _ if request.header("user-agent") == Some(consumer::USER_AGENT) => "ConsumerGet".to_owned(),
            (Dialect::S3, &Method::GET) => "S3Get".to_owned(),
            (Dialect::S3, &Method::HEAD) => "S3Head".to_owned(),
            (Dialect::S3, method) => format!("S3{method}"),
            _ => action,
        };
        Self { request, dialect, operation, authorization, form }
    }

    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        form::value(&self.form, name)
    }

    fn execute(&self, state: &mut State, now: DateTime<Utc>) -> Outcome {
        let caller = match self.authenticate(state, now) {
            Ok(caller) => caller,
            Err(refusal) => return refusal,
        };
        match self.dialect {
            Dialect::Iam => iam::execute(self, &caller, state, now),
            Dialect::Sts => sts::execute(self, &caller, state),
            Dialect::S3 => s3::execute(self, &caller, state),
        }
    }

    /// Every check in the order AWS makes them: shape, scope, the key's standing, then the signature.
    fn authenticate(&self, state: &mut State, now: DateTime<Utc>) -> Result<Caller, Outcome> {
        let authorization = self.authorization.as_ref().map_err(|refusal| self.refuse(refusal))?;
        self.check_scope(authorization, state)?;
        if self.request.header("x-amz-security-token").is_some() {
            return Err(self.unknown_key("The security token included in the request is invalid."));
        }
        let (lag, id) = (state.options.last_used_lag, &authorization.key_id);
        let Some(key) = state.signing_key(id, now) else {
            return Err(self.unknown_key("The security token included in the request is invalid."));
        };
        authorization.check(&self.request, &key.secret, now).map_err(|refusal| self.refuse(&refusal))?;
        key.used(now, &authorization.service, &authorization.region, lag);
        Ok(Caller { user: key.user.clone() })
    }

    fn check_scope(&self, authorization: &Authorization, state: &State) -> Result<(), Outcome> {
        let region = authorization.region.as_str();
        match authorization.service.as_str() {
            "iam" if region != state.options.iam_region => Err(Outcome::error(
                403,
                "SignatureDoesNotMatch",
                format!("Credential should be scoped to a valid region, not '{region}'. "),
            )),
            "s3" if region != state.options.bucket_region => Err(Outcome::error(
                400,
                "AuthorizationHeaderMalformed",
                format!(
                    "The authorization header is malformed; the region '{region}' is wrong; expecting '{}'",
                    state.options.bucket_region
                ),
            )),
            "iam" | "sts" | "s3" => Ok(()),
            other => Err(Outcome::error(
                403,
                "SignatureDoesNotMatch",
                format!("Credential should be scoped to correct service: 'iam', not '{other}'. "),
            )),
        }
    }

    /// Unknown, deleted, disabled and not yet propagated look the same, as they do at AWS.
    fn unknown_key(&self, message: &str) -> Outcome {
        match self.dialect {
            Dialect::S3 => Outcome::error(
                403,
                "InvalidAccessKeyId",
                "The AWS Access Key Id you provided does not exist in our records.",
            ),
            Dialect::Iam | Dialect::Sts => Outcome::error(403, "InvalidClientTokenId", message),
        }
    }

    fn refuse(&self, refusal: &Refusal) -> Outcome {
        let s3 = self.dialect == Dialect::S3;
        match refusal {
            Refusal::Missing if s3 => Outcome::error(403, "AccessDenied", "Access Denied"),
            Refusal::Missing => {
                Outcome::error(403, "MissingAuthenticationToken", "Request is missing Authentication Token")
            }
            Refusal::Incomplete(what) if s3 => Outcome::error(400, "AuthorizationHeaderMalformed", what.clone()),
            Refusal::Incomplete(what) => Outcome::error(400, "IncompleteSignature", what.clone()),
            Refusal::Stale(_) if s3 => Outcome::error(
                403,
                "RequestTimeTooSkewed",
                "The difference between the request time and the current time is too large.",
            ),
            Refusal::Stale(how) => Outcome::error(403, "SignatureDoesNotMatch", how.clone()),
            Refusal::NotSigned(_) if s3 => {
                Outcome::error(403, "AccessDenied", "There were headers present in the request which were not signed")
            }
            Refusal::NotSigned(name) => {
                Outcome::error(403, "SignatureDoesNotMatch", format!("'{name}' must be a signed header."))
            }
            Refusal::NoPayloadHash => {
                Outcome::error(400, "InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
            }
            Refusal::PayloadHash if s3 => Outcome::error(
                400,
                "XAmzContentSHA256Mismatch",
                "The provided 'x-amz-content-sha256' header does not match what was computed.",
            ),
            Refusal::PayloadHash | Refusal::Mismatch => Outcome::error(
                403,
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided. Check your AWS Secret \
                 Access Key and signing method. Consult the service documentation for details.",
            ),
        }
    }
}

impl Server {
    pub(crate) fn new(state: Arc<Mutex<State>>) -> Self {
        Self { state }
    }

    fn answer(&self, call: &Call, outcome: Outcome) -> Response<Body> {
        self.date(outcome.into_response(call.dialect, call.request.method == Method::HEAD))
    }
}

impl Stumbling for Server {
    type Call = Call;

    fn execute(&self, call: &Call, status: Option<u16>) -> Reply {
        let mut state = lock(&self.state);
        let outcome = call.execute(&mut state, Utc::now());
        log(&mut state, call, &outcome.target, status.unwrap_or(outcome.status), outcome.executed);
        drop(state);
        Reply::Answer(self.answer(call, outcome))
    }

    fn spare(&self, call: &Call, status: u16) {
        let target = call.value("UserName").unwrap_or_default().to_owned();
        log(&mut lock(&self.state), call, &target, status, false);
    }

    fn fail(&self, call: &Call, status: u16) -> Response<Body> {
        let code = failure(call.dialect, status);
        self.answer(call, Outcome::error(status, code, "We encountered an internal error."))
    }

    fn throttle(&self, call: &Call) -> Response<Body> {
        let outcome = match call.dialect {
            Dialect::S3 => Outcome::error(503, "SlowDown", "Please reduce your request rate."),
            Dialect::Iam | Dialect::Sts => Outcome::error(400, "Throttling", "Rate exceeded"),
        };
        self.answer(call, outcome)
    }

    fn refuse(&self, call: &Call, message: &str) -> Response<Body> {
        self.answer(call, Outcome::error(403, "AccessDenied", message))
    }

    fn date(&self, mut response: Response<Body>) -> Response<Body> {
        let skew = lock(&self.state).date_skew;
        let date = http::date(Utc::now() + skew);
        let date = HeaderValue::from_str(&date).expect("a date is a legal header value");
        response.headers_mut().insert(header::DATE, date);
        response
    }
}

impl Handler for Server {
    fn is_down(&self) -> bool {
        lock(&self.state).down
    }

    fn handle(self: Arc<Self>, request: Request) -> ReplyFuture {
        let call = Call::read(request);
        let fault = lock(&self.state).faults.take(&call.operation);
        carry_out(self, call, fault)
    }
}

fn log(state: &mut State, call: &Call, target: &str, status: u16, executed: bool) {
    if call.operation == "ConsumerGet" {
        state.consumer_requests += 1;
        return;
    }
    let access_key_id = call.authorization.as_ref().map(|a| a.key_id.clone()).unwrap_or_default();
    state.requests.push(RequestLine {
        at: Utc::now(),
        operation: call.operation.clone(),
        user_or_target: target.to_owned(),
        access_key_id,
        status,
        executed,
    });
}

fn failure(dialect: Dialect, status: u16) -> &'static str {
    match (dialect, status) {
        (_, 503) => "ServiceUnavailable",
        (Dialect::S3, _) => "InternalError",
        (Dialect::Iam | Dialect::Sts, _) => "ServiceFailure",
    }
}
