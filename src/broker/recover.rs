//! Finds jobs that no worker is working on although they were delivered: own ones that were lost on the way, those of
//! workers that are gone, and those whose claim has expired. A worker is gone when its heartbeat key is; a claim
//! expires only if the worker's heartbeat says after what time. No other jobs are touched.
//!
//! Silence alone proves nothing: the caller must have written its own heartbeats for a whole lapse. The work of one
//! call is bounded, however many consumers and pending entries a group has.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use redis::{FromRedisValue, Value};

use super::{BrokerError, Consumer, Delivery, delivery::claimed};
use crate::connection::Connection;
use crate::model::{WorkerId, WorkerType, keys};

/// Pending entries of one read.
const PAGE: usize = 100;
/// Maximum pages of one call; the next call continues after them.
const MAX_PAGES: usize = 10;

/// Jobs claimed from other workers.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// The jobs, now delivered to this consumer.
    pub deliveries: Vec<Delivery>,
    /// Consumers that held them.
    pub from: Vec<String>,
    /// Last entry that was examined, for the next call; `None` if there are no more after it.
    pub cursor: Option<String>,
}

/// Whether lost jobs may have been started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// An earlier process of the same name may have started them: that was an attempt.
    Maybe,
    /// They were delivered into a connection that broke: that was not an attempt.
    Never,
}

/// What is known about the worker behind a consumer.
#[derive(Clone, Copy, Debug)]
enum Owner {
    /// The worker has no heartbeat.
    Gone,
    /// The worker has a heartbeat, and its claims expire after this time, if they do.
    Alive { claim: Option<Duration> },
}

impl Owner {
    /// Returns how long an entry must have been idle before it may be claimed from this owner; `None` if it may not.
    fn min_idle(self, lapse: Duration) -> Option<Duration> {
        match self {
            Self::Gone => Some(lapse),
            Self::Alive { claim } => claim,
        }
    }
}

/// An entry that is pending on a consumer. The name of a consumer can be any bytes.
struct Pending {
    entry: String,
    consumer: Vec<u8>,
    idle: Duration,
    delivered: u32,
}

/// An entry that may be claimed.
struct Candidate {
    entry: String,
    /// Number of deliveries.
    delivered: u32,
    /// Minimum idle time for the claim. Keeps two workers from claiming the same entry.
    min_idle: Duration,
}

impl Consumer {
    /// Returns up to `limit` jobs that are pending on this consumer and not in `in_flight`: left by an earlier process
    /// of the same name, or delivered into a connection that broke.
    pub async fn recover_own(
        &self,
        connection: &mut Connection,
        in_flight: &HashSet<String>,
        limit: usize,
        begun: Begun,
    ) -> Result<Vec<Delivery>, BrokerError> {
        let mut command = redis::cmd("XPENDING");
        command.arg(&self.stream).arg(&self.group).arg("-").arg("+").arg(in_flight.len() + limit).arg(&self.name);
        let reply: Value = command
            .query_async(connection)
            .await
            .map_err(|cause| self.failed(&format!("list the jobs of `{}`", self.name), cause))?;
        let lost = pending(reply).into_iter().filter(|pending| !in_flight.contains(&pending.entry)).take(limit);
        let lost: Vec<Candidate> = lost
            .map(|pending| Candidate {
                entry: pending.entry,
                delivered: pending.delivered.saturating_sub(u32::from(begun == Begun::Never)),
                min_idle: Duration::ZERO,
            })
            .collect();
        self.claim(connection, &lost).await
    }

    /// Claims up to `limit` jobs of workers of `worker_type` that are gone or have let their claims expire. `lapse` is
    /// the time after which a silent worker counts as gone; a job must have been idle for that long. Examines a bounded
    /// number of entries after `cursor`, which the previous call returned. `may_judge` is asked after each look at the
    /// heartbeats whether one that is missing proves that its worker is gone: this process, or the machine, may have
    /// stood still since the search began.
    pub async fn recover_from_gone(
        &self,
        connection: &mut Connection,
        worker_type: &WorkerType,
        limit: usize,
        lapse: Duration,
        cursor: Option<String>,
        may_judge: impl Fn() -> bool,
    ) -> Result<Recovered, BrokerError> {
        let mut recovered = Recovered { cursor, ..Recovered::default() };
        for _ in 0..MAX_PAGES {
            let page = self.idle_entries(connection, recovered.cursor.as_deref(), lapse).await?;
            let is_last = page.len() < PAGE;
            let room = limit - recovered.deliveries.len();
            let owners = self.owners(connection, worker_type, &page).await?;
            let (candidates, from, seen) = candidates(page, &owners, may_judge(), lapse, room);
            let claimed = self.claim(connection, &candidates).await?;
            if !claimed.is_empty() {
                recovered.from.extend(from);
            }
            recovered.deliveries.extend(claimed);
            if recovered.deliveries.len() >= limit {
                recovered.cursor = seen;
                break;
            }
            recovered.cursor = seen.filter(|_| !is_last);
            if is_last {
                break;
            }
        }
        recovered.from.sort();
        recovered.from.dedup();
        Ok(recovered)
    }

