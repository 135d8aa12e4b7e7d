//! All worker types with their mailboxes, and the keys that feed them. Every signal source posts here.

use std::collections::HashMap;

use tokio::time::Instant;

use super::{
    DirtyQueues, Mailbox, WatchedType,
    dirty_queues::DirtyMarks,
    discovered_queues::{DiscoveredChanges, KeyEvent, QueueDiscovery},
    heard_workers::HeardWorkers,
    worker_news::{NewsByType, WorkerNews},
};
use crate::{
    model::{Source, WorkerType},
    queue_kind::{Heard, QueueKind},
    telemetry::SignalsReceived,
};

/// The worker types by index, and the keys that feed each of them.
#[derive(Debug)]
pub struct Directory {
    watched: Vec<WatchedType>,
    mailboxes: Vec<Mailbox>,
    /// Indices of worker types, by the key of a configured queue.
    by_queue: HashMap<Box<[u8]>, Vec<u32>>,
    /// Indices of worker types, by the beginning of a key. Only worker types of frameworks have one, so there are few.
    by_prefix: Vec<(Box<[u8]>, u32)>,
    by_type: HashMap<WorkerType, u32>,
    discovery: QueueDiscovery,
    /// Changed queues, for worker types with several queues.
    dirty: HashMap<u32, DirtyMarks>,
    /// Statements of workers, for worker types of frameworks.
    heard: HashMap<u32, HeardWorkers>,
    worker_news: NewsByType,
}

impl Directory {
    /// Creates a directory in which worker type N has index N.
    pub fn new(watched: Vec<WatchedType>) -> Self {
        let mut by_queue: HashMap<Box<[u8]>, Vec<u32>> = HashMap::with_capacity(watched.len());
        let mut by_type = HashMap::with_capacity(watched.len());
        for (index, entry) in (0_u32..).zip(&watched) {
            for queue in entry.named() {
                by_queue.entry(queue.as_bytes().into()).or_default().push(index);
            }
            by_type.insert(entry.worker_type.clone(), index);
        }
        let prefixes = |(index, entry): (u32, &WatchedType)| {
            entry.prefixes().map(|prefix| (prefix.as_bytes().into(), index)).collect::<Vec<_>>()
        };
        let by_prefix = (0_u32..).zip(&watched).flat_map(prefixes).collect();
        let mailboxes = watched.iter().map(|_| Mailbox::default()).collect();
        let discovery = QueueDiscovery::new(&watched);
        let several = (0_u32..).zip(&watched).filter(|(_, of)| of.several.is_some());
        let dirty = several.map(|(index, _)| (index, DirtyMarks::default())).collect();
        let of_frameworks = (0_u32..).zip(&watched).filter(|(_, of)| of.signals.is_some());
        let heard = of_frameworks.map(|(index, _)| (index, HeardWorkers::default())).collect();
        let worker_news = NewsByType::default();
        Self { watched, mailboxes, by_queue, by_prefix, by_type, discovery, dirty, heard, worker_news }
    }

    /// Returns the worker types, by index.
    pub fn watched(&self) -> &[WatchedType] {
        &self.watched
    }

    /// Returns the mailbox of a worker type.
    pub fn mailbox(&self, index: u32) -> &Mailbox {
        &self.mailboxes[index as usize]
    }

    /// Returns the indices of the worker types that are configured with this queue.
    pub(super) fn naming(&self, queue: &[u8]) -> &[u32] {
        self.by_queue.get(queue).map_or(&[], Vec::as_slice)
    }

    /// Calls `feeds` with the index of each worker type that the key feeds, and marks the queue as changed. For an
    /// unknown key, `event` decides whether it becomes a queue of the worker types whose patterns match.
    pub fn fed_by(&self, key: &[u8], event: KeyEvent<'_>, mut feeds: impl FnMut(u32)) {
        let mut feeds = |index: u32| {
            if let Some(marks) = self.dirty.get(&index) {
                marks.mark(key);
            }
            if let Some(heard) = self.heard.get(&index) {
                heard.note_news(Instant::now());
            }
            feeds(index);
        };
        self.naming(key).iter().copied().for_each(&mut feeds);
        for (prefix, index) in &self.by_prefix {
            if key.starts_with(prefix) {
                feeds(*index);
            }
        }
        self.discovery.each(key, event, feeds);
    }

