//! Reads the scaler's history, the stream `scaling:events`, for people. `recorder` writes the history. Other programs
//! may write to it too, so a missing or odd field is not an error.

use std::{sync::Arc, time::Duration};

use redis::{
    FromRedisValue, Value,
    streams::{StreamId as Entry, StreamRangeReply, StreamReadReply},
};

pub use crate::model::history::ScalingEvent;
use crate::{
    connection::{Connection, ConnectionError, RedisTarget},
    model::{StreamId, Timestamp, keys},
};

/// Entries of one read when looking back.
const PAGE: usize = 500;

/// Longest wait of one blocking read; bounds how long a dead connection goes unnoticed.
const BLOCK: Duration = Duration::from_secs(20);

/// Time that a blocking read may take beyond its wait.
const REPLY_TIMEOUT: Duration = Duration::from_secs(2);

/// Parses an entry, whichever program wrote it.
fn event_of(entry: &Entry) -> ScalingEvent {
    let text = |field: &str| entry.map.get(field).and_then(text).unwrap_or_default();
    let number = |field: &str| text(field).trim().parse::<u64>().ok();
    let count = |field: &str| number(field).and_then(|count| u32::try_from(count).ok());
    let time_in_id = StreamId::parse(&entry.id).unwrap_or_default().ms();
    ScalingEvent {
        id: entry.id.clone(),
        at: Timestamp(number("timestamp").unwrap_or(time_in_id)),
        worker_type: text("worker_type"),
        decision: text("decision"),
        from_count: count("from_count"),
        to_count: count("to_count"),
        reason: text("reason"),
        trigger: text("trigger").split(',').map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned).collect(),
        lag: number("lag"),
        pending: number("pending"),
        outcome: text("outcome"),
        error: Some(text("error")).filter(|error| !error.is_empty()),
        reaction_ms: text("reaction_ms").parse().ok().filter(|ms: &f64| ms.is_finite()),
        instance: text("instance"),
        token: number("token"),
        by: text("by"),
    }
}

fn text(value: &Value) -> Option<String> {
    Vec::<u8>::from_redis_value_ref(value).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Why the history can't be read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The connection failed.
    #[error(transparent)]
    Connect(#[from] ConnectionError),
    /// Redis refused a command, or went away.
    #[error("can't read the stream `scaling:events` ({0}); it must be a stream that this user may read")]
    Redis(#[from] redis::RedisError),
    /// A reply did not arrive in time.
    #[error("redis does not answer")]
    Timeout,
}

impl HistoryError {
    /// Returns whether trying again may help without a repair.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Connect(error) => matches!(error, ConnectionError::Unreachable { .. }),
            Self::Redis(error) => error.is_io_error() || error.is_timeout() || error.is_unrecoverable_error(),
            Self::Timeout => true,
        }
    }
}

/// The newest events, oldest first, and the end of the stream when they were read.
#[derive(Clone, Debug, PartialEq)]
pub struct Recent {
    /// The requested events.
    pub events: Vec<ScalingEvent>,
    /// Id of the newest entry, of any worker type; `0-0` if there is none. An [`EventTail`] continues from there.
    pub end: String,
}

/// Reads the newest `count` events; with `worker_type`, those of that worker type.
///
/// # Errors
/// If Redis can't be asked, or the key is not a stream.
pub async fn recent_events(
    target: &RedisTarget,
    count: usize,
    worker_type: Option<&str>,
) -> Result<Recent, HistoryError> {
    let mut connection = target.connect().await?;
    let mut recent = Recent { events: Vec::new(), end: "0-0".to_owned() };
    let mut newest = "+".to_owned();
    loop {
        let page: StreamRangeReply = redis::cmd("XREVRANGE")
            .arg(keys::SCALING_EVENTS)
            .arg(&newest)
            .arg("-")
            .arg("COUNT")
            .arg(PAGE)
            .query_async(&mut connection)
            .await?;
        if newest == "+" {
            recent.end = page.ids.first().map_or_else(|| "0-0".to_owned(), |entry| entry.id.clone());
        }
        let wanted = |event: &ScalingEvent| worker_type.is_none_or(|name| event.worker_type == name);
        recent.events.extend(page.ids.iter().map(event_of).filter(wanted));
        match page.ids.last() {
            Some(oldest) if page.ids.len() == PAGE && recent.events.len() < count => {
                // `(` excludes the entry: Redis 6.2 and later.
                newest = format!("({}", oldest.id);
            }
            _ => break,
        }
    }
    recent.events.truncate(count);
    recent.events.reverse();
    Ok(recent)
}

