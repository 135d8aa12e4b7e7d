//! Removes consumers of workers that are gone from a group: they only cost memory. Redis has no way to list only some
//! of them, so a group with very many is left alone, and the log says so.

use std::time::Duration;

use redis::{Value, from_redis_value};

use super::{BrokerError, Consumer};
use crate::connection::Connection;
use crate::model::{WorkerId, WorkerType, keys};

/// Removes a consumer if it has nothing pending at this moment. One atomic step: removing a consumer discards its
/// pending entries, and its worker may have come back since its heartbeat was read. If it has, and waits for jobs, its
/// next read creates the consumer again.
const REMOVE_IF_DONE: &str = "\
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) > 0 then return 0 end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1";
/// Maximum consumers of a group that are listed: the server needs about a millisecond for a thousand.
const MAX_LISTED: i64 = 10_000;
/// Maximum consumers removed in one call.
const REMOVED_AT_ONCE: usize = 50;

/// What was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tidied {
    /// This number of consumers.
    Removed(usize),
    /// None: the group has this number of consumers, and listing them would block the server.
    TooMany(i64),
}

impl Consumer {
    /// Removes consumers of workers that are gone and have nothing pending, a few at a time. `lapse` is the time after
    /// which a silent worker counts as gone. The caller must have written its own heartbeats for that long.
    pub async fn remove_gone(
        &self,
        connection: &mut Connection,
        worker_type: &WorkerType,
        lapse: Duration,
    ) -> Result<Tidied, BrokerError> {
        let failed = |cause| self.failed("list the consumers", cause);
        let groups = redis::cmd("XINFO").arg("GROUPS").arg(&self.stream).query_async(connection).await;
        let count = consumers_of(&groups.map_err(failed)?, self.group.as_bytes());
        if count <= 1 {
            return Ok(Tidied::Removed(0));
        }
        if count > MAX_LISTED {
            return Ok(Tidied::TooMany(count));
        }
        let mut list = redis::cmd("XINFO");
        let list = list.arg("CONSUMERS").arg(&self.stream).arg(&self.group).query_async(connection).await;
        let mut idle = idle_consumers(&list.map_err(failed)?, lapse);
        idle.retain(|name| name != self.name.as_bytes());
        idle.truncate(REMOVED_AT_ONCE);
        let mut gone = Vec::new();
        for name in idle {
            if !self.has_heartbeat(connection, worker_type, &name).await? {
                gone.push(name);
            }
        }
        let mut removed = 0;
        for name in gone {
            removed += usize::from(self.remove_consumer(connection, &name).await?);
        }
        Ok(Tidied::Removed(removed))
    }

    /// Removes the consumer `name` if it has no heartbeat and nothing pending; returns whether it did.
    pub async fn remove_if_done(
        &self,
        connection: &mut Connection,
        worker_type: &WorkerType,
        name: &str,
    ) -> Result<bool, BrokerError> {
        if self.has_heartbeat(connection, worker_type, name.as_bytes()).await? {
            return Ok(false);
        }
        self.remove_consumer(connection, name.as_bytes()).await
    }

    async fn has_heartbeat(
        &self,
        connection: &mut Connection,
        worker_type: &WorkerType,
        name: &[u8],
    ) -> Result<bool, BrokerError> {
        let key = [keys::heartbeat(worker_type, &WorkerId::new("")).as_bytes(), name].concat();
        let exists = redis::cmd("EXISTS").arg(key).query_async(connection).await;
        exists.map_err(|cause| self.failed("look for a worker", cause))
    }

    async fn remove_consumer(&self, connection: &mut Connection, name: &[u8]) -> Result<bool, BrokerError> {
        let mut command = redis::cmd("EVAL");
        command.arg(REMOVE_IF_DONE).arg(1).arg(&self.stream).arg(&self.group).arg(name);
        let removed = command.query_async(connection).await;
        removed.map_err(|cause| self.failed(&format!("remove consumer `{}`", String::from_utf8_lossy(name)), cause))
    }
}

/// Returns the number of consumers of `group` in the reply to XINFO GROUPS; 0 if the group does not exist.
fn consumers_of(groups: &Value, group: &[u8]) -> i64 {
    let Value::Array(groups) = groups else { return 0 };
    let of = |info: &Value| {
        let is_it = field(info, b"name").is_some_and(|name| matches!(name, Value::BulkString(name) if name == group));
        is_it.then(|| field(info, b"consumers").and_then(|count| from_redis_value(count.clone()).ok()))
    };
    groups.iter().find_map(of).flatten().unwrap_or(0)
}

/// Returns the names of the consumers in the reply to XINFO CONSUMERS that have nothing pending and were silent for
/// `lapse`.
fn idle_consumers(consumers: &Value, lapse: Duration) -> Vec<Vec<u8>> {
    let Value::Array(consumers) = consumers else { return Vec::new() };
    let number = |info: &Value, name: &[u8]| match field(info, name) {
        Some(Value::Int(number)) => u64::try_from(*number).ok(),
        _ => None,
    };
    let idle = consumers.iter().filter(|info| {
        let silent = number(info, b"idle").is_some_and(|idle| Duration::from_millis(idle) >= lapse);
        silent && number(info, b"pending") == Some(0)
    });
    let name = |info: &Value| match field(info, b"name") {
        Some(Value::BulkString(name)) => Some(name.clone()),
        _ => None,
    };
    idle.filter_map(name).collect()
}

/// Returns a field of a reply that is a flat list in RESP2 and a map in RESP3.
fn field<'a>(info: &'a Value, name: &[u8]) -> Option<&'a Value> {
    let is_it = |key: &Value| match key {
        Value::BulkString(key) => key == name,
        Value::SimpleString(key) => key.as_bytes() == name,
        _ => false,
    };
    match info {
        Value::Map(pairs) => pairs.iter().find(|(key, _)| is_it(key)).map(|(_, value)| value),
        Value::Array(flat) => flat.chunks_exact(2).find(|pair| is_it(&pair[0])).map(|pair| &pair[1]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> Value {
        Value::BulkString(bytes.to_vec())
    }

    #[test]
    fn only_silent_consumers_with_nothing_pending_are_named() {
        let consumer = |name: &[u8], pending, idle| {
            Value::Map(vec![
                (text(b"name"), text(name)),
                (text(b"pending"), Value::Int(pending)),
                (text(b"idle"), Value::Int(idle)),
            ])
        };
        let all = [consumer(b"busy", 1, 9_000), consumer(b"fresh", 0, 10), consumer(b"\xfa\xff", 0, 5_000)];
        assert_eq!(idle_consumers(&Value::Array(all.to_vec()), Duration::from_secs(5)), [b"\xfa\xff"]);
    }

    #[test]
    fn consumers_are_counted_in_both_protocols() {
        let flat = Value::Array(vec![text(b"name"), text(b"g"), text(b"consumers"), Value::Int(7)]);
        let map = Value::Map(vec![(text(b"name"), text(b"g")), (text(b"consumers"), Value::Int(7))]);
        for group in [flat, map] {
            let groups = Value::Array(vec![group]);
            assert_eq!((consumers_of(&groups, b"g"), consumers_of(&groups, b"other")), (7, 0));
        }
    }
}