    /// Returns the oldest entries of the group after `cursor` that have been idle for `min_idle`.
    async fn idle_entries(
        &self,
        connection: &mut Connection,
        cursor: Option<&str>,
        min_idle: Duration,
    ) -> Result<Vec<Pending>, BrokerError> {
        let start = cursor.map_or_else(|| "-".to_owned(), |last| format!("({last}"));
        let mut command = redis::cmd("XPENDING");
        command.arg(&self.stream).arg(&self.group).arg("IDLE").arg(min_idle.as_millis().to_string());
        command.arg(start).arg("+").arg(PAGE);
        let reply = command.query_async(connection).await;
        reply.map(pending).map_err(|cause| self.failed("list jobs that nobody renews", cause))
    }

    /// Reads the heartbeats of the other consumers of `page`.
    async fn owners(
        &self,
        connection: &mut Connection,
        worker_type: &WorkerType,
        page: &[Pending],
    ) -> Result<BTreeMap<Vec<u8>, Owner>, BrokerError> {
        let names: HashSet<&[u8]> = page.iter().map(|pending| &*pending.consumer).collect();
        let names: Vec<&[u8]> = names.into_iter().filter(|name| *name != self.name.as_bytes()).collect();
        let heartbeats = self.heartbeats(connection, worker_type, &names).await?;
        Ok(names.into_iter().map(<[u8]>::to_vec).zip(heartbeats).collect())
    }

    /// Reads the heartbeats of workers.
    async fn heartbeats(
        &self,
        connection: &mut Connection,
        worker_type: &WorkerType,
        names: &[&[u8]],
    ) -> Result<Vec<Owner>, BrokerError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = redis::pipe();
        for name in names {
            let key = [keys::heartbeat(worker_type, &WorkerId::new("")).as_bytes(), name].concat();
            pipeline.cmd("EXISTS").arg(&key);
            pipeline.cmd("HGET").arg(&key).arg(keys::CLAIM_FIELD);
        }
        let replies: Vec<Value> =
            pipeline.query_async(connection).await.map_err(|cause| self.failed("look for the workers", cause))?;
        let owner = |reply: &[Value]| match reply[0] {
            Value::Int(0) => Owner::Gone,
            _ => Owner::Alive { claim: claim_time(&reply[1]) },
        };
        Ok(replies.chunks_exact(2).map(owner).collect())
    }

    async fn claim(&self, connection: &mut Connection, candidates: &[Candidate]) -> Result<Vec<Delivery>, BrokerError> {
        if candidates.is_empty() {
            return Ok(Vec::new());
        }
        let failed = |cause| self.failed("claim jobs", cause);
        // One command for each entry, because only then a reply without a job shows which entry it is about.
        let mut claims = redis::pipe();
        for Candidate { entry, delivered, min_idle } in candidates {
            let claim = claims.cmd("XCLAIM").arg(&self.stream).arg(&self.group).arg(&self.name);
            claim.arg(min_idle.as_millis().to_string()).arg(entry);
            claim.arg("RETRYCOUNT").arg(delivered.saturating_add(1));
        }
        let asked = Instant::now();
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
        let of = |(reply, candidate): (Value, &Candidate)| claimed(reply, candidate.delivered, asked, admission);
        Ok(replies.into_iter().zip(candidates).flat_map(of).collect())
    }
}

