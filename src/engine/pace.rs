//! When the next step of a service may be taken: back-off and polling pauses, on the monotonic clock. Nothing here is durable.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant as Tick;

use crate::model::{KeyId, ServiceName};
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

/// So many failed probes in a row are the way of a fresh key, a minute's worth by default; more are worth a word in the status.
const QUIET_PROBES: u32 = 12;

/// A hundred years is no pause; a server that asks for more than this is asked again all the same.
const AFTER_LAST: Duration = Duration::from_secs(3600);

/// What is held up together. A key that cannot be retired holds up neither the rotation nor another key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Lane {
    Opening,
    Observing,
    Rotation,
    Key(KeyId),
}

/// Why and until when a lane is held up.
struct Held {
    not_before: Tick,
    why: String,
    /// Pauses between two looks at a job or two probes are work, not waiting.
    is_trouble: bool,
}

/// The pacing of one service.
pub(crate) struct Pacing {
    held: BTreeMap<Lane, Held>,
    tries: HashMap<&'static str, (Pace, u32)>,
    health: Option<Tick>,
    /// What the survey under way would open.
    pub(crate) opening: (Cause, RotationKind),
}

impl Default for Pacing {
    fn default() -> Self {
        Pacing {
            held: BTreeMap::new(),
            tries: HashMap::new(),
            health: None,
            opening: (Cause::Timetable, RotationKind::Fresh),
        }
    }
}

impl Pacing {
    /// How long an effect must still wait.
    pub(crate) fn left(&self, effect: &Effect) -> Option<Duration> {
        let left = self.held.get(&lane(effect))?.not_before.saturating_duration_since(Tick::now());
        (!left.is_zero()).then_some(left)
    }

    /// How often in a row an effect came to the nothing that its conclusion counts: a missing job, a failed health check. Looks
    /// at a job that runs, and faults, count for neither.
    pub(crate) fn tries(&self, effect: &Effect) -> u32 {
        match (self.tries.get(super::effect_name(effect)), effect) {
            (Some((_, tries)), Effect::Health) | (Some((Pace::After(_), tries)), _) => *tries,
            _ => 0,
        }
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
            false => self.tries.entry("health").or_insert((Pace::BackOff, 0)).1 += 1,
        }
    }

    /// What troubles it now: the reason of the first lane that is held up by more than the pace of the work.
    pub(crate) fn trouble(&self) -> Option<&str> {
        let now = Tick::now();
        let held = self.held.values().find(|held| held.is_trouble && held.not_before > now);
        held.map(|held| held.why.as_str())
    }

    /// Ends every wait (SIGUSR2, and an operator's order).
    pub(crate) fn hurry(&mut self) {
        self.held.clear();
    }

    /// Notes that nobody could tell what a poll asked: a pause that was asked for is no missing job, and parts two of them.
    pub(crate) fn untold(&mut self, effect: &Effect) {
        if matches!(effect, Effect::Poll(..))
            && let Some((_, tries)) = self.tries.get_mut(super::effect_name(effect))
        {
            *tries = 0;
        }
    }

    /// Notes how an effect went. Each effect backs off by itself, so that a success before it does not shorten its pauses.
    pub(crate) fn again(
        &mut self,
        service: &ServiceName,
        effect: &Effect,
        pace: Pace,
        poll: Option<Duration>,
        why: String,
    ) {
        let name = super::effect_name(effect);
        if pace == Pace::Now {
            self.tries.remove(name);
            self.held.remove(&lane(effect));
            return;
        }
        let (last, tries) = self.tries.entry(name).or_insert((pace, 0));
        if std::mem::discriminant(last) != std::mem::discriminant(&pace) {
            *tries = 0;
        }
        *last = pace;
        let pause = match pace {
            Pace::Now => Duration::ZERO,
            Pace::BackOff => jittered(grown(BACK_OFF_FIRST, *tries, BACK_OFF_LAST), service, *tries),
            Pace::After(pause) => pause.min(AFTER_LAST),
            Pace::Poll => grown(poll.unwrap_or(BACK_OFF_FIRST), *tries / 4, POLL_LAST),
        };
        *tries += 1;
        // A fresh key takes its time to be known everywhere; for how long that is no trouble is a matter of patience.
        let is_trouble = pace != Pace::Poll && (!matches!(effect, Effect::Probe(_)) || *tries > QUIET_PROBES);
        self.held.insert(lane(effect), Held { not_before: Tick::now() + pause, why, is_trouble });
    }
}

