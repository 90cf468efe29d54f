//! What an answer of ARM or Graph means for what may be done next. Both say `{"error":{"code":…,"message":…}}` when they refuse.
//!
//! Pure: an answer goes in, a [`Fault`] comes out. What a data plane says of a probed key is `blob`'s and the kinds' to tell.

use serde::Deserialize;

use crate::model::Reason;
use crate::net::client::Answer;
use crate::net::redact::Redactor;
use crate::ports::Fault;

/// What was tried, for the message.
#[derive(Clone, Debug)]
pub(in crate::issuer) struct Call {
    what: String,
    /// The right it needs and on what, where it needs one.
    needs: Option<String>,
}

impl Call {
    /// `what` in words, verb first: `list the keys of storage account gisstore`.
    pub(in crate::issuer) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), needs: None }
    }

    /// The right the rotator must have for it: `Microsoft.Storage/storageAccounts/listKeys/action on storage account gisstore`.
    pub(in crate::issuer) fn needing(self, right: impl Into<String>) -> Self {
        Self { needs: Some(right.into()), ..self }
    }

    /// What was tried.
    pub(in crate::issuer) fn what(&self) -> &str {
        &self.what
    }

    /// What was tried, and what came back.
    pub(in crate::issuer) fn text(&self, came_back: impl std::fmt::Display) -> String {
        format!("{}: {came_back}", self.what)
    }
}

/// What Graph says of a secret that it does not list (hashicorp/vault-plugin-secrets-azure).
pub(in crate::issuer) const NO_SUCH_SECRET: &str = "No password credential found";

/// The body of a refusal. Cosmos DB's provider puts both texts at the root.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Refusal {
    error: Option<Said>,
    code: Option<String>,
    message: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    code: Option<String>,
    message: Option<String>,
}

/// The code and first line of a refusal, as far as it is one.
struct Told {
    code: String,
    message: String,
    status: u16,
}

impl Told {
    fn of(answer: &Answer) -> Option<Self> {
        let refusal: Refusal = serde_json::from_slice(&answer.body).ok()?;
        let said = refusal.error.unwrap_or(Said { code: refusal.code, message: refusal.message });
        let code = said.code.filter(|code| !code.is_empty())?;
        let message = said.message.unwrap_or_default();
        let message = message.lines().next().unwrap_or_default().trim().to_owned();
        Some(Self { code, message, status: answer.status })
    }

    fn text(&self) -> String {
        let (code, message) = (Redactor::default().clean(&self.code), Redactor::default().clean(&self.message));
        match message.is_empty() {
            true => format!("{code} ({})", self.status),
            false => format!("{code} ({}): {message}", self.status),
        }
    }
}

/// An answer of ARM or Graph: itself if it is a success, else what it means.
pub(in crate::issuer) fn judge(call: &Call, answer: Answer) -> Result<Answer, Fault> {
    match (200..300).contains(&answer.status) {
        true => Ok(answer),
        false => Err(refusal(call, &answer)),
    }
}

