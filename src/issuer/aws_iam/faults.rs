//! What an answer of IAM or STS, or its absence, means for what may be done next.
//!
//! Pure: an error of the SDK goes in, a [`Fault`] comes out. What an answer to a *probe* says about the probed key is `probe`'s to
//! tell. Nothing of a body that could not be parsed is ever repeated: it may hold the secret of a fresh key.

use std::error::Error;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::super::s3::answer::{self, Answer};
use super::client::Witness;
use crate::model::Reason;
use crate::net::xml::element;
use crate::ports::Fault;

/// What was tried, for the message.
#[derive(Clone, Debug)]
pub(super) struct Call {
    what: String,
    /// The permission it needs and on what, where it needs one.
    needs: Option<String>,
}

impl Call {
    /// `what` in words, verb first: `disable key AKIA… of iam user x`.
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), needs: None }
    }

    /// The permission the rotator must have for it: `iam:CreateAccessKey`, `iam user x`.
    pub(super) fn needing(self, action: &str, on: &str) -> Self {
        Self { needs: Some(format!("{action} on {on}")), ..self }
    }

    /// What was tried, and what came back.
    pub(super) fn text(&self, came_back: impl std::fmt::Display) -> String {
        format!("{}: {came_back}", self.what)
    }
}

/// The error answer in an SDK error, where there is one. Of its body only an error's code and message are taken.
pub(super) fn answer_of<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Option<Answer<'_>> {
    let SdkError::ServiceError(context) = error else { return None };
    let (raw, meta) = (context.raw(), context.err().meta());
    // The SDK knows `ErrorResponse/Error` only. Others put the same two elements elsewhere: S3 at the root, EC2 and some stores
    // (moto among them) one deeper, in `Errors`.
    let body =
        raw.body().bytes().and_then(|body| std::str::from_utf8(body).ok()).filter(|body| body.contains("<Error>"));
    let code = meta.code().filter(|code| !code.is_empty());
    Some(Answer {
        status: raw.status().as_u16(),
        code: code.or_else(|| body.and_then(|body| element(body, "Code"))),
        message: meta.message().or_else(|| body.and_then(|body| element(body, "Message"))),
        retry_after: raw.headers().get("retry-after").and_then(answer::seconds),
    })
}

/// Whether an answer says that there is no such call, in a way that is nobody's trouble: 501, in the form of the vendor.
pub(super) fn is_lacking(answer: Answer<'_>) -> bool {
    answer.status == 501 && answer.code.is_some()
}

/// What an answered error means for a call that the rotator makes with its own credentials.
pub(super) fn answered(call: &Call, answer: Answer<'_>) -> Fault {
    let refused = |reason: Reason, help: String| Fault::Refused { reason, why: call.text(answer.text()) + &help };
    if let Some(fault) = answer.beside(&call.what) {
        return fault;
    }
    match answer.code.unwrap_or_default() {
        // IAM's 409s for an object that is just being changed.
        "EntityTemporarilyUnmodifiable" | "ConcurrentModification" | "PriorRequestNotComplete" => {
            Fault::Retry { after: answer.retry_after, why: call.text(answer.text()) }
        }
        // Temporary credentials that ran out: the chain fetches new ones.
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" => {
            Fault::Retry { after: answer.retry_after, why: call.text(answer.text()) }
        }
        "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" | "NotAuthorized" => {
            let help = call.needs.as_ref().map(|needs| format!("; the rotator needs {needs}"));
            refused(Reason::MissingRight, help.unwrap_or_default())
        }
        "NoSuchEntity" | "NoSuchEntityException" => refused(Reason::NotFound, String::new()),
        "LimitExceeded" | "LimitExceededException" => refused(Reason::Quota, String::new()),
        "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "InvalidSignatureException"
        | "IncompleteSignature"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "AuthFailure"
        | "NotSignedUp"
        | "OptInRequired" => refused(Reason::LoginRefused, "; these are the rotator's own credentials".to_owned()),
        _ => refused(Reason::Refused, String::new()),
    }
}

/// What an SDK call came to: its answer if it is a whole one, else what its failure means.
pub(super) fn judge<T, E>(
    call: &Call,
    witness: &Witness,
    outcome: Result<T, SdkError<E, HttpResponse>>,
) -> Result<T, Fault>
where
    E: ProvideErrorMetadata + Error + 'static,
{
    match outcome {
        Ok(answer) if witness.whole() => Ok(answer),
        Ok(_) => Err(Fault::Unknown(call.text("a body that is no whole answer of this service"))),
        Err(error) => Err(failed(call, witness, &error)),
    }
}

