//! The workers of a consumer group that have a heartbeat, for code that is not told who runs. The group lists its
//! consumers, so no keys are scanned. Reads only.

use std::sync::Arc;

use redis::streams::StreamInfoConsumersReply;
use tokio::sync::Mutex;

use super::{BrokerError, DrainRequestError, code};
use crate::{
    connection::{Connection, ConnectionError, RedisTarget},
    model::{WorkerId, WorkerType, keys},
};

/// Reads them, over a connection of its own that is opened on first use and after each loss.
#[derive(Debug)]
pub struct GroupWorkers {
    target: Arc<RedisTarget>,
    connection: Mutex<Option<Connection>>,
}

impl GroupWorkers {
    /// Returns an instance that has not connected yet.
    pub fn new(target: Arc<RedisTarget>) -> Self {
        Self { target, connection: Mutex::new(None) }
    }

    /// Returns the consumers of `group` on `stream` that have a heartbeat as workers of this type. A missing stream or
    /// group has none.
    ///
    /// # Errors
    /// If Redis can't be asked.
    pub async fn of(
        &self,
        worker_type: &WorkerType,
        stream: &str,
        group: &str,
    ) -> Result<Vec<WorkerId>, DrainRequestError> {
        let mut connection = self.connection().await?;
        let read = read(&mut connection, worker_type, stream, group).await;
        let read = read.map_err(|cause| BrokerError::new(format!("read the consumers of `{stream}`"), cause));
        if read.as_ref().is_err_and(BrokerError::is_connection_lost) {
            *self.connection.lock().await = None;
        }
        Ok(read?)
    }

    async fn connection(&self) -> Result<Connection, ConnectionError> {
        let mut connection = self.connection.lock().await;
        match &*connection {
            Some(connection) => Ok(connection.clone()),
            None => Ok(connection.insert(self.target.connect().await?).clone()),
        }
    }
}

async fn read(
    connection: &mut Connection,
    worker_type: &WorkerType,
    stream: &str,
    group: &str,
) -> redis::RedisResult<Vec<WorkerId>> {
    let mut info = redis::cmd("XINFO");
    info.arg("CONSUMERS").arg(stream).arg(group);
    let consumers = match info.query_async::<StreamInfoConsumersReply>(connection).await {
        Ok(reply) => reply.consumers,
        Err(error) if is_missing(&error) => Vec::new(),
        Err(error) => return Err(error),
    };
    let ids: Vec<WorkerId> = consumers.into_iter().map(|consumer| WorkerId::new(consumer.name)).collect();
    if ids.is_empty() {
        return Ok(ids);
    }
    let mut pipeline = redis::pipe();
    for id in &ids {
        pipeline.cmd("HMGET").arg(keys::heartbeat(worker_type, id)).arg("state");
    }
    let states: Vec<(Option<String>,)> = pipeline.query_async(connection).await?;
    Ok(ids.into_iter().zip(states).filter_map(|(id, (state,))| state.map(|_| id)).collect())
}

/// Returns whether the stream or its group does not exist.
fn is_missing(error: &redis::RedisError) -> bool {
    code(error).is_some_and(|code| code == "NOGROUP") || error.to_string().contains("no such key")
}
