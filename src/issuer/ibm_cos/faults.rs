//! What an answer of an accesser means for what may be done next.
//!
//! Pure: an answer goes in, a [`Fault`] comes out. IBM's pages list the statuses of each operation ("Common response parameters", table
//! 2) and say nothing of the bodies that come with them. So a status is believed where the body is JSON or none at all, and its words are
//! repeated where they stand where others put them; a page is somebody else's, in between, and no answer. A refused login (401) is the
//! client's to judge, since that has to be remembered.

use serde::Deserialize;

use crate::model::Reason;
use crate::net::client::Answer;
use crate::net::redact::Redactor;
use crate::ports::Fault;

/// "Roles and permissions" names a User and an Admin form of both.
pub(super) const LISTING: &str = "Key Listing Permission";
/// To create, change and delete.
pub(super) const MANAGEMENT: &str = "Key Management Permission";

/// What was tried, for the message.
#[derive(Clone, Debug)]
pub(super) struct Call {
    what: String,
    /// The permission it needs.
    needs: &'static str,
}

impl Call {
    /// `what` in words, verb first: `list the access keys of user x of storage account y`.
    pub(super) fn new(what: impl Into<String>, needs: &'static str) -> Self {
        Self { what: what.into(), needs }
    }

    /// What was tried.
    pub(super) fn what(&self) -> &str {
        &self.what
    }

    /// What was tried, and what came back.
    pub(super) fn text(&self, came_back: impl std::fmt::Display) -> String {
        format!("{}: {came_back}", self.what)
    }
}

/// The bodies of refusals that other services of this family have: Keystone's `error.message`, Swift's and others' flat ones.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Refusal {
    error: Option<Said>,
    message: Option<String>,
    description: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Said {
    Text(String),
    Object {
        #[serde(default)]
        message: Option<String>,
        #[serde(default)]
        title: Option<String>,
    },
}

/// What a refusal says for itself, in one line; `None` where the body is nothing that an accesser would send, a page say.
fn told(answer: &Answer, redactor: &Redactor) -> Option<String> {
    if answer.body.trim_ascii().is_empty() {
        return Some(String::new());
    }
    let is_object = answer.body.trim_ascii_start().starts_with(b"{");
    if !is_object || serde_json::from_slice::<serde::de::IgnoredAny>(&answer.body).is_err() {
        return None;
    }
    // An object with none of these members, or with others of their names, says nothing that we could repeat.
    let refusal: Refusal = serde_json::from_slice(&answer.body).unwrap_or_default();
    let said = match refusal.error {
        Some(Said::Text(text)) => Some(text),
        Some(Said::Object { message, title }) => message.or(title),
        None => None,
    };
    let said = said.or(refusal.message).or(refusal.description).unwrap_or_default();
    Some(redactor.clean(said.lines().next().unwrap_or_default()))
}

/// An answer of the accesser: itself if it is a success, else what it means. `redactor` knows what was sent, which may come back.
pub(super) fn judge(call: &Call, answer: Answer, redactor: &Redactor) -> Result<Answer, Fault> {
    match (200..300).contains(&answer.status) {
        true => Ok(answer),
        false => Err(refusal(call, &answer, redactor)),
    }
}

