//! What workers do with jobs. A handler knows nothing of Redis: it gets a job and answers a value or an error.

mod built_in;

use async_trait::async_trait;
use serde_json::Value;

pub use built_in::BuiltIn;

use crate::broker::Job;

/// Does jobs of one worker type. Called for several jobs at the same time. A panic fails the job that caused it, no other.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Does `method` of `job` (`goto` of `browser.goto`; empty if the job names none). May be dropped at any await when
    /// the worker is stopped hard; the job is then done again elsewhere.
    async fn handle(&self, method: &str, job: &Job) -> Result<Value, JobError>;
}

/// Why a job was not done, in words for whoever asked for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// No such method.
    #[error("no method `{method}` in job type `{job_type}`; this worker knows {known}")]
    UnknownMethod {
        /// What the job asked for.
        job_type: String,
        /// The method in it.
        method: String,
        /// Those that there are.
        known: String,
    },
    /// The arguments don't fit.
    #[error("{job_type}: {problem}")]
    Arguments {
        /// What the job asked for.
        job_type: String,
        /// What is wrong, and what is right.
        problem: String,
    },
    /// It was tried and failed.
    #[error("{0}")]
    Failed(String),
}
