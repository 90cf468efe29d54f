//! When things are due: durations as the policy writes them, timetables, windows, jitter.
//!
//! ```text
//!   key created ──every──▶ due ──jitter──▶ due time ──window──▶ a rotation may open
//!   last opened ──cron───▶ due ──jitter──▶     "         "
//! ```
//!
//! Invariant: arithmetic only. No clock, no journal, no randomness; the same question has the same answer for ever, so that
//! a restart, a second process and `plan` all see the same due time.

use std::fmt;
use std::time::Duration;

use chrono::TimeDelta;
use chrono_tz::Tz;

use crate::model::{ServiceName, Timestamp};

mod cron;
mod duration;
mod window;

pub use cron::{Cron, NO_SUCH_DATE};
pub use duration::{DURATION_MAX, format_duration, parse_duration};
pub use window::{Window, longest_window_gap, next_open};

/// When a service is rotated by itself.
#[derive(Clone, Debug, PartialEq)]
pub enum Timetable {
    /// So long after its current key was created.
    Every(Duration),
    /// At the times of a cron pattern, in the daemon's zone.
    Cron(Cron),
    /// Only when somebody orders it.
    OnDemand,
}

/// How far a due time is put off, so that services with one timetable do not all start at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Jitter {
    /// Not at all.
    #[default]
    None,
    /// By up to this much.
    Fixed(Duration),
    /// By up to this part of `every`, in percent; a cron pattern has no length to take a part of, and is not put off.
    Percent(u8),
}

impl Jitter {
    /// Reads `"15m"` or `"10%"`.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the text, to follow "`jitter` ...".
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(percent) = text.trim().strip_suffix('%') else {
            return Ok(match parse_duration(text)? {
                Duration::ZERO => Self::None,
                duration => Self::Fixed(duration),
            });
        };
        match percent.trim().parse::<u8>() {
            Ok(0) => Ok(Self::None),
            Ok(percent) if percent <= 100 && !text.trim().starts_with('+') => Ok(Self::Percent(percent)),
            _ => Err(format!("is not a part between 0% and 100%: `{text}`")),
        }
    }

    /// The most a due time of this timetable is put off.
    pub fn longest(self, timetable: &Timetable) -> Duration {
        match (self, timetable) {
            (Self::Fixed(longest), _) => longest,
            // Divided first: a hundred years times a hundred fits, but need not be argued about.
            (Self::Percent(percent), Timetable::Every(every)) => *every / 100 * u32::from(percent),
            (Self::Percent(_) | Self::None, _) => Duration::ZERO,
        }
    }

    /// How far this service's due time is put off: between nothing and `longest`, always the same for one name.
    pub fn of(self, timetable: &Timetable, service: &ServiceName) -> Duration {
        let longest = u64::try_from(self.longest(timetable).as_millis()).unwrap_or(u64::MAX);
        match longest.checked_add(1) {
            Some(choices) => Duration::from_millis(spread(service.as_str()) % choices),
            None => Duration::ZERO,
        }
    }
}

impl fmt::Display for Jitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("0s"),
            Self::Fixed(longest) => f.write_str(&format_duration(*longest)),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl fmt::Display for Timetable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every(every) => write!(f, "every {}", format_duration(*every)),
            Self::Cron(cron) => write!(f, "cron {cron}"),
            Self::OnDemand => f.write_str("on demand"),
        }
    }
}

/// When the service is due. It may lie in the past, which means overdue: a run that was missed is caught up once, because
/// opening it moves what the next one is counted from.
///
/// `None` is never by itself: on demand, or nothing to count from (no current key is known yet).
pub fn next_due(
    timetable: &Timetable,
    jitter: Jitter,
    service: &ServiceName,
    key_created: Option<Timestamp>,
    last_opened: Option<Timestamp>,
    zone: Tz,
) -> Option<Timestamp> {
    let due = match timetable {
        Timetable::Every(every) => later(key_created?, *every),
        Timetable::Cron(cron) => cron.next_after(key_created.max(last_opened)?, zone)?,
        Timetable::OnDemand => return None,
    };
    Some(later(due, jitter.of(timetable, service)))
}

/// A sum of time that ends with the calendar instead of overflowing.
fn later(at: Timestamp, by: Duration) -> Timestamp {
    TimeDelta::from_std(by).ok().and_then(|by| at.checked_add_signed(by)).unwrap_or(Timestamp::MAX_UTC)
}

