//! Takes jobs: new ones with a read that waits for them, jobs handed over to this worker, and jobs that no worker is
//! working on any more. Owns the connection that waits. Knows nothing about what is done with the jobs.

mod read;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use self::read::Blocking;
use super::{
    WorkerConfig,
    connection::Commands,
    execute::Executor,
    in_flight::InFlight,
    queue_set::{QueueSet, Turns},
    upkeep::{SearchTimes, TIDY_INTERVALS},
};
use crate::{
    broker::{Begun, BrokerError, Consumer, Delivery, RawEntry, Tidied},
    connection::{ConnectionError, RedisTarget},
};

/// Maximum handed-over jobs that are taken in one step, whatever number of others is in progress: they belong to open
/// sessions.
const HANDED_OVER_AT_ONCE: usize = 100;
/// Maximum queues that are searched for lost jobs each time, whether anything is pending there or not: two round trips
/// each.
pub(super) const LOOKED_AT: usize = 8;

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

/// Jobs that were taken.
pub(super) enum Batch {
    /// New jobs of the type's own queue; there is room for all of them.
    Unopened(Vec<RawEntry>),
    /// Jobs of any queue, or jobs that were lost or handed over.
    Opened(Vec<Delivery>),
}

/// The taking side of one worker.
pub(super) struct Intake {
    config: WorkerConfig,
    /// Consumer on the type's own queue.
    consumer: Arc<Consumer>,
    target: RedisTarget,
    commands: Arc<Commands>,
    queues: Arc<QueueSet>,
    in_flight: Arc<InFlight>,
    turns: Turns,
    blocking: Option<Blocking>,
    search: SearchTimes,
    /// Whether there was no room for all lost jobs.
    left_some: bool,
    /// Whether other workers look for this one, since its sessions have places.
    has_places: bool,
    /// Queues whose jobs pending on this consumer were read. Jobs found there later were not started by an earlier
    /// process.
    known: HashSet<Arc<str>>,
    /// Number of queues that have had their turn in the search for lost jobs.
    looks: usize,
    /// Whether the jobs taken last are new ones.
    took_new: bool,
    /// New jobs for which there is no room.
    surplus: Vec<Delivery>,
    /// Where the search for jobs of other workers continues, for queues where it is not finished.
    cursors: HashMap<Arc<str>, String>,
    /// When consumers of workers that are gone were last removed.
    tidied: Instant,
    /// Queues with too many consumers, for which that was logged.
    crowded: BTreeSet<Arc<str>>,
    /// Queues that can't be read, for a reason that was logged.
    broken: BTreeSet<Arc<str>>,
}

impl Intake {
    pub(super) fn new(executor: &Executor, target: RedisTarget) -> Self {
        Self {
            config: executor.config.clone(),
            consumer: Arc::new(executor.consumer.clone()),
            target,
            commands: Arc::clone(&executor.commands),
            turns: Turns::new(&executor.queues.streams(), seed(executor.config.id.as_str())),
            queues: Arc::clone(&executor.queues),
            in_flight: Arc::clone(&executor.in_flight),
            blocking: None,
            search: SearchTimes::new(executor.config.heartbeat_interval, executor.commands.wakes().upkeep.subscribe()),
            left_some: false,
            has_places: executor.handler.places().is_some(),
            known: HashSet::new(),
            looks: 0,
            took_new: false,
            surplus: Vec::new(),
            cursors: HashMap::new(),
            tidied: Instant::now(),
            crowded: BTreeSet::new(),
            broken: BTreeSet::new(),
        }
    }

    /// Returns a wait for the time of the next search for lost jobs.
    pub(super) fn until_recovery(&self) -> impl Future<Output = ()> + use<> {
        self.search.clone().until_due()
    }

    /// Returns whether to search for lost jobs now, with room for `room` jobs.
    pub(super) fn recovery_is_due(&self, room: usize) -> bool {
        self.search.is_due(Instant::now()) || (self.left_some && room > 0 && !self.in_flight.has_suspect())
    }

