//! The script of the demo: the worker types, and acts that publish jobs. Pure.

use std::time::Duration;

/// Length for which the numbers below are made.
const USUAL: Duration = Duration::from_secs(40);

/// Jobs of one kind.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct JobBatch {
    /// `{worker type}.{method}`
    pub(super) job_type: &'static str,
    /// Only argument of the jobs.
    pub(super) argument: f64,
    /// Number of jobs.
    pub(super) count: usize,
}

/// Jobs that are published together, and what to look at.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Act {
    /// Time of the act, since the pools were up.
    pub(super) at: Duration,
    /// What is published.
    pub(super) title: String,
    /// What the viewer should see.
    pub(super) expect: &'static str,
    /// The jobs, by kind.
    pub(super) batches: Vec<JobBatch>,
}

/// The whole demo.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Script {
    /// Approximate length.
    pub(super) length: Duration,
    /// `cooldown_seconds` of both worker types.
    pub(super) cooldown_seconds: u64,
    /// Acts in their order.
    pub(super) acts: Vec<Act>,
}

impl Script {
    /// Returns a script of about this length: shorter ones have fewer jobs and a shorter cooldown.
    pub(super) fn lasting(length: Duration) -> Self {
        let scale = length.as_secs_f64() / USUAL.as_secs_f64();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a positive number of jobs, below 10,000"
        )]
        let jobs = |usual: f64| (usual * scale).round().clamp(5.0, 10_000.0) as usize;
        let at = |share: f64| length.mul_f64(share);
        let burst = |browser: usize, seconds: f64, tankpit: usize| {
            vec![
                JobBatch { job_type: "browser.sleep", argument: seconds, count: browser },
                JobBatch { job_type: "tankpit.sleep", argument: 0.3, count: tankpit },
            ]
        };
        let (first, small, second) = (jobs(40.0), jobs(6.0), jobs(30.0));
        let acts = vec![
            Act {
                at: at(0.02),
                title: "1 job for `tankpit`, which has no worker".to_owned(),
                expect: "one job is enough to start a worker, whatever the threshold",
                batches: vec![JobBatch { job_type: "tankpit.echo", argument: 1.0, count: 1 }],
            },
            Act {
                at: at(0.1),
                title: format!("a burst: {first} jobs of 0.8 s for `browser`, {} of 0.3 s for `tankpit`", jobs(16.0)),
                expect: "one decision for each pool; after the cooldown the idle leave, the busy never",
                batches: burst(first, 0.8, jobs(16.0)),
            },
            Act {
                at: at(0.45),
                title: format!("a few: {small} jobs for `browser`, {small} for `tankpit`"),
                expect: "a small backlog needs few workers",
                batches: burst(small, 0.5, small),
            },
            Act {
                at: at(0.75),
                title: format!("another burst: {second} jobs for `browser`, {small} for `tankpit`"),
                expect: "up at once, and down to the minimum when all is done",
                batches: burst(second, 0.5, small),
            },
        ];
        Self { length, cooldown_seconds: (length.as_secs() / 8).clamp(1, 5), acts }
    }

    /// Returns the configuration file of the demo's autoscaler and workers.
    pub(super) fn configuration(&self) -> String {
        let cooldown_seconds = self.cooldown_seconds;
        format!(
            "# Made by `swarm demo`.
orchestrator = \"process\"

[scaler]
debounce_ms = 50
sweep_interval_seconds = 1
on_shutdown = \"drain\"

[http]
listen = \"127.0.0.1:0\"

[worker_types.browser.scaling]
min_workers = 1
max_workers = 6
scale_up_threshold = 5
cooldown_seconds = {cooldown_seconds}
drain_timeout_seconds = 5

[worker_types.browser.worker]
heartbeat_seconds = 1

[worker_types.tankpit.scaling]
min_workers = 0
max_workers = 4
scale_up_threshold = 3
cooldown_seconds = {cooldown_seconds}
drain_timeout_seconds = 5

[worker_types.tankpit.worker]
heartbeat_seconds = 1
"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_of_any_length_is_in_order_and_leaves_time_to_scale_in() {
        for seconds in [5, 10, 40, 600] {
            let script = Script::lasting(Duration::from_secs(seconds));
            assert!(script.acts.is_sorted_by_key(|act| act.at));
            assert!(script.acts.iter().all(|act| act.at <= script.length.mul_f64(0.75)));
            assert!(script.acts.iter().flat_map(|act| &act.batches).all(|batch| batch.count > 0));
            assert!((1..=5).contains(&script.cooldown_seconds));
        }
    }

    #[test]
    fn the_usual_script_has_the_bursts_it_speaks_of() {
        let script = Script::lasting(USUAL);
        assert_eq!(script.acts[1].batches[0].count, 40);
        assert!(script.acts[1].title.contains("40 jobs"));
    }
}
