//! A decision in the making: the target so far, and the rules that may still change it. Each rule is one method, in the
//! order in which `decide` calls them.

use std::{cmp::Ordering, time::Duration};

use super::{
    Decision,
    backoff::{Backoff, Failures},
    history::History,
    observation::KnownDepth,
    reason::Reason,
    strategy,
};
use crate::{
    config::{ScalingSettings, Strategy},
    model::{PoolCounts, Timestamp, snapshot::Action},
};

/// The shortest `recheck_at` after a change, for settings without a cooldown: never "now", which would spin.
const SOON: Duration = Duration::from_millis(1);

/// `workers` within the bounds. Unlike `clamp` it does not panic if they cross; then the upper one wins.
pub(super) fn bounded(settings: &ScalingSettings, workers: u32) -> u32 {
    workers.max(settings.min_workers).min(settings.max_workers)
}

/// A decision in the making.
pub(super) struct Plan<'a> {
    settings: &'a ScalingSettings,
    history: &'a History,
    now: Timestamp,
    current: u32,
    busy: u32,
    /// `current` within the bounds, at least 1 once activated: what the pool is repaired to at once. Holds bring the
    /// target back to it, and never past it.
    base: u32,
    /// Why `base` is not `current`.
    repair: Option<Reason>,
    target: u32,
    wish: Option<u32>,
    reasons: Vec<Reason>,
    recheck_at: Option<Timestamp>,
    held: bool,
}

impl<'a> Plan<'a> {
    /// Nothing decided: the pool stays as it is.
    pub(super) fn new(
        settings: &'a ScalingSettings,
        history: &'a History,
        now: Timestamp,
        counts: &PoolCounts,
    ) -> Self {
        let current = counts.current();
        let base = bounded(settings, current);
        let repair = match base.cmp(&current) {
            Ordering::Less => Some(Reason::Maximum { max: settings.max_workers }),
            Ordering::Greater => Some(Reason::Minimum { min: settings.min_workers }),
            Ordering::Equal => None,
        };
        Self {
            settings,
            history,
            now,
            current,
            busy: counts.busy,
            base,
            repair,
            target: current,
            wish: None,
            reasons: Vec::with_capacity(4),
            recheck_at: None,
            held: false,
        }
    }

    /// The strategy's wish for what is known of the depth. A gap in it can only hide more jobs, so it never lowers.
    pub(super) fn follow_strategy(&mut self, depth: &KnownDepth) {
        if let Some(jobs) = depth.jobs {
            let (wish, reason) = strategy::wish(self.settings, jobs, self.current);
            self.target = wish;
            self.reasons.push(reason);
            if self.settings.strategy == Strategy::Backlog {
                self.wish = Some(bounded(self.settings, wish));
            }
        }
        if let Some(why) = &depth.gap {
            self.target = self.target.max(self.current);
            self.reasons.push(Reason::DepthUnknown { why: why.clone() });
        }
    }

    /// Work starts the first worker at once, and keeps the last one.
    pub(super) fn activate(&mut self, depth: u64) {
        let threshold = self.settings.activation_threshold;
        if depth < threshold {
            return;
        }
        let reason = Reason::Activation { depth, threshold, current: self.current };
        if self.base == 0 && self.settings.max_workers > 0 {
            self.base = 1;
            self.repair = Some(reason.clone());
        }
        if self.target == 0 {
            self.target = 1;
            self.reasons.push(reason);
        }
    }

    /// `min_workers` and `max_workers`.
    pub(super) fn keep_bounds(&mut self) {
        let target = bounded(self.settings, self.target);
        match target.cmp(&self.target) {
            Ordering::Less => self.reasons.push(Reason::Maximum { max: self.settings.max_workers }),
            Ordering::Greater => self.reasons.push(Reason::Minimum { min: self.settings.min_workers }),
            Ordering::Equal => {}
        }
        self.target = target;
    }

    /// Where the target is, seen from what is repaired to at once: less lets workers go that could stay.
    pub(super) fn direction(&self) -> Ordering {
        self.target.cmp(&self.base)
    }

