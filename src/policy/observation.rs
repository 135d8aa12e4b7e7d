//! The input of a decision.

use std::sync::Arc;

use crate::model::{Allowance, Combine, Demand, PoolCounts, QueueDemands, Reading};

/// The queues and the pool of one worker type, as read at about the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Unfinished work in all queues of the worker type together.
    pub demand: Demand,
    /// Its queues one by one; `None` if it has one queue only.
    pub queues: Option<Arc<QueueDemands>>,
    /// What the budget leaves to the pool; `None` if the budget does not limit it.
    pub allowance: Option<Allowance>,
    /// Workers, counted by status.
    pub pool: Reading<PoolCounts>,
}

/// What is known about the depth. A known part counts: jobs that were read exist, whatever else could not be read.
pub(super) struct KnownDepth<'a> {
    /// Jobs that size the pool: all of them if `gap` is `None`, else a lower limit. `None`: nothing is known.
    pub(super) jobs: Option<u64>,
    /// Known unfinished jobs. More than `jobs` if the longest of several queues sizes the pool.
    pub(super) unfinished: u64,
    /// Known undelivered jobs.
    pub(super) waiting: u64,
    /// Why the known jobs may not be all.
    pub(super) gap: Option<String>,
    /// The queues, if only the longest of them counts.
    pub(super) longest_of: Option<&'a QueueDemands>,
}

impl<'a> KnownDepth<'a> {
    pub(super) fn of(observation: &'a Observation) -> Self {
        let demand = &observation.demand;
        let gap = demand.depth().why_not().map(str::to_owned);
        match observation.queues.as_deref() {
            None => Self {
                jobs: demand.at_least(),
                unfinished: demand.at_least().unwrap_or(0),
                waiting: demand.lag.known().copied().unwrap_or(0),
                gap,
                longest_of: None,
            },
            Some(queues) => Self {
                jobs: queues.sized_by(),
                unfinished: queues.unfinished.unwrap_or(0),
                waiting: queues.waiting,
                gap,
                longest_of: Some(queues).filter(|queues| queues.combine == Combine::Max),
            },
        }
    }
}

/// Returns the workers at work, and the idle ones that waiting jobs are about to occupy. Workers without a heartbeat
/// are neither.
pub(super) fn at_work(counts: &PoolCounts, waiting: u64) -> u32 {
    let idle = counts.ready.saturating_sub(counts.busy).saturating_sub(counts.possibly_busy);
    counts.busy.saturating_add(u32::try_from(waiting).unwrap_or(u32::MAX).min(idle))
}
