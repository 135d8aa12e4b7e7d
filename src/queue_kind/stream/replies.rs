//! Parses the replies to a stream's commands. Source of the reply shapes: redis.io, XINFO STREAM, XINFO GROUPS,
//! XPENDING; each also checked on 6.2 and 7.0, where fields are missing or nil.

use redis::Value;

use super::lag::{Group, StreamInfo};
use crate::{
    model::StreamId,
    queue_kind::{
        ConsumerPending,
        counted_entries::Backlog,
        reply::{field, fields, number, refusal, text},
    },
};

/// Parses the reply to XINFO STREAM or to the script `SUMMARY`; `None` if the key does not exist.
pub(super) fn stream(value: Value) -> Result<Option<StreamInfo>, String> {
    if let Some(error) = refusal(&value) {
        return if error.contains("no such key") { Ok(None) } else { Err(error) };
    }
    if let Value::Array(parts) = &value
        && let Ok(parts) = <&[Value; 8]>::try_from(&parts[..])
    {
        return summary(parts).map(Some);
    }
    let fields = fields(value);
    let entry = |name: &str| field(&fields, name);
    let bytes = |name: &str| entry(name).map_or(0, entry_bytes);
    Ok(Some(StreamInfo {
        length: int(&fields, "length").ok_or("XINFO STREAM tells no length")?,
        last_generated: id(&fields, "last-generated-id").ok_or("XINFO STREAM tells no last-generated-id")?,
        first_entry: entry("first-entry").and_then(entry_id),
        last_entry: entry("last-entry").and_then(entry_id),
        added: int(&fields, "entries-added"),
        max_deleted: id(&fields, "max-deleted-entry-id"),
        first_bytes: saturated(bytes("first-entry")),
        last_bytes: Some(saturated(bytes("last-entry"))),
    }))
}

/// Parses the parts of the script's reply.
fn summary(
    [length, last, first, final_entry, added, max_deleted, first_bytes, last_bytes]: &[Value; 8],
) -> Result<StreamInfo, String> {
    const ODD: &str = "the script that sums up a stream tells no length or last id";
    let id = |value: &Value| text(value).and_then(StreamId::parse);
    Ok(StreamInfo {
        length: number(length).ok_or(ODD)?,
        last_generated: id(last).ok_or(ODD)?,
        first_entry: id(first),
        last_entry: id(final_entry),
        added: number(added),
        max_deleted: id(max_deleted),
        first_bytes: number(first_bytes).map_or(0, saturated),
        last_bytes: number(last_bytes).map(saturated),
    })
}

/// Returns the position up to which a group has read, from XINFO GROUPS; `None` if the group does not exist.
pub fn group_position(value: Value, name: &str) -> Result<Option<StreamId>, String> {
    Ok(group(value, name)?.0.map(|group| group.last_delivered))
}

/// Parses the reply to XINFO GROUPS: the group, `None` if it does not exist, and the consumers of all groups.
pub(super) fn group(value: Value, name: &str) -> Result<(Option<Group>, u32), String> {
    if let Some(error) = refusal(&value) {
        return if error.contains("no such key") { Ok((None, 0)) } else { Err(error) };
    }
    let Value::Array(groups) = value else { return Err(format!("unexpected reply to XINFO GROUPS: {value:?}")) };
    let (mut found, mut consumers) = (None, 0);
    for group in groups {
        let fields = fields(group);
        consumers = u64::saturating_add(consumers, int(&fields, "consumers").unwrap_or(0));
        if found.is_none() && field(&fields, "name").and_then(text) == Some(name) {
            found = Some(Group {
                pending: int(&fields, "pending").ok_or("XINFO GROUPS tells no pending")?,
                last_delivered: id(&fields, "last-delivered-id").ok_or("XINFO GROUPS tells no last-delivered-id")?,
                lag: int(&fields, "lag"),
                read: int(&fields, "entries-read"),
            });
        }
    }
    Ok((found, saturated(consumers)))
}

/// Parses the reply to XPENDING: the oldest pending id, and the pending jobs of each consumer. A missing stream or
/// group has none.
pub(super) fn pending(value: Value) -> Result<(Option<StreamId>, Vec<ConsumerPending>), String> {
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

/// Parses the count of the script `COUNT`, or of XRANGE with this limit where scripts are refused.
pub(super) fn counted(value: Value, limit: u64) -> Result<Backlog, String> {
    let entries = match value {
        Value::Array(entries) => entries,
        other => return Err(refusal(&other).unwrap_or_else(|| format!("unexpected reply to a count: {other:?}"))),
    };
    if let [Value::Int(count), first, Value::Int(all), last, Value::Int(bytes)] = &entries[..] {
        let id = |value: &Value| text(value).and_then(StreamId::parse);
        let number = |value: i64| u64::try_from(value).unwrap_or(0);
        let (entries, bytes) = (number(*count), number(*bytes));
        return Ok(Backlog { entries, oldest: id(first), last: id(last), bytes, is_all: *all == 1 });
    }
    let count = entries.len() as u64;
    Ok(Backlog {
        entries: count,
        oldest: entries.first().and_then(entry_id),
        last: entries.last().and_then(entry_id),
        bytes: entries.iter().map(entry_bytes).sum(),
        is_all: count < limit,
    })
}

fn saturated(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn int(fields: &[(Value, Value)], name: &str) -> Option<u64> {
    field(fields, name).and_then(number)
}

fn id(fields: &[(Value, Value)], name: &str) -> Option<StreamId> {
    field(fields, name).and_then(text).and_then(StreamId::parse)
}

/// Returns the id of a stream entry `[id, [field, value, …]]`.
fn entry_id(entry: &Value) -> Option<StreamId> {
    match entry {
        Value::Array(parts) => parts.first().and_then(text).and_then(StreamId::parse),
        _ => None,
    }
}

fn entry_bytes(entry: &Value) -> u64 {
    match entry {
        Value::Array(parts) => parts.iter().skip(1).map(entry_bytes).chain(parts.first().map(entry_bytes)).sum(),
        Value::Map(pairs) => pairs.iter().map(|(name, value)| entry_bytes(name) + entry_bytes(value)).sum(),
        Value::BulkString(bytes) => bytes.len() as u64,
        _ => 0,
    }
}
