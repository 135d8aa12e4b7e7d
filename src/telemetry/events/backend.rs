//! Events of the backend and its workers.
#![expect(clippy::disallowed_macros, reason = "`telemetry` is where metrics are emitted")]

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use metrics::{counter, histogram};
use tracing::{debug, info, warn};

use super::{label, milliseconds};
use crate::{
    model::{WorkerId, WorkerType},
    telemetry::metric,
};

/// Operation that a backend was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendCall {
    /// List the workers of a pool.
    Observe,
    /// Change the number of workers.
    Scale,
}

impl BackendCall {
    /// Returns the name in metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Scale => "scale",
        }
    }
}

/// Idle workers that were asked to leave are still there, and are asked again.
#[derive(Clone, Copy, Debug)]
pub struct WorkersAskedAgain<'a> {
    /// Worker type.
    pub worker_type: &'a WorkerType,
    /// The workers.
    pub ids: &'a [WorkerId],
}

impl WorkersAskedAgain<'_> {
    /// Logs the event.
    pub fn emit(self) {
        let Self { worker_type, ids } = self;
        for worker_id in ids {
            warn!(%worker_type, %worker_id, "worker was asked to leave, is idle and has not left: asking it again");
        }
    }
}

/// Whether a failure can end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The failure can end by itself.
    Retryable,
    /// Somebody must change something.
    Permanent,
}

impl FailureKind {
    /// Returns the name in metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retryable => "retryable",
            Self::Permanent => "permanent",
        }
    }
}

/// Failure of a backend call.
#[derive(Clone, Copy, Debug)]
pub struct BackendFailure<'a> {
    /// Kind of the failure; a label value.
    pub kind: FailureKind,
    /// Error in words, for the log only.
    pub error: &'a str,
}

/// A backend answered, or failed.
#[derive(Clone, Copy, Debug)]
pub struct BackendCalled<'a> {
    /// Name of the backend.
    pub backend: &'static str,
    /// Operation that it was asked for.
    pub call: BackendCall,
    /// Worker type of the call: in the log only, see [`super::ReactionMeasured`].
    pub worker_type: &'a WorkerType,
    /// Duration of the call.
    pub elapsed: Duration,
    /// Why the call failed; `None` if it succeeded.
    pub failure: Option<BackendFailure<'a>>,
    /// Whether a failure is news, as far as the caller knows. The failure is logged at `warn` if it is news and differs
    /// from the last failure of this call for this worker type.
    pub news: bool,
}

impl BackendCalled<'_> {
    /// Records the duration; counts and logs a failure.
    pub fn emit(self) {
        let Self { backend, call, worker_type, elapsed, failure, news } = self;
        let call = call.as_str();
        histogram!(metric::BACKEND_CALL, "backend" => backend, "call" => call).record(elapsed);
        let news = is_news(worker_type, call, failure.map(|failure| failure.error)) && news;
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

/// Failures that were logged and have not ended since, by worker type and call. Nearly always empty.
static LOGGED: Mutex<BTreeMap<(String, &'static str), String>> = Mutex::new(BTreeMap::new());

/// Whether [`LOGGED`] is not empty. While it is empty, a call that succeeds takes no lock.
static ANY_LOGGED: AtomicBool = AtomicBool::new(false);

/// Returns whether a call's outcome differs from its last logged failure. A decision that can't be carried out is
/// retried many times and logged once.
fn is_news(worker_type: &WorkerType, call: &'static str, error: Option<&str>) -> bool {
    if error.is_none() && !ANY_LOGGED.load(Ordering::Acquire) {
        return true;
    }
    let mut logged = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (worker_type.to_string(), call);
    let before = match error {
        Some(error) => logged.insert(key, error.to_owned()),
        None => logged.remove(&key),
    };
    ANY_LOGGED.store(!logged.is_empty(), Ordering::Release);
    before.as_deref() != error
}

/// A worker ended although nobody had asked it to.
#[derive(Clone, Copy, Debug)]
pub struct WorkerExited<'a> {
    /// Type of the worker.
    pub worker_type: &'a WorkerType,
    /// Id of the worker: in the log only.
    pub worker_id: &'a WorkerId,
    /// How the worker ended, in words: in the log only.
    pub detail: &'a str,
    /// Time from the worker's start to its end.
    pub lived: Duration,
    /// Whether the worker reported success.
    pub success: bool,
}

impl WorkerExited<'_> {
    /// Counts the exit; logs a failure at `warn`, a success at `info`.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_news_once_until_it_changes_or_ends() {
        let (one, other) = (WorkerType::new("logged-once"), WorkerType::new("logged-apart"));
        assert!(is_news(&one, "scale", Some("a quota is used up")));
        assert!(!is_news(&one, "scale", Some("a quota is used up")));
        assert!(is_news(&other, "scale", Some("a quota is used up")), "of another worker type");
        assert!(is_news(&one, "observe", Some("a quota is used up")), "of another call");
        assert!(is_news(&one, "scale", Some("no right")));
        assert!(is_news(&one, "scale", None));
        assert!(is_news(&one, "scale", Some("no right")), "it had ended");
    }
}
