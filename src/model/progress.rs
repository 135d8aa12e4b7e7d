//! How far a running job is, in the words of its handler. Bounded, because it is written to Redis and shown to people.

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

use super::Timestamp;

/// Maximum characters of the text.
const MAX_TEXT: usize = 500;

/// How far a job is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Progress {
    /// What the job is doing, in one line. Workers keep the first 500 characters.
    pub text: String,
    /// Part of the job that is done, from 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fraction: Option<f64>,
}

impl Progress {
    /// Returns progress without a fraction.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), fraction: None }
    }

    /// Sets the part of the job that is done, from 0 to 1.
    #[must_use]
    pub fn with_fraction(self, fraction: f64) -> Self {
        Self { fraction: Some(fraction), ..self }
    }

    /// Returns the progress with one line of at most 500 characters, and with a fraction from 0 to 1 or none.
    #[must_use]
    pub fn bounded(&self) -> Self {
        let line = self.text.trim().chars().map(|c| if c.is_control() { ' ' } else { c });
        let fraction = self.fraction.filter(|fraction| !fraction.is_nan());
        Self { text: line.take(MAX_TEXT).collect(), fraction: fraction.map(|fraction| fraction.clamp(0.0, 1.0)) }
    }
}

/// Formats the progress for people: `40 %: page 2 of 5`.
impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fraction {
            // Rounded down, so that 100 % means the end.
            Some(fraction) if self.text.is_empty() => write!(f, "{:.0} %", (fraction * 100.0).floor()),
            Some(fraction) => write!(f, "{:.0} %: {}", (fraction * 100.0).floor(), self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// Progress as a worker has reported it.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ReportedProgress {
    /// Worker that runs the job.
    pub worker: String,
    /// When the handler reported it.
    pub at: Timestamp,
    /// How far the job is.
    #[serde(flatten)]
    pub progress: Progress,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_fraction_are_bounded() {
        let long = Progress::new(format!(" a\nb\u{1b}{}", "ü".repeat(600))).with_fraction(1.5).bounded();
        assert_eq!((long.text.chars().count(), long.fraction), (MAX_TEXT, Some(1.0)));
        assert!(long.text.starts_with("a b üü"), "{long}");
        for (fraction, bounded) in [(-1.0, Some(0.0)), (0.25, Some(0.25)), (f64::INFINITY, Some(1.0)), (f64::NAN, None)]
        {
            assert_eq!(Progress::default().with_fraction(fraction).bounded().fraction, bounded, "{fraction}");
        }
    }

    #[test]
    fn people_read_a_percentage_and_the_text() {
        assert_eq!(Progress::new("page 2 of 5").with_fraction(0.4).to_string(), "40 %: page 2 of 5");
        assert_eq!(Progress::new("waiting for the printer").to_string(), "waiting for the printer");
        assert_eq!(Progress::default().with_fraction(0.999).to_string(), "99 %");
    }
}
