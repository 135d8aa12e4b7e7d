//! The connection to one primary of a cluster: opened when needed, and again after it was lost.

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

use crate::connection::resp3;

/// After a failure to connect, everybody who comes within so long is told of it at once instead of trying again: one
/// node that is gone must not hold up what goes to the others.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// Called for every message that the server sends by itself.
pub(super) type OnPush = Arc<dyn Fn(PushInfo) + Send + Sync>;

/// How connections to nodes are opened.
#[derive(Clone)]
pub(super) struct Manner {
    pub(super) connect_timeout: Duration,
    pub(super) response_timeout: Option<Duration>,
    /// Turns RESP3 on.
    pub(super) push: Option<OnPush>,
}

/// One node.
pub(super) struct Node {
    info: ConnectionInfo,
    manner: Manner,
    state: Mutex<State>,
    lost: Arc<AtomicBool>,
    /// Of all nodes of the same connection: how often one was opened or lost.
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

    /// The open connection, or a new one. Whoever comes while one is being opened waits for it.
    ///
    /// # Errors
    /// If there is none, and if there was none just now.
    pub(super) async fn get(&self) -> Result<MultiplexedConnection, RedisError> {
        let mut state = self.state.lock().await;
        if let Some(open) = state.open.as_ref().filter(|_| !self.lost.load(Ordering::Acquire)) {
            return Ok(open.clone());
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

    /// Has the next [`Node::get`] open a new connection.
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
