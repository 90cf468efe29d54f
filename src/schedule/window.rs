//! Windows: the hours in which a rotation may be opened.
//!
//! Written as `Sat 22:00-Sun 04:00` (once a week), `Mon-Fri 22:00-04:00` or `Sat,Sun 10:00-16:00` (on those days) or
//! `22:00-04:00` (every day), in the daemon's zone. A window ends before the instant it names.
//!
//! On the two odd days of a year: an edge that does not exist is the first instant that does; one that exists twice is the
//! first of the two; a window that falls wholly into the missing hour keeps its length and comes right behind it.

use std::fmt;
use std::time::Duration;

use chrono::{Datelike, Days, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone, Weekday};
use chrono_tz::Tz;

use crate::model::Timestamp;

const DAY: u32 = 24 * 60;
const WEEK: u32 = 7 * DAY;

/// One window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    text: String,
    /// On which days it opens, from Monday.
    days: [bool; 7],
    /// When it opens, in minutes of the day.
    opens: u32,
    /// How long it is by the clock on the wall, in minutes; at most a week.
    length: u32,
}

impl Window {
    /// Reads a window.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the text, to follow "`TEXT` ...".
    pub fn parse(text: &str) -> Result<Self, String> {
        // People copy dashes from documents.
        let clean = text.replace(['–', '—'], "-");
        let (days, times) = clean.trim().split_at(first_digit(clean.trim()).ok_or("names no time")?);
        let (from, to) = times.split_once('-').ok_or("names no end")?;
        let (last_day, to) = to.trim().split_at(first_digit(to.trim()).ok_or("names no end")?);
        let (days, last_day) = (days.trim(), last_day.trim());
        let opens = minutes(from).filter(|minutes| *minutes < DAY).ok_or_else(|| not_a_time(from))?;
        let closes = minutes(to).ok_or_else(|| not_a_time(to))?;
        let open_days = open_days(days)?;
        let length = if last_day.is_empty() {
            match closes.cmp(&opens) {
                std::cmp::Ordering::Greater => closes - opens,
                std::cmp::Ordering::Less => closes + DAY - opens,
                std::cmp::Ordering::Equal => return Err("ends when it begins".into()),
            }
        } else {
            let last = weekday(last_day)?;
            let mut single = (0..7).filter(|day| open_days[*day as usize]);
            let (Some(first), None) = (single.next(), single.next()) else {
                return Err("begins on several days and ends on one".into());
            };
            let days = (last + 7 - first) % 7;
            match (days * DAY + closes).checked_sub(opens) {
                None | Some(0) => return Err("ends before it begins".into()),
                Some(length) => length,
            }
        };
        Ok(Self { text: text.trim().to_owned(), days: open_days, opens, length })
    }

    /// The window as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a rotation may be opened at this instant.
    pub fn contains(&self, at: Timestamp, zone: Tz) -> bool {
        self.around(at, zone).any(|(open, close)| open <= at && at < close)
    }

    /// Every opening that may matter at this instant: those still running from the days before, and those of the next days.
    fn around(&self, at: Timestamp, zone: Tz) -> impl Iterator<Item = (Timestamp, Timestamp)> {
        let today = at.with_timezone(&zone).date_naive();
        let first = today.checked_sub_days(Days::new(9)).unwrap_or(NaiveDate::MIN);
        first
            .iter_days()
            .take(20)
            .filter(|day| self.days[day.weekday().num_days_from_monday() as usize])
            .filter_map(move |day| self.on(day, zone))
    }

