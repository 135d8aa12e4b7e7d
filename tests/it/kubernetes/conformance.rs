//! Pods of the fake API server for the suite that all backends pass.

use std::sync::Arc;

use async_trait::async_trait;
use swarm::{
    backend::{DrainControl, DrainError, DrainState, ScalingBackend, kubernetes::KubernetesBackend},
    config::TargetKind,
    model::{Clock, WorkerId, WorkerType},
};
use tokio::sync::watch;

use super::{TYPE, bed::Bed, controller::Behaviour};
use crate::conformance::Rig;

/// Workers that hold nothing: whoever is asked to drain has drained.
struct Idle;

#[async_trait]
impl DrainControl for Idle {
    async fn request(&self, _: &WorkerType, _: &[WorkerId], _: std::time::Duration) -> Result<(), DrainError> {
        Ok(())
    }

    async fn cancel(&self, _: &WorkerType, _: &[WorkerId]) -> Result<(), DrainError> {
        Ok(())
    }

    async fn states(&self, _: &WorkerType, ids: &[WorkerId]) -> Result<Vec<DrainState>, DrainError> {
        Ok(vec![DrainState::Drained; ids.len()])
    }
}

/// See the [module](self).
pub(crate) struct Pods {
    bed: Bed,
    backend: KubernetesBackend,
    changes: watch::Receiver<u64>,
}

impl Rig for Pods {
    /// Who is started is known when its controller has made it.
    const NAMES_STARTED: bool = false;

    async fn start() -> Self {
        let bed = Bed::start_fake(Behaviour::default()).await;
        bed.deployment(TYPE, 0).await;
        let (count, changes) = watch::channel(0);
        let on_change = Arc::new(move |_: &WorkerType| count.send_modify(|count| *count += 1));
        let spec = super::spec(&bed, TargetKind::Deployment);
        let backend = KubernetesBackend::start(&spec, Arc::new(Idle), on_change, Clock::start()).await.unwrap();
        Self { bed, backend, changes }
    }

    fn backend(&self) -> &dyn ScalingBackend {
        &self.backend
    }

    fn worker_type(&self) -> WorkerType {
        WorkerType::new(TYPE)
    }

    async fn changed(&mut self) {
        self.changes.changed().await.unwrap();
    }

    async fn crash(&self, id: &WorkerId) {
        self.bed.players().crash(id.as_str(), 1).await;
    }

    async fn allow_starts(&self, allowed: bool) {
        if allowed {
            self.bed.fake().allow_all();
        } else {
            self.bed.fake().deny("patch", "deployments/scale");
        }
    }

    async fn count(&self) -> usize {
        self.bed.pods(TYPE).await.len()
    }
}
