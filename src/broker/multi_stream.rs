//! Takes jobs from several streams, for a worker that serves all of them: never more than it has room for, and evenly,
//! so that no stream starves another. On a Redis Cluster the streams of one call must be in one slot.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use redis::{FromRedisValue, RedisError, Value, make_extension_error};

use super::{
    BrokerError, Consumer, Job,
    delivery::{self, Delivery, streams},
};
use crate::connection::Connection;

const TAKE: &str = include_str!("lua/take.lua");
const REREAD: &str = include_str!("lua/reread.lua");
const GIVE_BACK: &str = include_str!("lua/give_back.lua");
/// Maximum streams in one script: a thousand empty ones take the server about a millisecond.
const STREAMS_AT_ONCE: usize = 1_000;

/// Result of taking jobs from several streams.
#[derive(Debug, Default)]
pub struct Take {
    /// The jobs, in the order of the streams.
    pub deliveries: Vec<Delivery>,
    /// Streams that can't be read, and why.
    pub broken: Vec<(Arc<str>, BrokerError)>,
}

impl Consumer {
    /// Takes up to `count` new jobs from `streams`. This consumer is a member of the group of the same name on each of
    /// them. The first stream has the first turn. Does not wait.
    ///
    /// # Errors
    /// If no stream can be asked; jobs may have been delivered nevertheless. A stream that can't be read is part of the
    /// result.
    pub async fn take(
        &self,
        connection: &mut Connection,
        streams: &[Arc<str>],
        count: usize,
    ) -> Result<Take, BrokerError> {
        let mut take = Take::default();
        for streams in streams.chunks(STREAMS_AT_ONCE) {
            let left = count - take.deliveries.len();
            if left == 0 {
                break;
            }
            let mut command = redis::cmd("EVAL");
            command.arg(TAKE).arg(streams.len());
            for stream in streams {
                command.arg(&**stream);
            }
            command.arg(&self.group).arg(&self.name).arg(left);
            let asked = Instant::now();
            let reply: Vec<(usize, Value)> =
                command.query_async(connection).await.map_err(|cause| of_all(streams, cause))?;
            for (number, found) in reply {
                let Some(stream) = number.checked_sub(1).and_then(|at| streams.get(at)) else { continue };
                match found {
                    Value::Array(_) => take.deliveries.extend(delivery::first(found, asked, self.admission(stream))),
                    refusal => {
                        take.broken.push((stream.clone(), self.on(stream).failed("read jobs", refused(refusal))));
                    }
                }
            }
        }
        Ok(take)
    }

    /// Waits for a new job on any of `streams` for at most `block`, and takes it. If several arrive in the same moment,
    /// the result may have one of each: [give back](Self::give_back) those for which there is no room. The response
    /// timeout of `connection` must not be shorter than `block`.
    ///
    /// # Errors
    /// If one of the streams can't be read: [`Consumer::take`] tells which one.
    pub async fn wait(
        &self,
        connection: &mut Connection,
        all: &[Arc<str>],
        block: Duration,
    ) -> Result<Vec<Delivery>, BrokerError> {
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(&self.group).arg(&self.name).arg("COUNT").arg(1);
        command.arg("BLOCK").arg(block.as_millis().max(1).to_string()).arg("STREAMS");
        for stream in all {
            command.arg(&**stream);
        }
        for _ in all {
            command.arg(">");
        }
        let asked = Instant::now();
        let reply: Value = command.query_async(connection).await.map_err(|cause| of_all(all, cause))?;
        let mut deliveries = Vec::new();
        for (stream, entries) in streams(reply) {
            let stream: Arc<str> = String::from_redis_value(stream).unwrap_or_default().into();
            deliveries.extend(delivery::first(entries, asked, self.admission(&stream)));
        }
        Ok(deliveries)
    }

    /// Gives back a job that was delivered and not started: it is on its stream again as if it were new, behind the
    /// others, and this delivery was not an attempt. Returns `false` if the entry is no longer this consumer's, or does
    /// not hold a job.
    ///
    /// # Errors
    /// If Redis did not carry it out; after a lost connection that is uncertain.
    pub async fn give_back(&self, connection: &mut Connection, delivery: &Delivery) -> Result<bool, BrokerError> {
        let Ok(job) = &delivery.job else { return Ok(false) };
        self.requeue(connection, delivery, Job::clone(job)).await
    }

