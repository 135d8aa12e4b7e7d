//! The worker's connection for commands that do not block: shared by its jobs, heartbeat and recovery, and reopened
//! after a failure by the next user. Through it Redis also wakes the worker: the connection is subscribed to the
//! worker's control channel, which shows other workers that this one is connected. Where queues come and go, it is also
//! subscribed to the channel that names queues that were written to.

use std::{
    convert::Infallible,
    sync::{
        Arc, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use redis::{PushInfo, PushKind, Value};
use tokio::{
    sync::{Mutex, watch},
    time::Instant,
};

use super::{
    by_stream::by_stream,
    evidence::OwnEvidence,
    queue_set::{Offered, QueueSet},
    upkeep::Upkeep,
};
use crate::{
    broker::{BrokerError, CANCELLED, HANDED_OVER},
    connection::{Connection, ConnectionError, RedisTarget},
    model::{Layout, QueuePattern},
};

/// A worker whose own connection is younger than this does not decide which workers are gone, because all of them may
/// be reconnecting. Longer than the longest pause between attempts to connect.
const STABLE: Duration = Duration::from_secs(7);

/// Notifications for the worker. A change of the value is the message.
#[derive(Clone, Debug, Default)]
pub(super) struct Wakes {
    /// The control key may have changed, or the connection was lost: write a heartbeat, which reads the key.
    pub(super) control: watch::Sender<()>,
    /// A job of this worker may be cancelled.
    pub(super) cancelled: watch::Sender<()>,
    /// Jobs were handed over to the worker.
    pub(super) jobs: watch::Sender<()>,
    /// There is a new connection: notifications may have been missed.
    pub(super) connected: watch::Sender<()>,
    /// What the last heartbeat saw on the queues; `None` if it could not.
    pub(super) upkeep: watch::Sender<Option<Upkeep>>,
}

/// The channel that names the queues that were written to.
#[derive(Clone, Debug)]
pub(super) struct Hints {
    channel: String,
    /// Whether known queues matter too, because the worker can't wait for all of them together.
    of_known: bool,
}

impl Hints {
    /// Returns the hints that a worker of these queues needs; `None` if it knows all queues and can wait for them.
    pub(super) fn of(queues: &QueueSet, channel: &str, layout: Layout) -> Option<Self> {
        let configured = queues.configured();
        let names = configured.named().chain(configured.patterns.iter().map(QueuePattern::as_str));
        let of_known = by_stream(names.collect(), |name| layout.part(name)).len() > 1;
        let wanted = of_known || !configured.patterns.is_empty();
        (wanted && !channel.is_empty()).then(|| Self { channel: channel.to_owned(), of_known })
    }
}

/// Why a step could not be taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum StepError {
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

/// A connection that is opened when needed.
pub(super) struct Commands {
    target: RedisTarget,
    channel: String,
    queues: Arc<QueueSet>,
    hints: Option<Hints>,
    wakes: Wakes,
    open: Mutex<Option<Open>>,
    evidence: std::sync::Mutex<OwnEvidence>,
}

struct Open {
    connection: Connection,
    listens: bool,
    lost: Arc<AtomicBool>,
}

impl Commands {
    /// Returns a connection to `target` that subscribes to `channel` and to hints.
    pub(super) fn new(
        target: RedisTarget,
        channel: String,
        queues: Arc<QueueSet>,
        hints: Option<Hints>,
        evidence: OwnEvidence,
    ) -> Self {
        let (wakes, open) = (Wakes::default(), Mutex::new(None));
        Self { target, channel, queues, hints, wakes, open, evidence: evidence.into() }
    }

    /// Returns how keys that one command uses together are named.
    pub(super) fn layout(&self) -> Layout {
        self.target.layout()
    }

    /// Returns whether all keys are on one server.
    pub(super) fn is_one_server(&self) -> bool {
        self.layout() == Layout::Single
    }

    /// Returns the notifications of the worker.
    pub(super) fn wakes(&self) -> &Wakes {
        &self.wakes
    }

    /// Returns the open connection, or opens a new one. Callers wait while one is being opened.
    pub(super) async fn get(&self) -> Result<Connection, ConnectionError> {
        let mut open = self.open.lock().await;
        if let Some(found) = open.as_ref().filter(|found| !found.lost.load(Ordering::Relaxed)) {
            return Ok(found.connection.clone());
        }
        *open = None;
        Ok(open.insert(self.connect().await?).connection.clone())
    }

    /// Makes the next [`Commands::get`] open a new connection.
    pub(super) async fn discard(&self) {
        *self.open.lock().await = None;
    }

    /// Takes a step on the connection. If the step loses the connection, the connection is not used again.
    pub(super) async fn step<T, E: From<ConnectionError> + From<BrokerError>>(
        &self,
        step: impl AsyncFnOnce(&mut Connection) -> Result<T, BrokerError>,
    ) -> Result<T, E> {
        let outcome = step(&mut self.get().await?).await;
        if outcome.as_ref().is_err_and(BrokerError::is_connection_lost) {
            self.discard().await;
        }
        Ok(outcome?)
    }

    /// Returns whether the connection is subscribed to the control channel: without the right to subscribe, it is not.
    pub(super) async fn listens(&self) -> bool {
        self.open.lock().await.as_ref().is_some_and(|open| open.listens)
    }

    /// Returns whether a worker without a heartbeat counts as gone now.
    pub(super) fn may_judge(&self) -> bool {
        self.evidence().suffices(Instant::now())
    }

    /// Returns whether a worker that has not been subscribed for a while counts as gone: connected workers are
    /// subscribed.
    pub(super) fn may_judge_by_silence(&self) -> bool {
        self.evidence().unbroken_for(Instant::now()) >= STABLE
    }

    /// Returns what this worker knows about its own heartbeats.
    pub(super) fn evidence(&self) -> MutexGuard<'_, OwnEvidence> {
        self.evidence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect(&self) -> Result<Open, ConnectionError> {
        self.evidence().broken();
        let lost = Arc::new(AtomicBool::new(false));
        let listener = Listener {
            wakes: self.wakes.clone(),
            lost: Arc::clone(&lost),
            queues: self.queues.clone(),
            hints: self.hints.clone(),
        };
        let push = move |push: PushInfo| {
            listener.heed(&push);
            Ok::<(), Infallible>(())
        };
        let mut connection = self.target.connect_with_push(push).await?;
        let subscribed = connection.subscribe(&self.channel).await;
        if let Err(error) = &subscribed {
            tracing::warn!(channel = self.channel, %error, "can't listen for what is asked of this worker; it looks at each heartbeat");
        }
        if let Some(Hints { channel, .. }) = &self.hints
            && let Err(error) = connection.subscribe(channel).await
        {
            tracing::warn!(channel, %error, "can't listen for what is published; new queues are looked for now and then");
        }
        // Reads everything that was missed before this moment.
        self.wakes.jobs.send_replace(());
        self.wakes.cancelled.send_replace(());
        self.wakes.connected.send_replace(());
        Ok(Open { connection, listens: subscribed.is_ok(), lost })
    }
}

/// Receives the push messages of the server.
struct Listener {
    wakes: Wakes,
    lost: Arc<AtomicBool>,
    queues: Arc<QueueSet>,
    hints: Option<Hints>,
}

impl Listener {
    /// Handles a push message. The connection's driver calls it, so it must not block.
    fn heed(&self, push: &PushInfo) {
        match (&push.kind, push.data.as_slice()) {
            (PushKind::Message, [Value::BulkString(channel), Value::BulkString(text)]) => {
                match self.hints.as_ref().filter(|hints| hints.channel.as_bytes() == channel) {
                    Some(hints) => self.written(hints, text),
                    None => self.told(text),
                }
            }
            (PushKind::Disconnection, _) => {
                self.lost.store(true, Ordering::Relaxed);
                self.wakes.control.send_replace(());
            }
            _ => {}
        }
    }

    /// Handles that a stream was written to.
    fn written(&self, hints: &Hints, stream: &[u8]) {
        let Ok(stream) = str::from_utf8(stream) else { return };
        if self.queues.offer(stream) == Offered::Known && hints.of_known {
            self.queues.written();
        }
    }

    /// Handles a message for this worker.
    fn told(&self, text: &[u8]) {
        if text == CANCELLED.as_bytes() {
            self.wakes.cancelled.send_replace(());
            return;
        }
        let Some(behind) = text.strip_prefix(HANDED_OVER.as_bytes()) else {
            self.wakes.control.send_replace(());
            return;
        };
        if let Some(Ok(stream)) = behind.strip_prefix(b" ").map(str::from_utf8) {
            self.queues.offer(stream);
        }
        self.wakes.jobs.send_replace(());
    }
}