fn refusal(call: &Call, answer: &Answer, redactor: &Redactor) -> Fault {
    let status = answer.status;
    let Some(said) = told(answer, redactor) else {
        let why = call.text(format_args!("status {status} and a body that is no answer of an accesser"));
        return answer.unread(why);
    };
    let said = if said.is_empty() { String::new() } else { format!(": {said}") };
    let refused = |reason: Reason, meaning: &str| Fault::Refused {
        reason,
        why: call.text(format_args!("status {status}{said} ({meaning})")),
    };
    match status {
        400 => refused(Reason::Refused, "the accesser takes the request for malformed"),
        403 => refused(
            Reason::MissingRight,
            &format!("the rotator needs {}, and Impersonate where the storage account is not its own", call.needs),
        ),
        404 => refused(Reason::NotFound, "there is no such user, storage account or key"),
        405 => refused(
            Reason::MissingRight,
            &format!("the rotator has no access to the storage account; with it, it needs {}", call.needs),
        ),
        409 => refused(Reason::Quota, "the user has as many keys as may be, or the key is there already"),
        // No page lists it; whatever stands before an accesser says it before anything is done.
        429 => Fault::Retry {
            after: answer.retry_after,
            why: call.text(format_args!("status 429{said} (too many requests)")),
        },
        503 => {
            Fault::Unknown(call.text(format_args!("status 503{said} (the credential API is not available just now)")))
        }
        // 408 says that somebody gave up waiting, and not what became of it.
        400..500 if status != 408 => refused(Reason::Refused, "which no page of IBM's lists for this request"),
        _ => Fault::Unknown(call.text(format_args!("status {status}{said}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use zeroize::Zeroizing;

    use super::*;
    use crate::model::Secret;

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status,
            host: "cos.example.com:8338".to_owned(),
            location: None,
            retry_after: Some(Duration::from_secs(7)),
            date: None,
            body: Zeroizing::new(body.as_bytes().to_vec()),
        }
    }

    fn fault(status: u16, body: &str) -> Fault {
        let call = Call::new("delete access key 181920", MANAGEMENT);
        let redactor = Redactor::new([&Secret::new("hush-hush".to_owned())]);
        judge(&call, answer(status, body), &redactor).expect_err("no success")
    }

    #[test]
    fn each_documented_status_is_told_with_what_it_means() {
        for (status, reason, text) in [
            (400, Reason::Refused, "status 400 (the accesser takes the request for malformed)"),
            (
                403,
                Reason::MissingRight,
                "status 403 (the rotator needs Key Management Permission, and Impersonate where the storage account is not its own)",
            ),
            (404, Reason::NotFound, "status 404 (there is no such user, storage account or key)"),
            (
                405,
                Reason::MissingRight,
                "status 405 (the rotator has no access to the storage account; with it, it needs Key Management Permission)",
            ),
            (409, Reason::Quota, "status 409 (the user has as many keys as may be, or the key is there already)"),
        ] {
            let why = format!("delete access key 181920: {text}");
            assert_eq!(fault(status, ""), Fault::Refused { reason, why });
        }
        assert!(matches!(fault(503, "{}"), Fault::Unknown(why) if why.contains("not available just now")));
        assert!(matches!(fault(429, ""), Fault::Retry { after, .. } if after == Some(Duration::from_secs(7))));
        assert!(matches!(fault(418, ""), Fault::Refused { reason: Reason::Refused, .. }));
        for status in [301, 408, 500, 502, 504] {
            assert!(matches!(fault(status, ""), Fault::Unknown(_)), "{status}");
        }
    }

    #[test]
    fn a_page_is_nobodys_refusal() {
        for body in ["<html>", "no JSON", "[]", "{\"error\"", "\"text\""] {
            for status in [400, 403, 404, 409, 503] {
                let fault = fault(status, body);
                let why = "a body that is no answer of an accesser";
                assert!(matches!(&fault, Fault::Unknown(said) if said.contains(why)), "{status} {body}: {fault:?}");
            }
        }
    }

    #[test]
    fn what_is_said_is_repeated_in_one_line_and_without_what_was_sent() {
        for body in [
            r#"{"error":{"code":403,"title":"Forbidden","message":"not with hush-hush\nTrace"}}"#,
            r#"{"error":"not with hush-hush"}"#,
            r#"{"message":"not with hush-hush"}"#,
            r#"{"code":1,"description":"not with hush-hush"}"#,
        ] {
            let why = fault(403, body).why().to_owned();
            assert!(why.contains("status 403: not with *** (the rotator needs"), "{why}");
        }
        // A shape of its own is believed, and not repeated.
        assert!(fault(403, r#"{"error":7,"message":["x"]}"#).why().contains("status 403 (the rotator"));
    }
}
