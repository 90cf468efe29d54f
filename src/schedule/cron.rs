//! Cron patterns: six fields with the seconds first, or five without; `croner` finds the dates.
//!
//! What happens on the two odd days of a year: a time that does not exist in spring runs once, at the first instant that does
//! exist; a time that exists twice in autumn runs once, the first time.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, SubsecRound, TimeZone, Utc};
use chrono_tz::Tz;
use croner::parser::{CronParser, Year};

use crate::model::Timestamp;

/// What is said about a pattern like `0 0 0 31 2 *`.
pub const NO_SUCH_DATE: &str = "names a date that no year has";

/// A pattern that has at least one date to come.
#[derive(Clone, PartialEq)]
pub struct Cron {
    text: String,
    // More than three hundred bytes, and a timetable is moved about.
    pattern: Box<croner::Cron>,
}

impl Cron {
    /// Reads a pattern. One with an impossible date (`0 0 0 31 2 *`) is refused: looking for its next date every time would
    /// cost most of a second and never find one. It costs that once, here.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the text, to follow "`cron` ...".
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let fields = text.split_whitespace().count();
        if !text.starts_with('@') && !matches!(fields, 5 | 6) {
            return Err(format!("has {fields} {}, and needs six", if fields == 1 { "field" } else { "fields" }));
        }
        let parser = CronParser::builder().year(Year::Disallowed).build();
        let pattern = parser.parse(text).map_err(|error| format!("is not a cron pattern ({})", spoken(&error)))?;
        let cron = Self { text: text.to_owned(), pattern: Box::new(pattern) };
        match cron.next_after(some_day(), Tz::UTC) {
            Some(_) => Ok(cron),
            None => Err(NO_SUCH_DATE.into()),
        }
    }

    /// The first time after this instant, in whole seconds.
    ///
    /// `None` where the calendar ends.
    pub fn next_after(&self, after: Timestamp, zone: Tz) -> Option<Timestamp> {
        // croner carries the fraction of a second on into what it finds.
        let mut from: DateTime<Tz> = after.trunc_subsecs(0).with_timezone(&zone);
        loop {
            let found = self.pattern.find_next_occurrence(&from, false).ok()?;
            // croner thinks in local time: in the second half of an autumn hour it finds times of the first half.
            if found > after {
                return Some(found.to_utc());
            }
            if found.naive_local() <= from.naive_local() {
                return None;
            }
            from = found;
        }
    }

    /// The shortest and the longest time between two runs, as far as the next sixty runs tell.
    pub fn gaps(&self, zone: Tz) -> Option<(Duration, Duration)> {
        let mut runs = vec![self.next_after(some_day(), zone)?];
        while runs.len() <= 60 {
            match runs.last().and_then(|last| self.next_after(*last, zone)) {
                Some(next) => runs.push(next),
                None => break,
            }
        }
        let gaps = || runs.windows(2).filter_map(|pair| (pair[1] - pair[0]).to_std().ok());
        Some((gaps().min()?, gaps().max()?))
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cron({})", self.text)
    }
}

/// A day to look at a pattern from. Any will do: one without a year has a date in every forty years or in none.
fn some_day() -> Timestamp {
    Utc.with_ymd_and_hms(2027, 1, 1, 0, 0, 0).earliest().unwrap_or_default()
}