    /// Handles a worker's statement on a channel of its framework. Returns whether the statement is news.
    pub(super) fn hear(&self, index: u32, payload: &[u8]) -> bool {
        let QueueKind::Framework(framework) = self.watched[index as usize].kind else { return false };
        let Some(statement) = framework.profile().hear(payload) else { return false };
        self.heard.get(&index).is_some_and(|heard| heard.hear(statement, Instant::now()))
    }

    /// Returns the statements of a worker type's workers; `None` if the type does not belong to a framework. The caller
    /// knows whether changes of the queues are heard.
    pub fn heard(&self, index: u32) -> Option<Heard> {
        self.heard.get(&index).map(|heard| heard.all(Instant::now()))
    }

    /// Handles a message on `worker:events`: the name of a worker type and, after a blank, the id of the worker.
    /// Without an id it is news of any of its workers. Returns whether the worker type exists.
    pub fn worker_event(&self, message: &str) -> bool {
        let (name, worker) = message.split_once(' ').map_or((message, None), |(name, worker)| (name, Some(worker)));
        let index = self.index_of(&WorkerType::new(name));
        if let Some(index) = index {
            self.worker_news.add(index, worker);
            self.post(index, Source::Backend);
        }
        index.is_some()
    }

    /// Takes the news of a worker type's workers; `None` if there are none. The caller has to read these workers.
    pub fn take_worker_news(&self, index: u32) -> Option<WorkerNews> {
        self.worker_news.take(index)
    }

    /// Takes the changes of the queues discovered by the patterns of a worker type. The caller has to apply them to the
    /// queues that it has.
    pub fn take_discovered(&self, index: u32) -> DiscoveredChanges {
        self.discovery.take_changes(index)
    }

    /// Removes a discovered key that is not a queue of this worker type.
    pub fn forget(&self, index: u32, key: &str) {
        self.discovery.forget(index, key);
    }

    /// Takes the marks of the queues that may have changed. The caller has to read these queues.
    pub fn take_dirty(&self, index: u32) -> DirtyQueues {
        self.dirty.get(&index).map_or(DirtyQueues::All, DirtyMarks::take)
    }

    /// Marks all queues of a worker type: signals may have been missed.
    pub fn mark_all(&self, index: u32) {
        if let Some(marks) = self.dirty.get(&index) {
            marks.mark_all();
        }
    }

    /// Returns the index of discovered queues.
    pub(super) fn discovery(&self) -> &QueueDiscovery {
        &self.discovery
    }

    /// Returns the index of a worker type.
    pub fn index_of(&self, worker_type: &WorkerType) -> Option<u32> {
        self.by_type.get(worker_type).copied()
    }

    /// Posts to one worker type. A sweep and a resync mark all of its queues.
    pub fn post(&self, index: u32, source: Source) {
        if matches!(source, Source::Sweep | Source::Resync) {
            self.mark_all(index);
        }
        if let (Source::Resync, Some(heard)) = (source, self.heard.get(&index)) {
            heard.note_news(Instant::now());
        }
        self.mailbox(index).post(source, Instant::now());
    }

    /// Posts to every worker type: signals may have been missed, and the set of queues may have changed.
    pub fn post_all(&self, source: Source) {
        let now = Instant::now();
        self.dirty.values().for_each(DirtyMarks::mark_all);
        for mailbox in &self.mailboxes {
            mailbox.post(source, now);
        }
        if source == Source::Resync {
            self.heard.values().for_each(|heard| heard.note_news(now));
            self.discovery.wanted.notify_one();
        }
        SignalsReceived { source, count: self.mailboxes.len() as u64 }.emit();
    }
}
