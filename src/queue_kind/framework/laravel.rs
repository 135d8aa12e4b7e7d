//! Laravel queues (PHP, <https://laravel.com/docs/queues>) on Redis, without Horizon, by the source of
//! laravel/framework 13. A reserved job counts as running until its reservation expires.

use super::{
    FrameworkSpec,
    counted::{Part, Unit},
    counted_profile::CountedProfile,
};
use crate::model::StopSignal;

/// See the [module](self).
pub(super) static PROFILE: CountedProfile = CountedProfile {
    name: "laravel",
    default_queue: "default",
    default_prefix: "laravel-database-",
    parts,
    content: "LLEN",
    event_flags: "lz",
    commands: &["time", "llen", "zcard", "zcount", "zrangebyscore"],
    shows_running: true,
    quiet_signal: None,
    stop_signal: StopSignal::Term,
    trace: None,
    stop_caveat: None,
    job_times: None,
};

/// Returns the parts of a queue.
fn parts(spec: &FrameworkSpec, queue: &str) -> Vec<Part> {
    let key = |rest: &str| format!("{}queues:{queue}{rest}", spec.prefix);
    vec![
        Part::Waiting(key("")),
        Part::RunningUntil(key(":reserved"), Unit::Seconds),
        Part::Schedule(key(":delayed"), Unit::Seconds),
    ]
}
