//! One of the several queues of a worker type, and what is remembered of it between two observations.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::QueueSpec;
use crate::{
    model::Demand,
    queue_kind::{Delivery, QueueReader},
};

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
}

impl Part {
    pub(super) fn new(spec: QueueSpec) -> Arc<Self> {
        let remembered = Remembered { reader: spec.kind.reader(&spec), is_foreign: false };
        Arc::new(Self { spec, remembered: Mutex::new(remembered) })
    }

    /// Returns whether the queue is empty and every later change of it causes a signal: arrivals do, deliveries and
    /// acknowledgements do not.
    pub(super) fn rests_with(&self, demand: &Demand) -> bool {
        let forgets_delivered = self.spec.kind.delivery() == Delivery::Removal;
        let is_idle = demand.pending.known().map_or(forgets_delivered, |pending| *pending == 0);
        demand.lag.known() == Some(&0) && demand.oldest.known() == Some(&None) && is_idle
    }

    pub(super) fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
