//! The scaler's memory in Redis: one entry in `scaling:events` for every change that was carried out or failed, and the
//! last change of each worker type, so that cooldowns survive a restart.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use redis::{RedisResult, Value};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::ScalingRecord;
use crate::{
    connection::{Connection, ConnectionError, RedisTarget, backoff},
    model::{Timestamp, WorkerType, keys, snapshot::Change},
    telemetry::{LateRecord, RecordWaits, RecordingFailed, ScalingOutcome, ScalingRecorded},
};

/// Adds the entry, and stores the change unless a later leader has begun its term: an earlier leader must not overwrite
/// what a later one remembers. The entry is added in any case, because the change was made; it is then marked as
/// fenced. `KEYS`: the stream, the state, the last token. `ARGV`: the length of the stream, the token or nothing, the
/// number of words for the entry, the words for the entry, and the words for the state.
const WRITE: &str = "
local stale = ARGV[2] ~= '' and tonumber(redis.call('GET', KEYS[3]) or 0) > tonumber(ARGV[2])
local words = tonumber(ARGV[3])
local entry, state = {}, {}
for i = 4, #ARGV do
  table.insert(i < 4 + words and entry or state, ARGV[i])
end
if stale then
  table.insert(entry, 'fenced')
  table.insert(entry, '1')
end
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', unpack(entry))
if #state > 0 and not stale then
  redis.call('HSET', KEYS[2], unpack(state))
end
return stale and 1 or 0";

/// Maximum records that wait for Redis. Far more than an outage produces: without Redis there is no demand to act on.
const WAITING: usize = 4_096;

/// Entries that are searched for a record whose write was not confirmed.
const LOOK_BACK: usize = 64;

/// Passes records to a running [`Recorder`].
#[derive(Clone, Debug)]
pub struct RecorderHandle {
    records: mpsc::Sender<ScalingRecord>,
    max_len: Arc<AtomicU64>,
}

impl RecorderHandle {
    /// Sets how many entries the history keeps from now on.
    pub fn keep(&self, max_len: u64) {
        self.max_len.store(max_len, Ordering::Relaxed);
    }

    /// Queues a record. Never waits, because the history must not delay an actor.
    pub fn record(&self, record: ScalingRecord) {
        if let Err(error) = self.records.try_send(record) {
            let (mpsc::error::TrySendError::Full(record) | mpsc::error::TrySendError::Closed(record)) = error;
            tell_lost(&record, "too many records wait for redis");
        }
    }
}

/// Owns the history's connection.
#[derive(Debug)]
pub struct Recorder {
    target: Arc<RedisTarget>,
    instance: String,
    max_len: Arc<AtomicU64>,
    records: mpsc::Receiver<ScalingRecord>,
}

impl Recorder {
    /// Returns a recorder and its handle. `instance` names this scaler in the records.
    pub fn new(target: Arc<RedisTarget>, instance: String, max_len: u64) -> (Self, RecorderHandle) {
        let (sender, records) = mpsc::channel(WAITING);
        let max_len = Arc::new(AtomicU64::new(max_len));
        let handle = RecorderHandle { records: sender, max_len: max_len.clone() };
        (Self { target, instance, max_len, records }, handle)
    }

