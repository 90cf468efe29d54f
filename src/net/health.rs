//! Asks a consumer over HTTP whether it works: one GET, one expected status.
//!
//! Carries no login and follows no redirect. Does not judge a body by itself: what a vendor hides behind a 200 is the caller's to say.

use super::client::{Client, Request};
use crate::ports::Health;

/// Asks once. `objection` looks at the body of an answer with the expected status and says what speaks against it.
///
/// Everything but the expected status is [`Health::Bad`], a connection that fails too. The message names the host, never the query.
pub async fn check(client: &Client, url: &str, expect: u16, objection: impl Fn(&[u8]) -> Option<String>) -> Health {
    match client.send("health check", Request::get(url)).await {
        Err(fault) => Health::Bad(fault.why().to_owned()),
        Ok(answer) if answer.status != expect => {
            Health::Bad(format!("health check at {}: expected status {expect}, got {}", answer.host, answer.status))
        }
        Ok(answer) => match objection(&answer.body) {
            Some(what) => Health::Bad(format!("health check at {}: {what}", answer.host)),
            None => Health::Good,
        },
    }
}
