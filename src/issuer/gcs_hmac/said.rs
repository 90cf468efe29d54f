//! What `google-cloud-auth` says of a login that failed: which of it may be repeated, and whether asking again may help.
//!
//! Sends nothing. The crate (1.18) puts whole bodies into its messages, the proof of an identity among them, so its words are not
//! taken as they are.

use std::error::Error;

use google_cloud_auth::errors::CredentialsError;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::error::Elapsed;

use super::grant;

/// Where a body begins in a message of the crate's, which is repeated up to there.
const BODY: &str = "body=<";

/// A failed login in words.
pub(super) struct Said {
    /// Not yet fit for a log: it may hold what the credentials file holds.
    pub(super) text: String,
    /// Whether asking again changes nothing.
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
        if let Some(oauth) = messages.iter().find_map(|message| oauth(message)) {
            let status = status.map(|status| format!(" ({status})")).unwrap_or_default();
            return Self { text: format!("{oauth}{status}"), is_final: !error.is_transient() };
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
        // A page of somebody in between passes.
        Self { text, is_final: !error.is_transient() && status.is_none() }
    }
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
        assert!(!odd.text.contains("eyJ") && odd.text.contains("line 1"), "{}", odd.text);
    }
}
