//! Cancels jobs. A waiting job stays on its stream, because deleting an undelivered entry would make the lag unknown:
//! it is marked, and the worker that takes it acknowledges it unread. A delayed job is removed. A running one is
//! marked, and its worker is told. Whoever waits for the result is told once: by the canceller, or by the worker that
//! stops the job.
//!
//! The marks of a stream are a hash, `{stream}:cancelled`. A worker reads it after a delivery, and a canceller marks a
//! waiting job only while it is not delivered, in one step; so the worker sees the mark, or the canceller the worker.

use std::time::Duration;

use redis::Value;

use super::{
    BrokerError, Consumer, Delivery, JobResult, Place, Refusal,
    search::{Found, find},
};
use crate::{
    connection::Connection,
    model::{WorkerId, keys},
};

const CANCEL: &str = include_str!("lua/cancel.lua");
const MARK: &str = include_str!("lua/mark.lua");
const WITHDRAW: &str = include_str!("lua/withdraw.lua");
/// Message on a worker's control channel: one of its jobs may be cancelled.
pub const CANCELLED: &str = "cancel";
/// How long a mark lasts after the last job of its stream was cancelled: longer than jobs wait.
const MARK_TTL: Duration = Duration::from_secs(30 * 24 * 3_600);
/// Fields of one HMGET.
const SLICE: usize = 500;

/// Result of one look at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Waiting,
    Delayed,
    /// A worker holds the job; it was told.
    Held {
        worker: String,
        entry: String,
    },
    Already,
    /// The place had the job when it was looked for, and no longer: it moved or ended.
    Moved,
    /// The place does not have the job.
    Gone,
}

/// Cancels the job in one place, if it is there.
///
/// # Errors
/// If Redis did not carry it out; doing it again is harmless.
pub(super) async fn step(
    connection: &mut Connection,
    place: &Place,
    result_ttl: Duration,
    id: &str,
) -> Result<Step, BrokerError> {
    let mut nothing = Step::Gone;
    for found in find(connection, place, id).await?.into_iter().rev() {
        let step = cancel(connection, place, result_ttl, &found).await?;
        if let Step::Held { worker, .. } = &step {
            let channel = keys::control(&place.workers(), &WorkerId::new(worker.as_str()));
            let told = redis::cmd("PUBLISH").arg(channel).arg(CANCELLED).exec_async(connection).await;
            if let Err(error) = told {
                tracing::warn!(%worker, %error, "a worker can't be told of a cancelled job; it looks at each heartbeat");
            }
        }
        if step != Step::Moved {
            return Ok(step);
        }
        nothing = Step::Moved;
    }
    Ok(nothing)
}

async fn cancel(
    connection: &mut Connection,
    place: &Place,
    result_ttl: Duration,
    found: &Found,
) -> Result<Step, BrokerError> {
    let (job, entry, json) = match found {
        Found::Delayed { job, json, .. } => (job, "", json.as_slice()),
        Found::Entry { job, entry } => (job, entry.as_str(), &[][..]),
    };
    let error = JobResult::new(&job.id, Err("cancelled before it began".to_owned())).to_json();
    let ttl = job.result_ttl().unwrap_or(result_ttl).as_secs();
    // On a cluster the list may be on another node than the stream: then the answer is a step of its own.
    let apart = connection.is_cluster();
    let waiter = job.reply_to.as_deref();
    let (layout, here) = (connection.layout(), waiter.filter(|_| !apart));
    let mut command = redis::cmd("EVAL");
    command.arg(CANCEL).arg(4).arg(&place.stream).arg(layout.delayed(&place.stream));
    command.arg(layout.cancelled(&place.stream)).arg(here.unwrap_or(&place.stream));
    command.arg(&place.group).arg(&job.id).arg(entry).arg(json).arg(here.map_or("", |_| &error)).arg(ttl);
    command.arg(MARK_TTL.as_millis().to_string());
    let reply: Vec<String> =
        command.query_async(connection).await.map_err(|cause| failed("cancel a job", place, cause))?;
    let held = |worker: &String| Step::Held { worker: worker.clone(), entry: entry.to_owned() };
    let step = match (reply.first().map(String::as_str), reply.get(1)) {
        (Some("delayed"), _) => Step::Delayed,
        (Some("waiting"), _) => Step::Waiting,
        (Some("running"), Some(worker)) => held(worker),
        (Some("already"), Some(worker)) if !worker.is_empty() => held(worker),
        (Some("already"), _) => Step::Already,
        _ => Step::Moved,
    };
    if matches!(step, Step::Delayed | Step::Waiting) {
        if let (true, Some(key)) = (apart, waiter) {
            answer(connection, key, &error, ttl).await;
        }
        tracing::info!(stream = place.stream, job = job.id, "job cancelled before it began");
    }
    Ok(step)
}

