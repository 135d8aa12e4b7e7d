//! Completes jobs in Redis: successful ones in batches, as many as have ended while the previous batch was being
//! written; each failed one by itself. Retries until Redis has accepted the outcome. Until then the job is in flight
//! and its claim is renewed.

use std::{collections::HashMap, sync::Arc};

use futures_util::future::join_all;
use tokio::{
    sync::{mpsc, watch},
    task::{JoinSet, yield_now},
    time::sleep,
};

use crate::{
    broker::{BrokerError, Consumer, Delivery, Done, Failed, Refusal, Refused, Retry, Unsettled},
    connection::{Connection, backoff},
    worker::{by_stream::by_stream, connection::Commands, in_flight::InFlight, status::Status},
};

/// Maximum jobs in a batch.
const BATCH: usize = 500;
/// Number of jobs that end at the same moment from which on they count as a flood.
const FLOOD: usize = 8;
/// Maximum consecutive polls for more jobs of a flood that find none; each takes some microseconds.
const LOOKS: usize = 8;

/// How the entry of an ended job is completed.
#[derive(Debug)]
pub(in crate::worker) enum Completion {
    /// The job succeeded: acknowledge the entry and send the result.
    Succeeded(Done),
    /// The job failed: retry it, or send the error.
    Failed { delivery: Delivery, error: String, retry: Retry },
    /// The job must not be started.
    Rejected(Delivery),
    /// Nothing to do: another worker has the entry now.
    HandedOver(Delivery),
}

/// A job that ended in this worker.
#[derive(Debug)]
pub(in crate::worker) struct CompletedJob {
    pub(in crate::worker) ending: Completion,
    /// Whether the job took a slot.
    pub(in crate::worker) needs_slot: bool,
}

impl CompletedJob {
    fn stream(&self) -> &str {
        match &self.ending {
            Completion::Succeeded(done) => done.stream(),
            Completion::Failed { delivery, .. } | Completion::Rejected(delivery) | Completion::HandedOver(delivery) => {
                &delivery.stream
            }
        }
    }

    fn entry(&self) -> &str {
        match &self.ending {
            Completion::Succeeded(done) => done.entry(),
            Completion::Failed { delivery, .. } | Completion::Rejected(delivery) | Completion::HandedOver(delivery) => {
                &delivery.entry
            }
        }
    }
}

/// Completes the jobs of one worker.
#[derive(Clone)]
pub(in crate::worker) struct Completer {
    pub(in crate::worker) consumer: Consumer,
    pub(in crate::worker) commands: Arc<Commands>,
    pub(in crate::worker) in_flight: Arc<InFlight>,
    pub(in crate::worker) status: watch::Sender<Status>,
}

impl Completer {
    /// Completes jobs until the channel is closed. If dropped, the remaining jobs stay incomplete, and other workers do
    /// them again.
    pub(in crate::worker) async fn run(self, mut finished: mpsc::Receiver<Vec<CompletedJob>>) {
        let mut singles = JoinSet::new();
        while let Some(mut batch) = finished.recv().await {
            gather(&mut finished, &mut batch).await;
            let (done, others): (Vec<_>, Vec<_>) =
                batch.into_iter().partition(|one| matches!(one.ending, Completion::Succeeded(_)));
            for other in others {
                singles.spawn(self.clone().settle(other));
            }
            for left in self.complete_all(done).await {
                singles.spawn(self.clone().settle(left));
            }
            while singles.try_join_next().is_some() {}
        }
        while singles.join_next().await.is_some() {}
    }

    /// Completes the jobs of each stream together. Returns the jobs that are left.
    async fn complete_all(&self, done: Vec<CompletedJob>) -> Vec<CompletedJob> {
        let each = by_stream(done, CompletedJob::stream).into_iter().map(|done| self.complete(done));
        join_all(each).await.into_iter().flatten().collect()
    }

    /// Completes jobs of one stream together. Returns the jobs that Redis refuses for a reason that may not apply to
    /// each of them.
    async fn complete(&self, done: Vec<CompletedJob>) -> Vec<CompletedJob> {
        let all: Vec<_> = done.iter().filter_map(|one| completed(&one.ending)).collect();
        let Some(first) = all.first() else { return done };
        let consumer = self.consumer.on(first.stream());
        for wait in backoff() {
            let problem = match self.commands.get().await {
                Err(error) => error.to_string(),
                Ok(mut connection) => match consumer.complete_all(&mut connection, &all).await {
                    Ok(unsettled) => return self.close_completed(done, unsettled),
                    Err(error) if error.is_connection_lost() => {
                        self.commands.discard().await;
                        error.to_string()
                    }
                    Err(error) => {
                        tracing::warn!(%error, jobs = all.len(), "done jobs can't be settled together; trying one by one");
                        return done;
                    }
                },
            };
            tracing::warn!(error = problem, jobs = all.len(), "jobs are done and not settled; trying again");
            sleep(wait).await;
        }
        Vec::new()
    }