    /// Records that there was no room for one of the jobs taken last. A new job is [given back](Self::give_back) next;
    /// a found job is searched for again as soon as there is room.
    pub(super) fn left_behind(&mut self, delivery: Delivery) {
        if self.took_new && delivery.job.is_ok() {
            self.surplus.push(delivery);
        } else {
            self.left_some = true;
        }
    }

    /// Gives new jobs for which there is no room back to workers that have some. A job that can't be given back is
    /// found later like a lost job.
    pub(super) async fn give_back(&mut self) {
        for delivery in std::mem::take(&mut self.surplus) {
            match self.try_give_back(&delivery).await {
                Ok(given) => tracing::debug!(entry = delivery.entry, given, "no room for a job: giving it back"),
                Err(error) => {
                    tracing::warn!(entry = delivery.entry, %error, "no room for a job, and it can't be given back");
                    self.left_some = true;
                }
            }
        }
    }

    async fn try_give_back(&self, delivery: &Delivery) -> Result<bool, TakeError> {
        self.commands.step(async |connection| self.consumer.give_back(connection, delivery).await).await
    }

    /// Starts over after an error: jobs may have been delivered that never arrived here.
    pub(super) fn start_over(&mut self) {
        self.commands.evidence().broken();
        self.blocking = None;
        self.search.search_now();
    }

    /// Closes the waiting connection.
    pub(super) fn close(&mut self) {
        self.blocking = None;
    }

    /// Returns jobs that no worker is working on: own ones that are not in flight and, with `room` for them, those of
    /// other workers.
    pub(super) async fn recover(&mut self, room: usize) -> Result<Vec<Delivery>, TakeError> {
        self.search.searched(Instant::now(), false);
        self.took_new = false;
        let streams = self.next_to_look_at().await?;
        let mut deliveries = self.own_on(&streams).await?;
        if !self.commands.may_judge() {
            self.left_some = deliveries.len() >= room || self.room_for_suspects(&deliveries) == 0;
            return self.noted(deliveries).await;
        }
        for stream in &streams {
            let rest = room.saturating_sub(deliveries.len()).min(self.room_for_suspects(&deliveries));
            if rest > 0 {
                let taken = self.of_others(stream, rest).await;
                let taken = self.tolerated(stream, taken).await?;
                if !taken.is_empty() {
                    self.search.searched(Instant::now(), true);
                }
                deliveries.extend(taken);
            }
        }
        self.left_some = deliveries.len() >= room || self.room_for_suspects(&deliveries) == 0;
        self.tidy(&streams).await;
        self.noted(deliveries).await
    }

    /// Returns the room for suspect jobs. A worker starts jobs that may have killed an earlier worker one at a time: if
    /// it dies too, the job that killed it is known.
    fn room_for_suspects(&self, taken: &[Delivery]) -> usize {
        usize::from(!self.in_flight.has_suspect() && !taken.iter().any(Delivery::is_suspect))
    }

    /// Removes consumers of workers that are gone, from time to time. A failure loses no job.
    async fn tidy(&mut self, streams: &[Arc<str>]) {
        if self.tidied.elapsed() < self.config.heartbeat_interval * TIDY_INTERVALS {
            return;
        }
        self.tidied = Instant::now();
        let (worker_type, lapse) = (&self.config.worker_type, self.config.lapse());
        for stream in streams {
            let consumer = self.consumer.on(stream);
            let tidied = async |connection: &mut _| consumer.remove_gone(connection, worker_type, lapse).await;
            match self.commands.step::<_, TakeError>(tidied).await {
                Ok(Tidied::TooMany(consumers)) if self.crowded.insert(stream.clone()) => tracing::warn!(
                    queue = &**stream,
                    group = consumer.group,
                    consumers,
                    "too many consumers to remove those of dead workers; remove them with XGROUP DELCONSUMER"
                ),
                Ok(Tidied::Removed(_) | Tidied::TooMany(_)) => {}
                Err(error) => tracing::debug!(queue = &**stream, %error, "consumers of gone workers stay"),
            }
        }
    }

