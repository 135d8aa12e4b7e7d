//! What the signal sources need to know of one worker type.

use std::sync::Arc;

use crate::{
    model::{QueuePattern, Queues, WorkerType},
    queue_kind::QueueKind,
};

/// What the signal sources need to know of one worker type.
#[derive(Clone, Debug)]
pub struct WatchedType {
    /// Its name.
    pub worker_type: WorkerType,
    /// The key of its own queue.
    pub queue: Arc<str>,
    /// What that key holds.
    pub kind: QueueKind,
    /// All of its queues, if it has several.
    pub several: Option<Box<Several>>,
}

impl WatchedType {
    /// Returns the configured queues, its own first.
    pub(super) fn named(&self) -> impl Iterator<Item = &str> {
        let others = self.several.iter().flat_map(|several| &several.queues.others);
        std::iter::once(&*self.queue).chain(others.map(String::as_str))
    }

    /// Returns the patterns of further queues.
    pub(super) fn patterns(&self) -> impl Iterator<Item = &str> {
        self.several.iter().flat_map(|several| &several.queues.patterns).map(QueuePattern::as_str)
    }
}

/// The queues of a worker type that has several.
#[derive(Clone, Debug)]
pub struct Several {
    /// The queues and patterns.
    pub queues: Queues,
    /// The consumer group of its workers.
    pub group: Box<str>,
}
