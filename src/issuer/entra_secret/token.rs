//! Asking for a token with a probed secret: the consumer's own login, made anew each time.
//!
//! Not the rotator's login, which `azure::login` keeps: here a refusal is an answer, and a token that was kept would prove nothing.

use serde::Deserialize;

use super::super::azure::faults::Call;
use super::super::azure::login::Granted;
use crate::model::{Reason, Secret};
use crate::net::client::{Client, Request};
use crate::net::redact::Redactor;
use crate::ports::Fault;

/// Azure Storage, in every cloud.
const SCOPE: &str = "https://storage.azure.com/.default";

/// What became of the question.
pub(super) enum Asked {
    /// A token for the blob service.
    Given(Secret),
    /// The secret is not known where it was asked for: not yet, or never.
    Unknown(String),
    /// The secret has ended.
    Over(String),
}

/// A refusal, in OAuth's form; the codes are Entra's ("Microsoft Entra authentication and authorization error codes").
#[derive(Default, Deserialize)]
#[serde(default)]
struct Refused {
    error: String,
    error_description: String,
    error_codes: Vec<i64>,
}

/// One login of the application with this secret.
pub(super) async fn ask(
    http: &Client,
    authority: &str,
    tenant: &str,
    client_id: &str,
    secret: &Secret,
) -> Result<Asked, Fault> {
    let call = Call::new(format!("log in as client {client_id} with the probed secret"));
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_id", client_id),
        ("client_secret", secret.expose()),
        ("scope", SCOPE),
    ];
    let url = format!("{authority}/{tenant}/oauth2/v2.0/token");
    let answer = http.send(call.what(), Request::post_form(url, &fields)).await?;
    if answer.status == 200 {
        let granted: Granted = serde_json::from_slice(&answer.body)
            .map_err(|_| Fault::Unknown(call.text("status 200 and a body without a token")))?;
        return Ok(Asked::Given(granted.access_token));
    }
    // JSON of somebody in between says nothing of the secret.
    let refused: Option<Refused> = serde_json::from_slice(&answer.body).ok();
    let Some(refused) = refused.filter(|refused| !refused.error.is_empty()) else {
        let why = format!("status {} and a body that is no answer of Entra", answer.status);
        return Err(match answer.status {
            429 => Fault::Retry { after: answer.retry_after, why: call.text(why) },
            _ => Fault::Unknown(call.text(why)),
        });
    };
    let line = refused.error_description.lines().next().unwrap_or_default();
    let line = Redactor::new([secret]).clean(if line.is_empty() { &refused.error } else { line });
    let text = call.text(format_args!("{line} ({})", answer.status));
    if matches!(answer.status, 408 | 429 | 500..) || refused.error == "temporarily_unavailable" {
        return Err(Fault::Retry { after: answer.retry_after, why: text });
    }
    let is = |code: i64| refused.error_codes.contains(&code);
    if is(7_000_215) {
        return Ok(Asked::Unknown(text));
    }
    if is(7_000_222) {
        return Ok(Asked::Over(text));
    }
    let reason = if is(700_016) { Reason::NotFound } else { Reason::Refused };
    Err(Fault::Refused { reason, why: text })
}
