//! The worker's connection for commands that answer at once: shared by its jobs, heartbeat and recovery, opened again after
//! a failure by whoever needs it next. Through it Redis also wakes the worker: it listens on the worker's control channel,
//! and others see by that that the worker is connected.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use redis::{PushInfo, PushKind, Value};
use tokio::{
    sync::{Mutex, watch},
    time::Instant,
};

use crate::{
    broker::HANDED_OVER,
    connection::{Connection, ConnectionError, RedisTarget},
};

/// Told when something has come for the worker. A change of the value is the message.
#[derive(Clone, Debug, Default)]
pub(super) struct Wakes {
    /// It is asked for something, or the connection was lost: write a heartbeat, which sees what.
    pub(super) control: watch::Sender<()>,
    /// Jobs were handed over to it.
    pub(super) jobs: watch::Sender<()>,
}

/// A connection that is opened when needed.
pub(super) struct Commands {
    target: RedisTarget,
    channel: String,
    wakes: Wakes,
    open: Mutex<Option<Open>>,
}

struct Open {
    connection: Connection,
    since: Instant,
    listens: bool,
    lost: Arc<AtomicBool>,
}

impl Commands {
    /// A connection to `target` that listens on `channel`.
    pub(super) fn new(target: RedisTarget, channel: String) -> Self {
        Self { target, channel, wakes: Wakes::default(), open: Mutex::new(None) }
    }

    /// Who is told when the worker is woken.
    pub(super) fn wakes(&self) -> &Wakes {
        &self.wakes
    }

    /// The open connection, or a new one. Whoever comes while one is being opened waits for it.
    pub(super) async fn get(&self) -> Result<Connection, ConnectionError> {
        let mut open = self.open.lock().await;
        if let Some(found) = open.as_ref().filter(|found| !found.lost.load(Ordering::Relaxed)) {
            return Ok(found.connection.clone());
        }
        *open = None;
        Ok(open.insert(self.connect().await?).connection.clone())
    }

    /// Has the next [`Commands::get`] open a new connection.
    pub(super) async fn discard(&self) {
        *self.open.lock().await = None;
    }

    /// Whether the connection listens: it does not where this user may not subscribe.
    pub(super) async fn listens(&self) -> bool {
        self.open.lock().await.as_ref().is_some_and(|open| open.listens)
    }

    /// How long the connection has held by now.
    pub(super) async fn held_for(&self) -> Duration {
        self.open.lock().await.as_ref().map_or(Duration::ZERO, |open| open.since.elapsed())
    }

    async fn connect(&self) -> Result<Open, ConnectionError> {
        let lost = Arc::new(AtomicBool::new(false));
        let (wakes, flag) = (self.wakes.clone(), Arc::clone(&lost));
        let push = move |push: PushInfo| {
            heed(&push, &wakes, &flag);
            Ok::<(), Infallible>(())
        };
        let mut connection = self.target.connect_with_push(push).await?;
        let subscribed = connection.subscribe(&self.channel).await;
        if let Err(error) = &subscribed {
            tracing::warn!(channel = self.channel, %error, "can't listen for what is asked of this worker; it looks at each heartbeat");
        }
        // What came before this is seen now.
        self.wakes.jobs.send_replace(());
        Ok(Open { connection, since: Instant::now(), listens: subscribed.is_ok(), lost })
    }
}

/// Called by the connection's driver: must not block.
fn heed(push: &PushInfo, wakes: &Wakes, lost: &AtomicBool) {
    let handed_over = || matches!(push.data.get(1), Some(Value::BulkString(text)) if text == HANDED_OVER.as_bytes());
    let wake = match push.kind {
        PushKind::Message if handed_over() => &wakes.jobs,
        PushKind::Message => &wakes.control,
        PushKind::Disconnection => {
            lost.store(true, Ordering::Relaxed);
            &wakes.control
        }
        _ => return,
    };
    wake.send_replace(());
}
