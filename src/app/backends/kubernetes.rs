//! Wires the Kubernetes backend to the workers' Redis, over which it asks them to drain.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{
    app::MakeBackend,
    backend::{
        Check, DrainControl, DrainError, DrainState, LeaseObject, ScalingBackend,
        kubernetes::{self, KubernetesBackend, KubernetesLease, KubernetesSpec},
    },
    broker::{DrainRequestError, DrainRequests, Progress},
    config::Settings,
    connection::RedisTarget,
    model::{WorkerId, WorkerType},
};

/// Makes the backend of `orchestrator = "kubernetes"`.
pub(super) fn make(settings: Arc<Settings>) -> anyhow::Result<Box<MakeBackend<'static>>> {
    let target = RedisTarget::new(&settings.redis_url, settings.scaler.redis_timeout())?;
    let drain = Arc::new(OverRedis(DrainRequests::new(Arc::new(target))));
    Ok(Box::new(move |on_change, clock| {
        let spec = KubernetesSpec::from_settings(&settings);
        Box::pin(async move {
            let backend = KubernetesBackend::start(&spec, drain, on_change, clock).await?;
            Ok(Arc::new(backend) as Arc<dyn ScalingBackend>)
        })
    }))
}

/// The Lease by which autoscalers elect who leads, if the settings name one.
pub(super) async fn lease(settings: &Settings) -> anyhow::Result<Option<Arc<dyn LeaseObject>>> {
    let lease = KubernetesLease::configure(&settings.kubernetes).await?;
    Ok(lease.map(|lease| Arc::new(lease) as Arc<dyn LeaseObject>))
}

pub(super) async fn check(settings: &Settings) -> anyhow::Result<Vec<Check>> {
    Ok(kubernetes::check(&KubernetesSpec::from_settings(settings)).await)
}

struct OverRedis(DrainRequests);

#[async_trait]
impl DrainControl for OverRedis {
    async fn request(&self, worker_type: &WorkerType, ids: &[WorkerId], ttl: Duration) -> Result<(), DrainError> {
        self.0.request(worker_type, ids, ttl).await.map_err(|error| failed(&error))
    }

    async fn cancel(&self, worker_type: &WorkerType, ids: &[WorkerId]) -> Result<(), DrainError> {
        self.0.cancel(worker_type, ids).await.map_err(|error| failed(&error))
    }

    async fn states(&self, worker_type: &WorkerType, ids: &[WorkerId]) -> Result<Vec<DrainState>, DrainError> {
        let progress = self.0.progress(worker_type, ids).await.map_err(|error| failed(&error))?;
        Ok(progress.into_iter().map(state).collect())
    }
}

fn state(progress: Progress) -> DrainState {
    match progress {
        Progress::Working => DrainState::Working,
        Progress::Draining => DrainState::Draining,
        Progress::Drained | Progress::Gone => DrainState::Drained,
    }
}

fn failed(error: &DrainRequestError) -> DrainError {
    DrainError(error.to_string())
}
