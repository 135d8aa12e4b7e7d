//! The state machine of one worker type: inputs in, effects out. No clock, no I/O, no locks.
//!
//! At most one effect is in progress. A signal that arrives meanwhile is kept and causes one more evaluation
//! afterwards. The next evaluation follows the previous one after the debounce at the earliest. The evaluation sets
//! that deadline and signals never move it, so a busy queue can't starve itself.

mod moving;
mod notes;

use std::{sync::Arc, time::Duration};

pub use self::moving::Tuning;
use crate::{
    backend::{BackendError, ErrorKind, ManualScale, ScaleReport, ScaleRequest},
    config::ScalingSettings,
    model::{
        Counters, Demand, QueueDemands, Reading, Source, Timestamp, Work, WorkerId, WorkerType,
        control::{Control, Mode},
        snapshot::{Action, Change, Reaction, StartFailures, TypeSnapshot, WorkerStatus},
    },
    policy::{Backoff, Decision, History, Observation, Reason, decide_under, recommend},
    scaler::worker_tracker::PoolView,
    signal::Signals,
};

/// Inputs of the actor.
#[derive(Debug)]
pub enum Input {
    /// Signals arrived.
    Signals(Signals),
    /// The time that [`Actor::next_wake`] returned has come.
    Tick,
    /// Result of [`Effect::Observe`].
    Observed(Box<Observed>),
    /// Result of [`Effect::Scale`].
    Scaled(Box<Scaled>),
    /// The requested change was not started, because this autoscaler no longer leads.
    NotScaled,
    /// This autoscaler leads now. Contains the last change that the previous leader made.
    Leads(Option<Change>),
    /// This autoscaler no longer leads.
    Follows,
}

/// One observation.
#[derive(Debug)]
pub struct Observed {
    /// Unfinished work.
    pub demand: Demand,
    /// The queues one by one; `None` if there is only one.
    pub queues: Option<Arc<QueueDemands>>,
    /// Counters that the queue keeps.
    pub counters: Counters,
    /// What waits, runs and is due, if it is a framework that tells.
    pub work: Option<Arc<Work>>,
    /// When to look again, whatever is heard.
    pub look_at: Option<Timestamp>,
    /// The workers, or why they are unknown.
    pub view: Result<PoolView, BackendError>,
    /// Override in force for the worker type.
    pub control: Option<Arc<Control>>,
}

/// Result of a request to scale.
#[derive(Debug)]
pub struct Scaled {
    /// What the backend did, or why it failed.
    pub outcome: Result<ScaleReport, BackendError>,
    /// Time from the first signal to the backend's answer.
    pub elapsed: Duration,
    /// Fencing token of the term in which the request was made; `None` without an election.
    pub token: Option<u64>,
}

/// Outputs of the actor.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// Observe, and return the result as [`Input::Observed`].
    Observe,
    /// Send the request to the backend, and return the result as [`Input::Scaled`].
    Scale(ScaleRequest, Signals),
    /// Write one record of a change that was carried out or failed.
    Record(Box<ScalingRecord>),
}

/// One entry of `scaling:events`.
#[derive(Clone, Debug, PartialEq)]
pub struct ScalingRecord {
    /// Worker type whose pool changed.
    pub worker_type: WorkerType,
    /// Direction of the change.
    pub action: Action,
    /// Workers before.
    pub from: u32,
    /// Workers that the decision asks for.
    pub to: u32,
    /// When the decision was made.
    pub at: Timestamp,
    /// Headline of the decision.
    pub reason: String,
    /// Signals that led to the decision.
    pub trigger: Vec<Source>,
    /// Jobs that were not delivered at the time of the decision.
    pub lag: Option<u64>,
    /// Jobs that were delivered and unfinished at the time of the decision.
    pub pending: Option<u64>,
    /// Why the change failed; `None` if it did not fail.
    pub error: Option<String>,
    /// Time from the first signal to the backend's answer; `None` for a change that somebody else made.
    pub reaction: Option<Duration>,
    /// Change to remember across a restart: what was done, also if it failed halfway; `None` if nothing was done.
    pub change: Option<Change>,
    /// Fencing token of the leader that made the change; `None` without an election.
    pub token: Option<u64>,
}

