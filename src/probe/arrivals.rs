//! Reads which jobs arrive on streams, and how long they take, without taking part: with XRANGE, XINFO GROUPS, XPENDING
//! and TIME. None of these changes anything or delays anyone. `docs/redis.md` lists the rights.

use std::{sync::Arc, time::Duration};

use redis::{Pipeline, Value};

use super::{
    QueueSpec,
    ledger::{GroupReading, InHand, Ledger},
};
use crate::{
    connection::{Connection, ConnectionError, RedisTarget},
    model::{StreamId, Timestamp},
    queue_kind::{explain, group_position, reply},
};

/// Maximum entries of one read. XRANGE returns whole jobs, which may be large.
const PAGE_ENTRIES: usize = 500;

/// Maximum pending jobs of one read: more than a pool works on.
const MAX_IN_HAND: usize = 10_000;

/// An observation that is late by more than this number of intervals does not show what happened in between.
pub(super) const MAX_LATE_INTERVALS: u32 = 4;

/// Why the jobs can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ArrivalError {
    /// The connection failed.
    #[error(transparent)]
    Connect(#[from] ConnectionError),
    /// Redis went away, or does not answer.
    #[error("can't read the jobs: {0}")]
    Redis(#[from] redis::RedisError),
    /// Redis refused a command, or sent an unexpected reply.
    #[error("{0}")]
    Refused(String),
}

impl ArrivalError {
    /// Returns whether trying again may help without a repair.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Connect(error) => matches!(error, ConnectionError::Unreachable { .. }),
            Self::Redis(error) => error.is_io_error() || error.is_timeout() || error.is_unrecoverable_error(),
            Self::Refused(_) => false,
        }
    }
}

/// One recorded job.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recorded {
    /// Index of the job's queue among those watched.
    pub queue: usize,
    /// Arrival: on a stream, the time in the entry's id.
    pub arrival: Timestamp,
    /// Time that a worker took, in milliseconds; `None` if it could not be observed.
    pub service_ms: Option<f64>,
}

/// One watched stream.
#[derive(Debug)]
struct WatchedStream {
    spec: QueueSpec,
    /// Last entry that was read.
    after: StreamId,
    /// Unfinished jobs; `None` if the durations of jobs do not matter.
    ledger: Option<Ledger>,
}

/// Asks a server, over a connection that it makes again after an error.
#[derive(Debug)]
pub(super) struct Asker {
    target: Arc<RedisTarget>,
    connection: Option<Connection>,
}

impl Asker {
    pub(super) fn new(target: Arc<RedisTarget>) -> Self {
        Self { target, connection: None }
    }

    /// Returns the replies to the commands, which may be errors of the server.
    ///
    /// # Errors
    /// If the server can't be asked.
    pub(super) async fn ask(&mut self, pipeline: &Pipeline) -> Result<Vec<Value>, ArrivalError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.target.connect().await?,
        };
        let replies = connection.each(pipeline).await?;
        self.connection = Some(connection);
        Ok(replies)
    }

    /// Returns the server's time, in milliseconds.
    ///
    /// # Errors
    /// If the server can't be asked, or refuses.
    pub(super) async fn time(&mut self) -> Result<u64, ArrivalError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("TIME");
        time(self.ask(&pipeline).await?.first())
    }
}

/// Returns the server's time, which is also the clock of entry ids.
///
/// # Errors
/// If Redis can't be asked.
pub async fn server_time(target: Arc<RedisTarget>) -> Result<Timestamp, ArrivalError> {
    Asker::new(target).time().await.map(Timestamp)
}

/// Watches streams. After an error the next observation reconnects and misses no arrival.
#[derive(Debug)]
pub struct ArrivalWatch {
    asker: Asker,
    queues: Vec<WatchedStream>,
}

impl ArrivalWatch {
    /// Watches for all jobs since `since`. With an `interval`, observations at that interval also measure how long jobs
    /// take; without one, each job is recorded on arrival.
    pub fn new(target: Arc<RedisTarget>, specs: Vec<QueueSpec>, since: Timestamp, interval: Option<Duration>) -> Self {
        let gap =
            interval.map(|interval| u64::try_from((interval * MAX_LATE_INTERVALS).as_millis()).unwrap_or(u64::MAX));
        let watched = |spec| WatchedStream { spec, after: StreamId::at(since.0), ledger: gap.map(Ledger::new) };
        Self { asker: Asker::new(target), queues: specs.into_iter().map(watched).collect() }
    }

    /// Makes one observation. Adds each job to `recorded` exactly once: when it finishes, or when it arrives. Jobs that
    /// were added before an error count.
    ///
    /// # Errors
    /// If Redis can't be asked, or refuses a command.
    pub async fn look(&mut self, recorded: &mut Vec<Recorded>) -> Result<(), ArrivalError> {
        while self.read_page(recorded).await? {}
        if self.queues.iter().any(|queue| queue.ledger.is_some()) {
            self.follow_jobs(recorded).await?;
        }
        Ok(())
    }

