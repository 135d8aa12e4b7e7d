//! Worker types with several queues: which queues they have now, and what is remembered of each between two
//! observations. [`combine()`] combines the readings.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    Answer, QueueSpec,
    combine::{self, CounterTotals, combine},
};
use crate::{
    model::{Combine, Counters, Demand, QueueDemand, Reading},
    queue_kind::{Delivery, QueueReader},
    signal::{Directory, DirtyQueues},
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

/// One of several queues. Only the prober uses what is remembered, so nothing waits for the lock.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) spec: QueueSpec,
    remembered: Mutex<Remembered>,
}

#[derive(Debug)]
pub(super) struct Remembered {
    pub(super) reader: Box<dyn QueueReader>,
    /// Whether the key is not a queue.
    pub(super) is_foreign: bool,
    /// Last reading of an empty queue. It is valid until a signal names the queue.
    rests: Option<(Demand, Counters)>,
}

impl Part {
    fn new(spec: QueueSpec) -> Arc<Self> {
        let remembered = Remembered { reader: spec.kind.reader(&spec), is_foreign: false, rests: None };
        Arc::new(Self { spec, remembered: Mutex::new(remembered) })
    }

    /// Keeps a reading if every later change of the queue causes a signal: arrivals do, deliveries and acknowledgements
    /// do not.
    fn keep(&self, demand: &Demand, counters: Counters) {
        let is_idle = self.spec.kind.delivery() == Delivery::Removal || demand.pending.known() == Some(&0);
        let rests = demand.lag.known() == Some(&0) && is_idle;
        self.remembered().rests = rests.then(|| (demand.clone(), counters));
    }

    fn forget_reading(&self) {
        self.remembered().rests = None;
    }

    pub(super) fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    found: HashMap<Arc<str>, Arc<Part>>,
    totals: CounterTotals,
}

/// The queues of one observation.
pub(super) struct CurrentQueues {
    parts: Vec<Arc<Part>>,
    /// Indices of the queues that must be read.
    unread: Vec<usize>,
    /// Known if these are all queues.
    all: Reading<()>,
}

impl CurrentQueues {
    /// Returns the queues that must be read.
    pub(super) fn unread(&self) -> impl Iterator<Item = &Arc<Part>> {
        self.unread.iter().map(|place| &self.parts[*place])
    }
}

impl Several {
    pub(super) fn new(spec: SeveralSpec) -> Self {
        let named = spec.named.into_iter().map(Part::new).collect();
        Self { index: spec.index, combine: spec.combine, named, past: Mutex::default() }
    }

    /// Returns the present queues, and which of them must be read: all named queues, of which there are few, and the
    /// found queues that may have changed or were not empty. Forgets what it remembered of queues that are gone.
    pub(super) fn current(&self, directory: &Directory) -> CurrentQueues {
        let dirty = directory.take_dirty(self.index);
        let now = directory.discovered(self.index);
        let found = &mut self.past().found;
        let mut before = std::mem::take(found);
        let mut parts = self.named.clone();
        parts.reserve(now.keys.len());
        for key in now.keys {
            let part = before.remove(&key).unwrap_or_else(|| self.found(key.clone()));
            found.insert(key, part.clone());
            parts.push(part);
        }
        match dirty {
            DirtyQueues::All => parts.iter().for_each(|part| part.forget_reading()),
            DirtyQueues::Keys(keys) => {
                keys.iter().filter_map(|key| found.get(&**key)).for_each(|part| part.forget_reading());
            }
        }
        let named = self.named.len();
        let is_unread =
            |(place, part): (usize, &Arc<Part>)| (place < named || part.remembered().rests.is_none()).then_some(place);
        let unread = parts.iter().enumerate().filter_map(is_unread).collect();
        CurrentQueues { parts, unread, all: now.all }
    }

    /// Combines the answers, which are in the order of the queues that had to be read.
    pub(super) fn answer(&self, current: &CurrentQueues, answers: Vec<Answer>, directory: &Directory) -> Answer {
        let (mut queues, mut counters, mut consumers) = (Vec::new(), Vec::new(), Vec::new());
        let mut heartbeats = None;
        let mut answers = current.unread.iter().zip(answers).peekable();
        for (place, part) in current.parts.iter().enumerate() {
            let queue = part.spec.key.clone();
            let Some((_, answer)) = answers.next_if(|(unread, _)| **unread == place) else {
                // A concurrent evaluation of the same worker type may have dropped the reading: the queue is unread,
                // not empty.
                let missing = || (Demand::failed("the queue was not read"), Counters::default());
                let (demand, counted) = part.remembered().rests.clone().unwrap_or_else(missing);
                queues.push(QueueDemand { queue, demand });
                counters.push(counted);
                continue;
            };
            // The first request also asked for the heartbeats.
            heartbeats.get_or_insert(answer.heartbeats);
            if place >= self.named.len() && part.remembered().is_foreign {
                directory.forget(self.index, &queue);
                continue;
            }
            part.keep(&answer.demand, answer.counters);
            queues.push(QueueDemand { queue, demand: answer.demand });
            counters.push(answer.counters);
            consumers.push(answer.consumers);
        }
        let counters = self.past().totals.sum(&queues, &counters);
        let (demand, queues) = combine(self.combine, queues, self.named.len(), &current.all);
        Answer {
            demand,
            queues: Some(Arc::new(queues)),
            counters,
            consumers: combine::consumers(consumers),
            heartbeats: heartbeats.unwrap_or_else(|| Reading::Known(Vec::new())),
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
