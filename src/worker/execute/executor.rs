//! Executes a job after it was taken: finds out whether it belongs to this worker, runs its handler within its time
//! limit, and returns how it ended. Several jobs run at the same time and can't harm one another. Completes nothing:
//! that is the completer's task.

use std::{
    any::Any,
    panic::AssertUnwindSafe,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::FutureExt;
use serde_json::Value;
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};

use super::Tasks;
use crate::{
    broker::{Consumer, Delivery, Job, Refusal, Retry, Route, Silence, method_of, session_of},
    connection::{Connection, backoff},
    telemetry::{JobMetrics, JobOutcome, JobTraced, JobWorked, TRACEPARENT},
    worker::{
        Sessions, WorkerConfig,
        complete::{CompletedJob, Completion},
        connection::{Commands, StepError},
        handlers::{BuiltIn, COMMON_METHODS, Handler, JobError},
        in_flight::{InFlight, Stop},
        progress::{JobClaim, ProgressBoard},
        queue_set::QueueSet,
        status::Status,
    },
};

/// Time between two looks for the holder of a session.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How many looks may find the holder without a connection before it counts as gone: 2 s of them. It reconnects within
/// a fraction of that; its heartbeat would show that it is gone only after three intervals. Looks and not time, because
/// in a halt of the machine the holder can't reconnect either.
const MAX_SILENT_LOOKS: u32 = 20;
/// Label of methods that the handler does not name.
const OTHER_METHOD: &str = "other";

/// What every job of a worker needs.
pub(in crate::worker) struct Executor {
    pub(in crate::worker) config: WorkerConfig,
    /// Consumer on the type's own queue.
    pub(in crate::worker) consumer: Consumer,
    pub(in crate::worker) queues: Arc<QueueSet>,
    pub(in crate::worker) handler: Arc<dyn Handler>,
    pub(in crate::worker) sessions: Sessions,
    pub(in crate::worker) commands: Arc<Commands>,
    pub(in crate::worker) in_flight: Arc<InFlight>,
    pub(in crate::worker) progress: Arc<ProgressBoard>,
    pub(in crate::worker) status: watch::Sender<Status>,
    pub(in crate::worker) finished: mpsc::Sender<Vec<CompletedJob>>,
    pub(in crate::worker) tasks: Weak<Tasks>,
    pub(in crate::worker) metrics: JobMetrics,
}

/// A job that was taken and may be started.
pub(in crate::worker) struct Taken {
    pub(in crate::worker) delivery: Delivery,
    /// Whether the job takes a slot.
    pub(in crate::worker) needs_slot: bool,
}

/// How a job ended, before it is reported.
pub(super) struct End {
    pub(super) outcome: JobOutcome,
    pub(super) verdict: Verdict,
    pub(super) error: Option<String>,
}

/// What happens with the job's entry.
pub(super) enum Verdict {
    /// The entry is acknowledged, and this is the result.
    Succeeded(Value),
    /// The job is retried, or the error is the result.
    Failed { error: String, retry: Retry },
    /// The job must not be started.
    Rejected,
    /// The deadline passed before the job could start, for this number of milliseconds.
    Expired { late_ms: u64 },
    /// Somebody has cancelled the job.
    Cancelled,
    /// Nothing happens: another worker has the entry now.
    HandedOver,
}

