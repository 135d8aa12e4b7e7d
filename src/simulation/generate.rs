//! Generated arrivals: steady, in bursts, or by the time of day.

use std::{f64::consts::TAU, fmt, time::Duration};

use rand::RngExt;
use rand_distr::{Distribution, Exp1};

use super::{
    SimTime,
    random::{Purpose, Random, row},
    times::spell,
};

/// Maximum jobs of one simulation; they take about half a gigabyte of memory.
const MAX_JOBS: f64 = 2e7;

/// Seconds of a day, and the second of the day at which a daily pattern peaks: 14:00.
const DAY: f64 = 86_400.0;
const PEAK_AT: f64 = 14.0 * 3_600.0;

/// Distribution of arrivals over time. Arrivals are random and independent of one another, at the given mean rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pattern {
    /// A constant rate.
    Steady,
    /// A constant rate, plus `jobs` simultaneous jobs every interval; the first burst comes after half an interval.
    Burst {
        /// Simultaneous jobs of a burst.
        jobs: u32,
        /// Time between two bursts.
        every: Duration,
    },
    /// A sine wave over the day, highest at 14:00 and lowest at 2:00.
    Daily {
        /// Highest rate, as a multiple of the mean: 1 to 2.
        peak: f64,
    },
}

/// A pattern with a rate and a duration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Workload {
    /// Distribution of arrivals over time.
    pub pattern: Pattern,
    /// Jobs per second, on average over a day, without the jobs of bursts.
    pub per_second: f64,
    /// Duration of the arrivals.
    pub lasts: Duration,
}

/// Why a workload can't be generated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum WorkloadError {
    /// The workload has too many jobs.
    #[error("that would be about {jobs:.0} jobs, and {MAX_JOBS:.0} is the most; lower the rate or the duration")]
    TooMany {
        /// Expected number of jobs.
        jobs: f64,
    },
    /// A number is out of range.
    #[error("{0}")]
    Value(&'static str),
}

impl Workload {
    /// Returns the arrival times of the jobs, in order. The same seed gives the same times.
    ///
    /// # Errors
    /// If a number is out of range, or the workload has too many jobs.
    pub fn arrivals(&self, seed: u64) -> Result<Vec<SimTime>, WorkloadError> {
        self.check()?;
        let mut random = row(seed, Purpose::Arrivals);
        let mut arrivals = Vec::new();
        let end = self.lasts.as_secs_f64();
        let highest = match self.pattern {
            Pattern::Daily { peak } => self.per_second * peak,
            Pattern::Steady | Pattern::Burst { .. } => self.per_second,
        };
        // With a rate of 0 the first gap is infinite.
        let gap = |random: &mut Random| -> f64 { Distribution::<f64>::sample(&Exp1, random) / highest };
        let mut at = gap(&mut random);
        while at < end {
            if self.comes(at, &mut random) {
                arrivals.push(SimTime::START.after(Duration::from_secs_f64(at)));
            }
            at += gap(&mut random);
        }
        self.add_bursts(&mut arrivals);
        Ok(arrivals)
    }

    /// Returns whether an arrival at the highest rate is kept, thinning that rate to the one at `at`. Source: Lewis and
    /// Shedler, "Simulation of nonhomogeneous Poisson processes by thinning", 1979.
    fn comes(&self, at: f64, random: &mut Random) -> bool {
        match self.pattern {
            Pattern::Daily { peak } => {
                let now = 1.0 + (peak - 1.0) * (TAU * (at - PEAK_AT) / DAY).cos();
                random.random::<f64>() * peak < now
            }
            Pattern::Steady | Pattern::Burst { .. } => true,
        }
    }

    fn add_bursts(&self, arrivals: &mut Vec<SimTime>) {
        let Pattern::Burst { jobs, every } = self.pattern else { return };
        let end = SimTime::START.after(self.lasts);
        let mut at = SimTime::START.after(every / 2);
        while at < end {
            arrivals.extend(std::iter::repeat_n(at, jobs as usize));
            at = at.after(every);
        }
        arrivals.sort_unstable();
    }

