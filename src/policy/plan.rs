//! A decision in the making: the target so far, and the rules that can still change it. Each rule is one method, in the
//! order in which `decide` calls them.

mod fallback;
mod limits;
mod recommending;

use std::{cmp::Ordering, time::Duration};

use super::{
    Decision,
    backoff::{Backoff, Failures},
    bounds::Bounds,
    history::History,
    observation::{KnownDepth, at_work},
    reason::Reason,
    steps::Room,
    strategy,
};
use crate::{
    config::{ScalingSettings, Strategy},
    model::{PoolCounts, Timestamp, snapshot::Action},
};

/// Shortest `recheck_at` after a change, for settings without a cooldown: "now" would cause a busy loop.
const SOON: Duration = Duration::from_millis(1);

/// A decision in the making.
pub(super) struct Plan<'a> {
    settings: &'a ScalingSettings,
    history: &'a History,
    bounds: Bounds,
    now: Timestamp,
    counts: &'a PoolCounts,
    current: u32,
    /// `current` within the bounds, and at least 1 once activated: the size to which the pool is repaired immediately.
    /// Holds bring the target back to it, and never past it.
    base: u32,
    /// Why `base` differs from `current`.
    repair: Option<Reason>,
    target: u32,
    recommendation: Option<u32>,
    reasons: Vec<Reason>,
    recheck_at: Option<Timestamp>,
    /// After a change that a limit cut short: when the next change may follow.
    next_step_at: Option<Timestamp>,
    held: bool,
}

impl<'a> Plan<'a> {
    /// Returns a plan that leaves the pool as it is.
    pub(super) fn new(
        settings: &'a ScalingSettings,
        history: &'a History,
        now: Timestamp,
        counts: &'a PoolCounts,
    ) -> Self {
        let bounds = Bounds::at(settings, now);
        let current = counts.current();
        let base = bounds.repaired(current);
        let repair = match base.cmp(&current) {
            Ordering::Less => Some(Reason::Maximum { max: bounds.hard_max }),
            Ordering::Greater => Some(bounds.why_min.clone()),
            Ordering::Equal => None,
        };
        Self {
            settings,
            history,
            bounds,
            now,
            counts,
            current,
            base,
            repair,
            target: current,
            recommendation: None,
            reasons: Vec::with_capacity(4),
            recheck_at: None,
            next_step_at: None,
            held: false,
        }
    }

    /// Turns the depth into a number of workers, before all bounds: the rules 1 to 3.
    pub(super) fn follow_depth(&mut self, depth: &KnownDepth<'_>) {
        self.follow_strategy(depth);
        self.wait_for_activation(depth.unfinished);
        self.keep_spare(depth.waiting);
        self.activate(depth.unfinished);
        self.find_room(depth.waiting);
    }

    /// Applies the strategy to the known part of the depth. A gap can only hide more jobs, so it never lowers the
    /// target.
    fn follow_strategy(&mut self, depth: &KnownDepth<'_>) {
        if let Some(jobs) = depth.jobs {
            self.reasons.extend(depth.longest_of.and_then(Reason::longest));
            let (recommendation, reason) = strategy::recommend(self.settings, &self.history.flow, jobs, self.current);
            self.target = recommendation;
            self.reasons.push(reason);
            if !self.settings.stabilization_window().is_zero() {
                self.recommendation = Some(recommendation.min(self.bounds.max));
            }
        }
        if let Some(why) = &depth.gap {
            self.target = self.target.max(self.current);
            self.reasons.push(Reason::DepthUnknown { why: why.clone() });
        }
    }

    /// Keeps an empty pool empty while there are fewer jobs than `activation_threshold`, whatever the strategy
    /// recommends.
    fn wait_for_activation(&mut self, depth: u64) {
        let threshold = self.settings.activation_threshold;
        if self.current == 0 && self.target > 0 && (1..threshold).contains(&depth) {
            self.target = 0;
            self.recommendation = self.recommendation.map(|_| 0);
            self.reasons.push(Reason::BelowActivation { depth, threshold });
        }
    }

    /// Adds `spare` idle workers to those at work.
    fn keep_spare(&mut self, waiting: u64) {
        let spare = self.settings.spare;
        if spare == 0 {
            return;
        }
        let at_work = at_work(self.counts, waiting);
        let recommendation = at_work.saturating_add(spare);
        self.recommendation =
            self.recommendation.map(|of_strategy| of_strategy.max(recommendation.min(self.bounds.max)));
        if self.target < recommendation {
            self.target = recommendation;
            self.reasons.push(Reason::Spare { spare, at_work, recommendation });
        }
    }

    /// Starts the first worker immediately if there is work, and keeps the last one.
    fn activate(&mut self, depth: u64) {
        let threshold = self.settings.activation_threshold;
        if depth < threshold {
            return;
        }
        let reason = Reason::Activation { depth, threshold, current: self.current };
        if self.base == 0 && self.bounds.max > 0 {
            self.base = 1;
            self.repair = Some(reason.clone());
        }
        if self.target == 0 {
            self.target = 1;
            self.reasons.push(reason);
        }
    }

