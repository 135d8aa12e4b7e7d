//! `[worker_types.NAME.scaling]`: how many workers to run. The module `policy` applies it.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schedule::ScheduleWindow;

/// `[worker_types.NAME.scaling]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ScalingSettings {
    /// How a backlog becomes a number of workers.
    pub strategy: Strategy,
    /// Minimum workers.
    #[schemars(range(max = 10_000))]
    pub min_workers: u32,
    /// Maximum workers.
    #[schemars(range(max = 10_000))]
    pub max_workers: u32,
    /// `threshold`, `step`: at this depth or more, scale up; also the jobs that one worker covers.
    #[schemars(range(min = 1))]
    pub scale_up_threshold: u64,
    /// `threshold`, `step`: at this depth or less, scale down. Must be less than `scale_up_threshold`.
    pub scale_down_threshold: u64,
    /// Minimum seconds between any change and the next scale-down; for `step`, also between two steps up.
    pub cooldown_seconds: u64,
    /// With no worker running, this depth starts the first worker, whatever `scale_up_threshold` says. Below it, no
    /// strategy starts a worker.
    #[schemars(range(min = 1))]
    pub activation_threshold: u64,
    /// `step`: workers added or removed at a time.
    #[schemars(range(min = 1))]
    pub step: u32,
    /// `backlog`: unfinished jobs per worker. `latency` uses it until it has learned how long a job takes.
    #[schemars(range(min = 1))]
    pub jobs_per_worker: u64,
    /// `latency`: seconds within which the workers clear all unfinished jobs and those that arrive meanwhile.
    #[schemars(range(min = 1, max = 86_400))]
    pub target_wait_seconds: u64,
    /// Idle workers kept on top of the busy ones, within `max_workers`.
    #[schemars(range(max = 10_000))]
    pub spare: u32,
    /// Scale-down follows the highest recommendation of the last N seconds. Default: 60 for `backlog` and `latency`,
    /// else 0.
    pub stabilization_window_seconds: Option<u64>,
    /// Maximum workers added per `step_period_seconds`. Default: unlimited.
    #[schemars(range(min = 1))]
    pub max_step_up: Option<u32>,
    /// Maximum workers removed per `step_period_seconds`. Default: unlimited.
    #[schemars(range(min = 1))]
    pub max_step_down: Option<u32>,
    /// Seconds over which `max_step_up` and `max_step_down` count.
    #[schemars(range(min = 1, max = 3_600))]
    pub step_period_seconds: u64,
    /// Seconds from the start of its process within which a worker must be ready; if it is not, it is replaced.
    #[schemars(range(min = 1))]
    pub start_grace_seconds: u64,
    /// Seconds from the request after which a worker that the platform has not begun is reported as failed, with the
    /// platform's reason. It still counts and is left alone.
    #[schemars(range(min = 1))]
    pub start_timeout_seconds: u64,
    /// Seconds a worker may take to finish its jobs when asked to leave; then it is stopped hard.
    pub drain_timeout_seconds: u64,
    /// Rank among the worker types under `scaler.max_total_workers`: free places go to the higher number first, and
    /// equal numbers get equal shares.
    #[schemars(range(min = -1_000, max = 1_000))]
    pub priority: i32,
    /// Minimum workers once the queue has not been readable for `fallback_after_seconds`. Raises the number of workers,
    /// and never lowers it. Default: an unreadable queue starts nobody.
    #[schemars(range(min = 1, max = 10_000))]
    pub fallback_workers: Option<u32>,
    /// Seconds without a readable queue after which `fallback_workers` takes effect.
    #[schemars(range(max = 86_400))]
    pub fallback_after_seconds: u64,
    /// Windows of time with a higher `min_workers` or a lower `max_workers`.
    pub schedule: Vec<ScheduleWindow>,
}

impl Default for ScalingSettings {
    fn default() -> Self {
        Self {
            strategy: Strategy::default(),
            min_workers: 0,
            max_workers: 10,
            scale_up_threshold: 5,
            scale_down_threshold: 0,
            cooldown_seconds: 60,
            activation_threshold: 1,
            step: 1,
            jobs_per_worker: 5,
            target_wait_seconds: 10,
            spare: 0,
            stabilization_window_seconds: None,
            max_step_up: None,
            max_step_down: None,
            step_period_seconds: 60,
            start_grace_seconds: 60,
            start_timeout_seconds: 600,
            drain_timeout_seconds: 300,
            priority: 0,
            fallback_workers: None,
            fallback_after_seconds: 60,
            schedule: Vec::new(),
        }
    }
}

impl ScalingSettings {
    /// Longest `step_period_seconds`. It bounds how long changes must be remembered.
    pub const LONGEST_STEP_PERIOD: Duration = Duration::from_secs(3_600);

    /// Returns `cooldown_seconds` as a duration.
    pub fn cooldown(&self) -> Duration {
        Duration::from_secs(self.cooldown_seconds)
    }

    /// Returns `stabilization_window_seconds`, or the strategy's default: strategies that follow the depth as it falls
    /// need a window.
    pub fn stabilization_window(&self) -> Duration {
        let of_strategy = match self.strategy {
            Strategy::Threshold | Strategy::Step => 0,
            Strategy::Backlog | Strategy::Latency => 60,
        };
        Duration::from_secs(self.stabilization_window_seconds.unwrap_or(of_strategy))
    }

    /// Returns `target_wait_seconds` as a duration.
    pub fn target_wait(&self) -> Duration {
        Duration::from_secs(self.target_wait_seconds)
    }

    /// Returns `step_period_seconds` as a duration.
    pub fn step_period(&self) -> Duration {
        Duration::from_secs(self.step_period_seconds)
    }

    /// Returns `fallback_after_seconds` as a duration.
    pub fn fallback_after(&self) -> Duration {
        Duration::from_secs(self.fallback_after_seconds)
    }

    /// Returns `start_grace_seconds` as a duration.
    pub fn start_grace(&self) -> Duration {
        Duration::from_secs(self.start_grace_seconds)
    }

    /// Returns `start_timeout_seconds` as a duration.
    pub fn start_timeout(&self) -> Duration {
        Duration::from_secs(self.start_timeout_seconds)
    }

    /// Returns `drain_timeout_seconds` as a duration.
    pub fn drain_timeout(&self) -> Duration {
        Duration::from_secs(self.drain_timeout_seconds)
    }
}

/// How a backlog becomes a number of workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// `ceil(depth / scale_up_threshold)` from `scale_up_threshold` on; down again at `scale_down_threshold`.
    #[default]
    Threshold,
    /// Like `threshold`, but by `step` workers at a time.
    Step,
    /// `ceil(depth / jobs_per_worker)`, always.
    Backlog,
    /// As many workers as clear the depth, and the jobs that arrive meanwhile, within `target_wait_seconds`. The
    /// duration of a job and the arrival rate are learned from the queue.
    Latency,
}
