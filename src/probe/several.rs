//! Worker types with several queues: which queues those are now, and what is remembered of each between two looks. What
//! was read of each is put together by [`combine()`].

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

/// The queues of a worker type that has others besides its own.
#[derive(Clone, Debug)]
pub struct SeveralSpec {
    /// The worker type, by its index.
    pub index: u32,
    /// What its workers are scaled by.
    pub combine: Combine,
    /// Those that are named, its own first.
    pub named: Vec<QueueSpec>,
}

/// One of several queues. The prober alone touches what is remembered, the lock is never waited for.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) spec: QueueSpec,
    remembered: Mutex<Remembered>,
}

#[derive(Debug)]
pub(super) struct Remembered {
    pub(super) reader: Box<dyn QueueReader>,
    /// Its key holds something else than a queue.
    pub(super) is_foreign: bool,
    /// The last reading, as long as it holds: of an empty queue, until a signal names it.
    rests: Option<(Demand, Counters)>,
}

impl Part {
    fn new(spec: QueueSpec) -> Arc<Self> {
        let remembered = Remembered { reader: spec.kind.reader(&spec), is_foreign: false, rests: None };
        Arc::new(Self { spec, remembered: Mutex::new(remembered) })
    }

    /// Keeps a reading, if nothing changes in the queue unheard: jobs that come are told by signals, but none tells
    /// that a job was delivered or acknowledged.
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

/// One worker type's.
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

/// What is to be looked at.
pub(super) struct CurrentQueues {
    parts: Vec<Arc<Part>>,
    /// The places of those that have to be read.
    unread: Vec<usize>,
    /// Whether these are all.
    all: Reading<()>,
}

impl CurrentQueues {
    /// The queues that have to be read.
    pub(super) fn unread(&self) -> impl Iterator<Item = &Arc<Part>> {
        self.unread.iter().map(|place| &self.parts[*place])
    }
}

impl Several {
    pub(super) fn new(spec: SeveralSpec) -> Self {
        let named = spec.named.into_iter().map(Part::new).collect();
        Self { index: spec.index, combine: spec.combine, named, past: Mutex::default() }
    }

    /// The queues as they are now, and which of them have to be read: all that are named, of which there are few, and of the
    /// found ones those that may have changed or were not empty. What is remembered of those that are gone is forgotten.
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

    /// Puts the answers, which are in the order of the queues that had to be read, together to one.
    pub(super) fn answer(&self, current: &CurrentQueues, answers: Vec<Answer>, directory: &Directory) -> Answer {
        let (mut queues, mut counters, mut consumers) = (Vec::new(), Vec::new(), Vec::new());
        let mut heartbeats = None;
        let mut answers = current.unread.iter().zip(answers).peekable();
        for (place, part) in current.parts.iter().enumerate() {
            let queue = part.spec.key.clone();
            let Some((_, answer)) = answers.next_if(|(unread, _)| **unread == place) else {
                // Another evaluation of the same worker type may have let go of it: it is unread then, and not empty.
                let missing = || (Demand::failed("the queue was not read"), Counters::default());
                let (demand, counted) = part.remembered().rests.clone().unwrap_or_else(missing);
                queues.push(QueueDemand { queue, demand });
                counters.push(counted);
                continue;
            };
            // They were asked for along with the first.
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

    /// A queue found by a pattern is read as the worker type's own is.
    fn found(&self, key: Arc<str>) -> Arc<Part> {
        let own = &self.named[0].spec;
        Part::new(QueueSpec { key, ..own.clone() })
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
