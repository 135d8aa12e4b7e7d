//! arq (Python, <https://arq-docs.helpmanual.io>), by the source of arq 0.28. One sorted set contains every job until
//! it is finished, by its due time. SIGTERM cancels running jobs immediately, unless the worker has
//! `job_completion_wait`.

use std::sync::Arc;

use redis::Cmd;

use super::{
    Certainty, FrameworkProfile, FrameworkSpec, SignalKeys,
    counted::{CountedReader, Part, Unit},
};
use crate::{model::StopSignal, queue_kind::QueueReader};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Arq;

/// Returns the parts of a queue.
fn parts(spec: &FrameworkSpec, queue: &str) -> Vec<Part> {
    let key = |rest: &str| format!("{}{queue}{rest}", spec.prefix);
    vec![Part::UnfinishedSchedule(key(""), Unit::Milliseconds)]
}

impl FrameworkProfile for Arq {
    fn name(&self) -> &'static str {
        "arq"
    }

    fn default_queue(&self) -> &'static str {
        "arq:queue"
    }

    fn default_prefix(&self) -> &'static str {
        ""
    }

    fn key(&self, spec: &FrameworkSpec, queue: &str) -> String {
        format!("{}{queue}", spec.prefix)
    }

    fn content(&self, key: &str) -> Cmd {
        redis::cmd("ZCARD").arg(key).to_owned()
    }

    fn signals(&self, spec: &FrameworkSpec) -> SignalKeys {
        let keys = spec.queues.iter().flat_map(|queue| parts(spec, queue)).map(Part::into_key).collect();
        SignalKeys { keys, ..SignalKeys::default() }
    }

    fn event_flags(&self) -> &'static str {
        "z"
    }

    fn reader(&self, spec: &Arc<FrameworkSpec>) -> Box<dyn QueueReader> {
        Box::new(CountedReader::new(spec, parts))
    }

    fn commands(&self) -> &'static [&'static str] {
        &["time", "zcard", "zcount", "zrangebyscore"]
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
