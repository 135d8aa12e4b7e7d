//! Events inside a worker.
#![expect(clippy::disallowed_macros, reason = "`telemetry` is where metrics are emitted")]

use std::time::Duration;

use metrics::{counter, gauge, histogram};
use tracing::{debug, warn};

use super::label;
use crate::{model::WorkerType, telemetry::metric};

/// How a job ended in its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobOutcome {
    /// Its handler answered.
    Done,
    /// Its handler said why not.
    Failed,
    /// It took longer than it may.
    TimedOut,
    /// Its handler panicked.
    Panicked,
    /// The worker that held its session died.
    SessionLost,
    /// There was no job in the entry, or it must not be begun.
    Refused,
    /// It was handed over to the worker that holds its session.
    HandedOver,
}

impl JobOutcome {
    /// The name in metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Panicked => "panicked",
            Self::SessionLost => "session_lost",
            Self::Refused => "refused",
            Self::HandedOver => "handed_over",
        }
    }
}

/// A job was worked on.
#[derive(Clone, Copy, Debug)]
pub struct JobWorked<'a> {
    /// The worker's type.
    pub worker_type: &'a WorkerType,
    /// The method; one that the handler names, else `other`: anyone can publish a job with any name.
    pub method: &'static str,
    /// The job's id: in the log only.
    pub job: &'a str,
    /// How it ended.
    pub outcome: JobOutcome,
    /// Why, if it was not done.
    pub error: Option<&'a str>,
    /// From its begin to its end, without its settling.
    pub elapsed: Duration,
}

impl JobWorked<'_> {
    /// Counts, times and logs it.
    pub fn emit(self) {
        let Self { worker_type, method, job, outcome, error, elapsed } = self;
        let (worker_type_label, outcome_name) = (label(worker_type), outcome.as_str());
        counter!(metric::JOBS, "worker_type" => worker_type_label.clone(), "method" => method, "outcome" => outcome_name)
            .increment(1);
        if outcome != JobOutcome::HandedOver {
            histogram!(metric::JOB_SECONDS, "worker_type" => worker_type_label, "method" => method).record(elapsed);
        }
        if let Some(error) = error {
            warn!(job, method, outcome = outcome_name, ?elapsed, "job not done: {error}");
        } else {
            debug!(job, method, outcome = outcome_name, ?elapsed, "job ended");
        }
    }
}

/// How much a worker has in progress.
#[derive(Clone, Copy, Debug)]
pub struct WorkerLoad<'a> {
    /// The worker's type.
    pub worker_type: &'a WorkerType,
    /// Jobs in progress.
    pub jobs: usize,
    /// Open sessions.
    pub sessions: usize,
}

impl WorkerLoad<'_> {
    /// Sets the gauges.
    pub fn emit(self) {
        let Self { worker_type, jobs, sessions } = self;
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53")]
        let (jobs, sessions) = (jobs as f64, sessions as f64);
        gauge!(metric::JOBS_IN_PROGRESS, "worker_type" => label(worker_type)).set(jobs);
        gauge!(metric::SESSIONS_OPEN, "worker_type" => label(worker_type)).set(sessions);
    }
}
