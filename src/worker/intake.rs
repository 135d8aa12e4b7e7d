//! Takes jobs: new ones by a read that waits for them, those handed over to this worker, and those that nobody works on
//! any more. Owns the connection that waits. Knows nothing of what is done with them.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};

use super::{WorkerConfig, connection::Commands};
use crate::{
    broker::{Begun, BrokerError, Consumer, Delivery, Parcel},
    connection::{Connection, ConnectionError, RedisTarget},
};

/// How long one read waits for a job. Bounds how late lost jobs are looked for, and how long a drain takes where the user
/// may not run CLIENT UNBLOCK.
const BLOCK: Duration = Duration::from_secs(2);
/// Jobs handed over to us that are taken at once, however many others are in progress: they are of open sessions.
const HANDED_OVER_AT_ONCE: usize = 100;

/// Why no jobs could be taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum TakeError {
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error("redis did not answer within {0:?}")]
    NoAnswer(Duration),
}

impl TakeError {
    fn is_connection_lost(&self) -> bool {
        match self {
            Self::Connection(_) | Self::NoAnswer(_) => true,
            Self::Broker(error) => error.is_connection_lost(),
        }
    }
}

/// The taking side of one worker.
pub(super) struct Intake {
    config: WorkerConfig,
    consumer: Consumer,
    target: RedisTarget,
    commands: Arc<Commands>,
    blocking: Option<Blocking>,
    recover_at: Instant,
    /// There was no room for all lost jobs.
    left_some: bool,
    /// Whether jobs pending on us and not in hand may have been begun.
    begun: Begun,
}

/// The connection that waits for jobs.
struct Blocking {
    connection: Connection,
    /// For CLIENT UNBLOCK; `None` if this user may not ask.
    id: Option<u64>,
}

impl Intake {
    pub(super) fn new(config: WorkerConfig, target: RedisTarget, commands: Arc<Commands>) -> Self {
        let consumer = config.consumer();
        let (recover_at, begun) = (Instant::now(), Begun::Maybe);
        Self { config, consumer, target, commands, blocking: None, recover_at, left_some: false, begun }
    }

    /// When lost jobs are looked for next.
    pub(super) fn recover_at(&self) -> Instant {
        self.recover_at
    }

    /// Whether to look for lost jobs now, with room for so many.
    pub(super) fn recovery_is_due(&self, room: usize) -> bool {
        Instant::now() >= self.recover_at || (self.left_some && room > 0)
    }

    /// There was no room for jobs that were found: look for them again as soon as there is.
    pub(super) fn left_behind(&mut self) {
        self.left_some = true;
    }

    /// After an error: jobs may have been delivered that never got here.
    pub(super) fn start_over(&mut self) {
        self.blocking = None;
        self.recover_at = Instant::now();
    }

    /// Gives the waiting connection back.
    pub(super) fn close(&mut self) {
        self.blocking = None;
    }

    /// Jobs that nobody works on: our own that are not `in_hand`, and with `room` for them those of others.
    pub(super) async fn recover(&mut self, in_hand: &HashSet<String>, room: usize) -> Result<Vec<Delivery>, TakeError> {
        self.recover_at = Instant::now() + self.config.heartbeat_interval;
        let mut deliveries = self.own(in_hand).await?;
        let (rest, lapse) = (room.saturating_sub(deliveries.len()), self.config.lapse());
        if rest > 0 {
            let mut connection = self.commands.get().await?;
            let worker_type = &self.config.worker_type;
            let recovered = self.consumer.recover_from_gone(&mut connection, worker_type, rest, lapse).await;
            let recovered = self.checked(recovered).await?;
            if !recovered.deliveries.is_empty() {
                let jobs = recovered.deliveries.len();
                tracing::warn!(jobs, from = ?recovered.from, "taking over jobs that nobody works on any more");
            }
            deliveries.extend(recovered.deliveries);
        }
        self.left_some = deliveries.len() >= room;
        Ok(deliveries)
    }

