//! The commands of a probe, and taking their replies apart. Source of the reply shapes: redis.io, XINFO STREAM,
//! XINFO GROUPS, XPENDING; each also checked on 6.2 and 7.0, where fields are missing or nil.

use redis::{Pipeline, Value};

use super::{
    Heartbeat, QueueSpec,
    interpret::{Backlog, ConsumerPending, Group, RawQueue, Stream, StreamId},
};
use crate::model::WorkerState;

/// Commands of one queue in the pipeline, without heartbeats; in front of them CLIENT CACHING if invalidations are armed.
const STREAM_COMMANDS: usize = 3;

/// Adds the probe of one queue. The replies come in this order.
pub(super) fn add(pipeline: &mut Pipeline, spec: &QueueSpec, heartbeats: &[String], arm: bool) -> usize {
    let before = pipeline.len();
    if arm {
        // In OPTIN mode just the next command's keys are tracked: the queue, not the heartbeats.
        pipeline.cmd("CLIENT").arg("CACHING").arg("YES");
    }
    if spec.list {
        pipeline.cmd("LLEN").arg(&*spec.key);
    } else {
        pipeline.cmd("XINFO").arg("STREAM").arg(&*spec.key);
        pipeline.cmd("XINFO").arg("GROUPS").arg(&*spec.key);
        pipeline.cmd("XPENDING").arg(&*spec.key).arg(&*spec.group);
    }
    for key in heartbeats {
        pipeline.cmd("HMGET").arg(key).arg("state").arg("sessions");
    }
    pipeline.len() - before
}

/// The replies of one queue's probe, taken from the front of a batch's replies.
pub(super) fn take(
    replies: &mut impl Iterator<Item = Value>,
    spec: &QueueSpec,
    heartbeats: usize,
    armed: bool,
) -> (RawQueue, Result<Vec<Option<Heartbeat>>, String>) {
    if armed {
        replies.next();
    }
    let queue = if spec.list {
        RawQueue::List(replies.next().ok_or_else(missing).and_then(list_length))
    } else {
        let mut of_stream = replies.by_ref().take(STREAM_COMMANDS);
        let stream = of_stream.next().ok_or_else(missing).and_then(stream);
        let group = of_stream.next().ok_or_else(missing).and_then(|value| group(value, &spec.group));
        let consumers = of_stream.next().ok_or_else(missing).and_then(pending);
        RawQueue::Stream { stream, group, consumers }
    };
    let heartbeats = replies.by_ref().take(heartbeats).map(heartbeat).collect();
    (queue, heartbeats)
}

pub(super) fn missing() -> String {
    "redis sent fewer replies than commands".to_owned()
}

pub(super) fn refusal(value: &Value) -> Option<String> {
    match value {
        Value::ServerError(error) => Some(match error.details() {
            Some(details) => format!("{} {details}", error.code()),
            None => error.code().to_owned(),
        }),
        _ => None,
    }
}

fn list_length(value: Value) -> Result<u64, String> {
    match value {
        Value::Int(length) => Ok(u64::try_from(length).unwrap_or(0)),
        other => Err(refusal(&other).unwrap_or_else(|| format!("unexpected reply to LLEN: {other:?}"))),
    }
}

/// `None`: there is no such key.
fn stream(value: Value) -> Result<Option<Stream>, String> {
    if let Some(error) = refusal(&value) {
        return if error.contains("no such key") { Ok(None) } else { Err(error) };
    }
    let fields = fields(value);
    Ok(Some(Stream {
        length: int(&fields, "length").ok_or("XINFO STREAM tells no length")?,
        last_generated: id(&fields, "last-generated-id").ok_or("XINFO STREAM tells no last-generated-id")?,
        first_entry: field(&fields, "first-entry").and_then(entry_id),
        added: int(&fields, "entries-added"),
    }))
}

