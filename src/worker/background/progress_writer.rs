//! Writes the progress that handlers report, and removes it when its job has ended. One task for all jobs of the
//! worker, so that a handler that occupies its thread is shown too. While Redis refuses, it tries with growing pauses
//! to write the progress of one job, and jobs run on.

use futures_util::future::join_all;
use tokio::time::sleep;

use crate::{
    connection::{Connection, backoff},
    worker::{
        connection::StepError,
        execute::Executor,
        progress::{JobClaim, Step, Write},
    },
};

/// Maximum jobs whose progress is written together.
const BATCH: usize = 100;

/// Writes progress for as long as the worker runs.
pub(super) async fn write(executor: &Executor) {
    let (mut waits, mut failing) = (backoff(), false);
    loop {
        let due = executor.progress.due(if failing { 1 } else { BATCH }).await;
        let (mut ended, mut writes) = (Vec::new(), Vec::new());
        for step in due {
            match step {
                Step::Write(write) => writes.push(write),
                Step::End(claim) => ended.push(claim),
            }
        }
        if !failing {
            // First, because the same job may begin again here.
            join_all(ended.iter().map(|claim| end(executor, claim))).await;
        }
        let outcomes = join_all(writes.iter().map(|write| write_one(executor, write))).await;
        match outcomes.into_iter().reduce(Result::and) {
            None => {}
            Some(Ok(())) => (waits, failing) = (backoff(), false),
            Some(Err(error)) => {
                if !failing {
                    tracing::warn!(%error, "progress of jobs can't be written; they run on, and it is tried again");
                }
                failing = true;
                sleep(waits.next_pause()).await;
            }
        }
    }
}

async fn write_one(executor: &Executor, write: &Write) -> Result<(), StepError> {
    let JobClaim { stream, entry, number, id, masking } = &*write.claim;
    let mut progress = write.progress.clone();
    if let Some(job) = masking {
        progress.text = job.masked(&executor.config.policy.jobs.masked_arguments, progress.text);
    }
    let progress = progress.bounded();
    let consumer = executor.consumer.on(stream);
    let report = async |connection: &mut Connection| {
        consumer.report_progress(connection, id, (entry, *number), (&progress, write.at)).await
    };
    match executor.commands.step(report).await {
        Ok(true) => Ok(()),
        Ok(false) => {
            executor.progress.lost(write);
            Ok(())
        }
        // The job is gone with its queue.
        Err(StepError::Broker(error)) if error.is_missing_group() => {
            executor.progress.lost(write);
            Ok(())
        }
        Err(error) => {
            executor.progress.not_written(write);
            Err(error)
        }
    }
}

async fn end(executor: &Executor, claim: &JobClaim) {
    let consumer = executor.consumer.on(&claim.stream);
    let removal = async |connection: &mut Connection| consumer.end_progress(connection, &claim.id).await;
    if let Err(error) = executor.commands.step::<_, StepError>(removal).await {
        tracing::debug!(job = claim.id, %error, "the progress of a job is not removed; it expires by itself");
    }
}
