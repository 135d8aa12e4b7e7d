//! What stands in for traces in a program that was built without them: nothing, in no bytes.

use super::{Acted, JobTraced};

/// Would send traces until it is stopped.
#[derive(Debug)]
pub struct Traces;

impl Traces {
    /// Says so if somebody asks for traces.
    pub fn start() -> Self {
        const VARIABLES: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];
        let named = VARIABLES.into_iter().find(|variable| std::env::var_os(variable).is_some_and(|at| !at.is_empty()));
        if let Some(variable) = named {
            tracing::info!(
                "{variable} is set, and this program was built without traces: build it with `--features otlp`"
            );
        }
        Self
    }

    /// Does nothing.
    #[expect(clippy::unused_async, reason = "the other one waits for its last spans")]
    pub async fn stop(self) {}
}

/// Would note the times of one evaluation.
#[derive(Debug, Default)]
pub struct Course {}

impl Course {
    /// The look at pool and queue begins.
    pub fn observing(&mut self) {}
    /// It has ended.
    pub fn observed(&mut self) {}
    /// What to do has been decided.
    pub fn decided(&mut self) {}
    /// It has been done.
    pub fn acted(&mut self, _: Acted<'_>) {}
}

/// Would be the span of a job that is being published.
#[derive(Debug)]
pub struct Publishing;

impl Publishing {
    /// No span.
    pub fn begin(_: &str, _: &str, _: &str, _: Option<&str>) -> Option<Self> {
        None
    }

    /// Nothing.
    pub fn traceparent(&self) -> String {
        String::new()
    }

    /// Does nothing.
    pub fn end(self, _: Option<&str>) {}
}

pub(super) fn job(_: JobTraced<'_>) {}
