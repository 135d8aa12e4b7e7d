//! Turns a depth into a recommendation. Knows no bounds except the floor to which `threshold` falls back, and of the
//! past only what `latency` has learned.

use super::{
    flow::{Flow, Rates, float},
    reason::Reason,
};
use crate::config::{ScalingSettings, Strategy};

/// Returns the recommendation of the configured strategy for `depth` unfinished jobs and `current` workers, and its
/// arithmetic.
pub(super) fn recommend(settings: &ScalingSettings, flow: &Flow, depth: u64, current: u32) -> (u32, Reason) {
    match settings.strategy {
        Strategy::Threshold => {
            let needed = workers_for(depth, settings.scale_up_threshold);
            by_threshold(settings, depth, current, needed, settings.min_workers)
        }
        Strategy::Step => {
            let up = current.saturating_add(settings.step);
            let down = current.saturating_sub(settings.step).max(settings.min_workers);
            by_threshold(settings, depth, current, up, down)
        }
        Strategy::Backlog => {
            let jobs_per_worker = settings.jobs_per_worker;
            let recommendation = workers_for(depth, jobs_per_worker);
            (recommendation, Reason::Backlog { depth, jobs_per_worker, recommendation })
        }
        Strategy::Latency => by_latency(settings, flow, depth),
    }
}

/// Recommends the workers that handle the depth, and the jobs that arrive meanwhile, within the target.
fn by_latency(settings: &ScalingSettings, flow: &Flow, depth: u64) -> (u32, Reason) {
    match flow.rates() {
        Ok(Rates { job, arriving }) => {
            let within = settings.target_wait();
            let jobs = float(depth) + arriving * within.as_secs_f64();
            let recommendation = workers_within(jobs, job.as_secs_f64() / within.as_secs_f64());
            (recommendation, Reason::Latency { depth, job, arriving: whole(arriving * 1e3), recommendation, within })
        }
        Err(why) => {
            let jobs_per_worker = settings.jobs_per_worker;
            let recommendation = workers_for(depth, jobs_per_worker);
            (recommendation, Reason::LatencyUnlearned { depth, jobs_per_worker, recommendation, why })
        }
    }
}

/// Returns the workers for `jobs` within a time of which each job takes a worker the share `share`. A job that takes
/// the whole time has a worker of its own; less than one job needs no worker.
fn workers_within(jobs: f64, share: f64) -> u32 {
    /// Smaller differences are rounding errors.
    const NOTHING: f64 = 1e-9;
    if jobs < 1.0 {
        return 0;
    }
    let workers = (jobs * share.min(1.0) - NOTHING).ceil().max(1.0);
    u32::try_from(whole(workers)).unwrap_or(u32::MAX)
}

/// Rounds to the nearest whole number, saturating.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of a float saturates")]
fn whole(number: f64) -> u64 {
    number.round() as u64
}

/// Recommends `up` from the upper threshold on, `down` up to the lower one, and the present number between them.
fn by_threshold(settings: &ScalingSettings, depth: u64, current: u32, up: u32, down: u32) -> (u32, Reason) {
    let (low, high) = (settings.scale_down_threshold, settings.scale_up_threshold);
    if depth >= high {
        let recommendation = up.max(current);
        let reason = if up < current {
            Reason::DepthCovered { depth, threshold: high, needed: up, current }
        } else {
            Reason::DepthHigh { depth, threshold: high, recommendation }
        };
        (recommendation, reason)
    } else if depth <= low {
        (down, Reason::DepthLow { depth, threshold: low, recommendation: down })
    } else {
        (current, Reason::DepthBetween { depth, low, high, current })
    }
}

/// Returns the workers that `depth` jobs need at `jobs_each` per worker.
fn workers_for(depth: u64, jobs_each: u64) -> u32 {
    u32::try_from(depth.div_ceil(jobs_each.max(1))).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_started_share_needs_a_whole_worker() {
        assert_eq!([0, 1, 5, 6, 10].map(|depth| workers_for(depth, 5)), [0, 1, 1, 2, 2]);
        assert_eq!(workers_for(u64::MAX, 1), u32::MAX);
    }

    #[test]
    fn a_worker_does_as_many_jobs_as_fit_and_at_least_one() {
        // 120 jobs and 31 that arrive, at 0.8 s each, within 10 s.
        assert_eq!(workers_within(151.0, 0.08), 13);
        // 50 jobs of a fifth of the time need exactly ten workers, despite rounding errors.
        assert_eq!(workers_within(50.0, 0.2), 10);
        assert_eq!(workers_within(7.0, 60.0), 7, "jobs that take longer than that have a worker each");
        assert_eq!([0.0, 0.99, 1.0, 1.01].map(|jobs| workers_within(jobs, 0.5)), [0, 0, 1, 1]);
        assert_eq!(workers_within(f64::MAX, 1.0), u32::MAX);
        assert_eq!(workers_within(1.0, 0.0), 1);
    }
}
