//! What can be asked about one job, and what becomes of a request to cancel it. Answering is the broker's task.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Timestamp, progress::ReportedProgress};

/// What became of a request to cancel a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Cancelled {
    /// The job waited; no worker starts it.
    Waiting,
    /// The job was delayed, and is removed.
    Delayed,
    /// The job ran, and its worker stopped it.
    Stopped {
        /// The worker.
        worker: String,
    },
    /// The job runs, and its worker was told and has not answered yet.
    Told {
        /// The worker.
        worker: String,
    },
    /// Somebody had cancelled the job before; no worker starts it.
    Already,
    /// The job ended before it could be cancelled.
    Finished,
    /// No stream has such an unfinished job, and there is no result.
    Unknown,
}

impl Cancelled {
    /// Returns whether the job does not run, and will not.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Waiting | Self::Delayed | Self::Stopped { .. } | Self::Already)
    }
}

/// Where a job is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum JobState {
    /// The job is not due yet: its publisher delayed it, or it is retried.
    Delayed {
        /// When the job is due.
        due: Timestamp,
    },
    /// No worker has taken the job.
    Waiting {
        /// Number of jobs ahead of it, counted up to 1000.
        ahead: usize,
    },
    /// A worker has the job.
    Running {
        /// The worker.
        worker: String,
        /// State in the worker's heartbeat.
        worker_state: String,
    },
    /// A worker had the job and has no heartbeat; another worker takes it over.
    Lost {
        /// The worker.
        worker: String,
    },
    /// The job was cancelled: the worker that takes it drops it.
    Cancelled,
    /// The job was given up.
    Dead {
        /// Stream of dead letters.
        key: String,
        /// Id among the dead letters.
        letter: String,
        /// When the job was given up.
        at: Timestamp,
        /// Reason of the dead letter, for example `failed` or `expired`.
        reason: String,
        /// Last error, in words.
        error: String,
    },
    /// The job has ended, and its result waits to be fetched.
    Finished {
        /// Whether the job succeeded.
        ok: bool,
        /// Error, if the job failed.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
}

/// A job's life, as far as Redis shows it.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct JobReport {
    /// Id of the job.
    pub id: String,
    /// Type of the job; `null` if only its result is left.
    #[serde(rename = "type")]
    pub job_type: Option<String>,
    /// Stream of the job; `null` if only its result is left.
    pub stream: Option<String>,
    /// Id of its newest entry on the stream.
    pub entry: Option<String>,
    /// When the job was published.
    pub published: Option<Timestamp>,
    /// Latest start.
    pub deadline: Option<Timestamp>,
    /// When its publisher stops waiting for the result.
    pub reply_by: Option<Timestamp>,
    /// Attempts that failed.
    pub failed_attempts: u32,
    /// Maximum attempts.
    pub max_attempts: Option<u32>,
    /// Number of interruptions.
    pub interruptions: u32,
    /// Workers to which the current entry was delivered, counted.
    pub deliveries: u32,
    /// Where the job is.
    #[serde(flatten)]
    pub state: JobState,
    /// How far the job is, if it runs and its handler reports progress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<ReportedProgress>,
    /// Why the job has no result yet: about its queue, its workers and the autoscaler.
    pub why: Vec<String>,
}

/// Why a question about a job has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JobError(pub String);

/// Answers questions about jobs, and cancels them.
#[async_trait]
pub trait JobService: Send + Sync + 'static {
    /// Returns what is known about a job; `None` if there is no such job any more.
    ///
    /// # Errors
    /// If Redis can't be asked.
    async fn report(&self, id: &str) -> Result<Option<JobReport>, JobError>;

    /// Cancels a job.
    ///
    /// # Errors
    /// If Redis can't be asked.
    async fn cancel(&self, id: &str) -> Result<Cancelled, JobError>;
}
