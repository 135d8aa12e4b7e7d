//! The run loop: takes no more jobs than there are free slots, starts them, and drains on request, or when it has taken
//! as many jobs as it may take. Redis may go away at any time: jobs continue, and are completed when it is back.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    task::{JoinSet, yield_now},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Worker, WorkerConfig,
    background::{self, Heartbeat},
    complete::Completer,
    connection::StepError,
    execute::{Executor, Taken, Tasks, spawn_batches},
    handlers::Handler,
    in_flight::InFlight,
    intake::{Batch, Intake, TakeError},
    progress::ProgressBoard,
    status::{Phase, Status},
};
use crate::{
    broker::{Delivery, RawEntry},
    connection::{Connection, ConnectionError, backoff},
    model::QueuePattern,
    telemetry::JobMetrics,
};

/// Maximum groups of ended jobs that wait for completion; more than one batch, so that the completer never waits for
/// them.
const ENDED: usize = 1_024;
/// Pause after an error if the backoff has none left.
const PAUSE: Duration = Duration::from_secs(2);
/// Maximum part of the drain time that is left to the handler for releasing what it holds.
const MAX_SHUTDOWN: Duration = Duration::from_secs(5);

/// Why a worker can't work.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// Redis refuses the connection, so that trying again is useless.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

/// What a worker did until it left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerReport {
    /// Jobs finished, including failed ones.
    pub processed: u64,
    /// Jobs whose handler failed.
    pub failed: u64,
    /// Jobs given up because the drain time was over: other workers do them again.
    pub abandoned: usize,
}

/// Works until `stop` or until its last job has ended, then finishes its jobs and leaves.
pub(super) async fn run(
    worker: Worker,
    handler: Arc<dyn Handler>,
    stop: CancellationToken,
) -> Result<WorkerReport, WorkerError> {
    let Worker { config, target, commands, queues, status, sessions } = worker;
    let (finished, ended) = mpsc::channel(ENDED);
    let consumer = config.consumer();
    let in_flight = Arc::new(InFlight::new(config.max_jobs));
    let completer = Completer {
        consumer: consumer.clone(),
        commands: Arc::clone(&commands),
        in_flight: Arc::clone(&in_flight),
        status: status.clone(),
    };
    let tasks = Arc::new(Tasks::default());
    let weak = Arc::downgrade(&tasks);
    let metrics = JobMetrics::new(config.worker_type.clone());
    let executor = Executor {
        config,
        consumer,
        queues,
        handler,
        sessions,
        commands,
        in_flight,
        progress: Arc::new(ProgressBoard::default()),
        status,
        finished,
        tasks: weak,
        metrics,
    };
    let executor = Arc::new(executor);
    let intake = Intake::new(&executor, target);
    let mut heartbeat = Heartbeat::new(Arc::clone(&executor));
    let mut runtime = Runtime::new(Arc::clone(&executor), intake, stop, tasks);
    if !runtime.arrive(&mut heartbeat).await? {
        return Ok(runtime.report());
    }
    let mut settling = JoinSet::new();
    settling.spawn(completer.run(ended));
    let left = CancellationToken::new();
    let work = async {
        runtime.work().await;
        runtime.leave().await;
        left.cancel();
    };
    tokio::join!(work, heartbeat.run(&left), background::run(&executor, &left));
    settling.shutdown().await;
    if let Err(error) = heartbeat.leave().await {
        tracing::warn!(error, "could not say goodbye; the heartbeat expires by itself");
    }
    Ok(runtime.report())
}

struct Runtime {
    executor: Arc<Executor>,
    intake: Intake,
    stop: CancellationToken,
    /// Changes when jobs were handed over to this worker.
    handed_over: watch::Receiver<()>,
    /// Changes when the connection for commands is a new one.
    connected: watch::Receiver<()>,
    status: watch::Receiver<Status>,
    jobs: Arc<Tasks>,
    /// Jobs that were not done when the drain ended.
    abandoned: usize,
}

impl Runtime {
    fn new(executor: Arc<Executor>, intake: Intake, stop: CancellationToken, jobs: Arc<Tasks>) -> Self {
        let (wakes, status) = (executor.commands.wakes(), executor.status.subscribe());
        let (handed_over, connected) = (wakes.jobs.subscribe(), wakes.connected.subscribe());
        Self { executor, intake, stop, handed_over, connected, status, jobs, abandoned: 0 }
    }

    /// Waits until Redis knows this worker; returns `false` if asked to leave before.
    async fn arrive(&mut self, heartbeat: &mut Heartbeat) -> Result<bool, WorkerError> {
        for wait in backoff() {
            match self.executor.commands.get().await {
                Err(error @ (ConnectionError::Refused { .. } | ConnectionError::Url { .. })) => {
                    return Err(error.into());
                }
                Err(error) => tracing::warn!(%error, "waiting for redis"),
                Ok(_) => match heartbeat.announce().await {
                    Ok(()) => break,
                    Err(error) => tracing::warn!(%error, "can't write the heartbeat"),
                },
            }
            tokio::select! {
                () = self.stop.cancelled() => return Ok(false),
                () = sleep(wait) => {}
            }
        }
        self.connected.mark_unchanged();
        let WorkerConfig { worker_type, id, queues, group, concurrency, max_jobs, .. } = &self.executor.config;
        let all = queues.named().chain(queues.patterns.iter().map(QueuePattern::as_str));
        let queue = all.collect::<Vec<_>>().join(" ");
        tracing::info!(%worker_type, %id, queue, group, concurrency, max_jobs, "worker ready");
        Ok(true)
    }

