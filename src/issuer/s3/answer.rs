//! An error as AWS words it, and as everybody who speaks S3 or IAM words it after AWS: a code, a message, a status.
//!
//! Pure. What an answer says of a probed key is `s3`'s to tell, and what it means for a call of the rotator's the kinds'.

use std::error::Error;
use std::time::Duration;

use crate::model::Reason;
use crate::net::redact::Redactor;
use crate::net::xml;
use crate::ports::Fault;

/// Of a message no more than this is repeated, in characters: some of AWS's hold the whole canonical request.
const MESSAGE_MAX: usize = 300;

/// An error answer, as far as it could be read.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::issuer) struct Answer<'a> {
    pub(in crate::issuer) status: u16,
    /// The vendor's code, such as `AccessDenied`; `None` where the body was not in the vendor's form.
    pub(in crate::issuer) code: Option<&'a str>,
    pub(in crate::issuer) message: Option<&'a str>,
    pub(in crate::issuer) retry_after: Option<Duration>,
}

impl Answer<'_> {
    /// `AccessDenied (403): the message`, its first line, not endless, and fit for a log.
    pub(in crate::issuer) fn text(&self) -> String {
        let code = Redactor::default().clean(self.code.unwrap_or("no error code"));
        match self.message.and_then(|message| message.lines().next()).map(str::trim).filter(|line| !line.is_empty()) {
            Some(line) => {
                let line: String = Redactor::default().hide(&xml::plain(line)).chars().take(MESSAGE_MAX).collect();
                format!("{code} ({}): {line}", self.status)
            }
            None => format!("{code} ({})", self.status),
        }
    }

    /// Whether the other side refused for the time in the signature: SigV4's `SignatureDoesNotMatch` covers that too, and only the
    /// words tell it from a wrong secret.
    pub(in crate::issuer) fn is_clock(&self) -> bool {
        match self.code {
            Some("RequestTimeTooSkewed" | "RequestExpired" | "RequestInTheFuture") => true,
            Some("SignatureDoesNotMatch" | "InvalidSignatureException") => self.message.is_some_and(|message| {
                message.starts_with("Signature expired") || message.starts_with("Signature not yet current")
            }),
            _ => false,
        }
    }

    /// Whether the other side asked for patience. All of these say that it did not act.
    pub(in crate::issuer) fn is_throttle(&self) -> bool {
        self.status == 429
            || matches!(
                self.code,
                Some(
                    "Throttling"
                        | "ThrottlingException"
                        | "ThrottledException"
                        | "RequestThrottled"
                        | "RequestThrottledException"
                        | "TooManyRequests"
                        | "TooManyRequestsException"
                        | "RequestLimitExceeded"
                        | "BandwidthLimitExceeded"
                        | "SlowDown"
                )
            )
    }

    /// What it means wherever it says nothing of what was asked: refused for the time, throttled, a server's own trouble, somebody
    /// else's page. `None`: it is an answer to what was asked. `what` was tried.
    pub(in crate::issuer) fn beside(&self, what: &str) -> Option<Fault> {
        let text = || format!("{what}: {}", self.text());
        if self.is_clock() {
            let why = format!(
                "{what}: the request's time was refused: this host's clock and the provider's differ; check that time is \
                 synchronised here; {}",
                self.text()
            );
            return Some(Fault::Retry { after: self.retry_after, why });
        }
        if self.is_throttle() {
            return Some(Fault::Retry { after: self.retry_after, why: text() });
        }
        if !(400..500).contains(&self.status) {
            // A 5xx may come after the deed, whatever its code says; a 3xx or an odd 2xx is nobody's documented answer.
            return Some(Fault::Unknown(text()));
        }
        if self.code.is_none() {
            let why = format!("{what}: status {} and a body that is no answer of this service", self.status);
            return Some(Fault::Unknown(why));
        }
        None
    }
}

/// A certificate that does not verify: the handshake failed, so nothing was sent, and waiting does not help.
pub(in crate::issuer) fn untrusted(what: &str, error: &(dyn Error + 'static)) -> Option<Fault> {
    causes(error).find_map(|cause| match cause.downcast_ref::<rustls::Error>() {
        Some(rustls::Error::InvalidCertificate(why)) => Some(Fault::Refused {
            reason: Reason::TlsUntrusted,
            why: format!(
                "{what}: the server's certificate does not verify: {why}; if a private authority signed it, name its file in ca_file"
            ),
        }),
        _ => None,
    })
}

/// An error and its causes in one line, each said once.
pub(in crate::issuer) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut said: Vec<String> = Vec::new();
    for cause in causes(error) {
        let text = cause.to_string();
        if !said.iter().any(|earlier| earlier.contains(&text)) {
            said.push(text);
        }
    }
    said.join(": ")
}

/// An error and its causes. `io::Error::source` skips the error it wraps, which is where TLS puts its own.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| match error.downcast_ref::<std::io::Error>() {
        Some(io) => io.get_ref().map(|inner| inner as &(dyn Error + 'static)),
        None => error.source(),
    })
}

/// `Retry-After` in seconds; its other form, a date, is used by none of those who are asked here.
pub(in crate::issuer) fn seconds(text: &str) -> Option<Duration> {
    text.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_cut_to_its_first_line_and_shows_no_token() {
        let message = format!("It ends: token=abc123 {}\n\nThe Canonical String", "x".repeat(400));
        let text = Answer { status: 403, code: Some("Odd"), message: Some(&message), retry_after: None }.text();
        assert!(text.starts_with("Odd (403): It ends: token=*** xxx"), "{text}");
        assert!(text.len() < 330 && !text.contains("Canonical") && !text.contains("abc123"), "{text}");
    }

    #[test]
    fn the_causes_of_an_io_error_are_walked_into() {
        let inner = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let error = std::io::Error::other(std::io::Error::new(std::io::ErrorKind::InvalidData, inner));
        let fault = untrusted("look", &error);
        assert!(matches!(fault, Some(Fault::Refused { reason: Reason::TlsUntrusted, .. })), "{fault:?}");
        assert!(untrusted("look", &std::io::Error::other("connection refused")).is_none());
    }

    #[test]
    fn what_is_no_answer_to_what_was_asked_is_told_apart() {
        let beside = |status, code| Answer { status, code, message: None, retry_after: None }.beside("look");
        assert!(matches!(beside(403, Some("RequestTimeTooSkewed")), Some(Fault::Retry { .. })));
        assert!(matches!(beside(503, Some("SlowDown")), Some(Fault::Retry { .. })));
        assert!(matches!(beside(429, None), Some(Fault::Retry { .. })));
        assert!(matches!(beside(500, Some("AccessDenied")), Some(Fault::Unknown(_))));
        assert!(matches!(beside(301, Some("PermanentRedirect")), Some(Fault::Unknown(_))));
        assert!(matches!(beside(403, None), Some(Fault::Unknown(_))));
        assert_eq!(beside(403, Some("AccessDenied")), None);
    }
}
