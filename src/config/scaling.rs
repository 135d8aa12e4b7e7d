//! `[worker_types.NAME.scaling]`: how many workers there should be. What the rules do with it is for `policy`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[worker_types.NAME.scaling]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ScalingSettings {
    /// How a backlog becomes a number of workers.
    pub strategy: Strategy,
    /// Never fewer workers than this.
    #[schemars(range(max = 10_000))]
    pub min_workers: u32,
    /// Never more workers than this.
    #[schemars(range(max = 10_000))]
    pub max_workers: u32,
    /// `threshold`, `step`: from this depth on, more workers; also the jobs one worker is asked to cover.
    #[schemars(range(min = 1))]
    pub scale_up_threshold: u64,
    /// `threshold`, `step`: at this depth or less, fewer workers. Must be less than `scale_up_threshold`.
    pub scale_down_threshold: u64,
    /// Seconds since the last change in either direction before workers are let go; for `step` also between steps up.
    pub cooldown_seconds: u64,
    /// With no worker running, this depth starts the first one, whatever `scale_up_threshold` says.
    #[schemars(range(min = 1))]
    pub activation_threshold: u64,
    /// `step`: workers added or removed at once.
    #[schemars(range(min = 1))]
    pub step: u32,
    /// `backlog`: unfinished jobs per worker.
    #[schemars(range(min = 1))]
    pub jobs_per_worker: u64,
    /// `backlog`: scale-down follows the highest wish of the last so many seconds.
    pub stabilization_window_seconds: u64,
    /// Seconds a starting worker counts as capacity; not ready by then, it is replaced.
    #[schemars(range(min = 1))]
    pub start_grace_seconds: u64,
    /// Seconds a worker may take to finish its jobs when asked to leave; then it is stopped hard.
    pub drain_timeout_seconds: u64,
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
            stabilization_window_seconds: 60,
            start_grace_seconds: 60,
            drain_timeout_seconds: 300,
        }
    }
}

impl ScalingSettings {
    /// `cooldown_seconds` as a duration.
    pub fn cooldown(&self) -> Duration {
        Duration::from_secs(self.cooldown_seconds)
    }

    /// `stabilization_window_seconds` as a duration.
    pub fn stabilization_window(&self) -> Duration {
        Duration::from_secs(self.stabilization_window_seconds)
    }

    /// `start_grace_seconds` as a duration.
    pub fn start_grace(&self) -> Duration {
        Duration::from_secs(self.start_grace_seconds)
    }

    /// `drain_timeout_seconds` as a duration.
    pub fn drain_timeout(&self) -> Duration {
        Duration::from_secs(self.drain_timeout_seconds)
    }
}

/// How a backlog becomes a number of workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// `ceil(depth / scale_up_threshold)` from `scale_up_threshold` on; back down at `scale_down_threshold`.
    #[default]
    Threshold,
    /// As `threshold`, by `step` workers at a time.
    Step,
    /// `ceil(depth / jobs_per_worker)`, always.
    Backlog,
}