    /// Returns jobs that are delivered to this worker and not in flight: handed over, or lost on the way.
    pub(super) async fn own(&mut self) -> Result<Vec<Delivery>, TakeError> {
        self.took_new = false;
        let streams = self.queues.streams();
        let some = if streams.len() <= LOOKED_AT { streams.to_vec() } else { self.unsettled(&streams).await? };
        let deliveries = self.own_on(&some).await?;
        self.noted(deliveries).await
    }

    /// Returns the deliveries after finding out which of them are cancelled.
    async fn noted(&self, mut deliveries: Vec<Delivery>) -> Result<Vec<Delivery>, TakeError> {
        let streams: BTreeSet<Arc<str>> = deliveries.iter().map(|delivery| delivery.stream.clone()).collect();
        for stream in streams {
            let of_stream: Vec<&mut Delivery> = deliveries.iter_mut().filter(|taken| taken.stream == stream).collect();
            let mut connection = self.commands.get().await?;
            self.consumer.on(&stream).note_cancelled(&mut connection, of_stream).await?;
        }
        Ok(deliveries)
    }

    async fn own_on(&mut self, streams: &[Arc<str>]) -> Result<Vec<Delivery>, TakeError> {
        let mut deliveries: Vec<Delivery> = Vec::new();
        for stream in streams {
            let taken = self.own_of(stream, &deliveries).await;
            let own = self.tolerated(stream, taken).await?;
            self.left_some |= own.len() == HANDED_OVER_AT_ONCE;
            deliveries.extend(own);
        }
        Ok(deliveries)
    }

    async fn own_of(&mut self, stream: &Arc<str>, taken: &[Delivery]) -> Result<Vec<Delivery>, TakeError> {
        let mut connection = self.commands.get().await?;
        let begun = if self.known.contains(stream) { Begun::Never } else { Begun::Maybe };
        let (consumer, in_hand) = (self.consumer.on(stream), self.in_flight.entries_of(stream));
        let limit = match begun {
            Begun::Never => HANDED_OVER_AT_ONCE,
            // What an earlier process of the same name has left is suspect, as are the jobs of any other worker that
            // died. Each claim counts as a delivery, so none is taken without a slot for it.
            Begun::Maybe => self.room_for_suspects(taken).min(self.in_flight.room(self.config.concurrency)),
        };
        if limit == 0 {
            return Ok(Vec::new());
        }
        let own = consumer.recover_own(&mut connection, &in_hand, limit, begun).await?;
        if own.is_empty() || begun == Begun::Never {
            let is_new = self.known.insert(stream.clone());
            if is_new
                && self.has_places
                && let Err(error) = consumer.introduce(&mut connection).await
            {
                tracing::debug!(queue = &**stream, %error, "other workers find this one after its first job only");
            }
        }
        Ok(own)
    }

    async fn of_others(&mut self, stream: &Arc<str>, room: usize) -> Result<Vec<Delivery>, TakeError> {
        let mut connection = self.commands.get().await?;
        let (consumer, lapse) = (self.consumer.on(stream), self.config.lapse());
        let (worker_type, cursor) = (&self.config.worker_type, self.cursors.remove(stream));
        let may_judge = || self.commands.may_judge();
        let recovered =
            consumer.recover_from_gone(&mut connection, worker_type, room, lapse, cursor, may_judge).await?;
        self.cursors.extend(recovered.cursor.map(|cursor| (stream.clone(), cursor)));
        if !recovered.deliveries.is_empty() {
            let jobs = recovered.deliveries.len();
            tracing::warn!(
                jobs,
                queue = &**stream,
                from = recovered.from.join(","),
                "taking over jobs that nobody works on any more"
            );
            // Only tidies up: what stays is removed from time to time.
            for name in &recovered.from {
                if let Err(error) = consumer.remove_if_done(&mut connection, worker_type, name).await {
                    tracing::debug!(name, queue = &**stream, %error, "consumer stays");
                }
            }
        }
        Ok(recovered.deliveries)
    }

