//! Events of the Kubernetes backend.
#![expect(clippy::disallowed_macros, reason = "`telemetry` is where metrics are emitted")]

use metrics::counter;
use tracing::warn;

use super::label;
use crate::{model::WorkerType, telemetry::metric};

/// A watch on the cluster broke; it is made anew.
#[derive(Clone, Copy, Debug)]
pub struct WatchBroken<'a> {
    /// What was watched, from a closed set.
    pub watched: &'static str,
    /// Why: in the log only.
    pub error: &'a str,
}

impl WatchBroken<'_> {
    /// Counts and logs it.
    pub fn emit(self) {
        let Self { watched, error } = self;
        counter!(metric::WATCH_FAILURES, "watched" => watched).increment(1);
        warn!(watched, "watch broke, nothing is scaled until it works again: {error}");
    }
}

/// Nothing was scaled, because another autoscaler has the same target.
#[derive(Clone, Copy, Debug)]
pub struct ScalingRefused<'a> {
    /// Of which type.
    pub worker_type: &'a WorkerType,
    /// What the other one is, from a closed set.
    pub rival: &'static str,
}

impl ScalingRefused<'_> {
    /// Counts it. The backend's error says the rest.
    pub fn emit(self) {
        let Self { worker_type, rival } = self;
        counter!(metric::REFUSALS, "worker_type" => label(worker_type), "rival" => rival).increment(1);
    }
}

/// An Event for `kubectl describe` could not be written.
#[derive(Clone, Copy, Debug)]
pub struct NoticeFailed<'a> {
    /// Why.
    pub error: &'a str,
}

impl NoticeFailed<'_> {
    /// Logs it: nothing but the notice is lost.
    pub fn emit(self) {
        warn!("no Kubernetes Event: {}", self.error);
    }
}