    /// The opening that begins on this day.
    fn on(&self, day: NaiveDate, zone: Tz) -> Option<(Timestamp, Timestamp)> {
        let midnight = day.and_time(NaiveTime::MIN);
        let opens = midnight.checked_add_signed(TimeDelta::minutes(self.opens.into()))?;
        let length = TimeDelta::minutes(self.length.into());
        let open = instant(opens, zone)?;
        let close = instant(opens.checked_add_signed(length)?, zone)?;
        let close = if close > open { close } else { open.checked_add_signed(length)? };
        Some((open, close))
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The first instant that is neither before `due` nor before `now` and lies inside a window; no windows means any time.
pub fn next_open(due: Timestamp, windows: &[Window], now: Timestamp, zone: Tz) -> Timestamp {
    let earliest = due.max(now);
    if windows.is_empty() {
        return earliest;
    }
    windows
        .iter()
        .flat_map(|window| window.around(earliest, zone))
        .filter(|(_, close)| earliest < *close)
        .map(|(open, _)| open.max(earliest))
        .min()
        // Every window opens within a week; only the end of the calendar leaves none.
        .unwrap_or(Timestamp::MAX_UTC)
}

/// The longest wait for a window, by the clock on the wall.
pub fn longest_window_gap(windows: &[Window]) -> Duration {
    let mut openings: Vec<(u32, u32)> = Vec::new();
    for window in windows {
        for day in (0..7).filter(|day| window.days[*day as usize]) {
            let open = day * DAY + window.opens;
            openings.push((open, open + window.length));
        }
    }
    openings.sort_unstable();
    let Some(first) = openings.first().copied() else { return Duration::ZERO };
    // Openings that run over the end of the week reach into its beginning.
    let mut covered = openings.iter().map(|(_, close)| close.saturating_sub(WEEK)).max().unwrap_or_default();
    let mut longest = 0;
    for (open, close) in openings.into_iter().chain([(first.0 + WEEK, first.1 + WEEK)]) {
        if covered > 0 || open > first.0 {
            longest = longest.max(open.saturating_sub(covered));
        }
        covered = covered.max(close);
    }
    Duration::from_secs(u64::from(longest) * 60)
}

/// The instant a clock on the wall shows this.
fn instant(local: NaiveDateTime, zone: Tz) -> Option<Timestamp> {
    // A skipped time is looked for in the minutes behind it; the longest skip ever was a day (Samoa, 2011).
    (0..=2 * i64::from(DAY))
        .filter_map(|minutes| local.checked_add_signed(TimeDelta::minutes(minutes)))
        .find_map(|local| zone.from_local_datetime(&local).earliest())
        .map(|found| found.to_utc())
}

fn first_digit(text: &str) -> Option<usize> {
    text.find(|c: char| c.is_ascii_digit())
}

/// `22:00` in minutes of the day; `24:00` is the end of it.
fn minutes(text: &str) -> Option<u32> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let number = |text: &str| (1..=2).contains(&text.len()).then(|| text.parse::<u32>().ok()).flatten();
    let (hours, minutes) = (number(hours)?, (minutes.len() == 2).then(|| number(minutes)).flatten()?);
    let total = hours * 60 + minutes;
    (minutes < 60 && total <= DAY && !text.contains('+')).then_some(total)
}

fn not_a_time(text: &str) -> String {
    format!("names a time that is none: `{}`", text.trim())
}

/// `Mon-Fri`, `Sat,Sun`, `Sat`, or nothing for every day.
fn open_days(text: &str) -> Result<[bool; 7], String> {
    if text.is_empty() {
        return Ok([true; 7]);
    }
    let mut days = [false; 7];
    for part in text.split(',').map(str::trim) {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (weekday(first.trim())?, weekday(last.trim())?),
            None => (weekday(part)?, weekday(part)?),
        };
        for day in 0..=(last + 7 - first) % 7 {
            days[((first + day) % 7) as usize] = true;
        }
    }
    Ok(days)
}

