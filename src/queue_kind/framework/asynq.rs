//! asynq (Go, <https://github.com/hibiken/asynq>), by the source of asynq 0.26. Keys contain the name of the queue in
//! braces.

use std::sync::Arc;

use redis::Cmd;

use super::{
    Certainty, FrameworkProfile, FrameworkSpec, SignalKeys,
    counted::{CountedReader, Part, Unit},
};
use crate::{model::StopSignal, queue_kind::QueueReader};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Asynq;

/// Returns the parts of a queue.
fn parts(spec: &FrameworkSpec, queue: &str) -> Vec<Part> {
    let key = |rest: &str| format!("{}:{{{queue}}}:{rest}", spec.prefix);
    vec![
        Part::Waiting(key("pending")),
        Part::Running(key("active")),
        Part::Schedule(key("scheduled"), Unit::Seconds),
        Part::Schedule(key("retry"), Unit::Seconds),
        Part::PausedByKey(key("paused")),
    ]
}

impl FrameworkProfile for Asynq {
    fn name(&self) -> &'static str {
        "asynq"
    }

    fn default_queue(&self) -> &'static str {
        "default"
    }

    fn default_prefix(&self) -> &'static str {
        "asynq"
    }

    fn key(&self, spec: &FrameworkSpec, queue: &str) -> String {
        format!("{}:{{{queue}}}:pending", spec.prefix)
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
