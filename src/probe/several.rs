//! Worker types with several queues: which queues those are now, and what is remembered of each between two looks. What was read
//! of each is put together by [`combine()`].

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    Answer, QueueSpec,
    combine::{self, CounterTotals, combine},
};
use crate::{
    model::{Combine, QueueDemand, Reading},
    queue_kind::QueueReader,
    signal::Directory,
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
}

impl Part {
    fn new(spec: QueueSpec) -> Arc<Self> {
        let remembered = Remembered { reader: spec.kind.reader(), is_foreign: false };
        Arc::new(Self { spec, remembered: Mutex::new(remembered) })
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
    pub(super) parts: Vec<Arc<Part>>,
    /// Whether these are all.
    all: Reading<()>,
}

impl Several {
    pub(super) fn new(spec: SeveralSpec) -> Self {
        let named = spec.named.into_iter().map(Part::new).collect();
        Self { index: spec.index, combine: spec.combine, named, past: Mutex::default() }
    }

    /// The queues as they are now. What is remembered of those that are gone is forgotten.
    pub(super) fn current(&self, directory: &Directory) -> CurrentQueues {
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
        CurrentQueues { parts, all: now.all }
    }

    /// Puts the answers, which are in the order of the parts, together to one.
    pub(super) fn answer(&self, current: &CurrentQueues, answers: Vec<Answer>, directory: &Directory) -> Answer {
        let (mut queues, mut counters, mut consumers) = (Vec::new(), Vec::new(), Vec::new());
        let mut heartbeats = None;
        for (place, (part, answer)) in current.parts.iter().zip(answers).enumerate() {
            // They were asked for along with the first.
            heartbeats.get_or_insert(answer.heartbeats);
            if place >= self.named.len() && part.remembered().is_foreign {
                directory.forget(self.index, &part.spec.key);
                continue;
            }
            queues.push(QueueDemand { queue: part.spec.key.clone(), demand: answer.demand });
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
