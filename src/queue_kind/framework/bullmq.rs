//! BullMQ (<https://bullmq.io>), versions 5 and 6, by the source of bullmq 5.81 and 6.7. The list of waiting jobs does
//! not include jobs with a priority; scores of delayed jobs are milliseconds times 4096.

use super::{
    FrameworkSpec, Trace,
    counted::{Part, Unit},
    counted_profile::CountedProfile,
    job_times::of_bull,
};
use crate::model::StopSignal;

/// See the [module](self).
pub(super) static PROFILE: CountedProfile = CountedProfile {
    name: "bullmq",
    default_queue: "default",
    default_prefix: "bull",
    parts,
    content: "LLEN",
    event_flags: "lzh",
    commands: &["time", "llen", "zcard", "zcount", "zrangebyscore", "hmget", "get"],
    shows_running: true,
    quiet_signal: None,
    stop_signal: StopSignal::Term,
    trace: Some(|spec, queue| Trace::Key(format!("{}:{queue}:id", spec.prefix))),
    stop_caveat: Some(
        "SIGTERM ends running jobs immediately, unless the program handles it: call `worker.close()` and wait for it",
    ),
    job_times: Some(|spec, queue| of_bull(&spec.prefix, queue, &["prioritized"])),
};

/// Returns the parts of a queue.
fn parts(spec: &FrameworkSpec, queue: &str) -> Vec<Part> {
    let key = |rest: &str| format!("{}:{queue}:{rest}", spec.prefix);
    vec![
        Part::Waiting(key("wait")),
        Part::WaitingSet(key("prioritized")),
        Part::Running(key("active")),
        Part::Schedule(key("delayed"), Unit::Bull),
        Part::Meta(key("meta")),
        Part::Added(key("id")),
    ]
}
