//! Finds out which jobs of this worker are cancelled, and stops those: when it is told, after each connect, and at each
//! heartbeat interval.

use std::sync::Arc;

use tokio::time::{MissedTickBehavior, interval};

use crate::{
    connection::Connection,
    worker::{connection::StepError, execute::Executor},
};

/// Stops cancelled jobs for as long as the worker runs.
pub(super) async fn watch(executor: &Executor) {
    let mut told = executor.commands.wakes().cancelled.subscribe();
    let mut ticks = interval(executor.config.heartbeat_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = told.changed() => {}
        }
        let mut problem = None;
        for (stream, entries) in executor.in_flight.entries() {
            problem = stop_cancelled(executor, stream, entries).await.err().or(problem);
        }
        // Logged once for each time that it begins.
        if let Some(error) = &problem
            && !failing
        {
            tracing::warn!(%error, "can't look for cancelled jobs; they run on until redis answers");
        }
        failing = problem.is_some();
    }
}

async fn stop_cancelled(executor: &Executor, stream: Arc<str>, entries: Vec<(String, u32)>) -> Result<(), StepError> {
    let consumer = executor.consumer.on(&stream);
    let ask = async |connection: &mut Connection| {
        let cancelled = consumer.cancelled(connection, &entries).await?;
        Ok(cancelled.into_iter().map(str::to_owned).collect::<Vec<_>>())
    };
    for entry in executor.commands.step::<_, StepError>(ask).await? {
        tracing::info!(entry, queue = &*stream, "job cancelled: stopping it");
        if let Some(waiting) = executor.in_flight.cancel(&stream, &entry) {
            executor.drop_cancelled(waiting).await;
        }
    }
    Ok(())
}
