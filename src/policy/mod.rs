//! How many workers there should be, and why. The pure core: what was observed, what happened before and the time come
//! in, a [`Decision`] goes out.
//!
//! Owns the strategies, the bounds, the cooldowns, the backoffs and the words for all of them. Must not do I/O, read a
//! clock, log or count: the same arguments give the same decision, so that a decision can be replayed.
//!
//! A decision is made in this order; each rule that changes the outcome adds its [`Reason`]:
//!
//! 1. the strategy turns the depth into a recommendation ([`ScalingSettings::strategy`]); of several queues, that is
//!    the depth of all of
//!    them or of the longest ([`Combine`](crate::model::Combine));
//! 2. `spare` workers are wanted beside those at work;
//! 3. enough unfinished jobs for activation, in whichever queues, want at least one worker;
//!    jobs that no worker has a place for want one worker more;
//! 4. `fallback_workers` raise it while the queue can't be read for too long; `min_workers` and `max_workers`, or what
//!    the schedule makes of them, and what the budget leaves to the pool bound it;
//! 5. what would let workers go must get past the stabilization window, the workers that are or may be busy, the
//!    cooldown and `max_step_down`; what would add some, past the pace of the `step` strategy, `max_step_up` and the
//!    ceiling on processes that do not leave;
//! 6. after failures, a backoff holds everything that would fail again.
//!
//! Repairs are exempt from 5: a pool outside its bounds is brought to the nearest bound at once, and an empty pool with
//! work gets its first worker at once.

mod backoff;
mod bounds;
mod budget;
mod control;
mod flow;
mod history;
mod observation;
mod plan;
mod reason;
mod recommend;
mod schedule;
mod steps;
mod strategy;

use std::cmp::Ordering;

pub use self::{
    backoff::{Backoff, Failures},
    budget::{Claim, allowances},
    control::decide_under,
    flow::{Flow, Unlearned},
    history::{ByDirection, History},
    observation::Observation,
    reason::Reason,
    recommend::recommend,
    steps::Steps,
};
use self::{bounds::Bounds, observation::KnownDepth, plan::Plan};
use crate::{
    config::ScalingSettings,
    model::{Reading, Timestamp, snapshot::Action},
};

/// What to do, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Workers that should be there now. Always within `min_workers` and `max_workers`, except for those above the
    /// maximum that a platform with an order of its own can't remove yet. A maximum that the schedule lowers stops
    /// nobody who is busy.
    ///
    /// Equals `current` when nothing is to be done, with two exceptions that [`action`](Self::action) tells: while a
    /// backoff holds the repair of a pool outside its bounds, it is the bound to be repaired to; and while the pool is
    /// not known, it is the last target. A recommendation never asks for an action; its target is the
    /// recommended number.
    pub target: u32,
    /// Workers that count as capacity. While the pool is unknown: the target of the last change, 0 without one.
    pub current: u32,
    /// Lower bound in force: `min_workers`, or the value to which an open window of the schedule raises it.
    pub floor: u32,
    /// The upper bound in force: `max_workers`, or what an open window of the schedule lowers it to.
    pub ceiling: u32,
    /// The only part that asks for a write. [`Action::Hold`] never does, whatever `target` says.
    pub action: Action,
    /// The arithmetic, then each rule that changed its outcome, in order: the last one decided. Never empty.
    pub reasons: Vec<Reason>,
    /// When a rule stops holding a change back, or the schedule changes: the time of the next evaluation, later than
    /// now. `None`: only a new observation can change the outcome.
    pub recheck_at: Option<Timestamp>,
    /// Recommendation, at most `max_workers`, to be kept with [`History::note_recommendation`]. `None` without a
    /// stabilization window, or if the depth is unknown.
    pub recommendation: Option<u32>,
}

impl Decision {
    /// Returns one line for people: `held at 3: depth 0 ≤ 0 wants 1, cooldown ends in 41 s`.
    pub fn headline(&self) -> String {
        let what = match self.action {
            Action::Hold if self.reasons.first() == Some(&Reason::Recommended) => format!("recommends {}", self.target),
            Action::Hold => format!("held at {}", self.current),
            Action::ScaleUp => format!("scale up {} → {}", self.current, self.target),
            Action::ScaleDown => format!("scale down {} → {}", self.current, self.target),
        };
        let why: Vec<String> = self.reasons.iter().map(Reason::to_string).collect();
        format!("{what}: {}", why.join(", "))
    }
}

/// Decides how many workers there should be at `now`.
///
/// An unreadable pool holds everything. An unreadable depth lowers nothing; its known part can still raise the target,
/// and the bounds stay in force.
pub fn decide(settings: &ScalingSettings, observation: &Observation, history: &History, now: Timestamp) -> Decision {
    let counts = match &observation.pool {
        Reading::Known(counts) => counts,
        Reading::Unknown(why) | Reading::Failed(why) => return hold_blindly(settings, history, now, why),
    };
    let depth = KnownDepth::of(observation);
    let mut plan = Plan::new(settings, history, now, counts);
    plan.follow_depth(&depth);
    plan.fall_back(&depth);
    plan.keep_bounds();
    plan.keep_budget(observation.allowance);
    match plan.direction() {
        Ordering::Less => {
            plan.stabilize();
            plan.spare_busy();
            plan.spare_possibly_busy();
            plan.cool_down();
            plan.limit_step_down();
        }
        Ordering::Greater => {
            plan.pace_steps();
            plan.limit_step_up();
        }
        Ordering::Equal => {}
    }
    plan.keep_order();
    // Applies also if `min_workers` alone asks for more.
    plan.limit_alive();
    plan.back_off();
    plan.finish()
}

/// Returns the decision about an unreadable pool.
fn hold_blindly(settings: &ScalingSettings, history: &History, now: Timestamp, why: &str) -> Decision {
    let current = history.last_change.map_or(0, |change| change.to);
    let bounds = Bounds::at(settings, now);
    Decision {
        target: bounds.repaired(current),
        current,
        floor: bounds.bound(0),
        ceiling: bounds.max,
        action: Action::Hold,
        reasons: vec![Reason::PoolUnknown { why: why.to_owned() }],
        recheck_at: None,
        recommendation: None,
    }
}
