//! Writes to Redis that the worker lives and what it does: a hash with a TTL, and a stream for the history. The same
//! round trip reads whether the worker is asked to drain; that is the only part of the worker's status that this module
//! changes.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt;
use redis::{RedisError, RedisResult};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    heartbeat_script::{self as script, Fields, Sent},
    resources::Resources,
};
use crate::{
    broker::{DRAIN, refuses_writes},
    connection::{Connection, backoff, is_lost},
    model::{Timestamp, WorkerState, keys},
    worker::{execute::Executor, intake::LOOKED_AT, status::Status, upkeep::Upkeep},
};

/// Minimum time between two heartbeats: at most 20 a second for changes of state. Otherwise short jobs would cost more
/// in heartbeats than in work.
const MIN_GAP: Duration = Duration::from_millis(50);

/// Writes the heartbeats of one worker.
pub(in crate::worker) struct Heartbeat {
    executor: Arc<Executor>,
    status: watch::Receiver<Status>,
    /// Changes when the control key may have changed.
    control: watch::Receiver<()>,
    resources: Resources,
    started: Instant,
    hostname: String,
    /// Whether the scaler was notified of this worker.
    announced: bool,
    /// Whether the last heartbeat said that this worker has no room, and that a job waits for that.
    said: (bool, bool),
    /// Whether Redis refused the last heartbeat.
    refused: bool,
    /// How heartbeats are sent.
    way: Way,
}

/// How heartbeats are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// In one script, which also reports what there is to do on the queues.
    Script,
    /// In a transaction: the keys are on several servers, or scripts are refused.
    Transaction,
}

/// Why a heartbeat was not written.
#[derive(Debug, thiserror::Error)]
pub(in crate::worker) enum HeartbeatError {
    /// Redis refuses writes; it answers other commands.
    #[error("{0}")]
    Refused(RedisError),
    #[error("{0}")]
    Failed(String),
}

impl Heartbeat {
    pub(in crate::worker) fn new(executor: Arc<Executor>) -> Self {
        let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let way = if executor.commands.is_one_server() { Way::Script } else { Way::Transaction };
        let (status, control) = (executor.status.subscribe(), executor.commands.wakes().control.subscribe());
        Self {
            executor,
            status,
            control,
            resources: Resources::new(),
            started: Instant::now(),
            hostname,
            announced: false,
            said: (false, false),
            refused: false,
            way,
        }
    }

