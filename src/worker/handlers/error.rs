//! Errors of jobs.

use std::time::Duration;

use super::COMMON_METHODS;
use crate::{
    broker::{Job, Retry},
    worker::SessionError,
};

/// Why a job failed, in words for its publisher.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// The handler does not know the method.
    #[error("no method `{method}` in job type `{job_type}`; this worker knows {known}")]
    UnknownMethod {
        /// Type of the job.
        job_type: String,
        /// Method in the type.
        method: String,
        /// Methods that the worker knows.
        known: String,
    },
    /// The arguments are invalid.
    #[error("{job_type}: {problem}")]
    Arguments {
        /// Type of the job.
        job_type: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// The job failed, and would fail again.
    #[error("{0}")]
    Failed(String),
    /// The job failed, and may succeed another time.
    #[error("{0}")]
    Transient(String),
    /// The job's session could not be opened. If another worker holds it, the job is handed over to that worker.
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl JobError {
    /// Returns an error for invalid arguments of `job`. `problem` says what is wrong, and what would be right.
    pub fn arguments(job: &Job, problem: impl Into<String>) -> Self {
        Self::Arguments { job_type: job.job_type.clone(), problem: problem.into() }
    }

    /// Returns an error for a `method` of `job` that is not among `known`, nor known to every worker.
    pub fn unknown_method(job: &Job, method: &str, known: &[&str]) -> Self {
        let known = known.iter().chain(COMMON_METHODS).copied().collect::<Vec<_>>().join(", ");
        Self::UnknownMethod { job_type: job.job_type.clone(), method: method.to_owned(), known }
    }

    /// Returns whether another attempt is worth it.
    pub(in crate::worker) fn retry(&self) -> Retry {
        match self {
            Self::Transient(_) | Self::Session(SessionError::Unclaimed { .. }) => Retry::Backoff,
            Self::Session(SessionError::Leaving(_)) => Retry::After(Duration::ZERO),
            _ => Retry::Never,
        }
    }

    /// Returns whether the job's session is open on another worker.
    pub(in crate::worker) fn is_elsewhere(&self) -> bool {
        matches!(self, Self::Session(SessionError::HeldElsewhere { .. }))
    }
}
