//! `fallback_workers`: a minimum while the queue can't be read.

use super::Plan;
use crate::policy::{observation::KnownDepth, reason::Reason};

impl Plan<'_> {
    /// Raises the target to `fallback_workers` once the queue has not been readable for `fallback_after_seconds`. Never
    /// lowers it.
    pub(in crate::policy) fn fall_back(&mut self, depth: &KnownDepth<'_>) {
        let Some(workers) = self.settings.fallback_workers.filter(|_| depth.gap.is_some()) else { return };
        let since = self.history.unreadable_since.unwrap_or(self.now);
        let due_at = since.after(self.settings.fallback_after());
        if due_at > self.now {
            self.recheck_at = Some(due_at);
        } else if self.target < workers {
            self.target = workers;
            self.reasons.push(Reason::Fallback { workers, unreadable: self.now.since(since) });
        }
    }
}
