//! Bounds of the target: those of the pool, and the budget over all pools, a maximum that other pools lower.

use std::{cmp::Ordering, time::Duration};

use super::Plan;
use crate::{model::Allowance, policy::reason::Reason};

/// Time until a pool that has more than its share is evaluated again: nobody signals that a worker has become idle.
const IDLE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

impl Plan<'_> {
    /// `min_workers` and `max_workers`, or what the schedule makes of them.
    pub(in crate::policy) fn keep_bounds(&mut self) {
        let target = self.bounds.bound(self.target);
        match target.cmp(&self.target) {
            Ordering::Less => self.reasons.push(self.bounds.why_max.clone()),
            Ordering::Greater => self.reasons.push(self.bounds.why_min.clone()),
            Ordering::Equal => {}
        }
        self.target = target;
    }

    /// Lowers the target to what the budget leaves to this pool. Starts nobody beyond it, not even for a repair, and
    /// lets only idle workers go.
    pub(in crate::policy) fn keep_budget(&mut self, allowance: Option<Allowance>) {
        let Some(allowance) = allowance.filter(|allowance| allowance.workers < self.target) else { return };
        self.target = allowance.workers;
        self.base = self.base.min(allowance.workers.max(self.current));
        if allowance.workers < self.current {
            self.recheck_at = Some(self.now.after(IDLE_CHECK_INTERVAL));
        }
        self.reasons.push(Reason::Budget(allowance));
    }
}
