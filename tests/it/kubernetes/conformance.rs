//! Pods of the fake API server for the suite that all backends pass.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
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

impl Pods {
    async fn on(bed: Bed, kind: TargetKind) -> Self {
        let (count, changes) = watch::channel(0);
        let on_change = Arc::new(move |_: &WorkerType| count.send_modify(|count| *count += 1));
        let spec = super::spec(&bed, kind);
        let backend = KubernetesBackend::start(&spec, Arc::new(Idle), on_change, Clock::start()).await.unwrap();
        Self { bed, backend, changes }
    }
}

impl Rig for Pods {
    /// Who is started is known when its controller has made it.
    const NAMES_STARTED: bool = false;

    async fn start() -> Self {
        let bed = Bed::start_fake(Behaviour::default()).await;
        bed.deployment(TYPE, 0).await;
        Self::on(bed, TargetKind::Deployment).await
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

/// Jobs of the fake API server.
pub(crate) struct Jobs(Pods);

impl Rig for Jobs {
    async fn start() -> Self {
        let bed = Bed::start_fake(Behaviour::default()).await;
        bed.cron_job(TYPE, true).await;
        Self(Pods::on(bed, TargetKind::Job).await)
    }

    fn backend(&self) -> &dyn ScalingBackend {
        self.0.backend()
    }

    fn worker_type(&self) -> WorkerType {
        self.0.worker_type()
    }

    async fn changed(&mut self) {
        self.0.changed().await;
    }

    async fn crash(&self, id: &WorkerId) {
        let pod = self.0.bed.pod_of_job(TYPE, id.as_str()).await;
        self.0.bed.until("it runs", async || is_running(&self.0.bed, &pod).await).await;
        self.0.bed.end_pod(&pod, 1).await;
    }

    async fn allow_starts(&self, allowed: bool) {
        if allowed {
            self.0.bed.fake().allow_all();
        } else {
            self.0.bed.fake().deny("create", "jobs");
        }
    }

    /// A Job that has failed keeps its pod.
    async fn count(&self) -> usize {
        let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
        self.0.bed.pods(TYPE).await.iter().filter(|pod| phase(pod) != "Failed").count()
    }
}

async fn is_running(bed: &Bed, pod: &str) -> bool {
    let pod = bed.api::<Pod>().get(pod).await.expect("the pod is there");
    pod.status.and_then(|status| status.phase).as_deref() == Some("Running")
}
