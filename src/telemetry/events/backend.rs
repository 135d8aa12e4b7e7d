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
    /// Whether a failure is news, as far as the caller knows. It is logged at `warn` if it is, and if it differs from the
    /// last failure of this call for this worker type.
    pub news: bool,
}

impl BackendCalled<'_> {
    /// Measures the call; counts and logs a failure.
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

/// Whether [`LOGGED`] holds anything: a call that succeeds takes no lock then.
static ANY_LOGGED: AtomicBool = AtomicBool::new(false);

/// Whether a call's outcome differs from the last failure that was logged of it. A decision that can't be carried out is
/// retried many times, and logged once.
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
