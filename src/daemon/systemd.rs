//! What systemd is told: ready, reloading, stopping, the status line, and that the engine is alive.
//!
//! Without `NOTIFY_SOCKET` all of this does nothing. The time for the start is never extended: a journal of 30,000 events is replayed in
//! half a second by an unoptimised build, so that one of a million, a hundred services for a generation, is well within 90 s.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::{Notify, watch};
use tracing::warn;

use crate::engine::{Report, ServiceReport, StateWord};

use super::refused::{Refusal, Refused};

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
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping: what runs is let end, nothing new is begun")]);
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
pub async fn keep_status(mut reports: watch::Receiver<Arc<Report>>, mut refused: Refused) {
    let mut said = String::new();
    loop {
        let text = in_a_line(&reports.borrow_and_update().clone(), refused.refusal().as_deref());
        if text != said {
            tell(&[NotifyState::Status(&text)]);
            said = text;
        }
        // A busy engine reports many times a second.
        tokio::time::sleep(Duration::from_millis(500)).await;
        tokio::select! {
            changed = reports.changed() => if changed.is_err() { return },
            () = refused.changed() => {}
        }
    }
}

/// So many names are shown of those that are in one state; the others are counted.
const NAMES_MAX: usize = 3;

/// What runs, what needs somebody, and what is next: `2 services: 1 rotating (a, deploying), 1 halted (b), next a at ...`.
/// `refusal`: the policy in force is not the one in the file.
pub fn in_a_line(report: &Report, refusal: Option<&Refusal>) -> String {
    let count = report.services.len();
    let mut parts = Vec::new();
    for state in StateWord::ALL.into_iter().filter(|state| *state != StateWord::Idle) {
        let names: Vec<String> = report.services.iter().filter(|one| one.state == state).map(named).collect();
        parts.extend(counted(state.as_str(), &names));
    }
    let owing = |service: &&ServiceReport| !service.debt.is_empty();
    for (word, of_it) in [
        ("overdue", report.services.iter().filter(|service| service.overdue).map(name).collect::<Vec<_>>()),
        ("owing the end of a key", report.services.iter().filter(owing).map(name).collect()),
    ] {
        parts.extend(counted(word, &of_it));
    }
    let next = report.services.iter().filter_map(|service| Some((service.next_rotation?, &service.name))).min();
    parts.push(match next {
        Some((at, name)) => format!("next {name} at {}", at.format("%Y-%m-%d %H:%M UTC")),
        None => "none due by itself".to_owned(),
    });
    let refused = refusal
        .map_or_else(String::new, |refusal| format!("policy refused, the old one is in force ({}); ", refusal.next));
    format!("{refused}{count} {}: {}", if count == 1 { "service" } else { "services" }, parts.join(", "))
}

/// `2 halted (a, b)`; nothing where there is none.
fn counted(word: &str, names: &[String]) -> Option<String> {
    let shown = names.iter().take(NAMES_MAX).cloned().collect::<Vec<_>>().join("; ");
    let more = names.len().saturating_sub(NAMES_MAX);
    let more = if more > 0 { format!("; {more} more") } else { String::new() };
    (!names.is_empty()).then(|| format!("{} {word} ({shown}{more})", names.len()))
}

/// A service with the phase it is in, where it is on its way.
fn named(service: &ServiceReport) -> String {
    match (service.state, service.phase) {
        (StateWord::Rotating | StateWord::Waiting, Some(phase)) => format!("{}, {}", service.name, phase.as_str()),
        _ => name(service),
    }
}

fn name(service: &ServiceReport) -> String {
    service.name.to_string()
}

#[cfg(test)]
mod tests {
    use super::super::status::tests::service;
    use super::*;
    use crate::model::{KeyId, Timestamp};
    use crate::rotation::Phase;

    fn line(services: Vec<ServiceReport>) -> String {
        in_a_line(&Report { at: None, services }, None)
    }

    fn in_state(name: &str, state: StateWord) -> ServiceReport {
        ServiceReport { state, ..service(name) }
    }

    #[test]
    fn the_status_line_says_what_runs_and_what_is_next() {
        assert_eq!(line(Vec::new()), "0 services: none due by itself");
        assert_eq!(line(vec![service("a")]), "1 service: none due by itself");
        let at = |seconds: i64| Timestamp::from_timestamp(1_795_000_000 + seconds, 0).expect("a time of this century");
        let mut rotating = in_state("prod-object-store", StateWord::Rotating);
        rotating.phase = Some(Phase::Deploying);
        let mut waiting = in_state("w", StateWord::Waiting);
        waiting.phase = Some(Phase::Opened);
        waiting.next_rotation = Some(at(7200));
        let mut due = service("y");
        due.next_rotation = Some(at(0));
        assert_eq!(
            line(vec![rotating, waiting, in_state("x", StateWord::Halted), due]),
            "4 services: 1 rotating (prod-object-store, deploying), 1 waiting (w, opened), 1 halted (x), \
             next y at 2026-11-18 11:06 UTC"
        );
    }

    #[test]
    fn every_state_but_rest_is_told_and_many_names_are_counted() {
        let all = StateWord::ALL.into_iter().map(|state| in_state(state.as_str(), state)).collect();
        assert_eq!(
            line(all),
            "8 services: 1 rotating (rotating), 1 soaking (soaking), 1 watching (watching), 1 waiting (waiting), \
             1 halted (halted), 1 paused (paused), 1 leaving (leaving), none due by itself"
        );
        let many = ["a", "b", "c", "d", "e"].map(|name| in_state(name, StateWord::Halted)).to_vec();
        assert_eq!(line(many), "5 services: 5 halted (a; b; c; 2 more), none due by itself");
    }

    #[test]
    fn what_needs_somebody_is_told_beside_the_state() {
        let mut late = service("late");
        late.overdue = true;
        let mut owing = in_state("owing", StateWord::Soaking);
        owing.debt = vec![KeyId::new("AKIAOLD")];
        let services = vec![late, owing];
        let told =
            "2 services: 1 soaking (owing), 1 overdue (late), 1 owing the end of a key (owing), none due by itself";
        assert_eq!(line(services.clone()), told);
        let refusal = Refusal::new("listen changed", Refusal::RESTART);
        let refused = in_a_line(&Report { at: None, services }, Some(&refusal));
        let why = "policy refused, the old one is in force (systemctl restart rekeyd takes it up)";
        assert_eq!(refused, format!("{why}; {told}"));
    }
}
