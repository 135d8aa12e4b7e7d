//! Asks running workers over Redis to take no more jobs, and withdraws such a request: for code that lets workers go
//! and can't send them a signal. Owns the keys and channels `worker:control:*`.

use std::time::Duration;

use redis::Pipeline;

use super::BrokerError;
use crate::connection::Connection;
use crate::model::{WorkerId, WorkerType, keys};

/// Value of the key while a worker must take no more jobs.
pub const DRAIN: &str = "drain";

/// Asks the workers `ids` to take no more jobs until `ttl` is over; ask again to extend it. The workers finish what
/// they hold, write `DRAINING` in their heartbeats, and stay. A worker is drained when its heartbeat says `DRAINING`
/// with no job in progress and no session.
pub async fn request_drain(
    connection: &mut Connection,
    worker_type: &WorkerType,
    ids: &[WorkerId],
    ttl: Duration,
) -> Result<(), BrokerError> {
    let ttl = ttl.as_millis().max(1).to_string();
    let ask = |pipeline: &mut Pipeline, key: &str| {
        pipeline.cmd("SET").arg(key).arg(DRAIN).arg("PX").arg(&ttl).ignore();
    };
    tell(connection, worker_type, ids, ask, "ask workers to drain").await
}

/// Lets workers that were asked to drain take jobs again.
pub async fn cancel_drain(
    connection: &mut Connection,
    worker_type: &WorkerType,
    ids: &[WorkerId],
) -> Result<(), BrokerError> {
    let take_back = |pipeline: &mut Pipeline, key: &str| {
        pipeline.cmd("DEL").arg(key).ignore();
    };
    tell(connection, worker_type, ids, take_back, "let workers work again").await
}

/// Writes each worker's key, and wakes the worker: without the message it would read the key with its next heartbeat.
async fn tell(
    connection: &mut Connection,
    worker_type: &WorkerType,
    ids: &[WorkerId],
    write: impl Fn(&mut Pipeline, &str),
    doing: &str,
) -> Result<(), BrokerError> {
    if ids.is_empty() {
        return Ok(());
    }
    let mut pipeline = redis::pipe();
    for id in ids {
        let key = keys::control(worker_type, id);
        write(&mut pipeline, &key);
        pipeline.cmd("PUBLISH").arg(&key).arg("control").ignore();
    }
    let told = pipeline.exec_async(connection).await;
    told.map_err(|cause| BrokerError::new(format!("{doing} of type `{worker_type}`"), cause))
}
