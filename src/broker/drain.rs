//! Drain requests, for code that lets workers go and can't signal them: keeps a connection for them, and reads the
//! workers' progress from their heartbeats. Decides nothing.

use std::{sync::Arc, time::Duration};

use tokio::sync::Mutex;

use super::{BrokerError, cancel_drain, request_drain};
use crate::{
    connection::{Connection, ConnectionError, RedisTarget},
    model::{WorkerId, WorkerState, WorkerType, keys},
};

/// Progress of a worker's drain, by its heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The worker takes jobs.
    Working,
    /// The worker takes no more jobs, and has a job or a session left.
    Draining,
    /// The worker takes no more jobs and has none left.
    Drained,
    /// The worker has no heartbeat: it is gone, or never existed.
    Gone,
}

/// Why a request did not reach the workers.
#[derive(Debug, thiserror::Error)]
pub enum DrainRequestError {
    /// The connection failed.
    #[error(transparent)]
    Connect(#[from] ConnectionError),
    /// Redis did not answer, or refused.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

/// Sends requests and reads progress, over a connection of its own that is opened on first use and after each loss.
#[derive(Debug)]
pub struct DrainRequests {
    target: Arc<RedisTarget>,
    connection: Mutex<Option<Connection>>,
}

impl DrainRequests {
    /// Returns an instance that has not connected yet.
    pub fn new(target: Arc<RedisTarget>) -> Self {
        Self { target, connection: Mutex::new(None) }
    }

    /// Asks workers to drain; see [`request_drain`].
    pub async fn request(
        &self,
        worker_type: &WorkerType,
        ids: &[WorkerId],
        ttl: Duration,
    ) -> Result<(), DrainRequestError> {
        let mut connection = self.connection().await?;
        let outcome = request_drain(&mut connection, worker_type, ids, ttl).await;
        self.checked(outcome).await
    }

    /// Withdraws the request; see [`cancel_drain`].
    pub async fn cancel(&self, worker_type: &WorkerType, ids: &[WorkerId]) -> Result<(), DrainRequestError> {
        let mut connection = self.connection().await?;
        let outcome = cancel_drain(&mut connection, worker_type, ids).await;
        self.checked(outcome).await
    }

    /// Returns the progress of these workers, in their order.
    pub async fn progress(
        &self,
        worker_type: &WorkerType,
        ids: &[WorkerId],
    ) -> Result<Vec<Progress>, DrainRequestError> {
        let mut connection = self.connection().await?;
        let mut pipeline = redis::pipe();
        for id in ids {
            let heartbeat = keys::heartbeat(worker_type, id);
            pipeline.cmd("HMGET").arg(heartbeat).arg(&["state", "jobs_in_progress", "sessions"]);
        }
        let read = pipeline.query_async::<Vec<Heartbeat>>(&mut connection).await;
        let read = read.map_err(|cause| {
            BrokerError::new(format!("read the heartbeats of draining workers of type `{worker_type}`"), cause)
        });
        Ok(self.checked(read).await?.iter().map(progress).collect())
    }

    /// Returns a clone of the connection. Clones share it, so no caller waits for another one's reply.
    async fn connection(&self) -> Result<Connection, ConnectionError> {
        let mut connection = self.connection.lock().await;
        match &*connection {
            Some(connection) => Ok(connection.clone()),
            None => Ok(connection.insert(self.target.connect().await?).clone()),
        }
    }

    async fn checked<T>(&self, outcome: Result<T, BrokerError>) -> Result<T, DrainRequestError> {
        if outcome.as_ref().is_err_and(BrokerError::is_connection_lost) {
            *self.connection.lock().await = None;
        }
        Ok(outcome?)
    }
}

/// The fields `state`, `jobs_in_progress`, `sessions`.
type Heartbeat = (Option<String>, Option<u64>, Option<u64>);

fn progress((state, jobs, sessions): &Heartbeat) -> Progress {
    match state.as_deref().map(WorkerState::parse) {
        None => Progress::Gone,
        Some(Some(WorkerState::Shutdown)) => Progress::Drained,
        // A worker that does not count its jobs may still have some while its state is `DRAINING`.
        Some(Some(WorkerState::Draining)) if *jobs == Some(0) && sessions.unwrap_or(0) == 0 => Progress::Drained,
        Some(Some(WorkerState::Draining)) => Progress::Draining,
        Some(_) => Progress::Working,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drained_is_who_says_so_and_holds_nothing() {
        let told = |state: &str, jobs, sessions| progress(&(Some(state.to_owned()), jobs, sessions));
        assert_eq!(told("DRAINING", Some(0), Some(0)), Progress::Drained);
        assert_eq!(told("DRAINING", Some(1), Some(0)), Progress::Draining);
        assert_eq!(told("DRAINING", Some(0), Some(1)), Progress::Draining);
        assert_eq!(told("DRAINING", None, None), Progress::Draining);
        assert_eq!(told("IDLE", Some(0), Some(0)), Progress::Working);
        assert_eq!(told("SHUTDOWN", Some(0), Some(0)), Progress::Drained);
        assert_eq!(progress(&(None, None, None)), Progress::Gone);
    }
}
