//! Entries of `scaling:events` as they are shown: what was changed, and what people said.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Timestamp;

/// One entry of `scaling:events`. `docs/protocol.md` lists the fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ScalingEvent {
    /// The entry's id.
    pub id: String,
    /// When it was decided: the field `timestamp`, else the time in the id.
    pub at: Timestamp,
    /// Whose pool.
    pub worker_type: String,
    /// `scale_up` or `scale_down`; `paused`, `observe`, `pinned` or `resumed` for what somebody said.
    pub decision: String,
    /// Workers before.
    pub from_count: Option<u32>,
    /// Workers wanted.
    pub to_count: Option<u32>,
    /// Why, in words.
    pub reason: String,
    /// The signals that led to it.
    pub trigger: Vec<String>,
    /// Jobs not delivered then.
    pub lag: Option<u64>,
    /// Jobs delivered and unfinished then.
    pub pending: Option<u64>,
    /// `done` or `failed`.
    pub outcome: String,
    /// Why it failed, if it did.
    pub error: Option<String>,
    /// From the first signal to the backend's answer, in milliseconds.
    pub reaction_ms: Option<f64>,
    /// The scaler that wrote it.
    pub instance: String,
    /// The fencing token of its term; `None` without an election.
    pub token: Option<u64>,
    /// Who said so, if it is somebody's word: `user@host`.
    pub by: String,
}

/// Gives out the newest entries, from memory. The scaler implements it; readers hold it as `Arc<dyn EventSource>`.
pub trait EventSource: Send + Sync + 'static {
    /// The newest `count` at most, oldest first, of one worker type if it is named.
    fn newest(&self, count: usize, worker_type: Option<&str>) -> Vec<Arc<ScalingEvent>>;

    /// Why they may be out of date; `None` if they are not.
    fn problem(&self) -> Option<String>;
}