    /// `backlog` goes down no further than to the highest wish of the stabilization window.
    pub(super) fn stabilize(&mut self) {
        if self.settings.strategy != Strategy::Backlog {
            return;
        }
        let window = self.settings.stabilization_window();
        // A restart forgets the wishes. Until the window has passed once, the pool as it is stands for them.
        let forgotten = (self.history.started_at, self.current);
        let highest =
            self.history.wishes.iter().copied().chain([forgotten]).filter(|(at, _)| at.after(window) > self.now);
        let Some((at, highest)) = highest.max_by_key(|&(at, wish)| (wish, at)) else { return };
        if self.raise_to(highest) {
            let until = at.after(window);
            self.recheck_at = Some(self.last_disturbance().after(self.settings.cooldown()).max(until));
            self.hold(Reason::Stabilization { highest, window, remaining: until.since(self.now) });
        }
    }

    /// Busy workers are not let go, unless there are more than `max_workers`.
    pub(super) fn spare_busy(&mut self) {
        if self.raise_to(self.busy) {
            self.hold(Reason::Busy { busy: self.busy, of: self.current });
        }
    }

    /// Workers are let go only a cooldown after the last change, or after the start of the scaler.
    pub(super) fn cool_down(&mut self) {
        if self.direction() == Ordering::Less {
            self.wait_until(self.last_disturbance().after(self.settings.cooldown()));
        }
    }

    /// `step` adds workers only a cooldown after it last added some. Having let some go delays nothing.
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

    /// After failures nothing is asked for that would fail again, until it is time for another try.
    pub(super) fn back_off(&mut self) {
        if self.target == self.current {
            return;
        }
        let starts = self.history.start_failures.as_ref().filter(|_| self.target > self.current);
        let starts = pending_retry(starts, Backoff::START, self.now);
        let backend = pending_retry(self.history.backend_failures.as_ref(), Backoff::BACKEND, self.now);
        if starts.is_none() && backend.is_none() {
            return;
        }
        self.held = true;
        self.target = bounded(self.settings, self.current);
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

    /// The decision.
    pub(super) fn finish(self) -> Decision {
        let action = match self.target.cmp(&self.current) {
            Ordering::Less if !self.held => Action::ScaleDown,
            Ordering::Greater if !self.held => Action::ScaleUp,
            _ => Action::Hold,
        };
        Decision {
            recheck_at: if action == Action::Hold { self.recheck_at } else { self.next_move_at() },
            target: self.target,
            current: self.current,
            action,
            reasons: self.reasons,
            wish: self.wish,
        }
    }

    /// After a change: when the next one may follow, for a strategy that gets to its aim in several.
    fn next_move_at(&self) -> Option<Timestamp> {
        let cooled = self.now.after(self.settings.cooldown().max(SOON));
        match self.settings.strategy {
            Strategy::Step => Some(cooled),
            Strategy::Threshold | Strategy::Backlog => self.recheck_at.map(|at| at.max(cooled)),
        }
    }

    /// The last time that anything changed, for the scale-down cooldown. A start of the scaler counts.
    fn last_disturbance(&self) -> Timestamp {
        self.history.last_change.map_or(self.history.started_at, |change| change.at.max(self.history.started_at))
    }

    /// Raises a target that lets workers go to `floor`, as far as they may stay. Says whether that changed it.
    fn raise_to(&mut self, floor: u32) -> bool {
        let raised = self.target.max(floor.min(self.base));
        let changed = raised != self.target;
        self.target = raised;
        changed
    }

    /// Before `ends_at`, nothing but repairs.
    fn wait_until(&mut self, ends_at: Timestamp) {
        if self.now < ends_at && self.target != self.base {
            self.target = self.base;
            self.recheck_at = Some(ends_at);
            self.hold(Reason::Cooldown { remaining: ends_at.since(self.now) });
        }
    }

    /// Adds why the target was held; and if all that is left is a repair, why that is made nevertheless.
    fn hold(&mut self, reason: Reason) {
        self.reasons.push(reason);
        if self.target == self.base {
            self.reasons.extend(self.repair.clone());
        }
    }
}

/// The failures whose backoff has not passed, and when it does.
fn pending_retry(failures: Option<&Failures>, backoff: Backoff, now: Timestamp) -> Option<(&Failures, Timestamp)> {
    failures.map(|failures| (failures, failures.retry_at(backoff))).filter(|&(_, at)| at > now)
}
