//! The worker's present status, and the state that it has on the wire. Pure.

use crate::model::WorkerState;

/// The worker's attitude to new jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// Takes jobs.
    #[default]
    Working,
    /// Would take jobs, but can't: Redis or its queue is in trouble.
    Trouble,
    /// Was asked to leave: takes only jobs of its sessions.
    Leaving,
    /// Has left.
    Gone,
}

/// What the worker does now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) phase: Phase,
    /// Whether it was asked over Redis to take no more jobs for now.
    pub(super) drain_requested: bool,
    /// Set when it has taken its last job: the number of jobs that occupy all of its slots.
    pub(super) spent: Option<usize>,
    /// Jobs in progress.
    pub(super) busy: usize,
    /// Open sessions.
    pub(super) sessions: usize,
    /// Jobs in hand that wait for a place for their session.
    pub(super) waiting: usize,
    /// Jobs finished, including failed ones.
    pub(super) processed: u64,
    pub(super) failed: u64,
}

impl Status {
    /// Returns the state for the heartbeat. Jobs take precedence over trouble, because a job in progress continues. A
    /// worker that has taken its last job is as good as any busy one while all of its slots are occupied. It drains
    /// once a slot is free, because that slot stays free.
    pub(super) fn state(&self) -> WorkerState {
        match self.phase {
            Phase::Gone => WorkerState::Shutdown,
            Phase::Leaving => WorkerState::Draining,
            _ if self.drain_requested || self.spent.is_some_and(|slots| self.busy < slots) => WorkerState::Draining,
            _ if self.busy > 0 => WorkerState::Busy,
            Phase::Trouble => WorkerState::Error,
            Phase::Working if self.sessions > 0 => WorkerState::Waiting,
            Phase::Working => WorkerState::Idle,
        }
    }

    /// Returns whether it was asked to leave for good.
    pub(super) fn is_leaving(&self) -> bool {
        matches!(self.phase, Phase::Leaving | Phase::Gone)
    }

    /// Returns whether it takes jobs of any kind.
    pub(super) fn takes_jobs(&self) -> bool {
        !self.is_leaving() && !self.drain_requested && self.spent.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_has_its_meaning() {
        let idle = Status::default();
        let session = Status { sessions: 1, ..idle };
        let busy = Status { busy: 2, ..session };
        let asked = Status { drain_requested: true, ..busy };
        for (status, state) in [
            (idle, WorkerState::Idle),
            (session, WorkerState::Waiting),
            (busy, WorkerState::Busy),
            (asked, WorkerState::Draining),
            (Status { phase: Phase::Trouble, ..session }, WorkerState::Error),
            (Status { phase: Phase::Trouble, ..busy }, WorkerState::Busy),
            (Status { phase: Phase::Leaving, ..idle }, WorkerState::Draining),
            (Status { spent: Some(2), ..busy }, WorkerState::Busy),
            (Status { spent: Some(3), ..busy }, WorkerState::Draining),
            (Status { spent: Some(1), ..session }, WorkerState::Draining),
            (Status { phase: Phase::Gone, ..asked }, WorkerState::Shutdown),
        ] {
            assert_eq!(status.state(), state, "{status:?}");
        }
        assert!(idle.takes_jobs() && !asked.takes_jobs() && !Status { spent: Some(1), ..idle }.takes_jobs());
    }
}
