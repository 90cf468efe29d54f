//! The keys that say when and how patiently: each may stand in `[defaults]` and in a `[[service]]`, which comes first.

use std::time::Duration;

use chrono_tz::Tz;

use super::OnDrift;
use crate::issuer::{Lifetime, WatchMin};
use crate::model::{KeepSecret, Terms};
use crate::schedule::{Cron, Jitter, NO_SUCH_DATE, Timetable, Window, format_duration, longest_window_gap};
use crate::table::{Document, Spot, Table, Zero};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What [`Timing::read`] asks for.
pub(super) const KEYS: &[&str] = &[
    "every",
    "cron",
    "jitter",
    "window",
    "propagation",
    "probes",
    "probe_interval",
    "soak",
    "soak_unproven",
    "watch",
    "observe",
    "max_age",
    "break_window",
    "on_signal",
    "on_drift",
    "keep_secret",
];

/// What one table says; `None` is silence.
#[derive(Default)]
pub(super) struct Timing {
    /// `Some` also where the text was wrong, so that a service with a misspelt `every` is not given the default one.
    timetable: Option<(Timetable, Spot)>,
    jitter: Option<(Jitter, Spot)>,
    windows: Option<Vec<Window>>,
    propagation: Option<Duration>,
    probes: Option<u32>,
    probe_interval: Option<Duration>,
    soak: Option<Duration>,
    soak_unproven: Option<(Duration, Spot)>,
    watch: Option<Duration>,
    observe: Option<Duration>,
    max_age: Option<(Duration, Spot)>,
    break_window: Option<(bool, Spot)>,
    on_signal: Option<bool>,
    on_drift: Option<OnDrift>,
    keep_secret: Option<KeepSecret>,
}

/// What a service goes by: its own keys, then `[defaults]`, then ours.
pub(super) struct Settled {
    pub(super) timetable: Timetable,
    pub(super) jitter: Jitter,
    pub(super) windows: Vec<Window>,
    /// `None`: the issuer's own.
    pub(super) propagation: Option<Duration>,
    pub(super) terms: Terms,
    pub(super) observe: Duration,
    pub(super) max_age: Option<Duration>,
    pub(super) break_window: bool,
    pub(super) on_signal: bool,
    pub(super) on_drift: OnDrift,
}

impl Timing {
    /// Reads `[defaults]`, which may be absent.
    pub(super) fn defaults(root: &mut Table<'_>) -> Self {
        root.table("defaults").map(|mut table| Self::read(&mut table)).unwrap_or_default()
    }

    /// Reads these keys out of any table.
    pub(super) fn read(table: &mut Table<'_>) -> Self {
        Self {
            timetable: timetable(table),
            jitter: jitter(table),
            windows: windows(table),
            propagation: table.duration("propagation", Zero::Allowed),
            probes: table.integer_or("probes", 1..=100).and_then(|probes| u32::try_from(probes).ok()),
            probe_interval: table.duration("probe_interval", Zero::Allowed),
            soak: table.duration("soak", Zero::Allowed),
            soak_unproven: spotted(table, "soak_unproven", |t| t.duration("soak_unproven", Zero::Allowed)),
            watch: table.duration("watch", Zero::Allowed),
            observe: table.duration("observe", Zero::Refused),
            max_age: spotted(table, "max_age", |t| t.duration("max_age", Zero::Refused)),
            break_window: spotted(table, "break_window", |t| t.flag_or("break_window")),
            on_signal: table.flag_or("on_signal"),
            on_drift: table.choice("on_drift", &["alert", "push"]).map(|word| match word {
                "push" => OnDrift::Push,
                _ => OnDrift::Alert,
            }),
            keep_secret: table.choice("keep_secret", &["key", "rotation"]).map(|word| match word {
                "rotation" => KeepSecret::Rotation,
                _ => KeepSecret::Key,
            }),
        }
    }

