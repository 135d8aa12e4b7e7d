//! Positions and labels of the marks of an axis.

/// Maximum marks on an axis.
const MAX_TIMES: f64 = 13.0;
const MAX_NUMBERS: f64 = 5.0;

/// Usual steps between times, in seconds.
const TIME_STEPS: [f64; 19] = [
    1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1_800.0, 3_600.0, 7_200.0, 10_800.0, 14_400.0,
    21_600.0, 43_200.0, 86_400.0,
];

/// Marks from 0 to `end`, in seconds, and their unit.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Times {
    pub(super) marks: Vec<f64>,
    step: f64,
}

impl Times {
    /// Computes the marks on an axis of `end` seconds.
    pub(super) fn until(end: f64) -> Self {
        let fits = |step: &&f64| end / **step <= MAX_TIMES;
        let days = (end / 86_400.0 / MAX_TIMES).ceil() * 86_400.0;
        let step = TIME_STEPS.iter().find(fits).copied().unwrap_or(days);
        Self { marks: multiples(step, end), step }
    }

    /// Unit of the labels.
    pub(super) fn unit(&self) -> &'static str {
        match self.step {
            step if step < 60.0 => "min:s",
            step if step < 86_400.0 => "h:min",
            _ => "days",
        }
    }

    /// Formats a mark.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "marks are whole seconds from 0 on")]
    pub(super) fn text(&self, mark: f64) -> String {
        let seconds = mark.round() as u64;
        match self.unit() {
            "min:s" => format!("{}:{:02}", seconds / 60, seconds % 60),
            "h:min" => format!("{}:{:02}", seconds / 3_600, seconds / 60 % 60),
            _ => (seconds / 86_400).to_string(),
        }
    }
}

/// Computes the marks from 0 to `end` of a count: whole numbers.
pub(super) fn counts(end: f64) -> Vec<f64> {
    let mut step = 1.0;
    for factor in [2.0, 2.5, 2.0].into_iter().cycle() {
        if end / step <= MAX_NUMBERS {
            break;
        }
        step *= factor;
    }
    multiples(step.round(), end)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "steps are chosen so that there are few")]
fn multiples(step: f64, end: f64) -> Vec<f64> {
    (0..=(end / step).floor() as u32).map(|number| f64::from(number) * step).collect()
}

/// Formats a number: `0.25`, `3`, `1,200`, `1.5 M`.
pub(super) fn number(number: f64) -> String {
    match number {
        number if number >= 1e6 => format!("{} M", number / 1e6),
        number if number >= 1e4 => format!("{} k", number / 1e3),
        number => format!("{number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_steps_that_people_count_in() {
        let shown = |end: f64| {
            let times = Times::until(end);
            let marks: Vec<_> = times.marks.iter().map(|mark| times.text(*mark)).collect();
            format!("{}: {}", times.unit(), marks.join(" "))
        };
        assert_eq!(shown(61.0), "min:s: 0:00 0:05 0:10 0:15 0:20 0:25 0:30 0:35 0:40 0:45 0:50 0:55 1:00");
        assert_eq!(shown(3_960.0), "h:min: 0:00 0:10 0:20 0:30 0:40 0:50 1:00");
        assert_eq!(shown(95_040.0), "h:min: 0:00 3:00 6:00 9:00 12:00 15:00 18:00 21:00 24:00");
        assert_eq!(shown(86_400.0 * 40.0), "days: 0 4 8 12 16 20 24 28 32 36 40");
    }

    #[test]
    fn counts_have_whole_steps() {
        assert_eq!(counts(1.0), [0.0, 1.0]);
        assert_eq!(counts(7.0), [0.0, 2.0, 4.0, 6.0]);
        assert_eq!(counts(48.0), [0.0, 10.0, 20.0, 30.0, 40.0]);
        assert_eq!(counts(12_000.0), [0.0, 5_000.0, 10_000.0]);
        assert_eq!([0.0, 250.0, 25_000.0, 1_500_000.0].map(number), ["0", "250", "25 k", "1.5 M"]);
    }
}
