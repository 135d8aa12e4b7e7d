//! Makes the backend of `orchestrator = "keda"`, which finds workers through their Redis.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    app::MakeBackend,
    backend::{
        BackendError, Check, CheckOutcome, ScalingBackend,
        keda::{FindWorkers, KedaBackend},
    },
    broker::GroupWorkers,
    config::Settings,
    connection::RedisTarget,
    model::{WorkerId, WorkerType},
};

pub(super) fn make(settings: Arc<Settings>) -> anyhow::Result<Box<MakeBackend<'static>>> {
    let target = RedisTarget::new(&settings.redis_url, settings.scaler.redis_timeout())?;
    let workers = Arc::new(ThroughRedis(GroupWorkers::new(Arc::new(target))));
    Ok(Box::new(move |_, clock| {
        Box::pin(async move { Ok(Arc::new(KedaBackend::new(&settings, workers, clock)) as Arc<dyn ScalingBackend>) })
    }))
}

/// Reads the files of the server's certificate. The address is in use while an autoscaler runs, so nothing binds it.
#[expect(clippy::unused_async, reason = "other backends ask somebody here")]
pub(super) async fn check(settings: &Settings) -> anyhow::Result<Vec<Check>> {
    let outcome = match crate::keda::check_tls(&settings.keda) {
        Ok(found) => CheckOutcome::Fine(found),
        Err(error) => CheckOutcome::Wrong(error.to_string()),
    };
    Ok(vec![Check { what: format!("keda server on {}: read its certificate", settings.keda.listen), outcome }])
}

struct ThroughRedis(GroupWorkers);

#[async_trait]
impl FindWorkers for ThroughRedis {
    async fn find(&self, worker_type: &WorkerType, stream: &str, group: &str) -> Result<Vec<WorkerId>, BackendError> {
        let found = self.0.of(worker_type, stream, group).await;
        found.map_err(|error| BackendError::retryable(error.to_string()).caused_by(error))
    }
}
