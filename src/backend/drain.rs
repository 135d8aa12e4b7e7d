//! Asking workers to take no more jobs where the backend has no signal to send them: over the queue's own connection.
//! The backend names the workers; the implementation owns the wire format.

use std::time::Duration;

use async_trait::async_trait;

use super::BackendError;
use crate::model::{WorkerId, WorkerType};

/// Drains workers by request.
#[async_trait]
pub trait DrainControl: Send + Sync + 'static {
    /// Asks these workers to take no more jobs and to finish those they have. The request lapses after `ttl`; asking
    /// again prolongs it.
    async fn request(&self, worker_type: &WorkerType, ids: &[WorkerId], ttl: Duration) -> Result<(), DrainError>;

    /// Lets these workers take jobs again.
    async fn cancel(&self, worker_type: &WorkerType, ids: &[WorkerId]) -> Result<(), DrainError>;

    /// How far each of these workers is, in their order.
    async fn states(&self, worker_type: &WorkerType, ids: &[WorkerId]) -> Result<Vec<DrainState>, DrainError>;
}

/// How far a worker is with its draining.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainState {
    /// It takes jobs: it was not asked to drain, or has not seen the request yet.
    Working,
    /// It takes no more and has some left.
    Draining,
    /// It takes no more and has none; or it is gone.
    Drained,
}

/// The request did not reach the workers, or their state can't be read: nothing is known of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DrainError(pub String);

impl DrainError {
    /// Returns the error of a backend whose workers are of this type.
    pub(super) fn into_backend_error(self, worker_type: &WorkerType) -> BackendError {
        BackendError::retryable(format!("workers of type `{worker_type}` can't be asked to drain: {self}"))
            .caused_by(self)
    }
}