/// croner's message in the form of ours.
fn spoken(error: &croner::errors::CronError) -> String {
    let text = error.to_string();
    let text = text.split_once(": ").map_or(text.as_str(), |(_, rest)| rest).trim_end_matches('.');
    let text = text.trim_start_matches("CronPattern ");
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("the test writes RFC 3339")
    }

    fn runs(pattern: &str, zone: Tz, from: &str, count: usize) -> Vec<String> {
        let cron = Cron::parse(pattern).expect("a good pattern");
        let mut last = at(from);
        (0..count)
            .map(|_| {
                last = cron.next_after(last, zone).expect("there is a next date");
                last.with_timezone(&zone).to_rfc3339()
            })
            .collect()
    }

    #[test]
    fn a_job_in_the_hour_that_spring_skips_runs_once() {
        assert_eq!(
            runs("0 30 1 * * *", Tz::Europe__Dublin, "2027-03-27T12:00:00Z", 2),
            ["2027-03-28T02:00:00+01:00", "2027-03-29T01:30:00+01:00"]
        );
    }

    #[test]
    fn a_job_behind_the_hour_that_spring_skips_runs_once() {
        // tokio-cron-scheduler 0.15 runs this one twice on that day.
        assert_eq!(
            runs("0 0 4 * * *", Tz::Europe__Dublin, "2027-03-27T12:00:00Z", 2),
            ["2027-03-28T04:00:00+01:00", "2027-03-29T04:00:00+01:00"]
        );
    }

    #[test]
    fn a_job_in_the_hour_that_autumn_repeats_runs_once() {
        assert_eq!(
            runs("0 30 1 * * *", Tz::Europe__Dublin, "2027-10-30T12:00:00Z", 2),
            ["2027-10-31T01:30:00+01:00", "2027-11-01T01:30:00+00:00"]
        );
        // Opened at ten past one, the second time: the first half past one is over.
        assert_eq!(runs("0 30 1 * * *", Tz::Europe__Dublin, "2027-10-31T01:10:00Z", 1), ["2027-11-01T01:30:00+00:00"]);
        assert_eq!(
            runs("0 */30 * * * *", Tz::Europe__Dublin, "2027-10-31T01:10:00Z", 1),
            ["2027-10-31T02:00:00+00:00"]
        );
    }

    #[test]
    fn fractions_of_a_second_do_not_stick() {
        let from = "2027-01-01T00:00:00.123456789Z";
        assert_eq!(runs("0 0 3 * * *", Tz::UTC, from, 1), ["2027-01-01T03:00:00+00:00"]);
        assert_eq!(runs("* * * * * *", Tz::UTC, from, 1), ["2027-01-01T00:00:01+00:00"]);
    }

    #[test]
    fn five_fields_and_nicknames_are_read_too() {
        assert_eq!(runs("0 3 1 * *", Tz::UTC, "2027-01-01T12:00:00Z", 1), ["2027-02-01T03:00:00+00:00"]);
        assert_eq!(runs("@daily", Tz::UTC, "2027-01-01T12:00:00Z", 1), ["2027-01-02T00:00:00+00:00"]);
        assert_eq!(runs("0 0 22 * * FRI#L", Tz::UTC, "2027-01-01T12:00:00Z", 1), ["2027-01-29T22:00:00+00:00"]);
    }

    #[test]
    fn what_never_comes_is_refused() {
        assert_eq!(Cron::parse("0 0 0 31 2 *").expect_err("no such day"), "names a date that no year has");
        assert!(Cron::parse("0 0 0 29 2 *").is_ok());
        assert!(Cron::parse("0 0 3 L 2 *").is_ok());
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        assert_eq!(Cron::parse("daily").expect_err("one field"), "has 1 field, and needs six");
        assert_eq!(Cron::parse("0 0 3 1 * * 2030").expect_err("a year"), "has 7 fields, and needs six");
        for bad in ["", "61 0 3 1 * *", "0 0 25 * * *", "x x x x x x", "@never", "0 0 3 0 * *"] {
            let why = Cron::parse(bad).expect_err(bad);
            assert!(!why.ends_with('.') && !why.to_lowercase().contains("cronpattern"), "{bad}: {why}");
        }
    }

    #[test]
    fn gaps_between_runs_are_known() {
        let gaps = |pattern: &str| {
            let (shortest, longest) =
                Cron::parse(pattern).expect("a good pattern").gaps(Tz::UTC).expect("there are runs");
            (shortest.as_secs() / 3600, longest.as_secs() / 3600)
        };
        assert_eq!(gaps("0 0 3 1 * *"), (28 * 24, 31 * 24));
        assert_eq!(gaps("0 0 3,5 * * *"), (2, 22));
    }

    proptest::proptest! {
        #[test]
        fn the_next_time_is_always_later(from in 1_700_000_000_i64..2_000_000_000, hour in 0..24, zone in 0..3_usize) {
            let zone = [Tz::Europe__Dublin, Tz::America__Santiago, Tz::Australia__Lord_Howe][zone];
            let from = Timestamp::from_timestamp(from, 0).expect("in range");
            for pattern in [format!("0 30 {hour} * * *"), format!("0 */20 {hour} * * *")] {
                let next = Cron::parse(&pattern).expect("a good pattern").next_after(from, zone).expect("there is a next date");
                proptest::prop_assert!(next > from);
                proptest::prop_assert!(next - from <= chrono::TimeDelta::hours(49));
            }
        }
    }

    proptest::proptest! {
        // An impossible date takes its time to be found out.
        #![proptest_config(proptest::test_runner::Config::with_cases(32))]

        #[test]
        fn no_pattern_upsets_it(
            time in "[0-9]{1,2}|\\*|\\*/[0-9]{1,2}|[0-9]-[0-9]{1,2}",
            day in "L|LW|[0-9]{1,2}W?|\\*|\\?|L-[0-9]",
            month in "[0-9]{1,2}|JAN|\\*|[0-9]-[0-9]/[0-9]",
            weekday in "[0-8]|[0-7]#[0-9]|[0-7]L|MON-FRI|\\+FRI|\\*|\\?|7-0|FRI#L",
        ) {
            if let Ok(cron) = Cron::parse(&format!("{time} {time} 3 {day} {month} {weekday}")) {
                proptest::prop_assert!(cron.next_after(some_day(), Tz::Europe__Dublin).is_some());
            }
        }
    }
}
