//! Combines the readings of several queues into what is known about their worker type. Pure.
//!
//! The jobs of all queues add up, whatever sizes the pool: a job that waits in any queue waits, and a worker that holds
//! a job is busy. [`Combine`] only selects the depth that sizes the pool. An unreadable queue makes the total unknown,
//! never smaller, and what is known of the other queues still counts.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use super::ConsumerPending;
use crate::model::{Combine, Counters, Demand, LongestQueue, QueueDemand, QueueDemands, Reading, Timestamp};

/// Maximum queues found by patterns that are shown one by one: as many as a person reads.
const SHOWN: usize = 20;

/// Returns the total demand of a worker type's queues, and its parts. The first `named` queues are named in the
/// settings; patterns found the others. `all` is known if these are all queues, else it says why there may be more.
pub fn combine(combine: Combine, queues: Vec<QueueDemand>, named: usize, all: &Reading<()>) -> (Demand, QueueDemands) {
    let total = Demand {
        lag: total(&queues, all, |of| &of.lag, u64::saturating_add),
        pending: total(&queues, all, |of| &of.pending, u64::saturating_add),
        oldest: total(&queues, all, |of| &of.oldest, earlier),
    };
    let known = |jobs: Option<u64>, of: &QueueDemand| match (jobs, of.demand.at_least()) {
        (None, jobs) | (jobs, None) => jobs,
        (Some(jobs), Some(more)) => Some(jobs.saturating_add(more)),
    };
    let waiting = queues.iter().filter_map(|of| of.demand.lag.known());
    let parts = QueueDemands {
        combine,
        count: queues.len(),
        waiting: waiting.fold(0, |sum, more| sum.saturating_add(*more)),
        unfinished: queues.iter().fold(None, known),
        longest: longest(&queues),
        shown: shown(queues, named),
    };
    (total, parts)
}

/// Returns the sum over all queues; if it is unknown, the reason of the first unreadable queue.
fn total<T: Copy + Default>(
    queues: &[QueueDemand],
    all: &Reading<()>,
    part: impl Fn(&Demand) -> &Reading<T>,
    add: impl Fn(T, T) -> T,
) -> Reading<T> {
    let parts = || queues.iter().map(|of| (&of.queue, part(&of.demand)));
    let failed = parts().find(|(_, part)| matches!(part, Reading::Failed(_)));
    let gap = failed.or_else(|| parts().find(|(_, part)| part.known().is_none()));
    let why = gap.and_then(|(queue, part)| part.why_not().map(|why| told(queue, why, parts().map(|(_, part)| part))));
    match (why, all) {
        (Some(why), _) if failed.is_some() => Reading::Failed(why),
        (_, Reading::Failed(why)) => Reading::Failed(why.clone()),
        (Some(why), _) => Reading::Unknown(why),
        (None, Reading::Unknown(why)) => Reading::Unknown(why.clone()),
        (None, Reading::Known(())) => {
            let known = parts().filter_map(|(_, part)| part.known());
            Reading::Known(known.fold(T::default(), |sum, more| add(sum, *more)))
        }
    }
}

/// Adds the queue's name to a reason, unless all queues have the same reason, which then does not concern a single
/// queue.
fn told<'a, T: 'a>(queue: &str, why: &str, parts: impl Iterator<Item = &'a Reading<T>> + Clone) -> String {
    if parts.clone().all(|part| part.why_not() == Some(why)) {
        return why.to_owned();
    }
    let why = if why.contains(queue) { why.to_owned() } else { format!("key `{queue}`: {why}") };
    match parts.filter(|part| part.known().is_none()).count() - 1 {
        0 => why,
        more => format!("{why} (and {more} more of its queues)"),
    }
}

fn earlier(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    match (one, other) {
        (None, at) | (at, None) => at,
        (Some(one), Some(other)) => Some(one.min(other)),
    }
}

