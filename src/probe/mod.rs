//! Reads what waits in the queues, and the workers' heartbeats. Reads Redis, changes nothing, decides nothing.
//!
//! All probes share one connection and are batched: requests that arrive while a batch is being written go out together
//! as the next pipeline. So a sweep of ten thousand queues takes about a hundred round trips, and a single signal takes
//! one. A worker type with several queues asks for all of them, and the answers are combined. With invalidations in
//! use, the first command of each probe also arms the next wake-up.

mod arrivals;
mod combine;
mod found_queues;
mod handle;
mod heartbeat;
mod kept_jobs;
mod ledger;
mod part;
mod prober;
mod several;
mod single;
mod transaction;

pub use arrivals::{ArrivalError, ArrivalWatch, Recorded, server_time};
pub use combine::combine;
pub use handle::{ProberHandle, Request};
pub use heartbeat::{Heartbeat, Heartbeats, Places, WorkerKeys};
pub use kept_jobs::KeptJobsWatch;
pub use prober::Prober;
pub use several::SeveralSpec;
pub use single::SingleReader;

use std::sync::Arc;

use self::heartbeat::ReadWorkers;

pub use crate::queue_kind::{ConsumerPending, FrameworkReading, Occupation, QueueSpec};
use crate::{
    model::{Counters, Demand, QueueDemands, Reading},
    queue_kind::Observed,
};

/// Answer to one probe, of one queue or of all queues of a worker type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Unfinished work.
    pub demand: Demand,
    /// The queues one by one; `None` if there is only one.
    pub queues: Option<Arc<QueueDemands>>,
    /// Counters that the queue keeps.
    pub counters: Counters,
    /// Delivered jobs that each consumer holds.
    pub consumers: Reading<Vec<ConsumerPending>>,
    /// One heartbeat for each worker in the request.
    pub heartbeats: Heartbeats,
    /// Whether each key of which only the existence was asked exists.
    pub all_exist: bool,
    /// Further results, for frameworks.
    pub framework: Option<Box<FrameworkReading>>,
}

impl Answer {
    /// Returns the answer for one queue.
    fn of(observed: Observed, workers: ReadWorkers) -> Self {
        let Observed { demand, counters, consumers, framework, .. } = observed;
        let ReadWorkers { heartbeats, all_exist } = workers;
        Self { demand, queues: None, counters, consumers, heartbeats, all_exist, framework }
    }

    /// Returns the answer when Redis could not be asked.
    pub fn failed(why: &str) -> Self {
        Self::of(Observed::failed(why), ReadWorkers::failed(why))
    }
}
