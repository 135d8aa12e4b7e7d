//! The worker's connection for commands that answer at once: shared by its jobs, heartbeat and recovery, opened again after
//! a failure by whoever needs it next. Through it Redis also wakes the worker: it listens on the worker's control channel,
//! and others see by that that the worker is connected; where queues come and go, also on the channel that names those that
//! were written to.

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
    background::offer,
    by_stream::by_stream,
    evidence::OwnEvidence,
    queue_set::{Offered, QueueSet},
};
use crate::{
    broker::{BrokerError, HANDED_OVER},
    connection::{Connection, ConnectionError, RedisTarget},
    model::{Layout, QueuePattern},
};

/// A worker whose own connection is younger than this does not judge who is not connected: all of them may be connecting again.
/// Longer than the longest wait between attempts to connect.
const STABLE: Duration = Duration::from_secs(7);

/// Told when something has come for the worker. A change of the value is the message.
#[derive(Clone, Debug, Default)]
pub(super) struct Wakes {
    /// It is asked for something, or the connection was lost: write a heartbeat, which sees what.
    pub(super) control: watch::Sender<()>,
    /// Jobs were handed over to it.
    pub(super) jobs: watch::Sender<()>,
    /// There is a new connection: something may have been missed.
    pub(super) connected: watch::Sender<()>,
}

/// Where it is told which queues are written to.
#[derive(Clone, Debug)]
pub(super) struct Hints {
    channel: String,
    /// Whether queues that it knows are of interest too, since it can't wait for all of them at once.
    of_known: bool,
}

impl Hints {
    /// What a worker of these queues needs; `None` if it knows all of them and can wait for them.
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
    /// A connection to `target` that listens on `channel`, and to hints.
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

    /// Takes a step on the connection; one that was lost by that is not used again.
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

    /// Whether the connection listens: it does not where this user may not subscribe.
    pub(super) async fn listens(&self) -> bool {
        self.open.lock().await.as_ref().is_some_and(|open| open.listens)
    }

    /// Whether a worker that is silent now counts as gone.
    pub(super) fn may_judge(&self) -> bool {
        self.evidence().suffices(Instant::now())
    }

    /// Whether a worker that does not listen now, and has not for a while, counts as gone: connected workers listen.
    pub(super) fn may_judge_by_silence(&self) -> bool {
        self.evidence().unbroken_for(Instant::now()) >= STABLE
    }

    /// What this worker knows of its own heartbeats.
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
        // What came before this is seen now.
        self.wakes.jobs.send_replace(());
        self.wakes.connected.send_replace(());
        Ok(Open { connection, listens: subscribed.is_ok(), lost })
    }
}

/// Who hears what the server sends by itself.
struct Listener {
    wakes: Wakes,
    lost: Arc<AtomicBool>,
    queues: Arc<QueueSet>,
    hints: Option<Hints>,
}

impl Listener {
    /// Called by the connection's driver: must not block.
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

    /// Somebody wrote to a stream.
    fn written(&self, hints: &Hints, stream: &[u8]) {
        let Ok(stream) = str::from_utf8(stream) else { return };
        if offer(&self.queues, stream) == Offered::Known && hints.of_known {
            self.queues.written();
        }
    }

    /// Something is for this worker.
    fn told(&self, text: &[u8]) {
        let Some(behind) = text.strip_prefix(HANDED_OVER.as_bytes()) else {
            self.wakes.control.send_replace(());
            return;
        };
        if let Some(Ok(stream)) = behind.strip_prefix(b" ").map(str::from_utf8) {
            offer(&self.queues, stream);
        }
        self.wakes.jobs.send_replace(());
    }
}
