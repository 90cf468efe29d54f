//! How we speak to the world: clients, sessions, signing, redaction, secret sources. Knows no vendor's resources.

use std::sync::Arc;

use crate::ports::LoginGuard;

pub mod client;
pub mod form;
pub mod health;
pub mod redact;
pub mod secrets;
pub mod sigv4;

/// What every connection needs besides its own table.
#[derive(Clone)]
pub struct Context {
    /// `[daemon].proxy`; an account's or deployment's own comes before it.
    pub proxy: Option<String>,
    /// Hosts reached without the proxy.
    pub no_proxy: Vec<String>,
    /// Remembers refused logins across restarts.
    pub guard: Arc<dyn LoginGuard>,
}
