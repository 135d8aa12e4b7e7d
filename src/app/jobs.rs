//! Answers questions about jobs and dead letters over HTTP, with the queues of the settings in force.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use async_trait::async_trait;

use crate::{
    broker::{BrokerError, Client, DeadLetterStreams},
    config::Settings,
    connection::{Connection, RedisTarget},
    model::{
        WorkerType,
        dead_letter::{
            DeadFilter, DeadLetterAction, DeadLetterDone, DeadLetterError, DeadLetterPage, DeadLetterService,
        },
        job::{Cancelled, JobError, JobReport, JobService},
    },
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

    async fn dead_letters(&self, worker_type: &WorkerType) -> Result<(Connection, DeadLetterStreams), DeadLetterError> {
        let answer = self.client().dead_letters(worker_type).await;
        let (connection, streams) = answer.map_err(|error| DeadLetterError::Unavailable(error.to_string()))?;
        Ok((connection, streams.ok_or_else(|| DeadLetterError::Unknown(worker_type.clone()))?))
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

#[async_trait]
impl DeadLetterService for Jobs {
    async fn list(
        &self,
        worker_type: &WorkerType,
        after: Option<String>,
        limit: usize,
    ) -> Result<DeadLetterPage, DeadLetterError> {
        let (mut connection, streams) = self.dead_letters(worker_type).await?;
        let filter = DeadFilter { after, ..DeadFilter::default() };
        let dead_letters = streams.list(&mut connection, &filter, limit).await.map_err(|error| unavailable(&error))?;
        let total = streams.count(&mut connection).await.map_err(|error| unavailable(&error))?;
        let next = dead_letters.last().filter(|_| dead_letters.len() >= limit).map(|last| last.entry.clone());
        Ok(DeadLetterPage { dead_letters, total, next })
    }

    async fn act(
        &self,
        worker_type: &WorkerType,
        ids: &[String],
        action: DeadLetterAction,
        limit: usize,
    ) -> Result<Vec<DeadLetterDone>, DeadLetterError> {
        let (mut connection, streams) = self.dead_letters(worker_type).await?;
        let filter = DeadFilter { ids: ids.to_vec(), ..DeadFilter::default() };
        let mut done = Vec::new();
        let tell = |_: &_, of| {
            done.push(of);
            Ok::<_, BrokerError>(())
        };
        streams.act(&mut connection, &filter, action, limit, tell).await.map_err(|error| unavailable(&error))?;
        Ok(done)
    }
}

fn unavailable(error: &BrokerError) -> DeadLetterError {
    DeadLetterError::Unavailable(error.to_string())
}
