//! The task around an [`Actor`]: waits for its inputs, carries out its effects one at a time, and shows its state.

mod effects;
mod suspended;

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::effects::{observe, scale};
pub use self::suspended::SuspendedActor;
use super::{
    actor::{Actor, Effect, Input, Observed, Scaled},
    budget::Budget,
    canary::CanaryState,
    controls::Controls,
    leadership::Leadership,
    outages::Outages,
    recorder::RecorderHandle,
    remembered_heartbeats::{RememberedHeartbeats, may_hide_news},
    snapshot_cell::SnapshotCell,
    updates::Updates,
    worker_tracker::{Expected, Heard, Held, PoolView, WorkerTracker},
};
use crate::{
    backend::{BackendError, Pool, ScaleReport, ScalingBackend},
    model::{Clock, PoolCounts, Reading, Source, WorkerId, WorkerType, keys, snapshot::Action},
    probe::{Answer, Occupation, ProberHandle},
    signal::{Directory, ListenerHandle, Signals, SweepMonitor},
    telemetry::{
        Acted, Course, EvaluationFinished, ProbeFailed, ReactionMeasured, SignalsReceived, Stage, WorkerExited,
        WorkersAskedAgain,
    },
};

/// What the task of one actor needs.
pub struct ActorContext {
    /// Index of the worker type in the directory.
    pub index: u32,
    /// Name of the worker type.
    pub worker_type: WorkerType,
    /// Expected behaviour of its workers.
    pub expected: Expected,
    /// Parts that all actors share.
    pub shared: Arc<Shared>,
}

/// Parts that the tasks of all actors share whose queues are on the same Redis server.
pub struct Shared {
    /// Whether the server is a worker type's own, which has none of swarm's keys.
    pub is_own_server: bool,
    /// Longest wait for a muted subscription before the probe runs anyway.
    pub patience: Duration,
    /// Directory with the mailboxes for signals.
    pub directory: Arc<Directory>,
    /// Handle of the subscriber.
    pub listener: ListenerHandle,
    /// Handle of the prober, which reads Redis.
    pub prober: ProberHandle,
    /// Backend that runs the workers.
    pub backend: Arc<dyn ScalingBackend>,
    /// Handle of the recorder, which writes the history.
    pub recorder: RecorderHandle,
    /// Clock of the autoscaler.
    pub clock: Clock,
    /// Counts the answers to a sweep.
    pub sweep: Arc<SweepMonitor>,
    /// Leadership of this autoscaler: whether it may act.
    pub leadership: Arc<Leadership>,
    /// Wakes those who follow a worker type.
    pub updates: Arc<Updates>,
    /// Overrides in force.
    pub controls: Arc<Controls>,
    /// Budget of all worker types.
    pub budget: Arc<Budget>,
    /// Whether heartbeats could be written.
    pub canary: Arc<CanaryState>,
    /// Outages of the backend.
    pub outages: Arc<Outages>,
    /// Set when an evaluation has seen unfinished work, or could not see: there is something to report.
    pub trouble: Arc<AtomicBool>,
}

/// Result of an effect.
enum Outcome {
    Observed(Box<Looked>),
    Scaled { outcome: Result<ScaleReport, BackendError>, signals: Signals, token: Option<u64> },
    NotScaled,
}

/// Result of an observation.
struct Looked {
    pool: Result<Pool, BackendError>,
    answer: Answer,
    /// Whether some of the heartbeats were remembered.
    is_partial: bool,
    remembered: RememberedHeartbeats,
}

/// New workers that were not seen ready yet.
struct Awaited {
    since: Instant,
    ids: HashSet<WorkerId>,
}