    /// A job that waits although every worker has all the sessions that it can hold wants one worker more, whatever the
    /// thresholds say: the sessions may stay open for hours. One that is about to be there has room.
    fn find_room(&mut self, waiting: u64) {
        let PoolCounts { ready, full, starting, blocked, waiting_for_place, .. } = *self.counts;
        let jobs = waiting.saturating_add(waiting_for_place.into());
        if jobs == 0 || full == 0 || full < ready || starting > 0 || blocked > 0 {
            return;
        }
        // No worker is on its way, so these are all.
        let recommendation = ready.saturating_add(1);
        self.recommendation =
            self.recommendation.map(|of_strategy| of_strategy.max(recommendation.min(self.bounds.max)));
        if self.target < recommendation {
            self.target = recommendation;
            self.reasons.push(Reason::NoPlace { jobs, full });
        }
    }

    /// Compares the target with the size after repairs: a smaller target lets workers go that could stay.
    pub(super) fn direction(&self) -> Ordering {
        self.target.cmp(&self.base)
    }

    /// Lowers the target no further than to the highest recommendation of the stabilization window.
    pub(super) fn stabilize(&mut self) {
        let window = self.settings.stabilization_window();
        if window.is_zero() {
            return;
        }
        // A restart forgets the recommendations. Until the window has passed once, the present size stands for them.
        let forgotten = (self.history.started_at, self.current);
        let highest = self
            .history
            .recommendations
            .iter()
            .copied()
            .chain([forgotten])
            .filter(|(at, _)| at.after(window) > self.now);
        let Some((at, highest)) = highest.max_by_key(|&(at, recommendation)| (recommendation, at)) else { return };
        if self.raise_to(highest) {
            let until = at.after(window);
            self.recheck_at = Some(self.last_disturbance().after(self.settings.cooldown()).max(until));
            self.hold(Reason::Stabilization { highest, window, remaining: until.since(self.now) });
        }
    }

    /// Busy workers are not let go, unless there are more than `max_workers` of the worker type.
    pub(super) fn spare_busy(&mut self) {
        let busy = self.counts.busy;
        if self.raise_to(busy) {
            self.hold(Reason::Busy { busy, of: self.current });
        }
    }

    /// Keeps workers without a heartbeat, because they may be busy.
    pub(super) fn spare_possibly_busy(&mut self) {
        let PoolCounts { busy, possibly_busy, .. } = *self.counts;
        if self.raise_to(busy.saturating_add(possibly_busy)) {
            self.hold(Reason::PossiblyBusy { workers: possibly_busy, of: self.current });
        }
    }

    /// Where the platform decides who goes, only those are let go whom it removes before all that are not idle; also
    /// when there are more workers than allowed.
    pub(super) fn keep_order(&mut self) {
        let stay = self.counts.must_stay.min(self.current);
        if self.target < stay {
            self.target = stay;
            self.reasons.push(Reason::Order { stay, of: self.current });
        }
    }

    /// Lets workers go only a cooldown after the last change, or after the start of the scaler.
    pub(super) fn cool_down(&mut self) {
        if self.direction() == Ordering::Less {
            self.wait_until(self.last_disturbance().after(self.settings.cooldown()));
        }
    }

    /// Lets `step` add workers only a cooldown after it last added some. Removals delay nothing.
    pub(super) fn pace_steps(&mut self) {
        if self.settings.strategy != Strategy::Step {
            return;
        }
        let ends_at = match self.history.last_change {
            Some(change) if change.to > change.from => change.at.after(self.settings.cooldown()),
            _ => self.now,
        };
        self.wait_until(ends_at);
    }

    /// Lets at most `max_step_down` workers go in any `step_period_seconds`. A restart forgets earlier removals, so no
    /// worker is let go for one period after it.
    pub(super) fn limit_step_down(&mut self) {
        let (Some(most), period) = (self.settings.max_step_down, self.settings.step_period()) else { return };
        let watched_at = self.history.started_at.after(period);
        let room = if watched_at > self.now {
            Room { workers: 0, more_at: watched_at }
        } else {
            self.history.steps.room_to_remove(most, period, self.now)
        };
        if self.raise_to(self.current.saturating_sub(room.workers)) {
            self.cut_short(room, Reason::StepDown { most, period, remaining: room.more_at.since(self.now) });
        }
    }

    /// Adds at most `max_step_up` workers in any `step_period_seconds`, except for repairs and for replacing workers
    /// that are gone.
    pub(super) fn limit_step_up(&mut self) {
        let (Some(most), period) = (self.settings.max_step_up, self.settings.step_period()) else { return };
        let room = self.history.steps.room_to_add(most, period, self.now);
        let had = self.history.last_change.map_or(0, |change| change.to);
        let highest = self.current.saturating_add(room.workers).max(had).max(self.base);
        if self.target > highest {
            self.target = highest;
            self.cut_short(room, Reason::StepUp { most, period, remaining: room.more_at.since(self.now) });
        }
    }

