//! Events of the backend and its workers.
#![expect(clippy::disallowed_macros, reason = "`telemetry` is where metrics are emitted")]

use std::time::Duration;

use metrics::{counter, histogram};
use tracing::{debug, info, warn};

use super::{label, milliseconds};
use crate::{
    model::{WorkerId, WorkerType},
    telemetry::metric,
};

/// What a backend was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendCall {
    /// Which workers there are.
    Observe,
    /// To make it so many.
    Scale,
}

impl BackendCall {
    /// The name in metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Scale => "scale",
        }
    }
}

/// Whether a failure may go away by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// It may.
    Retryable,
    /// Someone must change something.
    Permanent,
}

impl FailureKind {
    /// The name in metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retryable => "retryable",
            Self::Permanent => "permanent",
        }
    }
}

/// Why a call failed.
#[derive(Clone, Copy, Debug)]
pub struct BackendFailure<'a> {
    /// A label value.
    pub kind: FailureKind,
    /// In words, for the log only.
    pub error: &'a str,
}

/// A backend answered or failed.
#[derive(Clone, Copy, Debug)]
pub struct BackendCalled<'a> {
    /// The backend's name.
    pub backend: &'static str,
    /// What it was asked.
    pub call: BackendCall,
    /// For which worker type: in the log only, see [`super::ReactionMeasured`].
    pub worker_type: &'a WorkerType,
    /// How long it took.
    pub elapsed: Duration,
    /// Why it failed, if it did.
    pub failure: Option<BackendFailure<'a>>,
    /// Whether a failure is news: only then is it logged at `warn`. Keeping track of that is the caller's part.
    pub news: bool,
}

impl BackendCalled<'_> {
    /// Measures the call; counts and logs a failure.
    pub fn emit(self) {
        let Self { backend, call, worker_type, elapsed, failure, news } = self;
        let call = call.as_str();
        histogram!(metric::BACKEND_CALL, "backend" => backend, "call" => call).record(elapsed);
        let Some(BackendFailure { kind, error }) = failure else {
            debug!(backend, call, %worker_type, elapsed_ms = milliseconds(elapsed), "backend answered");
            return;
        };
        let kind = kind.as_str();
        counter!(metric::BACKEND_ERRORS, "backend" => backend, "call" => call, "kind" => kind).increment(1);
        if news {
            warn!(backend, call, %worker_type, elapsed_ms = milliseconds(elapsed), kind, "backend failed: {error}");
        } else {
            debug!(backend, call, %worker_type, elapsed_ms = milliseconds(elapsed), kind, "backend still fails: {error}");
        }
    }
}

/// A worker ended without being asked to.
#[derive(Clone, Copy, Debug)]
pub struct WorkerExited<'a> {
    /// Of which type.
    pub worker_type: &'a WorkerType,
    /// Which one: in the log only.
    pub worker_id: &'a WorkerId,
    /// How, in words: in the log only.
    pub detail: &'a str,
    /// How long it had lived.
    pub lived: Duration,
    /// Whether it reported success.
    pub success: bool,
}

impl WorkerExited<'_> {
    /// Counts it; logs a failure at `warn`, else at `info`.
    pub fn emit(self) {
        let Self { worker_type, worker_id, detail, lived, success } = self;
        let outcome = if success { "true" } else { "false" };
        counter!(metric::WORKER_EXITS, "worker_type" => label(worker_type), "success" => outcome).increment(1);
        if success {
            info!(%worker_type, %worker_id, lived_ms = milliseconds(lived), "worker ended by itself: {detail}");
        } else {
            warn!(%worker_type, %worker_id, lived_ms = milliseconds(lived), "worker failed: {detail}");
        }
    }
}
