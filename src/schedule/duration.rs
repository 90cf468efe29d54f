//! Durations as text: `90d`, `12h`, `5m`, `30s`, `500ms`. One number and one unit, so that two people write one span alike.

use std::time::Duration;

/// The longest duration a policy may name (a hundred years), so that adding one to a date cannot overflow.
pub const DURATION_MAX: Duration = Duration::from_secs(36_525 * DAY);

const DAY: u64 = 86_400;

/// Units, largest first, in milliseconds.
const UNITS: &[(&str, u64)] = &[("d", DAY * 1000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Reads one duration.
///
/// # Errors
///
/// Says what is wrong with the text, to follow "`KEY` ...".
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if text.starts_with('-') {
        return Err("must not be negative".into());
    }
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(format!("is not a duration: `{text}`"));
    }
    if unit.is_empty() {
        return Err(format!("has no unit: `{text}`"));
    }
    let Some((_, factor)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(format!("is not a duration: `{text}`"));
    };
    let millis = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor));
    match millis.map(Duration::from_millis) {
        Some(duration) if duration <= DURATION_MAX => Ok(duration),
        _ => Err(format!("is longer than a hundred years: `{text}`")),
    }
}

/// Writes a duration in the largest unit that holds it without a remainder; what is finer than a millisecond is dropped.
pub fn format_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis == 0 {
        return "0s".into();
    }
    UNITS
        .iter()
        .find(|(_, factor)| millis.is_multiple_of(u128::from(*factor)))
        .map_or_else(|| format!("{millis}ms"), |(unit, factor)| format!("{}{unit}", millis / u128::from(*factor)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read() {
        let read = |text| parse_duration(text).map(|d| d.as_millis());
        assert_eq!(read("90d"), Ok(7_776_000_000));
        assert_eq!(read("12h"), Ok(43_200_000));
        assert_eq!(read("5m"), Ok(300_000));
        assert_eq!(read("30s"), Ok(30_000));
        assert_eq!(read("500ms"), Ok(500));
        assert_eq!(read("0s"), Ok(0));
    }

    #[test]
    fn what_is_not_one_number_and_one_unit_is_refused() {
        for text in
            ["", "d", "30", "1.5h", "1d12h", "30 d", "-1s", "+1s", "1w", "1M", "١d", "99999999999999999999d", "36526d"]
        {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert_eq!(parse_duration("30").expect_err("no unit"), "has no unit: `30`");
        assert_eq!(parse_duration("-1s").expect_err("negative"), "must not be negative");
    }

    #[test]
    fn the_largest_whole_unit_is_written() {
        let write = |secs| format_duration(Duration::from_secs(secs));
        assert_eq!(write(0), "0s");
        assert_eq!(write(90), "90s");
        assert_eq!(write(120), "2m");
        assert_eq!(write(86_400), "1d");
        assert_eq!(format_duration(Duration::from_millis(1500)), "1500ms");
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read_again(millis in 0..3_155_760_000_000_u64) {
            let duration = Duration::from_millis(millis);
            proptest::prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn no_text_upsets_it(text in "\\PC{0,12}") {
            let _ = parse_duration(&text);
        }
    }
}
