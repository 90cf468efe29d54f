//! The IAM Service Account Credentials API, as far as a service account is impersonated
//! ("projects.serviceAccounts.generateAccessToken", v1).

use axum::http::Method;
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use super::oauth;
use super::state::{State, delta};
use super::wire::{Content, Outcome};
use crate::form;
use crate::http::Request;

/// "Requires one of the following OAuth scopes".
const SCOPES: [&str; 2] = ["https://www.googleapis.com/auth/cloud-platform", "https://www.googleapis.com/auth/iam"];
/// "By default, the maximum allowed value is 1 hour", in seconds.
const LIFETIME_MAX: u64 = 3600;

/// Who is to be impersonated, in `/v1/projects/-/serviceAccounts/EMAIL:generateAccessToken`.
pub(super) fn account(request: &Request) -> Option<String> {
    let rest = request.path.strip_prefix("/v1/projects/-/serviceAccounts/")?;
    let email = rest.strip_suffix(":generateAccessToken").filter(|email| !email.is_empty() && !email.contains('/'))?;
    (request.method == Method::POST && request.query.is_empty()).then(|| form::decode(email, false))
}

pub(super) fn generate(request: &Request, state: &mut State, now: DateTime<Utc>) -> Result<Outcome, Outcome> {
    let email = account(request).unwrap_or_default();
    let error = |status, word, reason, message: &str| {
        Outcome::new(status, Content::Api(word, reason, message.to_owned()), false).about(&email)
    };
    let Some(scopes) = oauth::scopes_of(request, state, now) else {
        let message = "Request had invalid authentication credentials. Expected OAuth 2 access token.";
        return Err(error(401, "UNAUTHENTICATED", Some("ACCESS_TOKEN_TYPE_UNSUPPORTED"), message));
    };
    if !scopes.iter().any(|scope| SCOPES.contains(&scope.as_str())) {
        let message = "Request had insufficient authentication scopes.";
        return Err(error(403, "PERMISSION_DENIED", Some("ACCESS_TOKEN_SCOPE_INSUFFICIENT"), message));
    }
    if email != state.rotator() {
        return Err(error(404, "NOT_FOUND", None, &format!("Not found; Gaia id not found for email {email}")));
    }
    if state.impersonation_denied {
        let message = "Permission 'iam.serviceAccounts.getAccessToken' denied on resource (or it may not exist).";
        return Err(error(403, "PERMISSION_DENIED", Some("IAM_PERMISSION_DENIED"), message));
    }
    let invalid = || error(400, "INVALID_ARGUMENT", None, "Request contains an invalid argument.");
    let is_json = request.header("content-type").is_some_and(|kind| kind.starts_with("application/json"));
    let body: Option<Value> = serde_json::from_slice(&request.body).ok().filter(|_| is_json);
    let body = body.ok_or_else(invalid)?;
    let asked = body["scope"].as_array().filter(|asked| !asked.is_empty() && asked.iter().all(Value::is_string));
    let asked = asked.ok_or_else(invalid)?.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    // "3600s"; an hour where nothing is said.
    let lifetime = body["lifetime"].as_str().unwrap_or("3600s").strip_suffix('s').and_then(|text| text.parse().ok());
    if !lifetime.is_some_and(|seconds: u64| (1..=LIFETIME_MAX).contains(&seconds)) {
        return Err(invalid());
    }
    let ends = (now + delta(state.options.token_lifetime)).to_rfc3339_opts(SecondsFormat::Secs, true);
    let text = state.give_token(asked, now);
    Ok(Outcome::json(json!({ "accessToken": text, "expireTime": ends })).about(&email))
}
