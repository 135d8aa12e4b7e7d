//! What a simulation found.

use std::time::Duration;

use serde::Serialize;

use super::{Bucket, stats::Stats};

/// How long jobs waited until they were begun, in seconds. One that was never begun counts with its wait so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Waits {
    /// Mean.
    pub mean: f64,
    /// Half waited no longer.
    pub p50: f64,
    /// 95 of 100 waited no longer.
    pub p95: f64,
    /// 99 of 100 waited no longer.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl Waits {
    /// Of all these, in microseconds.
    #[expect(clippy::cast_precision_loss, reason = "exact for more than 200 years")]
    pub(super) fn of(mut micros: Vec<u64>) -> Self {
        micros.sort_unstable();
        let count = micros.len();
        let at = |percent: usize| {
            // The nearest rank: a wait that was really had.
            let rank = (count * percent).div_ceil(100).max(1);
            micros.get(rank - 1).map_or(0.0, |wait| *wait as f64 / 1e6)
        };
        let sum: u128 = micros.iter().map(|wait| u128::from(*wait)).sum();
        let mean = if count == 0 { 0.0 } else { sum as f64 / count as f64 / 1e6 };
        Self { mean, p50: at(50), p95: at(95), p99: at(99), max: at(100) }
    }
}

/// A change of the number of workers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScaleStep {
    /// When, in seconds since the beginning.
    pub at_seconds: f64,
    /// Workers before.
    pub from: u32,
    /// Workers wanted.
    pub to: u32,
    /// Why, as `swarm events` would say.
    pub reason: String,
}

/// What one simulation found. Times are in seconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The whole time simulated.
    pub seconds: f64,
    /// Jobs that came.
    pub jobs: usize,
    /// Of those, that were done.
    pub finished: usize,
    /// Of those, that were not.
    pub unfinished: usize,
    /// Jobs that were begun again, because their worker was stopped before it had finished.
    pub redone: usize,
    /// How long they waited.
    pub wait_seconds: Waits,
    /// Unfinished jobs at once, at most.
    pub depth_max: u64,
    /// Hours of all workers together, from the request to start one until it is gone.
    pub worker_hours: f64,
    /// Hours in which they worked.
    pub busy_hours: f64,
    /// Of the jobs that workers could have worked on at once, over their whole time, those that they did: 0 to 1.
    pub utilisation: f64,
    /// Workers at once, at most.
    pub workers_max: u32,
    /// Workers that were started.
    pub workers_started: usize,
    /// Times that workers were added or replaced.
    pub scaled_up: usize,
    /// Times that workers were let go.
    pub scaled_down: usize,
    /// Times that the actor looked.
    pub evaluations: u64,
    /// Every change, in order.
    pub changes: Vec<ScaleStep>,
    /// The whole time in equal parts.
    pub timeline: Vec<Bucket>,
}

/// What the engine counted besides the [`Stats`].
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
