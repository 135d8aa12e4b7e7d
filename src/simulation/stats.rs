//! Statistics of a running simulation: levels over time, their sums and their maxima.

use std::time::Duration;

use serde::Serialize;

use super::{SimTime, pool::Counts};

/// Number of parts into which the whole time is divided: about as many as a picture has pixels to show them.
const BUCKETS: usize = 600;

/// Levels at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Levels {
    /// Jobs that no worker has started.
    pub(super) waiting: u64,
    /// Target, in workers.
    pub(super) desired: u32,
    /// Workers that exist.
    pub(super) workers: Counts,
}

impl Levels {
    /// Returns the number of unfinished jobs.
    fn depth(self) -> u64 {
        self.waiting + u64::from(self.workers.held)
    }
}

/// One part of the whole time. Means are over the part's time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Bucket {
    /// Start of the part, in seconds since the beginning.
    pub from_seconds: f64,
    /// Jobs that arrived.
    pub arrivals: u64,
    /// Mean number of unfinished jobs.
    pub depth: f64,
    /// Maximum number of unfinished jobs.
    pub depth_max: u64,
    /// Mean target, in workers.
    pub desired: f64,
    /// Mean number of workers that exist.
    pub workers: f64,
    /// Mean number of ready and draining workers.
    pub ready: f64,
    /// Mean number of workers that hold a job.
    pub busy: f64,
}

/// Accumulates the levels.
#[derive(Debug)]
pub(super) struct Stats {
    now: SimTime,
    levels: Levels,
    width: u64,
    buckets: Vec<Bucket>,
    pub(super) worker_seconds: f64,
    pub(super) busy_seconds: f64,
    pub(super) job_seconds: f64,
    pub(super) peak_workers: u32,
    pub(super) peak_depth: u64,
}

impl Stats {
    /// Returns empty statistics for a simulation of the given length.
    pub(super) fn new(horizon: Duration) -> Self {
        let micros = u64::try_from(horizon.as_micros()).unwrap_or(u64::MAX).max(1);
        let width = micros.div_ceil(BUCKETS as u64);
        let bucket = |n: u64| Bucket { from_seconds: SimTime(n * width).seconds(), ..Bucket::default() };
        Self {
            now: SimTime::START,
            levels: Levels::default(),
            width,
            buckets: (0..micros.div_ceil(width)).map(bucket).collect(),
            worker_seconds: 0.0,
            busy_seconds: 0.0,
            job_seconds: 0.0,
            peak_workers: 0,
            peak_depth: 0,
        }
    }

    /// Accounts for the time until `to`, in which the levels did not change.
    pub(super) fn advance(&mut self, to: SimTime) {
        let Counts { busy, held, .. } = self.levels.workers;
        let existing = self.levels.workers.existing();
        let seconds = to.since(self.now).as_secs_f64();
        self.worker_seconds += f64::from(existing) * seconds;
        self.busy_seconds += f64::from(busy) * seconds;
        self.job_seconds += f64::from(held) * seconds;
        while self.now < to {
            let place = self.place(self.now);
            let end = SimTime((place as u64 + 1) * self.width).min(to);
            self.fill(place, end.since(self.now).as_secs_f64());
            self.now = end;
        }
    }

    fn place(&self, at: SimTime) -> usize {
        usize::try_from(at.0 / self.width).unwrap_or(usize::MAX).min(self.buckets.len() - 1)
    }

    /// Adds the levels over `seconds` to a bucket. The values are sums until [`Stats::buckets`] divides them.
    #[expect(clippy::cast_precision_loss, reason = "a depth beyond 2^52 is none")]
    fn fill(&mut self, place: usize, seconds: f64) {
        let (levels, bucket) = (self.levels, &mut self.buckets[place]);
        bucket.depth += levels.depth() as f64 * seconds;
        bucket.depth_max = bucket.depth_max.max(levels.depth());
        bucket.desired += f64::from(levels.desired) * seconds;
        bucket.workers += f64::from(levels.workers.existing()) * seconds;
        bucket.ready += f64::from(levels.workers.ready + levels.workers.draining) * seconds;
        bucket.busy += f64::from(levels.workers.busy) * seconds;
    }

    /// Sets the levels that hold from now on.
    pub(super) fn set(&mut self, levels: Levels) {
        self.levels = levels;
        self.peak_workers = self.peak_workers.max(levels.workers.existing());
        self.peak_depth = self.peak_depth.max(levels.depth());
        let place = self.place(self.now);
        self.buckets[place].depth_max = self.buckets[place].depth_max.max(levels.depth());
    }

    /// Counts an arrival.
    pub(super) fn arrival(&mut self) {
        let place = self.place(self.now);
        self.buckets[place].arrivals += 1;
    }

    /// Returns the whole time up to now in parts.
    pub(super) fn buckets(mut self) -> Vec<Bucket> {
        let (end, width) = (self.now, self.width);
        for (number, bucket) in (0_u64..).zip(&mut self.buckets) {
            let seconds = end.min(SimTime((number + 1) * width)).since(SimTime(number * width)).as_secs_f64();
            if seconds > 0.0 {
                for sum in
                    [&mut bucket.depth, &mut bucket.desired, &mut bucket.workers, &mut bucket.ready, &mut bucket.busy]
                {
                    *sum /= seconds;
                }
            }
        }
        self.buckets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_over_time_and_reach_across_buckets() {
        let mut stats = Stats::new(Duration::from_secs(600));
        let working = Counts { ready: 2, busy: 1, held: 1, ..Counts::default() };
        stats.set(Levels { waiting: 3, desired: 2, workers: working });
        stats.arrival();
        stats.advance(SimTime(1_500_000));
        stats.set(Levels::default());
        stats.advance(SimTime(600_000_000));
        assert!((stats.worker_seconds - 3.0).abs() < 1e-9 && (stats.busy_seconds - 1.5).abs() < 1e-9);
        let buckets = stats.buckets();
        assert_eq!(buckets.len(), 600);
        let depths: Vec<f64> = buckets.iter().take(3).map(|bucket| bucket.depth).collect();
        assert_eq!(depths, [4.0, 2.0, 0.0]);
        assert_eq!((buckets[1].depth_max, buckets[1].busy, buckets[2].ready), (4, 0.5, 0.0));
        assert_eq!((buckets[0].arrivals, buckets[599].from_seconds), (1, 599.0));
    }
}
