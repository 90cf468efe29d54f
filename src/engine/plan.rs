//! When a service at rest does what: a pure function of policy, state and now.

use std::time::Duration;

use chrono::TimeDelta;
use chrono_tz::Tz;
use tokio::time::Instant as Tick;

use crate::model::{Instant, Timestamp};
use crate::policy::Service;
use crate::rotation::event::{Cause, RotationKind};
use crate::rotation::{Effect, ServiceState};
use crate::schedule;

/// What a service at rest does next.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// This, and why, and what a rotation opened by it would install.
    Run(Effect, Cause, RotationKind),
    /// Nothing for so long, and what it waits for (empty: for its time).
    Wait(Duration, String),
}

const IDLE: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);

/// What this process has seen of a service at rest.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// When it was last observed.
    pub observed: Option<Tick>,
    /// When its current key ends by itself, where it does.
    pub expires: Option<Timestamp>,
}

/// Decides what a service at rest does next.
pub fn plan(state: &ServiceState, policy: Option<&Service>, zone: Tz, now: &Instant, seen: Seen) -> Next {
    let Seen { observed, expires } = seen;
    let Some(service) = policy else { return Next::Wait(IDLE, String::new()) };
    if state.rotation.is_some() || state.halt.is_some() {
        return Next::Wait(IDLE, String::new());
    }
    if state.current.is_none() {
        // Nothing changes by itself within seconds at a user with no or two keys; `observe` is how often it is looked at.
        return match left(observed, service.observe) {
            Some(left) => Next::Wait(left, String::new()),
            None => Next::Run(Effect::FirstContact, Cause::Timetable, RotationKind::Fresh),
        };
    }
    let switch = state.switch.as_ref().filter(|_| !state.is_compromised_ordered());
    if let (Some((to, by)), None) = (switch, &state.paused) {
        let cause = Cause::Operator { by: by.clone(), compromised: false };
        return Next::Run(Effect::Survey, cause, RotationKind::to(to.clone()));
    }
    let opening = if state.paused.is_some() { None } else { opening(state, service, zone, now, expires) };
    match opening {
        Some((at, cause)) if at <= now.wall => {
            let kind = if cause == Cause::Drift { repush_all(service) } else { RotationKind::Fresh };
            return Next::Run(Effect::Survey, cause, kind);
        }
        _ => {}
    }
    if let Some(next) = observe(state, policy, observed) {
        return next;
    }
    let until_observed = left(observed, service.observe).unwrap_or(IDLE);
    match opening {
        Some((at, cause)) => {
            let wait = (at - now.wall).to_std().unwrap_or_default();
            let why = if state.order.is_some() {
                format!("ordered ({}), waits for its window, which opens {at}", cause_word(&cause))
            } else {
                String::new()
            };
            Next::Wait(wait.min(until_observed), why)
        }
        None => Next::Wait(until_observed, String::new()),
    }
}

/// Whether it is time to look at the world: at rest, and while an old key soaks or is watched.
pub(crate) fn observe(state: &ServiceState, policy: Option<&Service>, observed: Option<Tick>) -> Option<Next> {
    let service = policy?;
    let moving = state.rotation.as_ref().is_some_and(|rotation| rotation.moving() || rotation.verified.is_none());
    if moving || state.current.is_none() || state.halt.is_some() || left(observed, service.observe).is_some() {
        return None;
    }
    Some(Next::Run(Effect::Observe, Cause::Timetable, RotationKind::Fresh))
}

/// When the next rotation may open, and why it would: an order, the timetable, or `max_age` outside the window.
pub(crate) fn opening(
    state: &ServiceState,
    service: &Service,
    zone: Tz,
    now: &Instant,
    expires: Option<Timestamp>,
) -> Option<(Timestamp, Cause)> {
    if let Some(order) = &state.order {
        let at_once = matches!(order, Cause::Operator { compromised: true, .. } | Cause::Drift);
        let at = if at_once { now.wall } else { schedule::next_open(now.wall, &service.windows, now.wall, zone) };
        return Some((at, order.clone()));
    }
    let current = state.current.as_ref().filter(|_| state.uses_no_key().is_none())?;
    let due = due(state, service, zone, expires)?;
    let inside = schedule::next_open(due, &service.windows, now.wall, zone);
    match service.max_age.filter(|_| service.break_window) {
        Some(max_age) => {
            let limit = aged(current.created, max_age);
            if limit < inside { Some((limit.max(due), Cause::MaxAge)) } else { Some((inside, Cause::Timetable)) }
        }
        None => Some((inside, Cause::Timetable)),
    }
}

/// When the timetable wants the next rotation, window apart. In the past when it is overdue.
///
/// `expires` is when the current key ends by itself, as its issuer listed it last; what was derived from it may end before.
pub(crate) fn due(state: &ServiceState, service: &Service, zone: Tz, expires: Option<Timestamp>) -> Option<Timestamp> {
    let created = state.current.as_ref().map(|current| current.created);
    let derived = state.current.as_ref().and_then(|current| state.derived_until(&current.key));
    let expires = expires.into_iter().chain(derived).min();
    let by_timetable =
        schedule::next_due(&service.timetable, service.jitter, &service.name, created, state.last_opened, zone);
    // A tenth of its life before a key ends, or a month, and not before it is listed: whoever has no timetable has no wish for an
    // outage either. A window may come round late, and the rotation before must be over.
    let last = expires.zip(created).map(|(expires, created)| {
        let life = (expires - created).to_std().unwrap_or_default();
        let early = (life / 10).min(MONTH).max(schedule::longest_window_gap(&service.windows) + DAY);
        expires.checked_sub_signed(TimeDelta::from_std(early.min(life / 2)).unwrap_or_default()).unwrap_or(expires)
    });
    match (by_timetable, last) {
        (Some(due), Some(last)) => Some(due.min(last)),
        (due, last) => due.or(last),
    }
}

