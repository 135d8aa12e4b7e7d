//! Why a job was not done.

use std::time::Duration;

use super::BuiltIn;
use crate::{
    broker::{Job, Retry},
    worker::SessionError,
};

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
    /// It was tried and failed, and would fail again.
    #[error("{0}")]
    Failed(String),
    /// It was tried and failed, and may succeed another time.
    #[error("{0}")]
    Transient(String),
    /// Its session could not be opened. If another worker holds it, the job is brought there.
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl JobError {
    /// `problem` with the arguments of `job`: what is wrong, and what would be right.
    pub fn arguments(job: &Job, problem: impl Into<String>) -> Self {
        Self::Arguments { job_type: job.job_type.clone(), problem: problem.into() }
    }

    /// `method` of `job` is none of `known`, nor one that every worker knows.
    pub fn unknown_method(job: &Job, method: &str, known: &[&str]) -> Self {
        let known = known.iter().chain(BuiltIn::METHODS).copied().collect::<Vec<_>>().join(", ");
        Self::UnknownMethod { job_type: job.job_type.clone(), method: method.to_owned(), known }
    }

    /// Whether another attempt is worth it.
    pub(in crate::worker) fn retry(&self) -> Retry {
        match self {
            Self::Transient(_) | Self::Session(SessionError::Unclaimed { .. }) => Retry::Backoff,
            Self::Session(SessionError::Leaving(_)) => Retry::After(Duration::ZERO),
            _ => Retry::Never,
        }
    }

    /// Whether the job's session is open on another worker.
    pub(in crate::worker) fn is_elsewhere(&self) -> bool {
        matches!(self, Self::Session(SessionError::HeldElsewhere { .. }))
    }
}
