//! Whether the policy in the file was refused at the last reload, and why: what systemd's own answer to a reload cannot say.
//!
//! It is forgotten with the next good reload, and with the process: a start with such a file ends at once.

use std::sync::Arc;

use tokio::sync::watch;

/// Says what was refused.
pub struct Refusals(watch::Sender<Option<Arc<str>>>);

/// Hears of it.
#[derive(Clone)]
pub struct Refused(watch::Receiver<Option<Arc<str>>>);

impl Default for Refusals {
    fn default() -> Self {
        Refusals(watch::Sender::new(None))
    }
}

impl Refusals {
    /// The file was refused, and what is in force is older.
    pub fn refuse(&self, why: &str) {
        self.0.send_replace(Some(why.trim_end().into()));
    }

    /// The file is in force.
    pub fn clear(&self) {
        self.0.send_replace(None);
    }

    /// For those who are to know.
    pub fn heard(&self) -> Refused {
        Refused(self.0.subscribe())
    }
}

impl Refused {
    /// Why the file was refused, where it was.
    pub fn why(&self) -> Option<Arc<str>> {
        self.0.borrow().clone()
    }

    /// Whether it was.
    pub fn is_any(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Waits until that changes; for ever where nobody can say so any more.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
