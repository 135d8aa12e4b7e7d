//! Results of a simulation.

use std::time::Duration;

use serde::Serialize;

use super::{Bucket, stats::Stats};

/// Waiting times of jobs until their start, in seconds. A job that was never started counts with its wait so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Waits {
    /// Mean wait.
    pub mean: f64,
    /// Median: half of the jobs waited no longer.
    pub p50: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Longest wait.
    pub max: f64,
}

impl Waits {
    /// Returns the figures of the given waits, in microseconds.
    #[expect(clippy::cast_precision_loss, reason = "exact for more than 200 years")]
    pub(super) fn of(mut micros: Vec<u64>) -> Self {
        micros.sort_unstable();
        let count = micros.len();
        let at = |percent| nearest_rank(&micros, percent).map_or(0.0, |wait| wait as f64 / 1e6);
        let sum: u128 = micros.iter().map(|wait| u128::from(*wait)).sum();
        let mean = if count == 0 { 0.0 } else { sum as f64 / count as f64 / 1e6 };
        Self { mean, p50: at(50), p95: at(95), p99: at(99), max: at(100) }
    }
}

/// Returns the least of the sorted values that a share of them does not exceed, by the nearest rank, so that it is a
/// value that occurred; `None` if there are none.
pub fn nearest_rank<T: Copy>(sorted: &[T], percent: usize) -> Option<T> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// A change of the number of workers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScaleStep {
    /// Time of the change, in seconds since the beginning.
    pub at_seconds: f64,
    /// Workers before.
    pub from: u32,
    /// Workers that the decision asks for.
    pub to: u32,
    /// Reason, in the words of `swarm events`.
    pub reason: String,
}

/// Results of one simulation. Times are in seconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Simulated time.
    pub seconds: f64,
    /// Jobs that arrived.
    pub jobs: usize,
    /// Arrived jobs that were finished.
    pub finished: usize,
    /// Arrived jobs that were not finished.
    pub unfinished: usize,
    /// Jobs that were started again, because their worker was stopped before it had finished them.
    pub redone: usize,
    /// Waiting times of the jobs.
    pub wait_seconds: Waits,
    /// Maximum unfinished jobs at a time.
    pub depth_max: u64,
    /// Hours of all workers together, from the request to start a worker until it is gone.
    pub worker_hours: f64,
    /// Hours in which workers held jobs.
    pub busy_hours: f64,
    /// Share of the workers' job slots, over their whole time, in which a job ran: 0 to 1.
    pub utilisation: f64,
    /// Maximum workers at a time.
    pub workers_max: u32,
    /// Workers that were started.
    pub workers_started: usize,
    /// Number of times that workers were added or replaced.
    pub scaled_up: usize,
    /// Number of times that workers were let go.
    pub scaled_down: usize,
    /// Number of evaluations.
    pub evaluations: u64,
    /// All changes, in order.
    pub changes: Vec<ScaleStep>,
    /// The whole time in equal parts.
    pub timeline: Vec<Bucket>,
}

/// Figures that the engine counts besides [`Stats`].
#[derive(Debug, Default)]
pub(super) struct Counted {
    pub(super) jobs: usize,
    pub(super) finished: usize,
    pub(super) redone: usize,
    pub(super) waits: Vec<u64>,
    pub(super) started: usize,
    pub(super) evaluations: u64,
    pub(super) changes: Vec<ScaleStep>,
}

impl Report {
    pub(super) fn new(horizon: Duration, concurrency: u32, stats: Stats, counted: Counted) -> Self {
        let room = stats.worker_seconds * f64::from(concurrency);
        Self {
            seconds: horizon.as_secs_f64(),
            jobs: counted.jobs,
            finished: counted.finished,
            unfinished: counted.jobs - counted.finished,
            redone: counted.redone,
            wait_seconds: Waits::of(counted.waits),
            depth_max: stats.peak_depth,
            worker_hours: stats.worker_seconds / 3_600.0,
            busy_hours: stats.busy_seconds / 3_600.0,
            utilisation: if room > 0.0 { stats.job_seconds / room } else { 0.0 },
            workers_max: stats.peak_workers,
            workers_started: counted.started,
            scaled_up: counted.changes.iter().filter(|step| step.to >= step.from).count(),
            scaled_down: counted.changes.iter().filter(|step| step.to < step.from).count(),
            evaluations: counted.evaluations,
            changes: counted.changes,
            timeline: stats.buckets(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_waits_that_were_had() {
        let waits = Waits::of((1..=200).rev().map(|second| second * 1_000_000).collect());
        let told = [waits.p50, waits.p95, waits.p99, waits.max].map(|wait| wait.to_string());
        assert_eq!(told, ["100", "190", "198", "200"]);
        assert!((waits.mean - 100.5).abs() < 1e-9);
        assert_eq!(Waits::of(Vec::new()), Waits::default());
        assert!((Waits::of(vec![5]).p50 - 5e-6).abs() < 1e-12);
    }
}
