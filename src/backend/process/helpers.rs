//! Helper processes of a worker: the other members of its process group. A worker that waits for a helper when it is
//! asked to leave may take a job meanwhile and forget it, so its helpers can be asked first.

use std::{
    fs,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::guard::protocol::Group;

/// Time for helpers to leave before the worker itself is asked. RQ's scheduler looks for a signal every second.
const HELPERS_TIMEOUT: Duration = Duration::from_secs(3);

/// Helpers that were asked to leave.
#[derive(Debug)]
pub(super) struct LeavingHelpers {
    group: Group,
    until: Instant,
}

impl LeavingHelpers {
    /// Asks all helpers of a worker to leave. `None` if there are none, or the system does not tell.
    pub(super) fn ask(group: Group, signal: Signal) -> Option<Self> {
        let helpers = helpers(group);
        for helper in &helpers {
            let _ = kill_process(*helper, signal);
        }
        (!helpers.is_empty()).then(|| Self { group, until: Instant::now() + HELPERS_TIMEOUT })
    }

    /// Returns whether none is left, or their time is over.
    pub(super) fn are_gone(&self) -> bool {
        Instant::now() >= self.until || helpers(self.group).is_empty()
    }
}

/// The living members of a group besides its leader.
fn helpers(group: Group) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let leader = group.pid().as_raw_pid();
    numbers.filter(|number| *number != leader && is_member(*number, leader)).filter_map(Pid::from_raw).collect()
}

/// Whether a process is alive and in the group. Its name, which stands before the state, may have any character.
fn is_member(process: i32, group: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let mut fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    let (state, _, of) = (fields.next(), fields.next(), fields.next());
    state != Some("Z") && of.and_then(|of| of.parse().ok()) == Some(group)
}