fn refusal(call: &Call, answer: &Answer) -> Fault {
    let Some(told) = Told::of(answer) else {
        let why = format!("status {} and a body that is no answer of this service", answer.status);
        return answer.unread(call.text(why));
    };
    let text = call.text(told.text());
    let retry = || Fault::Retry { after: answer.retry_after, why: text.clone() };
    let refused = |reason: Reason, help: &str| Fault::Refused { reason, why: format!("{text}{help}") };
    match (answer.status, told.code.as_str()) {
        (429, _) => retry(),
        // 408 and 499 say that somebody gave up waiting, and not what became of it.
        (408 | 499 | 500.., _) => Fault::Unknown(text.clone()),
        (401, _) => refused(Reason::LoginRefused, "; this is the rotator's own login"),
        (403, "AuthorizationFailed" | "Authorization_RequestDenied" | "LinkedAuthorizationFailed") => {
            let needs = call.needs.as_ref().map(|needs| format!("; the rotator needs {needs}"));
            refused(Reason::MissingRight, &needs.unwrap_or_default())
        }
        (404, _) => refused(Reason::NotFound, ""),
        (400, _) if told.message.contains(NO_SUCH_SECRET) => refused(Reason::NotFound, ""),
        (409, "ScopeLocked") => refused(
            Reason::Refused,
            "; listing and making keys are writes to Azure, which a ReadOnly lock forbids; a CanNotDelete lock does not",
        ),
        (400, "TooManyAppPasswords") => refused(Reason::Quota, ""),
        (400, "CredentialInvalidLifetimeAsPerAppPolicy") => {
            refused(Reason::PolicyMismatch, "; the tenant lets secrets live for less than valid_for says")
        }
        (400, "CredentialTypeNotAllowedAsPerAppPolicy") => refused(
            Reason::PolicyMismatch,
            "; the tenant allows this application no secrets: have it exempted, or switch the service to an identity",
        ),
        (409, "ReadOnlyDisabledSubscription") => refused(Reason::Refused, ""),
        // Something else is being done just now: Cosmos DB says it with 412, a directory with 409 (nais/azurerator issue 448), and some
        // with 503 (azure-cli issue 23081), which may come after the deed like any other.
        (409 | 412, _) => retry(),
        _ => refused(Reason::Refused, ""),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use zeroize::Zeroizing;

    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status,
            host: "management.azure.com".to_owned(),
            location: None,
            retry_after: Some(Duration::from_secs(7)),
            date: None,
            body: Zeroizing::new(body.as_bytes().to_vec()),
        }
    }

    fn error(code: &str, message: &str) -> String {
        format!(r#"{{"error":{{"code":"{code}","message":"{message}"}}}}"#)
    }

    fn fault(status: u16, code: &str) -> Fault {
        let call = Call::new("list the keys of x").needing("listKeys on x");
        judge(&call, answer(status, &error(code, "It said so.\\r\\nTrace: 1"))).expect_err("no success")
    }

    fn reason(fault: &Fault) -> Option<Reason> {
        match fault {
            Fault::Refused { reason, .. } => Some(*reason),
            _ => None,
        }
    }

    #[test]
    fn what_may_pass_by_itself_waits_and_what_will_not_stops() {
        for (status, code) in [
            (409, "Directory_ConcurrencyViolation"),
            (429, "TooManyRequests"),
            (429, "SubscriptionRequestsThrottled"),
            (409, "StorageAccountOperationInProgress"),
            (412, "PreconditionFailed"),
        ] {
            let after = Some(Duration::from_secs(7));
            assert!(matches!(fault(status, code), Fault::Retry { after: a, .. } if a == after), "{status} {code}");
        }
        for (status, code, expected) in [
            (401, "InvalidAuthenticationToken", Reason::LoginRefused),
            (403, "AuthorizationFailed", Reason::MissingRight),
            (403, "Authorization_RequestDenied", Reason::MissingRight),
            (403, "RequestDisallowedByPolicy", Reason::Refused),
            (404, "ResourceNotFound", Reason::NotFound),
            (404, "SubscriptionNotFound", Reason::NotFound),
            (409, "ScopeLocked", Reason::Refused),
            (400, "TooManyAppPasswords", Reason::Quota),
            (400, "CredentialInvalidLifetimeAsPerAppPolicy", Reason::PolicyMismatch),
            (400, "CredentialTypeNotAllowedAsPerAppPolicy", Reason::PolicyMismatch),
            (400, "Request_BadRequest", Reason::Refused),
        ] {
            assert_eq!(reason(&fault(status, code)), Some(expected), "{status} {code}");
        }
    }

    #[test]
    fn a_5xx_and_what_is_nobodys_answer_are_unknown() {
        assert!(matches!(fault(500, "InternalServerError"), Fault::Unknown(_)));
        assert!(matches!(fault(503, "Directory_ConcurrencyViolation"), Fault::Unknown(_)));
        for (status, body) in [(200_u16, ""), (302, ""), (403, "<html>"), (502, "<html>"), (400, "{}")] {
            let judged = judge(&Call::new("x"), answer(status, body));
            assert!(if status == 200 { judged.is_ok() } else { matches!(judged, Err(Fault::Unknown(_))) }, "{status}");
        }
        assert!(matches!(judge(&Call::new("x"), answer(429, "<html>")), Err(Fault::Retry { .. })));
    }

    #[test]
    fn a_refusal_is_told_in_one_line_with_the_right_it_needs() {
        assert_eq!(
            fault(403, "AuthorizationFailed").why(),
            "list the keys of x: AuthorizationFailed (403): It said so.; the rotator needs listKeys on x"
        );
        let cosmos = judge(&Call::new("x"), answer(412, r#"{"code":"PreconditionFailed","message":"Busy."}"#));
        assert_eq!(cosmos.expect_err("busy").why(), "x: PreconditionFailed (412): Busy.");
    }
}