    fn check(&self) -> Result<(), WorkloadError> {
        let value = |text| Err(WorkloadError::Value(text));
        if !self.per_second.is_finite() || self.per_second < 0.0 {
            return value("the rate must be a number from 0 on");
        }
        let seconds = self.lasts.as_secs_f64();
        let bursts = match self.pattern {
            Pattern::Burst { every, .. } if every.is_zero() => {
                return value("the time between bursts must be more than 0");
            }
            Pattern::Burst { jobs, every } => f64::from(jobs) * (seconds / every.as_secs_f64()),
            Pattern::Daily { peak } if !(1.0..=2.0).contains(&peak) => {
                return value("the peak must be from 1 (no peak) to 2 (nothing comes at night) times the mean");
            }
            Pattern::Daily { .. } | Pattern::Steady => 0.0,
        };
        let jobs = self.per_second * seconds + bursts;
        if jobs > MAX_JOBS { Err(WorkloadError::TooMany { jobs }) } else { Ok(()) }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pattern {
            Pattern::Steady => f.write_str("steady, ")?,
            Pattern::Burst { jobs, every } => write!(f, "{jobs} at once every {}, and ", spell(every))?,
            Pattern::Daily { peak } => write!(f, "daily, {peak} times the mean at the peak, ")?,
        }
        let (rate, unit) = match self.per_second {
            rate if rate >= 1.0 => (rate, "s"),
            rate if rate * 60.0 >= 1.0 => (rate * 60.0, "min"),
            rate => (rate * 3_600.0, "h"),
        };
        write!(f, "{}/{unit}", (rate * 100.0).round() / 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(pattern: Pattern, per_second: f64, seconds: u64) -> Workload {
        Workload { pattern, per_second, lasts: Duration::from_secs(seconds) }
    }

    fn within(arrivals: &[SimTime], from_hour: u64, to_hour: u64) -> f64 {
        let hour = |hour: u64| SimTime(hour * 3_600_000_000);
        let found =
            arrivals.partition_point(|at| *at < hour(to_hour)) - arrivals.partition_point(|at| *at < hour(from_hour));
        f64::from(u32::try_from(found).unwrap())
    }

    #[test]
    fn a_steady_rate_is_kept_and_a_seed_repeats_it() {
        let steady = workload(Pattern::Steady, 2.0, 86_400);
        let arrivals = steady.arrivals(7).unwrap();
        assert!((within(&arrivals, 0, 24) / 172_800.0 - 1.0).abs() < 0.02, "{}", arrivals.len());
        assert_eq!(arrivals, steady.arrivals(7).unwrap());
        assert_ne!(arrivals, steady.arrivals(8).unwrap());
        assert!(arrivals.is_sorted());
    }

    #[test]
    fn bursts_come_at_once_and_again() {
        let bursts = workload(Pattern::Burst { jobs: 3, every: Duration::from_secs(60) }, 0.0, 150);
        let seconds: Vec<_> = bursts.arrivals(0).unwrap().into_iter().map(SimTime::seconds).collect();
        assert_eq!(seconds, [30.0, 30.0, 30.0, 90.0, 90.0, 90.0]);
    }

    #[test]
    fn a_day_has_a_night_and_an_afternoon() {
        let arrivals = workload(Pattern::Daily { peak: 1.8 }, 1.0, 86_400).arrivals(0).unwrap();
        let (night, afternoon) = (within(&arrivals, 1, 3) / 7_200.0, within(&arrivals, 13, 15) / 7_200.0);
        assert!((0.15..0.3).contains(&night) && (1.7..1.9).contains(&afternoon), "{night} {afternoon}");
        assert!((within(&arrivals, 0, 24) / 86_400.0 - 1.0).abs() < 0.03);
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        for (workload, word) in [
            (workload(Pattern::Steady, 1e6, 86_400), "jobs"),
            (workload(Pattern::Steady, f64::NAN, 1), "rate"),
            (workload(Pattern::Daily { peak: 3.0 }, 1.0, 1), "peak"),
            (workload(Pattern::Burst { jobs: 1, every: Duration::ZERO }, 1.0, 1), "between bursts"),
        ] {
            let error = workload.arrivals(0).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
