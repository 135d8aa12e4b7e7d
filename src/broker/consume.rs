//! Takes jobs from a stream through its consumer group, and settles them: acknowledged after the work, or set aside as dead.

use std::time::Duration;

use redis::{Value, aio::MultiplexedConnection};

use super::{BrokerError, EnvelopeError, Job, JobResult, RESULT_TTL};
use crate::model::keys;

/// One member of a consumer group.
#[derive(Clone, Debug)]
pub struct Consumer {
    /// The stream's key.
    pub stream: String,
    /// The consumer group.
    pub group: String,
    /// The consumer's name: the worker's id.
    pub name: String,
}

/// A stream entry that was delivered and not yet acknowledged.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The stream entry's id.
    pub entry: String,
    /// The job in it, or why there is none.
    pub job: Result<Job, EnvelopeError>,
    fields: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Consumer {
    /// Makes the stream and the group if they are missing, at 0: jobs published before count.
    pub async fn ensure_group(&self, connection: &mut MultiplexedConnection) -> Result<(), BrokerError> {
        let mut command = redis::cmd("XGROUP");
        command.arg("CREATE").arg(&self.stream).arg(&self.group).arg(0).arg("MKSTREAM");
        match command.exec_async(connection).await {
            Err(cause) if cause.code() != Some("BUSYGROUP") => {
                Err(BrokerError::new(format!("create group `{}` on `{}`", self.group, self.stream), cause))
            }
            _ => Ok(()),
        }
    }

    /// Takes up to `count` new jobs, waiting for the first for up to `block`. `connection` must have no response time-out
    /// shorter than that. None in time is an empty answer.
    ///
    /// After an error, jobs may have been delivered all the same: [`Consumer::recover_own`] finds them.
    pub async fn read(
        &self,
        connection: &mut MultiplexedConnection,
        count: usize,
        block: Duration,
    ) -> Result<Vec<Delivery>, BrokerError> {
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(&self.group).arg(&self.name).arg("COUNT").arg(count);
        // BLOCK 0 means for ever.
        command.arg("BLOCK").arg(block.as_millis().max(1).to_string()).arg("STREAMS").arg(&self.stream).arg(">");
        let reply: Value = command
            .query_async(connection)
            .await
            .map_err(|cause| BrokerError::new(format!("read jobs from `{}`", self.stream), cause))?;
        Ok(only_stream(reply).map(deliveries).unwrap_or_default())
    }

    /// Acknowledges a job that was done and, if somebody waits, pushes its result, both or neither. Doing it again is
    /// harmless but for a second copy of the result.
    pub async fn finish(
        &self,
        connection: &mut MultiplexedConnection,
        entry: &str,
        reply_to: Option<&str>,
        result: &JobResult,
    ) -> Result<(), BrokerError> {
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        if let Some(key) = reply_to {
            pipeline.cmd("LPUSH").arg(key).arg(result.to_json()).ignore();
            pipeline.cmd("EXPIRE").arg(key).arg(RESULT_TTL.as_secs()).ignore();
        }
        pipeline.cmd("XACK").arg(&self.stream).arg(&self.group).arg(entry).ignore();
        let done = pipeline.exec_async(connection).await;
        done.map_err(|cause| BrokerError::new(format!("finish job {} of `{}`", result.id, self.stream), cause))
    }

    /// Copies an entry that is no job to `{stream}:dead`, with the reason, and then acknowledges it. In this order and not in
    /// one transaction, which would acknowledge it even if the copy is refused.
    pub async fn bury(
        &self,
        connection: &mut MultiplexedConnection,
        delivery: &Delivery,
        reason: &str,
    ) -> Result<(), BrokerError> {
        let dead = keys::dead_letters(&self.stream);
        let failed = |cause| BrokerError::new(format!("move entry {} to `{dead}`", delivery.entry), cause);
        let mut copy = redis::cmd("XADD");
        copy.arg(&dead).arg("*");
        for (field, value) in &delivery.fields {
            copy.arg(&field[..]).arg(&value[..]);
        }
        copy.arg("dead_reason").arg(reason).arg("dead_entry").arg(&delivery.entry);
        copy.exec_async(connection).await.map_err(failed)?;
        let mut acknowledge = redis::cmd("XACK");
        acknowledge.arg(&self.stream).arg(&self.group).arg(&delivery.entry);
        acknowledge.exec_async(connection).await.map_err(failed)
    }
}

/// The entries of the one stream that was asked for: RESP2 answers an array of pairs, RESP3 a map, nothing is nil.
fn only_stream(reply: Value) -> Option<Value> {
    match reply {
        Value::Array(streams) => match streams.into_iter().next()? {
            Value::Array(pair) => pair.into_iter().nth(1),
            _ => None,
        },
        Value::Map(streams) => streams.into_iter().next().map(|(_, entries)| entries),
        _ => None,
    }
}

/// Reads `[[id, [field, value, …]], …]`. By hand, since a field's name need not be UTF-8 and one bad entry must not hide the
/// others. Entries deleted from the stream have no fields (before Redis 7) and are left out.
pub(super) fn deliveries(entries: Value) -> Vec<Delivery> {
    let Value::Array(entries) = entries else { return Vec::new() };
    entries.into_iter().filter_map(delivery).collect()
}

fn delivery(entry: Value) -> Option<Delivery> {
    let Value::Array(pair) = entry else { return None };
    let mut pair = pair.into_iter();
    let (Some(Value::BulkString(id)), Some(Value::Array(flat))) = (pair.next(), pair.next()) else { return None };
    let mut flat = flat.into_iter().map(|value| match value {
        Value::BulkString(bytes) => bytes,
        _ => Vec::new(),
    });
    let mut fields = Vec::new();
    while let (Some(field), Some(value)) = (flat.next(), flat.next()) {
        fields.push((field, value));
    }
    let json = fields.iter().find(|(field, _)| field == b"json");
    let job = json.ok_or(EnvelopeError::NoJson).and_then(|(_, json)| Job::parse(json));
    Some(Delivery { entry: String::from_utf8_lossy(&id).into_owned(), job, fields })
}