    /// Returns the jobs that arrived and are not known to be finished.
    pub fn rest(self) -> Vec<Recorded> {
        let rest = |(queue, watched): (usize, WatchedStream)| {
            let open = watched.ledger.into_iter().flat_map(Ledger::rest);
            open.map(move |id| Recorded { queue, arrival: Timestamp(id.ms()), service_ms: None })
        };
        let mut rest: Vec<_> = self.queues.into_iter().enumerate().flat_map(rest).collect();
        rest.sort_by_key(|job| job.arrival);
        rest
    }

    /// Reads the next entries of each stream. Returns `true` if there may be more.
    async fn read_page(&mut self, recorded: &mut Vec<Recorded>) -> Result<bool, ArrivalError> {
        let mut pipeline = redis::pipe();
        for WatchedStream { spec, after, .. } in &self.queues {
            pipeline.cmd("XRANGE").arg(&*spec.key).arg(format!("({after}")).arg("+").arg("COUNT").arg(PAGE_ENTRIES);
        }
        let replies = self.asker.ask(&pipeline).await?;
        let mut more = false;
        for (queue, (watched, reply)) in self.queues.iter_mut().zip(replies).enumerate() {
            let ids = entry_ids(reply).map_err(|error| ArrivalError::Refused(explain(&watched.spec.key, &error)))?;
            more |= ids.len() == PAGE_ENTRIES;
            for id in ids {
                watched.after = id;
                match &mut watched.ledger {
                    Some(ledger) => ledger.came(id),
                    None => recorded.push(Recorded { queue, arrival: Timestamp(id.ms()), service_ms: None }),
                }
            }
        }
        Ok(more)
    }

    /// Reads the position of each group, and then its pending jobs. With this order, a job that was read and is not
    /// pending is finished.
    async fn follow_jobs(&mut self, recorded: &mut Vec<Recorded>) -> Result<(), ArrivalError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("TIME");
        for WatchedStream { spec, .. } in &self.queues {
            pipeline.cmd("XINFO").arg("GROUPS").arg(&*spec.key);
            pipeline.cmd("XPENDING").arg(&*spec.key).arg(&*spec.group).arg("-").arg("+").arg(MAX_IN_HAND);
        }
        let mut replies = self.asker.ask(&pipeline).await?.into_iter();
        let now_ms = time(replies.next().as_ref())?;
        for (queue, watched) in self.queues.iter_mut().enumerate() {
            let mut next = || replies.next().ok_or_else(reply::missing);
            let refused = |error: String| ArrivalError::Refused(explain(&watched.spec.key, &error));
            let position = next().and_then(|reply| group_position(reply, &watched.spec.group)).map_err(refused)?;
            let in_hand = next().and_then(in_hand).map_err(refused)?;
            let Some(ledger) = &mut watched.ledger else { continue };
            let mut read_to = position;
            if in_hand.len() >= MAX_IN_HAND {
                // More jobs may be pending. Only up to this id it is certain that a job that is not pending is
                // finished.
                read_to = read_to.min(in_hand.last().map(|job| job.id));
            }
            for job in ledger.looked(&GroupReading { now_ms, read_to, in_hand }) {
                recorded.push(Recorded { queue, arrival: Timestamp(job.id.ms()), service_ms: job.service_ms });
            }
        }
        Ok(())
    }
}

fn time(answer: Option<&Value>) -> Result<u64, ArrivalError> {
    if let Some(Value::Array(parts)) = answer
        && let Some(seconds) = parts.first().and_then(reply::number)
        && let Some(micros) = parts.get(1).and_then(reply::number)
    {
        return Ok(seconds * 1_000 + micros / 1_000);
    }
    let why = answer.and_then(reply::refusal).unwrap_or_else(|| format!("{answer:?}"));
    Err(ArrivalError::Refused(format!("the command TIME: {why}; give the ACL user the rights in docs/redis.md")))
}

/// Returns the ids in the reply to XRANGE.
fn entry_ids(answer: Value) -> Result<Vec<StreamId>, String> {
    match answer {
        Value::Array(entries) => Ok(entries.iter().filter_map(entry_id).collect()),
        other => Err(reply::refusal(&other).unwrap_or_else(|| format!("unexpected reply to XRANGE: {other:?}"))),
    }
}

/// Returns the id of a stream entry `[id, [field, value, …]]`.
fn entry_id(entry: &Value) -> Option<StreamId> {
    match entry {
        Value::Array(parts) => parts.first().and_then(reply::text).and_then(StreamId::parse),
        _ => None,
    }
}

/// Parses the reply to XPENDING with a range. A missing stream or group has no pending jobs.
fn in_hand(answer: Value) -> Result<Vec<InHand>, String> {
    if let Some(error) = reply::refusal(&answer) {
        return if error.starts_with("NOGROUP") { Ok(Vec::new()) } else { Err(error) };
    }
    let Value::Array(jobs) = answer else { return Err(format!("unexpected reply to XPENDING: {answer:?}")) };
    let job = |job: &Value| match job {
        Value::Array(parts) => Some(InHand {
            id: parts.first().and_then(reply::text).and_then(StreamId::parse)?,
            idle_ms: parts.get(2).and_then(reply::number)?,
            deliveries: parts.get(3).and_then(reply::number)?,
        }),
        _ => None,
    };
    Ok(jobs.iter().filter_map(job).collect())
}
