//! The heartbeat: wakes the planner, and does nothing else.
//!
//! tokio-cron-scheduler has exactly one job. It owns no due time, because it was measured to run jobs twice on days when the
//! clock changes, to lose jobs that are due in one burst, to fall silent after the wall clock steps back, and to know nothing of
//! what was missed while the process was down. Due times are computed from policy, journal and now at every wake; the engine
//! also wakes by itself, so that a heart that stops delays nothing by more than half a minute.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

/// Every five seconds; the pattern's first field is the second.
const EVERY: &str = "*/5 * * * * *";

/// A beating heart; it stops with this.
pub struct Heartbeat {
    scheduler: JobScheduler,
}

impl Heartbeat {
    /// Starts it.
    ///
    /// # Errors
    /// What the scheduler says. The caller may go on without it.
    pub async fn start(wake: Arc<Notify>) -> Result<Heartbeat, JobSchedulerError> {
        let scheduler = JobScheduler::new().await?;
        let job = Job::new(EVERY, move |_, _| wake.notify_one())?;
        scheduler.add(job).await?;
        scheduler.start().await?;
        Ok(Heartbeat { scheduler })
    }

    /// Stops it.
    pub async fn stop(mut self) {
        if let Err(error) = self.scheduler.shutdown().await {
            tracing::debug!("the heartbeat did not stop by itself: {error}");
        }
    }
}
