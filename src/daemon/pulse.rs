//! When the engine last reported, on the monotonic clock: a wall clock that is set changes nothing here.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::engine::Report;

/// The time of the last report.
#[derive(Clone)]
pub struct Pulse(Arc<Mutex<Instant>>);

impl Default for Pulse {
    /// Beats once, now.
    fn default() -> Self {
        Pulse(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Pulse {
    /// How long there has been no report.
    pub fn silence(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// Beats with every report, until the engine ends.
    pub async fn keep(self, mut reports: watch::Receiver<Arc<Report>>) {
        while reports.changed().await.is_ok() {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        }
    }

    #[cfg(test)]
    pub(super) fn set_silence(&self, silence: Duration) {
        let then = Instant::now().checked_sub(silence).expect("the machine is older than that");
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = then;
    }
}
