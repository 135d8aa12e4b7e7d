//! Parses overrides as people write them. `scaler::OverrideService` checks and writes them.

use std::time::Duration;

/// A text is not a duration of an override.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a whole number and s, m, h or d, such as 10m")]
pub struct OverrideTimeError;

/// Parses a duration: a whole number and its unit, such as `90s`, `10m`, `2h`, `1d`.
///
/// # Errors
/// If the text has another form; the message has an example.
pub fn parse_time(text: &str) -> Result<Duration, OverrideTimeError> {
    let unit = text.char_indices().last().map_or(0, |(at, _)| at);
    let (number, unit) = text.split_at(unit);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => 0,
    };
    match number.parse::<u32>() {
        Ok(number) if number > 0 && seconds > 0 => Ok(Duration::from_secs(u64::from(number) * seconds)),
        _ => Err(OverrideTimeError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        for (text, seconds) in [("90s", 90), ("10m", 600), ("2h", 7_200), ("1d", 86_400)] {
            assert_eq!(parse_time(text), Ok(Duration::from_secs(seconds)));
        }
        for text in ["", "10", "m", "0s", "-1m", "1.5h", "10µ", "10 m"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }
}
