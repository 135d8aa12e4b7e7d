//! The scaler's memory in Redis: one entry in `scaling:events` for every change that was carried out or failed, and the
//! last change of each worker type, so that cooldowns survive a restart.

use std::{collections::HashMap, sync::Arc, time::Duration};

use redis::{Pipeline, RedisResult, Value, aio::MultiplexedConnection};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::ScalingRecord;
use crate::{
    connection::{ConnectionError, RedisTarget, backoff},
    model::{Timestamp, WorkerType, keys, snapshot::Change},
    telemetry::{Outcome, RecordingFailed, ScalingRecorded},
};

/// Records that wait for Redis. Far more than are made in an outage: without Redis there is no demand to act on.
const WAITING: usize = 4_096;

/// How far back to look for a record whose write was not confirmed.
const LOOK_BACK: usize = 64;

/// Pause between attempts when the backoff has ended.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Hands records to a running [`Recorder`].
#[derive(Clone, Debug)]
pub struct RecorderHandle {
    records: mpsc::Sender<ScalingRecord>,
}

impl RecorderHandle {
    /// Queues a record. Never waits: an actor is not to be held up by its history.
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
    max_len: u64,
    records: mpsc::Receiver<ScalingRecord>,
}

impl Recorder {
    /// A recorder and its handle. `instance` names this scaler in the records.
    pub fn new(target: Arc<RedisTarget>, instance: String, max_len: u64) -> (Self, RecorderHandle) {
        let (sender, records) = mpsc::channel(WAITING);
        (Self { target, instance, max_len, records }, RecorderHandle { records: sender })
    }

    /// Writes until the last handle is gone. After `cancel`, a record that can't be written is given up on.
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
                }
                .emit(),
                Err(error) => tell_lost(&record, &error),
            }
        }
    }

    /// Tries until it is written or cancelled; then the last error.
    async fn write_until(
        &self,
        connection: &mut Option<MultiplexedConnection>,
        record: &ScalingRecord,
        cancel: &CancellationToken,
    ) -> Result<(), String> {
        let mut pauses = backoff();
        let mut unsure = false;
        loop {
            let Err(error) = self.write(connection, record, unsure).await else { return Ok(()) };
            *connection = None;
            unsure = true;
            let pause = pauses.next().unwrap_or(LONGEST_PAUSE);
            if cancel.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return Err(error);
            }
        }
    }

    async fn write(
        &self,
        connection: &mut Option<MultiplexedConnection>,
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
            self.pipeline(record).exec_async(connection).await
        };
        written.await.map_err(|error: redis::RedisError| error.to_string())
    }

    fn pipeline(&self, record: &ScalingRecord) -> Pipeline {
        let mut pipeline = redis::pipe();
        let add = pipeline.cmd("XADD").arg(keys::SCALING_EVENTS).arg("MAXLEN").arg("~").arg(self.max_len).arg("*");
        for (field, value) in self.fields(record) {
            add.arg(field).arg(value);
        }
        add.ignore();
        if let Some(change) = record.change {
            pipeline
                .cmd("HSET")
                .arg(keys::scaler_state(&record.worker_type))
                .arg(&[("last_change_at", change.at.0), ("from", change.from.into()), ("to", change.to.into())])
                .ignore();
        }
        pipeline
    }

    /// The entry's fields: `docs/protocol.md` lists them.
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
            ("reaction_ms", format!("{:.3}", record.reaction.as_secs_f64() * 1e3)),
            ("instance", self.instance.clone()),
        ]
    }

    /// Whether the record is among the newest entries: its write may have come through unconfirmed.
    async fn is_written(&self, connection: &mut MultiplexedConnection, record: &ScalingRecord) -> RedisResult<bool> {
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
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectionError),
    /// No answer.
    #[error("reading scaler:state:*: {0}")]
    Redis(#[from] redis::RedisError),
}

/// The last changes remembered from before, by index; `None` where there is none.
///
/// # Errors
/// If Redis can't be asked.
pub async fn load_changes(target: &RedisTarget, worker_types: &[WorkerType]) -> Result<Vec<Option<Change>>, LoadError> {
    let mut connection = target.connect().await?;
    let mut changes = Vec::with_capacity(worker_types.len());
    for batch in worker_types.chunks(500) {
        let mut pipeline = redis::pipe();
        for worker_type in batch {
            pipeline.cmd("HMGET").arg(keys::scaler_state(worker_type)).arg(&["last_change_at", "from", "to"]);
        }
        let replies = connection.send_packed_commands(&pipeline, 0, batch.len()).await?;
        changes.extend(replies.into_iter().map(change));
    }
    Ok(changes)
}

fn outcome(record: &ScalingRecord) -> Outcome {
    if record.error.is_some() { Outcome::Failed } else { Outcome::Done }
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
