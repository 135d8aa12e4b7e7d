//! Dramatiq (Python, <https://dramatiq.io>) with its Redis broker, by the source of dramatiq 2.2. One hash contains
//! every unfinished message, including running ones. A delayed message waits in the memory of a worker.

use super::{FrameworkSpec, counted::Part, counted_profile::CountedProfile};
use crate::model::StopSignal;

/// See the [module](self).
pub(super) static PROFILE: CountedProfile = CountedProfile {
    name: "dramatiq",
    default_queue: "default",
    default_prefix: "dramatiq",
    parts,
    content: "HLEN",
    event_flags: "h",
    commands: &["time", "hlen"],
    shows_running: true,
    quiet_signal: None,
    stop_signal: StopSignal::Term,
    trace: None,
    stop_caveat: None,
    job_times: None,
};

/// Returns the parts of a queue.
fn parts(spec: &FrameworkSpec, queue: &str) -> Vec<Part> {
    let key = |rest: &str| format!("{}:{queue}{rest}", spec.prefix);
    vec![Part::Unfinished(key(".msgs")), Part::Held(key(".DQ.msgs"))]
}
