//! Writes the count of a target, and nothing else of it.

use k8s_openapi::api::autoscaling::v1::Scale;

use super::Reconciler;
use crate::backend::{
    BackendError, ErrorKind,
    kubernetes::{event_recorder::EventReason, store::View, units::count},
};

/// Attempts to write a count while only the target's status changes, which counts as a conflict too.
const ATTEMPTS: usize = 4;

impl Reconciler {
    /// Writes `spec.replicas`. A conflict over anything else is none; one over the count itself needs a new decision.
    pub(super) async fn write(&mut self, view: &View, to: u32) -> Result<(), BackendError> {
        let from = view.target.replicas;
        let mut version = view.target.resource_version.clone();
        self.shared.store.will_write(&self.worker_type, Some(to));
        for _ in 0..ATTEMPTS {
            if let Err(error) = self.shared.leader_guard.check() {
                self.shared.store.will_write(&self.worker_type, None);
                return Err(error);
            }
            let failed = match self.shared.cluster.patch_scale(&self.spec, &version, to).await {
                Ok(scale) => {
                    self.shared.store.wrote(&self.worker_type, &version_of(&scale), replicas_of(&scale));
                    let reason = if to > from { EventReason::ScaledUp } else { EventReason::ScaledDown };
                    self.record(reason, format!("worker type `{}`: {from} → {to} replicas", self.worker_type));
                    return Ok(());
                }
                Err(failed) => failed,
            };
            if !failed.conflict {
                // An error that may go away does not tell whether the count was written.
                if failed.error.kind == ErrorKind::Permanent {
                    self.shared.store.will_write(&self.worker_type, None);
                }
                return Err(failed.error);
            }
            let now = self.shared.cluster.get_scale(&self.spec).await?;
            version = version_of(&now);
            if replicas_of(&now) != from {
                self.shared.store.will_write(&self.worker_type, None);
                self.shared.store.read(&self.worker_type, &version, replicas_of(&now));
                return Err(failed.error);
            }
        }
        Err(BackendError::retryable(format!(
            "scaling {} to {to}: it changes faster than it can be written",
            self.spec.shown()
        )))
    }
}

fn version_of(scale: &Scale) -> String {
    scale.metadata.resource_version.clone().unwrap_or_default()
}

fn replicas_of(scale: &Scale) -> u32 {
    count(scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0))
}
