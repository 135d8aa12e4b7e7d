//! Events inside a worker.
#![expect(clippy::disallowed_macros, reason = "`telemetry` is where metrics are emitted")]

use std::{
    sync::{PoisonError, RwLock},
    time::Duration,
};

use metrics::{Counter, Histogram, counter, gauge, histogram};
use tracing::{debug, info, warn};

use super::{label, milliseconds};
use crate::{model::WorkerType, telemetry::metric};

/// How a job ended in its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobOutcome {
    /// The handler returned a result.
    Done,
    /// The handler returned an error.
    Failed,
    /// The job exceeded its time limit.
    TimedOut,
    /// The handler panicked.
    Panicked,
    /// The worker that held the job's session died.
    SessionLost,
    /// The entry did not hold a job, or the job must not be started.
    Refused,
    /// The worker handed the job over to the worker that holds its session.
    HandedOver,
    /// Another worker claimed the job, and this worker stopped it.
    ClaimLost,
    /// Somebody cancelled the job.
    Cancelled,
}

impl JobOutcome {
    /// Returns the name in metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Panicked => "panicked",
            Self::SessionLost => "session_lost",
            Self::Refused => "refused",
            Self::HandedOver => "handed_over",
            Self::ClaimLost => "claim_lost",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Metrics of one worker's jobs. Each metric is looked up once, because a look-up costs more than counting.
pub struct JobMetrics {
    worker_type: WorkerType,
    known: RwLock<Vec<JobMetric>>,
}

struct JobMetric {
    method: &'static str,
    outcome: JobOutcome,
    count: Counter,
    /// `None` for outcomes of jobs that did not run here.
    seconds: Option<Histogram>,
}

impl JobMetrics {
    /// Returns the metrics of a worker of the given type.
    pub fn new(worker_type: WorkerType) -> Self {
        Self { worker_type, known: RwLock::default() }
    }

    fn record(&self, method: &'static str, outcome: JobOutcome, elapsed: Duration) {
        let of_these = |metric: &&JobMetric| metric.outcome == outcome && metric.method == method;
        if let Some(metric) = self.known.read().unwrap_or_else(PoisonError::into_inner).iter().find(of_these) {
            return metric.record(elapsed);
        }
        let metric = self.look_up(method, outcome);
        metric.record(elapsed);
        self.known.write().unwrap_or_else(PoisonError::into_inner).push(metric);
    }

    fn look_up(&self, method: &'static str, outcome: JobOutcome) -> JobMetric {
        let worker_type = label(&self.worker_type);
        let count = counter!(metric::JOBS, "worker_type" => worker_type.clone(), "method" => method, "outcome" => outcome.as_str());
        let timed = !matches!(outcome, JobOutcome::HandedOver | JobOutcome::ClaimLost | JobOutcome::Cancelled);
        let seconds = timed.then(|| histogram!(metric::JOB_SECONDS, "worker_type" => worker_type, "method" => method));
        JobMetric { method, outcome, count, seconds }
    }
}

impl JobMetric {
    fn record(&self, elapsed: Duration) {
        self.count.increment(1);
        if let Some(seconds) = &self.seconds {
            seconds.record(elapsed);
        }
    }
}

/// A worker finished with a job.
#[derive(Clone, Copy)]
pub struct JobWorked<'a> {
    /// Metrics that count the job.
    pub metrics: &'a JobMetrics,
    /// Method of the job, if the handler names it, else `other`: anyone can publish a job with any name.
    pub method: &'static str,
    /// Id of the job: in the log only.
    pub job: &'a str,
    /// How the job ended.
    pub outcome: JobOutcome,
    /// Error in words; `None` if the job succeeded.
    pub error: Option<&'a str>,
    /// Time from the job's start to its end, without its completion in Redis.
    pub elapsed: Duration,
}

impl JobWorked<'_> {
    /// Counts, times and logs the job.
    pub fn emit(self) {
        let Self { metrics, method, job, outcome, error, elapsed } = self;
        metrics.record(method, outcome, elapsed);
        let outcome_name = outcome.as_str();
        let elapsed_ms = milliseconds(elapsed);
        match (error, outcome) {
            (None, _) => debug!(job, method, outcome = outcome_name, elapsed_ms, "job ended"),
            // As somebody wished.
            (Some(error), JobOutcome::Cancelled) => {
                info!(job, method, outcome = outcome_name, elapsed_ms, "job ended: {error}");
            }
            (Some(error), _) => warn!(job, method, outcome = outcome_name, elapsed_ms, "job not done: {error}"),
        }
    }
}

/// Work that a worker has in progress.
#[derive(Clone, Copy, Debug)]
pub struct WorkerLoad<'a> {
    /// Type of the worker.
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
