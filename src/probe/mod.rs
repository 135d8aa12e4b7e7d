//! What waits in the queues, and what the workers say of themselves. Reads Redis, changes nothing, decides nothing.
//!
//! All probes go through one connection and are batched: whatever has been asked for while the batch before was being
//! written goes out as one pipeline, so a sweep of ten thousand queues is some hundred round trips, and a single
//! signal is one. A worker type with several queues asks for all of them, and the answers are put together. With invalidations in use, the first command of each probe also arms the next wake-up.

mod arrivals;
mod combine;
mod command;
mod handle;
mod interpret;
mod ledger;
mod prober;
mod several;

pub use arrivals::{ArrivalError, ArrivalWatch, Recorded};
pub use combine::combine;
pub use handle::{ProberHandle, Request};
pub use interpret::{ConsumerPending, LagMemory};
pub use prober::Prober;
pub use several::SeveralSpec;

use std::sync::Arc;

use crate::model::{Counters, Demand, QueueDemands, Reading, WorkerState};

/// How to read one queue.
#[derive(Clone, Debug)]
pub struct QueueSpec {
    /// Its key.
    pub key: Arc<str>,
    /// The consumer group that counts; for a list it is not used.
    pub group: Arc<str>,
    /// Whether the key holds a list.
    pub list: bool,
}

/// A worker's heartbeat, as far as scaling needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// What the worker does.
    pub state: WorkerState,
    /// Open sessions.
    pub sessions: u64,
}

/// The answer to one probe, of one queue or of all queues of a worker type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Unfinished work.
    pub demand: Demand,
    /// The queues one by one, if there are several.
    pub queues: Option<Arc<QueueDemands>>,
    /// What the queue counts by itself.
    pub counters: Counters,
    /// Who holds how many delivered jobs.
    pub consumers: Reading<Vec<ConsumerPending>>,
    /// One for each worker asked about; `None` where there is no heartbeat.
    pub heartbeats: Reading<Vec<Option<Heartbeat>>>,
}

impl Answer {
    /// The answer when Redis could not be asked.
    pub fn failed(why: &str) -> Self {
        let consumers = Reading::Failed(why.to_owned());
        let heartbeats = Reading::Failed(why.to_owned());
        Self { demand: Demand::failed(why), queues: None, counters: Counters::default(), consumers, heartbeats }
    }
}
