//! BullMQ (<https://bullmq.io>), versions 5 and 6, by the source of bullmq 5.81 and 6.7. The list of waiting jobs does
//! not include jobs with a priority; scores of delayed jobs are milliseconds times 4096.

use std::sync::Arc;

use redis::Cmd;

use super::{
    Certainty, FrameworkProfile, FrameworkSpec, SignalKeys,
    counted::{CountedReader, Part, Unit},
};
use crate::{model::StopSignal, queue_kind::QueueReader};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct BullMq;

/// Returns the parts of a queue.
fn parts(spec: &FrameworkSpec, queue: &str) -> Vec<Part> {
    let key = |rest: &str| format!("{}:{queue}:{rest}", spec.prefix);
    vec![
        Part::Waiting(key("wait")),
        Part::WaitingSet(key("prioritized")),
        Part::Running(key("active")),
        Part::Schedule(key("delayed"), Unit::Bull),
        Part::Meta(key("meta")),
    ]
}

impl FrameworkProfile for BullMq {
    fn name(&self) -> &'static str {
        "bullmq"
    }

    fn default_queue(&self) -> &'static str {
        "default"
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
        "lzh"
    }

    fn reader(&self, spec: &Arc<FrameworkSpec>) -> Box<dyn QueueReader> {
        Box::new(CountedReader::new(spec, parts))
    }

    fn commands(&self) -> &'static [&'static str] {
        &["time", "llen", "zcard", "zcount", "zrangebyscore", "hmget"]
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