/// When the next rotation opens or, where it should have opened already, when that was: whoever compares it with now sees how
/// late it is.
pub(crate) fn expected(
    state: &ServiceState,
    service: &Service,
    zone: Tz,
    now: &Instant,
    expires: Option<Timestamp>,
) -> Option<Timestamp> {
    let (at, cause) = opening(state, service, zone, now, expires)?;
    if cause != Cause::Timetable {
        return Some(at);
    }
    let due = due(state, service, zone, expires)?;
    Some(at.min(schedule::next_open(due, &service.windows, due, zone)))
}

/// Whether the current key is older than it may be.
pub(crate) fn too_old(state: &ServiceState, service: &Service, now: Timestamp) -> bool {
    match (state.current.as_ref(), service.max_age) {
        (Some(_), Some(_)) if state.uses_no_key().is_some() => false,
        (Some(current), Some(max_age)) => now > aged(current.created, max_age),
        _ => false,
    }
}

/// When a key made then reaches an age; the end of the calendar where a liar's date leads beyond it.
fn aged(created: Timestamp, age: Duration) -> Timestamp {
    let age = chrono::TimeDelta::from_std(age).unwrap_or(chrono::TimeDelta::MAX);
    created.checked_add_signed(age).unwrap_or(Timestamp::MAX_UTC)
}

fn repush_all(service: &Service) -> RotationKind {
    RotationKind::Repush(service.targets.iter().map(|target| target.name.clone()).collect())
}

fn left(since: Option<Tick>, every: Duration) -> Option<Duration> {
    let left = every.checked_sub(since?.elapsed())?;
    (!left.is_zero()).then_some(left)
}

fn cause_word(cause: &Cause) -> &'static str {
    match cause {
        Cause::Timetable => "timetable",
        Cause::MaxAge => "max_age",
        Cause::Signal => "signal",
        Cause::Operator { .. } => "command",
        Cause::Drift => "drift",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::KeyId;
    use crate::policy::{Environment, Policy};
    use crate::rotation::Current;

    /// A service with one line of timing, in UTC, and a key made on a Thursday.
    fn service(timing: &str) -> (Service, ServiceState) {
        let text = format!(
            "version = 1\n[aws.main]\n[arcgis.prod]\nproduct = \"kubernetes\"\nadmin_url = \"https://gis.example.com/arcgis/admin\"\n\
             username = \"rotator\"\npassword = {{ env = \"P\" }}\n[[service]]\nname = \"a\"\nsoak = \"1h\"\nsoak_unproven = \"1h\"\n\
             watch = \"1h\"\n{timing}\n[service.issuer]\nkind = \"aws-iam\"\naccount = \"main\"\nuser = \"u\"\n\
             probe = {{ bucket = \"gis-store\", region = \"us-east-1\" }}\n[[service.target]]\nkind = \"arcgis\"\ndeployment = \"prod\"\n\
             service_id = \"eg7hrelq6b\"\n"
        );
        let policy =
            Policy::parse(text, "policy.toml", &Environment::default()).unwrap_or_else(|report| panic!("{report}"));
        let current = Current { key: KeyId::new("AKIAOLD"), created: at("2026-11-05T12:00:00Z"), ours: true };
        (policy.services[0].clone(), ServiceState { current: Some(current), ..ServiceState::default() })
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn now(text: &str) -> Instant {
        Instant { wall: at(text), boot: Duration::ZERO, boot_id: "b".into() }
    }

    #[test]
    fn lateness_counts_from_the_opening_that_was_missed() {
        let (service, state) = service("every = \"10d\"\nwindow = \"Sat 22:00-Sun 04:00\"");
        let expected = |text| expected(&state, &service, Tz::UTC, &now(text), None).expect("it has a timetable");
        // Due on Sunday the 15th at noon; the next window opens on Saturday the 21st.
        assert_eq!(expected("2026-11-16T00:00:00Z"), at("2026-11-21T22:00:00Z"), "waiting for the window is not late");
        assert_eq!(expected("2026-11-25T00:00:00Z"), at("2026-11-21T22:00:00Z"), "a missed window is");
    }

    #[test]
    fn a_key_that_ends_by_itself_is_due_before() {
        let (mut service, state) = service("");
        let due = |service: &Service, days: i64| {
            let end = at("2026-11-05T12:00:00Z") + TimeDelta::days(days);
            let due = due(&state, service, Tz::UTC, (days > 0).then_some(end))?;
            Some((due - at("2026-11-05T12:00:00Z")).num_days())
        };
        assert_eq!(due(&service, 0), None, "on demand alone");
        assert_eq!((due(&service, 100), due(&service, 730)), (Some(90), Some(700)), "a tenth before, or a month");
        assert_eq!(due(&service, 1), Some(0), "never later than half its life");
        service.windows = schedule::Window::parse("Sat 22:00-Sun 04:00").into_iter().collect();
        assert_eq!(due(&service, 30), Some(22), "the window may come round a week late");
        service.timetable = schedule::Timetable::Every(Duration::from_secs(10 * 24 * 3600));
        assert_eq!(due(&service, 100), Some(10));
    }

    #[test]
    fn without_a_window_lateness_counts_from_the_due_time() {
        let (service, state) = service("every = \"10d\"");
        let expected = |text| expected(&state, &service, Tz::UTC, &now(text), None);
        assert_eq!(expected("2026-11-06T00:00:00Z"), Some(at("2026-11-15T12:00:00Z")));
        assert_eq!(expected("2026-12-01T00:00:00Z"), Some(at("2026-11-15T12:00:00Z")));
    }
}