/// A number for a name: FNV-1a, stirred so that names with one beginning end up far apart. Stable over versions and
/// machines, unlike the standard library's hasher; changing it moves every due time.
fn spread(name: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in name.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("the test writes RFC 3339")
    }

    fn due(timetable: &Timetable, created: Option<&str>, opened: Option<&str>) -> Option<Timestamp> {
        let name = ServiceName::new("prod");
        next_due(timetable, Jitter::None, &name, created.map(at), opened.map(at), chrono_tz::UTC)
    }

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn every_counts_from_the_keys_creation() {
        let every = Timetable::Every(30 * DAY);
        let created = Some("2027-01-01T10:00:00Z");
        assert_eq!(due(&every, created, None), Some(at("2027-01-31T10:00:00Z")));
        assert_eq!(due(&every, created, Some("2027-01-20T00:00:00Z")), Some(at("2027-01-31T10:00:00Z")));
        assert_eq!(due(&every, None, created), None);
    }

    #[test]
    fn cron_counts_from_what_was_opened_or_created_last() {
        let cron = Timetable::Cron(Cron::parse("0 0 3 1 * *").expect("a good pattern"));
        assert_eq!(due(&cron, Some("2027-01-01T10:00:00Z"), None), Some(at("2027-02-01T03:00:00Z")));
        assert_eq!(
            due(&cron, Some("2027-01-01T10:00:00Z"), Some("2027-03-01T03:00:01Z")),
            Some(at("2027-04-01T03:00:00Z"))
        );
        assert_eq!(due(&cron, None, None), None);
    }

    #[test]
    fn missed_runs_are_caught_up_once() {
        let cron = Timetable::Cron(Cron::parse("0 0 3 * * *").expect("a good pattern"));
        // The daemon was off for a week; the oldest missed run is due, and opening it skips the rest.
        let missed = due(&cron, Some("2027-01-01T10:00:00Z"), None);
        assert_eq!(missed, Some(at("2027-01-02T03:00:00Z")));
        assert_eq!(due(&cron, None, Some("2027-01-08T12:00:00Z")), Some(at("2027-01-09T03:00:00Z")));
    }

    #[test]
    fn on_demand_is_never_due() {
        assert_eq!(due(&Timetable::OnDemand, Some("2027-01-01T10:00:00Z"), None), None);
    }

    #[test]
    fn jitter_is_the_same_for_ever() {
        // Pinned: another number here would move the due times of every installation.
        let every = Timetable::Every(30 * DAY);
        let of = |jitter: Jitter, name: &str| jitter.of(&every, &ServiceName::new(name)).as_millis();
        assert_eq!(of(Jitter::Fixed(DAY), "prod"), 43_388_280);
        assert_eq!(of(Jitter::Percent(10), "prod-object-store"), 147_776_659);
        assert_eq!(of(Jitter::None, "prod"), 0);
    }

    #[test]
    fn a_part_of_a_cron_pattern_is_nothing() {
        let cron = Timetable::Cron(Cron::parse("0 0 3 * * *").expect("a good pattern"));
        assert_eq!(Jitter::Percent(50).longest(&cron), Duration::ZERO);
        assert_eq!(Jitter::Fixed(DAY).longest(&cron), DAY);
    }

    #[test]
    fn jitter_is_read_as_a_duration_or_a_part() {
        assert_eq!(Jitter::parse("0s"), Ok(Jitter::None));
        assert_eq!(Jitter::parse("15m"), Ok(Jitter::Fixed(Duration::from_secs(900))));
        assert_eq!(Jitter::parse("10%"), Ok(Jitter::Percent(10)));
        for bad in ["", "101%", "-1%", "%", "10", "+5%", "1.5%"] {
            assert!(Jitter::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_calendar_ends_and_does_not_overflow() {
        let created = Some(Timestamp::MAX_UTC);
        let name = ServiceName::new("prod");
        for timetable in [Timetable::Every(DAY), Timetable::Cron(Cron::parse("@daily").expect("a good pattern"))] {
            let due = next_due(&timetable, Jitter::Fixed(DAY), &name, created, None, chrono_tz::UTC);
            assert!(due.is_none_or(|due| due == Timestamp::MAX_UTC));
        }
    }

    proptest::proptest! {
        #[test]
        fn jitter_keeps_its_bounds(name in "[a-z0-9-]{1,20}", millis in 0..10_000_000_000_u64, percent in 0..=100_u8) {
            let every = Timetable::Every(Duration::from_millis(millis));
            for jitter in [Jitter::Fixed(Duration::from_millis(millis)), Jitter::Percent(percent)] {
                let put_off = jitter.of(&every, &ServiceName::new(name.clone()));
                proptest::prop_assert!(put_off <= jitter.longest(&every));
            }
        }
    }
}
