//! Traces for an OpenTelemetry collector: why and how long from the first signal to the backend's answer, and the way of a
//! job from publisher to worker. Built with the feature `otlp`, and used where the environment names an endpoint
//! (`OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`); otherwise all of this does nothing.
//!
//! A span is made when all of its times are known, from what was noted on the way: nothing waits for it.

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

/// The field of a job that says to which trace it belongs: W3C Trace Context's `traceparent`.
pub const TRACEPARENT: &str = "traceparent";

/// A pool was changed, or could not be.
#[derive(Clone, Copy, Debug)]
pub struct Acted<'a> {
    /// Whose.
    pub worker_type: &'a WorkerType,
    /// When the first of the signals came in that led to it.
    pub first_signal: Instant,
    /// Those signals.
    pub sources: &'a [Source],
    /// `scale_up` or `scale_down`.
    pub action: &'static str,
    /// Workers before.
    pub from: u32,
    /// Workers wanted.
    pub to: u32,
    /// Why, in words.
    pub reason: &'a str,
    /// Why it could not be.
    pub error: Option<&'a str>,
}

/// A worker has done a job, or tried to.
#[derive(Clone, Copy, Debug)]
pub struct JobTraced<'a> {
    /// Who did it.
    pub worker_type: &'a WorkerType,
    /// `browser.goto`.
    pub job_type: &'a str,
    /// The job.
    pub id: &'a str,
    /// Its stream entry.
    pub entry: &'a str,
    /// Which attempt this was.
    pub attempt: u32,
    /// Its [`TRACEPARENT`].
    pub parent: Option<&'a str>,
    /// How it ended.
    pub outcome: &'static str,
    /// Why it was not done.
    pub error: Option<&'a str>,
    /// How long that took.
    pub elapsed: Duration,
}

impl JobTraced<'_> {
    /// Tells the collector.
    pub fn emit(self) {
        target::job(self);
    }
}
