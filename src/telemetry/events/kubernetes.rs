//! Events of the Kubernetes backend.
#![expect(clippy::disallowed_macros, reason = "`telemetry` is where metrics are emitted")]

use metrics::counter;
use tracing::{debug, info, warn};

use super::label;
use crate::{model::WorkerType, telemetry::metric};

/// A watch on the cluster broke; the backend starts a new one.
#[derive(Clone, Copy, Debug)]
pub struct WatchBroken<'a> {
    /// What was watched, from a closed set.
    pub watched: &'static str,
    /// Error in words: in the log only.
    pub error: &'a str,
}

impl WatchBroken<'_> {
    /// Counts the failure. The code that observes the pools logs the outage as a whole.
    pub fn emit(self) {
        let Self { watched, error } = self;
        counter!(metric::WATCH_FAILURES, "watched" => watched).increment(1);
        debug!(watched, "watch broke: {error}");
    }
}

/// The backend did not scale, because another autoscaler has the same target.
#[derive(Clone, Copy, Debug)]
pub struct ScalingRefused<'a> {
    /// Worker type that was not scaled.
    pub worker_type: &'a WorkerType,
    /// Kind of the other autoscaler, from a closed set.
    pub rival: &'static str,
}

impl ScalingRefused<'_> {
    /// Counts the refusal. The backend's error says the rest.
    pub fn emit(self) {
        let Self { worker_type, rival } = self;
        counter!(metric::REFUSALS, "worker_type" => label(worker_type), "rival" => rival).increment(1);
    }
}

/// A node refused to run a pod, for the first time in a while.
#[derive(Clone, Copy, Debug)]
pub struct PodRejected<'a> {
    /// Type of the worker in the pod.
    pub worker_type: &'a WorkerType,
    /// Name of the pod.
    pub pod: &'a str,
    /// Why, in the words of the kubelet.
    pub reason: &'a str,
}

impl PodRejected<'_> {
    /// Logs the rejection. [`PodRejectionsEnded`] counts those that follow.
    pub fn emit(self) {
        let Self { worker_type, pod, reason } = self;
        warn!(%worker_type, pod, "node rejected a pod: {reason}");
    }
}

/// No node has refused a pod for a while.
#[derive(Clone, Copy, Debug)]
pub struct PodRejectionsEnded<'a> {
    /// Type of the workers in the pods.
    pub worker_type: &'a WorkerType,
    /// Number of pods that were refused.
    pub pods: u64,
    /// Why the last of them was refused.
    pub reason: &'a str,
}

impl PodRejectionsEnded<'_> {
    /// Logs the end of the rejections.
    pub fn emit(self) {
        let Self { worker_type, pods, reason } = self;
        info!(%worker_type, pods, "nodes no longer reject pods; the last reason was: {reason}");
    }
}

/// An Event for `kubectl describe` could not be written.
#[derive(Clone, Copy, Debug)]
pub struct NoticeFailed<'a> {
    /// Why the Event could not be written.
    pub error: &'a str,
}

impl NoticeFailed<'_> {
    /// Logs the failure. Only the Event is lost.
    pub fn emit(self) {
        warn!("Kubernetes Event not written: {}", self.error);
    }
}
