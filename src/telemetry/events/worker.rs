//! Events inside a worker.
#![expect(clippy::disallowed_macros, reason = "`telemetry` is where metrics are emitted")]

use std::{
    sync::{PoisonError, RwLock},
    time::Duration,
};

use metrics::{Counter, Histogram, counter, gauge, histogram};
use tracing::{debug, warn};

use super::{label, milliseconds};
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
    /// Another worker took it over, and it was stopped here.
    ClaimLost,
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
            Self::ClaimLost => "claim_lost",
        }
    }
}

/// The metrics of one worker's jobs, each looked up once: a look-up costs more than the counting.
pub struct JobMetrics {
    worker_type: WorkerType,
    known: RwLock<Vec<JobMetric>>,
}

struct JobMetric {
    method: &'static str,
    outcome: JobOutcome,
    count: Counter,
    /// `None` for jobs that were done elsewhere.
    seconds: Option<Histogram>,
}

impl JobMetrics {
    /// Those of a worker of that type.
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
        let timed = !matches!(outcome, JobOutcome::HandedOver | JobOutcome::ClaimLost);
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

/// A job was worked on.
#[derive(Clone, Copy)]
pub struct JobWorked<'a> {
    /// Where it is counted.
    pub metrics: &'a JobMetrics,
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
        let Self { metrics, method, job, outcome, error, elapsed } = self;
        metrics.record(method, outcome, elapsed);
        let outcome_name = outcome.as_str();
        if let Some(error) = error {
            warn!(job, method, outcome = outcome_name, elapsed_ms = milliseconds(elapsed), "job not done: {error}");
        } else {
            debug!(job, method, outcome = outcome_name, elapsed_ms = milliseconds(elapsed), "job ended");
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
