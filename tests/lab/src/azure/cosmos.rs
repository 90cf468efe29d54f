//! The data plane of Cosmos DB, as far as it proves a key: the list of databases, which is a read and changes nothing.
//!
//! Real accounts each have a host of their own. Here all of them share a port and each has a path of its own, as at Azurite: the
//! signature covers the resource and never the path, so that a client which joins `documentEndpoint` and `dbs` needs to know nothing
//! of it, and one that asks the wrong account is told so.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Method, Response};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

use super::AccountKind;
use super::state::State;
use super::wire::{Content, Outcome, segments};
use crate::http::{Request, answer};
use crate::shared_key::sign;
use crate::{chance, form, http};

/// Versions of the API that the documents name, not all there ever were.
const VERSIONS: [&str; 6] = ["2015-12-16", "2016-07-11", "2017-02-22", "2018-06-18", "2018-12-31", "2020-07-15"];

/// How long a signature is good, from its date: the refusals of many bug reports say fifteen minutes (vscode-cosmosdb issue 842).
const VALID_MINUTES: i64 = 15;

/// How far the date may lie ahead. Almost seven minutes were refused there; where it begins is not documented, and this is our choice.
const AHEAD_MINUTES: i64 = 5;

/// The list of the databases of an account.
#[derive(Clone)]
pub(crate) struct Asked {
    account: String,
}