    /// Puts a service's keys over the defaults and checks what they come to together.
    pub(super) fn settle(&self, defaults: &Self, who: &str, zone: Tz, document: &Document<'_>) -> Settled {
        let timetable = self.timetable.as_ref().or(defaults.timetable.as_ref());
        let jitter = self.jitter.as_ref().or(defaults.jitter.as_ref());
        let soak_unproven = self.soak_unproven.as_ref().or(defaults.soak_unproven.as_ref());
        let max_age = self.max_age.as_ref().or(defaults.max_age.as_ref());
        let break_window = self.break_window.as_ref().or(defaults.break_window.as_ref());
        let soak = self.soak.or(defaults.soak).unwrap_or(DAY);
        let settled = Settled {
            timetable: timetable.map_or(Timetable::OnDemand, |(timetable, _)| timetable.clone()),
            jitter: jitter.map_or(Jitter::None, |(jitter, _)| *jitter),
            windows: self.windows.clone().or_else(|| defaults.windows.clone()).unwrap_or_default(),
            propagation: self.propagation.or(defaults.propagation),
            terms: Terms {
                probes: self.probes.or(defaults.probes).unwrap_or(3),
                probe_interval: self.probe_interval.or(defaults.probe_interval).unwrap_or(Duration::from_secs(5)),
                soak,
                // A longer soak than ours is meant for the unproven case too.
                soak_unproven: soak_unproven.map_or((7 * DAY).max(soak), |(soak_unproven, _)| *soak_unproven),
                watch: self.watch.or(defaults.watch).unwrap_or(DAY),
                keep_secret: self.keep_secret.or(defaults.keep_secret).unwrap_or(KeepSecret::Key),
            },
            observe: self.observe.or(defaults.observe).unwrap_or(HOUR),
            max_age: max_age.map(|(max_age, _)| *max_age),
            break_window: break_window.is_some_and(|(break_window, _)| *break_window),
            on_signal: self.on_signal.or(defaults.on_signal).unwrap_or(true),
            on_drift: self.on_drift.or(defaults.on_drift).unwrap_or(OnDrift::Alert),
        };
        let check = Check { settled: &settled, who, zone, document };
        if let Some((_, spot)) = timetable {
            check.retirement_fits(spot, soak_unproven.map(|(_, spot)| spot));
        }
        if let Some((max_age, spot)) = max_age {
            check.max_age_fits(*max_age, spot);
        }
        if let Some((true, spot)) = break_window
            && max_age.is_none()
        {
            document.warn_at(spot, format!("{who} breaks its window for `max_age` and has none"));
        }
        if let Some((_, spot)) = soak_unproven
            && settled.terms.soak_unproven < soak
        {
            let what =
                format!("{who} waits less where a read-back cannot tell (`soak_unproven`) than where it can (`soak`)");
            document.warn_at(spot, what);
        }
        if let Some((Jitter::Percent(_), spot)) = jitter
            && let Timetable::Cron(_) = settled.timetable
        {
            document.mistake_at(
                spot,
                format!("{who} runs by a cron pattern, which has no length to take a part of"),
                "write the jitter as a duration, such as \"15m\"",
            );
        }
        settled
    }
}

impl Settled {
    /// A key that ends by itself must be replaced before it does, and the rotation before must be over by then.
    pub(super) fn check_validity(
        &self,
        Lifetime { option, length }: Lifetime,
        who: &str,
        zone: Tz,
        spot: &Spot,
        document: &Document<'_>,
    ) {
        let every = match &self.timetable {
            Timetable::Every(every) => *every,
            Timetable::Cron(cron) => cron.gaps(zone).map(|(_, longest)| longest).unwrap_or_default(),
            Timetable::OnDemand => Duration::ZERO,
        };
        let late = self.jitter.longest(&self.timetable) + longest_window_gap(&self.windows);
        let takes = every + late + self.terms.soak + self.terms.watch;
        if takes >= length {
            let what = format!(
                "{who} has keys that end by themselves after {}, and the next one may be in place only after {}",
                format_duration(length),
                spoken(takes)
            );
            document.mistake_at(
                spot,
                what,
                format!("make `{option}` {} or longer, or rotate more often", above(takes)),
            );
        }
    }
}

