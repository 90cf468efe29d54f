//! Whether a key opens Cosmos DB or Service Bus: the harmless request of each that tells a wrong key from a missing right.
//!
//! Builds requests and judges answers. Both are reads, and both are the documented ones: listing databases (a master key's
//! signature), and listing queues (a token signed for the namespace).

use chrono::TimeDelta;

use super::super::azure::blob::Expect;
use super::super::azure::faults::Call;
use crate::model::{Reason, Secret, Timestamp};
use crate::net::client::{Answer, Client, Request};
use crate::net::redact::Redactor;
use crate::net::xml::element;
use crate::net::{form, shared_key};
use crate::ports::{Fault, Probe};

/// The newest version that Cosmos DB's REST reference names.
const COSMOS_VERSION: &str = "2018-12-31";
const BUS_VERSION: &str = "2017-04";
/// How long the token of a probe is good.
const TOKEN_LIFETIME: TimeDelta = TimeDelta::minutes(5);

/// Lists the databases of a Cosmos DB account ("List Databases" of its REST reference).
pub(super) async fn look_into_cosmos(
    http: &Client,
    endpoint: &str,
    account: &str,
    key: &Secret,
    now: Timestamp,
) -> Result<Probe, Fault> {
    let call = Call::new(format!("list the databases of Cosmos DB account {account}"));
    let date = now.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let Ok(authorization) = sign_for_cosmos(key, "", &date) else {
        return Ok(Probe::Wrong(call.text("the key is no base64")));
    };
    let request = Request::get(format!("{}/dbs", endpoint.trim_end_matches('/')))
        .header("authorization", authorization)
        .header("x-ms-date", date)
        .header("x-ms-version", COSMOS_VERSION);
    judge_cosmos(&call, &http.send(call.what(), request).await?)
}

/// "Access control on Cosmos DB resources": the verb and the resource's type in lower case, its link as it is (the account's own is
/// empty), the date in lower case, an empty line.
fn sign_for_cosmos(key: &Secret, link: &str, date: &str) -> Result<String, &'static str> {
    let signature = shared_key::hmac_base64(key, &format!("get\ndbs\n{link}\n{}\n\n", date.to_lowercase()))?;
    Ok(form::component(&format!("type=master&ver=1.0&sig={signature}")).to_string())
}

fn judge_cosmos(call: &Call, answer: &Answer) -> Result<Probe, Fault> {
    #[derive(serde::Deserialize)]
    struct Body {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
        #[serde(rename = "Databases")]
        databases: Option<serde::de::IgnoredAny>,
    }
    let body: Option<Body> = serde_json::from_slice(&answer.body).ok();
    // JSON of somebody in between says nothing of the key.
    let Some(body) = body.filter(|body| answer.status == 200 || !body.code.is_empty()) else {
        let why = call.text(format_args!("status {} and a body that is no answer of Cosmos DB", answer.status));
        return Err(Fault::Unknown(why));
    };
    if answer.status == 200 {
        return match body.databases {
            Some(_) => Ok(Probe::Works),
            None => Err(Fault::Unknown(call.text("status 200 and a body that lists no databases"))),
        };
    }
    let text = call.text(said(answer.status, &body.code, &body.message));
    match answer.status {
        // Timed out, moved to another replica, to be tried again: "HTTP status codes for Azure Cosmos DB".
        408 | 410 | 429 | 449 => Err(Fault::Retry { after: answer.retry_after, why: text }),
        500.. => Err(Fault::Unknown(text)),
        // Seen in data-api-builder's issue 1939.
        401 if body.message.contains("Local Authorization is disabled") => {
            Ok(Probe::NotAllowed(format!("{text}; the account's disableLocalAuth is true, so its keys open nothing")))
        }
        // A key that was just made is refused so too, for seconds or longer: Microsoft's page on "Unauthorized".
        401 => Ok(Probe::NotYet(text)),
        403 if body.message.contains("not valid at the current time") => Err(Fault::Retry {
            after: None,
            why: format!("{text}; the time of the request was refused: check that time is synchronised here"),
        }),
        // The firewall; whether it looks at the key first, nobody says.
        403 => Ok(Probe::NotAllowed(text)),
        _ => Err(Fault::Refused { reason: Reason::Refused, why: text }),
    }
}