    /// Limits the existing workers to twice `max_workers`, including those that do not leave when asked to or never
    /// became ready. Workers that finish their work do not count.
    pub(super) fn limit_alive(&mut self) {
        let PoolCounts { lingering, stalled, .. } = *self.counts;
        let stuck = lingering.saturating_add(stalled);
        let ceiling = self.bounds.max.saturating_mul(2);
        let highest = ceiling.saturating_sub(stuck).max(self.current);
        if self.target <= highest {
            return;
        }
        self.reasons.push(Reason::Ceiling { stuck, ceiling });
        if highest > self.current && self.bounds.bound(highest) == highest {
            self.target = highest;
        } else {
            self.held = true;
            self.target = self.bounds.repaired(self.current);
        }
    }

    /// After failures, holds changes that would fail again until the next retry is due. A change that is already held
    /// is not a retry.
    pub(super) fn back_off(&mut self) {
        if self.held || self.target == self.current {
            return;
        }
        let starts = self.history.start_failures.as_ref().filter(|_| self.target > self.current);
        let starts = pending_retry(starts, Backoff::START, self.now);
        let direction = if self.target > self.current { Action::ScaleUp } else { Action::ScaleDown };
        let backend = pending_retry(self.history.backend_failures.of(direction), Backoff::BACKEND, self.now);
        if starts.is_none() && backend.is_none() {
            return;
        }
        self.held = true;
        self.target = self.bounds.repaired(self.current);
        self.recheck_at = starts.map(|(_, at)| at).max(backend.map(|(_, at)| at));
        let now = self.now;
        self.reasons.extend(starts.map(|(failures, at)| Reason::StartBackoff {
            count: failures.count,
            message: failures.message.clone(),
            remaining: at.since(now),
        }));
        self.reasons.extend(backend.map(|(failures, at)| Reason::BackendBackoff {
            count: failures.count,
            message: failures.message.clone(),
            remaining: at.since(now),
        }));
    }

    /// Returns the decision.
    pub(super) fn finish(self) -> Decision {
        let action = match self.target.cmp(&self.current) {
            Ordering::Less if !self.held => Action::ScaleDown,
            Ordering::Greater if !self.held => Action::ScaleUp,
            _ => Action::Hold,
        };
        let recheck_at = if action == Action::Hold { self.recheck_at } else { self.next_move_at() };
        Decision {
            recheck_at: [recheck_at, self.bounds.change_at].into_iter().flatten().min(),
            floor: self.bounds.bound(0),
            ceiling: self.bounds.max,
            target: self.target,
            current: self.current,
            action,
            reasons: self.reasons,
            recommendation: self.recommendation,
        }
    }

    /// Returns when the next change may follow, for a strategy that reaches its target in several changes.
    fn next_move_at(&self) -> Option<Timestamp> {
        let cooled = self.now.after(self.settings.cooldown().max(SOON));
        let next_move_at = match self.settings.strategy {
            Strategy::Step => Some(cooled),
            Strategy::Threshold | Strategy::Backlog | Strategy::Latency => self.recheck_at.map(|at| at.max(cooled)),
        };
        let down = self.target < self.current;
        let next_step_at = self.next_step_at.map(|at| if down { at.max(cooled) } else { at });
        [next_move_at, next_step_at].into_iter().flatten().min()
    }

    /// Returns the time of the last change, for the scale-down cooldown. A start of the scaler counts as a change.
    fn last_disturbance(&self) -> Timestamp {
        self.history.last_change.map_or(self.history.started_at, |change| change.at.max(self.history.started_at))
    }

    /// Raises a target that lets workers go to `floor`, as far as those workers may stay. Returns whether the target
    /// changed.
    fn raise_to(&mut self, floor: u32) -> bool {
        let raised = self.target.max(floor.min(self.base));
        let changed = raised != self.target;
        self.target = raised;
        changed
    }

    /// Allows only repairs before `ends_at`.
    fn wait_until(&mut self, ends_at: Timestamp) {
        if self.now < ends_at && self.target != self.base {
            self.target = self.base;
            self.recheck_at = Some(ends_at);
            self.hold(Reason::Cooldown { remaining: ends_at.since(self.now) });
        }
    }

    /// Records that a limit left a part of the change for later.
    fn cut_short(&mut self, room: Room, reason: Reason) {
        if self.target == self.base {
            self.recheck_at = Some(room.more_at);
        }
        self.next_step_at = Some(room.more_at);
        self.hold(reason);
    }

    /// Adds the reason for a hold. If only a repair is left, adds its reason as well.
    fn hold(&mut self, reason: Reason) {
        self.reasons.push(reason);
        if self.target == self.base {
            self.reasons.extend(self.repair.clone());
        }
    }
}

/// Returns the failures whose backoff has not passed, and when it passes.
fn pending_retry(failures: Option<&Failures>, backoff: Backoff, now: Timestamp) -> Option<(&Failures, Timestamp)> {
    failures.map(|failures| (failures, failures.retry_at(backoff))).filter(|&(_, at)| at > now)
}
