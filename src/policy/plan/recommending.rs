//! Plans for a recommendation: the number of workers is somebody else's.

use super::{Decision, Plan};
use crate::{
    config::ScalingSettings,
    model::{PoolCounts, Timestamp, snapshot::Action},
    policy::{history::History, reason::Reason},
};

impl<'a> Plan<'a> {
    /// Returns a plan that keeps the last recommendation. Without one, it keeps the present workers.
    pub(in crate::policy) fn recommending(
        settings: &'a ScalingSettings,
        history: &'a History,
        now: Timestamp,
        counts: &'a PoolCounts,
    ) -> Self {
        let mut plan = Self::new(settings, history, now, counts);
        if let Some(last) = history.recommended {
            (plan.current, plan.target) = (last, last);
            plan.base = plan.bounds.repaired(last);
        }
        plan
    }

    /// Recommends at least the workers that are or may be busy, up to the upper bound.
    pub(in crate::policy) fn keep_busy(&mut self) {
        let PoolCounts { busy, possibly_busy, .. } = *self.counts;
        let of = self.counts.current();
        let mut raise = |to: u32, reason: Reason| {
            let to = to.min(self.bounds.hard_max);
            if self.target < to {
                self.target = to;
                self.reasons.push(reason);
            }
        };
        raise(busy, Reason::Busy { busy, of });
        raise(busy.saturating_add(possibly_busy), Reason::PossiblyBusy { workers: possibly_busy, of });
    }

    /// Returns the decision, whose target is the recommendation.
    pub(in crate::policy) fn recommendation(self) -> Decision {
        let current = self.counts.current();
        Decision { action: Action::Hold, current, recommendation: None, ..self.finish() }
    }
}
