//! Dead letters as they are shown, and what can be done with them. Reading and changing them is the broker's task.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Timestamp, WorkerType};

/// One dead letter.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct DeadLetter {
    /// Stream that the job was on.
    pub stream: String,
    /// Id among the dead letters.
    pub entry: String,
    /// When the job was given up: the time in that id.
    pub at: Timestamp,
    /// Id of the job; `None` if the entry is malformed.
    pub id: Option<String>,
    /// Type of the job; `None` if the entry is malformed.
    #[serde(rename = "type")]
    pub job_type: Option<String>,
    /// `malformed`, `failed`, `expired`, `attempts_exhausted` or `interruptions_exhausted`.
    pub reason: String,
    /// Last error, in words.
    pub error: String,
    /// Id that the entry had on the stream.
    pub source_entry: String,
    /// Consumer group that gave the job up.
    pub group: String,
    /// Attempts that failed.
    pub attempts: u32,
    /// Number of interruptions.
    pub interruptions: u32,
}

/// Selection of dead letters; all given criteria must match.
#[derive(Clone, Debug, Default)]
pub struct DeadFilter {
    /// A job type (`browser.goto`), or the worker type before the dot.
    pub job_type: Option<String>,
    /// Job ids or dead letters' ids; any if empty.
    pub ids: Vec<String>,
    /// Only dead letters after the one with this id; `None`: from the oldest on.
    pub after: Option<String>,
    /// Only dead letters up to the one with this id; `None`: to the newest.
    pub until: Option<String>,
}

/// What is done with a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadLetterAction {
    /// The job is published again, as a new job.
    Retry,
    /// The dead letter is deleted.
    Drop,
}

/// What became of a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum DeadLetterOutcome {
    /// The job is on its stream again.
    Retried {
        /// Id of its new entry.
        new_entry: String,
    },
    /// The dead letter is deleted.
    Dropped,
    /// Somebody else has retried or dropped it.
    Gone,
    /// The entry is malformed: it would become a dead letter again immediately.
    NoJob,
}

/// A dead letter that was acted on.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct DeadLetterDone {
    /// Stream that the job was on.
    pub stream: String,
    /// Id among the dead letters.
    pub entry: String,
    /// Id of the job; `None` if the entry is malformed.
    pub id: Option<String>,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: DeadLetterOutcome,
}

/// Some dead letters of a worker type, oldest first.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct DeadLetterPage {
    /// The dead letters.
    pub dead_letters: Vec<DeadLetter>,
    /// Dead letters of all queues of the worker type.
    pub total: u64,
    /// Value of `after` for the next page; `null` on the last one.
    pub next: Option<String>,
}

/// Why dead letters could not be read or changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeadLetterError {
    /// There is no such worker type with queues of swarm's protocol.
    #[error(
        "there is no worker type `{0}` with dead letters: it is not configured, or a framework keeps its failed jobs"
    )]
    Unknown(WorkerType),
    /// Redis can't be asked.
    #[error("{0}")]
    Unavailable(String),
}

/// Lists the dead letters of a worker type, retries and drops them.
#[async_trait]
pub trait DeadLetterService: Send + Sync + 'static {
    /// Returns the oldest `limit` dead letters after the one with id `after`, and those that share the last one's id.
    ///
    /// # Errors
    /// If the worker type is unknown, or Redis can't be asked.
    async fn list(
        &self,
        worker_type: &WorkerType,
        after: Option<String>,
        limit: usize,
    ) -> Result<DeadLetterPage, DeadLetterError>;

    /// Retries or drops the oldest `limit` dead letters that have these ids, of a job or their own; any if there are no
    /// ids. Returns what became of each. An id that no dead letter has is left out.
    ///
    /// # Errors
    /// If the worker type is unknown, or Redis can't be asked; some may be changed then.
    async fn act(
        &self,
        worker_type: &WorkerType,
        ids: &[String],
        action: DeadLetterAction,
        limit: usize,
    ) -> Result<Vec<DeadLetterDone>, DeadLetterError>;
}
