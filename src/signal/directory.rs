//! All worker types with their mailboxes, and which keys feed them: what every signal source posts to.

use std::{collections::HashMap, sync::Arc};

use tokio::time::Instant;

use super::{
    Mailbox,
    discovered_queues::{DiscoveredQueues, KeyEvent, QueueDiscovery},
};
use crate::{
    model::{QueuePattern, Queues, Source, WorkerType},
    telemetry::SignalsReceived,
};

/// What the signal sources need to know of one worker type.
#[derive(Clone, Debug)]
pub struct WatchedType {
    /// Its name.
    pub worker_type: WorkerType,
    /// The key of its own queue.
    pub queue: Arc<str>,
    /// Whether that key holds a list.
    pub list: bool,
    /// All of its queues, if there are others.
    pub several: Option<Box<Several>>,
}

impl WatchedType {
    /// The queues that are named, its own first.
    pub(super) fn named(&self) -> impl Iterator<Item = &str> {
        let others = self.several.iter().flat_map(|several| &several.queues.others);
        std::iter::once(&*self.queue).chain(others.map(String::as_str))
    }

    /// The patterns of further ones.
    pub(super) fn patterns(&self) -> impl Iterator<Item = &str> {
        self.several.iter().flat_map(|several| &several.queues.patterns).map(QueuePattern::as_str)
    }
}

/// The queues of a worker type that has several.
#[derive(Clone, Debug)]
pub struct Several {
    /// Which.
    pub queues: Queues,
    /// The group that its workers read them as.
    pub group: Box<str>,
}

/// The worker types by index, and the keys that feed each of them.
#[derive(Debug)]
pub struct Directory {
    watched: Vec<WatchedType>,
    mailboxes: Vec<Mailbox>,
    /// By the queues that are named.
    by_queue: HashMap<Box<[u8]>, Vec<u32>>,
    by_type: HashMap<WorkerType, u32>,
    found: QueueDiscovery,
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
        let found = QueueDiscovery::new(&watched);
        Self { watched, mailboxes, by_queue, by_type, found }
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
    pub fn fed_by(&self, key: &[u8], event: KeyEvent, mut feeds: impl FnMut(u32)) {
        self.naming(key).iter().copied().for_each(&mut feeds);
        self.found.each(key, event, feeds);
    }

    /// The queues that patterns of a worker type have found.
    pub fn discovered(&self, index: u32) -> DiscoveredQueues {
        self.found.of(index)
    }

    /// A key that a pattern found turned out to be no queue of this worker type.
    pub fn forget(&self, index: u32, key: &str) {
        self.found.forget(index, key);
    }

    /// What patterns have found.
    pub(super) fn discovery(&self) -> &QueueDiscovery {
        &self.found
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
            self.found.wanted.notify_one();
        }
        SignalsReceived { source, count: self.mailboxes.len() as u64 }.emit();
    }
}