/// What follows from the decisions of an actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// The actor carries its decisions out while it leads.
    Scale,
    /// The actor shows what it would do (`dry_run`).
    Show,
    /// The actor recommends a number to whoever scales the worker type.
    Recommend,
}

#[derive(Debug)]
enum Phase {
    Resting,
    Observing(Signals),
    Scaling(Box<UnderWay>),
}

/// A requested change.
#[derive(Debug)]
struct UnderWay {
    decision: Decision,
    reason: String,
    demand: Demand,
    from: u32,
    signals: Signals,
    /// Whether the change replaces a worker without a heartbeat.
    replaces_unheard: bool,
}

/// The actor of one worker type.
#[derive(Debug)]
pub struct Actor {
    worker_type: WorkerType,
    settings: Arc<ScalingSettings>,
    debounce: Duration,
    consequence: Consequence,
    /// Whether the actor may act; otherwise it only observes and decides.
    leads: bool,
    /// Whether the actor has led before.
    has_led: bool,
    history: History,
    phase: Phase,
    waiting: Option<Signals>,
    next_evaluation: Timestamp,
    recheck_at: Option<Timestamp>,
    unseen: u32,
    reason_label: &'static str,
    /// Shared with all readers; the actor writes to a copy while a reader holds it.
    snapshot: Arc<TypeSnapshot>,
}

impl Actor {
    /// Returns an actor that has observed nothing yet and does not lead. `last_change` is remembered from before a
    /// restart.
    pub fn new(
        worker_type: WorkerType,
        queue: &str,
        settings: Arc<ScalingSettings>,
        debounce: Duration,
        consequence: Consequence,
        last_change: Option<Change>,
        now: Timestamp,
    ) -> Self {
        let history = History::resumed(now, last_change);
        let unseen = "not observed yet";
        let snapshot = Arc::new(TypeSnapshot {
            worker_type: worker_type.clone(),
            queue: queue.to_owned(),
            min_workers: settings.min_workers,
            max_workers: settings.max_workers,
            evaluated_at: None,
            demand: Demand::failed(unseen),
            queues: None,
            work: None,
            pool: Reading::Failed(unseen.to_owned()),
            recommended: None,
            desired: last_change.map_or(settings.min_workers, |change| change.to),
            action: Action::Hold,
            reasons: vec![unseen.to_owned()],
            rule: std::borrow::Cow::default(),
            recheck_at: None,
            last_change,
            sources: Vec::new(),
            reaction: None,
            evaluations: 0,
            decisions: Vec::new(),
            backend_error: None,
            start_failures: None,
            control: None,
            workers: Vec::new(),
        });
        Self {
            worker_type,
            settings,
            debounce,
            consequence,
            leads: false,
            has_led: false,
            history,
            phase: Phase::Resting,
            waiting: None,
            next_evaluation: Timestamp(0),
            recheck_at: None,
            unseen: 0,
            reason_label: "none",
            snapshot,
        }
    }

    /// Returns the state that the actor shows of itself.
    pub fn snapshot(&self) -> &Arc<TypeSnapshot> {
        &self.snapshot
    }

    /// Returns whether no effect is in progress.
    pub fn is_resting(&self) -> bool {
        matches!(self.phase, Phase::Resting)
    }

    /// Returns when to send [`Input::Tick`]; `None` while an effect is in progress or nothing is due.
    pub fn next_wake(&self) -> Option<Timestamp> {
        if !self.is_resting() {
            return None;
        }
        let debounced = self.waiting.map(|_| self.next_evaluation);
        [debounced, self.recheck_at].into_iter().flatten().min()
    }

