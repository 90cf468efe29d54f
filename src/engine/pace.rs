//! When the next step of a service may be taken: back-off and polling pauses, on the monotonic clock. Nothing here is durable.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant as Tick;

use crate::model::ServiceName;
use crate::rotation::event::{Cause, RotationKind};
use crate::rotation::{Effect, Pace};

/// First pause of a back-off; it doubles.
const BACK_OFF_FIRST: Duration = Duration::from_secs(1);
/// Longest pause of a back-off.
const BACK_OFF_LAST: Duration = Duration::from_secs(300);
/// Pause between two health checks of the consumers.
const HEALTH_EVERY: Duration = Duration::from_secs(15);
/// Longest pause between two looks at a job.
const POLL_LAST: Duration = Duration::from_secs(30);

/// The pacing of one service.
pub(crate) struct Pacing {
    not_before: Option<Tick>,
    tries: HashMap<&'static str, u32>,
    health: Option<Tick>,
    held_up: bool,
    /// What the survey under way would open.
    pub(crate) opening: (Cause, RotationKind),
}

impl Default for Pacing {
    fn default() -> Self {
        Pacing {
            not_before: None,
            tries: HashMap::new(),
            health: None,
            held_up: false,
            opening: (Cause::Timetable, RotationKind::Fresh),
        }
    }
}

impl Pacing {
    /// How long the service must still wait.
    pub(crate) fn left(&self) -> Option<Duration> {
        let left = self.not_before?.saturating_duration_since(Tick::now());
        (!left.is_zero()).then_some(left)
    }

    /// How often an effect was tried in a row without success.
    pub(crate) fn tries(&self, effect: &Effect) -> u32 {
        self.tries.get(super::effect_name(effect)).copied().unwrap_or(0)
    }

    /// Whether the consumers are to be asked again.
    pub(crate) fn health_is_due(&self) -> bool {
        self.health.is_none_or(|last| last.elapsed() >= HEALTH_EVERY)
    }

    /// Notes a health check. It goes on beside everything else and delays nothing.
    pub(crate) fn health_seen(&mut self, good: bool) {
        self.health = Some(Tick::now());
        match good {
            true => _ = self.tries.remove("health"),
            false => *self.tries.entry("health").or_insert(0) += 1,
        }
    }

    /// Whether something holds it up now; pauses between two looks at a job or two probes are work, not waiting.
    pub(crate) fn waits(&self) -> bool {
        self.held_up && self.left().is_some()
    }

    /// Ends every wait (SIGUSR2).
    pub(crate) fn hurry(&mut self) {
        self.not_before = None;
    }

    /// Notes how an effect went. Each effect backs off by itself, so that a success before it does not shorten its pauses.
    pub(crate) fn again(&mut self, service: &ServiceName, effect: &'static str, pace: Pace, poll: Option<Duration>) {
        if pace == Pace::Now {
            self.tries.remove(effect);
            self.not_before = None;
            self.held_up = false;
            return;
        }
        let tries = self.tries.entry(effect).or_insert(0);
        let pause = match pace {
            Pace::Now => Duration::ZERO,
            Pace::BackOff => jittered(grown(BACK_OFF_FIRST, *tries, BACK_OFF_LAST), service, *tries),
            Pace::After(pause) => pause,
            Pace::Poll => grown(poll.unwrap_or(BACK_OFF_FIRST), *tries / 4, POLL_LAST),
        };
        *tries += 1;
        self.held_up = pace != Pace::Poll && effect != "probe";
        self.not_before = Some(Tick::now() + pause);
    }
}

fn grown(first: Duration, doublings: u32, last: Duration) -> Duration {
    first.saturating_mul(2u32.saturating_pow(doublings.min(16))).min(last).max(first.min(last))
}

/// Spreads services that wait for the same thing: 75 to 125 % of the pause, the same for the same service and try.
fn jittered(pause: Duration, service: &ServiceName, tries: u32) -> Duration {
    let seed = service
        .as_str()
        .bytes()
        .fold(u64::from(tries) + 1, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    pause.mul_f64(0.75 + (seed % 1000) as f64 / 2000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_back_off_grows_to_its_limit_and_a_success_ends_it() {
        let service = ServiceName::new("a");
        let mut pacing = Pacing::default();
        let mut last = Duration::ZERO;
        for _ in 0..8 {
            pacing.again(&service, "mint", Pace::BackOff, None);
            let left = pacing.left().expect("a back-off waits");
            assert!(left > last.mul_f64(1.1), "{left:?} after {last:?}");
            last = left;
        }
        for _ in 0..8 {
            pacing.again(&service, "mint", Pace::BackOff, None);
        }
        assert!(pacing.left().expect("it waits") <= BACK_OFF_LAST.mul_f64(1.25));
        pacing.again(&service, "probe", Pace::Now, None);
        pacing.again(&service, "mint", Pace::BackOff, None);
        assert!(
            pacing.left().expect("it waits") > Duration::from_secs(100),
            "a success of another effect shortens nothing"
        );
        pacing.again(&service, "mint", Pace::Now, None);
        assert!(!pacing.waits());
    }
}