    /// Returns the queues to search for lost jobs: all of them if they are few; otherwise those where there may be
    /// some, and a few of the others in turn, where consumers may be left.
    async fn next_to_look_at(&mut self) -> Result<Vec<Arc<str>>, TakeError> {
        let streams = self.queues.streams();
        if streams.len() <= LOOKED_AT {
            return Ok(streams.to_vec());
        }
        let mut some = self.unsettled(&streams).await?;
        let in_turn = streams.iter().cycle().skip(self.looks % streams.len()).take(LOOKED_AT);
        let others: Vec<_> = in_turn.filter(|stream| !some.contains(stream)).cloned().collect();
        some.extend(others);
        self.looks = (self.looks + LOOKED_AT) % streams.len();
        Ok(some)
    }

    async fn unsettled(&self, streams: &[Arc<str>]) -> Result<Vec<Arc<str>>, TakeError> {
        self.commands.step(async |connection| self.consumer.unsettled(connection, streams).await).await
    }

    /// Returns what was taken from a queue. A queue that can't be read is repaired if possible; if not, that is not an
    /// error while there are other queues.
    async fn tolerated<T: Default>(&mut self, stream: &Arc<str>, taken: Result<T, TakeError>) -> Result<T, TakeError> {
        let error = match taken {
            Ok(taken) => return Ok(taken),
            Err(error) => error,
        };
        match self.mend(stream, error).await {
            Ok(()) => Ok(T::default()),
            Err(error) if error.is_connection_lost() || self.queues.streams().len() == 1 => Err(error),
            Err(error) => {
                self.tell_broken(stream, &error);
                Ok(T::default())
            }
        }
    }

    /// Repairs what can be repaired immediately: creates a missing group, unless the queue was found by a pattern and
    /// is gone. Such a queue is dropped. Otherwise returns the error.
    async fn mend(&mut self, stream: &Arc<str>, error: TakeError) -> Result<(), TakeError> {
        let is_named = self.queues.is_named(stream);
        match error {
            TakeError::Broker(error) if error.is_missing_group() => {
                let consumer = self.consumer.on(stream);
                let mut connection = self.commands.get().await?;
                if is_named {
                    tracing::info!(queue = &**stream, group = consumer.group, "group is missing: making it");
                    consumer.ensure_group(&mut connection).await?;
                } else if consumer.join_group(&mut connection).await? {
                    tracing::info!(
                        queue = &**stream,
                        group = consumer.group,
                        "made the group of a queue that was found"
                    );
                } else {
                    self.drop_queue(stream, "it is gone");
                }
                Ok(())
            }
            TakeError::Broker(error) if error.is_wrong_type() && !is_named => {
                self.drop_queue(stream, "it is not a stream");
                Ok(())
            }
            error => {
                if error.is_connection_lost() {
                    self.commands.discard().await;
                }
                Err(error)
            }
        }
    }

    fn drop_queue(&mut self, stream: &Arc<str>, why: &str) {
        tracing::info!(queue = &**stream, "no longer served: {why}");
        self.queues.forget(stream);
        self.in_flight.forget(stream);
        self.known.remove(stream);
        self.cursors.remove(stream);
        self.crowded.remove(stream);
        self.broken.remove(stream);
    }

    /// Logs a queue's error once for each time that it begins.
    fn tell_broken(&mut self, stream: &Arc<str>, error: &TakeError) {
        if self.broken.insert(stream.clone()) {
            tracing::warn!(%error, queue = &**stream, "can't take jobs of this queue; others are served, it is tried again");
        }
    }
}

/// Returns the index at which a worker of that name begins with its queues, so that workers begin at different ones.
fn seed(id: &str) -> usize {
    id.bytes().fold(0, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)))
}
