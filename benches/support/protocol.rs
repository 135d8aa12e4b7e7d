//! Messages between the benchmark and the process of the scaler under test: one JSON value a line.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use swarm::config::Switch;

/// Hidden argument that makes a benchmark the scaler's process; the [`Setup`] follows it.
pub(crate) const SCALER_ARGUMENT: &str = "--scaler";

/// Set-up of the scaler. Everything else has its default.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) redis_url: String,
    pub(crate) types: usize,
    pub(crate) keyspace: Switch,
    pub(crate) tracking: Switch,
    pub(crate) channel: String,
    pub(crate) debounce_ms: u64,
    pub(crate) sweep_interval_seconds: u64,
    pub(crate) min_workers: u32,
    pub(crate) max_workers: u32,
    pub(crate) scale_up_threshold: u64,
    /// Further queues of worker type 0: names or patterns.
    pub(crate) extra_queues: Vec<String>,
}

impl Setup {
    /// One worker type, keyspace notifications, the defaults of the product.
    pub(crate) fn new(redis_url: String) -> Self {
        let defaults = swarm::config::Settings::default();
        let scaling = swarm::config::ScalingSettings::default();
        Self {
            redis_url,
            types: 1,
            keyspace: Switch::On,
            tracking: Switch::Off,
            channel: String::new(),
            debounce_ms: defaults.scaler.debounce_ms,
            sweep_interval_seconds: defaults.scaler.sweep_interval_seconds,
            min_workers: scaling.min_workers,
            max_workers: scaling.max_workers,
            scale_up_threshold: scaling.scale_up_threshold,
            extra_queues: Vec::new(),
        }
    }
}

/// Name of worker type N; also its consumer group.
pub(crate) fn type_name(index: usize) -> String {
    format!("type-{index:05}")
}

/// Queue of worker type N.
#[allow(dead_code, reason = "not where queues are found by patterns")]
pub(crate) fn queue_name(index: usize) -> String {
    format!("{}:jobs", type_name(index))
}

/// Id of the N-th worker that the backend starts.
pub(crate) fn worker_name(index: usize) -> String {
    format!("worker-{index}")
}

/// Message to the scaler's process.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Command {
    /// Asks for [`Event::Status`].
    Status,
    /// Removes all workers of this type. Asks for [`Event::Settled`] when the scaler has seen that and is at rest.
    Clear(usize),
}

/// Message from the scaler's process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    /// The backend was asked to scale: when, and to which number. The backend reads the clock first.
    Scale { nanos: u64, target: u32 },
    /// See [`Command::Status`].
    Status(Status),
    /// See [`Command::Clear`].
    Settled,
}

/// Status of the scaler.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) ready: bool,
    /// Sum of evaluations of all worker types.
    pub(crate) evaluations: u64,
    /// Sum of targets of all worker types.
    pub(crate) desired: u64,
    /// Sum of workers that are ready.
    pub(crate) ready_workers: u64,
    /// Sum of the queues of worker types that have several.
    pub(crate) queues: u64,
    /// Fencing token of the term, if this scaler leads; else 0.
    pub(crate) token: u64,
    /// Number of sweeps.
    pub(crate) sweeps: f64,
    /// Total duration of the sweeps, in seconds.
    pub(crate) sweep_seconds: f64,
}

/// Returns the machine's clock in nanoseconds, which both processes share.
pub(crate) fn nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
