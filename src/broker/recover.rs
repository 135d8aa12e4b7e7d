//! Finds jobs that were delivered to nobody who still works on them: our own that got lost on the way, those of workers
//! that are gone, and those whose claim has run out. A worker is gone when its heartbeat key is; a claim runs out only if
//! the worker's heartbeat says after what time. Nobody else's jobs are ever touched.

use std::{collections::HashSet, time::Duration};

use redis::{
    FromRedisValue, Value,
    streams::{StreamInfoConsumersReply, StreamPendingCountReply, StreamPendingId},
};

use super::{BrokerError, Consumer, Delivery, delivery::claimed};
use crate::connection::Connection;
use crate::model::{WorkerId, WorkerType, keys};

/// Removes a consumer if, in this very moment, it has nothing pending. One atomic step: removing a consumer throws away what
/// is pending on it, and its worker may have come back since we looked for its heartbeat. If it has, and waits for jobs,
/// its next read makes the consumer again.
const REMOVE_IF_DONE: &str = "\
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) > 0 then return 0 end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1";

/// Jobs taken over from other workers.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// The jobs, now delivered to us.
    pub deliveries: Vec<Delivery>,
    /// Whose they were.
    pub from: Vec<String>,
}

/// Whether lost jobs may have been begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// By an earlier process of our name: that was an attempt.
    Maybe,
    /// They were delivered into a connection that broke: no attempt.
    Never,
}

/// Another consumer of the group.
struct Other {
    name: String,
    /// Entries delivered to it and not acknowledged.
    pending: usize,
    /// Since it last asked for jobs.
    idle: Duration,
    /// Whether it has a heartbeat.
    alive: bool,
    /// After what time its claims run out, if its heartbeat says so.
    claim: Option<Duration>,
}

/// An entry that may be claimed, and how often it has been delivered.
struct Candidate {
    entry: String,
    delivered: u32,
}

impl Consumer {
    /// Up to `limit` jobs that are pending on this consumer and not in `in_hand`: left by an earlier process of the same
    /// name, or delivered into a connection that broke.
    pub async fn recover_own(
        &self,
        connection: &mut Connection,
        in_hand: &HashSet<String>,
        limit: usize,
        begun: Begun,
    ) -> Result<Vec<Delivery>, BrokerError> {
        let mut lost = self.pending_of(connection, &self.name, Duration::ZERO, in_hand.len() + limit).await?;
        lost.retain(|pending| !in_hand.contains(&pending.entry));
        lost.truncate(limit);
        if begun == Begun::Never {
            for pending in &mut lost {
                pending.delivered = pending.delivered.saturating_sub(1);
            }
        }
        self.claim(connection, &lost, Duration::ZERO).await
    }

    /// Takes over up to `limit` jobs of workers of `worker_type` that are gone or have let their claims run out, and removes
    /// consumers of workers that are gone and have none left. `lapse` is the time after which a silent worker counts as
    /// gone; a job must have been idle for that long. That also keeps two workers from claiming the same job.
    pub async fn recover_from_gone(
        &self,
        connection: &mut Connection,
        worker_type: &WorkerType,
        limit: usize,
        lapse: Duration,
    ) -> Result<Recovered, BrokerError> {
        let mut recovered = Recovered::default();
        for other in self.others(connection, worker_type).await? {
            let gone = !other.alive && other.idle >= lapse;
            let room = limit - recovered.deliveries.len();
            let min_idle = if gone { Some(lapse) } else { other.claim.filter(|_| other.alive) };
            if let Some(min_idle) = min_idle.filter(|_| other.pending > 0 && room > 0) {
                let entries = self.pending_of(connection, &other.name, min_idle, room).await?;
                let claimed = self.claim(connection, &entries, min_idle).await?;
                if !claimed.is_empty() {
                    recovered.deliveries.extend(claimed);
                    recovered.from.push(other.name.clone());
                }
            }
            // Only tidies up: a user without the right to run scripts loses nothing else.
            if gone && let Err(error) = self.remove_if_done(connection, worker_type, &other.name).await {
                tracing::debug!(consumer = other.name, %error, "consumer of a gone worker stays");
            }
        }
        Ok(recovered)
    }

    /// Removes the consumer `name` if it has no heartbeat and nothing pending; says whether it did.
    pub async fn remove_if_done(
        &self,
        connection: &mut Connection,
        worker_type: &WorkerType,
        name: &str,
    ) -> Result<bool, BrokerError> {
        let heartbeat = keys::heartbeat(worker_type, &WorkerId::new(name));
        let failed = |cause| self.failed(&format!("remove consumer `{name}`"), cause);
        if redis::cmd("EXISTS").arg(heartbeat).query_async(connection).await.map_err(failed)? {
            return Ok(false);
        }
        redis::cmd("EVAL")
            .arg(REMOVE_IF_DONE)
            .arg(1)
            .arg(&self.stream)
            .arg(&self.group)
            .arg(name)
            .query_async(connection)
            .await
            .map_err(failed)
    }

