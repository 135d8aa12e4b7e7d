//! Asks workers to drain over their Redis, for backends that can't signal them.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{
    backend::{DrainControl, DrainError, DrainState},
    broker::{DrainRequestError, DrainRequests, Progress},
    config::Settings,
    connection::RedisTarget,
    model::{WorkerId, WorkerType},
};

pub(super) struct OverRedis(DrainRequests);

impl OverRedis {
    /// Connects to nothing yet.
    pub(super) fn new(settings: &Settings) -> anyhow::Result<Self> {
        let target = RedisTarget::new(&settings.redis_url, settings.scaler.redis_timeout())?;
        Ok(Self(DrainRequests::new(Arc::new(target))))
    }
}

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