    /// Writes until the last handle is dropped. After `cancel`, drops records that can't be written.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut connection = None;
        while let Some(record) = self.records.recv().await {
            match self.write_until(&mut connection, &record, &cancel).await {
                Ok(()) => ScalingRecorded {
                    worker_type: &record.worker_type,
                    action: record.action,
                    from: record.from,
                    to: record.to,
                    outcome: outcome(&record),
                    waiting: self.records.len(),
                }
                .emit(),
                Err(error) => tell_lost(&record, &error),
            }
        }
    }

    /// Retries until the record is written, or until cancelled; then returns the last error.
    async fn write_until(
        &self,
        connection: &mut Option<Connection>,
        record: &ScalingRecord,
        cancel: &CancellationToken,
    ) -> Result<(), String> {
        let mut pauses = backoff();
        let mut unsure = false;
        loop {
            let Err(error) = self.write(connection, record, unsure).await else { return Ok(()) };
            let waiting = self.records.len() + 1;
            RecordWaits { worker_type: &record.worker_type, waiting, error: &error, news: !unsure }.emit();
            *connection = None;
            unsure = true;
            let pause = pauses.next_pause();
            if cancel.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return Err(error);
            }
        }
    }

    async fn write(
        &self,
        connection: &mut Option<Connection>,
        record: &ScalingRecord,
        unsure: bool,
    ) -> Result<(), String> {
        let connection = match connection {
            Some(connection) => connection,
            None => connection.insert(self.target.connect().await.map_err(|error| error.to_string())?),
        };
        let written = async {
            if unsure && self.is_written(connection, record).await? {
                return Ok(());
            }
            if self.add(connection, record).await? {
                LateRecord { worker_type: &record.worker_type, token: record.token }.emit();
            }
            Ok(())
        };
        written.await.map_err(|error: redis::RedisError| error.to_string())
    }

    /// Adds the record. Returns whether a later leader has begun its term meanwhile.
    async fn add(&self, connection: &mut Connection, record: &ScalingRecord) -> RedisResult<bool> {
        let fields = self.fields(record);
        let layout = connection.layout();
        let mut script = redis::cmd("EVAL");
        script.arg(WRITE).arg(3);
        script.arg(keys::SCALING_EVENTS).arg(layout.scaler_state(&record.worker_type)).arg(layout.leader_token());
        script.arg(self.max_len.load(Ordering::Relaxed)).arg(token(record)).arg(fields.len() * 2);
        for (field, value) in fields {
            script.arg(field).arg(value);
        }
        if let Some(change) = record.change {
            script.arg(&[("last_change_at", change.at.0), ("from", change.from.into()), ("to", change.to.into())]);
        }
        script.query_async(connection).await
    }

    /// Returns the entry's fields, as `docs/protocol.md` lists them.
    fn fields(&self, record: &ScalingRecord) -> Vec<(&'static str, String)> {
        let number = |value: Option<u64>| value.map_or_else(|| "unknown".to_owned(), |value| value.to_string());
        let trigger: Vec<&str> = record.trigger.iter().map(|source| source.as_str()).collect();
        vec![
            ("worker_type", record.worker_type.to_string()),
            ("decision", record.action.as_str().to_owned()),
            ("from_count", record.from.to_string()),
            ("to_count", record.to.to_string()),
            ("timestamp", record.at.0.to_string()),
            ("reason", record.reason.clone()),
            ("trigger", trigger.join(",")),
            ("lag", number(record.lag)),
            ("pending", number(record.pending)),
            ("outcome", outcome(record).as_str().to_owned()),
            ("error", record.error.clone().unwrap_or_default()),
            (
                "reaction_ms",
                record.reaction.map_or_else(String::new, |took| format!("{:.3}", took.as_secs_f64() * 1e3)),
            ),
            ("instance", self.instance.clone()),
            ("token", token(record)),
        ]
    }

    /// Returns whether the record is among the newest entries: an unconfirmed write may have succeeded.
    async fn is_written(&self, connection: &mut Connection, record: &ScalingRecord) -> RedisResult<bool> {
        let entries: Vec<(String, HashMap<String, String>)> = redis::cmd("XREVRANGE")
            .arg(keys::SCALING_EVENTS)
            .arg("+")
            .arg("-")
            .arg("COUNT")
            .arg(LOOK_BACK)
            .query_async(connection)
            .await?;
        let is_it = |entry: &HashMap<String, String>| {
            entry.get("worker_type").is_some_and(|name| name == record.worker_type.as_str())
                && entry.get("timestamp").is_some_and(|at| *at == record.at.0.to_string())
                && entry.get("instance") == Some(&self.instance)
        };
        Ok(entries.iter().any(|(_, entry)| is_it(entry)))
    }
}

/// Why the last changes could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The connection failed.
    #[error(transparent)]
    Connect(#[from] ConnectionError),
    /// Redis refused a command, or went away.
    #[error("reading scaler:state:*: {0}")]
    Redis(#[from] redis::RedisError),
}

/// Returns the stored last changes of the worker types, by index; `None` where there is none.
///
/// # Errors
/// If Redis can't be asked.
pub async fn load_changes(target: &RedisTarget, worker_types: &[WorkerType]) -> Result<Vec<Option<Change>>, LoadError> {
    let mut connection = target.connect().await?;
    let layout = connection.layout();
    let mut changes = Vec::with_capacity(worker_types.len());
    for batch in worker_types.chunks(500) {
        let mut pipeline = redis::pipe();
        for worker_type in batch {
            pipeline.cmd("HMGET").arg(layout.scaler_state(worker_type)).arg(&["last_change_at", "from", "to"]);
        }
        let replies = connection.each(&pipeline).await?;
        changes.extend(replies.into_iter().map(change));
    }
    Ok(changes)
}

/// Returns the token as text; empty without an election.
fn token(record: &ScalingRecord) -> String {
    record.token.map_or_else(String::new, |token| token.to_string())
}

fn outcome(record: &ScalingRecord) -> ScalingOutcome {
    if record.error.is_some() { ScalingOutcome::Failed } else { ScalingOutcome::Done }
}

fn tell_lost(record: &ScalingRecord, error: &str) {
    RecordingFailed {
        worker_type: &record.worker_type,
        action: record.action,
        from: record.from,
        to: record.to,
        outcome: outcome(record),
        error,
    }
    .emit();
}

fn change(reply: Value) -> Option<Change> {
    let (at, from, to): (u64, u32, u32) = redis::from_redis_value(reply).ok()?;
    Some(Change { at: Timestamp(at), from, to })
}
