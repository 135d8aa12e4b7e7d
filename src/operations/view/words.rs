//! Formats single values: numbers that may be unknown, ages, times of day.

use std::time::Duration;

use crate::model::{Reading, Timestamp};

/// Text for an unknown value.
pub(crate) const UNKNOWN: &str = "?";
/// Text for an absent value.
pub(crate) const NONE: &str = "-";

/// Formats a number, or `?` if it is unknown.
pub(crate) fn reading(value: &Reading<u64>) -> String {
    value.known().map_or_else(|| UNKNOWN.to_owned(), u64::to_string)
}

/// Formats an age in one unit: `430 ms`, `12 s`, `3 min`, `5 h`.
pub(crate) fn duration(duration: Duration) -> String {
    match duration.as_secs() {
        0 => format!("{} ms", duration.as_millis()),
        seconds @ 1..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3_600),
    }
}

/// Formats a short duration: `0.84 ms`, `12.3 ms`, `1.20 s`.
pub(crate) fn milliseconds(ms: f64) -> String {
    match ms {
        ms if ms < 10.0 => format!("{ms:.2} ms"),
        ms if ms < 100.0 => format!("{ms:.1} ms"),
        ms if ms < 1_000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.2} s", ms / 1e3),
    }
}

/// Formats the local time of day: `14:03:59.123`.
pub(crate) fn time_of_day(at: Timestamp) -> String {
    local(at, "%H:%M:%S%.3f")
}

/// Formats local date and time: `2026-01-31 14:03:59`.
pub(crate) fn date_time(at: Timestamp) -> String {
    local(at, "%Y-%m-%d %H:%M:%S")
}

fn local(at: Timestamp, format: &str) -> String {
    let time = i64::try_from(at.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    // Another program may have written an impossible time: show it as it is.
    time.map_or_else(
        || at.0.to_string(),
        |time| time.to_zoned(jiff::tz::TimeZone::system()).strftime(format).to_string(),
    )
}

/// Cuts `text` to `width` characters, with an ellipsis.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Removes control characters, which could control a terminal. Text from Redis may contain any.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_one_unit() {
        for (ms, shown) in [(0, "0 ms"), (999, "999 ms"), (61_000, "61 s"), (120_000, "2 min"), (7_200_000, "2 h")] {
            assert_eq!(duration(Duration::from_millis(ms)), shown);
        }
    }

    #[test]
    fn milliseconds_keep_three_digits() {
        for (ms, shown) in [(0.842, "0.84 ms"), (12.34, "12.3 ms"), (123.4, "123 ms"), (1_204.0, "1.20 s")] {
            assert_eq!(milliseconds(ms), shown);
        }
    }

    #[test]
    fn cutting_counts_characters_and_control_characters_are_replaced() {
        assert_eq!(cut("aéïo", 4), "aéïo");
        assert_eq!(cut("aéïou", 4), "aéï…");
        assert_eq!(printable("a\u{1b}[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
    }
}
