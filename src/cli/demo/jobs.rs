//! The demo's producer: publishes jobs through the broker and counts the result of each job.

use std::{collections::HashSet, sync::Arc, time::Duration};

use serde_json::{Map, json};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use super::script::JobBatch;
use crate::{
    broker::{Job, Publisher, Routes, wait_for_any},
    config::{BrokerSettings, Settings},
    connection::RedisTarget,
};

/// Longest wait of one read of results. Results of jobs published meanwhile are read after that.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Batches on their way to the collector; an act has two.
const WAITING: usize = 16;

/// Jobs by their results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct JobCounts {
    /// Jobs put on a queue.
    pub(super) published: usize,
    /// Jobs that succeeded.
    pub(super) done: usize,
    /// Jobs that failed.
    pub(super) failed: usize,
}

impl JobCounts {
    /// Returns the number of jobs without a result.
    pub(super) fn open(self) -> usize {
        self.published - self.done - self.failed
    }
}

/// Publishes jobs, and counts their results.
#[derive(Debug)]
pub(super) struct Producer {
    target: Arc<RedisTarget>,
    channel: String,
    limits: BrokerSettings,
    routes: Routes,
    published: usize,
    keys: mpsc::Sender<Vec<String>>,
    answers: watch::Receiver<(usize, usize)>,
    collector: JoinHandle<()>,
}

impl Producer {
    /// Starts a producer that publishes to the queues of `settings`.
    pub(super) fn start(target: Arc<RedisTarget>, settings: &Settings) -> Self {
        let (keys, new_keys) = mpsc::channel(WAITING);
        let (counts, answers) = watch::channel((0, 0));
        let collector = tokio::spawn(collect(target.clone(), new_keys, counts));
        Self {
            target,
            channel: settings.signals.channel.clone(),
            limits: settings.broker.clone(),
            // The user's JOB_STREAM does not matter here: every job type of the demo is configured.
            routes: Routes::new(settings, String::new()),
            published: 0,
            keys,
            answers,
            collector,
        }
    }

    /// Publishes one batch in one round trip.
    pub(super) async fn publish(&mut self, batch: &JobBatch) -> anyhow::Result<()> {
        let stream = self.routes.stream(batch.job_type)?;
        let argument = json!(batch.argument);
        let new_job = || Job::new(batch.job_type, vec![argument.clone()], Map::new()).with_reply();
        let jobs: Vec<Job> = std::iter::repeat_with(new_job).take(batch.count).collect();
        let mut publisher = Publisher::new(self.target.connect().await?, &self.channel, self.limits.clone());
        publisher.publish(stream, &jobs).await?;
        self.published += jobs.len();
        let keys = jobs.into_iter().filter_map(|job| job.reply_to).collect();
        self.keys.send(keys).await.map_err(|_| anyhow::anyhow!("the results are not collected any more"))
    }

    /// Returns the counts so far.
    pub(super) fn job_counts(&self) -> JobCounts {
        let (done, failed) = *self.answers.borrow();
        JobCounts { published: self.published, done, failed }
    }

    /// Stops collecting results; returns the counts.
    pub(super) async fn stop(self) -> JobCounts {
        let job_counts = self.job_counts();
        self.collector.abort();
        let _ = self.collector.await;
        job_counts
    }
}

/// Reads results until the producer is gone. An error of Redis is logged, and the read retried.
async fn collect(
    target: Arc<RedisTarget>,
    mut new_keys: mpsc::Receiver<Vec<String>>,
    counts: watch::Sender<(usize, usize)>,
) {
    let mut open = HashSet::new();
    while let Err(error) = collect_over_one_connection(&target, &mut new_keys, &mut open, &counts).await {
        tracing::warn!("collecting results: {error:#}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

async fn collect_over_one_connection(
    target: &RedisTarget,
    new_keys: &mut mpsc::Receiver<Vec<String>>,
    open: &mut HashSet<String>,
    counts: &watch::Sender<(usize, usize)>,
) -> anyhow::Result<()> {
    let mut connection = target.connect().await?;
    loop {
        if open.is_empty() {
            let Some(keys) = new_keys.recv().await else { return Ok(()) };
            open.extend(keys);
        }
        while let Ok(keys) = new_keys.try_recv() {
            open.extend(keys);
        }
        let keys: Vec<String> = open.iter().cloned().collect();
        let Some((key, result)) = wait_for_any(&mut connection, &keys, POLL_INTERVAL).await? else { continue };
        open.remove(&key);
        counts.send_modify(|(done, failed)| if result.ok { *done += 1 } else { *failed += 1 });
        if let Some(error) = &result.error {
            tracing::warn!(job = result.id, "job failed: {error}");
        }
    }
}
