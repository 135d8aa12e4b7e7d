//! KEDA's external scaler: answers over gRPC how many workers a worker type needs, from the snapshots of its
//! evaluations, and pushes when it has work. Reads snapshots only, decides nothing; every instance answers, whether it
//! leads or not.

mod answer;
mod metadata;
mod proto;
mod refusal;
mod server;
mod service;
mod tls;

use std::sync::Arc;

use tokio::sync::watch;

pub use self::{
    server::{KedaServer, StartError},
    tls::{TlsError, check_tls},
};
use crate::model::{WorkerType, snapshot::StatusSource};

/// Returns a receiver that changes after each evaluation of a worker type.
pub type FollowType = dyn Fn(&WorkerType) -> watch::Receiver<()> + Send + Sync;

/// What the answers come from.
#[derive(Clone)]
pub struct Sources {
    /// The snapshots.
    pub status: Arc<dyn StatusSource>,
    /// Wakes streams.
    pub updates: Arc<FollowType>,
}
