//! Laravel queues (PHP, <https://laravel.com/docs/queues>) on Redis, without Horizon, by the source of
//! laravel/framework 13. A reserved job counts as running until its reservation expires.

use std::sync::Arc;

use redis::Cmd;

use super::{
    Certainty, FrameworkProfile, FrameworkSpec, SignalKeys,
    counted::{CountedReader, Part, Unit},
};
use crate::{model::StopSignal, queue_kind::QueueReader};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Laravel;

/// Returns the parts of a queue.
fn parts(spec: &FrameworkSpec, queue: &str) -> Vec<Part> {
    let key = |rest: &str| format!("{}queues:{queue}{rest}", spec.prefix);
    vec![
        Part::Waiting(key("")),
        Part::RunningUntil(key(":reserved"), Unit::Seconds),
        Part::Schedule(key(":delayed"), Unit::Seconds),
    ]
}

impl FrameworkProfile for Laravel {
    fn name(&self) -> &'static str {
        "laravel"
    }

    fn default_queue(&self) -> &'static str {
        "default"
    }

    fn default_prefix(&self) -> &'static str {
        "laravel-database-"
    }

    fn key(&self, spec: &FrameworkSpec, queue: &str) -> String {
        format!("{}queues:{queue}", spec.prefix)
    }

    fn content(&self, key: &str) -> Cmd {
        redis::cmd("LLEN").arg(key).to_owned()
    }

    fn signals(&self, spec: &FrameworkSpec) -> SignalKeys {
        let keys = spec.queues.iter().flat_map(|queue| parts(spec, queue)).map(Part::into_key).collect();
        SignalKeys { keys, ..SignalKeys::default() }
    }

    fn event_flags(&self) -> &'static str {
        "lz"
    }

    fn reader(&self, spec: &Arc<FrameworkSpec>) -> Box<dyn QueueReader> {
        Box::new(CountedReader::new(spec, parts))
    }

    fn commands(&self) -> &'static [&'static str] {
        &["time", "llen", "zcard", "zcount", "zrangebyscore"]
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
