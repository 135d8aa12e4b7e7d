//! From what was read of each of several queues to what is known of their worker type. Pure.
//!
//! What the queues hold adds up, whatever their worker type is scaled by: a job that waits in any of them waits, and a
//! worker that holds one is busy. [`Combine`] only says which depth workers are scaled by. A queue that could not be
//! read makes the total unknown, never smaller, and what is known of the others still counts.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use super::ConsumerPending;
use crate::model::{Combine, Counters, Demand, LongestQueue, QueueDemand, QueueDemands, Reading, Timestamp};

/// Queues found by patterns that are shown one by one: as many as somebody reads.
const SHOWN: usize = 20;

/// What queues of one worker type hold together, and what that is made of. The first `named` of them are named in the
/// settings, the others were found by patterns; `all` says whether those are all, or why there may be more.
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

/// The sum of what all of them hold, or why it is not known: the first that could not be read says so.
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

/// Names the queue, unless the reason is everybody's: then it is not about a queue.
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

/// Of those equally long, the one whose name comes first.
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

/// Who holds how many jobs of all queues. Not known unless all are.
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

/// What queues counted since each of them was first looked at. A queue that comes brings what is unfinished in it, as
/// if that had just been added, and nothing that was done before; one that goes takes its counts along, and whoever
/// learns from them sees counts go back and begins anew, as with a stream that was made again.
#[derive(Debug, Default)]
pub(super) struct CounterTotals(BTreeMap<Arc<str>, Baseline>);

/// What a queue had counted of jobs that were done when it was first looked at.
#[derive(Clone, Copy, Debug, Default)]
struct Baseline {
    added: u64,
    read: Option<u64>,
}

impl CounterTotals {
    /// The sum, `None` where one does not count. A queue that can't be read leaves everything out this time.
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
        // The stream was made again, and so is its count.
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
