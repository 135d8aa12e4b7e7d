//! Maintenance of the worker's streams: moves delayed jobs to them when they are due, and trims finished entries and,
//! if so configured, dead letters. Any worker may do it at any time, and the autoscaler moves delayed jobs too; a
//! failure here loses no job.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::{
    broker::BrokerError,
    worker::{connection::StepError, execute::Executor},
};

/// Maximum streams trimmed at each interval; more streams take turns.
const TRIMMED_AT_ONCE: usize = 16;

/// Moves delayed jobs when they are due, and checks for new ones at each heartbeat interval.
pub(in crate::worker) async fn move_due(executor: &Executor) {
    let mut failing = false;
    loop {
        let mut next = executor.config.heartbeat_interval;
        let streams = executor.queues.streams();
        match attempt(executor, async |connection| executor.consumer.move_due_of(connection, &streams).await).await {
            Ok(delayed) => {
                next = delayed.next.unwrap_or(next).min(next);
                failing = false;
            }
            Err(error) => tell(&mut failing, &error),
        }
        tokio::select! {
            () = sleep(next.max(Duration::from_millis(1))) => {}
            // The new job may be due before all others.
            () = executor.in_flight.next_scheduled_retry() => {}
        }
    }
}

/// Trims streams, and their dead letters, at each heartbeat interval.
pub(in crate::worker) async fn trim(executor: &Executor) {
    let mut ticks = interval(executor.config.heartbeat_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut failing, mut at) = (false, 0);
    loop {
        ticks.tick().await;
        let streams = executor.queues.streams();
        let mut problem = None;
        for stream in streams.iter().cycle().skip(at).take(streams.len().min(TRIMMED_AT_ONCE)) {
            let consumer = executor.consumer.on(stream);
            let trimmed = attempt(executor, async |connection| {
                consumer.trim(connection).await?;
                consumer.trim_dead(connection).await
            });
            problem = problem.or(trimmed.await.err());
        }
        at = (at + TRIMMED_AT_ONCE) % streams.len().max(1);
        match problem {
            None => failing = false,
            Some(error) => tell(&mut failing, &error),
        }
    }
}

async fn attempt<T>(
    executor: &Executor,
    step: impl AsyncFnOnce(&mut crate::connection::Connection) -> Result<T, BrokerError>,
) -> Result<T, String> {
    executor.commands.step(step).await.map_err(|error: StepError| error.to_string())
}

/// Logs a failure once for each time that the maintenance begins to fail.
fn tell(failing: &mut bool, error: &str) {
    if !std::mem::replace(failing, true) {
        tracing::warn!(error, "stream maintenance failed, jobs are not affected");
    }
}