impl Asked {
    pub(crate) fn read(request: &Request) -> Option<Self> {
        match segments(&request.path).as_slice() {
            [account, dbs] if dbs == "dbs" && request.method == Method::GET => Some(Self { account: account.clone() }),
            _ => None,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.account
    }

    pub(crate) fn execute(&self, request: &Request, state: &State, now: DateTime<Utc>) -> Outcome {
        self.serve(request, state, now).unwrap_or_else(|refusal| refusal).about(&self.account)
    }

    /// What the request is, then whether it is in time, then who signed it. The documents do not give the order; that an account
    /// which takes no keys says so before it looks at one is our choice.
    fn serve(&self, request: &Request, state: &State, now: DateTime<Utc>) -> Result<Outcome, Outcome> {
        let mut accounts = state.accounts.values().filter(|account| account.kind == AccountKind::Cosmos);
        // In truth nobody would answer: there would be no such host.
        let Some(account) = accounts.find(|account| account.name.eq_ignore_ascii_case(&self.account)) else {
            return Err(Outcome::error(404, "NotFound", "There is no such account."));
        };
        let unauthorized = |message: &str| Outcome::error(401, "Unauthorized", message);
        let Some(header) = request.header("authorization") else {
            let message = "Required Header authorization is missing. Ensure a valid Authorization token is passed.";
            return Err(unauthorized(message));
        };
        if !request.header("x-ms-version").is_some_and(|version| VERSIONS.contains(&version)) {
            let message = "Invalid API version. Ensure a valid x-ms-version header value is passed. Please update to the latest \
                           version of Azure Cosmos DB SDK.";
            return Err(Outcome::error(400, "BadRequest", message));
        }
        if account.keys_refused {
            let message = "Local Authorization is disabled. Use an AAD token to authorize all requests.";
            return Err(unauthorized(message).header("x-ms-substatus", 5202));
        }
        let Some(claimed) = signature_of(header) else {
            let message = "Authorization header doesn't confirm to the required format. Please verify and try again.";
            return Err(unauthorized(message));
        };
        let stamp = request.header("x-ms-date").unwrap_or_default();
        let date = DateTime::parse_from_rfc2822(stamp).ok().filter(|_| stamp.to_ascii_lowercase().ends_with(" gmt"));
        let Some(date) = date.map(|date| date.to_utc()) else {
            let message = "Authorization token mandates Date headers. Please pass in RFC 1123 style date format.";
            return Err(unauthorized(message));
        };
        check_date(date, now)?;
        // The list of databases belongs to nothing: its link is empty.
        let payload = payload("GET", "dbs", "", stamp);
        let lag = state.options.key_lag;
        // Any of the four: a key that may only read may read this.
        let signed = |key: &str| sign(key, &payload).is_some_and(|right| right == claimed);
        match account.taken(now, lag).find(|(_, key)| signed(key)) {
            Some((slot, _)) => {
                let list = json!({"_rid": "", "Databases": [], "_count": 0});
                Ok(Outcome::json(list).header("x-ms-request-charge", 2).header("x-ms-item-count", 0).of_key(slot))
            }
            None => {
                let message = format!(
                    "The input authorization token can't serve the request. The wrong key is being used or the expected payload is \
                     not built as per the protocol. For more info: https://aka.ms/cosmosdb-tsg-unauthorized. Server used the \
                     following payload to sign: '{}'",
                    payload.replace('\n', "\\n")
                );
                Err(unauthorized(&message))
            }
        }
    }
}

/// `type=master&ver=1.0&sig=…`, escaped. That what is not escaped is refused is our choice: the document wants it so.
fn signature_of(header: &str) -> Option<String> {
    if header.contains('&') {
        return None;
    }
    let token = form::decode(header, false);
    let parts: Vec<(&str, &str)> = token.split('&').map(|part| part.split_once('=')).collect::<Option<_>>()?;
    match parts.as_slice() {
        [("type", "master"), ("ver", "1.0"), ("sig", signature)] => Some((*signature).to_owned()),
        _ => None,
    }
}

fn check_date(date: DateTime<Utc>, now: DateTime<Utc>) -> Result<(), Outcome> {
    let end = date + TimeDelta::minutes(VALID_MINUTES);
    if date <= now + TimeDelta::minutes(AHEAD_MINUTES) && now <= end {
        return Ok(());
    }
    let show = http::date;
    let message = format!(
        "The authorization token is not valid at the current time. Please create another token and retry (token start time: {}, token \
         expiry time: {}, current server time: {}).",
        show(date),
        show(end),
        show(now)
    );
    Err(Outcome::error(403, "Forbidden", message))
}

/// What is signed ("Access control in the Azure Cosmos DB SQL API"). The link keeps its case; the last line is for a `Date` header,
/// which is nobody's but `x-ms-date`'s.
fn payload(verb: &str, kind: &str, link: &str, stamp: &str) -> String {
    let lower = |text: &str| text.to_ascii_lowercase();
    format!("{}\n{}\n{link}\n{}\n\n", lower(verb), lower(kind), lower(stamp))
}

/// A status that has no reason in the request, in its words.
pub(crate) fn failure(status: u16) -> Outcome {
    match status {
        429 => {
            let message = "The request did not complete due to a high rate of metadata requests. Please retry this request later. \
                           Learn more: http://aka.ms/cosmosdb-error-429";
            Outcome::error(429, "429", message).header("x-ms-substatus", 3200)
        }
        403 => {
            let message = "Request originated from IP 127.0.0.1 through public internet. This is blocked by your Cosmos DB account \
                           firewall settings. More info: https://aka.ms/cosmosdb-tsg-forbidden";
            Outcome::error(403, "Forbidden", message)
        }
        503 => {
            Outcome::error(503, "ServiceUnavailable", "Service is currently unavailable, please retry after a while.")
        }
        _ => {
            Outcome::error(status, "InternalServerError", "Unknown server error occurred when processing this request.")
        }
    }
}

/// JSON without an envelope, and the id of the activity in the message too (azure-sdk-for-rust issue 831).
pub(crate) fn into_response(outcome: Outcome, asked: &Request) -> Response<Body> {
    let client = asked.header("x-ms-activity-id").filter(|id| uuid::Uuid::parse_str(id).is_ok());
    let id = client.map_or_else(chance::request_id, str::to_owned);
    let body = match *outcome.content {
        Content::Json(value) => value.to_string(),
        Content::Error(code, message, _) => {
            let message = format!("{message}\r\nActivityId: {id}, Microsoft.Azure.Documents.Common/2.14.0");
            json!({"code": code, "message": message}).to_string()
        }
        // Nothing else is answered here.
        _ => String::new(),
    };
    let mut response = answer(outcome.status, "application/json", body);
    let own = [("x-ms-activity-id", id), ("x-ms-gatewayversion", "version=2.14.0".to_owned())];
    for (name, text) in own.into_iter().chain(outcome.headers) {
        let value = HeaderValue::from_str(&text).expect("our own headers are legal");
        response.headers_mut().insert(HeaderName::from_static(name), value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worked example of the page.
    #[test]
    fn the_example_of_the_document_signs_as_printed() {
        let key = "dsZQi3KtZmCv1ljt3VNWNm7sQUF1y5rJfC6kv5JiwvW0EndXdDku/dkKBp8/ufDToSxLzR4y+O/0H/t4bQtVNw==";
        let payload = payload("GET", "dbs", "dbs/ToDoList", "Thu, 27 Apr 2017 00:51:12 GMT");
        assert_eq!(payload, "get\ndbs\ndbs/ToDoList\nthu, 27 apr 2017 00:51:12 gmt\n\n");
        assert_eq!(sign(key, &payload).as_deref(), Some("c09PEVJrgp2uQRkr934kFbTqhByc7TVr3OHyqlu+c+c="));
        let printed = "type%3dmaster%26ver%3d1.0%26sig%3dc09PEVJrgp2uQRkr934kFbTqhByc7TVr3OHyqlu%2bc%2bc%3d";
        assert_eq!(signature_of(printed).as_deref(), Some("c09PEVJrgp2uQRkr934kFbTqhByc7TVr3OHyqlu+c+c="));
    }

    /// A list, whose link is empty, as a client of somebody else's has it in its tests.
    #[test]
    fn a_list_is_signed_with_an_empty_link() {
        let key = "SB1mrDcsPfPnHN2lCLYLTXDJMEqXsjvWqS2BXbvBbro94dxVHem3gyXKLPruSeMVE7ZKf36EGC5ArCkJqJaoOg==";
        let payload = payload("GET", "dbs", "", "Wed, 16 May 2018 19:47:46 GMT");
        assert_eq!(sign(key, &payload).as_deref(), Some("cK0fCpDW9YvCbmmrIVxaGL/q9o/lFlPc8GdCphvow3c="));
    }
}
