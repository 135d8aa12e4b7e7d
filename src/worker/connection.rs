//! The worker's connection for commands that answer at once: shared by its jobs, heartbeat and recovery, opened again after
//! a failure by whoever needs it next.

use redis::aio::MultiplexedConnection;
use tokio::sync::Mutex;

use crate::connection::{ConnectionError, RedisTarget};

/// A connection that is opened when needed.
pub(super) struct Commands {
    target: RedisTarget,
    open: Mutex<Option<MultiplexedConnection>>,
}

impl Commands {
    pub(super) fn new(target: RedisTarget) -> Self {
        Self { target, open: Mutex::new(None) }
    }

    /// The open connection, or a new one. Whoever comes while one is being opened waits for it.
    pub(super) async fn get(&self) -> Result<MultiplexedConnection, ConnectionError> {
        let mut open = self.open.lock().await;
        if let Some(connection) = &*open {
            return Ok(connection.clone());
        }
        Ok(open.insert(self.target.connect().await?).clone())
    }

    /// Has the next [`Commands::get`] open a new connection.
    pub(super) async fn discard(&self) {
        *self.open.lock().await = None;
    }
}
