//! One machine in the registry: what was seen of it, what was asked of it, and how it stands by both.

use std::sync::Arc;

use super::SETTLE;
use crate::{
    backend::fly::machine::{Condition, Machine},
    model::Timestamp,
};

/// A machine must be missing from so many lists in a row to be gone: one alone may be old.
pub(super) const MISSING: u8 = 2;
/// See the module.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) machine: Arc<Machine>,
    pub(super) status: MachineStatus,
    pub(super) desired: DesiredState,
    /// When something was last asked of it: older accounts of it are worth nothing.
    pub(super) asked: Timestamp,
    /// Since when it has been up.
    pub(super) since: Timestamp,
    /// Whether we stopped it, or tried to, since it was last up.
    pub(super) stop_sent: bool,
    /// Whether its last start came to nothing.
    pub(super) start_failed: bool,
    /// When its worker last ended by itself without success.
    pub(super) crashed: Option<Timestamp>,
    pub(super) missing: u8,
}

/// What it is worth to a scaler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MachineStatus {
    Up,
    Leaving,
    Down,
    /// Not known, because its host does not answer.
    Lost,
    Gone,
}

/// What we asked for and have not seen yet.
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
            missing: 0,
        }
    }

    /// Notes what is being asked of it.
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
            self.machine.leased() && self.status == MachineStatus::Up && self.desired == DesiredState::None;
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

/// How a machine that was up ended, if it did so by itself: success, and words for people.
pub(super) fn ended(entry: &Entry, is: MachineStatus) -> Option<(bool, String)> {
    let Machine { id, state, .. } = &*entry.machine;
    let exited = entry.machine.exited().filter(|(at, exited)| *at >= entry.since && !exited.requested_stop);
    match exited {
        Some((_, exited)) if is == MachineStatus::Down => Some(exited.describe()),
        _ if entry.start_failed => {
            Some((false, format!("machine {id} did not start ({state}); see `fly machine status {id}`")))
        }
        _ if matches!(state.as_str(), "failed" | "launch_failed") => {
            Some((false, format!("machine {id} failed; see `fly machine status {id}`")))
        }
        _ => None,
    }
}
