//! Distributions of times, such as a job's service time or a worker's start-up time, in a form that people can write.

use std::{fmt, str::FromStr, time::Duration};

use rand::RngExt;
use rand_distr::{Distribution, Exp1, StandardNormal};

use super::random::Random;

/// Longest time that a text can state; a longer one is a mistake.
const LONGEST: Duration = Duration::from_secs(7 * 86_400);

/// Percentiles that can determine a log-normal distribution, with their quantiles of the standard normal distribution.
const SPREADS: [(u8, f64); 3] = [(90, 1.281_551_565_5), (95, 1.644_853_627), (99, 2.326_347_874)];

/// Accepted forms, for error messages.
const FORMS: &str = "2s, fixed:2s, exponential:2s, lognormal:p50=1s,p95=4s or percentiles:p50=1s,p95=4s,p100=20s";

/// A distribution of times.
#[derive(Clone, Debug, PartialEq)]
pub enum Times {
    /// Always the same time.
    Fixed(Duration),
    /// Exponential with this mean: mostly short, now and then long.
    Exponential(Duration),
    /// Log-normal with this median and one more percentile; most real service times are roughly log-normal.
    LogNormal {
        /// Median: half of the times are shorter.
        median: Duration,
        /// Percentile of `value`: 90, 95 or 99.
        percent: u8,
        /// Time that `percent` % of the times do not reach.
        value: Duration,
    },
    /// Linear interpolation between these percentiles, which are sorted by percentage. Below the first and above the
    /// last percentile, their times apply.
    Percentiles(Vec<(f64, Duration)>),
    /// One of these times, each equally likely.
    Observed(Vec<Duration>),
}

/// A text is not a distribution.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{problem}; write {FORMS}")]
pub struct TimesError {
    problem: String,
}

fn wrong(problem: impl Into<String>) -> TimesError {
    TimesError { problem: problem.into() }
}

/// A text is not a time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Another form.
    #[error("{0:?} is not a time; write a number and its unit, such as 500ms, 1.5s, 10m, 2h or 1d")]
    Form(String),
    /// A time that is too long.
    #[error("{0:?} is more than a week")]
    TooLong(String),
}

/// Parses a time with its unit: `500ms`, `1.5s`, `10m`, `2h`, `1d`.
///
/// # Errors
/// If the text is not a time, or the time is longer than a week.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let no_time = || DurationError::Form(text.to_owned());
    let span: jiff::Span = text.trim().parse().map_err(|_| no_time())?;
    let time = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| no_time())?;
    let time = Duration::try_from(time).map_err(|_| no_time())?;
    if time > LONGEST {
        return Err(DurationError::TooLong(text.to_owned()));
    }
    Ok(time)
}

/// Formats a time as [`parse_duration`] reads it: `500ms`, `1s 500ms`, `10m`, `1d 2h`. From one minute on without
/// fractions of a second.
pub fn spell(time: Duration) -> String {
    let whole = if time >= Duration::from_secs(60) { Duration::from_secs(time.as_secs()) } else { time };
    let days = whole.as_secs() / 86_400;
    let rest = whole.saturating_sub(Duration::from_secs(days * 86_400));
    let rest_told = jiff::fmt::friendly::SpanPrinter::new().unsigned_duration_to_string(&rest);
    match days {
        0 => rest_told,
        _ if rest.is_zero() => format!("{days}d"),
        _ => format!("{days}d {rest_told}"),
    }
}

impl Times {
    /// Draws a time. It is never longer than a week, whatever the tail of the distribution.
    pub(super) fn sample(&self, random: &mut Random) -> Duration {
        let seconds = match self {
            Self::Fixed(time) => return *time,
            Self::Exponential(mean) => {
                let unit: f64 = Exp1.sample(random);
                mean.as_secs_f64() * unit
            }
            Self::LogNormal { median, percent, value } => {
                let z: f64 = StandardNormal.sample(random);
                let spread = spread(*percent);
                median.as_secs_f64() * (value.as_secs_f64() / median.as_secs_f64()).powf(z / spread)
            }
            Self::Percentiles(points) => between(points, random.random::<f64>() * 100.0),
            Self::Observed(times) => return times[random.random_range(0..times.len())],
        };
        Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST).min(LONGEST)
    }
}

/// Returns the quantile of the standard normal distribution for a percentile.
fn spread(percent: u8) -> f64 {
    SPREADS.iter().find(|spread| spread.0 == percent).map_or(1.0, |spread| spread.1)
}

/// Returns the seconds at `percent` on the line through `points`.
fn between(points: &[(f64, Duration)], percent: f64) -> f64 {
    let above = points.partition_point(|point| point.0 <= percent);
    match (above.checked_sub(1).map(|below| &points[below]), points.get(above)) {
        (Some(low), Some(high)) => {
            let share = (percent - low.0) / (high.0 - low.0);
            low.1.as_secs_f64() + share * (high.1.as_secs_f64() - low.1.as_secs_f64())
        }
        (Some(end), None) | (None, Some(end)) => end.1.as_secs_f64(),
        (None, None) => 0.0,
    }
}

impl FromStr for Times {
    type Err = TimesError;

    fn from_str(text: &str) -> Result<Self, TimesError> {
        let Some((kind, rest)) = text.split_once(':') else { return Ok(Self::Fixed(time(text)?)) };
        match kind.trim() {
            "fixed" => Ok(Self::Fixed(time(rest)?)),
            "exponential" => Ok(Self::Exponential(positive(rest)?)),
            "lognormal" => log_normal(&points(rest)?),
            "percentiles" => Ok(Self::Percentiles(points(rest)?)),
            _ => Err(wrong(format!("{kind:?} is not a distribution"))),
        }
    }
}

