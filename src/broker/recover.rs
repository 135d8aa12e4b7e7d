//! Finds jobs that were delivered to nobody who still works on them: our own that got lost on the way, and those of
//! workers that are gone. A worker is gone when its heartbeat key is; nobody else's jobs are ever touched.

use std::{collections::HashSet, time::Duration};

use redis::{
    Value,
    aio::MultiplexedConnection,
    streams::{StreamInfoConsumersReply, StreamPendingCountReply},
};

use super::{BrokerError, Consumer, Delivery, consume::deliveries};
use crate::model::{WorkerId, WorkerType, keys};

/// Removes a consumer if, in this very moment, it has no heartbeat and nothing pending. One atomic step: removing a
/// consumer throws away what is pending on it, and its worker may have come back since we looked.
const REMOVE_IF_DONE: &str = "\
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) > 0 then return 0 end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1";

/// Jobs taken over from workers that are gone.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// The jobs, now delivered to us.
    pub deliveries: Vec<Delivery>,
    /// Whose they were.
    pub from: Vec<String>,
}

impl Consumer {
    /// Up to `limit` jobs that are pending on this consumer and not in `in_hand`: left by an earlier process of the same
    /// name, or delivered into a connection that broke.
    pub async fn recover_own(
        &self,
        connection: &mut MultiplexedConnection,
        in_hand: &HashSet<String>,
        limit: usize,
    ) -> Result<Vec<Delivery>, BrokerError> {
        let pending = self.pending_of(connection, &self.name, in_hand.len() + limit).await?;
        let lost: Vec<String> = pending.into_iter().filter(|entry| !in_hand.contains(entry)).take(limit).collect();
        self.claim(connection, &lost, Duration::ZERO).await
    }

    /// Takes over up to `limit` jobs of workers of `worker_type` that are gone, and removes those with none left. A job must
    /// have been idle for `lapse`, the time after which a silent worker counts as gone: that also keeps two workers
    /// from claiming the same job at the same time.
    pub async fn recover_from_gone(
        &self,
        connection: &mut MultiplexedConnection,
        worker_type: &WorkerType,
        limit: usize,
        lapse: Duration,
    ) -> Result<Recovered, BrokerError> {
        let mut recovered = Recovered::default();
        for (name, pending) in self.gone(connection, worker_type, lapse).await? {
            let room = limit - recovered.deliveries.len();
            if pending > 0 && room > 0 {
                let entries = self.pending_of(connection, &name, room).await?;
                let claimed = self.claim(connection, &entries, lapse).await?;
                if !claimed.is_empty() {
                    recovered.deliveries.extend(claimed);
                    recovered.from.push(name.clone());
                }
            }
            // Only tidies up: a user without the right to run scripts loses nothing else.
            if let Err(error) = self.remove_if_done(connection, worker_type, &name).await {
                tracing::debug!(consumer = name, %error, "consumer of a gone worker stays");
            }
        }
        Ok(recovered)
    }

    /// Removes the consumer `name` if it has no heartbeat and nothing pending; says whether it did.
    pub async fn remove_if_done(
        &self,
        connection: &mut MultiplexedConnection,
        worker_type: &WorkerType,
        name: &str,
    ) -> Result<bool, BrokerError> {
        redis::cmd("EVAL")
            .arg(REMOVE_IF_DONE)
            .arg(2)
            .arg(&self.stream)
            .arg(keys::heartbeat(worker_type, &WorkerId::new(name)))
            .arg(&self.group)
            .arg(name)
            .query_async(connection)
            .await
            .map_err(|cause| BrokerError::new(format!("remove consumer `{name}` from `{}`", self.stream), cause))
    }

    /// The other consumers without a heartbeat that have been silent for `lapse`, and how much is pending on each.
    async fn gone(
        &self,
        connection: &mut MultiplexedConnection,
        worker_type: &WorkerType,
        lapse: Duration,
    ) -> Result<Vec<(String, usize)>, BrokerError> {
        let failed = |cause| BrokerError::new(format!("list the workers of `{}`", self.stream), cause);
        let mut command = redis::cmd("XINFO");
        command.arg("CONSUMERS").arg(&self.stream).arg(&self.group);
        let reply: StreamInfoConsumersReply = command.query_async(connection).await.map_err(failed)?;
        let silent = |idle: usize| u128::try_from(idle).unwrap_or(u128::MAX) >= lapse.as_millis();
        let mut others: Vec<_> = reply
            .consumers
            .into_iter()
            .filter(|consumer| consumer.name != self.name && silent(consumer.idle))
            .map(|consumer| (consumer.name, consumer.pending))
            .collect();
        if others.is_empty() {
            return Ok(others);
        }
        let mut pipeline = redis::pipe();
        for (name, _) in &others {
            pipeline.cmd("EXISTS").arg(keys::heartbeat(worker_type, &WorkerId::new(name.as_str())));
        }
        let alive: Vec<bool> = pipeline.query_async(connection).await.map_err(failed)?;
        let mut alive = alive.into_iter();
        others.retain(|_| !alive.next().unwrap_or(true));
        Ok(others)
    }

    /// The oldest `count` entries pending on the consumer `name`.
    async fn pending_of(
        &self,
        connection: &mut MultiplexedConnection,
        name: &str,
        count: usize,
    ) -> Result<Vec<String>, BrokerError> {
        let mut command = redis::cmd("XPENDING");
        command.arg(&self.stream).arg(&self.group).arg("-").arg("+").arg(count).arg(name);
        let reply: StreamPendingCountReply = command
            .query_async(connection)
            .await
            .map_err(|cause| BrokerError::new(format!("list the jobs of `{name}` in `{}`", self.stream), cause))?;
        Ok(reply.ids.into_iter().map(|pending| pending.id).collect())
    }

    async fn claim(
        &self,
        connection: &mut MultiplexedConnection,
        entries: &[String],
        min_idle: Duration,
    ) -> Result<Vec<Delivery>, BrokerError> {
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let failed = |cause| BrokerError::new(format!("claim jobs of `{}`", self.stream), cause);
        // One command for each, as only then a reply without a job tells which entry it is about.
        let mut claims = redis::pipe();
        for entry in entries {
            let claim = claims.cmd("XCLAIM").arg(&self.stream).arg(&self.group).arg(&self.name);
            claim.arg(min_idle.as_millis().to_string()).arg(entry);
        }
        let replies: Vec<Value> = claims.query_async(connection).await.map_err(failed)?;
        let deleted: Vec<&String> =
            entries.iter().zip(&replies).filter(|(_, reply)| is_deleted(reply)).map(|(entry, _)| entry).collect();
        if !deleted.is_empty() {
            let mut forget = redis::cmd("XACK");
            forget.arg(&self.stream).arg(&self.group).arg(deleted);
            forget.exec_async(connection).await.map_err(failed)?;
        }
        Ok(replies.into_iter().flat_map(deliveries).collect())
    }
}

/// Whether the claimed entry is no longer in the stream. Redis 7 then drops it from what is pending and answers nothing;
/// before, it stays pending on whoever claimed it, and the answer is nil in the place of the entry.
fn is_deleted(claimed: &Value) -> bool {
    matches!(claimed, Value::Array(entries) if entries.first() == Some(&Value::Nil))
}