fn lane(effect: &Effect) -> Lane {
    match effect {
        Effect::Survey | Effect::FirstContact => Lane::Opening,
        Effect::Observe | Effect::Health => Lane::Observing,
        Effect::Evidence(key, _)
        | Effect::Disable(key)
        | Effect::Enable(key)
        | Effect::Delete(key)
        | Effect::Absence(key) => Lane::Key(key.clone()),
        Effect::PlanMint
        | Effect::Mint(_)
        | Effect::SettleMint
        | Effect::Probe(_)
        | Effect::BeforePush(_)
        | Effect::Push(_)
        | Effect::SettlePush(_)
        | Effect::Poll(..)
        | Effect::ReadBack(_) => Lane::Rotation,
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
        let (plan, settle) = (Effect::PlanMint, Effect::SettleMint);
        let mut pacing = Pacing::default();
        let mut last = Duration::ZERO;
        for _ in 0..8 {
            pacing.again(&service, &plan, Pace::BackOff, None, "no answer".into());
            let left = pacing.left(&plan).expect("a back-off waits");
            assert!(left > last.mul_f64(1.1), "{left:?} after {last:?}");
            last = left;
        }
        for _ in 0..8 {
            pacing.again(&service, &plan, Pace::BackOff, None, "no answer".into());
        }
        assert!(pacing.left(&plan).expect("it waits") <= BACK_OFF_LAST.mul_f64(1.25));
        assert_eq!(pacing.trouble(), Some("no answer"));
        pacing.again(&service, &settle, Pace::Now, None, String::new());
        pacing.again(&service, &plan, Pace::BackOff, None, String::new());
        let left = pacing.left(&plan).expect("it waits");
        assert!(left > Duration::from_secs(100), "a success of another effect shortens nothing");
        pacing.again(&service, &plan, Pace::Now, None, String::new());
        assert_eq!((pacing.left(&plan), pacing.trouble()), (None, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_is_held_up_holds_up_nothing_else() {
        let mut pacing = Pacing::default();
        let stuck = Effect::Disable(KeyId::new("AKIASTUCK"));
        pacing.again(&ServiceName::new("a"), &stuck, Pace::After(Duration::MAX), None, "denied".into());
        assert_eq!(pacing.left(&stuck), Some(AFTER_LAST), "nobody makes us wait for ever");
        assert_eq!(pacing.left(&Effect::Disable(KeyId::new("AKIAOTHER"))), None);
        assert_eq!((pacing.left(&Effect::PlanMint), pacing.left(&Effect::Survey)), (None, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_stays_unknown_is_no_secret() {
        let mut pacing = Pacing::default();
        let probe = Effect::Probe(KeyId::new("AKIANEW"));
        let fails = |pacing: &mut Pacing| {
            let pace = Pace::After(Duration::from_secs(5));
            pacing.again(&ServiceName::new("a"), &probe, pace, None, "key AKIANEW is not usable yet".into());
        };
        for _ in 0..QUIET_PROBES {
            fails(&mut pacing);
            assert_eq!(pacing.trouble(), None, "a fresh key takes its time");
        }
        fails(&mut pacing);
        assert_eq!(pacing.trouble(), Some("key AKIANEW is not usable yet"));
    }

    #[tokio::test(start_paused = true)]
    async fn another_kind_of_nothing_counts_anew() {
        let service = ServiceName::new("a");
        let poll = Effect::Poll(crate::model::TargetName::new("t"), crate::model::JobId::new("j"));
        let mut pacing = Pacing::default();
        for _ in 0..5 {
            pacing.again(&service, &poll, Pace::Poll, None, String::new());
        }
        assert_eq!(pacing.tries(&poll), 0, "a job that runs is not missing");
        pacing.again(&service, &poll, Pace::After(Duration::from_secs(2)), None, String::new());
        assert_eq!(pacing.tries(&poll), 1);
        pacing.again(&service, &poll, Pace::BackOff, None, String::new());
        assert_eq!(pacing.tries(&poll), 0, "nor is one that cannot be asked about");
        pacing.again(&service, &poll, Pace::After(Duration::from_secs(2)), None, String::new());
        pacing.again(&service, &poll, Pace::After(Duration::from_secs(60)), None, "not now, says the server".into());
        pacing.untold(&poll);
        assert_eq!(pacing.tries(&poll), 0, "nor one whose server asks for a pause");
        assert!(pacing.left(&poll).is_some_and(|left| left > Duration::from_secs(59)), "which it gets");
    }
}