struct ActorTask {
    context: Arc<ActorContext>,
    actor: Actor,
    /// Term of leadership that the actor knows of.
    term: Option<u64>,
    worker_tracker: WorkerTracker,
    /// Empty during an observation, which takes them along: one that is given up forgets them.
    remembered: RememberedHeartbeats,
    awaited: Option<Box<Awaited>>,
    last_told: Option<(Action, &'static str)>,
    /// The last decision that was to be carried out, and its target.
    last_acted: Option<(Action, u32)>,
    probe_failure: Option<String>,
    /// When a mass silence was logged; `None` if there is none.
    mass_since: Option<Instant>,
    under_way: Option<BoxFuture<'static, Outcome>>,
    /// Times of the evaluation in progress, for its trace.
    course: Course,
    snapshot_cell: SnapshotCell,
}

/// Runs until cancelled. Then returns its state, with the effect in progress.
///
/// The state is made before the future, which captures it: an async function would also reserve room for its arguments,
/// and there is one such future for each of perhaps ten thousand worker types.
pub fn run_actor(
    context: ActorContext,
    actor: Actor,
    snapshot_cell: SnapshotCell,
    cancel: CancellationToken,
) -> impl Future<Output = SuspendedActor> + Send {
    let task = ActorTask {
        context: Arc::new(context),
        actor,
        term: None,
        worker_tracker: WorkerTracker::default(),
        remembered: RememberedHeartbeats::default(),
        awaited: None,
        last_told: None,
        last_acted: None,
        probe_failure: None,
        mass_since: None,
        under_way: None,
        course: Course::default(),
        snapshot_cell,
    };
    task.until(cancel)
}

/// Waits for the result of the effect in progress; forever without one. Cancel safe.
async fn next_outcome(under_way: &mut Option<BoxFuture<'static, Outcome>>) -> Outcome {
    match under_way {
        Some(effect) => {
            let outcome = effect.await;
            *under_way = None;
            outcome
        }
        None => std::future::pending().await,
    }
}

/// Result of an input.
struct Applied {
    /// Effect to start.
    effect: Option<BoxFuture<'static, Outcome>>,
    /// Evaluation to show, if there was one: the signals that led to it, and how long it took.
    evaluated: Option<(Signals, Duration)>,
}

impl ActorTask {
    /// Runs the task. The future captures the state; see [`run_actor`].
    fn until(self, cancel: CancellationToken) -> impl Future<Output = SuspendedActor> + Send {
        let mut task = self;
        async move {
            task.run(&cancel).await;
            SuspendedActor::new(task)
        }
    }

    async fn run(&mut self, cancel: &CancellationToken) {
        let directory = self.context.shared.directory.clone();
        let mailbox = directory.mailbox(self.context.index);
        // What was noted before is with the actor, or with nobody.
        mailbox.observing();
        loop {
            let wake = self.actor.next_wake().map(|at| self.context.shared.clock.instant_of(at));
            let input = tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                outcome = next_outcome(&mut self.under_way) => self.input_of(outcome),
                signals = mailbox.next() => Input::Signals(signals),
                () = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => Input::Tick,
            };
            let Applied { effect, evaluated } = self.apply(input);
            if let Some(mut effect) = effect {
                // The effect starts before anything is logged or counted, because reporting must not delay it.
                let finished = (&mut effect).now_or_never();
                self.under_way = Some(finished.map_or(effect, |outcome| std::future::ready(outcome).boxed()));
            }
            self.show(evaluated);
        }
        if let Some(signals) = mailbox.take() {
            self.actor.note(signals);
        }
    }

    fn apply(&mut self, input: Input) -> Applied {
        let is_evaluation = matches!(input, Input::Observed(_));
        let mut is_decided = is_evaluation;
        if is_evaluation {
            self.course.observed();
        }
        let signals = self.actor.evaluated_signals();
        let mut applied = Applied { effect: None, evaluated: None };
        let mut effects = self.follow_leadership();
        effects.extend(self.actor.apply(input, self.context.shared.clock.now(), Instant::now()));
        if is_evaluation {
            self.course.decided();
        }
        for effect in effects {
            match effect {
                Effect::Observe => {
                    self.context.shared.directory.mailbox(self.context.index).observing();
                    self.course.observing();
                    applied.effect = Some(self.observe());
                }
                Effect::ObserveInFull => {
                    is_decided = false;
                    self.remembered.forget();
                    applied.effect = Some(self.observe());
                }
                Effect::Scale(request, signals) => {
                    applied.effect = Some(scale(self.context.clone(), request, signals).boxed());
                }
                Effect::AskAgain(ids) => self.ask_again(&ids),
                Effect::Record(mut record) => {
                    // Whoever leads now has seen the change too, and may have made it.
                    if record.trigger == [Source::Manual] && self.context.shared.leadership.permit().is_none() {
                        continue;
                    }
                    let token = || self.context.shared.leadership.permit().and_then(|permit| permit.token);
                    record.token = record.token.or_else(token);
                    self.context.shared.recorder.record(*record);
                }
            }
        }
        if let (true, Some(signals)) = (is_decided, signals) {
            applied.evaluated = Some((signals, signals.first_at.elapsed()));
        }
        applied
    }

