//! What a decision is made from.

use crate::model::{Demand, PoolCounts, Reading};

/// The queue and the pool of one worker type, as seen at about the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Unfinished work.
    pub demand: Demand,
    /// The workers.
    pub pool: Reading<PoolCounts>,
}

/// What is known of the depth.
pub(super) struct KnownDepth {
    /// Jobs known of: all of them if `gap` is `None`, else at least so many. `None`: nothing is known.
    pub(super) jobs: Option<u64>,
    /// Why that is not all.
    pub(super) gap: Option<String>,
}

impl KnownDepth {
    /// A part that is known still counts: jobs that were seen are there, whatever else could not be seen.
    pub(super) fn of(demand: &Demand) -> Self {
        let jobs = match (demand.lag.known(), demand.pending.known()) {
            (None, None) => None,
            (lag, pending) => Some(lag.unwrap_or(&0).saturating_add(*pending.unwrap_or(&0))),
        };
        Self { jobs, gap: demand.depth().why_not().map(str::to_owned) }
    }
}

/// Workers at work, and idle ones that waiting jobs are about to occupy.
pub(super) fn at_work(counts: &PoolCounts, waiting: u64) -> u32 {
    let idle = counts.ready.saturating_sub(counts.busy);
    counts.busy.saturating_add(u32::try_from(waiting).unwrap_or(u32::MAX).min(idle))
}
