//! Entries of `scaling:events` in the form that readers are shown: changes of a pool, and overrides that people set.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Timestamp;

/// One entry of `scaling:events`. `docs/protocol.md` lists the fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ScalingEvent {
    /// Id of the entry.
    pub id: String,
    /// When the decision was made: the field `timestamp`; without it, the time in the entry's id.
    pub at: Timestamp,
    /// Worker type whose pool the entry is about.
    pub worker_type: String,
    /// `scale_up` or `scale_down`; `paused`, `observe`, `pinned` or `resumed` for an override.
    pub decision: String,
    /// Workers before the change.
    pub from_count: Option<u32>,
    /// Workers that the decision asks for.
    pub to_count: Option<u32>,
    /// Reason of the decision, in words.
    pub reason: String,
    /// Signals that led to the decision.
    pub trigger: Vec<String>,
    /// Jobs that were not delivered at the time of the decision.
    pub lag: Option<u64>,
    /// Jobs that were delivered and unfinished at the time of the decision.
    pub pending: Option<u64>,
    /// `done` or `failed`.
    pub outcome: String,
    /// Why the change failed; `None` if it did not fail.
    pub error: Option<String>,
    /// Time from the first signal to the backend's answer, in milliseconds.
    pub reaction_ms: Option<f64>,
    /// Instance of the autoscaler that wrote the entry.
    pub instance: String,
    /// Fencing token of that autoscaler's term; `None` without an election.
    pub token: Option<u64>,
    /// Person who set an override, as `user@host`; empty for a decision of the autoscaler.
    pub by: String,
}

/// Serves the newest entries from memory. The scaler implements this trait; readers hold it as `Arc<dyn EventSource>`.
pub trait EventSource: Send + Sync + 'static {
    /// Returns at most the `count` newest entries, oldest first; with `worker_type`, only entries of that worker type.
    fn newest(&self, count: usize, worker_type: Option<&str>) -> Vec<Arc<ScalingEvent>>;

    /// Returns why the entries may be out of date; `None` while they are current.
    fn problem(&self) -> Option<String>;
}
