//! Reads the heartbeats of workers.

use redis::{Cmd, Value};

use crate::{
    model::{Reading, WorkerState, keys},
    queue_kind::reply::{number, refusal, text},
};

/// The part of a worker's heartbeat that scaling needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// State of the worker.
    pub state: WorkerState,
    /// Open sessions.
    pub sessions: u64,
    /// Places for sessions, if the worker limits its sessions.
    pub places: Option<Places>,
}

/// Room of a worker that limits its sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// Maximum sessions.
    pub all: u64,
    /// Jobs that may start besides those in progress; `None` if the worker does not report it.
    pub free_slots: Option<u64>,
    /// Jobs that the worker holds and has no place for.
    pub waiting: u64,
}

/// Heartbeats of workers, in the order in which they were asked for; `None` for a worker without one. Each can fail by
/// itself: on a cluster they are on several primaries.
pub type Heartbeats = Reading<Vec<Reading<Option<Heartbeat>>>>;

/// Returns the command that reads a heartbeat.
pub(super) fn command(key: &str) -> Cmd {
    let mut command = redis::cmd("HMGET");
    command.arg(key).arg(keys::STATE_FIELD).arg(keys::SESSIONS_FIELD).arg(keys::PLACES_FIELD);
    command.arg(keys::FREE_SLOTS_FIELD).arg(keys::WAITING_FIELD);
    command
}

/// Returns the heartbeat of a reply; `None` if there is none.
pub(super) fn parse(value: Value) -> Reading<Option<Heartbeat>> {
    if let Some(error) = refusal(&value) {
        return Reading::Failed(error);
    }
    let Value::Array(fields) = value else { return Reading::Known(None) };
    let Some(state) = fields.first().and_then(text).and_then(WorkerState::parse) else { return Reading::Known(None) };
    let number = |at: usize| fields.get(at).and_then(number);
    let places = number(2).map(|all| Places { all, free_slots: number(3), waiting: number(4).unwrap_or(0) });
    Reading::Known(Some(Heartbeat { state, sessions: number(1).unwrap_or(0), places }))
}
