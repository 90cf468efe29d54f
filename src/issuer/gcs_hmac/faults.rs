//! What an answer of one of Google's JSON APIs means for what may be done next. They refuse with
//! `{"error":{"code":…,"message":…,"errors":[{"reason":…}],"status":…,"details":[{"reason":…}]}}`, Storage without the last two.
//!
//! Pure: an answer goes in, a [`Fault`] comes out. What the XML API says of a probed key is the S3 room's to tell.

use serde::Deserialize;

use crate::model::Reason;
use crate::net::client::Answer;
use crate::net::redact::Redactor;
use crate::ports::Fault;

/// What was tried, for the message.
#[derive(Clone, Debug)]
pub(super) struct Call {
    what: String,
    /// The permission it needs.
    needs: Option<&'static str>,
}

impl Call {
    /// `what` in words, verb first: `list the HMAC keys of service account x@y`.
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), needs: None }
    }

    /// The permission the rotator must have for it: `storage.hmacKeys.list`.
    pub(super) fn needing(self, permission: &'static str) -> Self {
        Self { needs: Some(permission), ..self }
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

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Refusal {
    error: Option<Said>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    code: Option<u16>,
    message: Option<String>,
    errors: Vec<Detail>,
    status: Option<String>,
    details: Vec<Detail>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Detail {
    reason: Option<String>,
}

/// A refusal, as far as it is one.
struct Told {
    /// The most telling word there is: `quotaExceeded`, `SERVICE_DISABLED`, `PERMISSION_DENIED`.
    reason: String,
    message: String,
    status: u16,
}

impl Told {
    fn of(answer: &Answer) -> Option<Self> {
        let refusal: Refusal = serde_json::from_slice(&answer.body).ok()?;
        let said = refusal.error?;
        // A proxy may speak JSON too; it does not know which status Google would have said.
        if said.code != Some(answer.status) {
            return None;
        }
        let reasons = said.details.into_iter().chain(said.errors).filter_map(|detail| detail.reason);
        let reason = reasons.chain(said.status).find(|reason| !reason.is_empty()).unwrap_or_default();
        let message = said.message.unwrap_or_default();
        let message = message.lines().next().unwrap_or_default().trim().to_owned();
        Some(Self { reason, message, status: answer.status })
    }

    fn text(&self) -> String {
        let (reason, message) = (Redactor::default().clean(&self.reason), Redactor::default().clean(&self.message));
        let head =
            if reason.is_empty() { format!("status {}", self.status) } else { format!("{reason} ({})", self.status) };
        if message.is_empty() { head } else { format!("{head}: {message}") }
    }
}

/// An answer of Google: itself if it is a success, else what it means.
pub(super) fn judge(call: &Call, answer: Answer) -> Result<Answer, Fault> {
    match (200..300).contains(&answer.status) {
        true => Ok(answer),
        false => Err(refusal(call, &answer)),
    }
}

/// The sources: Google's page "HTTP status and error codes for JSON"; for the words about HMAC keys, what Google's own clients ran
/// into (python-docs-samples issue 4029, java-storage issue 1240) and the integration tests of gsutil.
fn refusal(call: &Call, answer: &Answer) -> Fault {
    let Some(told) = Told::of(answer) else {
        let why = format!("status {} and a body that is no answer of Google's", answer.status);
        return answer.unread(call.text(why));
    };
    let text = call.text(told.text());
    let retry = || Fault::Retry { after: answer.retry_after, why: text.clone() };
    let refused = |reason: Reason, help: &str| Fault::Refused { reason, why: format!("{text}{help}") };
    let says = |words: &str| told.message.contains(words);
    match (answer.status, told.reason.as_str()) {
        (429, _) | (403, "rateLimitExceeded" | "userRateLimitExceeded" | "RATE_LIMIT_EXCEEDED") => retry(),
        // 408 says that somebody gave up waiting, and not what became of it.
        (408 | 499 | 500.., _) => Fault::Unknown(text.clone()),
        (401, _) => refused(Reason::LoginRefused, "; this is the rotator's own login"),
        (403, _) if says("HMAC key limit") => refused(
            Reason::Quota,
            "; a service account holds ten HMAC keys, inactive ones among them, and there is no increase: see who uses them \
             (`rekeyd strangers`, gcloud storage hmac list), then deactivate and delete what nobody does",
        ),
        (403, "quotaExceeded") => retry(),
        (403, "accessNotConfigured" | "SERVICE_DISABLED") => {
            refused(Reason::Refused, "; have the API enabled in the project that the message names")
        }
        (403, "vpcServiceControls" | "SECURITY_POLICY_VIOLATED") => {
            refused(Reason::Refused, "; a perimeter of VPC Service Controls keeps this machine or this identity out")
        }
        (403, "ACCESS_TOKEN_SCOPE_INSUFFICIENT") => refused(Reason::MissingRight, SCOPES),
        (403, "insufficientPermissions") if says("scope") => refused(Reason::MissingRight, SCOPES),
        (403, "forbidden" | "insufficientPermissions" | "IAM_PERMISSION_DENIED" | "PERMISSION_DENIED") => {
            let needs = call.needs.map(|needs| {
                format!("; the rotator needs {needs} on the project: config/google has a role with just what is needed")
            });
            refused(Reason::MissingRight, &needs.unwrap_or_default())
        }
        (404, _) => refused(Reason::NotFound, ""),
        // The same status and reason as an etag that does not match.
        (412, _) if says("violates constraint") => refused(
            Reason::Refused,
            "; a policy of the organization forbids HMAC keys here: have the project exempted from it",
        ),
        // Somebody changed it between our look and our word: look again.
        (409 | 412, _) => retry(),
        (400, _) if says("must modify the credential") => retry(),
        _ => refused(Reason::Refused, ""),
    }
}

const SCOPES: &str = "; the token has not the scope devstorage.full_control: where the login is the machine's own, its access \
                      scopes are set where the machine is made";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use zeroize::Zeroizing;

    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status,
            host: "storage.googleapis.com".to_owned(),
            location: None,
            retry_after: Some(Duration::from_secs(7)),
            date: None,
            body: Zeroizing::new(body.as_bytes().to_vec()),
        }
    }

    /// As Storage writes it.
    fn error(code: u16, reason: &str, message: &str) -> String {
        format!(
            r#"{{"error":{{"code":{code},"message":"{message}","errors":[{{"message":"{message}","domain":"global","reason":"{reason}"}}]}}}}"#
        )
    }

    fn said(status: u16, reason: &str, message: &str) -> Fault {
        let call = Call::new("create a key").needing("storage.hmacKeys.create");
        judge(&call, answer(status, &error(status, reason, message))).expect_err("no success")
    }

    fn reason(fault: &Fault) -> Option<Reason> {
        match fault {
            Fault::Refused { reason, .. } => Some(*reason),
            _ => None,
        }
    }

    #[test]
    fn what_may_pass_by_itself_waits_and_what_will_not_stops() {
        for (status, why, message) in [
            (429, "rateLimitExceeded", "The rate of change requests is too high."),
            (403, "rateLimitExceeded", "Rate Limit Exceeded"),
            (403, "userRateLimitExceeded", "User Rate Limit Exceeded"),
            (412, "conditionNotMet", "Etag does not match expected value."),
            (400, "invalid", "Update must modify the credential"),
            (409, "conflict", "Busy."),
        ] {
            let after = Some(Duration::from_secs(7));
            let fault = said(status, why, message);
            assert!(matches!(fault, Fault::Retry { after: a, .. } if a == after), "{status} {why}: {fault:?}");
        }
        for (status, why, message, expected) in [
            (401, "authError", "Invalid Credentials", Reason::LoginRefused),
            (403, "quotaExceeded", "Service account HMAC key limit reached", Reason::Quota),
            (403, "forbidden", "x does not have storage.hmacKeys.create access", Reason::MissingRight),
            (403, "insufficientPermissions", "Request had insufficient authentication scopes.", Reason::MissingRight),
            (403, "accessNotConfigured", "Cloud Storage JSON API has not been used in project 1", Reason::Refused),
            (403, "vpcServiceControls", "Request is prohibited by organization's policy.", Reason::Refused),
            (403, "accountDisabled", "The account is disabled.", Reason::Refused),
            (404, "notFound", "Access ID not found in project p.", Reason::NotFound),
            (400, "invalid", "Cannot delete keys in ACTIVE state.", Reason::Refused),
            (
                412,
                "conditionNotMet",
                "Request violates constraint 'constraints/iam.disableServiceAccountKeyCreation'",
                Reason::Refused,
            ),
        ] {
            assert_eq!(reason(&said(status, why, message)), Some(expected), "{status} {why} {message}");
        }
    }

    #[test]
    fn a_5xx_and_what_is_nobodys_answer_are_unknown() {
        assert!(matches!(said(500, "backendError", "Backend Error"), Fault::Unknown(_)));
        assert!(matches!(said(503, "backendError", "Backend Error"), Fault::Unknown(_)));
        assert!(matches!(said(408, "requestTimeout", "Timed out."), Fault::Unknown(_)));
        // The last one is JSON of somebody else's: its number is not the answer's.
        for (status, body) in
            [(302_u16, ""), (403, "<html>"), (502, "<html>"), (400, "{}"), (404, r#"{"error":{"message":"no route"}}"#)]
        {
            assert!(matches!(judge(&Call::new("x"), answer(status, body)), Err(Fault::Unknown(_))), "{status}");
        }
        assert!(matches!(judge(&Call::new("x"), answer(429, "<html>")), Err(Fault::Retry { .. })));
    }

    #[test]
    fn a_refusal_is_told_in_one_line_with_the_right_it_needs() {
        assert_eq!(
            said(403, "forbidden", "Permission denied.\\nMore.").why(),
            "create a key: forbidden (403): Permission denied.; the rotator needs storage.hmacKeys.create on the project: \
             config/google has a role with just what is needed"
        );
        let v2 = r#"{"error":{"code":403,"message":"No.","status":"PERMISSION_DENIED","details":[{"@type":"x","reason":"SERVICE_DISABLED"}]}}"#;
        let fault = judge(&Call::new("x"), answer(403, v2)).expect_err("refused");
        assert!(fault.why().starts_with("x: SERVICE_DISABLED (403): No.; have the API enabled"), "{}", fault.why());
    }
}