    /// Begins an observation. Before that, it forgets the heartbeats of workers that there may be news of.
    fn observe(&mut self) -> BoxFuture<'static, Outcome> {
        if let Some(news) = self.context.shared.directory.take_worker_news(self.context.index) {
            self.remembered.note_news(&news);
        }
        let hides_news = |signals: Signals| signals.sources().any(may_hide_news);
        // Whoever follows a recommendation may let workers go by what the observation shows.
        if self.actor.evaluated_signals().is_none_or(hides_news) || self.actor.only_recommends() {
            self.remembered.forget();
        }
        observe(self.context.clone(), std::mem::take(&mut self.remembered)).boxed()
    }

    /// Asks workers again which may have missed their stop signal, while this autoscaler leads.
    fn ask_again(&self, ids: &[WorkerId]) {
        let shared = &self.context.shared;
        if shared.leadership.permit().is_some() {
            let worker_type = &self.context.worker_type;
            WorkersAskedAgain { worker_type, ids }.emit();
            shared.backend.ask_again(worker_type, ids);
        }
    }

    /// Tells the actor about a change of leadership since its last input.
    fn follow_leadership(&mut self) -> Vec<Effect> {
        let leadership = &self.context.shared.leadership;
        let term = leadership.term();
        if term == self.term {
            return Vec::new();
        }
        self.term = term;
        self.remembered.forget();
        let input = match term {
            Some(_) => Input::Leads(leadership.remembered(&self.context.worker_type)),
            None => Input::Follows,
        };
        self.actor.apply(input, self.context.shared.clock.now(), Instant::now())
    }

    /// Reports to the log, the metrics and all readers of the snapshot.
    fn show(&mut self, evaluated: Option<(Signals, Duration)>) {
        if let Some((signals, elapsed)) = evaluated {
            self.tell_evaluation(signals, elapsed);
        }
        self.snapshot_cell.set(self.actor.snapshot());
        if evaluated.is_some() {
            self.context.shared.updates.announce(&self.context.worker_type);
        }
        // Set after the snapshot: a reader that sees the flag also sees the snapshot.
        if self.actor.snapshot().is_unfinished() {
            self.context.shared.trouble.store(true, Ordering::Release);
        }
    }

    fn tell_evaluation(&mut self, signals: Signals, elapsed: Duration) {
        let acts = self.actor.snapshot().action != Action::Hold && self.actor.speaks();
        if acts {
            self.actor.note_decided(elapsed);
            self.measure(Stage::Decided, elapsed);
        }
        let told_by_sweep_alone = signals.sources().all(|source| source == Source::Sweep);
        if signals.contains(Source::Sweep) {
            let drift = acts && told_by_sweep_alone && self.actor.snapshot().action == Action::ScaleUp;
            self.context.shared.sweep.answered(drift);
        }
        if signals.contains(Source::Recheck) {
            SignalsReceived { source: Source::Recheck, count: 1 }.emit();
        }
        self.tell_probe_failure();
        let snapshot = self.actor.snapshot();
        let told = (snapshot.action, self.actor.reason_label());
        let changed = self.last_told.replace(told) != Some(told);
        let decided = acts.then_some((snapshot.action, snapshot.desired));
        let retries = decided.is_some() && decided == self.last_acted && self.actor.has_failed(snapshot.action);
        self.last_acted = decided.or(self.last_acted);
        EvaluationFinished {
            worker_type: &self.context.worker_type,
            action: snapshot.action,
            reason: self.actor.reason_label(),
            headline: snapshot.reasons.first().map_or("", String::as_str),
            sources: &snapshot.sources,
            acts,
            retries,
            changed,
        }
        .emit();
    }

    fn tell_probe_failure(&mut self) {
        // A part that is not known yet is not a failure: queues are still being searched for.
        let failure = match &self.actor.snapshot().demand.lag {
            Reading::Failed(error) => Some(error.as_str()),
            _ => None,
        };
        if let Some(error) = failure {
            // That a worker type's own server is away, is reported once for all types on it.
            let shared = &self.context.shared;
            let is_told = shared.is_own_server && shared.prober.redis_error().is_some();
            let news = !is_told && self.probe_failure.as_deref() != Some(error);
            ProbeFailed { worker_type: &self.context.worker_type, error, news }.emit();
        }
        self.probe_failure = failure.map(str::to_owned);
    }

    fn input_of(&mut self, outcome: Outcome) -> Input {
        match outcome {
            Outcome::Observed(looked) => self.observed(*looked),
            Outcome::NotScaled => Input::NotScaled,
            Outcome::Scaled { outcome, signals, token } => {
                let elapsed = signals.first_at.elapsed();
                self.measure(Stage::Requested, elapsed);
                self.trace(signals, outcome.as_ref().err());
                if let Ok(report) = &outcome
                    && !report.started.is_empty()
                {
                    let ids = report.started.iter().cloned().collect();
                    self.awaited = Some(Box::new(Awaited { since: signals.first_at, ids }));
                }
                Input::Scaled(Box::new(Scaled { outcome, elapsed, token }))
            }
        }
    }

    /// Classifies the workers.
    fn observed(&mut self, looked: Looked) -> Input {
        let Looked { pool, answer, is_partial, remembered } = looked;
        self.remembered = remembered;
        let now = self.context.shared.clock.now();
        let heard = Heard {
            heartbeats: &answer.heartbeats,
            consumers: &answer.consumers,
            occupation: self.occupation(&answer),
            channel: self.context.shared.canary.channel(now),
        };
        let view = pool.map(|pool| self.worker_tracker.classify(pool, &heard, self.context.expected, now));
        if let Ok(view) = &view {
            self.tell_workers(view);
            for exit in &view.exits {
                WorkerExited {
                    worker_type: &self.context.worker_type,
                    worker_id: &exit.id,
                    detail: &exit.detail,
                    lived: exit.lived,
                    success: exit.success,
                }
                .emit();
            }
            let mut ready = view.workers.iter().filter(|seen| seen.state.is_some() && !seen.draining);
            if let Some(awaited) = self.awaited.take_if(|awaited| ready.any(|seen| awaited.ids.contains(&seen.id))) {
                let elapsed = awaited.since.elapsed();
                self.measure(Stage::Running, elapsed);
                self.actor.note_running(elapsed);
            }
        }
        let control = self.context.shared.controls.of(&self.context.worker_type);
        let Answer { demand, queues, counters, framework, .. } = answer;
        let (work, look_at) = framework.map_or((None, None), |read| (Some(Arc::new(read.work)), read.look_at));
        Input::Observed(Box::new(Observed { demand, queues, counters, work, look_at, view, is_partial, control }))
    }

    /// What the framework of the workers says of them. If it could not be read, any of them may be busy.
    fn occupation<'a>(&self, answer: &'a Answer) -> Option<&'a Occupation> {
        let read = answer.framework.as_deref().map(|read| &read.occupation);
        read.or_else(|| self.context.expected.is_foreign.then_some(&Occupation::Unknown))
    }

    /// Logs when workers fail to become ready or fall silent: once at the beginning, once at the end.
    fn tell_workers(&mut self, view: &PoolView) {
        let worker_type = &self.context.worker_type;
        for failed in view.failed_starts.iter().filter(|failed| failed.detail.is_none()) {
            let key = keys::heartbeat(worker_type, &failed.id);
            tracing::warn!(
                %worker_type, worker_id = %failed.id, heartbeat = key,
                "worker not ready in its start grace; if its program writes no heartbeat, set heartbeats = false"
            );
        }
        match (view.held, self.mass_since) {
            (Some(Held::Mass { silent, of, .. }), None) => {
                tracing::warn!(%worker_type, silent, of, "workers fell silent at once; replacing held");
                self.mass_since = Some(Instant::now());
            }
            (None | Some(Held::Unwritable { .. }), Some(since)) => {
                tracing::info!(%worker_type, lasted_seconds = since.elapsed().as_secs(), "replacing no longer held");
                self.mass_since = None;
            }
            _ => {}
        }
    }

    fn trace(&mut self, signals: Signals, failure: Option<&BackendError>) {
        let snapshot = self.actor.snapshot();
        let sources: Vec<Source> = signals.sources().collect();
        self.course.acted(Acted {
            worker_type: &self.context.worker_type,
            first_signal: signals.first_at,
            sources: &sources,
            action: snapshot.action.as_str(),
            from: snapshot.pool.known().map_or(0, PoolCounts::current),
            to: snapshot.desired,
            reason: snapshot.reasons.first().map_or("", String::as_str),
            error: failure.map(|failure| failure.message.as_str()),
        });
    }

    fn measure(&self, stage: Stage, elapsed: Duration) {
        ReactionMeasured { worker_type: &self.context.worker_type, stage, elapsed }.emit();
    }
}

#[cfg(test)]
mod tests;
