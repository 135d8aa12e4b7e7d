//! Worker types with several queues: which queues they have now, and what is remembered of each between two
//! observations. [`combine`] combines the readings. Most of many queues are empty and rest: an observation must cost
//! nothing for them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{
    Answer, QueueSpec,
    combine::{self, CounterTotals, combine_with},
    found_queues::FoundQueues,
    heartbeat::ReadWorkers,
    part::Part,
};
use crate::{
    model::{Combine, Counters, Demand, QueueDemand, Reading},
    signal::{Directory, DirtyQueues, DiscoveredChanges},
};

/// The queues of a worker type that has more than its own.
#[derive(Clone, Debug)]
pub struct SeveralSpec {
    /// Index of the worker type.
    pub index: u32,
    /// How the depths combine into the one that sizes the pool.
    pub combine: Combine,
    /// The named queues, the own queue first.
    pub named: Vec<QueueSpec>,
}

/// The several queues of one worker type.
#[derive(Debug)]
pub(super) struct Several {
    index: u32,
    combine: Combine,
    named: Vec<Arc<Part>>,
    past: Mutex<Past>,
}

#[derive(Debug, Default)]
struct Past {
    found: FoundQueues,
    totals: CounterTotals,
}

/// The queues that one observation must read: the named ones, then found ones in the order of their keys.
pub(super) struct CurrentQueues {
    unread: Vec<Arc<Part>>,
    named: usize,
    /// Known if these and those that rest are all queues.
    all: Reading<()>,
}

impl CurrentQueues {
    /// Returns the queues that must be read.
    pub(super) fn unread(&self) -> impl Iterator<Item = &Arc<Part>> {
        self.unread.iter()
    }

    /// Returns whether this found queue must be read.
    fn reads(&self, key: &str) -> bool {
        self.unread[self.named..].binary_search_by(|part| (*part.spec.key).cmp(key)).is_ok()
    }
}

impl Several {
    pub(super) fn new(spec: SeveralSpec) -> Self {
        let named = spec.named.into_iter().map(Part::new).collect();
        Self { index: spec.index, combine: spec.combine, named, past: Mutex::default() }
    }

    /// Returns the queues that must be read: all named queues, of which there are few, and the found queues that may
    /// have changed or were not empty. Forgets what it remembered of queues that are gone.
    pub(super) fn current(&self, directory: &Directory) -> CurrentQueues {
        let Past { found, totals } = &mut *self.past();
        let dirty = directory.take_dirty(self.index);
        let DiscoveredChanges { came, went, all } = directory.take_discovered(self.index);
        for key in went {
            found.remove(&key);
            totals.forget(&key);
        }
        for key in came {
            found.add(self.found(key));
        }
        match dirty {
            DirtyQueues::All => found.wake_all(),
            DirtyQueues::Keys(keys) => keys.iter().for_each(|key| found.wake(key)),
        }
        let unread = self.named.iter().chain(found.unread()).cloned().collect();
        CurrentQueues { unread, named: self.named.len(), all }
    }

    /// Combines the answers, which are in the order of the queues that had to be read, and what is known of those that
    /// rest.
    pub(super) fn answer(&self, current: &CurrentQueues, answers: Vec<Answer>, directory: &Directory) -> Answer {
        let Past { found, totals } = &mut *self.past();
        let (mut queues, mut consumers) = (Vec::new(), Vec::new());
        let mut workers = None;
        for (place, (part, answer)) in current.unread.iter().zip(answers).enumerate() {
            let queue = part.spec.key.clone();
            // The first request also asked for the heartbeats.
            workers.get_or_insert(ReadWorkers { heartbeats: answer.heartbeats, all_exist: answer.all_exist });
            let is_named = place < current.named;
            if !is_named && part.remembered().is_foreign {
                totals.forget(&queue);
                directory.forget(self.index, &queue);
                continue;
            }
            consumers.push(answer.consumers);
            if is_named || found.contains(&queue) {
                totals.note(&queue, &answer.demand, answer.counters);
            }
            if is_named || !found.rest_if_empty(part, &answer.demand) {
                queues.push(QueueDemand { queue, demand: answer.demand });
            }
        }
        // A concurrent evaluation of the same worker type woke or found these: they are unread, not empty.
        for part in found.unread().filter(|part| !current.reads(&part.spec.key)) {
            let (queue, demand) = (part.spec.key.clone(), Demand::failed("the queue was not read"));
            totals.note(&queue, &demand, Counters::default());
            queues.push(QueueDemand { queue, demand });
        }
        queues[current.named..].sort_by(|one, other| one.queue.cmp(&other.queue));
        let (demand, queues) =
            combine_with(self.combine, queues, current.named, found.resting().as_ref(), &current.all);
        let workers =
            workers.unwrap_or_else(|| ReadWorkers { heartbeats: Reading::Known(Vec::new()), all_exist: false });
        Answer {
            demand,
            queues: Some(Arc::new(queues)),
            counters: totals.sum(),
            consumers: combine::consumers(consumers),
            heartbeats: workers.heartbeats,
            all_exist: workers.all_exist,
            framework: None,
        }
    }

    /// Reads a queue found by a pattern in the same way as the worker type's own queue.
    fn found(&self, key: Arc<str>) -> Arc<Part> {
        let own = &self.named[0].spec;
        Part::new(QueueSpec { key, ..own.clone() })
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
