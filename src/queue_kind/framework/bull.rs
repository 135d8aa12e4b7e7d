//! Bull 4 (<https://github.com/OptimalBits/bull>), which n8n uses in queue mode, by the source of bull 4.16. The list
//! of waiting jobs includes jobs with a priority.

use std::sync::Arc;

use redis::Cmd;

use super::{
    Certainty, FrameworkProfile, FrameworkSpec, SignalKeys,
    counted::{CountedReader, Part, Unit},
};
use crate::{model::StopSignal, queue_kind::QueueReader};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Bull;

/// Returns the parts of a queue.
fn parts(spec: &FrameworkSpec, queue: &str) -> Vec<Part> {
    let key = |rest: &str| format!("{}:{queue}:{rest}", spec.prefix);
    vec![
        Part::Waiting(key("wait")),
        Part::Running(key("active")),
        Part::Schedule(key("delayed"), Unit::Bull),
        Part::PausedByKey(key("meta-paused")),
    ]
}

impl FrameworkProfile for Bull {
    fn name(&self) -> &'static str {
        "bull"
    }

    fn default_queue(&self) -> &'static str {
        "jobs"
    }

    fn default_prefix(&self) -> &'static str {
        "bull"
    }

    fn key(&self, spec: &FrameworkSpec, queue: &str) -> String {
        format!("{}:{queue}:wait", spec.prefix)
    }

    fn content(&self, key: &str) -> Cmd {
        redis::cmd("LLEN").arg(key).to_owned()
    }

    fn signals(&self, spec: &FrameworkSpec) -> SignalKeys {
        let keys = spec.queues.iter().flat_map(|queue| parts(spec, queue)).map(Part::into_key).collect();
        SignalKeys { keys, ..SignalKeys::default() }
    }

    fn event_flags(&self) -> &'static str {
        "lz$g"
    }

    fn reader(&self, spec: &Arc<FrameworkSpec>) -> Box<dyn QueueReader> {
        Box::new(CountedReader::new(spec, parts))
    }

    fn commands(&self) -> &'static [&'static str] {
        &["time", "exists", "llen", "zcard", "zcount", "zrangebyscore"]
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
