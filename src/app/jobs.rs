//! Answers questions about jobs over HTTP, with the queues of the settings in force.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use async_trait::async_trait;

use crate::{
    broker::Client,
    config::Settings,
    connection::RedisTarget,
    model::job::{Cancelled, JobError, JobReport, JobService},
};

/// How long to wait for a worker to stop a job: shorter than the time for an answer over HTTP.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// The service; its settings change with a reload.
pub(super) struct Jobs {
    target: Arc<RedisTarget>,
    client: RwLock<Client>,
}

impl Jobs {
    pub(super) fn new(settings: &Arc<Settings>, target: &Arc<RedisTarget>) -> Self {
        let client = Client::new(settings.clone(), RedisTarget::clone(target));
        Self { target: target.clone(), client: client.into() }
    }

    /// Uses other settings from now on.
    pub(super) fn reload(&self, settings: &Arc<Settings>) {
        let client = Client::new(settings.clone(), RedisTarget::clone(&self.target));
        *self.client.write().unwrap_or_else(PoisonError::into_inner) = client;
    }

    fn client(&self) -> Client {
        self.client.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl JobService for Jobs {
    async fn report(&self, id: &str) -> Result<Option<JobReport>, JobError> {
        self.client().job(id).await.map_err(|error| JobError(error.to_string()))
    }

    async fn cancel(&self, id: &str) -> Result<Cancelled, JobError> {
        self.client().cancel(id, STOP_TIMEOUT).await.map_err(|error| JobError(error.to_string()))
    }
}
