//! Unfinished work of another job framework, by what can be done about it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Reading, Timestamp};

/// Unfinished jobs in the queues of a framework, as of one reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Work {
    /// The framework's name, as in the settings.
    pub framework: String,
    /// Jobs that a worker can take now.
    pub waiting: u64,
    /// Jobs that workers hold.
    pub running: Reading<u64>,
    /// Scheduled and retried jobs whose time has come, and jobs that a dead worker held. Only a worker of the framework
    /// moves them.
    pub due: u64,
    /// Scheduled and retried jobs whose time has not come.
    pub later: u64,
    /// When the next one of those is due, by this machine's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_due: Option<Timestamp>,
    /// Queues that are paused: their waiting jobs do not count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paused: Vec<String>,
    /// Jobs that the framework itself runs at most at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}
