//! The run loop: takes no more jobs than there are free slots, runs them, settles them, finds lost ones, and drains when
//! asked to leave. Redis may go away at any time: jobs go on, and are settled when it is back.

use std::{collections::HashSet, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use redis::aio::MultiplexedConnection;
use serde_json::Value;
use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    WorkerConfig,
    connection::Commands,
    handlers::Handler,
    heartbeat::{Heartbeat, Status},
};
use crate::{
    broker::{BrokerError, Consumer, Delivery, Job, JobResult, method_of},
    connection::{ConnectionError, RedisTarget, backoff},
    model::WorkerState,
};

/// How long one read waits for a job. Bounds how late lost jobs are looked for, and how long a drain takes where the user
/// may not run CLIENT UNBLOCK.
const BLOCK: Duration = Duration::from_secs(2);

/// Why a worker can't work.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// Redis refuses it, so that trying again is of no use.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

/// What a worker did until it left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerReport {
    /// Jobs finished, failed ones included.
    pub processed: u64,
    /// Jobs whose handler failed.
    pub failed: u64,
    /// Jobs given up because the drain time was over: other workers do them again.
    pub abandoned: usize,
}

/// Works until `stop`, then finishes its jobs and leaves.
pub async fn run(
    config: WorkerConfig,
    target: RedisTarget,
    handler: Arc<dyn Handler>,
    stop: CancellationToken,
) -> Result<WorkerReport, WorkerError> {
    let (status, watching) = watch::channel(Status { state: WorkerState::Idle, busy: 0, processed: 0, failed: 0 });
    let commands = Arc::new(Commands::new(target.clone()));
    let mut heartbeat = Heartbeat::new(config.clone(), Arc::clone(&commands), watching);
    let mut worker = Worker {
        consumer: config.consumer(),
        blocking: None,
        recover_at: Instant::now(),
        commands: Arc::clone(&commands),
        in_hand: HashSet::new(),
        jobs: JoinSet::new(),
        config,
        target,
        handler,
        status,
        stop,
    };
    if !worker.arrive(&mut heartbeat).await? {
        return Ok(worker.report());
    }
    let drained = CancellationToken::new();
    let work = async {
        worker.work().await;
        worker.drain().await;
        drained.cancel();
    };
    tokio::join!(work, heartbeat.run(&drained));
    worker.set_state(WorkerState::Shutdown);
    if let Err(error) = heartbeat.leave().await {
        tracing::warn!(error, "could not say goodbye; the heartbeat expires by itself");
    }
    Ok(worker.report())
}

struct Worker {
    config: WorkerConfig,
    target: RedisTarget,
    consumer: Consumer,
    handler: Arc<dyn Handler>,
    stop: CancellationToken,
    status: watch::Sender<Status>,
    commands: Arc<Commands>,
    blocking: Option<Blocking>,
    recover_at: Instant,
    /// Entries delivered to us and not yet settled.
    in_hand: HashSet<String>,
    /// One task for each of those; answers the entry's id.
    jobs: JoinSet<String>,
}

/// The connection that waits for jobs.
struct Blocking {
    connection: MultiplexedConnection,
    /// For CLIENT UNBLOCK; `None` if this user may not ask.
    id: Option<u64>,
}

impl Worker {
    /// Waits until Redis knows of this worker; `false` if asked to leave before.
    async fn arrive(&mut self, heartbeat: &mut Heartbeat) -> Result<bool, WorkerError> {
        for wait in backoff() {
            match self.commands.get().await {
                Err(error @ (ConnectionError::Refused { .. } | ConnectionError::Url { .. })) => {
                    return Err(error.into());
                }
                Err(error) => tracing::warn!(%error, "waiting for redis"),
                Ok(_) => match heartbeat.announce().await {
                    Ok(()) => break,
                    Err(error) => tracing::warn!(error, "can't write the heartbeat"),
                },
            }
            tokio::select! {
                () = self.stop.cancelled() => return Ok(false),
                () = sleep(wait) => {}
            }
        }
        let WorkerConfig { worker_type, id, queue, group, concurrency, .. } = &self.config;
        tracing::info!(%worker_type, %id, queue, group, concurrency, "worker ready");
        Ok(true)
    }