/// Returns the longest queue; among equally long ones, the first by name.
fn longest(queues: &[QueueDemand]) -> Option<LongestQueue> {
    let known = queues.iter().filter_map(|of| Some((of.demand.at_least()?, &of.queue)));
    let (jobs, queue) = known.max_by_key(|(jobs, queue)| (*jobs, Reverse(*queue)))?;
    Some(LongestQueue { queue: queue.clone(), jobs })
}

fn shown(mut queues: Vec<QueueDemand>, named: usize) -> Vec<QueueDemand> {
    let mut found = queues.split_off(named.min(queues.len()));
    let rank = |of: &QueueDemand| {
        let unknown = of.demand.depth().known().is_none();
        (Reverse(unknown), Reverse(of.demand.at_least()), of.queue.clone())
    };
    found.sort_by_cached_key(rank);
    found.truncate(SHOWN);
    queues.extend(found);
    queues
}

/// Adds up the jobs of each consumer over all queues. Unknown unless all queues are known.
pub(super) fn consumers(parts: Vec<Reading<Vec<ConsumerPending>>>) -> Reading<Vec<ConsumerPending>> {
    let mut jobs = BTreeMap::<String, u64>::new();
    for part in parts {
        match part {
            Reading::Known(consumers) => {
                for consumer in consumers {
                    let held = jobs.entry(consumer.name).or_default();
                    *held = held.saturating_add(consumer.jobs);
                }
            }
            unknown => return unknown,
        }
    }
    Reading::Known(jobs.into_iter().map(|(name, jobs)| ConsumerPending { name, jobs }).collect())
}

/// Counters of queues since the first observation of each. A new queue adds its unfinished jobs, as if they had just
/// been added, and none of its finished ones. A removed queue takes its counts away: the learner then sees counts go
/// back and starts over, as after a stream was recreated.
#[derive(Debug, Default)]
pub(super) struct CounterTotals(BTreeMap<Arc<str>, Baseline>);

/// What a queue had counted of finished jobs at its first observation.
#[derive(Clone, Copy, Debug, Default)]
struct Baseline {
    added: u64,
    read: Option<u64>,
}

impl CounterTotals {
    /// Returns the sum; `None` for a counter that one queue does not keep. If a queue can't be read, this sum has no
    /// counters.
    pub(super) fn sum(&mut self, queues: &[QueueDemand], counters: &[Counters]) -> Counters {
        let current: BTreeSet<&str> = queues.iter().map(|of| &*of.queue).collect();
        self.0.retain(|queue, _| current.contains(&**queue));
        let mut sum = Counters { added: Some(0), read: Some(0) };
        for (of, counters) in queues.iter().zip(counters) {
            let counted = self.since_first(of, *counters);
            sum.added = add(sum.added, counted.added);
            sum.read = add(sum.read, counted.read);
        }
        sum
    }

    fn since_first(&mut self, of: &QueueDemand, counters: Counters) -> Counters {
        let (Some(added), Some(depth), Some(&pending)) =
            (counters.added, of.demand.depth().known().copied(), of.demand.pending.known())
        else {
            return Counters::default();
        };
        let done_by_reads = counters.read.map(|read| read.saturating_sub(pending));
        let now = Baseline { added: added.saturating_sub(depth), read: done_by_reads };
        let baseline = match self.0.entry(of.queue.clone()) {
            Entry::Vacant(vacant) => vacant.insert(now),
            Entry::Occupied(known) => known.into_mut(),
        };
        // The stream was recreated, and its counter with it.
        if added < baseline.added || counters.read.zip(baseline.read).is_some_and(|(read, before)| read < before) {
            *baseline = now;
        }
        baseline.read = baseline.read.or(now.read);
        let read = counters.read.zip(baseline.read).map(|(read, before)| read - before);
        Counters { added: Some(added - baseline.added), read }
    }
}

fn add(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    Some(one?.saturating_add(other?))
}

#[cfg(test)]
mod tests;
