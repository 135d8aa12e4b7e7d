//! What a decision is made from.

use std::sync::Arc;

use crate::model::{Combine, Demand, PoolCounts, QueueDemands, Reading};

/// The queues and the pool of one worker type, as seen at about the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Unfinished work, in all its queues together.
    pub demand: Demand,
    /// Its queues one by one, if it has several.
    pub queues: Option<Arc<QueueDemands>>,
    /// The workers.
    pub pool: Reading<PoolCounts>,
}

/// What is known of the depth. A part that is known still counts: jobs that were seen are there, whatever else could
/// not be seen.
pub(super) struct KnownDepth<'a> {
    /// Jobs that workers are scaled by: all of them if `gap` is `None`, else at least so many. `None`: nothing is
    /// known.
    pub(super) jobs: Option<u64>,
    /// Unfinished jobs known of. More than `jobs` if the longest of several queues is what workers are scaled by.
    pub(super) unfinished: u64,
    /// Undelivered jobs known of.
    pub(super) waiting: u64,
    /// Why that is not all.
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

/// Workers at work, and idle ones that waiting jobs are about to occupy. Workers that are not heard are neither.
pub(super) fn at_work(counts: &PoolCounts, waiting: u64) -> u32 {
    let idle = counts.ready.saturating_sub(counts.busy).saturating_sub(counts.possibly_busy);
    counts.busy.saturating_add(u32::try_from(waiting).unwrap_or(u32::MAX).min(idle))
}
