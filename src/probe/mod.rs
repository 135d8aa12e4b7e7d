//! What waits in the queues, and what the workers say of themselves. Reads Redis, changes nothing, decides nothing.
//!
//! All probes go through one connection and are batched: whatever has been asked for while the batch before was being
//! written goes out as one pipeline, so a sweep of ten thousand queues is some hundred round trips, and a single signal
//! is one. A worker type with several queues asks for all of them, and the answers are put together. With invalidations
//! in use, the first command of each probe also arms the next wake-up.

mod arrivals;
mod combine;
mod handle;
mod heartbeat;
mod ledger;
mod prober;
mod several;
mod transaction;

pub use arrivals::{ArrivalError, ArrivalWatch, Recorded};
pub use combine::combine;
pub use handle::{ProberHandle, Request};
pub use heartbeat::Heartbeat;
pub use prober::Prober;
pub use several::SeveralSpec;

use std::sync::Arc;

pub use crate::queue_kind::{ConsumerPending, FrameworkReading, Occupation, QueueSpec};
use crate::{
    model::{Counters, Demand, QueueDemands, Reading},
    queue_kind::Observed,
};

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
    /// What a framework tells besides.
    pub framework: Option<Box<FrameworkReading>>,
}

impl Answer {
    /// The answer for one queue.
    fn of(observed: Observed, heartbeats: Reading<Vec<Option<Heartbeat>>>) -> Self {
        let Observed { demand, counters, consumers, framework, .. } = observed;
        Self { demand, queues: None, counters, consumers, heartbeats, framework }
    }

    /// The answer when Redis could not be asked.
    pub fn failed(why: &str) -> Self {
        let consumers = Reading::Failed(why.to_owned());
        let heartbeats = Reading::Failed(why.to_owned());
        let counters = Counters::default();
        Self { demand: Demand::failed(why), queues: None, counters, consumers, heartbeats, framework: None }
    }
}