    async fn work(&mut self) {
        let mut waits = backoff();
        while !self.stop.is_cancelled() {
            self.reap();
            if self.free() == 0 {
                self.wait_for_slot().await;
                continue;
            }
            match self.take().await {
                Ok(deliveries) => {
                    waits = backoff();
                    self.leave_error_state();
                    for delivery in deliveries {
                        self.start(delivery);
                    }
                }
                Err(problem) => {
                    tracing::warn!(error = problem, queue = self.consumer.stream, "can't take jobs; trying again");
                    self.blocking = None;
                    self.recover_at = Instant::now();
                    if self.in_hand.is_empty() {
                        self.set_state(WorkerState::Error);
                    }
                    let stop = self.stop.clone();
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = sleep(waits.next().unwrap_or(BLOCK)) => {}
                    }
                }
            }
        }
    }

    /// Lost jobs when it is time to look for them, else new ones. A group that is missing is made, and that is no error.
    async fn take(&mut self) -> Result<Vec<Delivery>, String> {
        let taken = if Instant::now() >= self.recover_at { self.recover().await } else { self.read().await };
        match taken {
            Err(TakeError::Broker(error)) if error.is_missing_group() => {
                tracing::info!(
                    queue = self.consumer.stream,
                    group = self.consumer.group,
                    "group is missing: making it"
                );
                let mut connection = self.commands.get().await.map_err(|error| error.to_string())?;
                self.consumer.ensure_group(&mut connection).await.map_err(|error| error.to_string())?;
                Ok(Vec::new())
            }
            Err(error) => {
                if error.is_connection_lost() {
                    self.commands.discard().await;
                }
                Err(error.to_string())
            }
            Ok(deliveries) => Ok(deliveries),
        }
    }

    async fn recover(&mut self) -> Result<Vec<Delivery>, TakeError> {
        let mut connection = self.commands.get().await?;
        let free = self.free();
        let mut deliveries = self.consumer.recover_own(&mut connection, &self.in_hand, free).await?;
        if !deliveries.is_empty() {
            tracing::warn!(jobs = deliveries.len(), "taking up own jobs that got lost on the way");
        }
        let (room, lapse) = (free - deliveries.len(), self.config.lapse());
        let recovered = self.consumer.recover_from_gone(&mut connection, &self.config.worker_type, room, lapse).await?;
        if !recovered.deliveries.is_empty() {
            tracing::warn!(jobs = recovered.deliveries.len(), from = ?recovered.from, "taking over jobs of gone workers");
        }
        deliveries.extend(recovered.deliveries);
        // A full house may have left some behind: look again as soon as there is room.
        if deliveries.len() < free {
            self.recover_at = Instant::now() + self.config.heartbeat_interval;
        }
        Ok(deliveries)
    }

    async fn read(&mut self) -> Result<Vec<Delivery>, TakeError> {
        let free = self.free();
        if self.blocking.is_none() {
            self.blocking = Some(connect_blocking(&self.target).await?);
        }
        let blocking = self.blocking.as_mut().expect("it was set just above");
        let id = blocking.id;
        let limit = BLOCK + self.target.response_timeout();
        let read = timeout(limit, self.consumer.read(&mut blocking.connection, free, BLOCK));
        tokio::pin!(read);
        let answer = tokio::select! {
            biased;
            answer = &mut read => answer,
            () = self.stop.cancelled() => {
                // The read is ended, not dropped: a job delivered in this moment is ours to do.
                unblock(&self.commands, id).await;
                read.await
            }
        };
        answer.map_err(|_| TakeError::NoAnswer(limit))?.map_err(TakeError::Broker)
    }

    /// Starts a job. Its slot is taken until it is settled.
    fn start(&mut self, delivery: Delivery) {
        if !self.in_hand.insert(delivery.entry.clone()) {
            return;
        }
        self.status.send_modify(|status| {
            status.busy += 1;
            status.state = WorkerState::Busy;
        });
        let (handler, status) = (Arc::clone(&self.handler), self.status.clone());
        let (consumer, commands) = (self.consumer.clone(), Arc::clone(&self.commands));
        let worker_type = self.config.worker_type.to_string();
        self.jobs.spawn(async move {
            let ok = match &delivery.job {
                Ok(job) => {
                    let outcome = perform(&*handler, &worker_type, job).await;
                    let result = JobResult::new(&job.id, outcome);
                    let reply_to = job.reply_to.as_deref();
                    settle(&commands, &delivery, Settlement::Finish { consumer: &consumer, reply_to, result: &result })
                        .await;
                    result.ok
                }
                Err(reason) => {
                    let reason = reason.to_string();
                    tracing::warn!(entry = delivery.entry, reason, "entry is no job: moving it to the dead letters");
                    settle(&commands, &delivery, Settlement::Bury { consumer: &consumer, reason: &reason }).await;
                    false
                }
            };
            status.send_modify(|status| count(status, ok));
            delivery.entry
        });
    }

    /// Frees the slots of jobs that are settled.
    fn reap(&mut self) {
        while let Some(settled) = self.jobs.try_join_next() {
            self.book(settled);
        }
    }

    async fn wait_for_slot(&mut self) {
        let stop = self.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            Some(settled) = self.jobs.join_next() => self.book(settled),
        }
    }

    fn book(&mut self, settled: Result<String, JoinError>) {
        let entry =
            settled.expect("a handler's panic is caught in its task, and no task is cancelled before the last book");
        self.in_hand.remove(&entry);
    }

    /// Finishes the jobs in hand, for as long as the drain may take.
    async fn drain(&mut self) {
        self.blocking = None;
        self.set_state(WorkerState::Draining);
        tracing::info!(jobs = self.in_hand.len(), "draining");
        let limit = self.config.drain_timeout;
        let finishing = async {
            while let Some(settled) = self.jobs.join_next().await {
                self.book(settled);
            }
        };
        if timeout(limit, finishing).await.is_err() {
            tracing::error!(
                jobs = self.in_hand.len(),
                ?limit,
                "drain time is over: leaving jobs for others to do again"
            );
            self.jobs.shutdown().await;
        }
    }

    fn free(&self) -> usize {
        self.config.concurrency.saturating_sub(self.in_hand.len())
    }

    fn set_state(&self, state: WorkerState) {
        self.status.send_modify(|status| status.state = state);
    }

    fn leave_error_state(&self) {
        self.status.send_if_modified(|status| {
            let was = status.state == WorkerState::Error;
            if was {
                status.state = WorkerState::Idle;
            }
            was
        });
    }

    fn report(&self) -> WorkerReport {
        let status = *self.status.borrow();
        WorkerReport { processed: status.processed, failed: status.failed, abandoned: self.in_hand.len() }
    }
}

