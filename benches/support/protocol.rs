//! What the benchmark and the scaler under test, a process of its own, say to each other: one JSON value a line.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use swarm::config::Switch;

/// The hidden argument that makes a benchmark the scaler's process; the [`Setup`] follows it.
pub(crate) const SCALER_ARGUMENT: &str = "--scaler";

/// How the scaler is to be set up. Everything else is as by default.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) redis_url: String,
    pub(crate) types: usize,
    pub(crate) keyspace: Switch,
    pub(crate) tracking: Switch,
    pub(crate) channel: String,
    pub(crate) debounce_ms: u64,
    pub(crate) sweep_interval_seconds: u64,
    pub(crate) max_workers: u32,
    pub(crate) scale_up_threshold: u64,
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
            max_workers: scaling.max_workers,
            scale_up_threshold: scaling.scale_up_threshold,
        }
    }
}

/// Name of worker type N; also its consumer group.
pub(crate) fn type_name(index: usize) -> String {
    format!("type-{index:05}")
}

/// Queue of worker type N.
pub(crate) fn queue_name(index: usize) -> String {
    format!("{}:jobs", type_name(index))
}

/// To the scaler's process.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Command {
    /// Say [`Event::Status`].
    Status,
    /// Take all workers of this type away, and say [`Event::Settled`] once the scaler has seen that and rests.
    Clear(usize),
}

/// From the scaler's process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    /// It has been asked to scale: when, and to what. The first thing that the backend does is look at the clock.
    Scale { nanos: u64, target: u32 },
    /// See [`Command::Status`].
    Status(Status),
    /// See [`Command::Clear`].
    Settled,
}

/// What the scaler shows of itself.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) ready: bool,
    /// Evaluations of all worker types together.
    pub(crate) evaluations: u64,
    /// Targets of all worker types together.
    pub(crate) desired: u64,
    /// Sweeps so far.
    pub(crate) sweeps: f64,
    /// Seconds that they took together.
    pub(crate) sweep_seconds: f64,
}

/// The machine's clock in nanoseconds: the same for both processes.
pub(crate) fn nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
