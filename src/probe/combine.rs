//! Combines the readings of several queues into what is known about their worker type. Pure.
//!
//! The jobs of all queues add up, whatever sizes the pool: a job that waits in any queue waits, and a worker that holds
//! a job is busy. [`Combine`] only selects the depth that sizes the pool. An unreadable queue makes the total unknown,
//! never smaller, and what is known of the other queues still counts.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::ConsumerPending;
use crate::model::{Combine, Counters, Demand, LongestQueue, QueueDemand, QueueDemands, Reading, Timestamp};

/// Maximum queues found by patterns that are shown one by one: as many as a person reads.
pub(super) const MAX_SHOWN: usize = 20;

/// Queues found by patterns that are without jobs and have the same demand, so that one stands for all of them.
#[derive(Clone, Debug)]
pub(super) struct Resting {
    /// Demand of each: without known jobs.
    pub(super) demand: Demand,
    /// Number of queues; at least 1.
    pub(super) count: usize,
    /// Their keys, in order: all, or the first [`MAX_SHOWN`].
    pub(super) first: Vec<Arc<str>>,
}

/// Returns the total demand of a worker type's queues, and its parts. The first `named` queues are named in the
/// settings; patterns found the others. `all` is known if these are all queues, else it says why there may be more.
pub fn combine(combine: Combine, queues: Vec<QueueDemand>, named: usize, all: &Reading<()>) -> (Demand, QueueDemands) {
    combine_with(combine, queues, named, None, all)
}

/// As [`combine()`], for `queues` and those that rest. The found ones among `queues` are in the order of their keys.
pub(super) fn combine_with(
    combine: Combine,
    queues: Vec<QueueDemand>,
    named: usize,
    resting: Option<&Resting>,
    all: &Reading<()>,
) -> (Demand, QueueDemands) {
    let addends = addends(&queues, named, resting);
    let total = Demand {
        lag: total(&addends, all, |of| &of.lag, u64::saturating_add),
        pending: total(&addends, all, |of| &of.pending, u64::saturating_add),
        oldest: total(&addends, all, |of| &of.oldest, earlier),
    };
    let known = |jobs: Option<u64>, of: &Addend<'_>| match (jobs, of.demand.at_least()) {
        (None, jobs) | (jobs, None) => jobs,
        (Some(jobs), Some(more)) => Some(jobs.saturating_add(more)),
    };
    let waiting = addends.iter().filter_map(|of| of.demand.lag.known());
    let parts = QueueDemands {
        combine,
        count: addends.iter().map(|of| of.count).sum(),
        waiting: waiting.fold(0, |sum, more| sum.saturating_add(*more)),
        unfinished: addends.iter().fold(None, known),
        longest: longest(&addends),
        shown: shown(queues, named, resting),
    };
    (total, parts)
}

/// One term of the sums: a queue, or all queues that rest.
#[derive(Clone, Copy)]
struct Addend<'a> {
    /// Key of the queue, or the first key.
    queue: &'a Arc<str>,
    demand: &'a Demand,
    /// Number of queues.
    count: usize,
}

/// Returns the addends in the order of the queues. The queues that rest are in the place of the first of them.
fn addends<'a>(queues: &'a [QueueDemand], named: usize, resting: Option<&'a Resting>) -> Vec<Addend<'a>> {
    let one = |of: &'a QueueDemand| Addend { queue: &of.queue, demand: &of.demand, count: 1 };
    let mut addends: Vec<_> = queues.iter().map(one).collect();
    if let Some(Resting { demand, count, first }) = resting
        && let Some(queue) = first.first()
    {
        let place = named + addends[named..].partition_point(|addend| addend.queue < queue);
        addends.insert(place, Addend { queue, demand, count: *count });
    }
    addends
}

