//! Finds an unfinished job by its id: among the delayed jobs of a stream, and among those of its entries that a group
//! has not finished. Only reads. The server searches for the text of the id, a thousand jobs in one step; whether a job
//! has that id is decided here.

use redis::streams::{StreamInfoGroupsReply, StreamPendingReply};

use super::{BrokerError, Job, Place};
use crate::{connection::Connection, model::Timestamp};

const SEARCH: &str = include_str!("lua/search.lua");
const SEARCH_DELAYED: &str = include_str!("lua/search_delayed.lua");
/// Jobs that the server examines in one step: about a millisecond of its time.
const SEARCHED: usize = 1_000;

/// A job that was found.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Found {
    /// The job is not due yet.
    Delayed {
        job: Job,
        /// The job as it is in Redis.
        json: Vec<u8>,
        due: Timestamp,
    },
    /// The job is on its stream. The group may have finished it since.
    Entry { job: Job, entry: String },
}

/// Returns where the job is, the newest place last; several places if it was retried or given back.
///
/// # Errors
/// If Redis can't be asked.
pub(super) async fn find(connection: &mut Connection, place: &Place, id: &str) -> Result<Vec<Found>, BrokerError> {
    let from = first_unfinished(connection, place).await?;
    let (mut found, end) = on_stream(connection, place, id, from).await?;
    // After the stream, because a worker may have moved the job there meanwhile; then the end of the stream, because
    // the job may have become due.
    found.extend(delayed(connection, place, id).await?);
    found.extend(on_stream(connection, place, id, end).await?.0);
    Ok(found)
}

async fn delayed(connection: &mut Connection, place: &Place, id: &str) -> Result<Vec<Found>, BrokerError> {
    let key = connection.layout().delayed(&place.stream);
    let (mut found, mut from) = (Vec::new(), 0);
    loop {
        let mut search = redis::cmd("EVAL");
        search.arg(SEARCH_DELAYED).arg(1).arg(&key).arg(quoted(id)).arg(from).arg(SEARCHED);
        let reply = search.query_async(connection).await;
        let (looked_at, jobs): (usize, Vec<(Vec<u8>, u64)>) = reply.map_err(|cause| failed(&key, cause))?;
        found.extend(jobs.into_iter().filter_map(|(json, due)| {
            Some(Found::Delayed { job: of_id(&json, place, id)?, json, due: Timestamp(due) })
        }));
        from += looked_at;
        if looked_at < SEARCHED {
            return Ok(found);
        }
    }
}

/// Searches the stream from the id `from` on, as XRANGE takes it; also returns from where to search next.
async fn on_stream(
    connection: &mut Connection,
    place: &Place,
    id: &str,
    mut from: String,
) -> Result<(Vec<Found>, String), BrokerError> {
    let mut found = Vec::new();
    loop {
        let mut search = redis::cmd("EVAL");
        search.arg(SEARCH).arg(1).arg(&place.stream).arg(quoted(id)).arg(&from).arg(SEARCHED);
        let reply = search.query_async(connection).await;
        let reply = reply.map_err(|cause| failed(&place.stream, cause))?;
        let (looked_at, last, jobs): (usize, String, Vec<(String, Vec<u8>)>) = reply;
        let of_id = |(entry, json): (String, Vec<u8>)| Some(Found::Entry { job: of_id(&json, place, id)?, entry });
        found.extend(jobs.into_iter().filter_map(of_id));
        if looked_at > 0 {
            from = format!("({last}");
        }
        if looked_at < SEARCHED {
            return Ok((found, from));
        }
    }
}

/// Returns the id, as XRANGE takes it, from which on the group may have unfinished entries.
async fn first_unfinished(connection: &mut Connection, place: &Place) -> Result<String, BrokerError> {
    let mut info = redis::cmd("XINFO");
    info.arg("GROUPS").arg(&place.stream);
    let groups = match info.query_async::<StreamInfoGroupsReply>(connection).await {
        Ok(reply) => reply.groups,
        Err(error) if error.to_string().contains("no such key") => return Ok("-".to_owned()),
        Err(cause) => return Err(failed(&place.stream, cause)),
    };
    let Some(group) = groups.into_iter().find(|group| group.name == place.group) else {
        return Ok("-".to_owned());
    };
    let mut pending = redis::cmd("XPENDING");
    pending.arg(&place.stream).arg(&place.group);
    let reply = pending.query_async(connection).await.map_err(|cause| failed(&place.stream, cause))?;
    Ok(match reply {
        StreamPendingReply::Data(pending) => pending.start_id,
        _ => format!("({}", group.last_delivered_id),
    })
}

/// Returns the id as it is in JSON.
fn quoted(id: &str) -> String {
    serde_json::Value::from(id).to_string()
}

fn of_id(json: &[u8], place: &Place, id: &str) -> Option<Job> {
    Job::parse(json, place.job_max_bytes).ok().filter(|job| job.id == id)
}

fn failed(key: &str, cause: redis::RedisError) -> BrokerError {
    BrokerError::new(format!("search `{key}` for a job"), cause)
}
