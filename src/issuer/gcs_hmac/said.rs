//! What `google-cloud-auth` says of a login that failed: which of it may be repeated, and whether asking again may help.
//!
//! Sends nothing. The crate (1.18) puts whole bodies into its messages, the proof of an identity among them, and calls final what a
//! page of somebody in between is too; so neither its words nor its judgement is taken as it is.

use std::error::Error;

use google_cloud_auth::errors::CredentialsError;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::error::Elapsed;

use super::grant;

/// Where a body begins in a message of the crate's, which is repeated up to there.
const BODY: &str = "body=<";
/// How the crate words a refusal where it keeps the status in no error of its transport.
const STATUS: &str = "the HTTP transport reports a [";

/// A failed login in words.
pub(super) struct Said {
    /// Not yet fit for a log: it may hold what the credentials file holds.
    pub(super) text: String,
    /// Whether asking again changes nothing: the refusal of a token endpoint, or trouble before anything was sent.
    pub(super) is_final: bool,
}

/// OAuth's own words (RFC 6749, 5.2; RFC 8693, 2.2.2).
#[derive(Default, Deserialize)]
#[serde(default)]
struct OAuth {
    error: Value,
    error_description: String,
}

impl Said {
    pub(super) fn of(error: &CredentialsError) -> Self {
        let mut chain = Vec::new();
        let mut next: Option<&(dyn Error + 'static)> = Some(error);
        while let Some(cause) = next {
            chain.push(cause);
            next = cause.source();
        }
        let messages: Vec<String> = chain.iter().map(ToString::to_string).collect();
        let sent = chain.iter().find_map(|cause| cause.downcast_ref::<reqwest::Error>());
        let status = sent.and_then(|error| Some(error.status()?.as_u16()));
        let status = status.or_else(|| messages.iter().find_map(|message| status_in(message)));
        // A refusal that was repeated until the crate gave up is no passing one to it.
        let passes = error.is_transient() || matches!(status, Some(408 | 429 | 500..));
        if let Some(oauth) = messages.iter().find_map(|message| oauth(message)) {
            let status = status.map(|status| format!(" ({status})")).unwrap_or_default();
            return Self { text: format!("{oauth}{status}"), is_final: !passes };
        }
        let unread = chain.iter().find_map(|cause| cause.downcast_ref::<serde_json::Error>());
        let is_late = chain.iter().any(|cause| cause.is::<Elapsed>()) || sent.is_some_and(reqwest::Error::is_timeout);
        let text = match (status, sent, unread) {
            (Some(status), ..) => format!("status {status} and a body that is no answer of a token endpoint"),
            (None, Some(error), _) if error.is_connect() => "could not connect to where tokens are given".to_owned(),
            _ if is_late => "no answer from where tokens are given".to_owned(),
            (None, Some(error), _) if error.is_decode() => {
                "a body that is no answer of a token endpoint, or broke off".to_owned()
            }
            // What is said of a text that does not fit may hold the text.
            (None, None, Some(unread)) => format!(
                "the proof of its identity is not the JSON that it should be (line {}, column {})",
                unread.line(),
                unread.column()
            ),
            // The innermost words tell most.
            _ => messages.last().map(|text| without_body(text)).unwrap_or_default(),
        };
        // What came from outside, or did not, may be of somebody in between, and a file may be half written: all of that passes.
        let is_outside =
            status.is_some() || is_late || unread.is_some() || sent.is_some_and(|error| !error.is_builder());
        Self { text, is_final: !passes && !is_outside }
    }
}

/// `the HTTP transport reports a [403] error: …`.
fn status_in(message: &str) -> Option<u16> {
    let (_, rest) = message.split_once(STATUS)?;
    rest.split(']').next()?.parse().ok()
}

/// The refusal in a message, where there is one in OAuth's form or in that of Google's APIs.
fn oauth(message: &str) -> Option<String> {
    let from = message.find('{')?;
    // A body may hold a `>` itself, so the last one ends it.
    let to = message.rfind('}')?;
    let OAuth { error, error_description } = serde_json::from_str(message.get(from..=to)?).ok()?;
    let word = error.as_str().or_else(|| error.get("status")?.as_str())?;
    let more = match error_description.is_empty() {
        true => error.get("message").and_then(Value::as_str).unwrap_or_default(),
        false => error_description.as_str(),
    };
    Some(grant::with_help(word, &first_line(more)))
}

/// Up to a body: the proof that was looked for in it stands there, under another name.
fn without_body(text: &str) -> String {
    let before = text.split(BODY).next().unwrap_or_default();
    first_line(before).trim_end_matches(',').to_owned()
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(message: &str) -> Said {
        Said::of(&CredentialsError::from_msg(false, message))
    }

    #[test]
    fn a_refusal_is_found_in_what_the_crate_says() {
        let denied = said(
            "failed to exchange token, body=<{\"error\":\"invalid_grant\",\"error_description\":\"The audience > x.\"}>",
        );
        assert!(denied.text.starts_with("invalid_grant: The audience > x."), "{}", denied.text);
        assert!(denied.is_final);
        let api =
            said("failed, body=<{\"error\":{\"code\":403,\"message\":\"No.\",\"status\":\"PERMISSION_DENIED\"}}>");
        assert_eq!(api.text, "PERMISSION_DENIED: No.");
        let other = said("failed to parse service account private key PEM: x");
        assert!(other.is_final && other.text.contains("private key"), "{}", other.text);
        assert!(!Said::of(&CredentialsError::from_msg(true, "later")).is_final);
    }

    #[test]
    fn a_body_is_not_repeated() {
        // As the file and the url of a credential_source are worded.
        let field =
            said("failed to read subject token field `token` as string, body=<{\"access_token\":\"eyJhbGciOi\"}>");
        assert_eq!(field.text, "failed to read subject token field `token` as string");
        assert!(field.is_final, "the file's own mistake");
        // What a program prints, where it is no answer of one.
        let odd = serde_json::from_str::<OAuth>("\"eyJhbGciOi\"").err().expect("a text is no object");
        assert!(odd.to_string().contains("eyJhbGciOi"), "else this shows nothing");
        let odd = Said::of(&CredentialsError::from_source(false, odd));
        assert!(!odd.text.contains("eyJ") && odd.text.contains("line 1") && !odd.is_final, "{}", odd.text);
    }

    #[test]
    fn a_page_of_somebody_in_between_passes() {
        // A portal at the address that impersonates, and a metadata server that has nothing to give yet.
        for answer in ["<html>Log in</html>", "failed to fetch access token :b\"<html>\""] {
            let page = said(&format!("{STATUS}403] error: {answer}"));
            assert_eq!(page.text, "status 403 and a body that is no answer of a token endpoint");
            assert!(!page.is_final);
        }
        // Refused for so long that the crate gave up.
        let throttled = said(&format!("{STATUS}503] error: {{\"error\":{{\"status\":\"UNAVAILABLE\"}}}}"));
        assert_eq!((throttled.text.as_str(), throttled.is_final), ("UNAVAILABLE (503)", false));
        let denied = said(&format!("{STATUS}403] error: {{\"error\":{{\"status\":\"PERMISSION_DENIED\"}}}}"));
        assert!(denied.is_final, "{}", denied.text);
    }
}