/// Follows the stream on a connection of its own, because its blocking reads delay other commands.
#[derive(Debug)]
pub struct EventTail {
    target: Arc<RedisTarget>,
    connection: Option<Connection>,
    after: String,
}

impl EventTail {
    /// Returns a tail that reads everything after the entry `after`, such as [`Recent::end`].
    pub fn new(target: Arc<RedisTarget>, after: String) -> Self {
        Self { target, connection: None, after }
    }

    /// Waits some seconds for the next events; no event is not an error. After an error the next call reconnects and
    /// misses nothing. Cancel safe.
    ///
    /// # Errors
    /// As [`recent_events`].
    pub async fn next(&mut self) -> Result<Vec<ScalingEvent>, HistoryError> {
        // A cancelled read leaves its connection blocked, so the connection is kept only after an answer.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.target.connect_without_timeout().await?,
        };
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(PAGE).arg("BLOCK").arg(BLOCK.as_millis().to_string());
        command.arg("STREAMS").arg(keys::SCALING_EVENTS).arg(&self.after);
        let mut doubts = self.target.doubts();
        let reply = tokio::time::timeout(BLOCK + REPLY_TIMEOUT, command.query_async(&mut connection));
        let reply: Option<StreamReadReply> = tokio::select! {
            reply = reply => reply.map_err(|_| HistoryError::Timeout)??,
            // Another connection did not get a reply: the next call reads on a new one.
            Ok(()) = doubts.changed() => return Ok(Vec::new()),
        };
        self.connection = Some(connection);
        let entries = reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids);
        let events: Vec<_> = entries.map(|entry| event_of(&entry)).collect();
        if let Some(last) = events.last() {
            self.after.clone_from(&last.id);
        }
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str, fields: &[(&str, &str)]) -> ScalingEvent {
        let map = fields
            .iter()
            .map(|(field, value)| ((*field).to_owned(), Value::BulkString(value.as_bytes().to_vec())))
            .collect();
        event_of(&Entry { id: id.to_owned(), map, ..Entry::default() })
    }

    #[test]
    fn an_entry_of_ours_is_read_in_full() {
        let event = event(
            "1700000000500-0",
            &[
                ("worker_type", "browser"),
                ("decision", "scale_up"),
                ("from_count", "1"),
                ("to_count", "6"),
                ("timestamp", "1700000000123"),
                ("reason", "depth 40 >= 5"),
                ("trigger", "keyspace,channel"),
                ("lag", "40"),
                ("pending", "unknown"),
                ("outcome", "done"),
                ("error", ""),
                ("reaction_ms", "1.250"),
                ("instance", "here-1"),
            ],
        );
        assert_eq!((event.from_count, event.to_count, event.at), (Some(1), Some(6), Timestamp(1_700_000_000_123)));
        assert_eq!((event.lag, event.pending, event.error.as_deref()), (Some(40), None, None));
        assert_eq!(event.trigger, ["keyspace", "channel"]);
        assert_eq!(event.reaction_ms, Some(1.25));
    }

    #[test]
    fn what_others_wrote_is_read_as_far_as_it_goes() {
        let event = event("1700000000500-3", &[("worker_type", "x"), ("from_count", "many"), ("reaction_ms", "NaN")]);
        assert_eq!(event.at, Timestamp(1_700_000_000_500));
        assert_eq!((event.from_count, event.to_count, event.reaction_ms), (None, None, None));
        assert_eq!(event.worker_type, "x");
    }
}
