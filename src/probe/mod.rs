//! What waits in the queues, and what the workers say of themselves. Reads Redis, changes nothing, decides nothing.
//!
//! All probes go through one connection and are batched: whatever has been asked for while the batch before was being
//! written goes out as one pipeline, so a sweep of ten thousand queues is some hundred round trips, and a single
//! signal is one. With invalidations in use, the first command of each probe also arms the next wake-up.

mod arrivals;
mod command;
mod interpret;
mod ledger;
mod prober;

pub use arrivals::{ArrivalError, ArrivalWatch, Recorded};
pub use interpret::{ConsumerPending, LagMemory};
pub use prober::{Prober, ProberHandle, Request};

use crate::model::{Demand, Reading, WorkerState};

/// How to read one queue.
#[derive(Clone, Debug)]
pub struct QueueSpec {
    /// Its key.
    pub key: std::sync::Arc<str>,
    /// The consumer group that counts; for a list it is not used.
    pub group: std::sync::Arc<str>,
    /// Whether the key holds a list.
    pub list: bool,
}

/// A worker's heartbeat, as far as scaling needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// What the worker does.
    pub state: WorkerState,
    /// Open sessions.
    pub sessions: u64,
}

/// The answer to one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Unfinished work.
    pub demand: Demand,
    /// Who holds how many delivered jobs.
    pub consumers: Reading<Vec<ConsumerPending>>,
    /// One for each worker asked about; `None` where there is no heartbeat.
    pub heartbeats: Reading<Vec<Option<Heartbeat>>>,
}

impl Answer {
    /// The answer when Redis could not be asked.
    pub fn failed(why: &str) -> Self {
        let consumers = Reading::Failed(why.to_owned());
        Self { demand: Demand::failed(why), consumers, heartbeats: Reading::Failed(why.to_owned()) }
    }
}