fn weekday(text: &str) -> Result<u32, String> {
    text.parse::<Weekday>()
        .map(|day| day.num_days_from_monday())
        .map_err(|_| format!("names a day that is none: `{text}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("the test writes RFC 3339")
    }

    fn windows(texts: &[&str]) -> Vec<Window> {
        texts.iter().map(|text| Window::parse(text).expect("a good window")).collect()
    }

    fn opens(window: &str, zone: Tz, due: &str) -> String {
        next_open(at(due), &windows(&[window]), at(due), zone).with_timezone(&zone).to_rfc3339()
    }

    #[test]
    fn a_window_is_waited_for() {
        // 2027-01-02 is a Saturday.
        let weekly = "Sat 22:00-Sun 04:00";
        assert_eq!(opens(weekly, Tz::UTC, "2027-01-01T00:00:00Z"), "2027-01-02T22:00:00+00:00");
        assert_eq!(opens(weekly, Tz::UTC, "2027-01-03T03:59:59Z"), "2027-01-03T03:59:59+00:00");
        assert_eq!(opens(weekly, Tz::UTC, "2027-01-03T04:00:00Z"), "2027-01-09T22:00:00+00:00");
        assert_eq!(opens("22:00-04:00", Tz::UTC, "2027-01-03T04:00:00Z"), "2027-01-03T22:00:00+00:00");
        assert_eq!(opens("Mon-Fri 22:00-04:00", Tz::UTC, "2027-01-02T03:00:00Z"), "2027-01-02T03:00:00+00:00");
        assert_eq!(opens("Mon-Fri 22:00-04:00", Tz::UTC, "2027-01-02T05:00:00Z"), "2027-01-04T22:00:00+00:00");
        assert_eq!(opens("Fri-Mon 9:00-12:00", Tz::UTC, "2027-01-02T13:00:00Z"), "2027-01-03T09:00:00+00:00");
        assert_eq!(opens("00:00-24:00", Tz::UTC, "2027-01-02T13:00:00Z"), "2027-01-02T13:00:00+00:00");
    }

    #[test]
    fn a_past_due_time_opens_now_and_no_window_means_any_time() {
        let (due, now) = (at("2027-01-01T00:00:00Z"), at("2027-01-05T12:00:00Z"));
        assert_eq!(next_open(due, &[], now, Tz::UTC), now);
        assert_eq!(next_open(due, &windows(&["22:00-04:00"]), now, Tz::UTC), at("2027-01-05T22:00:00Z"));
    }

    #[test]
    fn a_window_follows_the_clock_on_the_wall() {
        let zone = Tz::Europe__Dublin;
        assert_eq!(opens("22:00-04:00", zone, "2027-07-01T12:00:00Z"), "2027-07-01T22:00:00+01:00");
        assert_eq!(opens("22:00-04:00", zone, "2027-01-01T12:00:00Z"), "2027-01-01T22:00:00+00:00");
    }

    #[test]
    fn a_window_in_the_hour_that_spring_skips_comes_behind_it() {
        let zone = Tz::Europe__Dublin;
        assert_eq!(opens("Sun 01:15-01:45", zone, "2027-03-27T12:00:00Z"), "2027-03-28T02:00:00+01:00");
        let window = &windows(&["Sun 01:15-01:45"])[0];
        assert!(window.contains(at("2027-03-28T01:29:59Z"), zone));
        assert!(!window.contains(at("2027-03-28T01:30:00Z"), zone));
    }

    #[test]
    fn a_window_in_the_hour_that_autumn_repeats_is_the_first_of_the_two() {
        let (zone, window) = (Tz::Europe__Dublin, &windows(&["Sun 01:15-01:45"])[0]);
        assert!(window.contains(at("2027-10-31T00:30:00Z"), zone));
        assert!(!window.contains(at("2027-10-31T01:30:00Z"), zone));
    }

    #[test]
    fn what_is_no_window_is_refused() {
        for (text, why) in [
            ("", "names no time"),
            ("weekends", "names no time"),
            ("22:00", "names no end"),
            ("22:00-", "names no end"),
            ("22:00-22:00", "ends when it begins"),
            ("Sat 22:00-Sat 04:00", "ends before it begins"),
            ("Mon-Fri 22:00-Sat 04:00", "begins on several days and ends on one"),
            ("25:00-26:00", "names a time that is none: `25:00`"),
            ("22:60-23:00", "names a time that is none: `22:60`"),
            ("24:00-02:00", "names a time that is none: `24:00`"),
            ("22-04", "names a time that is none: `22`"),
            ("10 pm-4 am", "names a time that is none: `10 pm`"),
            ("Caturday 22:00-Sun 04:00", "names a day that is none: `Caturday`"),
            ("Sat 22:00-Son 04:00", "names a day that is none: `Son`"),
        ] {
            assert_eq!(Window::parse(text), Err(why.to_owned()), "{text}");
        }
    }

    #[test]
    fn dashes_and_blanks_are_forgiven() {
        let plain = Window::parse("Sat 22:00-Sun 04:00").expect("a good window");
        for text in ["sat 22:00 - sun 4:00", "Saturday 22:00–Sunday 04:00", " Sat  22:00 -Sun 04:00 "] {
            let window = Window::parse(text).expect("a good window");
            assert_eq!((window.days, window.opens, window.length), (plain.days, plain.opens, plain.length));
        }
    }

    #[test]
    fn the_longest_wait_is_counted_around_the_week() {
        let hours = |texts: &[&str]| longest_window_gap(&windows(texts)).as_secs_f64() / 3600.0;
        assert_eq!(hours(&[]), 0.0);
        assert_eq!(hours(&["00:00-24:00"]), 0.0);
        assert_eq!(hours(&["22:00-04:00"]), 18.0);
        assert_eq!(hours(&["Sat 22:00-Sun 04:00"]), 162.0);
        assert_eq!(hours(&["Sun 22:00-Mon 04:00"]), 162.0);
        assert_eq!(hours(&["Sat 22:00-Sun 04:00", "Wed 22:00-Thu 04:00"]), 90.0);
        assert_eq!(hours(&["Mon-Fri 22:00-04:00"]), 66.0);
        assert_eq!(hours(&["Sat 00:00-Fri 24:00"]), 0.0);
        assert_eq!(hours(&["Mon 10:00-Fri 10:00", "Tue 10:00-Wed 10:00"]), 72.0);
    }

    proptest::proptest! {
        #[test]
        fn a_rotation_opens_inside_a_window_and_not_before_its_time(
            first in 0..7_usize, last in 0..7_usize, from in 0..1440_u32, to in 0..=1440_u32, due in 1_700_000_000_i64..2_000_000_000,
            wait in -100_000_000_i64..100_000_000, zone in 0..5_usize, daily in proptest::bool::ANY,
        ) {
            const NAMES: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
            let clock = |minutes: u32| format!("{:02}:{:02}", minutes / 60, minutes % 60);
            let text = if daily {
                format!("{}-{}", clock(from), clock(to))
            } else {
                format!("{} {}-{} {}", NAMES[first], clock(from), NAMES[last], clock(to))
            };
            let zone =
                [Tz::UTC, Tz::Europe__Dublin, Tz::America__Santiago, Tz::Australia__Lord_Howe, Tz::Africa__Casablanca][zone];
            if let Ok(window) = Window::parse(&text) {
                let due = Timestamp::from_timestamp(due, 5).expect("in range");
                let now = due + TimeDelta::seconds(wait);
                let windows = [window];
                let open = next_open(due, &windows, now, zone);
                proptest::prop_assert!(open >= now && open >= due, "{}", open);
                proptest::prop_assert!(windows[0].contains(open, zone), "{} {}", text, open);
                let longest = TimeDelta::from_std(longest_window_gap(&windows)).expect("in range");
                // Two hours for the odd days of the year.
                proptest::prop_assert!(open - due.max(now) <= longest + TimeDelta::hours(2), "{} {}", text, open);
                if open > due.max(now) {
                    proptest::prop_assert!(!windows[0].contains(open - TimeDelta::milliseconds(1), zone), "{} {}", text, open);
                }
            }
        }

        #[test]
        fn no_text_upsets_it(text in "[A-Za-zé0-9:,– -]{0,30}") {
            let _ = Window::parse(&text);
        }
    }
}
