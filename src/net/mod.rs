//! How we speak to the world: clients, sessions, signing, redaction, secret sources. Knows no vendor's resources.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::ports::LoginGuard;

pub mod client;
pub mod command;
pub mod form;
pub mod health;
pub mod identity;
pub mod path;
pub mod program;
pub mod redact;
pub mod secrets;
pub mod shared_key;
pub mod sigv4;
pub mod xml;

/// What every connection needs besides its own table.
#[derive(Clone)]
pub struct Context {
    /// `[daemon].proxy`; an account's or deployment's own comes before it.
    pub proxy: Option<String>,
    /// Hosts reached without the proxy.
    pub no_proxy: Vec<String>,
    /// Remembers refused logins across restarts.
    pub guard: Arc<dyn LoginGuard>,
    /// What several ports use together.
    pub shared: Shared,
}

/// What ports use together, such as a deployment's session: kept where the connections are made, so that nothing is global.
/// Weakly: what no port uses any more is forgotten with its secrets.
#[derive(Clone, Default)]
pub struct Shared(Arc<Mutex<Vec<Weak<dyn Any + Send + Sync>>>>);

impl Shared {
    /// One of those in use that fits.
    pub fn find<T: Any + Send + Sync>(&self, fits: impl Fn(&T) -> bool) -> Option<Arc<T>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let in_use = kept.iter().filter_map(Weak::upgrade).filter_map(|any| any.downcast::<T>().ok());
        in_use.into_iter().find(|known| fits(known))
    }

    /// Lets others find this one for as long as it is in use.
    pub fn keep<T: Any + Send + Sync>(&self, made: &Arc<T>) {
        let made: Arc<dyn Any + Send + Sync> = made.clone();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|known| known.strong_count() > 0);
        kept.push(Arc::downgrade(&made));
    }
}
