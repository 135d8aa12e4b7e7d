//! Bull 4 (<https://github.com/OptimalBits/bull>), which n8n uses in queue mode, by the source of bull 4.16. The list
//! of waiting jobs includes jobs with a priority.

use super::{
    FrameworkSpec, Trace,
    counted::{Part, Unit},
    counted_profile::CountedProfile,
    job_times::of_bull,
};
use crate::model::StopSignal;

/// See the [module](self).
pub(super) static PROFILE: CountedProfile = CountedProfile {
    name: "bull",
    default_queue: "jobs",
    default_prefix: "bull",
    parts,
    content: "LLEN",
    event_flags: "lz$g",
    commands: &["time", "exists", "llen", "zcard", "zcount", "zrangebyscore", "get"],
    shows_running: true,
    quiet_signal: None,
    stop_signal: StopSignal::Term,
    trace: Some(|spec, queue| Trace::Key(format!("{}:{queue}:id", spec.prefix))),
    stop_caveat: Some(
        "SIGTERM ends running jobs immediately, unless the program handles it: call `queue.close()` and wait for it",
    ),
    job_times: Some(|spec, queue| of_bull(&spec.prefix, queue, &[])),
};

/// Returns the parts of a queue.
fn parts(spec: &FrameworkSpec, queue: &str) -> Vec<Part> {
    let key = |rest: &str| format!("{}:{queue}:{rest}", spec.prefix);
    vec![
        Part::Waiting(key("wait")),
        Part::Running(key("active")),
        Part::Schedule(key("delayed"), Unit::Bull),
        Part::PausedByKey(key("meta-paused")),
        Part::Added(key("id")),
    ]
}
