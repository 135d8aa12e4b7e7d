//! Makes the backend of `orchestrator = "kubernetes"`, which asks workers to drain over Redis.

use std::sync::Arc;

use super::over_redis::OverRedis;
use crate::{
    app::MakeBackend,
    backend::{
        Check, LeaseObject, ScalingBackend,
        kubernetes::{self, KubernetesBackend, KubernetesLease, KubernetesSpec},
    },
    config::Settings,
};

/// Returns the constructor of the backend of `orchestrator = "kubernetes"`.
pub(super) fn make(settings: Arc<Settings>) -> anyhow::Result<Box<MakeBackend<'static>>> {
    let drain = Arc::new(OverRedis::new(&settings)?);
    Ok(Box::new(move |on_change, clock| {
        let spec = KubernetesSpec::from_settings(&settings);
        Box::pin(async move {
            let backend = KubernetesBackend::start(&spec, drain, on_change, clock).await.map_err(super::reported)?;
            Ok(Arc::new(backend) as Arc<dyn ScalingBackend>)
        })
    }))
}

/// Returns the Lease by which autoscalers elect the leader, if the settings name one.
pub(super) async fn lease(settings: &Settings) -> anyhow::Result<Option<Arc<dyn LeaseObject>>> {
    let lease = KubernetesLease::configure(&settings.kubernetes).await.map_err(super::reported)?;
    Ok(lease.map(|lease| Arc::new(lease) as Arc<dyn LeaseObject>))
}

pub(super) async fn check(settings: &Settings) -> anyhow::Result<Vec<Check>> {
    Ok(kubernetes::check(&KubernetesSpec::from_settings(settings)).await)
}
