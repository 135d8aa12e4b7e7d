//! Tells Redis how jobs ended: those that are done in batches, as many as have ended while the batch before was under way;
//! each failed one for itself. Tries until Redis has taken it; a job is in hand, and its claim renewed, until then.

use std::sync::Arc;

use futures_util::future::join_all;
use tokio::{
    sync::{mpsc, watch},
    task::{JoinSet, yield_now},
    time::sleep,
};

use super::{by_stream::by_stream, connection::Commands, hand::Hand, status::Status};
use crate::{
    broker::{BrokerError, Consumer, Delivery, Failed, JobResult, Retry},
    connection::Connection,
    connection::backoff,
};

/// Jobs settled in one round trip.
const BATCH: usize = 500;

/// What to do with the entry of a job that ended.
#[derive(Debug)]
pub(super) enum Ending {
    /// Acknowledge it and answer this.
    Complete(JobResult),
    /// It failed: try it again or answer the error.
    Fail { error: String, retry: Retry },
    /// It must not be worked on.
    Refuse,
    /// Nothing: it is another worker's now.
    Gone,
}

/// A job that ended in this worker.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) delivery: Box<Delivery>,
    pub(super) ending: Ending,
    /// Whether it took a slot.
    pub(super) needs_slot: bool,
}

/// Settles the jobs of one worker.
#[derive(Clone)]
pub(super) struct Settler {
    pub(super) consumer: Consumer,
    pub(super) commands: Arc<Commands>,
    pub(super) hand: Arc<Hand>,
    pub(super) status: watch::Sender<Status>,
}

impl Settler {
    /// Settles what comes until nothing more can come. Dropped, it leaves the rest unsettled: others do those jobs again.
    pub(super) async fn run(self, mut finished: mpsc::Receiver<Finished>) {
        let mut singles = JoinSet::new();
        let mut batch = Vec::with_capacity(BATCH);
        while finished.recv_many(&mut batch, BATCH).await > 0 {
            gather(&mut finished, &mut batch).await;
            let (done, others): (Vec<_>, Vec<_>) =
                batch.drain(..).partition(|one: &Finished| matches!(one.ending, Ending::Complete(_)));
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

    /// Completes jobs, those of each stream together. Answers those that are left.
    async fn complete_all(&self, done: Vec<Finished>) -> Vec<Finished> {
        let each = by_stream(done, |one| &*one.delivery.stream).into_iter().map(|done| self.complete(done));
        join_all(each).await.into_iter().flatten().collect()
    }

    /// Completes jobs of one stream together. Answers those that Redis refuses for a reason that may not be that of each.
    async fn complete(&self, done: Vec<Finished>) -> Vec<Finished> {
        let pairs: Vec<_> = done.iter().filter_map(|one| Some((&*one.delivery, result(&one.ending)?))).collect();
        let Some((first, _)) = pairs.first() else { return done };
        let consumer = self.consumer.on(&first.stream);
        for wait in backoff() {
            let problem = match self.commands.get().await {
                Err(error) => error.to_string(),
                Ok(mut connection) => match consumer.complete(&mut connection, &pairs).await {
                    Ok(()) => break,
                    Err(error) if error.is_connection_lost() => {
                        self.commands.discard().await;
                        error.to_string()
                    }
                    Err(error) => {
                        tracing::warn!(%error, jobs = pairs.len(), "done jobs can't be settled together; trying one by one");
                        return done;
                    }
                },
            };
            tracing::warn!(error = problem, jobs = pairs.len(), "jobs are done and not settled; trying again");
            sleep(wait).await;
        }
        self.close(&done, Settled::Done);
        Vec::new()
    }

    async fn settle(self, one: Finished) {
        for wait in backoff() {
            let problem = match self.commands.get().await {
                Err(error) => error.to_string(),
                Ok(mut connection) => match self.try_settle(&mut connection, &one).await {
                    Ok(settled) => return self.close(std::slice::from_ref(&one), settled),
                    // With the stream, or the group, the entry is gone: there is nothing left to settle.
                    Err(error) if error.is_missing_group() => {
                        tracing::warn!(entry = one.delivery.entry, %error, "the queue of a failed job is gone, and the job with it");
                        return self.close(std::slice::from_ref(&one), Settled::Elsewhere);
                    }
                    Err(error) => {
                        if error.is_connection_lost() {
                            self.commands.discard().await;
                        }
                        error.to_string()
                    }
                },
            };
            let entry = &one.delivery.entry;
            tracing::warn!(entry, error = problem, "job has ended and is not settled; trying again");
            sleep(wait).await;
        }
    }

    async fn try_settle(&self, connection: &mut Connection, one: &Finished) -> Result<Settled, BrokerError> {
        let Finished { delivery, ending, .. } = one;
        let consumer = self.consumer.on(&delivery.stream);
        match (ending, &delivery.job) {
            (Ending::Complete(result), _) => {
                consumer.complete(connection, &[(&**delivery, result)]).await.map(|()| Settled::Done)
            }
            (Ending::Fail { error, retry }, _) => {
                Ok(match consumer.fail(connection, delivery, error, *retry).await? {
                    Failed::Retried { .. } => {
                        self.hand.put_aside();
                        Settled::Elsewhere
                    }
                    Failed::TakenOver => Settled::Elsewhere,
                    Failed::Answered | Failed::Dead => Settled::Failed,
                })
            }
            (Ending::Refuse, Err(refusal)) => {
                consumer.refuse(connection, delivery, refusal).await.map(|()| Settled::Failed)
            }
            (Ending::Refuse, Ok(_)) | (Ending::Gone, _) => Ok(Settled::Elsewhere),
        }
    }

    /// Lets settled jobs go and counts them.
    fn close(&self, jobs: &[Finished], settled: Settled) {
        let delivered = jobs.iter().map(|job| (&*job.delivery, job.needs_slot));
        self.hand.put_down(delivered.map(|(of, took_slot)| (&*of.stream, of.entry.as_str(), took_slot)));
        let count = |counts: bool| if counts { jobs.len() as u64 } else { 0 };
        self.status.send_modify(|status| {
            status.busy = status.busy.saturating_sub(jobs.len());
            status.processed += count(settled != Settled::Elsewhere);
            status.failed += count(settled == Settled::Failed);
        });
    }
}

/// Adds what ends in this moment, since a round trip costs more than many jobs: as long as letting others run brings more,
/// up to one batch.
async fn gather(finished: &mut mpsc::Receiver<Finished>, batch: &mut Vec<Finished>) {
    let mut before = 0;
    while (before + 1..BATCH).contains(&batch.len()) {
        before = batch.len();
        yield_now().await;
        while batch.len() < BATCH
            && let Ok(one) = finished.try_recv()
        {
            batch.push(one);
        }
    }
}

/// What became of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settled {
    Done,
    Failed,
    /// It is not finished: it will be tried again, or another worker has it.
    Elsewhere,
}

fn result(ending: &Ending) -> Option<&JobResult> {
    match ending {
        Ending::Complete(result) => Some(result),
        _ => None,
    }
}
