//! One worker: takes jobs of its type, runs them through a handler, answers, says how it does. Sees Redis through the
//! broker only for jobs; owns its heartbeat. Must not decide how many workers there are.

mod connection;
pub mod handlers;
mod heartbeat;
mod runtime;

use std::time::Duration;

pub use handlers::{Handler, JobError};
pub use runtime::{WorkerError, WorkerReport, run};

use crate::{
    broker::Consumer,
    config::{WorkerSettings, WorkerTypeSettings},
    model::{WorkerId, WorkerType},
};

/// Heartbeats that may be missed before a worker counts as gone: its key's TTL in intervals.
const MISSED_HEARTBEATS: u32 = 3;

/// What one worker needs to know.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Its type.
    pub worker_type: WorkerType,
    /// Its name, unique within the type.
    pub id: WorkerId,
    /// The stream that it takes jobs from.
    pub queue: String,
    /// The consumer group on it.
    pub group: String,
    /// Jobs at the same time; at least 1.
    pub concurrency: usize,
    /// Between heartbeats.
    pub heartbeat_interval: Duration,
    /// How long jobs may take to finish when asked to leave.
    pub drain_timeout: Duration,
}

impl WorkerConfig {
    /// What `settings` say about a worker of this type.
    pub fn new(worker_type: WorkerType, id: WorkerId, settings: &WorkerTypeSettings) -> Self {
        let WorkerSettings { concurrency, .. } = settings.worker;
        Self {
            queue: settings.queue(worker_type.as_str()),
            group: settings.group(worker_type.as_str()),
            concurrency: usize::try_from(concurrency).unwrap_or(usize::MAX).max(1),
            heartbeat_interval: settings.worker.heartbeat_interval(),
            drain_timeout: settings.scaling.drain_timeout(),
            worker_type,
            id,
        }
    }

    /// The time after which a silent worker counts as gone.
    fn lapse(&self) -> Duration {
        self.heartbeat_interval * MISSED_HEARTBEATS
    }

    fn consumer(&self) -> Consumer {
        Consumer { stream: self.queue.clone(), group: self.group.clone(), name: self.id.to_string() }
    }
}