/// Lists one queue of a Service Bus namespace, with a token of the policy `rule`.
pub(super) async fn look_into_bus(
    http: &Client,
    endpoint: &str,
    rule: &str,
    key: &Secret,
    expect: Expect,
    now: Timestamp,
) -> Result<Probe, Fault> {
    let endpoint = endpoint.trim_end_matches('/');
    let call = Call::new(format!("list one queue at {endpoint} with a key of policy {rule}"));
    let request = Request::get(format!("{endpoint}/$Resources/Queues"))
        .query("api-version", BUS_VERSION)
        .query("$skip", "0")
        .query("$top", "1")
        .header("authorization", sign_for_bus(&format!("{endpoint}/"), rule, key, now + TOKEN_LIFETIME));
    judge_bus(&call, &http.send(call.what(), request).await?, expect)
}

/// "Service Bus access control with Shared Access Signatures": the escaped address and the end, a line each, under the key's own text.
fn sign_for_bus(address: &str, rule: &str, key: &Secret, until: Timestamp) -> String {
    let (address, until) = (form::component(address), until.timestamp());
    let signature = shared_key::hmac_of_text(key, &format!("{}\n{until}", address.as_str()));
    let (signature, rule) = (form::component(&signature), form::component(rule));
    format!("SharedAccessSignature sr={}&sig={}&se={until}&skn={}", address.as_str(), signature.as_str(), rule.as_str())
}

/// All of its refusals are 401; the words tell them apart.
fn judge_bus(call: &Call, answer: &Answer, expect: Expect) -> Result<Probe, Fault> {
    let body = String::from_utf8_lossy(&answer.body);
    if answer.status == 200 {
        return match body.contains("<feed") {
            true => Ok(Probe::Works),
            false => Err(Fault::Unknown(call.text("status 200 and a body that is no feed"))),
        };
    }
    let Some(detail) = element(&body, "Detail") else {
        let why = call.text(format_args!("status {} and a body that is no answer of Service Bus", answer.status));
        return match answer.status {
            429 => Err(Fault::Retry { after: answer.retry_after, why }),
            _ => Err(Fault::Unknown(why)),
        };
    };
    let text = call.text(said(answer.status, "", detail));
    match answer.status {
        429 => Err(Fault::Retry { after: answer.retry_after, why: text }),
        500.. => Err(Fault::Unknown(text)),
        // Seen for keys that may only send or listen: the signature was good.
        401 if detail.contains("claims required") => match expect {
            Expect::Authenticates => Ok(Probe::Works),
            Expect::Read => Ok(Probe::NotAllowed(format!(
                "{text}; the policy has no Manage right: probe = {{ expect = \"authenticates\" }} asks for the key alone"
            ))),
        },
        401 if detail.contains("LocalAuthDisabled") => {
            Ok(Probe::NotAllowed(format!("{text}; the namespace's disableLocalAuth is true, so its keys open nothing")))
        }
        401 if detail.contains("ExpiredToken") => Err(Fault::Retry {
            after: None,
            why: format!("{text}; the token was made just now: check that time is synchronised here"),
        }),
        401 => Ok(Probe::NotYet(text)),
        _ => Err(Fault::Refused { reason: Reason::Refused, why: text }),
    }
}