async fn answer(connection: &mut Connection, key: &str, json: &str, ttl: u64) {
    let mut push = redis::pipe();
    push.atomic().cmd("LPUSH").arg(key).arg(json).ignore().cmd("EXPIRE").arg(key).arg(ttl).ignore();
    if let Err(error) = push.exec_async(connection).await {
        tracing::warn!(key, %error, "the publisher waiting for a cancelled job could not be notified");
    }
}

/// Returns whether a group still holds the entry.
pub(super) async fn is_held(connection: &mut Connection, place: &Place, entry: &str) -> Result<bool, BrokerError> {
    let mut pending = redis::cmd("XPENDING");
    pending.arg(&place.stream).arg(&place.group).arg(entry).arg(entry).arg(1);
    let rows: Vec<Value> =
        pending.query_async(connection).await.map_err(|cause| failed("look at a job", place, cause))?;
    Ok(!rows.is_empty())
}

/// Returns whether a worker has stopped the marked job, rather than finished it or given it back.
pub(super) async fn was_stopped(connection: &mut Connection, place: &Place, id: &str) -> Result<bool, BrokerError> {
    let mut get = redis::cmd("HGET");
    get.arg(connection.layout().cancelled(&place.stream)).arg(id);
    let mark: Option<String> =
        get.query_async(connection).await.map_err(|cause| failed("look at a job", place, cause))?;
    Ok(mark.is_none_or(|mark| mark == "told"))
}

/// Marks a job that moves, so that it neither begins nor is retried again; leaves a mark that it has.
pub(super) async fn mark(connection: &mut Connection, place: &Place, id: &str) -> Result<(), BrokerError> {
    let mut mark = redis::cmd("EVAL");
    mark.arg(MARK)
        .arg(1)
        .arg(connection.layout().cancelled(&place.stream))
        .arg(id)
        .arg(MARK_TTL.as_millis().to_string());
    mark.exec_async(connection).await.map_err(|cause| failed("mark a job", place, cause))
}

/// Removes the mark of a job that ended otherwise.
pub(super) async fn unmark(
    connection: &mut Connection,
    place: &Place,
    id: &str,
    entry: Option<&str>,
) -> Result<(), BrokerError> {
    let mut remove = redis::cmd("HDEL");
    remove.arg(connection.layout().cancelled(&place.stream)).arg(id).arg(entry.map(|entry| format!("@{entry}")));
    remove.exec_async(connection).await.map_err(|cause| failed("forget a cancelled job", place, cause))
}

fn failed(doing: &str, place: &Place, cause: redis::RedisError) -> BrokerError {
    BrokerError::new(format!("{doing} of `{}`", place.stream), cause)
}