    /// Gives back a job that was started and is not finished, because its worker leaves. That was an interruption and
    /// not an attempt. Returns `false` if the entry is no longer this consumer's, or does not hold a job.
    ///
    /// # Errors
    /// If Redis did not carry it out; after a lost connection that is uncertain.
    pub async fn interrupt(&self, connection: &mut Connection, entry: &str, number: u32) -> Result<bool, BrokerError> {
        let mut command = redis::cmd("EVAL");
        command.arg(REREAD).arg(1).arg(&self.stream).arg(&self.group).arg(&self.name).arg(entry).arg(number);
        let asked = Instant::now();
        let reply: Value =
            command.query_async(connection).await.map_err(|cause| self.failed("read a job again", cause))?;
        let stream = self.stream.as_str().into();
        let read = delivery::claimed(reply, number.saturating_sub(1), asked, self.admission(&stream)).pop();
        let Some(delivery) = read else { return Ok(false) };
        let Some(job) = delivery.envelope(self.policy.job_max_bytes()) else { return Ok(false) };
        let attempt = delivery.attempts.saturating_sub(1);
        let job = Job { attempt, interruptions: delivery.interruptions.saturating_add(1), ..job };
        self.requeue(connection, &delivery, job).await
    }

    async fn requeue(
        &self,
        connection: &mut Connection,
        delivery: &Delivery,
        mut job: Job,
    ) -> Result<bool, BrokerError> {
        let for_all = job.to_json();
        job.group = Some(self.group.clone());
        let mut command = redis::cmd("EVAL");
        command.arg(GIVE_BACK).arg(1).arg(&*delivery.stream).arg(&self.group).arg(&self.name).arg(&delivery.entry);
        command.arg(delivery.number).arg(for_all).arg(job.to_json()).arg(&self.policy.channel);
        let given = command.query_async(connection).await;
        given.map_err(|cause| self.on(&delivery.stream).failed("give back a job", cause))
    }

    /// Creates the group if the stream exists; returns whether it exists. Unlike [`Consumer::ensure_group`] it creates
    /// no stream.
    ///
    /// # Errors
    /// If the key is not a stream, or Redis did not carry it out.
    pub async fn join_group(&self, connection: &mut Connection) -> Result<bool, BrokerError> {
        let mut command = redis::cmd("XGROUP");
        command.arg("CREATE").arg(&self.stream).arg(&self.group).arg(0);
        match command.exec_async(connection).await {
            Err(cause) if cause.code() == Some("BUSYGROUP") => Ok(true),
            Err(cause) if cause.to_string().contains("requires the key to exist") => Ok(false),
            made => made.map(|()| true).map_err(|cause| self.failed(&format!("create group `{}`", self.group), cause)),
        }
    }

    /// Returns those of `streams` with pending entries. A stream that can't be asked counts as having none.
    ///
    /// # Errors
    /// If no stream can be asked.
    pub async fn unsettled(
        &self,
        connection: &mut Connection,
        streams: &[Arc<str>],
    ) -> Result<Vec<Arc<str>>, BrokerError> {
        let mut pipeline = redis::pipe();
        for stream in streams {
            pipeline.cmd("XPENDING").arg(&**stream).arg(&self.group).arg("-").arg("+").arg(1);
        }
        let replies = connection.each(&pipeline).await.map_err(|cause| of_all(streams, cause))?;
        let has_some = |reply: &Value| matches!(reply, Value::Array(all) if !all.is_empty());
        let unsettled = replies.iter().zip(streams).filter(|(reply, _)| has_some(reply));
        Ok(unsettled.map(|(_, stream)| stream.clone()).collect())
    }
}

fn of_all(streams: &[Arc<str>], cause: RedisError) -> BrokerError {
    let first = streams.first().map_or("", |stream| stream);
    let others = match streams.len() {
        0 | 1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    BrokerError::new(format!("read jobs of `{first}`{others}"), cause)
}

/// Returns the refusal that a script passed on as text: the code, and words.
fn refused(text: Value) -> RedisError {
    let text = String::from_redis_value(text).unwrap_or_default();
    let text = text.trim_start_matches('-');
    let (code, words) = text.split_once(' ').unwrap_or((text, ""));
    make_extension_error(code.to_owned(), Some(words.to_owned()))
}