    /// Applies an input: changes the state and returns the effects to carry out.
    pub fn apply(&mut self, input: Input, now: Timestamp, instant: tokio::time::Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Signals(signals) => self.note(signals),
            Input::Tick => {}
            Input::Observed(observed) => effects.extend(self.observed(*observed, now)),
            Input::Scaled(scaled) => effects.extend(self.scaled(*scaled, now)),
            Input::NotScaled => self.phase = Phase::Resting,
            Input::Leads(remembered) => self.lead(remembered, now),
            Input::Follows => self.leads = false,
        }
        effects.extend(self.evaluate_if_due(now, instant));
        effects
    }

    /// Begins to lead: an observation as a standby is followed by a decision immediately. What this autoscaler knows
    /// (failures and their waits, steps, the flow of jobs) outlives a gap in its leadership. If it never led before, or
    /// another leader changed something in the gap, no worker is let go before a cooldown has passed, as after a
    /// restart.
    fn lead(&mut self, remembered: Option<Change>, now: Timestamp) {
        let known = self.history.last_change;
        let remembered = remembered.map(|change| Change { at: change.at.min(now), ..change });
        let news = remembered.filter(|change| known.is_none_or(|known| change.at > known.at));
        if !self.has_led || news.is_some() {
            self.history.started_at = now;
        }
        if let Some(change) = news {
            self.history.note_change(change);
        }
        (self.leads, self.has_led) = (true, true);
        self.next_evaluation = Timestamp(0);
        Arc::make_mut(&mut self.snapshot).last_change = self.history.last_change;
    }

    fn evaluate_if_due(&mut self, now: Timestamp, instant: tokio::time::Instant) -> Option<Effect> {
        if !self.is_resting() {
            return None;
        }
        if self.recheck_at.is_some_and(|at| at <= now) {
            self.recheck_at = None;
            self.note(Signals::one(Source::Recheck, instant));
        }
        if now < self.next_evaluation {
            return None;
        }
        let signals = self.waiting.take()?;
        self.next_evaluation = now.after(self.debounce);
        self.phase = Phase::Observing(signals);
        Some(Effect::Observe)
    }

    /// Applies changes that somebody else made, which the decision must know of, and then decides.
    fn observed(&mut self, observed: Observed, now: Timestamp) -> Vec<Effect> {
        let Phase::Observing(signals) = std::mem::replace(&mut self.phase, Phase::Resting) else { return Vec::new() };
        // A change that a standby observes may be the leader's.
        let manual = observed.view.as_ref().ok().filter(|_| self.leads).map_or(&[][..], |view| &view.manual);
        let mut effects: Vec<Effect> =
            manual.iter().map(|change| self.changed_by_hand(change, &observed.demand)).collect();
        effects.extend(self.evaluated(observed, signals, now));
        effects
    }

    /// Records a change that somebody else made. It starts the cooldown and is remembered like a change of our own.
    fn changed_by_hand(&mut self, manual: &ManualScale, demand: &Demand) -> Effect {
        let change = Change { at: manual.at, from: manual.from, to: manual.to };
        self.history.note_change(change);
        Arc::make_mut(&mut self.snapshot).last_change = self.history.last_change;
        Effect::Record(Box::new(ScalingRecord {
            worker_type: self.worker_type.clone(),
            action: if manual.to < manual.from { Action::ScaleDown } else { Action::ScaleUp },
            from: manual.from,
            to: manual.to,
            at: manual.at,
            reason: format!("manual scale {} → {}: {}", manual.from, manual.to, manual.detail),
            trigger: vec![Source::Manual],
            lag: demand.lag.known().copied(),
            pending: demand.pending.known().copied(),
            error: None,
            reaction: None,
            change: Some(change),
            token: None,
        }))
    }

    fn evaluated(&mut self, observed: Observed, signals: Signals, now: Timestamp) -> Option<Effect> {
        let pool = match &observed.view {
            Ok(view) => {
                self.note_starts(view, now);
                Reading::Known(view.counts)
            }
            Err(why) => Reading::Failed(why.to_string()),
        };
        let observation = Observation { demand: observed.demand, queues: observed.queues, pool };
        self.history.note_flow(&self.settings, now, &observation, observed.counters);
        self.history.note_depth(&observation, now);
        let control = observed.control.filter(|control| control.holds_at(now));
        let decision = self.decide(control.as_deref(), &observation, now);
        if let Some(recommendation) = decision.recommendation {
            self.history.note_recommendation(&self.settings, now, recommendation);
        }
        self.recheck_at = decision.recheck_at;
        self.look_again_if_unseen(&observed.view, now);
        let due_at = observed.look_at.filter(|at| *at > now);
        self.recheck_at = [self.recheck_at, due_at].into_iter().flatten().min();
        if let Ok(view) = &observed.view {
            self.recheck_at = [self.recheck_at, view.look_at].into_iter().flatten().min();
        }
        let learns_at = self.history.learns_at(&self.settings, now, &observation);
        self.recheck_at = [self.recheck_at, learns_at].into_iter().flatten().min();
        let left_alone = control.as_ref().is_some_and(|control| !control.mode.acts());
        let acts = self.leads && self.consequence == Consequence::Scale && !left_alone;
        self.show(&observation, &observed.view, &decision, signals, now);
        let snapshot = Arc::make_mut(&mut self.snapshot);
        snapshot.control.clone_from(&control);
        snapshot.work.clone_from(&observed.work);
        if !acts && decision.action != Action::Hold {
            // The decision of a standby, of a dry run or for an observed pool must not read as carried out.
            snapshot.reasons[0].insert_str(0, "would ");
        }
        let view = observed.view.ok()?;
        // A replacement starts a worker.
        let starts = control.as_ref().is_none_or(|control| control.mode != Mode::PausedOut);
        let replaced = if starts { self.replaced(&view, now) } else { Replaced::default() };
        let request = self.request(&decision, &view, &replaced)?;
        if !acts {
            return None;
        }
        let reason = if decision.action == Action::Hold { replaced.reason() } else { decision.headline() };
        let (from, replaces_unheard) = (decision.current, replaced.unheard.is_some());
        let under_way = UnderWay { from, demand: observation.demand, reason, signals, replaces_unheard, decision };
        self.phase = Phase::Scaling(Box::new(under_way));
        Some(Effect::Scale(request, signals))
    }

    fn decide(&mut self, control: Option<&Control>, observation: &Observation, now: Timestamp) -> Decision {
        if self.consequence != Consequence::Recommend {
            return decide_under(control, &self.settings, observation, &self.history, now);
        }
        let (decision, recommended) = recommend(control, &self.settings, observation, &self.history, now);
        self.history.recommended = recommended.or(self.history.recommended);
        Arc::make_mut(&mut self.snapshot).recommended = recommended;
        decision
    }

    /// Schedules another observation soon if the backend could not be asked; less often the longer that lasts.
    fn look_again_if_unseen(&mut self, view: &Result<PoolView, BackendError>, now: Timestamp) {
        self.unseen = if view.is_ok() { 0 } else { self.unseen.saturating_add(1) };
        if self.unseen > 0 {
            self.recheck_at = Some(now.after(Backoff::BACKEND.wait(self.unseen)));
        }
    }

    /// Returns whether starts or the backend fail, so that replacing workers would only make it worse.
    fn backs_off(&self, now: Timestamp) -> bool {
        let retries = [
            self.history.start_failures.as_ref().map(|failures| failures.retry_at(Backoff::START)),
            self.history.backend_failures.up.as_ref().map(|failures| failures.retry_at(Backoff::BACKEND)),
        ];
        retries.into_iter().flatten().any(|retry_at| now < retry_at)
    }

    /// Returns the workers to replace now: all stalled ones, and at most one without a heartbeat, at its own pace.
    fn replaced(&mut self, view: &PoolView, now: Timestamp) -> Replaced {
        if !view.workers.iter().any(|worker| worker.status == WorkerStatus::Unheard) {
            self.history.replacements = None;
        }
        if self.backs_off(now) {
            return Replaced::default();
        }
        let next_at = self.history.replacements.as_ref().map(|failures| failures.retry_at(Backoff::REPLACE));
        let paced = next_at.is_none_or(|at| at <= now);
        if !paced && !view.overdue.is_empty() {
            self.recheck_at = [self.recheck_at, next_at].into_iter().flatten().min();
        }
        let unheard = view.overdue.first().filter(|_| paced).cloned();
        Replaced { stalled: view.stalled.clone(), unheard }
    }

    /// Returns the request to the backend; `None` if there is nothing to do. Replaces workers along the way.
    fn request(&self, decision: &Decision, view: &PoolView, replaced: &Replaced) -> Option<ScaleRequest> {
        if decision.action == Action::Hold && replaced.is_empty() {
            return None;
        }
        let target = if decision.action == Action::Hold { decision.current } else { decision.target };
        // A worker without a heartbeat counts until it is replaced, so letting it go is part of letting workers go.
        let unheard = replaced.unheard.iter();
        let surplus = (decision.current.saturating_sub(target) as usize).saturating_sub(unheard.len());
        let others = view.idle.iter().chain(&view.busy).filter(|id| replaced.unheard.as_ref() != Some(id));
        // The backend also counts workers that leave because somebody else asked them to.
        let leaving = u32::try_from(view.leaving.len()).unwrap_or(u32::MAX);
        Some(ScaleRequest {
            worker_type: self.worker_type.clone(),
            target: target.saturating_add(leaving),
            retire: replaced.stalled.iter().chain(unheard).chain(others.take(surplus)).cloned().collect(),
            drain_timeout: self.settings.drain_timeout(),
        })
    }

    fn scaled(&mut self, scaled: Scaled, now: Timestamp) -> Option<Effect> {
        let Phase::Scaling(under_way) = std::mem::replace(&mut self.phase, Phase::Resting) else { return None };
        let UnderWay { decision, reason, demand, from, signals, replaces_unheard } = *under_way;
        let to = if decision.action == Action::Hold { decision.current } else { decision.target };
        let (reached, error) = match scaled.outcome {
            Ok(_) => {
                // The next observation sees the requested workers, and watches them.
                self.recheck_at = Some(now);
                self.history.note_backend_success(decision.action);
                if replaces_unheard {
                    self.history.note_replacement(now);
                }
                Arc::make_mut(&mut self.snapshot).backend_error = None;
                (to, None)
            }
            Err(error) => {
                self.note_backend_failure(decision.action, &error, now);
                (reached_in_part(from, &error.done), Some(error.message))
            }
        };
        let change = (reached != from).then_some(Change { at: now, from, to: reached });
        let snapshot = Arc::make_mut(&mut self.snapshot);
        if let Some(change) = change {
            self.history.note_change(change);
            snapshot.last_change = Some(change);
        }
        snapshot.desired = to;
        snapshot.reaction = Some(Reaction {
            requested_ms: Some(scaled.elapsed.as_secs_f64() * 1e3),
            ..snapshot.reaction.unwrap_or_default()
        });
        Some(Effect::Record(Box::new(ScalingRecord {
            worker_type: self.worker_type.clone(),
            action: if to < from { Action::ScaleDown } else { Action::ScaleUp },
            from,
            to,
            at: now,
            reason,
            trigger: signals.sources().collect(),
            lag: demand.lag.known().copied(),
            pending: demand.pending.known().copied(),
            change,
            token: scaled.token,
            error,
            reaction: Some(scaled.elapsed),
        })))
    }

    fn note_backend_failure(&mut self, action: Action, error: &BackendError, now: Timestamp) {
        // A permanent error is retried as rarely as one that has failed many times.
        let times = if error.kind == ErrorKind::Permanent { PERMANENT_FAILURE_WEIGHT } else { 1 };
        for _ in 0..times {
            self.history.note_backend_failure(action, now, error.message.clone());
        }
        self.recheck_at = self.history.backend_failures.of(action).map(|failures| failures.retry_at(Backoff::BACKEND));
        Arc::make_mut(&mut self.snapshot).backend_error = Some(error.message.clone());
    }

    /// Counts consecutive rounds of failed starts. A start grace without another failure, and with a ready worker, ends
    /// the series.
    fn note_starts(&mut self, view: &PoolView, now: Timestamp) {
        for failed in &view.failed_starts {
            let detail = failed.detail.clone().unwrap_or_else(|| notes::no_heartbeat(&self.worker_type, &failed.id));
            self.history.note_start_failure(failed.started_at, failed.at, detail);
        }
        let last_failure = self.history.start_failures.as_ref().map(|failures| failures.last_at);
        let grace = self.settings.start_grace();
        if view.counts.ready > view.counts.possibly_busy && last_failure.is_some_and(|at| now.since(at) >= grace) {
            self.history.note_start_success();
        }
    }

    fn show(
        &mut self,
        observation: &Observation,
        view: &Result<PoolView, BackendError>,
        decision: &Decision,
        signals: Signals,
        now: Timestamp,
    ) {
        self.reason_label = decision.reasons.last().map_or("none", Reason::label);
        let snapshot = Arc::make_mut(&mut self.snapshot);
        snapshot.evaluated_at = Some(now);
        snapshot.demand = observation.demand.clone();
        snapshot.queues.clone_from(&observation.queues);
        snapshot.pool = observation.pool.clone();
        (snapshot.min_workers, snapshot.max_workers) = (decision.floor, decision.ceiling);
        if observation.pool.known().is_some() {
            snapshot.desired = decision.target;
        }
        snapshot.action = decision.action;
        snapshot.reasons =
            std::iter::once(decision.headline()).chain(decision.reasons.iter().map(ToString::to_string)).collect();
        if let Ok(view) = view {
            snapshot.reasons.extend(notes::of(view, &self.settings, now));
        }
        snapshot.recheck_at = decision.recheck_at;
        snapshot.sources = signals.sources().collect();
        snapshot.count_decision(decision.action, self.reason_label);
        match view {
            Ok(view) => snapshot.workers.clone_from(&view.workers),
            Err(why) => snapshot.backend_error = Some(why.to_string()),
        }
        if view.is_ok() && self.history.backend_failures.is_empty() {
            snapshot.backend_error = None;
        }
        snapshot.start_failures = self.history.start_failures.as_ref().map(|failures| StartFailures {
            count: failures.count,
            last_at: failures.last_at,
            message: failures.message.clone(),
        });
    }

    /// Returns whether the backend failed to carry out the last decision of this kind.
    pub fn has_failed(&self, action: Action) -> bool {
        self.history.backend_failures.of(action).is_some()
    }

    /// Returns the signals that led to the observation in progress.
    pub fn evaluated_signals(&self) -> Option<Signals> {
        match self.phase {
            Phase::Observing(signals) => Some(signals),
            _ => None,
        }
    }

    /// Returns whether decisions are carried out, or reported as what would be done. False on a standby, whose leader
    /// decides.
    pub fn speaks(&self) -> bool {
        self.leads || self.consequence == Consequence::Show
    }

    /// Returns the rule that decided last, from a closed set.
    pub fn reason_label(&self) -> &'static str {
        self.reason_label
    }

    /// Records in the snapshot how long the decision took.
    pub fn note_decided(&mut self, elapsed: Duration) {
        let decided_ms = elapsed.as_secs_f64() * 1e3;
        Arc::make_mut(&mut self.snapshot).reaction =
            Some(Reaction { decided_ms, requested_ms: None, running_ms: None });
    }

    /// Records in the snapshot how long it took until the first new worker was ready.
    pub fn note_running(&mut self, elapsed: Duration) {
        if let Some(reaction) = &mut Arc::make_mut(&mut self.snapshot).reaction {
            reaction.running_ms = Some(elapsed.as_secs_f64() * 1e3);
        }
    }
}

/// Workers to be replaced.
#[derive(Debug, Default)]
struct Replaced {
    stalled: Vec<WorkerId>,
    unheard: Option<WorkerId>,
}

impl Replaced {
    fn is_empty(&self) -> bool {
        self.stalled.is_empty() && self.unheard.is_none()
    }

    /// Returns the reason for the record of a change that has no other reason.
    fn reason(&self) -> String {
        let stalled = match self.stalled.len() {
            0 => None,
            count => Some(format!("replacing {count} that were not ready within their start grace")),
        };
        let unheard = self.unheard.as_ref().map(|id| format!("replacing {id}, which is not heard any more"));
        [stalled, unheard].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// Returns the number of workers after a change that failed halfway.
fn reached_in_part(from: u32, done: &ScaleReport) -> u32 {
    let count = |ids: &[WorkerId]| u32::try_from(ids.len()).unwrap_or(u32::MAX);
    from.saturating_add(count(&done.started)).saturating_sub(count(&done.retired))
}

/// Weight of one permanent failure: enough for the backend's longest pause immediately.
const PERMANENT_FAILURE_WEIGHT: u32 = 7;

#[cfg(test)]
mod tests;