/// What a failed SDK call means.
fn failed<E>(call: &Call, witness: &Witness, error: &SdkError<E, HttpResponse>) -> Fault
where
    E: ProvideErrorMetadata + Error + 'static,
{
    if let Some(answer) = answer_of(error) {
        return answered(call, answer);
    }
    if let Some(fault) = answer::untrusted(&call.what, error) {
        return fault;
    }
    if witness.nothing_sent() {
        return Fault::NotSent(call.text(answer::chain(error)));
    }
    match error {
        SdkError::TimeoutError(_) => Fault::Unknown(call.text("no answer in time")),
        SdkError::ResponseError(_) => Fault::Unknown(call.text("an answer that broke off or could not be read")),
        _ => Fault::Unknown(call.text(format_args!("sent, and no answer came: {}", answer::chain(error)))),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn create() -> Call {
        let user = "iam user arcgis-object-store";
        Call::new(format!("create an access key for {user}")).needing("iam:CreateAccessKey", user)
    }

    fn answer(status: u16, code: &'static str, message: &'static str) -> Fault {
        answered(&create(), Answer { status, code: Some(code), message: Some(message), retry_after: None })
    }

    fn reason(fault: &Fault) -> Option<Reason> {
        match fault {
            Fault::Refused { reason, .. } => Some(*reason),
            _ => None,
        }
    }

    #[test]
    fn a_missing_right_is_named_with_what_needs_it() {
        let fault = answer(
            403,
            "AccessDenied",
            "User: arn:aws:iam::123456789012:user/rotator is not authorized to perform: iam:CreateAccessKey on resource: user arcgis-object-store",
        );
        assert_eq!(reason(&fault), Some(Reason::MissingRight));
        assert_eq!(
            fault.why(),
            "create an access key for iam user arcgis-object-store: AccessDenied (403): User: arn:aws:iam::123456789012:user/rotator \
             is not authorized to perform: iam:CreateAccessKey on resource: user arcgis-object-store; the rotator needs \
             iam:CreateAccessKey on iam user arcgis-object-store"
        );
    }

    #[test]
    fn each_refusal_has_its_reason() {
        for (status, code, expected) in [
            (404, "NoSuchEntity", Reason::NotFound),
            (409, "LimitExceeded", Reason::Quota),
            (403, "InvalidClientTokenId", Reason::LoginRefused),
            (403, "SignatureDoesNotMatch", Reason::LoginRefused),
            (400, "ValidationError", Reason::Refused),
        ] {
            assert_eq!(reason(&answer(status, code, "said so")), Some(expected), "{code}");
        }
    }

    #[test]
    fn a_server_error_is_unknown_whatever_it_says() {
        for (status, code) in
            [(500, "ServiceFailure"), (503, "ServiceUnavailable"), (500, "AccessDenied"), (301, "PermanentRedirect")]
        {
            assert!(matches!(answer(status, code, "sorry"), Fault::Unknown(_)), "{status} {code}");
        }
    }

    #[test]
    fn an_answer_without_a_code_is_unknown() {
        let fault = answered(&create(), Answer { status: 403, ..Answer::default() });
        assert_eq!(
            fault,
            Fault::Unknown(
                "create an access key for iam user arcgis-object-store: status 403 and a body that is no answer of this service".into()
            )
        );
    }

    #[test]
    fn throttling_is_asked_again_when_told() {
        let told = Answer { status: 429, code: None, message: None, retry_after: answer::seconds("7") };
        assert!(
            matches!(answered(&create(), told), Fault::Retry { after: Some(after), .. } if after == Duration::from_secs(7))
        );
        assert!(matches!(answer(400, "Throttling", "Rate exceeded"), Fault::Retry { after: None, .. }));
    }

    #[test]
    fn a_clock_that_is_wrong_is_not_a_wrong_secret() {
        let fault = answer(
            403,
            "SignatureDoesNotMatch",
            "Signature expired: 20261121T000000Z is now earlier than 20261121T120000Z (20261121T121500Z - 15 min.)",
        );
        assert!(matches!(&fault, Fault::Retry { why, .. } if why.contains("clock")), "{fault:?}");
        assert!(matches!(answer(403, "RequestTimeTooSkewed", "The difference is too large"), Fault::Retry { .. }));
    }

    #[test]
    fn a_long_message_is_cut_to_its_first_line() {
        let fault = answer(
            403,
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match.\n\nThe Canonical String for this request should have been\n'POST\n/",
        );
        assert!(!fault.why().contains("Canonical"), "{}", fault.why());
    }
}
