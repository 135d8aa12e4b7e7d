//! Delayed jobs: a sorted set beside each stream, and the step that moves due jobs to the stream. The step is atomic
//! and uses the server's clock, so any program may take it at any time.

use std::{sync::Arc, time::Duration};

use super::{Beside, BrokerError, Consumer, beside::counts_beside};
use crate::connection::Connection;
use crate::telemetry::DelayedMoved;

const MOVE_DUE: &str = include_str!("lua/move_due.lua");
/// Maximum jobs of one step: about a millisecond of the server's time.
const AT_ONCE: u64 = 500;

/// The delayed jobs of one stream, after due jobs were moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delayed {
    /// Jobs moved to the stream by this call.
    pub moved: u64,
    /// Jobs that are not due yet.
    pub left: u64,
    /// Time until the first of those is due, at most a day; `None` if there are none.
    pub next: Option<Duration>,
}

/// Moves the due jobs of `stream` to it, and names it on `channel` if there were any.
///
/// # Errors
/// If Redis did not carry it out.
pub(super) async fn move_due(connection: &mut Connection, stream: &str, channel: &str) -> Result<Delayed, BrokerError> {
    let mut moved = 0;
    loop {
        let mut command = redis::cmd("EVAL");
        command.arg(MOVE_DUE).arg(2).arg(connection.layout().delayed(stream)).arg(stream).arg(AT_ONCE).arg(channel);
        let (jobs, left, wait): (u64, u64, i64) = command
            .query_async(connection)
            .await
            .map_err(|cause| BrokerError::new(format!("move delayed jobs of `{stream}`"), cause))?;
        moved += jobs;
        if jobs < AT_ONCE {
            if moved > 0 {
                DelayedMoved { stream, jobs: moved }.emit();
            }
            return Ok(Delayed { moved, left, next: u64::try_from(wait).ok().map(Duration::from_millis) });
        }
    }
}

/// Returns those of `streams` that have delayed jobs, due or not, and those for which that is unknown.
///
/// # Errors
/// If Redis can't be asked at all.
pub(super) async fn with_delayed<'a, S: AsRef<str>>(
    connection: &mut Connection,
    streams: &'a [S],
) -> Result<Vec<&'a S>, BrokerError> {
    let found = counts_beside(connection, Beside::Delayed, streams).await?;
    Ok(found.into_iter().map(|(stream, _)| stream).collect())
}

impl Consumer {
    /// Moves due jobs to the stream. A worker that does so before each read, and reads for no longer than until the
    /// next job is due, depends on no other program.
    ///
    /// # Errors
    /// If Redis did not carry it out.
    pub async fn move_due(&self, connection: &mut Connection) -> Result<Delayed, BrokerError> {
        move_due(connection, &self.stream, &self.policy.channel).await
    }

    /// [Moves due jobs](Self::move_due) of all `streams`. A stream that fails does not delay the others.
    ///
    /// # Errors
    /// If Redis did not carry it out for one of them.
    pub async fn move_due_of(&self, connection: &mut Connection, streams: &[Arc<str>]) -> Result<Delayed, BrokerError> {
        if let [only] = streams {
            return self.on(only).move_due(connection).await;
        }
        let (mut all, mut problem) = (Delayed::default(), None);
        for stream in with_delayed(connection, streams).await? {
            match self.on(stream).move_due(connection).await {
                Ok(one) => {
                    all.moved += one.moved;
                    all.left += one.left;
                    all.next = all.next.into_iter().chain(one.next).min();
                }
                Err(error) if error.is_connection_lost() => return Err(error),
                Err(error) => problem = problem.or(Some(error)),
            }
        }
        problem.map_or(Ok(all), Err)
    }
}
