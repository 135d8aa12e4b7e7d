//! What the signal sources know about one worker type.

use std::sync::Arc;

use crate::{
    model::{QueuePattern, Queues, WorkerType},
    queue_kind::{QueueKind, SignalKeys},
};

/// What the signal sources know about one worker type.
#[derive(Clone, Debug)]
pub struct WatchedType {
    /// Name of the worker type.
    pub worker_type: WorkerType,
    /// Key of its own queue.
    pub queue: Arc<str>,
    /// Kind of queue that the key holds.
    pub kind: QueueKind,
    /// All of its queues; `None` if it has one queue only.
    pub several: Option<Box<Several>>,
    /// Keys whose changes are signals, for the queues of a framework: in place of the queue's own key.
    pub signals: Option<Box<SignalKeys>>,
}

impl WatchedType {
    /// Returns the keys whose changes are signals: the configured queues, its own first, or those of a framework.
    pub(super) fn named(&self) -> impl Iterator<Item = &str> {
        let own = self.signals.is_none().then_some(&*self.queue);
        let others = self.several.iter().flat_map(|several| &several.queues.others);
        let of_framework = self.signals.iter().flat_map(|signals| &signals.keys);
        own.into_iter().chain(others.chain(of_framework).map(String::as_str))
    }

    /// Returns the patterns of further queues.
    pub(super) fn patterns(&self) -> impl Iterator<Item = &str> {
        self.several.iter().flat_map(|several| &several.queues.patterns).map(QueuePattern::as_str)
    }

    /// Returns the patterns of channels on which the workers of a framework report their state, in database `database`.
    pub(super) fn channels(&self, database: i64) -> impl Iterator<Item = String> {
        let patterns = self.signals.iter().flat_map(|signals| &signals.channels);
        patterns.map(move |pattern| pattern.replace("{db}", &database.to_string()))
    }

    /// Returns the prefixes of further keys whose changes are signals.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = &str> {
        self.signals.iter().flat_map(|signals| &signals.prefixes).map(String::as_str)
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
