//! All worker types with their mailboxes, and which keys feed them: what every signal source posts to.

use std::collections::HashMap;

use tokio::time::Instant;

use super::{
    Mailbox, WatchedType,
    discovered_queues::{DiscoveredQueues, KeyEvent, QueueDiscovery},
};
use crate::{
    model::{Source, WorkerType},
    telemetry::SignalsReceived,
};

/// The worker types by index, and the keys that feed each of them.
#[derive(Debug)]
pub struct Directory {
    watched: Vec<WatchedType>,
    mailboxes: Vec<Mailbox>,
    /// By the queues that are named.
    by_queue: HashMap<Box<[u8]>, Vec<u32>>,
    by_type: HashMap<WorkerType, u32>,
    discovery: QueueDiscovery,
}

impl Directory {
    /// A directory in which worker type N has index N.
    pub fn new(watched: Vec<WatchedType>) -> Self {
        let mut by_queue: HashMap<Box<[u8]>, Vec<u32>> = HashMap::with_capacity(watched.len());
        let mut by_type = HashMap::with_capacity(watched.len());
        for (index, entry) in (0_u32..).zip(&watched) {
            for queue in entry.named() {
                by_queue.entry(queue.as_bytes().into()).or_default().push(index);
            }
            by_type.insert(entry.worker_type.clone(), index);
        }
        let mailboxes = watched.iter().map(|_| Mailbox::default()).collect();
        let discovery = QueueDiscovery::new(&watched);
        Self { watched, mailboxes, by_queue, by_type, discovery }
    }

    /// The worker types, by index.
    pub fn watched(&self) -> &[WatchedType] {
        &self.watched
    }

    /// The mailbox of the worker type with that index.
    pub fn mailbox(&self, index: u32) -> &Mailbox {
        &self.mailboxes[index as usize]
    }

    /// The indices of the worker types that name a queue; none for a key that nobody names.
    pub(super) fn naming(&self, queue: &[u8]) -> &[u32] {
        self.by_queue.get(queue).map_or(&[], Vec::as_slice)
    }

    /// Calls `feeds` with the index of each worker type that a key feeds. What the signal says of a key that nobody knows yet
    /// decides whether it becomes one of the queues of those whose patterns take it.
    pub fn fed_by(&self, key: &[u8], event: KeyEvent<'_>, mut feeds: impl FnMut(u32)) {
        self.naming(key).iter().copied().for_each(&mut feeds);
        self.discovery.each(key, event, feeds);
    }

    /// The queues that patterns of a worker type have found.
    pub fn discovered(&self, index: u32) -> DiscoveredQueues {
        self.discovery.of(index)
    }

    /// A key that a pattern found turned out to be no queue of this worker type.
    pub fn forget(&self, index: u32, key: &str) {
        self.discovery.forget(index, key);
    }

    /// What patterns have found.
    pub(super) fn discovery(&self) -> &QueueDiscovery {
        &self.discovery
    }

    /// The index of a worker type.
    pub fn index_of(&self, worker_type: &WorkerType) -> Option<u32> {
        self.by_type.get(worker_type).copied()
    }

    /// Posts to one worker type.
    pub fn post(&self, index: u32, source: Source) {
        self.mailbox(index).post(source, Instant::now());
    }

    /// Posts to every worker type: anything may have been missed, also queues that came and went.
    pub fn post_all(&self, source: Source) {
        let now = Instant::now();
        for mailbox in &self.mailboxes {
            mailbox.post(source, now);
        }
        if source == Source::Resync {
            self.discovery.wanted.notify_one();
        }
        SignalsReceived { source, count: self.mailboxes.len() as u64 }.emit();
    }
}
