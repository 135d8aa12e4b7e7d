//! arq (Python, <https://arq-docs.helpmanual.io>), by the source of arq 0.28. One sorted set contains every job until
//! it is finished, by its due time. SIGTERM cancels running jobs immediately, unless the worker has
//! `job_completion_wait`.

use super::{
    FrameworkSpec,
    counted::{Part, Unit},
    counted_profile::CountedProfile,
};
use crate::model::StopSignal;

/// See the [module](self).
pub(super) static PROFILE: CountedProfile = CountedProfile {
    name: "arq",
    default_queue: "arq:queue",
    default_prefix: "",
    parts,
    content: "ZCARD",
    event_flags: "z",
    commands: &["time", "zcard", "zcount", "zrangebyscore"],
    shows_running: true,
    quiet_signal: None,
    stop_signal: StopSignal::Term,
    trace: None,
    stop_caveat: Some(
        "SIGTERM cancels running jobs immediately, unless the worker's settings have `job_completion_wait`: set it to more \
         than the longest job",
    ),
    job_times: None,
};

/// Returns the parts of a queue.
fn parts(spec: &FrameworkSpec, queue: &str) -> Vec<Part> {
    let key = |rest: &str| format!("{}{queue}{rest}", spec.prefix);
    vec![Part::UnfinishedSchedule(key(""), Unit::Milliseconds)]
}
