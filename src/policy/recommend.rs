//! Recommendations for worker types whose number of workers somebody else sets: KEDA.

use super::{Decision, History, Observation, Reason, bounds::Bounds, observation::KnownDepth, plan::Plan};
use crate::{
    config::ScalingSettings,
    model::{
        PoolCounts, Reading, Timestamp,
        control::{Control, Mode},
    },
};

/// Decides how many workers to recommend at `now`. The action is always "hold", because nobody here changes the number;
/// the target is the recommendation.
///
/// The rules are those of [`decide`](super::decide), without the ones that delay or limit a change: cooldown,
/// stabilization window, steps and backoffs belong to whoever sets the number. The thresholds keep the last
/// recommendation where they would keep the present number, which may lag behind it. Workers that are or may be busy
/// are always recommended, because nobody here chooses which workers leave.
///
/// An override applies to the recommendation: while a worker type is paused or observed, the last one stays.
///
/// `None` beside the decision: the number is not known, and must not be passed on.
pub fn recommend(
    control: Option<&Control>,
    settings: &ScalingSettings,
    observation: &Observation,
    history: &History,
    now: Timestamp,
) -> (Decision, Option<u32>) {
    let control = control.filter(|control| control.holds_at(now));
    let blind = PoolCounts::default();
    let counts = observation.pool.known().unwrap_or(&blind);
    let depth = KnownDepth::of(observation);
    let mut plan = Plan::recommending(settings, history, now, counts);
    plan.follow_depth(&depth);
    plan.keep_bounds();
    plan.keep_busy();
    let mut decision = plan.recommendation();
    if let Reading::Unknown(why) | Reading::Failed(why) = &observation.pool {
        decision.target = history.recommended.unwrap_or(decision.target);
        decision.reasons = vec![Reason::PoolUnknown { why: why.clone() }];
    }
    let is_readable = depth.gap.is_none() && observation.pool.known().is_some();
    let mut known = is_readable.then_some(decision.target);
    if let Some(control) = control {
        known = decision.follow(control, settings, history, now, known);
    }
    decision.reasons.insert(0, Reason::Recommended);
    (decision, known)
}

impl Decision {
    /// Applies an override to a recommendation. Returns the number, if it is known.
    fn follow(
        &mut self,
        control: &Control,
        settings: &ScalingSettings,
        history: &History,
        now: Timestamp,
        free: Option<u32>,
    ) -> Option<u32> {
        let (by, remaining) = (control.by.clone(), control.until.map(|until| until.since(now)));
        let last = history.recommended.map(|last| Bounds::at(settings, now).repaired(last));
        let (known, reason) = match control.mode {
            Mode::Paused => (last, Some(Reason::Paused { by, remaining })),
            Mode::Observe => (last, Some(Reason::ObserveOnly { by, remaining })),
            Mode::PausedIn => {
                let known = free.zip(last).map(|(free, last)| free.max(last));
                (known, (known > free).then_some(Reason::PausedIn { by, remaining }))
            }
            Mode::PausedOut => {
                let known = free.zip(last).map(|(free, last)| free.min(last));
                (known, (known < free).then_some(Reason::PausedOut { by, remaining }))
            }
            Mode::Pinned(workers) => {
                let workers = workers.max(settings.min_workers).min(settings.max_workers);
                (Some(workers), Some(Reason::Pinned { workers, by, remaining }))
            }
        };
        self.target = known.unwrap_or(self.target);
        self.reasons.extend(reason);
        self.recheck_at = [self.recheck_at, control.until].into_iter().flatten().min();
        known
    }
}

#[cfg(test)]
mod tests;
