//! Traces for an OpenTelemetry collector: each reaction from the first signal to the backend's answer, and each job
//! from publisher to worker. Built with the feature `otlp`, and active if the environment names an endpoint
//! (`OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`); otherwise all of this does nothing.
//!
//! A span is built when all its times are known, from instants noted on the way: nothing waits for a span.

use std::time::Duration;

use tokio::time::Instant;

#[cfg(not(feature = "otlp"))]
mod off;
#[cfg(feature = "otlp")]
mod otlp;

#[cfg(not(feature = "otlp"))]
use off as target;
#[cfg(feature = "otlp")]
use otlp as target;

pub use target::{Course, Publishing, Traces};

use crate::model::{Source, WorkerType};

/// Field of a job that names its trace: `traceparent` of W3C Trace Context.
pub const TRACEPARENT: &str = "traceparent";

/// A pool was changed, or the change failed.
#[derive(Clone, Copy, Debug)]
pub struct Acted<'a> {
    /// Worker type whose pool changed.
    pub worker_type: &'a WorkerType,
    /// When the first of the signals arrived that led to the change.
    pub first_signal: Instant,
    /// Signals that led to the change.
    pub sources: &'a [Source],
    /// `scale_up` or `scale_down`.
    pub action: &'static str,
    /// Workers before.
    pub from: u32,
    /// Workers that the decision asks for.
    pub to: u32,
    /// Reason of the decision, in words.
    pub reason: &'a str,
    /// Why the change failed; `None` if it succeeded.
    pub error: Option<&'a str>,
}

/// A worker finished an attempt at a job.
#[derive(Clone, Copy, Debug)]
pub struct JobTraced<'a> {
    /// Type of the worker.
    pub worker_type: &'a WorkerType,
    /// Type of the job: `browser.goto`.
    pub job_type: &'a str,
    /// Id of the job.
    pub id: &'a str,
    /// Id of the stream entry.
    pub entry: &'a str,
    /// Number of the attempt.
    pub attempt: u32,
    /// The job's [`TRACEPARENT`].
    pub parent: Option<&'a str>,
    /// How the job ended.
    pub outcome: &'static str,
    /// Error in words; `None` if the job succeeded.
    pub error: Option<&'a str>,
    /// Duration of the attempt.
    pub elapsed: Duration,
}

impl JobTraced<'_> {
    /// Sends the span to the collector.
    pub fn emit(self) {
        target::job(self);
    }
}