impl Consumer {
    /// Finds out which of the `deliveries` from this stream are cancelled; each of those has [`Refusal::Cancelled`]
    /// from then on. Must be called after the jobs were delivered.
    ///
    /// # Errors
    /// If Redis can't be asked, for a reason other than this user's rights.
    pub async fn note_cancelled<'a>(
        &self,
        connection: &mut Connection,
        deliveries: impl IntoIterator<Item = &'a mut Delivery>,
    ) -> Result<(), BrokerError> {
        let jobs = deliveries.into_iter().filter_map(|delivery| {
            let id = delivery.job.as_ref().ok()?.id.clone();
            Some((id, delivery))
        });
        let (ids, deliveries): (Vec<String>, Vec<&mut Delivery>) = jobs.unzip();
        for (delivery, marked) in deliveries.into_iter().zip(self.marks(connection, &ids).await?) {
            if marked {
                delivery.job = Err(Refusal::Cancelled);
            }
        }
        Ok(())
    }

    /// Returns which of these entries, in progress here, are to be stopped.
    ///
    /// # Errors
    /// As for [`Consumer::note_cancelled`].
    pub async fn cancelled<'a>(
        &self,
        connection: &mut Connection,
        entries: &'a [(String, u32)],
    ) -> Result<Vec<&'a str>, BrokerError> {
        let fields: Vec<String> = entries.iter().map(|(entry, _)| format!("@{entry}")).collect();
        let marks = self.marks(connection, &fields).await?;
        Ok(entries.iter().zip(marks).filter(|(_, marked)| *marked).map(|((entry, _), _)| entry.as_str()).collect())
    }

    /// Returns for each field of the marks whether it is set. Few streams ever have marks.
    async fn marks(&self, connection: &mut Connection, fields: &[String]) -> Result<Vec<bool>, BrokerError> {
        let key = connection.layout().cancelled(&self.stream);
        let mut marks = Vec::with_capacity(fields.len());
        let asked = async {
            let exists: bool = redis::cmd("EXISTS").arg(&key).query_async(connection).await?;
            for some in fields.chunks(SLICE).filter(|_| exists) {
                let found: Vec<Option<String>> =
                    redis::cmd("HMGET").arg(&key).arg(some).query_async(connection).await?;
                marks.extend(found.iter().map(Option::is_some));
            }
            Ok(())
        };
        if let Err(cause) = asked.await {
            let error = self.failed("look for cancelled jobs", cause);
            if error.is_connection_lost() {
                return Err(error);
            }
            tracing::debug!(%error, "jobs that are cancelled run nevertheless");
        }
        marks.resize(fields.len(), false);
        Ok(marks)
    }

    /// Acknowledges a cancelled job, and tells whoever waits for it if the canceller has not. Does nothing if another
    /// worker has claimed the job.
    ///
    /// # Errors
    /// If Redis did not carry it out; after a lost connection that is uncertain.
    pub(super) async fn withdraw(&self, connection: &mut Connection, delivery: &Delivery) -> Result<(), BrokerError> {
        let Some(job) = delivery.envelope(self.policy.job_max_bytes()) else { return Ok(()) };
        let error = JobResult::new(&job.id, Err("cancelled".to_owned())).to_json();
        let ttl = self.policy.result_ttl_of(Some(&job)).as_secs();
        let apart = connection.is_cluster();
        let here = job.reply_to.as_deref().filter(|_| !apart);
        let mut command = redis::cmd("EVAL");
        command.arg(WITHDRAW).arg(3).arg(&self.stream).arg(connection.layout().cancelled(&self.stream));
        command.arg(here.unwrap_or(&self.stream)).arg(&self.group).arg(&self.name).arg(&delivery.entry);
        command.arg(delivery.number).arg(&job.id).arg(here.map_or("", |_| &error)).arg(ttl);
        let mark: String =
            command.query_async(connection).await.map_err(|cause| self.failed("withdraw a cancelled job", cause))?;
        if let ("untold", true, Some(key)) = (mark.as_str(), apart, &job.reply_to) {
            answer(connection, key, &error, ttl).await;
        }
        Ok(())
    }
}
