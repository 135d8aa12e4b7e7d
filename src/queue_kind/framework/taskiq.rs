//! Taskiq (Python, <https://taskiq-python.github.io>) with `ListQueueBroker`, by the source of taskiq-redis 1.2. A queue
//! is a list. A running task is stored nowhere, and scheduled tasks are enqueued by a process of their own.

use super::{FrameworkSpec, counted::Part, counted_profile::CountedProfile};
use crate::model::StopSignal;

/// See the [module](self).
pub(super) static PROFILE: CountedProfile = CountedProfile {
    name: "taskiq",
    default_queue: "taskiq",
    default_prefix: "",
    parts,
    content: "LLEN",
    event_flags: "l",
    commands: &["time", "llen"],
    shows_running: false,
    quiet_signal: None,
    stop_signal: StopSignal::Term,
    trace: None,
    stop_caveat: None,
    job_times: None,
};

/// Returns the parts of a queue.
fn parts(spec: &FrameworkSpec, queue: &str) -> Vec<Part> {
    vec![Part::Waiting(format!("{}{queue}", spec.prefix))]
}
