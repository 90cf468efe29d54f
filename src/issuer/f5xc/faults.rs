//! What an answer of the console means for what may be done next.
//!
//! Each documented code has a bare string for a body (the vendor's page on "Replace service credentials": 401, 403, 404, 409, 429,
//! 500, 503, 504, "string format: string"). What the gateway in front of it words itself is an object with `code` and `message`, as
//! gRPC gateways have it (inferred from the protobuf sources of Terraform's provider). Anything else is somebody else's.
//!
//! Pure: an answer goes in, a [`Fault`] comes out. What it says of a probed credential is the kind's to tell.

use serde::Deserialize;
use serde_json::Value;

use crate::model::Reason;
use crate::net::client::Answer;
use crate::net::redact::Redactor;
use crate::ports::Fault;

/// What the rotator must have. The console words a role's rights in its own pages; which API group it takes is not documented.
pub(super) const RIGHT: &str = "a role in namespace system that may manage service credentials";

/// What was tried, for the message.
#[derive(Clone, Debug)]
pub(super) struct Call(String);

impl Call {
    /// In words, verb first: `list the service credentials of acme.console.ves.volterra.io`.
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }

    /// What was tried.
    pub(super) fn what(&self) -> &str {
        &self.0
    }

    /// What was tried, and what came back.
    pub(super) fn text(&self, came_back: impl std::fmt::Display) -> String {
        format!("{}: {came_back}", self.0)
    }
}

/// What a refusal says, where it is one of the console's. `redactor` knows what was sent.
pub(super) fn said(answer: &Answer, redactor: &Redactor) -> Option<String> {
    /// As a gRPC gateway words it.
    #[derive(Deserialize)]
    struct Status {
        #[serde(rename = "code")]
        _code: i64,
        message: String,
    }
    let text = match serde_json::from_slice::<Value>(&answer.body) {
        Ok(Value::String(text)) => text,
        Ok(value) => serde_json::from_value::<Status>(value).ok()?.message,
        // A bare string, barer still.
        Err(_) => std::str::from_utf8(&answer.body).ok().filter(|text| is_line(text))?.to_owned(),
    };
    let line = text.lines().next().unwrap_or_default().trim();
    (!line.is_empty()).then(|| format!("{} ({})", redactor.clean(line), answer.status))
}

/// One line of words: no page, and no JSON that was cut off.
fn is_line(text: &str) -> bool {
    let text = text.trim();
    text.len() <= 1024 && !text.starts_with(['<', '{', '[', '"']) && !text.contains(char::is_control)
}

/// An answer of the console: itself if it is a 200, else what it means. `login` names rekeyd's own login, for the message.
pub(super) fn judge(call: &Call, answer: Answer, redactor: &Redactor, login: &str) -> Result<Answer, Fault> {
    if answer.status == 200 {
        return Ok(answer);
    }
    let Some(said) = said(&answer, redactor) else {
        let why = format!("status {} and a body that is no answer of the console", answer.status);
        return Err(answer.unread(call.text(why)));
    };
    let text = call.text(said);
    let refused = |reason: Reason, help: &str| Fault::Refused { reason, why: format!("{text}{help}") };
    Err(match answer.status {
        401 => refused(Reason::LoginRefused, &format!("; this is rekeyd's own login, {login}")),
        403 => refused(Reason::MissingRight, &format!("; the rotator needs {RIGHT}")),
        404 => refused(Reason::NotFound, ""),
        // "Conflicting with current value": something else is being done just now.
        409 | 429 => Fault::Retry { after: answer.retry_after, why: text },
        // A timeout says that somebody gave up waiting, and not what became of it.
        408 | 499 | 500.. => Fault::Unknown(text),
        400..=498 => refused(Reason::Refused, ""),
        _ => Fault::Unknown(text),
    })
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
            host: "acme.console.ves.volterra.io".to_owned(),
            location: None,
            retry_after: Some(Duration::from_secs(7)),
            date: None,
            body: Zeroizing::new(body.as_bytes().to_vec()),
        }
    }

    fn fault(status: u16, body: &str) -> Fault {
        let redactor = Redactor::new([&Secret::new("hush+hush=".to_owned())]);
        let judged = judge(&Call::new("revoke x"), answer(status, body), &redactor, "api_token of [f5xc.main]");
        judged.map(drop).expect_err("no success")
    }

    #[test]
    fn each_documented_code_is_told_as_what_it_is() {
        let refused = |reason, why: &str| Fault::Refused { reason, why: why.to_owned() };
        for body in ["\"no\"", "no", "{\"code\":5,\"details\":[],\"message\":\"no\"}"] {
            let login = "revoke x: no (401); this is rekeyd's own login, api_token of [f5xc.main]";
            let right =
                "revoke x: no (403); the rotator needs a role in namespace system that may manage service credentials";
            assert_eq!(fault(401, body), refused(Reason::LoginRefused, login));
            assert_eq!(fault(403, body), refused(Reason::MissingRight, right));
            assert_eq!(fault(404, body), refused(Reason::NotFound, "revoke x: no (404)"));
            assert_eq!(fault(400, body), refused(Reason::Refused, "revoke x: no (400)"));
            for status in [409, 429] {
                let after = Some(Duration::from_secs(7));
                assert_eq!(fault(status, body), Fault::Retry { after, why: format!("revoke x: no ({status})") });
            }
            for status in [408, 500, 502, 503, 504] {
                assert_eq!(fault(status, body), Fault::Unknown(format!("revoke x: no ({status})")));
            }
        }
    }

    #[test]
    fn what_is_nobodys_answer_is_unknown() {
        for status in [201, 204, 302, 401, 403, 404, 409, 503] {
            for body in ["", "<html>no</html>", "{}", "[]", "null", "{\"message\":\"no\"}", "\"\"", "a\nb"] {
                assert!(matches!(fault(status, body), Fault::Unknown(_)), "{status} {body}");
            }
        }
        assert!(matches!(fault(429, "<html>"), Fault::Retry { .. }), "too many is too many, whoever says it");
    }

    #[test]
    fn what_was_sent_is_not_repeated() {
        let why = fault(403, "\"bad token hush+hush=, or hush%2Bhush%3D\\r\\nTrace: 1\"").why().to_owned();
        assert!(why.starts_with("revoke x: bad token ***, or *** (403)"), "{why}");
        assert!(fault(404, &format!("\"{}\"", "x".repeat(5000))).why().len() < 300);
    }
}