    /// The group's other consumers and what their heartbeats say.
    async fn others(&self, connection: &mut Connection, worker_type: &WorkerType) -> Result<Vec<Other>, BrokerError> {
        let failed = |cause| self.failed("list the workers", cause);
        let mut command = redis::cmd("XINFO");
        command.arg("CONSUMERS").arg(&self.stream).arg(&self.group);
        let mut reply: StreamInfoConsumersReply = command.query_async(connection).await.map_err(failed)?;
        reply.consumers.retain(|consumer| consumer.name != self.name);
        if reply.consumers.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = redis::pipe();
        for consumer in &reply.consumers {
            let key = keys::heartbeat(worker_type, &WorkerId::new(consumer.name.as_str()));
            pipeline.cmd("EXISTS").arg(&key);
            pipeline.cmd("HGET").arg(&key).arg(keys::CLAIM_FIELD);
        }
        let heartbeats: Vec<Value> = pipeline.query_async(connection).await.map_err(failed)?;
        let heartbeats = heartbeats.chunks_exact(2).map(|reply| (reply[0] != Value::Int(0), claim_time(&reply[1])));
        let others = reply.consumers.into_iter().zip(heartbeats).map(|(consumer, (alive, claim))| Other {
            name: consumer.name,
            pending: consumer.pending,
            idle: Duration::from_millis(consumer.idle as u64),
            alive,
            claim,
        });
        Ok(others.collect())
    }

    /// The oldest `count` entries pending on the consumer `name` that have been idle for `min_idle`.
    async fn pending_of(
        &self,
        connection: &mut Connection,
        name: &str,
        min_idle: Duration,
        count: usize,
    ) -> Result<Vec<Candidate>, BrokerError> {
        let mut command = redis::cmd("XPENDING");
        command.arg(&self.stream).arg(&self.group).arg("IDLE").arg(min_idle.as_millis().to_string());
        command.arg("-").arg("+").arg(count).arg(name);
        let reply: StreamPendingCountReply = command
            .query_async(connection)
            .await
            .map_err(|cause| self.failed(&format!("list the jobs of `{name}`"), cause))?;
        let candidate = |pending: StreamPendingId| Candidate {
            entry: pending.id,
            delivered: u32::try_from(pending.times_delivered).unwrap_or(u32::MAX),
        };
        Ok(reply.ids.into_iter().map(candidate).collect())
    }

    async fn claim(
        &self,
        connection: &mut Connection,
        candidates: &[Candidate],
        min_idle: Duration,
    ) -> Result<Vec<Delivery>, BrokerError> {
        if candidates.is_empty() {
            return Ok(Vec::new());
        }
        let failed = |cause| self.failed("claim jobs", cause);
        // One command for each, as only then a reply without a job tells which entry it is about.
        let mut claims = redis::pipe();
        for Candidate { entry, delivered } in candidates {
            let claim = claims.cmd("XCLAIM").arg(&self.stream).arg(&self.group).arg(&self.name);
            claim.arg(min_idle.as_millis().to_string()).arg(entry);
            claim.arg("RETRYCOUNT").arg(delivered.saturating_add(1));
        }
        let replies: Vec<Value> = claims.query_async(connection).await.map_err(failed)?;
        let deleted: Vec<&String> = candidates
            .iter()
            .zip(&replies)
            .filter(|(_, reply)| is_deleted(reply))
            .map(|(candidate, _)| &candidate.entry)
            .collect();
        if !deleted.is_empty() {
            let mut forget = redis::cmd("XACK");
            forget.arg(&self.stream).arg(&self.group).arg(deleted);
            forget.exec_async(connection).await.map_err(failed)?;
        }
        let stream = self.stream.as_str().into();
        let admission = self.admission(&stream);
        let of = |(reply, candidate): (Value, &Candidate)| claimed(reply, candidate.delivered, admission);
        Ok(replies.into_iter().zip(candidates).flat_map(of).collect())
    }
}

/// The claim time in a heartbeat: whole seconds, at least one. Anything else is none, and then the claim never runs out.
fn claim_time(reply: &Value) -> Option<Duration> {
    let seconds: u64 = String::from_redis_value_ref(reply).ok()?.parse().ok()?;
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

/// Whether the claimed entry is no longer in the stream. Redis 7 then drops it from what is pending and answers nothing;
/// before, it stays pending on whoever claimed it, and the answer is nil in the place of the entry.
fn is_deleted(claimed: &Value) -> bool {
    matches!(claimed, Value::Array(entries) if entries.first() == Some(&Value::Nil))
}
