//! Stand-ins for traces in a build without the feature `otlp`: no effect, no bytes.

use super::{Acted, JobTraced};

/// Stand-in for the exporter of traces.
#[derive(Debug)]
pub struct Traces;

impl Traces {
    /// Logs a line if the environment asks for traces.
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

/// Stand-in for the times of one evaluation.
#[derive(Debug, Default)]
pub struct Course {}

impl Course {
    /// Does nothing at the start of an observation.
    pub fn observing(&mut self) {}
    /// Does nothing at the end of an observation.
    pub fn observed(&mut self) {}
    /// Does nothing after a decision.
    pub fn decided(&mut self) {}
    /// Does nothing after a change.
    pub fn acted(&mut self, _: Acted<'_>) {}
}

/// Stand-in for the span of a job that is being published.
#[derive(Debug)]
pub struct Publishing;

impl Publishing {
    /// Returns `None`: there are no spans.
    pub fn begin(_: &str, _: &str, _: &str, _: Option<&str>) -> Option<Self> {
        None
    }

    /// Returns an empty text.
    pub fn traceparent(&self) -> String {
        String::new()
    }

    /// Does nothing.
    pub fn end(self, _: Option<&str>) {}
}

pub(super) fn job(_: JobTraced<'_>) {}
