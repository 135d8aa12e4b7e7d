//! Events of leadership.
#![expect(clippy::disallowed_macros, reason = "`telemetry` is where metrics are emitted")]

use metrics::{counter, gauge};
use tracing::{info, warn};

use crate::{
    model::{WorkerType, snapshot::Role},
    telemetry::metric,
};

/// This autoscaler began or ceased to lead, or another leader is known. Emitted on a change only.
#[derive(Clone, Copy, Debug)]
pub struct LeadershipChanged<'a> {
    /// Role of this autoscaler now.
    pub role: Role,
    /// Instance that leads; `None` if no leader is known.
    pub leader: Option<&'a str>,
    /// Fencing token of the leader's term.
    pub token: Option<u64>,
    /// Why the leader is unknown.
    pub problem: Option<&'a str>,
}

impl LeadershipChanged<'_> {
    /// Logs the change and sets `swarm_leader`.
    pub fn emit(self) {
        let Self { role, leader, token, problem } = self;
        gauge!(metric::LEADER).set(if role == Role::Leader { 1.0 } else { 0.0 });
        let name = role.as_str();
        match (role, leader, problem) {
            (Role::Leader, ..) => info!(role = name, token, "this autoscaler leads"),
            (_, _, Some(problem)) => warn!(role = name, "this autoscaler does not act: {problem}"),
            (_, Some(leader), None) => info!(role = name, token, leader, "{leader} leads, this autoscaler stands by"),
            (_, None, None) => info!(role = name, "no leader is known"),
        }
    }
}

/// A change was recorded after a later leader had begun its term.
#[derive(Clone, Copy, Debug)]
pub struct LateRecord<'a> {
    /// Worker type whose pool changed.
    pub worker_type: &'a WorkerType,
    /// Fencing token of the term in which the change was made.
    pub token: Option<u64>,
}

impl LateRecord<'_> {
    /// Counts and logs the late record.
    pub fn emit(self) {
        let Self { worker_type, token } = self;
        counter!(metric::FENCED_RECORDS).increment(1);
        warn!(%worker_type, token, "a change was recorded after another autoscaler had begun to lead; it is marked `fenced`");
    }
}
