//! Finds where a job is that has no result: delayed, waiting behind others, in progress, or a dead letter. Only reads.

use redis::{
    RedisResult, Value,
    streams::{StreamInfoGroup, StreamPendingCountReply},
};

use super::{DeadLetters, dead::DeadEntry, delivery::entries, place::Place};
use crate::connection::Connection;
use crate::model::{StreamId, Timestamp};

/// Maximum up to which jobs ahead are counted.
const MAX_AHEAD: usize = 1_000;
/// Dead letters that are searched, newest first.
const RECENT_DEAD: usize = 200;

/// The job in question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Id of the job.
    pub id: String,
    /// Id of its stream entry; `None` if publishing did not put it on the stream.
    pub entry: Option<String>,
    /// When the job is due, if it was delayed.
    pub due: Option<Timestamp>,
}

/// Returns what is known about the job, in words; `None` if nothing is.
pub(super) async fn of(
    connection: &mut Connection,
    place: &Place,
    subject: &Subject,
    group: Option<&StreamInfoGroup>,
) -> Option<String> {
    let now = Timestamp::wall();
    if let Some(due) = subject.due.filter(|due| *due > now) {
        return Some(format!("the job is delayed: it is due in {:.1} s", due.since(now).as_secs_f64()));
    }
    if let Some(DeadEntry { letter, .. }) = dead_letter(connection, place, &subject.id).await {
        let (key, attempts) = (connection.layout().dead_letters(&place.stream), letter.attempts);
        return Some(format!("the job is a dead letter in `{key}` after {attempts} attempts: {}", letter.error));
    }
    let (entry, group) = (subject.entry.as_ref()?, group?);
    if let Ok(Some(held)) = held(connection, place, entry).await {
        return Some(held);
    }
    if StreamId::parse(entry) > StreamId::parse(&group.last_delivered_id) {
        let ahead = ahead(connection, place, entry, &group.last_delivered_id).await.ok()?;
        let ahead = if ahead < MAX_AHEAD { ahead.to_string() } else { format!("{MAX_AHEAD} or more") };
        return Some(format!("the job waits, {ahead} are ahead of it"));
    }
    let set_aside = aside(connection, place).await.unwrap_or(0);
    let aside = if set_aside == 0 { "" } else { ", or failed and is set aside to be tried again" };
    Some(format!("a worker has finished the job{aside}: its result was taken by somebody else, or not written"))
}

/// Returns which worker holds the entry.
async fn held(connection: &mut Connection, place: &Place, entry: &str) -> RedisResult<Option<String>> {
    let mut pending = redis::cmd("XPENDING");
    pending.arg(&place.stream).arg(&place.group).arg(entry).arg(entry).arg(1);
    let reply: StreamPendingCountReply = pending.query_async(connection).await?;
    let Some(held) = reply.ids.into_iter().next() else { return Ok(None) };
    let mut state = redis::cmd("HGET");
    state.arg(place.heartbeat(&held.consumer)).arg("state");
    let state: Option<String> = state.query_async(connection).await?;
    let (worker, attempt) = (held.consumer, held.times_delivered);
    Ok(Some(match state {
        Some(state) => format!("worker {worker} ({state}) works on the job, attempt {attempt}"),
        None => format!("worker {worker} died with the job in attempt {attempt}; another worker does it again"),
    }))
}

/// Returns how many jobs are ahead of the entry, counted up to 1,000.
pub(super) async fn ahead(connection: &mut Connection, place: &Place, entry: &str, after: &str) -> RedisResult<usize> {
    let mut range = redis::cmd("XRANGE");
    range.arg(&place.stream).arg(format!("({after}")).arg(format!("({entry}")).arg("COUNT").arg(MAX_AHEAD);
    Ok(entries(range.query_async::<Value>(connection).await?).len())
}

/// Returns the newest dead letter of the job, if it is one of the recent ones.
pub(super) async fn dead_letter(connection: &mut Connection, place: &Place, id: &str) -> Option<DeadEntry> {
    let letters = DeadLetters::of(&place.stream, place.job_max_bytes);
    let recent = letters.newest(connection, RECENT_DEAD).await.ok()?;
    recent.into_iter().find(|entry| entry.letter.id.as_deref() == Some(id))
}

async fn aside(connection: &mut Connection, place: &Place) -> RedisResult<u64> {
    let delayed = connection.layout().delayed(&place.stream);
    redis::cmd("ZCARD").arg(delayed).query_async(connection).await
}
