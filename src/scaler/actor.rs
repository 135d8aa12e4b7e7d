//! The state machine of one worker type: inputs in, effects out. No clock, no I/O, and no lock but that of the budget,
//! which all actors share and hold for one decision.
//!
//! At most one effect is in progress. A signal that arrives meanwhile is kept and causes one more evaluation
//! afterwards. The next evaluation follows the previous one after the debounce at the earliest. The evaluation sets
//! that deadline and signals never move it, so a busy queue can't starve itself.

mod deciding;
mod messages;
mod moving;
mod notes;
mod scaling;

use std::{sync::Arc, time::Duration};

use self::scaling::Replaced;
pub use self::{
    messages::{Consequence, Effect, Input, Observed, Scaled, ScalingRecord},
    moving::Tuning,
};
use crate::{
    backend::{BackendError, ManualScale},
    config::ScalingSettings,
    model::{
        Demand, Reading, Source, Timestamp, WorkerType,
        control::Mode,
        snapshot::{Action, Change, Reaction, StartFailures, TypeSnapshot},
    },
    policy::{Backoff, Decision, History, Observation, Reason},
    scaler::{budget::Budget, worker_tracker::PoolView},
    signal::Signals,
};

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
    /// Budget that the actor shares with others; `None` if it is alone, as in a simulation.
    budget: Option<Arc<Budget>>,
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
            allowance: None,
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
            worker_seconds: 0.0,
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
            budget: None,
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
        effects.extend(self.ask_again(&observed));
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
        let observation = Observation { demand: observed.demand, queues: observed.queues, allowance: None, pool };
        self.history.note_flow(&self.settings, now, &observation, observed.counters);
        self.history.note_depth(&observation, now);
        let control = observed.control.filter(|control| control.holds_at(now));
        let left_alone = control.as_ref().is_some_and(|control| !control.mode.acts());
        let acts = self.leads && self.consequence == Consequence::Scale && !left_alone;
        // A replacement starts a worker.
        let may_replace = control.as_ref().is_none_or(|control| control.mode != Mode::PausedOut);
        let decision = self.decide(control.as_deref(), &observation, acts, now);
        if observed.is_partial && self.lets_go(&decision, &observed.view, acts && may_replace, now) {
            self.phase = Phase::Observing(signals);
            return Some(Effect::ObserveInFull);
        }
        if let Some(recommendation) = decision.recommendation {
            self.history.note_recommendation(&self.settings, now, recommendation);
        }
        self.recheck_at = decision.recheck_at;
        self.look_again_if_unseen(&observed.view, now);
        // A time that has passed while the counts were on their way is still to come for them.
        let due_at = observed.look_at.map(|at| at.max(now));
        self.recheck_at = [self.recheck_at, due_at].into_iter().flatten().min();
        if let Ok(view) = &observed.view {
            self.recheck_at = [self.recheck_at, view.look_at].into_iter().flatten().min();
        }
        let learns_at = self.history.learns_at(&self.settings, now, &observation);
        self.recheck_at = [self.recheck_at, learns_at].into_iter().flatten().min();
        self.show(&observation, &observed.view, &decision, signals, now);
        let snapshot = Arc::make_mut(&mut self.snapshot);
        snapshot.control.clone_from(&control);
        snapshot.work.clone_from(&observed.work);
        if !acts && decision.action != Action::Hold {
            // The decision of a standby, of a dry run or for an observed pool must not read as carried out.
            snapshot.reasons[0].insert_str(0, "would ");
        }
        let view = observed.view.ok()?;
        let replaced = if may_replace { self.replaced(&view, now) } else { Replaced::default() };
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
        if let Some(before) = snapshot.evaluated_at.filter(|_| self.leads) {
            snapshot.count_worker_time(now.since(before));
        }
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

    /// Returns whether the actor only recommends a number, and others decide who is let go.
    pub fn only_recommends(&self) -> bool {
        self.consequence == Consequence::Recommend
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

#[cfg(test)]
mod tests;
