//! From a snapshot to an answer. Pure. A number that is not known is a refusal: 0 or "inactive" would stop workers.

use super::{
    metadata::{Metric, Trigger},
    refusal::Refusal,
};
use crate::model::snapshot::{FleetSnapshot, TypeSnapshot};

/// Maximum names in an error.
const MAX_NAMES: usize = 20;

/// The answers about one trigger.
pub(super) struct Answer<'a> {
    fleet: &'a FleetSnapshot,
    seen: &'a TypeSnapshot,
}

impl<'a> Answer<'a> {
    /// Finds the worker type of a trigger.
    pub(super) fn find(fleet: &'a FleetSnapshot, trigger: &Trigger) -> Result<Self, Refusal> {
        let seen = fleet.worker_types.iter().find(|seen| seen.worker_type == trigger.worker_type);
        let seen = seen.ok_or_else(|| Refusal::UnknownType(unknown(fleet, trigger)))?;
        Ok(Self { fleet, seen })
    }

    /// Returns whether there is work for at least one worker, or a worker at work.
    pub(super) fn is_active(&self) -> Result<bool, Refusal> {
        let recommended = self.workers()?;
        let at_work = self.seen.pool.known().is_some_and(|pool| pool.busy + pool.possibly_busy > 0);
        Ok(recommended > 0 || at_work)
    }

    /// Returns the value of a metric.
    pub(super) fn value(&self, metric: Metric) -> Result<u64, Refusal> {
        match metric {
            Metric::Workers => self.workers().map(u64::from),
            Metric::Depth { .. } => self.depth(),
        }
    }

    fn depth(&self) -> Result<u64, Refusal> {
        self.check_readable()?;
        let depth = self.seen.demand.depth();
        depth.known().copied().ok_or_else(|| self.unavailable(depth.why_not().unwrap_or_default()))
    }

    fn workers(&self) -> Result<u32, Refusal> {
        self.depth()?;
        if let Some(why) = self.seen.pool.why_not() {
            return Err(self.unavailable(why));
        }
        // A worker type that is paused right after a start has a decision, and no number from before.
        let paused = "it is paused, and its last number is from before this autoscaler started";
        self.seen.recommended.ok_or_else(|| self.unavailable(paused))
    }

    fn check_readable(&self) -> Result<(), Refusal> {
        if self.fleet.dry_run {
            return Err(self.unavailable("this autoscaler runs with dry_run = true, and recommends nothing"));
        }
        match &self.fleet.redis_error {
            Some(why) => Err(self.unavailable(why)),
            None => Ok(()),
        }
    }

    fn unavailable(&self, why: &str) -> Refusal {
        Refusal::Unavailable(format!("worker type `{}`: {why}", self.seen.worker_type))
    }
}

fn unknown(fleet: &FleetSnapshot, trigger: &Trigger) -> String {
    let names: Vec<&str> = fleet.worker_types.iter().map(|seen| seen.worker_type.as_str()).take(MAX_NAMES).collect();
    let more = if fleet.worker_types.len() > MAX_NAMES { " and others" } else { "" };
    format!("there is no worker type `{}`; there are {}{more}", trigger.worker_type, names.join(", "))
}

#[cfg(test)]
pub(super) mod fixtures;
#[cfg(test)]
mod tests;
