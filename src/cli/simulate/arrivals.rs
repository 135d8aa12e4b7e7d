//! The source of a simulation's jobs: a pattern and its numbers, or a file.

use std::{
    fmt,
    fs::File,
    io::{self, BufReader},
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;

use crate::{
    model::Timestamp,
    simulation::{Pattern, Times, Trace, TraceOptions, Workload, parse_duration, read},
};

/// Name of standard input.
const STDIN: &str = "-";

/// Options about the jobs.
#[derive(Args, Debug)]
pub(super) struct ArrivalArgs {
    /// A CSV file, - for standard input, or steady, burst or daily
    #[arg(value_name = "TRACE")]
    trace: String,
    /// Patterns: average rate of jobs, such as 2/s, 30/min, 1000/h, 1000000/d [default: 1/s]
    #[arg(long, value_name = "RATE", value_parser = parse_rate, help_heading = "Jobs")]
    rate: Option<f64>,
    /// Patterns: time during which jobs arrive [default: 1h, 1d for daily]
    #[arg(long, value_name = "TIME", value_parser = parse_duration, help_heading = "Jobs")]
    duration: Option<Duration>,
    /// burst: jobs in one burst, on top of the rate [default: 100]
    #[arg(long, value_name = "JOBS", help_heading = "Jobs")]
    burst: Option<u32>,
    /// burst: time between two bursts [default: 10m]
    #[arg(long, value_name = "TIME", value_parser = parse_duration, help_heading = "Jobs")]
    every: Option<Duration>,
    /// daily: the highest rate as a multiple of the mean, 1 to 2 [default: 1.8]
    #[arg(long, value_name = "FACTOR", help_heading = "Jobs")]
    peak: Option<f64>,
    /// How long jobs take: 2s, exponential:2s, lognormal:p50=1s,p95=4s or percentiles:p50=1s,p95=4s,p100=20s [default:
    /// what the trace says; exponential:1s if it says nothing]
    #[arg(long, value_name = "TIMES", help_heading = "Jobs")]
    service: Option<Times>,
    /// When the trace begins, such as 2026-03-02T06:00:00Z, for rules that depend on the time of day [default: as
    /// recorded, else 2026-01-05T00:00:00Z]
    #[arg(long, value_name = "TIME", value_parser = parse_start, help_heading = "Jobs")]
    start: Option<Timestamp>,
    /// Seed of the random numbers: the same seed gives the same outcome
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Jobs")]
    pub(super) seed: u64,
}

/// Source of the jobs.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Source {
    /// A generated workload.
    Pattern(Workload),
    /// A file of recorded jobs.
    File(String),
}

impl Source {
    /// Returns the name of the source, for programs.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Pattern(workload) => match workload.pattern {
                Pattern::Steady => "steady",
                Pattern::Burst { .. } => "burst",
                Pattern::Daily { .. } => "daily",
            },
            Self::File(name) => name,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pattern(workload) => workload.fmt(f),
            Self::File(name) if name == STDIN => f.write_str("standard input"),
            Self::File(name) => f.write_str(name),
        }
    }
}

impl ArrivalArgs {
    /// Returns the source that the options name.
    ///
    /// # Errors
    /// If there are options that do not apply to the source.
    pub(super) fn source(&self) -> anyhow::Result<Source> {
        let (burst, daily) = (self.burst.is_some() || self.every.is_some(), self.peak.is_some());
        let pattern = match self.trace.as_str() {
            "steady" if !burst && !daily => Pattern::Steady,
            "burst" if !daily => {
                let every = self.every.unwrap_or(Duration::from_secs(600));
                Pattern::Burst { jobs: self.burst.unwrap_or(100), every }
            }
            "daily" if !burst => Pattern::Daily { peak: self.peak.unwrap_or(1.8) },
            "steady" | "burst" | "daily" => {
                bail!("--burst and --every are for the pattern `burst`, --peak is for `daily`; drop what is not meant")
            }
            file if burst || daily || self.rate.is_some() || self.duration.is_some() => bail!(
                "`{file}` is a file, which says by itself when jobs come; drop --rate, --duration, --burst, --every and \
                 --peak, or name one of steady, burst and daily"
            ),
            file => return Ok(Source::File(file.to_owned())),
        };
        let days = if matches!(pattern, Pattern::Daily { .. }) { 24 } else { 1 };
        let lasts = self.duration.unwrap_or(Duration::from_secs(3_600 * days));
        Ok(Source::Pattern(Workload { pattern, per_second: self.rate.unwrap_or(1.0), lasts }))
    }

    /// Returns whether an option says when the trace begins.
    pub(super) fn has_start(&self) -> bool {
        self.start.is_some()
    }

    /// Returns the jobs of one worker type.
    ///
    /// # Errors
    /// If the file can't be read or is invalid, or the pattern is invalid.
    pub(super) fn trace(&self, source: &Source, worker_type: &str) -> anyhow::Result<Trace> {
        let options = TraceOptions { service: self.service.clone(), begins: self.start, seed: self.seed };
        let rows = match source {
            Source::Pattern(workload) => return Ok(Trace::generated(workload, &options)?),
            Source::File(name) if name == STDIN => read(io::stdin().lock(), "standard input", worker_type)?,
            Source::File(name) => {
                let file = File::open(name).with_context(|| {
                    format!("can't open {name}; name a CSV file (`swarm record` makes one), or steady, burst or daily")
                })?;
                read(BufReader::new(file), name, worker_type)?
            }
        };
        Ok(Trace::recorded(rows, &options))
    }
}

/// Parses `2/s`, `30/min`, `1000/h`, `1e6/d`; returns jobs per second.
fn parse_rate(text: &str) -> Result<f64, String> {
    let form = || format!("{text:?} is no rate; write jobs and a time, such as 2/s, 30/min, 1000/h or 1000000/d");
    let (jobs, unit) = text.split_once('/').ok_or_else(form)?;
    let seconds = match unit.trim() {
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return Err(form()),
    };
    match jobs.trim().parse::<f64>() {
        Ok(jobs) if jobs.is_finite() && jobs >= 0.0 => Ok(jobs / seconds),
        _ => Err(form()),
    }
}

fn parse_start(text: &str) -> Result<Timestamp, String> {
    let time: jiff::Timestamp =
        text.parse().map_err(|_| format!("{text:?} is no time; write it as 2026-03-02T06:00:00Z"))?;
    u64::try_from(time.as_millisecond()).map(Timestamp).map_err(|_| format!("{text:?} is before 1970"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_a_time() {
        for (text, per_second) in [("2/s", 2.0), ("30/min", 0.5), ("7200/h", 2.0), ("864e2/d", 1.0), ("0/s", 0.0)] {
            assert_eq!(parse_rate(text), Ok(per_second), "{text}");
        }
        for text in ["", "2", "2/", "/s", "-1/s", "inf/s", "2/year"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_start_is_a_moment() {
        assert_eq!(parse_start("1970-01-02T00:00:00Z"), Ok(Timestamp(86_400_000)));
        for text in ["", "2026-03-02", "1969-12-31T00:00:00Z"] {
            assert!(parse_start(text).is_err(), "{text}");
        }
    }
}
