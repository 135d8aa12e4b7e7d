//! Finds the queues that match the patterns: searches at the start and at each sweep interval, then on behalf of all
//! workers of the type. In between others announce queues: a message on the channel names the queue, and so does a
//! worker that hands a job over. Reads no queue.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::{MissedTickBehavior, interval};

use crate::{
    broker::{BrokerError, find_queues, found_lately, tell_found},
    connection::Connection,
    worker::{
        connection::StepError,
        execute::Executor,
        queue_set::{MAX_FOUND, Offered},
    },
};

/// Searches repeatedly.
pub(in crate::worker) async fn find(executor: &Executor) {
    let set = &executor.queues;
    if set.configured().patterns.is_empty() {
        return;
    }
    let mut ticks = interval(executor.config.sweep_interval.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut connected = executor.commands.wakes().connected.subscribe();
    let (mut failing, mut full) = (false, false);
    // The autoscaler may have started this worker for a queue that other workers have not found yet.
    let mut thorough = true;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            // Announcements were lost while there was no connection.
            _ = connected.changed() => thorough = true,
        }
        match look(executor, thorough).await {
            Ok(too_many) => {
                (failing, thorough) = (false, false);
                if too_many && !std::mem::replace(&mut full, true) {
                    tracing::warn!(
                        limit = MAX_FOUND,
                        "there are more queues than one worker serves; others have to wait"
                    );
                }
                full &= too_many;
            }
            Err(error) if !std::mem::replace(&mut failing, true) => {
                tracing::warn!(error, "can't look for queues; those that are known are served all the same");
            }
            Err(_) => {}
        }
    }
}

/// Adds the queues that exist. Returns whether there are too many. `thorough` searches even if other workers have just
/// done so.
async fn look(executor: &Executor, thorough: bool) -> Result<bool, String> {
    let found = executor.commands.step(async |connection| found(executor, connection, thorough).await).await;
    let found = found.map_err(|error: StepError| error.to_string())?;
    Ok(found.iter().filter(|key| executor.queues.offer(key) == Offered::TooMany).count() > 0)
}

async fn found(
    executor: &Executor,
    connection: &mut Connection,
    thorough: bool,
) -> Result<BTreeSet<String>, BrokerError> {
    let (worker_type, queues) = (&executor.config.worker_type, executor.queues.configured());
    if !thorough && let Some(found) = found_lately(connection, worker_type, queues).await? {
        return Ok(found);
    }
    let found = find_queues(connection, &[queues], MAX_FOUND + 1).await?;
    let found: BTreeSet<String> = found.into_iter().flatten().collect();
    // A little shorter, so that a worker that looks at each interval finds that it is time to search.
    let ttl = executor.config.sweep_interval.mul_f64(0.9);
    if let Err(error) = tell_found(connection, worker_type, queues, found.clone(), ttl).await {
        tracing::debug!(%error, "every worker has to look for queues itself");
    }
    Ok(found)
}