    /// Closes those jobs of `done` that are completed or lost. Returns the jobs whose results Redis refuses.
    fn close_completed(&self, done: Vec<CompletedJob>, unsettled: Vec<Unsettled>) -> Vec<CompletedJob> {
        if unsettled.is_empty() {
            self.close(&done, Outcome::Succeeded);
            return Vec::new();
        }
        let why: HashMap<usize, Refused> = unsettled.into_iter().map(|one| (one.index, one.why)).collect();
        let (mut settled, mut lost, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for (index, one) in done.into_iter().enumerate() {
            match why.get(&index) {
                None => settled.push(one),
                Some(Refused::ClaimLost) => {
                    tell_lost(&one);
                    lost.push(one);
                }
                Some(Refused::Result(error)) => {
                    tracing::warn!(entry = one.entry(), %error, "a done job can't be answered; trying again");
                    refused.push(one);
                }
            }
        }
        self.close(&settled, Outcome::Succeeded);
        self.close(&lost, Outcome::Elsewhere);
        refused
    }

    async fn settle(self, one: CompletedJob) {
        for wait in backoff() {
            let problem = match self.commands.get().await {
                Err(error) => error.to_string(),
                Ok(mut connection) => match self.try_settle(&mut connection, &one).await {
                    Ok(settled) => return self.close(std::slice::from_ref(&one), settled),
                    // The entry is gone with the stream or the group: there is nothing left to complete.
                    Err(error) if error.is_missing_group() => {
                        tracing::warn!(entry = one.entry(), %error, "the queue of a failed job is gone, and the job with it");
                        return self.close(std::slice::from_ref(&one), Outcome::Elsewhere);
                    }
                    Err(error) => {
                        if error.is_connection_lost() {
                            self.commands.discard().await;
                        }
                        error.to_string()
                    }
                },
            };
            let entry = one.entry();
            tracing::warn!(entry, error = problem, "job has ended and is not settled; trying again");
            sleep(wait).await;
        }
    }

    async fn try_settle(&self, connection: &mut Connection, one: &CompletedJob) -> Result<Outcome, BrokerError> {
        let consumer = self.consumer.on(one.stream());
        match &one.ending {
            Completion::Succeeded(done) => match consumer.complete_all(connection, &[done]).await?.pop() {
                None => Ok(Outcome::Succeeded),
                Some(Unsettled { why: Refused::ClaimLost, .. }) => {
                    tell_lost(one);
                    Ok(Outcome::Elsewhere)
                }
                Some(Unsettled { why: Refused::Result(error), .. }) => Err(error),
            },
            Completion::Failed { delivery, error, retry } => {
                Ok(match consumer.fail(connection, delivery, error, *retry).await? {
                    Failed::Retried { .. } => {
                        self.in_flight.retry_scheduled();
                        Outcome::Elsewhere
                    }
                    Failed::TakenOver | Failed::Cancelled => Outcome::Elsewhere,
                    Failed::Answered | Failed::Dead => Outcome::Failed,
                })
            }
            Completion::Rejected(delivery) => match &delivery.job {
                Err(refusal) => {
                    let outcome = if *refusal == Refusal::Cancelled { Outcome::Elsewhere } else { Outcome::Failed };
                    consumer.refuse(connection, delivery, refusal).await.map(|()| outcome)
                }
                Ok(_) => Ok(Outcome::Elsewhere),
            },
            Completion::HandedOver(_) => Ok(Outcome::Elsewhere),
        }
    }

    /// Releases completed jobs and counts them.
    fn close(&self, jobs: &[CompletedJob], settled: Outcome) {
        self.in_flight.release(jobs.iter().map(|job| (job.stream(), job.entry(), job.needs_slot)));
        let count = |counts: bool| if counts { jobs.len() as u64 } else { 0 };
        self.status.send_modify(|status| {
            status.busy = status.busy.saturating_sub(jobs.len());
            status.processed += count(settled != Outcome::Elsewhere);
            status.failed += count(settled == Outcome::Failed);
        });
    }
}

/// Adds jobs that end at this moment, because a round trip costs more than many jobs: yields while that brings more
/// jobs, up to a batch. In a flood, jobs end on other threads: then polls a few more times although no job arrived.
async fn gather(finished: &mut mpsc::Receiver<Vec<CompletedJob>>, batch: &mut Vec<CompletedJob>) {
    let mut in_vain = 0;
    while batch.len() < BATCH && in_vain <= if batch.len() < FLOOD { 0 } else { LOOKS } {
        yield_now().await;
        let before = batch.len();
        while batch.len() < BATCH
            && let Ok(more) = finished.try_recv()
        {
            batch.extend(more);
        }
        in_vain = if batch.len() > before { 0 } else { in_vain + 1 };
    }
}

/// Outcome of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Succeeded,
    Failed,
    /// Not counted: the job is retried or was cancelled, or another worker has it.
    Elsewhere,
}

fn tell_lost(one: &CompletedJob) {
    tracing::warn!(entry = one.entry(), "job done after its claim was lost: the worker that has it now answers it");
}

fn completed(ending: &Completion) -> Option<&Done> {
    match ending {
        Completion::Succeeded(done) => Some(done),
        _ => None,
    }
}
