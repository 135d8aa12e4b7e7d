//! Hints that a queue is worth a look, from wherever they come: keyspace notifications, the `jobs:published` channel,
//! client-side-caching invalidations, the sweep, and backends. A hint names a worker type and nothing more, so lost,
//! doubled and reordered hints are harmless. Must not read depths, and must not decide anything.

mod board;
mod current;
mod keyspace;
mod listener;
mod mailbox;
mod sweep;

pub use board::SourceBoard;
pub use current::CurrentDirectory;
pub use keyspace::wanted_flags;
pub use listener::{Listener, ListenerHandle, ListenerSettings, Subscriptions};
pub use mailbox::{Mailbox, Signals};
pub use sweep::{SweepMonitor, run_sweep};

use std::{collections::HashMap, sync::Arc};

use tokio::time::Instant;

use crate::{
    model::{Source, WorkerType},
    telemetry::SignalsReceived,
};

/// What the signal sources need to know of one worker type.
#[derive(Clone, Debug)]
pub struct Watched {
    /// Its name.
    pub worker_type: WorkerType,
    /// The key of its queue.
    pub queue: Arc<str>,
    /// Whether that key holds a list.
    pub list: bool,
}

/// All worker types with their mailboxes; what every signal source posts to.
#[derive(Debug)]
pub struct Directory {
    watched: Vec<Watched>,
    mailboxes: Vec<Mailbox>,
    by_queue: HashMap<Box<[u8]>, Vec<u32>>,
    by_type: HashMap<WorkerType, u32>,
}

impl Directory {
    /// A directory in which worker type N has index N.
    pub fn new(watched: Vec<Watched>) -> Self {
        let mut by_queue: HashMap<Box<[u8]>, Vec<u32>> = HashMap::with_capacity(watched.len());
        let mut by_type = HashMap::with_capacity(watched.len());
        for (index, entry) in (0_u32..).zip(&watched) {
            by_queue.entry(entry.queue.as_bytes().into()).or_default().push(index);
            by_type.insert(entry.worker_type.clone(), index);
        }
        let mailboxes = watched.iter().map(|_| Mailbox::default()).collect();
        Self { watched, mailboxes, by_queue, by_type }
    }

    /// The worker types, by index.
    pub fn watched(&self) -> &[Watched] {
        &self.watched
    }

    /// The mailbox of the worker type with that index.
    pub fn mailbox(&self, index: u32) -> &Mailbox {
        &self.mailboxes[index as usize]
    }

    /// The indices of the worker types fed by a queue; none for a key that is not ours.
    pub fn fed_by(&self, queue: &[u8]) -> &[u32] {
        self.by_queue.get(queue).map_or(&[], Vec::as_slice)
    }

    /// The index of a worker type.
    pub fn index_of(&self, worker_type: &WorkerType) -> Option<u32> {
        self.by_type.get(worker_type).copied()
    }

    /// Posts to one worker type.
    pub fn post(&self, index: u32, source: Source) {
        self.mailbox(index).post(source, Instant::now());
    }

    /// Posts to every worker type: anything may have been missed.
    pub fn post_all(&self, source: Source) {
        let now = Instant::now();
        for mailbox in &self.mailboxes {
            mailbox.post(source, now);
        }
        SignalsReceived { source, count: self.mailboxes.len() as u64 }.emit();
    }
}
