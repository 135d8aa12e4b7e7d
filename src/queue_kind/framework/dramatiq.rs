//! Dramatiq (Python, <https://dramatiq.io>) with its Redis broker, by the source of dramatiq 2.2. One hash contains
//! every unfinished message, including running ones. A delayed message waits in the memory of a worker.

use std::sync::Arc;

use redis::Cmd;

use super::{
    Certainty, FrameworkProfile, FrameworkSpec, SignalKeys,
    counted::{CountedReader, Part},
};
use crate::{model::StopSignal, queue_kind::QueueReader};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Dramatiq;

/// Returns the parts of a queue.
fn parts(spec: &FrameworkSpec, queue: &str) -> Vec<Part> {
    let key = |rest: &str| format!("{}:{queue}{rest}", spec.prefix);
    vec![Part::Unfinished(key(".msgs")), Part::Held(key(".DQ.msgs"))]
}

impl FrameworkProfile for Dramatiq {
    fn name(&self) -> &'static str {
        "dramatiq"
    }

    fn default_queue(&self) -> &'static str {
        "default"
    }

    fn default_prefix(&self) -> &'static str {
        "dramatiq"
    }

    fn key(&self, spec: &FrameworkSpec, queue: &str) -> String {
        format!("{}:{queue}.msgs", spec.prefix)
    }

    fn content(&self, key: &str) -> Cmd {
        redis::cmd("HLEN").arg(key).to_owned()
    }

    fn signals(&self, spec: &FrameworkSpec) -> SignalKeys {
        let keys = spec.queues.iter().flat_map(|queue| parts(spec, queue)).map(Part::into_key).collect();
        SignalKeys { keys, ..SignalKeys::default() }
    }

    fn event_flags(&self) -> &'static str {
        "h"
    }

    fn reader(&self, spec: &Arc<FrameworkSpec>) -> Box<dyn QueueReader> {
        Box::new(CountedReader::new(spec, parts))
    }

    fn commands(&self) -> &'static [&'static str] {
        &["time", "hlen"]
    }

    fn certainty(&self) -> Certainty {
        Certainty::PoolOnly
    }

    fn stop_signal(&self) -> StopSignal {
        StopSignal::Term
    }

    fn identity(&self) -> Option<&'static str> {
        None
    }
}