impl Settled {
    /// Some providers want a disabled key left alone for a while before it is deleted.
    pub(super) fn check_watch(&self, min: WatchMin, who: &str, spot: &Spot, document: &Document<'_>) {
        let WatchMin { wait, why } = min;
        if self.terms.watch < wait {
            let (watch, wait) = (format_duration(self.terms.watch), format_duration(wait));
            let what = format!("{who} would delete a key {watch} after it is disabled: {why}");
            document.mistake_at(spot, what, format!("make `watch` {wait} or longer"));
        }
    }
}

/// What a service's timing comes to.
struct Check<'c> {
    settled: &'c Settled,
    who: &'c str,
    zone: Tz,
    document: &'c Document<'c>,
}

impl Check<'_> {
    /// A key must be gone before the next one is due: with two slots at the provider the next mint would find none free.
    fn retirement_fits(&self, spot: &Spot, unproven: Option<&Spot>) {
        let Settled { timetable, windows, terms, .. } = self.settled;
        let (soak, watch, wait) = (terms.soak, terms.watch, longest_window_gap(windows));
        let who = self.who;
        let sum = |soak: Duration| {
            let parts = format!("{} + watch {}", format_duration(soak), format_duration(watch));
            if wait.is_zero() { parts } else { format!("{parts} + up to {} of waiting for a window", spoken(wait)) }
        };
        match timetable {
            Timetable::Every(every) if *every <= soak + watch + wait => {
                let what = format!("{who} would rotate again before the old key is gone: soak {}", sum(soak));
                let help = format!("make `every` {} or longer, or shorten those", above(soak + watch + wait));
                self.document.mistake_at(spot, what, help);
            }
            Timetable::Every(every) if *every <= terms.soak_unproven + watch + wait => {
                let what = format!(
                    "{who} would rotate again before the old key is gone, should a read-back not be able to tell: soak_unproven {}; the next rotation would then wait",
                    sum(terms.soak_unproven)
                );
                self.document.warn_at(unproven.unwrap_or(spot), what);
            }
            Timetable::Cron(cron) => {
                let shortest = cron.gaps(self.zone).map(|(shortest, _)| shortest);
                if let Some(shortest) = shortest
                    && shortest <= soak + watch + wait
                {
                    let what = format!(
                        "{who} has runs only {} apart, and the old key is gone after soak {}; a run would then wait",
                        spoken(shortest),
                        sum(soak)
                    );
                    self.document.warn_at(spot, what);
                }
            }
            Timetable::Every(_) | Timetable::OnDemand => {}
        }
    }

    fn max_age_fits(&self, max_age: Duration, spot: &Spot) {
        let Settled { timetable, jitter, windows, .. } = self.settled;
        let who = self.who;
        let late = jitter.longest(timetable) + longest_window_gap(windows);
        match timetable {
            Timetable::Every(every) if max_age < *every => {
                let what = format!(
                    "{who} would be over its `max_age` of {} before it is due after {}",
                    format_duration(max_age),
                    format_duration(*every)
                );
                self.document.mistake_at(spot, what, format!("make `max_age` at least {}", format_duration(*every)));
            }
            Timetable::Every(every) if max_age < *every + late => {
                let what = format!(
                    "{who} can be over its `max_age` of {} by waiting: every {} + up to {} of jitter and window",
                    format_duration(max_age),
                    format_duration(*every),
                    spoken(late)
                );
                self.document.warn_at(spot, what);
            }
            Timetable::Cron(cron) => {
                if let Some((_, longest)) = cron.gaps(self.zone)
                    && max_age < longest
                {
                    let what = format!(
                        "{who} can be over its `max_age` of {} before it is due: its runs are up to {} apart",
                        format_duration(max_age),
                        spoken(longest)
                    );
                    self.document.warn_at(spot, what);
                }
            }
            Timetable::Every(_) | Timetable::OnDemand => {}
        }
    }
}

/// A duration as people say it: `6d 18h`, and nothing finer than matters beside it.
fn spoken(duration: Duration) -> String {
    let minutes = duration.as_secs().div_ceil(60);
    let parts = |large: u64, l: &str, small: u64, s: &str| match small {
        0 => format!("{large}{l}"),
        small => format!("{large}{l} {small}{s}"),
    };
    match minutes {
        0..=120 => format_duration(duration),
        121..=2880 => parts(minutes / 60, "h", minutes % 60, "m"),
        _ => {
            let hours = minutes.div_ceil(60);
            parts(hours / 24, "d", hours % 24, "h")
        }
    }
}

