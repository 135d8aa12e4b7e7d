//! Says on Redis that the worker lives and what it does: a hash that expires, and a stream for history. Reads the worker's
//! status, never changes it.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt;
use redis::Pipeline;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{WorkerConfig, connection::Commands};
use crate::{
    connection::backoff,
    model::{Timestamp, WorkerState, keys},
};

/// At most 20 heartbeats a second for changes of state: short jobs would else cost more in heartbeats than in work.
const MIN_GAP: Duration = Duration::from_millis(50);
/// Heartbeats kept in the history stream.
const HISTORY: usize = 10_000;

/// What the worker does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) state: WorkerState,
    /// Jobs in progress.
    pub(super) busy: usize,
    /// Jobs finished, failed ones included.
    pub(super) processed: u64,
    pub(super) failed: u64,
}

/// Writes the heartbeats of one worker.
pub(super) struct Heartbeat {
    config: WorkerConfig,
    commands: Arc<Commands>,
    status: watch::Receiver<Status>,
    started: Instant,
    hostname: String,
}

impl Heartbeat {
    pub(super) fn new(config: WorkerConfig, commands: Arc<Commands>, status: watch::Receiver<Status>) -> Self {
        let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self { config, commands, status, started: Instant::now(), hostname }
    }

    /// Writes the first heartbeat and tells the scaler of a new worker. Before the first job is taken: a consumer without
    /// a heartbeat counts as gone.
    pub(super) async fn announce(&mut self) -> Result<(), String> {
        self.write(true).await
    }

    /// Writes a heartbeat each interval and at each change of state until `stop`. A failed one is tried again, with backoff.
    pub(super) async fn run(&mut self, stop: &CancellationToken) {
        let mut last = Instant::now();
        let mut written = self.status.borrow().state;
        let mut retries = backoff();
        let mut retry_at = None;
        while !stop.is_cancelled() {
            let due = retry_at.unwrap_or(last + self.config.heartbeat_interval);
            let changed = self.status.wait_for(|status| status.state != written).map(drop);
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep_until(due) => {}
                () = changed, if retry_at.is_none() => {
                    sleep_until(last + MIN_GAP).await;
                }
            }
            let state = self.status.borrow().state;
            last = Instant::now();
            match self.write(false).await {
                Ok(()) => {
                    written = state;
                    retries = backoff();
                    retry_at = None;
                }
                Err(error) => {
                    tracing::warn!(%error, "heartbeat failed; the worker counts as gone if this lasts");
                    retry_at = retries.next().map(|wait| Instant::now() + wait);
                }
            }
        }
    }

    /// The last words: into the history, the hash removed, the consumer too if nothing is pending on it, and the scaler told.
    pub(super) async fn leave(&self) -> Result<(), String> {
        let mut connection = self.commands.get().await.map_err(|error| error.to_string())?;
        let fields = self.fields();
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        history(&mut pipeline, &fields);
        pipeline.cmd("DEL").arg(self.key()).ignore();
        pipeline.exec_async(&mut connection).await.map_err(|error| error.to_string())?;
        let name = self.config.id.as_str();
        // Only tidies up: other workers do it later if this one can't.
        if let Err(error) = self.config.consumer().remove_if_done(&mut connection, &self.config.worker_type, name).await
        {
            tracing::debug!(%error, "consumer stays");
        }
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(keys::WORKER_EVENTS_CHANNEL).arg(self.config.worker_type.as_str());
        publish.exec_async(&mut connection).await.map_err(|error| error.to_string())
    }

    async fn write(&self, announce: bool) -> Result<(), String> {
        let mut connection = self.commands.get().await.map_err(|error| error.to_string())?;
        let fields = self.fields();
        let ttl = self.config.lapse().as_millis().to_string();
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        pipeline.cmd("HSET").arg(self.key()).arg(&fields).ignore();
        pipeline.cmd("PEXPIRE").arg(self.key()).arg(ttl).ignore();
        history(&mut pipeline, &fields);
        if announce {
            pipeline.cmd("PUBLISH").arg(keys::WORKER_EVENTS_CHANNEL).arg(self.config.worker_type.as_str()).ignore();
        }
        let written = pipeline.exec_async(&mut connection).await;
        if let Err(error) = &written
            && (error.is_io_error() || error.is_timeout() || error.is_unrecoverable_error())
        {
            self.commands.discard().await;
        }
        written.map_err(|error| error.to_string())
    }

    fn key(&self) -> String {
        keys::heartbeat(&self.config.worker_type, &self.config.id)
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let status = *self.status.borrow();
        let now = Timestamp::wall().0;
        let mut fields = vec![
            ("worker_id", self.config.id.to_string()),
            ("worker_type", self.config.worker_type.to_string()),
            ("state", status.state.as_str().to_owned()),
            ("timestamp", format!("{}.{:03}", now / 1_000, now % 1_000)),
            ("uptime_seconds", self.started.elapsed().as_secs().to_string()),
            ("jobs_in_progress", status.busy.to_string()),
            ("jobs_processed", status.processed.to_string()),
            ("jobs_failed", status.failed.to_string()),
            ("sessions", "0".to_owned()),
            ("concurrency", self.config.concurrency.to_string()),
            ("hostname", self.hostname.clone()),
            ("pid", std::process::id().to_string()),
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ];
        fields.extend(resident_bytes().map(|bytes| ("rss_bytes", bytes.to_string())));
        fields
    }
}

fn history(pipeline: &mut Pipeline, fields: &[(&'static str, String)]) {
    pipeline.cmd("XADD").arg(keys::WORKER_STATUS).arg("MAXLEN").arg("~").arg(HISTORY).arg("*").arg(fields).ignore();
}

/// Resident memory of this process; `None` where there is no `/proc`.
fn resident_bytes() -> Option<u64> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?.split_whitespace().nth(1)?.parse::<u64>().ok()?;
    Some(pages * u64::try_from(rustix::param::page_size()).ok()?)
}
