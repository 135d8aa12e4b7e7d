//! The status of one worker, from what is read and remembered about it (`docs/adr/0031-silence-counts-by-evidence.md`).

use std::time::Duration;

use super::Expected;
use crate::{
    backend::{Instance, Phase},
    evidence::Channel,
    model::{Timestamp, WorkerState, snapshot::WorkerStatus},
    probe::Heartbeat,
};

/// Time for an idle worker to leave before it is asked again. RQ's worker waits up to a second for its scheduler.
const LEAVING_TIME: Duration = Duration::from_secs(10);

/// What is read about a worker besides the backend's list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// Heartbeat of the worker.
    pub(super) heartbeat: Option<Heartbeat>,
    /// Whether its heartbeat could be read; if not, a missing heartbeat proves nothing.
    pub(super) readable: bool,
    /// Whether the worker holds delivered jobs; `None` if that could not be read.
    pub(super) holds_jobs: Option<bool>,
    /// Whether the worker says that it takes no more jobs, whoever has told it so.
    pub(super) is_quiet: bool,
}

/// What is remembered about a worker.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Memory {
    /// When the worker last had a heartbeat as ready.
    pub(super) heard_at: Option<Timestamp>,
    /// When the worker became ready.
    pub(super) ready_since: Option<Timestamp>,
    /// When the worker became idle.
    pub(super) idle_since: Option<Timestamp>,
    /// Whether the worker was leaving at the last observation.
    pub(super) leaving: bool,
    /// Whether the worker itself announced that it leaves: it removes its heartbeat shortly before its process ends.
    pub(super) said_leaving: bool,
    /// Whether the worker was counted as a failed start.
    pub(super) noted_stalled: bool,
    /// Since when the worker has been idle although it was asked to leave, or when it was last asked again.
    pub(super) unmoved_since: Option<Timestamp>,
}

impl Memory {
    /// Takes note of a new status.
    pub(super) fn note(
        &mut self,
        status: WorkerStatus,
        seen: Seen,
        instance: &Instance,
        expected: Expected,
        now: Timestamp,
    ) {
        let ready = matches!(status, WorkerStatus::Idle | WorkerStatus::Busy);
        if ready && seen.heartbeat.is_some() {
            self.heard_at = Some(now);
        }
        if ready {
            // Without heartbeats nothing shows when a worker becomes ready, so a running worker counts as ready.
            let since = if expected.heartbeats { now } else { began(instance) };
            self.ready_since.get_or_insert(since);
        }
        self.idle_since = (status == WorkerStatus::Idle).then(|| self.idle_since.unwrap_or(now));
        self.leaving = status == WorkerStatus::Draining;
        self.said_leaving = self.leaving && (self.said_leaving || seen.heartbeat.is_some());
        let is_unmoved = instance.phase == Phase::Draining && seen.holds_jobs == Some(false);
        self.unmoved_since = is_unmoved.then(|| self.unmoved_since.unwrap_or(now));
    }

    /// Returns whether the worker may have missed the signal that asked it to leave.
    pub(super) fn is_unmoved(&self, expected: Expected, now: Timestamp) -> bool {
        self.asks_again_at(expected).is_some_and(|at| at <= now)
    }

    fn asks_again_at(&self, expected: Expected) -> Option<Timestamp> {
        self.unmoved_since.filter(|_| expected.may_miss_stop_signal).map(|since| since.after(LEAVING_TIME))
    }
}

/// Returns when the worker's process began; if unknown, when the worker was asked for.
fn began(instance: &Instance) -> Timestamp {
    instance.began_at.unwrap_or(instance.started_at)
}

/// Returns the status of a worker at `now`.
pub(super) fn of(
    instance: &Instance,
    seen: Seen,
    memory: Memory,
    expected: Expected,
    channel: Channel,
    now: Timestamp,
) -> WorkerStatus {
    match (instance.phase, seen.heartbeat) {
        (Phase::Draining, _) => WorkerStatus::Draining,
        (Phase::Suspended, _) => WorkerStatus::Suspended,
        _ if seen.is_quiet => WorkerStatus::Draining,
        // It lives and takes no jobs, as all workers do for a moment after an outage of Redis.
        (_, Some(Heartbeat { state: WorkerState::Error, .. })) => match memory.heard_at {
            Some(_) => WorkerStatus::Unheard,
            None => not_ready(instance, seen, expected, channel, now),
        },
        (_, Some(heartbeat)) => said(heartbeat, seen),
        (_, None) if memory.said_leaving => WorkerStatus::Draining,
        (Phase::Blocked, None) => WorkerStatus::Blocked,
        (Phase::Ready, None) => by_jobs(seen),
        (Phase::Running, None) if !expected.heartbeats => by_jobs(seen),
        (Phase::Running | Phase::Failing, None) => match memory.heard_at {
            Some(_) if !seen.readable => WorkerStatus::PossiblyBusy,
            Some(_) => WorkerStatus::Unheard,
            None => not_ready(instance, seen, expected, channel, now),
        },
    }
}

/// Returns when time alone changes what is done about a worker: a starting one stalls, an unheard one is to be
/// replaced, or a draining one is asked again. `None` if it does not.
pub(super) fn change_at(
    status: WorkerStatus,
    instance: &Instance,
    seen: Seen,
    memory: Memory,
    expected: Expected,
    channel: Channel,
) -> Option<Timestamp> {
    match status {
        WorkerStatus::Unheard => channel.silent_for_at(memory.heard_at, expected.silence_limit(seen.holds_jobs)),
        WorkerStatus::Starting => stalls_at(instance, expected, channel),
        WorkerStatus::Draining => memory.asks_again_at(expected),
        _ => None,
    }
}

/// Returns the status that a heartbeat gives. A heartbeat lags behind the delivery of a job: in between it still says
/// idle.
fn said(heartbeat: Heartbeat, seen: Seen) -> WorkerStatus {
    match (heartbeat.state, heartbeat.sessions) {
        (WorkerState::Idle, 0) if seen.holds_jobs == Some(true) => WorkerStatus::Busy,
        (WorkerState::Idle, 0) => WorkerStatus::Idle,
        (WorkerState::Idle | WorkerState::Waiting | WorkerState::Busy | WorkerState::Error, _) => WorkerStatus::Busy,
        (WorkerState::Draining | WorkerState::Shutdown, _) => WorkerStatus::Draining,
    }
}

fn by_jobs(seen: Seen) -> WorkerStatus {
    match seen.holds_jobs {
        Some(true) => WorkerStatus::Busy,
        Some(false) => WorkerStatus::Idle,
        None => WorkerStatus::PossiblyBusy,
    }
}

/// Returns the status of a worker that was never heard as ready. It is starting until its grace is over, and until its
/// heartbeats could have been written for as long as that.
fn not_ready(instance: &Instance, seen: Seen, expected: Expected, channel: Channel, now: Timestamp) -> WorkerStatus {
    let over = stalls_at(instance, expected, channel).is_some_and(|at| at <= now);
    if over && (seen.readable || !expected.heartbeats) { WorkerStatus::Stalled } else { WorkerStatus::Starting }
}

fn stalls_at(instance: &Instance, expected: Expected, channel: Channel) -> Option<Timestamp> {
    let grace_ends = began(instance).after(expected.start_grace);
    if !expected.heartbeats {
        return Some(grace_ends);
    }
    channel.silent_for_at(None, expected.start_grace).map(|at| at.max(grace_ends))
}
