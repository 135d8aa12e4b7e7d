//! asynq (Go, <https://github.com/hibiken/asynq>), by the source of asynq 0.26. Keys contain the name of the queue in
//! braces.

use super::{
    FrameworkSpec, Trace,
    counted::{Part, Unit},
    counted_profile::CountedProfile,
};
use crate::model::{QuietSignal, StopSignal};

/// See the [module](self).
pub(super) static PROFILE: CountedProfile = CountedProfile {
    name: "asynq",
    default_queue: "default",
    default_prefix: "asynq",
    parts,
    content: "LLEN",
    event_flags: "lz$g",
    commands: &["time", "exists", "llen", "zcard", "zcount", "zrangebyscore", "get"],
    shows_running: true,
    quiet_signal: Some(QuietSignal::Tstp),
    stop_signal: StopSignal::Term,
    trace: Some(|spec, queue| Trace::Member { set: format!("{}:queues", spec.prefix), member: queue.to_owned() }),
    stop_caveat: None,
    job_times: None,
};

/// Returns the parts of a queue.
fn parts(spec: &FrameworkSpec, queue: &str) -> Vec<Part> {
    let key = |rest: &str| format!("{}:{{{queue}}}:{rest}", spec.prefix);
    vec![
        Part::Waiting(key("pending")),
        Part::Running(key("active")),
        Part::Schedule(key("scheduled"), Unit::Seconds),
        Part::Schedule(key("retry"), Unit::Seconds),
        Part::PausedByKey(key("paused")),
        Part::Ended(key("processed")),
    ]
}
