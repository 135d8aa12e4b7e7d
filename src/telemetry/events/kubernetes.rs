//! Events of the Kubernetes backend.
#![expect(clippy::disallowed_macros, reason = "`telemetry` is where metrics are emitted")]

use metrics::counter;
use tracing::{debug, info, warn};

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
    /// Counts it. The log has the outage as a whole, from those who observe the pools.
    pub fn emit(self) {
        let Self { watched, error } = self;
        counter!(metric::WATCH_FAILURES, "watched" => watched).increment(1);
        debug!(watched, "watch broke: {error}");
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

/// A node refused to run a pod, for the first time in a while.
#[derive(Clone, Copy, Debug)]
pub struct PodRejected<'a> {
    /// Of which type.
    pub worker_type: &'a WorkerType,
    /// Which pod.
    pub pod: &'a str,
    /// Why, in the words of the kubelet.
    pub reason: &'a str,
}

impl PodRejected<'_> {
    /// Logs it. Those that follow are counted by [`PodRejectionsEnded`].
    pub fn emit(self) {
        let Self { worker_type, pod, reason } = self;
        warn!(%worker_type, pod, "node rejected a pod: {reason}");
    }
}

/// Nodes have not refused a pod for a while.
#[derive(Clone, Copy, Debug)]
pub struct PodRejectionsEnded<'a> {
    /// Of which type.
    pub worker_type: &'a WorkerType,
    /// How many they had refused.
    pub pods: u64,
    /// Why, of the last one.
    pub reason: &'a str,
}

impl PodRejectionsEnded<'_> {
    /// Logs it.
    pub fn emit(self) {
        let Self { worker_type, pods, reason } = self;
        info!(%worker_type, pods, "nodes no longer reject pods; the last reason was: {reason}");
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