/// Returns the entries of `page` that may be claimed, at most `room`, their consumers, and the last entry that was
/// examined. Unless this worker `may_judge`, no owner counts as gone.
fn candidates(
    page: Vec<Pending>,
    owners: &BTreeMap<Vec<u8>, Owner>,
    may_judge: bool,
    lapse: Duration,
    room: usize,
) -> (Vec<Candidate>, Vec<String>, Option<String>) {
    let (mut candidates, mut from, mut seen) = (Vec::new(), Vec::new(), None);
    for pending in page {
        if candidates.len() == room {
            break;
        }
        let owner = owners.get(&pending.consumer).filter(|owner| may_judge || !matches!(owner, Owner::Gone));
        let min_idle = owner.and_then(|owner| owner.min_idle(lapse));
        seen = Some(pending.entry.clone());
        if let Some(min_idle) = min_idle.filter(|min_idle| pending.idle >= *min_idle) {
            from.push(String::from_utf8_lossy(&pending.consumer).into_owned());
            candidates.push(Candidate { entry: pending.entry, delivered: pending.delivered, min_idle });
        }
    }
    (candidates, from, seen)
}

/// Returns the claim time in a heartbeat: whole seconds, at least one. For anything else `None`, and then the claim
/// never expires.
fn claim_time(reply: &Value) -> Option<Duration> {
    let seconds: u64 = String::from_redis_value_ref(reply).ok()?.parse().ok()?;
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

/// Returns whether the claimed entry is no longer in the stream. Redis 7 then drops it from the pending entries and
/// returns nothing; earlier versions keep it pending on the claiming consumer, and return nil in the place of the
/// entry.
fn is_deleted(claimed: &Value) -> bool {
    matches!(claimed, Value::Array(entries) if entries.first() == Some(&Value::Nil))
}

/// Parses `[[id, consumer, idle in ms, deliveries], …]`. By hand, because a consumer's name need not be UTF-8.
fn pending(reply: Value) -> Vec<Pending> {
    let Value::Array(rows) = reply else { return Vec::new() };
    rows.into_iter().filter_map(row).collect()
}

fn row(row: Value) -> Option<Pending> {
    let Value::Array(row) = row else { return None };
    let [Value::BulkString(entry), Value::BulkString(consumer), Value::Int(idle), Value::Int(delivered)] =
        <[Value; 4]>::try_from(row).ok()?
    else {
        return None;
    };
    Some(Pending {
        entry: String::from_utf8(entry).ok()?,
        consumer,
        // Negative if a clock was set back.
        idle: Duration::from_millis(u64::try_from(idle).unwrap_or(0)),
        delivered: u32::try_from(delivered).unwrap_or(u32::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_whatever_the_consumer_is_called() {
        let text = |bytes: &[u8]| Value::BulkString(bytes.to_vec());
        let good = Value::Array(vec![text(b"1-0"), text(b"\xfa\xff"), Value::Int(-5), Value::Int(2)]);
        let bad = Value::Array(vec![text(b"1-0"), Value::Nil, Value::Int(1), Value::Int(2)]);
        let rows = pending(Value::Array(vec![bad, good, Value::Nil]));
        let [row] = rows.as_slice() else { panic!("one row is whole") };
        assert_eq!(
            (&*row.entry, &*row.consumer, row.idle, row.delivered),
            ("1-0", &b"\xfa\xff"[..], Duration::ZERO, 2)
        );
    }

    #[test]
    fn who_may_not_judge_takes_nothing_from_a_worker_without_a_heartbeat() {
        let lapse = Duration::from_secs(15);
        let owners = BTreeMap::from([
            (b"gone".to_vec(), Owner::Gone),
            (b"late".to_vec(), Owner::Alive { claim: Some(Duration::from_secs(60)) }),
        ]);
        let of = |consumer: &str| Pending {
            entry: consumer.to_owned(),
            consumer: consumer.into(),
            idle: Duration::from_secs(90),
            delivered: 1,
        };
        let taken = |may_judge| candidates(vec![of("gone"), of("late")], &owners, may_judge, lapse, 9).1;
        assert_eq!((taken(true), taken(false)), (vec!["gone".to_owned(), "late".to_owned()], vec!["late".to_owned()]));
    }

    #[test]
    fn a_living_owner_loses_a_job_only_if_it_says_when_its_claims_run_out() {
        let (lapse, claim) = (Duration::from_secs(15), Duration::from_secs(60));
        assert_eq!(Owner::Gone.min_idle(lapse), Some(lapse));
        assert_eq!(Owner::Alive { claim: Some(claim) }.min_idle(lapse), Some(claim));
        assert_eq!(Owner::Alive { claim: None }.min_idle(lapse), None);
    }
}