    /// Writes the first heartbeat and notifies the scaler of a new worker, before the worker takes its first job: a
    /// consumer without a heartbeat counts as gone. If Redis refuses writes, the worker starts without a heartbeat: its
    /// claims are still renewed where that needs no memory, and where it does, no other worker can claim its jobs
    /// either.
    pub(in crate::worker) async fn announce(&mut self) -> Result<(), HeartbeatError> {
        match self.write().await {
            Err(HeartbeatError::Refused(error)) => {
                self.tell_refused(&error);
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// Logs a refusal once for each time that Redis begins to refuse heartbeats.
    fn tell_refused(&mut self, error: &RedisError) {
        if !std::mem::replace(&mut self.refused, true) {
            tracing::warn!(%error, "redis refuses heartbeats; going on without");
        }
    }

    /// Writes a heartbeat at each interval, at each change of state and on each wake-up, until `stop`. Retries a failed
    /// heartbeat with backoff.
    pub(in crate::worker) async fn run(&mut self, stop: &CancellationToken) {
        let mut last = Instant::now();
        let mut written = self.told();
        let mut retries = backoff();
        let mut retry_at = None;
        while !stop.is_cancelled() {
            let due = retry_at.unwrap_or(last + self.executor.config.heartbeat_interval);
            let executor = Arc::clone(&self.executor);
            let changed = self.status.wait_for(|status| told(status, &executor) != written).map(drop);
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep_until(due) => {}
                () = changed, if retry_at.is_none() => sleep_until(last + MIN_GAP).await,
                _ = self.control.changed(), if retry_at.is_none() => sleep_until(last + MIN_GAP).await,
            }
            self.control.mark_unchanged();
            let state = self.told();
            last = Instant::now();
            match self.write().await {
                Ok(()) => {
                    if std::mem::take(&mut self.refused) {
                        tracing::info!("redis takes heartbeats again");
                    }
                    written = state;
                    retries = backoff();
                    retry_at = None;
                }
                Err(HeartbeatError::Refused(error)) => {
                    self.tell_refused(&error);
                    retry_at = Some(Instant::now() + self.executor.config.heartbeat_interval);
                }
                Err(error) => {
                    tracing::warn!(%error, "heartbeat failed; the worker counts as gone if this lasts");
                    // At most one interval: other workers rely on that when they decide which workers are gone.
                    let wait = retries.next().map(|wait| wait.min(self.executor.config.heartbeat_interval));
                    retry_at = wait.map(|wait| Instant::now() + wait);
                }
            }
        }
    }

    /// Writes the last heartbeat to the history, removes the hash and, if nothing is pending on it, the consumer, and
    /// notifies the scaler.
    pub(in crate::worker) async fn leave(&mut self) -> Result<(), String> {
        let mut connection = self.executor.commands.get().await.map_err(|error| error.to_string())?;
        let fields = self.fields().await;
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        script::add_history(&mut pipeline, &fields);
        pipeline.cmd("DEL").arg(self.key()).ignore();
        pipeline.exec_async(&mut connection).await.map_err(|error| error.to_string())?;
        let config = &self.executor.config;
        // Only tidies up: other workers do it later if this one can't.
        for stream in self.executor.queues.streams().iter() {
            let consumer = self.executor.consumer.on(stream);
            let removed = consumer.remove_if_done(&mut connection, &config.worker_type, config.id.as_str()).await;
            if let Err(error) = removed {
                tracing::debug!(%error, "consumer stays");
            }
        }
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(keys::WORKER_EVENTS_CHANNEL).arg(keys::worker_event(&config.worker_type, &config.id));
        publish.exec_async(&mut connection).await.map_err(|error| error.to_string())
    }

    fn told(&self) -> Told {
        told(&self.status.borrow(), &self.executor)
    }

    async fn write(&mut self) -> Result<(), HeartbeatError> {
        let connection = self.executor.commands.get().await;
        let mut connection = connection.map_err(|error| HeartbeatError::Failed(error.to_string()))?;
        let fields = self.fields().await;
        let (_, full, waits) = self.told();
        // The scaler looks at a new worker, and for room when there is none.
        let publish = !self.announced || (full && !self.said.0) || (waits && !self.said.1);
        match self.send(&mut connection, &fields, publish).await {
            Ok((asked, new_fields)) => {
                self.executor.commands.evidence().written(Instant::now(), new_fields < fields.len());
                self.announced = true;
                self.said = (full, waits);
                self.heed(asked.as_deref());
                Ok(())
            }
            Err(error) => {
                self.executor.commands.evidence().broken();
                self.executor.commands.wakes().upkeep.send_replace(None);
                if refuses_writes(&error) {
                    self.keep_alive(&mut connection).await;
                    return Err(HeartbeatError::Refused(error));
                }
                if is_lost(&error) {
                    self.executor.commands.discard().await;
                }
                Err(HeartbeatError::Failed(error.to_string()))
            }
        }
    }

    /// Sends a heartbeat. Returns the value of the control key, and the number of fields that the key did not have
    /// before.
    async fn send(&mut self, connection: &mut Connection, fields: &Fields, publish: bool) -> RedisResult<Sent> {
        let executor = Arc::clone(&self.executor);
        if self.way == Way::Script {
            let queues = self.queues_to_look_at();
            let script = script::heartbeat(&executor, fields, publish, queues.as_deref().unwrap_or_default());
            match script.query_async::<(Option<Vec<u8>>, usize, Vec<i64>)>(connection).await {
                Ok((asked, new_fields, seen)) => {
                    if queues.is_some() {
                        let upkeep = Upkeep::of(Instant::now(), &seen);
                        executor.commands.wakes().upkeep.send_replace(Some(upkeep));
                    }
                    return Ok((asked, new_fields));
                }
                Err(error) if is_lost(&error) || refuses_writes(&error) => return Err(error),
                // Another refusal, of the script itself or by a proxy. If not, the transaction has the same error.
                Err(error) => tracing::debug!(%error, "redis refuses the script of the heartbeat"),
            }
        }
        let sent = script::transaction(&executor, fields, publish).query_async(connection).await?;
        if std::mem::replace(&mut self.way, Way::Transaction) == Way::Script {
            tracing::info!("heartbeats go on without scripts, which redis refuses; see docs/protocol.md");
        }
        executor.commands.wakes().upkeep.send_replace(None);
        Ok(sent)
    }

    /// Returns the queues that the next heartbeat looks at: at each interval all of them, if they are few. `None`: none
    /// now.
    fn queues_to_look_at(&self) -> Option<Vec<Arc<str>>> {
        let streams = self.executor.queues.streams();
        let interval = self.executor.config.heartbeat_interval;
        let seen = *self.executor.commands.wakes().upkeep.borrow();
        // With a margin, because a heartbeat may be sent a little early.
        let is_due = seen.is_none_or(|seen| seen.at.elapsed() >= interval.mul_f64(0.9));
        (is_due && streams.len() <= LOOKED_AT).then(|| streams.to_vec())
    }

    /// Does the part of a heartbeat that a full Redis allows: extends the TTL of the existing one, and reads the
    /// control key.
    async fn keep_alive(&mut self, connection: &mut Connection) {
        let config = &self.executor.config;
        let mut read = redis::cmd("GET");
        match read.arg(keys::control(&config.worker_type, &config.id)).query_async::<Option<Vec<u8>>>(connection).await
        {
            Ok(asked) => self.heed(asked.as_deref()),
            Err(error) => tracing::debug!(%error, "the control key can't be read"),
        }
        let mut extend = redis::cmd("PEXPIRE");
        extend.arg(self.key()).arg(self.executor.config.lapse().as_millis().to_string());
        if let Err(error) = extend.exec_async(connection).await {
            tracing::debug!(%error, "the heartbeat can't be kept");
        }
    }

    /// Applies the value of the control key. A change of state causes the next heartbeat.
    fn heed(&self, asked: Option<&[u8]>) {
        let drain = asked == Some(DRAIN.as_bytes());
        let changed = self
            .executor
            .status
            .send_if_modified(|status| std::mem::replace(&mut status.drain_requested, drain) != drain);
        if changed && drain {
            tracing::info!("asked to drain: taking no more jobs");
        } else if changed {
            tracing::info!("no longer asked to drain: taking jobs again");
        }
    }

    fn key(&self) -> String {
        script::key(&self.executor)
    }

    async fn fields(&mut self) -> Fields {
        let status = *self.status.borrow();
        let now = Timestamp::wall().0;
        let config = &self.executor.config;
        let mut fields = vec![
            ("worker_id", config.id.to_string()),
            ("worker_type", config.worker_type.to_string()),
            (keys::STATE_FIELD, status.state().as_str().to_owned()),
            ("timestamp", format!("{}.{:03}", now / 1_000, now % 1_000)),
            ("uptime_seconds", self.started.elapsed().as_secs().to_string()),
            ("jobs_in_progress", status.busy.to_string()),
            ("jobs_processed", status.processed.to_string()),
            ("jobs_failed", status.failed.to_string()),
            (keys::SESSIONS_FIELD, status.sessions.to_string()),
            ("concurrency", config.slots().to_string()),
            (keys::CLAIM_FIELD, config.policy.jobs.claim_seconds.to_string()),
            (keys::LISTENS_FIELD, u8::from(self.executor.commands.listens().await).to_string()),
            ("hostname", self.hostname.clone()),
            ("pid", std::process::id().to_string()),
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ];
        if let Some(places) = self.executor.handler.places() {
            let free_slots = self.executor.in_flight.room(config.concurrency);
            fields.push((keys::PLACES_FIELD, places.to_string()));
            fields.push((keys::FREE_SLOTS_FIELD, free_slots.to_string()));
            fields.push((keys::WAITING_FIELD, status.waiting.to_string()));
        }
        fields.extend(config.metrics.map(|at| ("metrics", at.to_string())));
        fields.extend(self.resources.fields());
        fields.extend(self.executor.handler.resources());
        fields
    }
}

/// The part of a heartbeat whose change is written immediately: the state and, for a worker that limits its sessions,
/// whether it has no room for another one, and whether a job waits for a place.
type Told = (WorkerState, bool, bool);

fn told(status: &Status, executor: &Executor) -> Told {
    let has_no_room = |places| status.sessions >= places || executor.in_flight.room(executor.config.concurrency) == 0;
    (status.state(), executor.handler.places().is_some_and(has_no_room), status.waiting > 0)
}
