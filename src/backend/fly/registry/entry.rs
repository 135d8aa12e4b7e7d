//! One machine in the registry: its observed state, the requested state, and the status that follows.

use std::sync::Arc;

use super::SETTLE;
use crate::{
    backend::fly::machine::{Condition, Machine},
    model::Timestamp,
};

/// Consecutive lists without a machine after which it counts as gone: a single list may be stale.
pub(super) const MISSING: u8 = 2;
/// See the module.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) machine: Arc<Machine>,
    pub(super) status: MachineStatus,
    pub(super) desired: DesiredState,
    /// When a change was last requested: older observations are ignored.
    pub(super) asked: Timestamp,
    /// Since when it has been up.
    pub(super) since: Timestamp,
    /// Whether we stopped it, or tried to, since it was last up.
    pub(super) stop_sent: bool,
    /// Whether its last start came to nothing.
    pub(super) start_failed: bool,
    /// When its worker last ended by itself without success.
    pub(super) crashed: Option<Timestamp>,
    /// When its host last had no room to start it.
    pub(super) no_room: Option<Timestamp>,
    pub(super) missing: u8,
}

/// A machine's status for the scaler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MachineStatus {
    Up,
    Leaving,
    Down,
    /// Not known, because its host does not answer.
    Lost,
    Gone,
}

/// Requested state that has not been observed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DesiredState {
    None,
    Up,
    /// And until when that may take.
    Down(Timestamp),
}

impl Entry {
    /// A machine that is seen for the first time.
    pub(super) fn new(machine: &Arc<Machine>, status: MachineStatus, since: Timestamp) -> Self {
        Self {
            machine: machine.clone(),
            status,
            desired: DesiredState::None,
            asked: Timestamp(0),
            since,
            stop_sent: false,
            start_failed: false,
            crashed: None,
            no_room: None,
            missing: 0,
        }
    }

    /// Records a requested state.
    pub(super) fn ask(&mut self, desired: DesiredState, now: Timestamp) {
        (self.desired, self.asked, self.missing, self.start_failed) = (desired, now, 0, false);
    }

    /// How it stands, by what was asked and what was seen.
    pub(super) fn judged(&mut self, now: Timestamp) -> MachineStatus {
        if self.missing >= MISSING {
            return MachineStatus::Gone;
        }
        match self.desired {
            DesiredState::Up if now.since(self.asked) < SETTLE => return MachineStatus::Up,
            DesiredState::Down(until) if now >= until => self.desired = DesiredState::None,
            DesiredState::Up => self.desired = DesiredState::None,
            DesiredState::Down(_) | DesiredState::None => {}
        }
        let under_change =
            self.machine.leased(now) && self.status == MachineStatus::Up && self.desired == DesiredState::None;
        match self.machine.condition(now) {
            Condition::Gone => MachineStatus::Gone,
            Condition::Unreachable => MachineStatus::Lost,
            _ if under_change => MachineStatus::Up,
            Condition::Up if self.desired == DesiredState::None => MachineStatus::Up,
            Condition::Up | Condition::Leaving => MachineStatus::Leaving,
            Condition::Stopped | Condition::Broken => MachineStatus::Down,
        }
    }
}

impl Entry {
    /// Why its worker does not run, in the words of Fly.io. `None` where it does or is to leave.
    pub(super) fn reason(&self) -> Option<String> {
        if self.status != MachineStatus::Up || self.machine.started() {
            return None;
        }
        let state = &self.machine.state;
        match self.machine.exited().filter(|(at, _)| *at >= self.since) {
            Some((_, exited)) if exited.restarting => Some(format!("restarting: {}", exited.describe().1)),
            _ => Some(
                self.machine
                    .failed_event()
                    .map_or_else(|| format!("machine is {state}"), |event| format!("machine is {state}; {event}")),
            ),
        }
    }
}

/// Returns how a machine that was up ended by itself: success, and a description.
pub(super) fn ended(entry: &Entry, is: MachineStatus) -> Option<(bool, String)> {
    let Machine { id, state, .. } = &*entry.machine;
    let event = entry.machine.failed_event().map(|event| format!("; {event}")).unwrap_or_default();
    let exited = entry.machine.exited().filter(|(at, exited)| *at >= entry.since && !exited.requested_stop);
    match exited {
        Some((_, exited)) if is == MachineStatus::Down => Some(exited.describe()),
        _ if entry.start_failed => {
            Some((false, format!("machine {id} did not start ({state}{event}); see `fly machine status {id}`")))
        }
        _ if matches!(state.as_str(), "failed" | "launch_failed") => {
            Some((false, format!("machine {id} failed{event}; see `fly machine status {id}`")))
        }
        _ => None,
    }
}