/// Why no jobs could be taken.
#[derive(Debug, thiserror::Error)]
enum TakeError {
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error("redis did not answer within {0:?}")]
    NoAnswer(Duration),
}

impl TakeError {
    fn is_connection_lost(&self) -> bool {
        match self {
            Self::Connection(_) | Self::NoAnswer(_) => true,
            Self::Broker(error) => error.is_connection_lost(),
        }
    }
}

async fn connect_blocking(target: &RedisTarget) -> Result<Blocking, TakeError> {
    let mut connection = target.connect_without_timeout().await?;
    let mut ask = redis::cmd("CLIENT");
    ask.arg("ID");
    let answer = timeout(target.response_timeout(), ask.query_async(&mut connection)).await;
    let id = answer.map_err(|_| TakeError::NoAnswer(target.response_timeout()))?.ok();
    Ok(Blocking { connection, id })
}

/// Ends a blocked read at once. Where that is not allowed it ends by itself.
async fn unblock(commands: &Commands, id: Option<u64>) {
    if let (Some(id), Ok(mut connection)) = (id, commands.get().await) {
        let mut unblock = redis::cmd("CLIENT");
        unblock.arg("UNBLOCK").arg(id);
        if let Err(error) = unblock.exec_async(&mut connection).await {
            tracing::debug!(%error, "can't end the blocked read; waiting for it");
        }
    }
}

/// Counts a job that was settled. In the job's own task, so that a worker that waits for jobs is seen idle at once.
fn count(status: &mut Status, ok: bool) {
    status.busy -= 1;
    status.processed += 1;
    status.failed += u64::from(!ok);
    if status.busy == 0 && status.state == WorkerState::Busy {
        status.state = WorkerState::Idle;
    }
}

async fn perform(handler: &dyn Handler, worker_type: &str, job: &Job) -> Result<Value, String> {
    let handling = async { handler.handle(method_of(&job.job_type, worker_type), job).await };
    let outcome = match AssertUnwindSafe(handling).catch_unwind().await {
        Ok(outcome) => outcome.map_err(|error| error.to_string()),
        Err(panic) => Err(format!("the handler of `{}` panicked: {}", job.job_type, panic_text(&*panic))),
    };
    if let Err(error) = &outcome {
        tracing::warn!(job = job.id, job_type = job.job_type, error, "job failed");
    }
    outcome
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// How a delivery ends.
#[derive(Clone, Copy)]
enum Settlement<'a> {
    Finish { consumer: &'a Consumer, reply_to: Option<&'a str>, result: &'a JobResult },
    Bury { consumer: &'a Consumer, reason: &'a str },
}

/// Settles a delivery, trying until Redis has taken it. The caller bounds the time by dropping the task.
async fn settle(commands: &Commands, delivery: &Delivery, mut how: Settlement<'_>) {
    for wait in backoff() {
        let problem = match commands.get().await {
            Err(error) => error.to_string(),
            Ok(mut connection) => {
                let settled = match how {
                    Settlement::Finish { consumer, reply_to, result } => {
                        consumer.finish(&mut connection, &delivery.entry, reply_to, result).await
                    }
                    Settlement::Bury { consumer, reason } => consumer.bury(&mut connection, delivery, reason).await,
                };
                let Err(error) = settled else { return };
                if error.is_connection_lost() {
                    commands.discard().await;
                }
                if let (Settlement::Finish { reply_to: key @ Some(_), .. }, true) = (&mut how, error.is_wrong_type()) {
                    tracing::warn!(
                        entry = delivery.entry,
                        reply_to = *key,
                        "result can't be delivered: its key is no list"
                    );
                    *key = None;
                }
                error.to_string()
            }
        };
        tracing::warn!(entry = delivery.entry, error = problem, "job is done but not settled; trying again");
        sleep(wait).await;
    }
}