    /// Jobs that are delivered to us and not `in_hand`: handed over, or lost on the way.
    pub(super) async fn own(&mut self, in_hand: &HashSet<String>) -> Result<Vec<Delivery>, TakeError> {
        let mut connection = self.commands.get().await?;
        let own = self.consumer.recover_own(&mut connection, in_hand, HANDED_OVER_AT_ONCE, self.begun).await;
        let own = self.checked(own).await?;
        self.begun = Begun::Never;
        self.left_some |= own.len() == HANDED_OVER_AT_ONCE;
        Ok(own)
    }

    /// Up to `room` new jobs; none if there are none in a while, or `interrupted` ends before.
    pub(super) async fn read(
        &mut self,
        room: usize,
        interrupted: impl Future<Output = ()>,
    ) -> Result<Vec<Parcel>, TakeError> {
        let read = self.read_unchecked(room, interrupted).await;
        self.checked(read).await
    }

    async fn read_unchecked(
        &mut self,
        room: usize,
        interrupted: impl Future<Output = ()>,
    ) -> Result<Vec<Parcel>, TakeError> {
        if self.blocking.is_none() {
            self.blocking = Some(connect(&self.target, &self.consumer.stream).await?);
        }
        let blocking = self.blocking.as_mut().expect("it was set just above");
        let id = blocking.id;
        let limit = BLOCK + self.target.response_timeout();
        let read = timeout(limit, self.consumer.read_parcels(&mut blocking.connection, room, BLOCK));
        tokio::pin!(read);
        let answer = tokio::select! {
            biased;
            answer = &mut read => answer,
            () = interrupted => {
                // The read is ended, not dropped: a job delivered in this moment is ours to do.
                unblock(&self.commands, &self.consumer.stream, id).await;
                read.await
            }
        };
        Ok(answer.map_err(|_| TakeError::NoAnswer(limit))??)
    }

    /// Mends what can be mended at once: a group that is missing is made, and then there is nothing yet, which is no error.
    async fn checked<T: Default, E: Into<TakeError>>(&self, taken: Result<T, E>) -> Result<T, TakeError> {
        match taken.map_err(Into::into) {
            Err(TakeError::Broker(error)) if error.is_missing_group() => {
                let Consumer { stream, group, .. } = &self.consumer;
                tracing::info!(queue = stream, group, "group is missing: making it");
                self.consumer.ensure_group(&mut self.commands.get().await?).await?;
                Ok(T::default())
            }
            Err(error) => {
                if error.is_connection_lost() {
                    self.commands.discard().await;
                }
                Err(error)
            }
            taken => taken,
        }
    }
}

/// The connection is to the one server that has the stream, which is the one that has to be asked to end a read.
async fn connect(target: &RedisTarget, stream: &str) -> Result<Blocking, TakeError> {
    let unreachable = |cause| ConnectionError::Unreachable { target: target.display(), cause };
    let mut connection = target.connect_without_timeout().await?.at(stream).await.map_err(unreachable)?;
    let mut ask = redis::cmd("CLIENT");
    ask.arg("ID");
    let answer = timeout(target.response_timeout(), ask.query_async(&mut connection)).await;
    let id = answer.map_err(|_| TakeError::NoAnswer(target.response_timeout()))?.ok();
    Ok(Blocking { connection, id })
}

/// Ends a blocked read at once. Where that is not allowed it ends by itself.
async fn unblock(commands: &Commands, stream: &str, id: Option<u64>) {
    if let (Some(id), Ok(connection)) = (id, commands.get().await)
        && let Ok(mut connection) = connection.at(stream).await
    {
        let mut unblock = redis::cmd("CLIENT");
        unblock.arg("UNBLOCK").arg(id);
        if let Err(error) = unblock.exec_async(&mut connection).await {
            tracing::debug!(%error, "can't end the blocked read; waiting for it");
        }
    }
}