/// `Unauthorized (401): the first line`.
fn said(status: u16, code: &str, message: &str) -> String {
    let redactor = Redactor::default();
    let line = redactor.clean(message.lines().next().unwrap_or_default());
    match code {
        "" => format!("{line} ({status})"),
        code => format!("{} ({status}): {line}", redactor.clean(code)),
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        let body = Zeroizing::new(body.as_bytes().to_vec());
        Answer { status, host: String::new(), location: None, retry_after: None, date: None, body }
    }

    /// The example of the page that says how to sign; its key is no secret.
    #[test]
    fn a_cosmos_signature_is_the_documents() {
        let key = "dsZQi3KtZmCv1ljt3VNWNm7sQUF1y5rJfC6kv5JiwvW0EndXdDku/dkKBp8/ufDToSxLzR4y+O/0H/t4bQtVNw==";
        let signed = |link: &str| sign_for_cosmos(&Secret::new(key.to_owned()), link, "Thu, 27 Apr 2017 00:51:12 GMT");
        assert_eq!(
            signed("dbs/ToDoList").expect("signs"),
            "type%3Dmaster%26ver%3D1.0%26sig%3Dc09PEVJrgp2uQRkr934kFbTqhByc7TVr3OHyqlu%2Bc%2Bc%3D"
        );
        assert_ne!(signed(""), signed("dbs/ToDoList"));
        assert!(sign_for_cosmos(&Secret::new("no base64!".into()), "", "x").is_err());
    }

    #[test]
    fn cosmos_tells_a_key_from_what_is_not_one() {
        let judged = |status, body: &str| judge_cosmos(&Call::new("look"), &answer(status, body));
        let error = |code: &str, message: &str| format!(r#"{{"code":"{code}","message":"{message}"}}"#);
        assert_eq!(judged(200, r#"{"_rid":"","Databases":[],"_count":0}"#), Ok(Probe::Works));
        assert!(matches!(judged(200, "{}"), Err(Fault::Unknown(_))));
        let wrong = error("Unauthorized", "The input authorization token can't serve the request.");
        assert!(matches!(judged(401, &wrong), Ok(Probe::NotYet(_))));
        let local = error("Unauthorized", "Local Authorization is disabled. Use an AAD token.");
        assert!(matches!(judged(401, &local), Ok(Probe::NotAllowed(why)) if why.contains("disableLocalAuth is true")));
        let clock = error("Forbidden", "The authorization token is not valid at the current time.");
        assert!(matches!(judged(403, &clock), Err(Fault::Retry { .. })));
        let wall = error("Forbidden", "Request originated from IP 1.2.3.4 through public internet.");
        assert!(matches!(judged(403, &wall), Ok(Probe::NotAllowed(_))));
        assert!(matches!(judged(429, &wall), Err(Fault::Retry { .. })));
        assert!(matches!(judged(503, &wall), Err(Fault::Unknown(_))));
        for in_between in ["<html>", "{}", r#"{"message":"the proxy says no"}"#] {
            assert!(matches!(judged(401, in_between), Err(Fault::Unknown(_))), "{in_between}");
            assert!(matches!(judged(403, in_between), Err(Fault::Unknown(_))), "{in_between}");
        }
    }

    #[test]
    fn service_bus_tells_a_key_from_a_right() {
        let judged = |expect, status, detail: &str| {
            let body = format!("<Error><Code>{status}</Code><Detail>{detail}</Detail></Error>");
            judge_bus(&Call::new("look"), &answer(status, &body), expect)
        };
        let feed = answer(200, "<feed xmlns=\"http://www.w3.org/2005/Atom\"></feed>");
        assert_eq!(judge_bus(&Call::new("look"), &feed, Expect::Read), Ok(Probe::Works));
        let claims = "Manage,EntityRead claims required for this operation. TrackingId:1";
        assert!(matches!(judged(Expect::Read, 401, claims), Ok(Probe::NotAllowed(_))));
        assert_eq!(judged(Expect::Authenticates, 401, claims), Ok(Probe::Works));
        let wrong = "InvalidSignature: The token has an invalid signature.";
        assert!(matches!(judged(Expect::Authenticates, 401, wrong), Ok(Probe::NotYet(_))));
        let local = "LocalAuthDisabled: Authorization failed because SAS authentication has been disabled.";
        assert!(matches!(judged(Expect::Authenticates, 401, local), Ok(Probe::NotAllowed(_))));
        assert!(matches!(judged(Expect::Read, 401, "ExpiredToken: The token is expired."), Err(Fault::Retry { .. })));
        let nobody = answer(401, "<html>");
        assert!(matches!(judge_bus(&Call::new("look"), &nobody, Expect::Read), Err(Fault::Unknown(_))));
    }

    #[test]
    fn a_bus_token_is_the_documents() {
        let key = Secret::new("c2VjcmV0".to_owned());
        let until = chrono::DateTime::from_timestamp(1_800_000_000, 0).expect("a time");
        // `printf 'https%%3A%%2F%%2Fgisbus.servicebus.windows.net%%2F\n1800000000' | openssl dgst -sha256 -hmac c2VjcmV0 -binary | base64`
        assert_eq!(
            sign_for_bus("https://gisbus.servicebus.windows.net/", "arcgis", &key, until),
            "SharedAccessSignature sr=https%3A%2F%2Fgisbus.servicebus.windows.net%2F&sig=7PY6ge9hhuS97iATtdi15PombagCsvoh%2BhZ97U1FcTk%3D&se=1800000000&skn=arcgis"
        );
    }
}
