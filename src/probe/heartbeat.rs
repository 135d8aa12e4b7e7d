//! Reads the heartbeats of workers.

use redis::{Cmd, Value};

use crate::{
    model::WorkerState,
    queue_kind::reply::{number, refusal, text},
};

/// The part of a worker's heartbeat that scaling needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// State of the worker.
    pub state: WorkerState,
    /// Open sessions.
    pub sessions: u64,
}

/// Returns the command that reads a heartbeat.
pub(super) fn command(key: &str) -> Cmd {
    redis::cmd("HMGET").arg(key).arg("state").arg("sessions").to_owned()
}

/// Returns the heartbeat of a reply; `None` if there is none.
pub(super) fn parse(value: Value) -> Result<Option<Heartbeat>, String> {
    if let Some(error) = refusal(&value) {
        return Err(error);
    }
    let Value::Array(fields) = value else { return Ok(None) };
    let Some(state) = fields.first().and_then(text).and_then(WorkerState::parse) else { return Ok(None) };
    Ok(Some(Heartbeat { state, sessions: fields.get(1).and_then(number).unwrap_or(0) }))
}
