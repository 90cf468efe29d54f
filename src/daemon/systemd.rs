//! What systemd is told: ready, reloading, stopping, the status line, and that the engine is alive.
//!
//! Without `NOTIFY_SOCKET` all of this does nothing.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::{Notify, watch};
use tracing::warn;

use crate::engine::{Report, StateWord};

/// Everything stands.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The policy is being read again.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => warn!("reading the monotonic clock failed, so systemd is not told of the reload: {error}"),
    }
}

/// The end has begun.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// The status line of `systemctl status`.
pub fn status(text: &str) {
    tell(&[NotifyState::Status(text)]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!("telling systemd failed: {error}");
    }
}

/// Feeds the watchdog as long as the engine goes round: it is woken, and only a new report is an answer. A loop that is stuck
/// starves it, however well the rest of the process feels.
pub async fn feed_watchdog(wake: Arc<Notify>, mut reports: watch::Receiver<Arc<Report>>) {
    let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) else { return };
    loop {
        reports.mark_unchanged();
        wake.notify_one();
        if reports.changed().await.is_err() {
            return;
        }
        tell(&[NotifyState::Watchdog]);
        tokio::time::sleep(limit / 3).await;
    }
}

/// Keeps the status line true.
pub async fn keep_status(mut reports: watch::Receiver<Arc<Report>>) {
    let mut said = String::new();
    loop {
        let text = in_a_line(&reports.borrow_and_update().clone());
        if text != said {
            status(&text);
            said = text;
        }
        // A busy engine reports many times a second.
        tokio::time::sleep(Duration::from_millis(500)).await;
        if reports.changed().await.is_err() {
            return;
        }
    }
}

/// Services, those that need somebody, and the next rotation.
pub fn in_a_line(report: &Report) -> String {
    let count = report.services.len();
    let mut line = format!("{count} {}", if count == 1 { "service" } else { "services" });
    let halted: Vec<_> = report.services.iter().filter(|service| service.state == StateWord::Halted).collect();
    if !halted.is_empty() {
        let names: Vec<_> = halted.iter().take(3).map(|service| service.name.as_str()).collect();
        line.push_str(&format!(", {} halted ({})", halted.len(), names.join(", ")));
    }
    let next = report.services.iter().filter_map(|service| Some((service.next_rotation?, &service.name))).min();
    match next {
        Some((at, name)) => line.push_str(&format!(", next {name} at {}", at.format("%Y-%m-%d %H:%M UTC"))),
        None => line.push_str(", none due by itself"),
    }
    line
}