/// Returns the sum over all queues; if it is unknown, the reason of the first unreadable queue.
fn total<T: Copy + Default>(
    queues: &[Addend<'_>],
    all: &Reading<()>,
    reading: impl Fn(&Demand) -> &Reading<T>,
    add: impl Fn(T, T) -> T,
) -> Reading<T> {
    let readings = || queues.iter().map(|of| (of, reading(of.demand)));
    let failed = readings().find(|(_, reading)| matches!(reading, Reading::Failed(_)));
    let gap = failed.or_else(|| readings().find(|(_, reading)| reading.known().is_none()));
    let why = gap.and_then(|(of, reading)| reading.why_not().map(|why| told(of.queue, why, readings())));
    match (why, all) {
        (Some(why), _) if failed.is_some() => Reading::Failed(why),
        (_, Reading::Failed(why)) => Reading::Failed(why.clone()),
        (Some(why), _) => Reading::Unknown(why),
        (None, Reading::Unknown(why)) => Reading::Unknown(why.clone()),
        (None, Reading::Known(())) => {
            let known = readings().filter_map(|(_, reading)| reading.known());
            Reading::Known(known.fold(T::default(), |sum, more| add(sum, *more)))
        }
    }
}

/// Adds the queue's name to a reason, unless all queues have the same reason, which then does not concern a single
/// queue.
fn told<'a, T: 'a>(
    queue: &str,
    why: &str,
    readings: impl Iterator<Item = (&'a Addend<'a>, &'a Reading<T>)> + Clone,
) -> String {
    if readings.clone().all(|(_, reading)| reading.why_not() == Some(why)) {
        return why.to_owned();
    }
    let why = if why.contains(queue) { why.to_owned() } else { format!("key `{queue}`: {why}") };
    let unknown = readings.filter(|(_, reading)| reading.known().is_none());
    match unknown.map(|(of, _)| of.count).sum::<usize>() - 1 {
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
fn longest(queues: &[Addend<'_>]) -> Option<LongestQueue> {
    let known = queues.iter().filter_map(|of| Some((of.demand.at_least()?, of.queue)));
    let (jobs, queue) = known.max_by_key(|(jobs, queue)| (*jobs, Reverse(*queue)))?;
    Some(LongestQueue { queue: queue.clone(), jobs })
}

fn shown(mut queues: Vec<QueueDemand>, named: usize, resting: Option<&Resting>) -> Vec<QueueDemand> {
    let mut found = queues.split_off(named.min(queues.len()));
    if let Some(Resting { demand, first, .. }) = resting {
        let one = |queue: &Arc<str>| QueueDemand { queue: queue.clone(), demand: demand.clone() };
        found.extend(first.iter().map(one));
    }
    let rank = |of: &QueueDemand| {
        let unknown = of.demand.depth().known().is_none();
        (Reverse(unknown), Reverse(of.demand.at_least()), of.queue.clone())
    };
    found.sort_by_cached_key(rank);
    found.truncate(MAX_SHOWN);
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
///
/// A queue that is not noted again keeps its counts, so only changes cost.
#[derive(Debug, Default)]
pub(super) struct CounterTotals {
    queues: HashMap<Arc<str>, Counted>,
    added: CounterTotal,
    read: CounterTotal,
}

/// Counts of one queue.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    /// `None` until its counters were read.
    baseline: Option<Baseline>,
    since_first: Counters,
}

/// What a queue had counted of finished jobs at its first observation.
#[derive(Clone, Copy, Debug, Default)]
struct Baseline {
    added: u64,
    read: Option<u64>,
}

/// Sum of one counter over all queues.
#[derive(Debug, Default)]
struct CounterTotal {
    /// Wide enough that a queue can be subtracted again.
    sum: u128,
    /// Queues that do not keep the counter, or can't be read.
    without: usize,
}

impl CounterTotals {
    /// Returns the sum; `None` for a counter that one queue does not keep. If a queue can't be read, this sum has no
    /// counters.
    pub(super) fn sum(&self) -> Counters {
        Counters { added: self.added.get(), read: self.read.get(), ..Counters::default() }
    }

    /// Notes a reading of a queue.
    pub(super) fn note(&mut self, queue: &Arc<str>, demand: &Demand, counters: Counters) {
        let before = self.remove(queue);
        let counted = before.unwrap_or_default().then(demand, counters);
        self.added.add(counted.since_first.added);
        self.read.add(counted.since_first.read);
        self.queues.insert(queue.clone(), counted);
    }

    /// Forgets a queue that is gone.
    pub(super) fn forget(&mut self, queue: &str) {
        self.remove(queue);
    }

    fn remove(&mut self, queue: &str) -> Option<Counted> {
        let counted = self.queues.remove(queue)?;
        self.added.subtract(counted.since_first.added);
        self.read.subtract(counted.since_first.read);
        Some(counted)
    }
}

impl Counted {
    /// Returns the counts after a reading.
    fn then(self, demand: &Demand, counters: Counters) -> Self {
        let (Some(added), Some(depth), Some(&pending)) =
            (counters.added, demand.depth().known().copied(), demand.pending.known())
        else {
            return Self { since_first: Counters::default(), ..self };
        };
        let done_by_reads = counters.read.map(|read| read.saturating_sub(pending));
        let now = Baseline { added: added.saturating_sub(depth), read: done_by_reads };
        let mut baseline = self.baseline.unwrap_or(now);
        // The stream was recreated, and its counter with it.
        if added < baseline.added || counters.read.zip(baseline.read).is_some_and(|(read, before)| read < before) {
            baseline = now;
        }
        baseline.read = baseline.read.or(now.read);
        let read = counters.read.zip(baseline.read).map(|(read, before)| read - before);
        Self {
            baseline: Some(baseline),
            since_first: Counters { added: Some(added - baseline.added), read, ..Counters::default() },
        }
    }
}

impl CounterTotal {
    fn add(&mut self, of: Option<u64>) {
        match of {
            Some(of) => self.sum += u128::from(of),
            None => self.without += 1,
        }
    }

    fn subtract(&mut self, of: Option<u64>) {
        match of {
            Some(of) => self.sum -= u128::from(of),
            None => self.without -= 1,
        }
    }

    fn get(&self) -> Option<u64> {
        (self.without == 0).then(|| u64::try_from(self.sum).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests;
