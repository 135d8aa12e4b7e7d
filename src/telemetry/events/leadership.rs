//! Who leads.
#![expect(clippy::disallowed_macros, reason = "`telemetry` is where metrics are emitted")]

use metrics::{counter, gauge};
use tracing::{info, warn};

use crate::{
    model::{WorkerType, snapshot::Role},
    telemetry::metric,
};

/// This autoscaler leads, or no longer does, or somebody else does. To be emitted on a change only.
#[derive(Clone, Copy, Debug)]
pub struct LeadershipChanged<'a> {
    /// What this autoscaler is now.
    pub role: Role,
    /// The instance that leads; `None` if none is known to.
    pub leader: Option<&'a str>,
    /// The fencing token of its term.
    pub token: Option<u64>,
    /// Why it can't be told who leads.
    pub problem: Option<&'a str>,
}

impl LeadershipChanged<'_> {
    /// Logs it and sets `swarm_leader`.
    pub fn emit(self) {
        let Self { role, leader, token, problem } = self;
        gauge!(metric::LEADER).set(if role == Role::Leader { 1.0 } else { 0.0 });
        let name = role.as_str();
        match (role, leader, problem) {
            (Role::Leader, ..) => info!(role = name, token, "this autoscaler leads"),
            (_, _, Some(problem)) => warn!(role = name, "this autoscaler does not act: {problem}"),
            (_, Some(leader), None) => info!(role = name, token, leader, "{leader} leads, this autoscaler stands by"),
            (_, None, None) => info!(role = name, "nobody is known to lead"),
        }
    }
}

/// A change was recorded after a later leader had begun its term.
#[derive(Clone, Copy, Debug)]
pub struct LateRecord<'a> {
    /// Whose.
    pub worker_type: &'a WorkerType,
    /// The fencing token of the term in which it was made.
    pub token: Option<u64>,
}

impl LateRecord<'_> {
    /// Counts it and logs it.
    pub fn emit(self) {
        let Self { worker_type, token } = self;
        counter!(metric::FENCED_RECORDS).increment(1);
        warn!(%worker_type, token, "a change was recorded after another autoscaler had begun to lead; it is marked `fenced`");
    }
}