    /// Takes and starts jobs until `stop`, or until it may take no more and all that it took have ended, however long
    /// they take.
    async fn work(&mut self) {
        let mut waits = backoff();
        while !self.stop.is_cancelled() {
            if self.executor.is_done() {
                let max_jobs = self.executor.config.max_jobs;
                tracing::info!(max_jobs, "last job finished: leaving");
                return;
            }
            self.jobs.reap();
            match self.take().await {
                Ok(batch) => {
                    waits = backoff();
                    self.leave_trouble();
                    match batch {
                        Batch::Unopened(entries) if !self.executor.handler.keeps_sessions() => {
                            self.start_unopened(entries);
                        }
                        Batch::Unopened(entries) => self.start(self.executor.consumer.open(entries).collect()),
                        Batch::Opened(deliveries) => self.start(deliveries),
                    }
                }
                Err(error) => {
                    self.trouble(&error);
                    let stop = self.stop.clone();
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = sleep(waits.next().unwrap_or(PAUSE)) => {}
                    }
                }
            }
        }
    }

    /// Returns the next jobs to start; often none.
    async fn take(&mut self) -> Result<Batch, TakeError> {
        self.intake.give_back().await;
        let room = self.gathered_room().await;
        if self.handed_over.has_changed().unwrap_or(false) {
            self.handed_over.mark_unchanged();
            return self.intake.own().await.map(Batch::Opened);
        }
        if self.intake.recovery_is_due(room) {
            return self.intake.recover(room).await.map(Batch::Opened);
        }
        if room == 0 {
            self.wait_for_change().await;
            return Ok(Batch::Opened(Vec::new()));
        }
        let recovery = self.intake.until_recovery();
        let interrupted = async {
            tokio::select! {
                () = recovery => {}
                () = self.stop.cancelled() => {}
                _ = self.handed_over.changed() => self.handed_over.mark_changed(),
                // The other connection was lost: this one may hang, too.
                _ = self.connected.changed() => {}
                _ = self.status.wait_for(|status| !status.takes_jobs()) => {}
                // There may be another suspect job to recover.
                () = self.executor.in_flight.suspect_ended() => {}
            }
        };
        // Boxed: it is the largest part of the whole run, and most of it belongs to workers with several queues.
        Box::pin(self.intake.read(room, interrupted)).await
    }

    /// Waits for room, for jobs handed over, for the end of the last session, or for something else to do.
    async fn wait_for_change(&mut self) {
        let executor = &self.executor;
        let takes_jobs = executor.status.borrow().takes_jobs();
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.executor.in_flight.changed() => {}
            _ = self.handed_over.changed() => self.handed_over.mark_changed(),
            _ = self.status.wait_for(|status| status.takes_jobs() != takes_jobs || executor.is_done()) => {}
            () = self.intake.until_recovery() => {}
        }
    }

    /// Returns how many jobs may be taken that belong to no session open here.
    fn room(&self) -> usize {
        if self.executor.status.borrow().takes_jobs() {
            self.executor.in_flight.room(self.executor.config.concurrency)
        } else {
            0
        }
    }

    /// Returns the room, after waiting for jobs that end in this moment, up to half of the slots. A read costs more
    /// than many jobs, and the other half keeps working meanwhile.
    async fn gathered_room(&self) -> usize {
        let enough = self.executor.config.concurrency.div_ceil(2);
        let (mut before, mut room) = (0, self.room());
        while (before + 1..enough).contains(&room) {
            before = room;
            yield_now().await;
            room = self.room();
        }
        room
    }

    /// Starts new jobs of a handler without sessions; there is room for all of them. The executor parses them.
    fn start_unopened(&mut self, mut entries: Vec<RawEntry>) {
        let own = self.executor.consumer.stream.as_str().into();
        entries.retain(|entry| self.executor.in_flight.take(&own, &entry.entry, entry.number));
        self.executor.in_flight.count_jobs(entries.len());
        self.executor.begin(entries.len(), entries.len());
        spawn_batches(&self.executor, entries);
    }

    /// Starts jobs. Jobs for which there is no room are left: new ones to other workers, the others to the next
    /// recovery. Jobs of sessions that are open here do not count towards `max_jobs`.
    fn start(&mut self, deliveries: Vec<Delivery>) {
        let mut room = self.room();
        let (mut alone, mut of_sessions) = (Vec::with_capacity(deliveries.len()), Vec::new());
        let mut counted = 0;
        for delivery in deliveries {
            let session = self.executor.session(&delivery).map(str::to_owned);
            let is_known = session.as_ref().is_some_and(|session| self.executor.sessions.is_known(session));
            if !is_known {
                let Some(left) = room.checked_sub(1) else {
                    self.intake.left_behind(delivery);
                    continue;
                };
                room = left;
            }
            if !self.executor.in_flight.take(&delivery.stream, &delivery.entry, delivery.number) {
                continue;
            }
            counted += usize::from(!is_known);
            let needs_slot = self.executor.needs_slot(session.as_deref());
            match session {
                None => alone.push(Taken { delivery, needs_slot }),
                Some(session) => {
                    if let Some(delivery) = self.executor.in_flight.begin_turn(&session, delivery) {
                        of_sessions.push((session, Taken { delivery, needs_slot }));
                    }
                }
            }
        }
        let slots = alone.len() + of_sessions.iter().filter(|(_, taken)| taken.needs_slot).count();
        self.executor.in_flight.count_jobs(counted);
        self.executor.begin(alone.len() + of_sessions.len(), slots);
        for (session, taken) in of_sessions {
            self.jobs.spawn(Arc::clone(&self.executor).work(session, taken));
        }
        for taken in alone {
            self.jobs.spawn(Arc::clone(&self.executor).work_alone(taken));
        }
    }

    /// Finishes the jobs in flight and serves the open sessions until they are closed, for at most the drain time.
    async fn leave(&mut self) {
        self.intake.give_back().await;
        self.intake.close();
        self.set_phase(Phase::Leaving);
        let (jobs, sessions) = (self.executor.in_flight.count(), self.executor.sessions.count());
        tracing::info!(jobs, sessions, "draining");
        let limit = self.executor.config.drain_timeout;
        let shutdown = (limit / 10).min(MAX_SHUTDOWN);
        if timeout(limit.saturating_sub(shutdown), self.finish()).await.is_err() {
            let (jobs, sessions) = (self.executor.in_flight.count(), self.executor.sessions.count());
            tracing::error!(
                jobs,
                sessions,
                limit_seconds = limit.as_secs(),
                "drain time is over: giving jobs back, closing sessions"
            );
        }
        self.jobs.shutdown().await;
        self.abandoned = self.executor.in_flight.count();
        if timeout(shutdown.max(Duration::from_secs(1)), self.interrupt_jobs()).await.is_err() {
            tracing::warn!("jobs could not be given back in time; others take them over when the claims have run out");
        }
        self.set_phase(Phase::Gone);
        if timeout(shutdown.max(Duration::from_secs(1)), self.executor.handler.shutdown()).await.is_err() {
            tracing::warn!("the handler did not let go of everything in time");
        }
    }

    /// Gives back the jobs that were not done in time, so that others can start them immediately. That does not count
    /// as an attempt.
    async fn interrupt_jobs(&self) {
        for (stream, entries) in self.executor.in_flight.entries() {
            let consumer = self.executor.consumer.on(&stream);
            for (entry, number) in entries {
                let interrupt =
                    async |connection: &mut Connection| consumer.interrupt(connection, &entry, number).await;
                match self.executor.commands.step::<_, StepError>(interrupt).await {
                    Ok(given) => tracing::info!(entry, queue = &*stream, given, "job interrupted and given back"),
                    Err(error) => tracing::warn!(entry, %error, "an interrupted job can't be given back"),
                }
            }
        }
    }

    async fn finish(&mut self) {
        let mut look_at = Instant::now();
        while self.executor.in_flight.count() > 0 || self.executor.sessions.count() > 0 {
            if self.executor.sessions.count() > 0
                && (self.handed_over.has_changed().unwrap_or(false) || Instant::now() >= look_at)
            {
                self.handed_over.mark_unchanged();
                look_at = Instant::now() + self.executor.config.heartbeat_interval;
                match self.intake.own().await {
                    Ok(deliveries) => self.start(deliveries),
                    Err(error) => tracing::warn!(%error, "can't look for jobs of open sessions; trying again"),
                }
            }
            let (jobs, sessions) = (self.executor.in_flight.count(), self.executor.sessions.count());
            if jobs > 0 || sessions > 0 {
                tokio::select! {
                    () = self.executor.in_flight.changed() => {}
                    _ = self.handed_over.changed() => self.handed_over.mark_changed(),
                    _ = self.status.wait_for(|status| status.sessions != sessions) => {}
                    () = sleep_until(look_at), if sessions > 0 => {}
                }
            }
        }
    }

    fn trouble(&mut self, error: &TakeError) {
        tracing::warn!(%error, "can't take jobs; trying again");
        self.intake.start_over();
        self.set_phase(Phase::Trouble);
    }

    fn leave_trouble(&self) {
        self.executor.status.send_if_modified(|status| {
            let was = status.phase == Phase::Trouble;
            if was {
                status.phase = Phase::Working;
            }
            was
        });
    }

    fn set_phase(&self, phase: Phase) {
        self.executor.status.send_modify(|status| status.phase = phase);
    }

    fn report(&self) -> WorkerReport {
        let status = *self.executor.status.borrow();
        WorkerReport { processed: status.processed, failed: status.failed, abandoned: self.abandoned }
    }
}
