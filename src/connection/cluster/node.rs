//! The connection to one primary of a cluster. It is opened when needed, and reopened after a loss.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, PushInfo, PushKind, RedisError, aio::MultiplexedConnection,
};
use tokio::{sync::Mutex, time::Instant};

use super::topology::ended_early;
use crate::connection::resp3;

/// After a failure to connect, callers get the same error for this long, without another attempt. A node that is gone
/// must not delay commands to other nodes.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// Callback for every push message of the server.
pub(super) type OnPush = Arc<dyn Fn(PushInfo) + Send + Sync>;

/// Options of connections to nodes.
#[derive(Clone)]
pub(super) struct Manner {
    pub(super) connect_timeout: Duration,
    pub(super) response_timeout: Option<Duration>,
    /// Turns RESP3 on.
    pub(super) push: Option<OnPush>,
}

/// One node of the cluster.
pub(super) struct Node {
    info: ConnectionInfo,
    manner: Manner,
    state: Mutex<State>,
    lost: Arc<AtomicBool>,
    /// Number of connections of the whole cluster connection that were opened or lost.
    changes: Arc<AtomicU64>,
}

#[derive(Default)]
struct State {
    open: Option<MultiplexedConnection>,
    failed: Option<(Instant, RedisError)>,
}

impl Node {
    pub(super) fn new(info: ConnectionInfo, manner: Manner, changes: Arc<AtomicU64>) -> Self {
        let info = if manner.push.is_some() { resp3(info) } else { info };
        Self { info, manner, state: Mutex::default(), lost: Arc::default(), changes }
    }

    /// Returns the open connection, or opens a new one. Callers wait while one is being opened.
    ///
    /// A separate task opens it, within the time limit for connecting: the lock must never wait for a caller, which may
    /// not be polled for a while.
    ///
    /// # Errors
    /// If the connection can't be opened, or could not be opened within the last [`TRY_AGAIN`].
    pub(super) async fn get(self: &Arc<Self>) -> Result<MultiplexedConnection, RedisError> {
        if let Some(open) = self.state.try_lock().ok().and_then(|state| self.usable(&state)) {
            return Ok(open);
        }
        let node = self.clone();
        tokio::spawn(async move { node.get_or_open().await }).await.unwrap_or_else(|_| Err(ended_early()))
    }

    fn usable(&self, state: &State) -> Option<MultiplexedConnection> {
        state.open.clone().filter(|_| !self.lost.load(Ordering::Acquire))
    }

    async fn get_or_open(&self) -> Result<MultiplexedConnection, RedisError> {
        let mut state = self.state.lock().await;
        if let Some(open) = self.usable(&state) {
            return Ok(open);
        }
        if let Some((_, error)) = state.failed.as_ref().filter(|(at, _)| at.elapsed() < TRY_AGAIN) {
            tracing::trace!("a node that could not be reached just now is not tried again yet");
            return Err(error.clone());
        }
        state.open = None;
        self.lost.store(false, Ordering::Release);
        match self.open().await {
            Ok(connection) => {
                self.changes.fetch_add(1, Ordering::AcqRel);
                state.failed = None;
                Ok(state.open.insert(connection).clone())
            }
            Err(error) => {
                state.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Makes the next [`Node::get`] open a new connection.
    pub(super) fn lose(&self) {
        lose(&self.lost, &self.changes);
    }

    async fn open(&self) -> Result<MultiplexedConnection, RedisError> {
        let mut config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.manner.connect_timeout))
            .set_response_timeout(self.manner.response_timeout);
        if let Some(push) = self.manner.push.clone() {
            let (lost, changes) = (self.lost.clone(), self.changes.clone());
            config = config.set_push_sender(move |info: PushInfo| {
                if info.kind == PushKind::Disconnection {
                    lose(&lost, &changes);
                }
                push(info);
                Ok::<(), Infallible>(())
            });
        }
        Client::open(self.info.clone())?.get_multiplexed_async_connection_with_config(&config).await
    }
}

fn lose(lost: &AtomicBool, changes: &AtomicU64) {
    if !lost.swap(true, Ordering::AcqRel) {
        changes.fetch_add(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_caller_that_is_not_polled_any_more_holds_up_nobody() {
        let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Client::open(format!("redis://{}", mute.local_addr().unwrap())).unwrap();
        let manner = Manner { connect_timeout: Duration::from_millis(50), response_timeout: None, push: None };
        let node = Arc::new(Node::new(client.get_connection_info().clone(), manner, Arc::default()));
        let mut begun = Box::pin(node.get());
        assert!((&mut begun).now_or_never().is_none());
        let other = timeout(Duration::from_secs(30), node.get()).await;
        assert!(other.expect("an answer, though the first caller is not polled").is_err());
        assert!(begun.await.is_err());
    }
}