/// `None`: there is no such group.
pub(super) fn group(value: Value, name: &str) -> Result<Option<Group>, String> {
    if let Some(error) = refusal(&value) {
        return if error.contains("no such key") { Ok(None) } else { Err(error) };
    }
    let Value::Array(groups) = value else { return Err(format!("unexpected reply to XINFO GROUPS: {value:?}")) };
    for group in groups {
        let fields = fields(group);
        if field(&fields, "name").and_then(text) == Some(name) {
            return Ok(Some(Group {
                pending: int(&fields, "pending").ok_or("XINFO GROUPS tells no pending")?,
                last_delivered: id(&fields, "last-delivered-id").ok_or("XINFO GROUPS tells no last-delivered-id")?,
                lag: int(&fields, "lag"),
            }));
        }
    }
    Ok(None)
}

/// The oldest pending id and who holds how many. A missing stream or group has none.
fn pending(value: Value) -> Result<(Option<StreamId>, Vec<ConsumerPending>), String> {
    if let Some(error) = refusal(&value) {
        return if error.starts_with("NOGROUP") { Ok((None, Vec::new())) } else { Err(error) };
    }
    let Value::Array(parts) = value else { return Err(format!("unexpected reply to XPENDING: {value:?}")) };
    let oldest = parts.get(1).and_then(text).and_then(StreamId::parse);
    let Some(Value::Array(consumers)) = parts.into_iter().nth(3) else { return Ok((oldest, Vec::new())) };
    let consumers = consumers.iter().filter_map(|consumer| match consumer {
        Value::Array(pair) => {
            let name = pair.first().and_then(text)?.to_owned();
            Some(ConsumerPending { name, jobs: pair.get(1).and_then(number).unwrap_or(0) })
        }
        _ => None,
    });
    Ok((oldest, consumers.collect()))
}

fn heartbeat(value: Value) -> Result<Option<Heartbeat>, String> {
    if let Some(error) = refusal(&value) {
        return Err(error);
    }
    let Value::Array(fields) = value else { return Ok(None) };
    let Some(state) = fields.first().and_then(text).and_then(WorkerState::parse) else { return Ok(None) };
    Ok(Some(Heartbeat { state, sessions: fields.get(1).and_then(number).unwrap_or(0) }))
}

/// Adds the count of what was not delivered, for a queue whose lag Redis can't tell.
pub(super) fn add_count(pipeline: &mut Pipeline, spec: &QueueSpec, after: StreamId, limit: u64) {
    pipeline.cmd("XRANGE").arg(&*spec.key).arg(format!("({after}")).arg("+").arg("COUNT").arg(limit);
}

/// The reply to [`add_count`].
pub(super) fn counted(value: Value) -> Result<Backlog, String> {
    match value {
        Value::Array(entries) => {
            Ok(Backlog { entries: entries.len() as u64, oldest: entries.first().and_then(entry_id) })
        }
        other => Err(refusal(&other).unwrap_or_else(|| format!("unexpected reply to XRANGE: {other:?}"))),
    }
}

/// A reply of field names and values, as RESP3 map or RESP2 array.
fn fields(value: Value) -> Vec<(Value, Value)> {
    match value {
        Value::Map(pairs) => pairs,
        Value::Array(flat) => {
            let mut flat = flat.into_iter();
            std::iter::from_fn(|| Some((flat.next()?, flat.next()?))).collect()
        }
        _ => Vec::new(),
    }
}

fn field<'a>(fields: &'a [(Value, Value)], name: &str) -> Option<&'a Value> {
    fields.iter().find(|(key, _)| text(key) == Some(name)).map(|(_, value)| value)
}

fn int(fields: &[(Value, Value)], name: &str) -> Option<u64> {
    field(fields, name).and_then(number)
}

fn id(fields: &[(Value, Value)], name: &str) -> Option<StreamId> {
    field(fields, name).and_then(text).and_then(StreamId::parse)
}

/// The id of a stream entry `[id, [field, value, …]]`.
pub(super) fn entry_id(entry: &Value) -> Option<StreamId> {
    match entry {
        Value::Array(parts) => parts.first().and_then(text).and_then(StreamId::parse),
        _ => None,
    }
}

pub(super) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

pub(super) fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        other => text(other)?.parse().ok(),
    }
}