fn time(text: &str) -> Result<Duration, TimesError> {
    parse_duration(text).map_err(|error| wrong(error.to_string()))
}

fn positive(text: &str) -> Result<Duration, TimesError> {
    time(text).and_then(|time| if time.is_zero() { Err(wrong("the mean must be more than 0")) } else { Ok(time) })
}

/// Parses `p50=1s,p95=4s`; percentages and times must rise.
fn points(text: &str) -> Result<Vec<(f64, Duration)>, TimesError> {
    let point = |part: &str| {
        let (percent, value) = part.split_once('=').ok_or_else(|| wrong(format!("{part:?} is no percentile")))?;
        let percent = percent.trim().strip_prefix('p').and_then(|percent| percent.parse::<f64>().ok());
        match percent.filter(|percent| (0.0..=100.0).contains(percent)) {
            Some(percent) => Ok((percent, time(value)?)),
            None => Err(wrong(format!("{part:?} is no percentile from p0 to p100"))),
        }
    };
    let points = text.split(',').map(point).collect::<Result<Vec<_>, _>>()?;
    if points.windows(2).any(|pair| pair[0].0 >= pair[1].0 || pair[0].1 > pair[1].1) {
        return Err(wrong("percentiles must rise, and their times with them"));
    }
    Ok(points)
}

fn log_normal(points: &[(f64, Duration)]) -> Result<Times, TimesError> {
    if let &[(50.0, median), (percent, value)] = points
        && let Some((percent, _)) = SPREADS.iter().find(|spread| f64::from(spread.0).total_cmp(&percent).is_eq())
        && !median.is_zero()
    {
        return Ok(Times::LogNormal { median, percent: *percent, value });
    }
    Err(wrong("a log-normal distribution is given by p50, which is not 0, and p90, p95 or p99"))
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(time) => f.write_str(&spell(*time)),
            Self::Exponential(mean) => write!(f, "exponential, mean {}", spell(*mean)),
            Self::LogNormal { median, percent, value } => {
                write!(f, "log-normal, p50 {}, p{percent} {}", spell(*median), spell(*value))
            }
            Self::Percentiles(points) => {
                let points: Vec<_> =
                    points.iter().map(|(percent, time)| format!("p{percent} {}", spell(*time))).collect();
                f.write_str(&points.join(", "))
            }
            Self::Observed(times) => write!(f, "as {} observed ones", times.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulation::random::{Purpose, row};

    fn times(text: &str) -> Times {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// Returns mean, median and 95th percentile of many samples, in seconds.
    fn sampled(text: &str) -> (f64, f64, f64) {
        let times = times(text);
        let mut random = row(1, Purpose::Services);
        let mut seconds: Vec<f64> = (0..100_000).map(|_| times.sample(&mut random).as_secs_f64()).collect();
        seconds.sort_by(f64::total_cmp);
        (seconds.iter().sum::<f64>() / 1e5, seconds[50_000], seconds[95_000])
    }

    fn about(value: f64, expected: f64) -> bool {
        (value / expected - 1.0).abs() < 0.03
    }

    #[test]
    fn samples_have_the_percentiles_that_were_asked_for() {
        let (mean, median, p95) = sampled("1500ms");
        assert!(about(mean, 1.5) && about(median, 1.5) && about(p95, 1.5), "{mean} {median} {p95}");
        let (mean, median, _) = sampled("exponential:2s");
        assert!(about(mean, 2.0) && about(median, 2.0 * 2_f64.ln()), "{mean} {median}");
        let (_, median, p95) = sampled("lognormal:p50=1s,p95=4s");
        assert!(about(median, 1.0) && about(p95, 4.0), "{median} {p95}");
        let (mean, median, p95) = sampled("percentiles:p0=0s,p50=1s,p95=4s,p100=5s");
        // Half of the samples are from 0 to 1 s, 45 % from 1 to 4 s, 5 % from 4 to 5 s.
        assert!(about(mean, 0.25 + 1.125 + 0.225), "{mean}");
        assert!(about(median, 1.0) && about(p95, 4.0), "{median} {p95}");
    }

    #[test]
    fn beyond_the_percentiles_their_ends_hold() {
        let points = [(50.0, Duration::from_secs(1)), (90.0, Duration::from_secs(3))];
        let seconds = [0.0, 50.0, 70.0, 90.0, 100.0].map(|percent| between(&points, percent).to_string());
        assert_eq!(seconds, ["1", "1", "2", "3", "3"]);
    }

    #[test]
    fn what_is_no_distribution_is_told_with_the_forms() {
        for text in [
            "",
            "2",
            "-1s",
            "8d",
            "poisson:1s",
            "exponential:0s",
            "lognormal:p50=1s",
            "lognormal:p50=0s,p95=1s",
            "lognormal:p50=1s,p80=2s",
            "percentiles:p50=2s,p95=1s",
            "percentiles:p95=1s,p50=2s",
            "percentiles:p101=1s",
            "percentiles:50=1s",
        ] {
            let error = text.parse::<Times>().unwrap_err().to_string();
            assert!(error.contains("lognormal:p50=1s,p95=4s"), "{text}: {error}");
        }
        assert_eq!(parse_duration("1d"), Ok(Duration::from_secs(86_400)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1_500)));
    }

    #[test]
    fn times_are_spelled_as_they_are_read() {
        for text in ["500ms", "1s 500ms", "10m", "1h", "1d", "2d 3h"] {
            assert_eq!(spell(parse_duration(text).unwrap()), text);
        }
        assert_eq!(spell(Duration::from_millis(61_234)), "1m 1s");
        assert_eq!(times("lognormal:p50=1s,p95=4s").to_string(), "log-normal, p50 1s, p95 4s");
    }
}
