//! How many dead letters or delayed jobs many streams have, in few round trips. Only reads.

use redis::Value;

use super::{Beside, BrokerError};
use crate::connection::{Connection, any_exists};

/// Streams in one pipeline.
const SLICE: usize = 500;

/// Returns those of `streams` that have dead letters or delayed jobs, each with their number; for a stream that can't
/// be asked, why. Few streams ever have any, so most slices cost one EXISTS.
///
/// # Errors
/// If Redis can't be asked at all.
pub(super) async fn counts_beside<'a, S: AsRef<str>>(
    connection: &mut Connection,
    beside: Beside,
    streams: &'a [S],
) -> Result<Vec<(&'a S, Result<u64, BrokerError>)>, BrokerError> {
    let layout = connection.layout();
    let key = |stream: &S| match beside {
        Beside::Dead => layout.dead_letters(stream.as_ref()),
        Beside::Delayed => layout.delayed(stream.as_ref()),
    };
    let mut found = Vec::new();
    for slice in streams.chunks(SLICE) {
        if any_exists(connection, slice.iter().map(key)).await {
            let counts = lengths(connection, beside, slice, key).await?;
            found.extend(slice.iter().zip(counts).filter(|(_, count)| !matches!(count, Ok(0))));
        }
    }
    Ok(found)
}

async fn lengths<S: AsRef<str>>(
    connection: &mut Connection,
    beside: Beside,
    streams: &[S],
    key: impl Fn(&S) -> String,
) -> Result<Vec<Result<u64, BrokerError>>, BrokerError> {
    let (command, what) = match beside {
        Beside::Dead => ("XLEN", "dead letters"),
        Beside::Delayed => ("ZCARD", "delayed jobs"),
    };
    let mut pipeline = redis::pipe();
    for stream in streams {
        pipeline.cmd(command).arg(key(stream));
    }
    // The low-level call, because one key of a wrong type must not hide the others.
    let replies = connection.each(&pipeline).await;
    let replies = replies.map_err(|cause| BrokerError::new(format!("count {what}"), cause))?;
    let count = |(reply, stream): (Value, &S)| {
        let count = reply.extract_error().and_then(|reply| Ok(redis::from_redis_value(reply)?));
        count.map_err(|cause| BrokerError::new(format!("count {what} of `{}`", stream.as_ref()), cause))
    };
    Ok(replies.into_iter().zip(streams).map(count).collect())
}
