//! Requests of KEDA.
#![expect(clippy::disallowed_macros, reason = "`telemetry` is where metrics are emitted")]

use metrics::counter;
use tracing::debug;

use crate::telemetry::metric;

/// KEDA asked something.
#[derive(Clone, Copy, Debug)]
pub struct KedaRequested<'a> {
    /// The gRPC method.
    pub method: &'static str,
    /// Status code of the answer: `OK`, `NOT_FOUND`.
    pub code: &'static str,
    /// Why there was no answer.
    pub error: Option<&'a str>,
}

impl KedaRequested<'_> {
    /// Counts the request and logs a refused one.
    pub fn emit(self) {
        let Self { method, code, error } = self;
        counter!(metric::KEDA_REQUESTS, "method" => method, "code" => code).increment(1);
        // KEDA shows the error in the events of the ScaledObject, again and again.
        if let Some(error) = error {
            debug!(method, code, error, "keda request refused");
        }
    }
}
