//! Huey (Python, <https://huey.readthedocs.io>), by the source of huey 3.5. A queue is a list, or a sorted set with the
//! priority storage. A running task is stored nowhere. SIGTERM interrupts running tasks; SIGINT lets them finish.

use super::{
    FrameworkSpec,
    counted::{Part, Unit},
    counted_profile::CountedProfile,
};
use crate::model::StopSignal;

/// See the [module](self).
pub(super) static PROFILE: CountedProfile = CountedProfile {
    name: "huey",
    default_queue: "huey",
    default_prefix: "huey",
    parts,
    content: "EXISTS",
    event_flags: "lz",
    commands: &["time", "exists", "llen", "zcard", "zcount", "zrangebyscore"],
    shows_running: false,
    quiet_signal: None,
    stop_signal: StopSignal::Int,
    trace: None,
    stop_caveat: None,
    job_times: None,
};

/// Returns the parts of a queue.
fn parts(spec: &FrameworkSpec, queue: &str) -> Vec<Part> {
    let key = |what: &str| format!("{}.{what}.{queue}", spec.prefix);
    vec![Part::WaitingEither(key("redis")), Part::Schedule(key("schedule"), Unit::Seconds)]
}