impl Executor {
    /// Returns the session of a delivered job, if this worker's handler keeps sessions.
    pub(in crate::worker) fn session<'a>(&self, delivery: &'a Delivery) -> Option<&'a str> {
        let job = delivery.job.as_ref().ok().filter(|_| self.handler.keeps_sessions())?;
        session_of(job)
    }

    /// Returns whether a job takes a slot. Jobs of sessions that are or were open here take none, and continue even if
    /// every slot is taken.
    pub(in crate::worker) fn needs_slot(&self, session: Option<&str>) -> bool {
        session.is_none_or(|session| !self.sessions.is_known(session))
    }

    /// Counts jobs as started, `slots` of which take a slot, before their tasks run: the next look at the free slots
    /// must include them. Called once for many jobs, because each change of the status wakes its watchers.
    pub(in crate::worker) fn begin(&self, jobs: usize, slots: usize) {
        if jobs > 0 {
            self.in_flight.take_slots(slots);
            let spent = self.in_flight.is_spent().then(|| self.config.slots());
            self.status.send_modify(|status| {
                status.busy += jobs;
                status.spent = spent;
            });
        }
    }

    /// Returns whether the worker may take no more jobs, has none in flight, and serves no session.
    pub(in crate::worker) fn is_done(&self) -> bool {
        self.in_flight.is_spent() && self.in_flight.count() == 0 && self.sessions.count() == 0
    }

    /// Executes a job in a task of its own. Does nothing if the worker is gone.
    pub(in crate::worker) fn spawn(&self, job: impl Future<Output = ()> + Send + 'static) {
        if let Some(tasks) = self.tasks.upgrade() {
            tasks.spawn(job);
        }
    }

    /// Executes a started job without a session.
    pub(in crate::worker) async fn alone(self: Arc<Self>, Taken { delivery, needs_slot }: Taken) -> CompletedJob {
        let verdict = self.one(&delivery, None).await;
        CompletedJob { ending: self.ending(delivery, verdict), needs_slot }
    }

    /// Executes a started job without a session, and passes it to the completer.
    pub(in crate::worker) async fn work_alone(self: Arc<Self>, taken: Taken) {
        let finished = Arc::clone(&self).alone(taken).await;
        self.end(vec![finished]).await;
    }

    /// Returns how the entry is completed. The result of a successful job is serialized here, in parallel with other
    /// jobs.
    fn ending(&self, mut delivery: Delivery, verdict: Verdict) -> Completion {
        match verdict {
            Verdict::Succeeded(value) => Completion::Succeeded(self.consumer.done(delivery, value)),
            Verdict::Failed { error, retry } => Completion::Failed { delivery, error, retry },
            Verdict::Rejected => Completion::Rejected(delivery),
            Verdict::Expired { late_ms } => {
                delivery.job = Err(Refusal::Expired { late_ms });
                Completion::Rejected(delivery)
            }
            Verdict::Cancelled => {
                delivery.job = Err(Refusal::Cancelled);
                Completion::Rejected(delivery)
            }
            Verdict::HandedOver => Completion::HandedOver(delivery),
        }
    }

    /// Executes a started job of a session, and then the jobs of the same session that waited for it.
    pub(in crate::worker) async fn work(self: Arc<Self>, session: String, first: Taken) {
        let mut next = Some(first);
        while let Some(Taken { delivery, needs_slot }) = next {
            let verdict = self.one(&delivery, Some(&session)).await;
            self.end(vec![CompletedJob { ending: self.ending(delivery, verdict), needs_slot }]).await;
            next = self.in_flight.end_turn(&session).map(|delivery| {
                let needs_slot = self.needs_slot(Some(&session));
                self.begin(1, usize::from(needs_slot));
                Taken { delivery, needs_slot }
            });
        }
    }

    /// Frees the slots of ended jobs, and passes the jobs to the completer.
    pub(in crate::worker) async fn end(&self, jobs: Vec<CompletedJob>) {
        if jobs.is_empty() {
            return;
        }
        self.in_flight.end_work(jobs.iter().filter(|job| job.needs_slot).count());
        // The completer outlives every job.
        let _ = self.finished.send(jobs).await;
    }

    /// Completes a cancelled job that waited for others of its session.
    pub(in crate::worker) async fn drop_cancelled(&self, mut delivery: Delivery) {
        delivery.job = Err(Refusal::Cancelled);
        self.begin(1, 0);
        self.end(vec![CompletedJob { ending: Completion::Rejected(delivery), needs_slot: false }]).await;
    }

    async fn one(&self, delivery: &Delivery, session: Option<&str>) -> Verdict {
        let began = std::time::Instant::now();
        let end = match &delivery.job {
            Ok(job) => self.attempt(delivery, job, session).await,
            Err(Refusal::Cancelled) => cancelled(),
            Err(_) => End { outcome: JobOutcome::Refused, verdict: Verdict::Rejected, error: None },
        };
        self.tell(delivery, &end, began.elapsed());
        end.verdict
    }

    /// Executes the job here, or hands it over.
    async fn attempt(&self, delivery: &Delivery, job: &Job, session: Option<&str>) -> End {
        if !self.is_still_ours(delivery).await {
            return claim_lost();
        }
        if let Some(stop) = self.in_flight.stop_of(&delivery.stream, &delivery.entry) {
            return stopped(stop);
        }
        // The job may have waited for others of its session.
        if let Some(late_ms) = job.late_ms() {
            return expired(late_ms);
        }
        match session {
            None => self.perform(delivery, job).await,
            // Boxed, because a task is as large as the largest future that it may wait for, and is moved when it is
            // spawned.
            Some(session) => Box::pin(self.attempt_of_session(delivery, job, session)).await,
        }
    }

    async fn attempt_of_session(&self, delivery: &Delivery, job: &Job, session: &str) -> End {
        if let Some(end) = self.route(delivery, job, session).await {
            return end;
        }
        let place = match self.place(delivery, job, session).await {
            Ok(place) => place,
            Err(end) => return end,
        };
        self.sessions.begin_use(session);
        let (end, elsewhere) = self.perform_noting(delivery, job).await;
        drop(place);
        self.sessions.end_use(session);
        // Another worker has opened the session since the check.
        if elsewhere && let Some(moved) = self.route(delivery, job, session).await {
            return moved;
        }
        end
    }

    /// Determines where the job of `session` belongs; `None`: to this worker. Asks until Redis answers.
    async fn route(&self, delivery: &Delivery, job: &Job, session: &str) -> Option<End> {
        let mut silent_looks = 0;
        let mut waits = backoff();
        while !self.sessions.held(session) {
            match self.ask(delivery, session, silent_looks >= MAX_SILENT_LOOKS).await {
                Ok(Route::Here) => return None,
                Ok(Route::Forwarded(holder)) => {
                    tracing::debug!(job = job.id, session, %holder, "job handed over to the holder of its session");
                    return Some(End { outcome: JobOutcome::HandedOver, verdict: Verdict::HandedOver, error: None });
                }
                Ok(Route::Lost(holder)) => {
                    let why = self.sessions.take_loss(session);
                    let why = why.unwrap_or_else(|| format!("worker `{holder}`, which held `{session}`, is gone"));
                    let error = format!("session lost: {why}; open it again");
                    return Some(failed(JobOutcome::SessionLost, error, Retry::Never));
                }
                Ok(Route::ClaimLost) => return Some(claim_lost()),
                Ok(Route::Silent(..)) => {
                    silent_looks += 1;
                    sleep(POLL_INTERVAL).await;
                }
                Err(error) => {
                    tracing::warn!(job = job.id, session, error, "can't find the holder of a session; trying again");
                    sleep(waits.next().unwrap_or(POLL_INTERVAL)).await;
                }
            }
        }
        None
    }

    /// Asks once where the job belongs. `timed_out` says whether [`MAX_SILENT_LOOKS`] found the holder silent.
    async fn ask(&self, delivery: &Delivery, session: &str, timed_out: bool) -> Result<Route, String> {
        let claims = self.sessions.claims();
        let consumer = self.consumer.on(&delivery.stream);
        let may_judge = |silence| {
            (timed_out && self.commands.may_judge_by_silence())
                || (silence == Silence::NoHeartbeat && self.commands.may_judge())
        };
        let route = async |connection: &mut Connection| {
            claims.route(connection, &consumer, (&delivery.entry, delivery.number), session, may_judge).await
        };
        self.commands.step(route).await.map_err(|error: StepError| error.to_string())
    }

    async fn perform(&self, delivery: &Delivery, job: &Job) -> End {
        self.perform_noting(delivery, job).await.0
    }

    /// Returns whether the claim on a job still holds before the job is started. Another worker can have claimed it
    /// only if this process stood still for more than a lapse since it asked Redis for the job. Asks until Redis
    /// answers.
    async fn is_still_ours(&self, delivery: &Delivery) -> bool {
        if delivery.asked.elapsed() < self.config.trusted_for() {
            return true;
        }
        let consumer = self.consumer.on(&delivery.stream);
        for wait in backoff() {
            let claim = [(delivery.entry.as_str(), delivery.number)];
            let renew = async |connection: &mut Connection| consumer.extend(connection, &claim).await;
            match self.commands.step(renew).await {
                Ok(ours) => return !ours.is_empty(),
                Err(StepError::Broker(error)) if error.is_missing_group() => return false,
                Err(error) => tracing::warn!(entry = delivery.entry, %error, "can't tell whose a job is; trying again"),
            }
            sleep(wait).await;
        }
        false
    }

    /// Runs the handler. Also returns whether it failed because another worker holds the job's session.
    async fn perform_noting(&self, delivery: &Delivery, job: &Job) -> (End, bool) {
        let handling = AssertUnwindSafe(self.handle(delivery, job)).catch_unwind();
        let limit = job.timeout().or(self.config.job_timeout);
        let limited = async {
            match limit {
                Some(limit) => timeout(limit, handling).await,
                None => Ok(handling.await),
            }
        };
        let handled = tokio::select! {
            biased;
            handled = limited => handled,
            stop = self.in_flight.stopped(&delivery.stream, &delivery.entry) => return (stopped(stop), false),
        };
        match handled {
            Ok(Ok(Ok(value))) => {
                (End { outcome: JobOutcome::Done, verdict: Verdict::Succeeded(value), error: None }, false)
            }
            Ok(Ok(Err(error))) => {
                let end = failed(JobOutcome::Failed, self.masked(job, error.to_string()), error.retry());
                (end, error.is_elsewhere())
            }
            Ok(Err(panic)) => {
                let error = format!("the handler of `{}` panicked: {}", job.job_type, panic_text(&*panic));
                (failed(JobOutcome::Panicked, self.masked(job, error), Retry::Backoff), false)
            }
            Err(_) => {
                let limit = limit.unwrap_or_default().as_secs_f64();
                let error = format!("`{}` took longer than the {limit} s that a job may take", job.job_type);
                (failed(JobOutcome::TimedOut, error, Retry::Backoff), false)
            }
        }
    }

    /// Returns a handler's error without the arguments that the settings mask: it goes to logs, traces, dead letters
    /// and whoever waits.
    fn masked(&self, job: &Job, error: String) -> String {
        job.masked(&self.config.policy.jobs.masked_arguments, error)
    }

    async fn handle(&self, delivery: &Delivery, job: &Job) -> Result<Value, JobError> {
        let method = method_of(&job.job_type, self.config.worker_type.as_str());
        if COMMON_METHODS.contains(&method) {
            return BuiltIn.handle(method, job).await;
        }
        match self.handler.methods() {
            Some(known) if !known.contains(&method) => Err(JobError::unknown_method(job, method, known)),
            _ => {
                let claim = JobClaim::new(delivery, job, !self.config.policy.jobs.masked_arguments.is_empty());
                self.progress.executing(claim, self.handler.handle(method, job)).await
            }
        }
    }

    fn tell(&self, delivery: &Delivery, end: &End, elapsed: Duration) {
        let worker_type = &self.config.worker_type;
        let (id, method) = delivery.job.as_ref().map_or(("", OTHER_METHOD), |job| {
            (job.id.as_str(), self.label(method_of(&job.job_type, worker_type.as_str())))
        });
        let (outcome, error) = (end.outcome, end.error.as_deref());
        JobWorked { metrics: &self.metrics, method, job: id, outcome, error, elapsed }.emit();
        if let Ok(job) = &delivery.job {
            let parent = job.extra.get(TRACEPARENT).and_then(Value::as_str);
            let (job_type, entry, outcome) = (job.job_type.as_str(), delivery.entry.as_str(), outcome.as_str());
            let attempt = delivery.attempts;
            JobTraced { worker_type, job_type, id, entry, attempt, parent, outcome, error, elapsed }.emit();
        }
    }

    fn label(&self, method: &str) -> &'static str {
        let known = COMMON_METHODS.iter().chain(self.handler.methods().unwrap_or_default());
        known.copied().find(|known| *known == method).unwrap_or(OTHER_METHOD)
    }
}

pub(super) fn expired(late_ms: u64) -> End {
    let error = Refusal::Expired { late_ms }.to_string();
    End { outcome: JobOutcome::Refused, verdict: Verdict::Expired { late_ms }, error: Some(error) }
}

pub(super) fn claim_lost() -> End {
    let error = "another worker has taken the job over: this one was silent for too long, and stops".to_owned();
    End { outcome: JobOutcome::ClaimLost, verdict: Verdict::HandedOver, error: Some(error) }
}

pub(super) fn stopped(stop: Stop) -> End {
    match stop {
        Stop::ClaimLost => claim_lost(),
        Stop::Cancelled => cancelled(),
    }
}

fn cancelled() -> End {
    let error = Some(Refusal::Cancelled.to_string());
    End { outcome: JobOutcome::Cancelled, verdict: Verdict::Cancelled, error }
}

fn failed(outcome: JobOutcome, error: String, retry: Retry) -> End {
    let verdict = Verdict::Failed { error: error.clone(), retry };
    End { outcome, verdict, error: Some(error) }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