/// The next round duration above this one, fit to be written into a policy.
fn above(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let unit = match seconds {
        0..=120 => 1,
        121..=7_200 => 60,
        7_201..=172_799 => 3600,
        _ => 86_400,
    };
    format_duration(Duration::from_secs((seconds / unit + 1) * unit))
}

fn spotted<T>(table: &mut Table<'_>, key: &str, read: impl FnOnce(&mut Table<'_>) -> Option<T>) -> Option<(T, Spot)> {
    let value = read(table)?;
    Some((value, table.spot(key)))
}

fn timetable(table: &mut Table<'_>) -> Option<(Timetable, Spot)> {
    let every = table.duration("every", Zero::Refused);
    let cron = table.text_or("cron");
    let cron = cron.and_then(|text| match Cron::parse(&text) {
        Ok(cron) => Some(cron),
        Err(why) => {
            let help = if why == NO_SUCH_DATE {
                "take a day that the month has; `L` is its last: \"0 0 3 L 2 *\""
            } else {
                "write second, minute, hour, day of month, month, day of week: \"0 0 3 1 * *\" is 03:00 on the first of every month"
            };
            table.mistake("cron", format!("`cron` {why}: `{text}`"), help);
            None
        }
    });
    match (table.has("every"), table.has("cron")) {
        (true, true) => {
            let what = format!("{} has both `every` and `cron`", table.title());
            table.mistake(
                "cron",
                what,
                "keep one: `every` counts from the key's creation, `cron` follows the calendar",
            );
            None
        }
        (true, false) => Some((every.map_or(Timetable::OnDemand, Timetable::Every), table.spot("every"))),
        (false, true) => Some((cron.map_or(Timetable::OnDemand, Timetable::Cron), table.spot("cron"))),
        (false, false) => None,
    }
}

fn jitter(table: &mut Table<'_>) -> Option<(Jitter, Spot)> {
    let text = table.text_or("jitter")?;
    match Jitter::parse(&text) {
        Ok(jitter) => Some((jitter, table.spot("jitter"))),
        Err(why) => {
            table.mistake(
                "jitter",
                format!("`jitter` {why}"),
                "write a duration, such as \"15m\", or a part of `every`, such as \"10%\"",
            );
            None
        }
    }
}

fn windows(table: &mut Table<'_>) -> Option<Vec<Window>> {
    let mut windows = Vec::new();
    for (text, spot) in table.spotted_texts("window")? {
        match Window::parse(&text) {
            Ok(window) => windows.push(window),
            Err(why) => {
                let help = "write \"Sat 22:00-Sun 04:00\" (once a week), \"Mon-Fri 22:00-04:00\" (on those days) or \"22:00-04:00\" (every day)";
                table.document().mistake_at(&spot, format!("window `{text}` {why}"), help);
            }
        }
    }
    Some(windows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_of_waits_is_said_as_people_say_it() {
        let said = |secs| spoken(Duration::from_secs(secs));
        assert_eq!(said(90), "90s");
        assert_eq!(said(2 * 86_400), "48h");
        assert_eq!(said(86_400 + 3600 + 1), "25h 1m");
        assert_eq!(said(6 * 86_400 + 18 * 3600), "6d 18h");
        assert_eq!(said(3 * 86_400), "3d");
    }

    #[test]
    fn what_is_advised_is_longer_than_what_was_too_short() {
        for secs in [0, 1, 2, 119, 120, 121, 7_200, 7_201, 172_799, 172_800, 8 * 86_400 + 5] {
            let duration = Duration::from_millis(secs * 1000 + 999);
            let advised = crate::schedule::parse_duration(&above(duration)).expect("it can be written into a policy");
            assert!(advised > duration, "{secs}");
        }
        assert_eq!(above(Duration::from_secs(8 * 86_400 + 18 * 3600)), "9d");
    }
}
