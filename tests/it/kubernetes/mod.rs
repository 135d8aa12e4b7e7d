//! The Kubernetes backend: against the fake API server, and what makes sense without one against a real one (see
//! [`bed`]).

mod bed;
mod checks;
pub(crate) mod conformance;
mod controller;
mod draining;
mod faults;
mod job_controller;
mod jobs;
mod kubelet;
mod lease;
mod manifests;
mod manifests_jobs;
mod manifests_pods;
mod real;
mod real_jobs;
mod real_manifests;
mod reload;
mod rollouts;
mod scaling;
mod states;
mod whole;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use swarm::{
    backend::{
        BackendError, DrainControl, DrainError, DrainState, Instance, Phase, Pool, ScaleReport, ScaleRequest,
        ScalingBackend,
        kubernetes::{KubernetesBackend, KubernetesSpec, TargetSpec},
    },
    config::{KubernetesSettings, TargetKind},
    model::{Clock, WorkerId, WorkerType},
};

use self::bed::{Bed, name_of};

/// The worker type of most tests.
const TYPE: &str = "browser";

/// Workers that drain when the test says so.
#[derive(Clone, Debug, Default)]
struct Drains {
    inner: Arc<Mutex<WorkersState>>,
}

#[derive(Debug, Default)]
struct WorkersState {
    asked: Vec<String>,
    cancelled: Vec<String>,
    states: HashMap<String, DrainState>,
}

impl Drains {
    fn lock(&self) -> MutexGuard<'_, WorkersState> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who was asked to drain, in order.
    fn asked(&self) -> Vec<String> {
        self.lock().asked.clone()
    }

    /// Whose request was taken back.
    fn cancelled(&self) -> Vec<String> {
        self.lock().cancelled.clone()
    }

    /// This worker has finished.
    fn finish(&self, id: &str) {
        self.lock().states.insert(id.to_owned(), DrainState::Drained);
    }
}

#[async_trait]
impl DrainControl for Drains {
    async fn request(&self, _: &WorkerType, ids: &[WorkerId], _: Duration) -> Result<(), DrainError> {
        self.lock().asked.extend(ids.iter().map(WorkerId::to_string));
        Ok(())
    }

    async fn cancel(&self, _: &WorkerType, ids: &[WorkerId]) -> Result<(), DrainError> {
        let mut inner = self.lock();
        inner.cancelled.extend(ids.iter().map(WorkerId::to_string));
        for id in ids {
            inner.states.insert(id.to_string(), DrainState::Working);
        }
        Ok(())
    }

    async fn states(&self, _: &WorkerType, ids: &[WorkerId]) -> Result<Vec<DrainState>, DrainError> {
        let inner = self.lock();
        let of = |id: &WorkerId| inner.states.get(id.as_str()).copied().unwrap_or(DrainState::Draining);
        Ok(ids.iter().map(of).collect())
    }
}

/// A started backend.
struct Started {
    backend: KubernetesBackend,
    drains: Drains,
}

impl Started {
    async fn on(bed: &Bed) -> Self {
        Self::with(bed, TargetKind::Deployment).await
    }

    async fn with(bed: &Bed, kind: TargetKind) -> Self {
        Self::try_on(bed, kind).await.unwrap()
    }

    async fn try_on(bed: &Bed, kind: TargetKind) -> Result<Self, BackendError> {
        Self::try_of(&spec(bed, kind)).await
    }

    async fn of(spec: &KubernetesSpec) -> Self {
        Self::try_of(spec).await.unwrap()
    }

    async fn try_of(spec: &KubernetesSpec) -> Result<Self, BackendError> {
        let drains = Drains::default();
        let backend =
            KubernetesBackend::start(spec, Arc::new(drains.clone()), Arc::new(|_| {}), Clock::start()).await?;
        Ok(Self { backend, drains })
    }

    async fn pool(&self) -> Result<Pool, BackendError> {
        self.backend.observe(&WorkerType::new(TYPE)).await
    }

    /// Names of the workers in a phase.
    async fn in_phase(&self, phase: Phase) -> Vec<String> {
        let pool = self.pool().await.unwrap();
        let found = pool.instances.iter().filter(|instance: &&Instance| instance.phase == phase);
        found.map(|instance| instance.id.to_string()).collect()
    }

    /// Workers that count.
    async fn live(&self) -> usize {
        let pool = self.pool().await.unwrap();
        pool.instances.iter().filter(|instance| instance.phase != Phase::Draining).count()
    }

    async fn scale(&self, target: u32, retire: &[&str]) -> Result<ScaleReport, BackendError> {
        self.scale_within(target, retire, Duration::from_secs(300)).await
    }

    async fn scale_within(
        &self,
        target: u32,
        retire: &[&str],
        drain_timeout: Duration,
    ) -> Result<ScaleReport, BackendError> {
        let retire = retire.iter().map(|id| WorkerId::new(*id)).collect();
        let request = ScaleRequest { worker_type: WorkerType::new(TYPE), target, retire, drain_timeout };
        self.backend.scale(request).await
    }

    /// Scales up and waits until the pods are ready.
    async fn grow(&self, bed: &Bed, target: u32) -> Vec<String> {
        self.scale(target, &[]).await.unwrap();
        let all_ready = async || self.in_phase(Phase::Ready).await.len() == target as usize;
        bed.until("all pods are seen ready", all_ready).await;
        bed.pod_names(TYPE).await
    }

    async fn end(self, bed: Bed) {
        self.backend.shutdown(false).await;
        bed.end().await;
    }
}

fn spec(bed: &Bed, kind: TargetKind) -> KubernetesSpec {
    let target = TargetSpec { name: name_of(TYPE), kind, drains: true, drain_timeout: Duration::from_secs(5) };
    let cluster = KubernetesSettings { kubeconfig: Some(bed.kubeconfig()), ..KubernetesSettings::default() };
    KubernetesSpec { cluster, types: BTreeMap::from([(WorkerType::new(TYPE), target)]) }
}
