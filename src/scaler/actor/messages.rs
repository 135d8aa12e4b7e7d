//! The inputs and the effects of an actor.

use std::{sync::Arc, time::Duration};

use crate::{
    backend::{BackendError, ScaleReport, ScaleRequest},
    model::{
        Counters, Demand, QueueDemands, Source, Timestamp, Work, WorkerId, WorkerType,
        control::Control,
        snapshot::{Action, Change},
    },
    scaler::worker_tracker::PoolView,
    signal::Signals,
};

/// Inputs of the actor.
#[derive(Debug)]
pub enum Input {
    /// Signals arrived.
    Signals(Signals),
    /// The time that [`Actor::next_wake`](super::Actor::next_wake) returned has come.
    Tick,
    /// Result of [`Effect::Observe`] or [`Effect::ObserveInFull`].
    Observed(Box<Observed>),
    /// Result of [`Effect::Scale`].
    Scaled(Box<Scaled>),
    /// The requested change was not started, because this autoscaler no longer leads.
    NotScaled,
    /// This autoscaler leads now. Contains the last change that the previous leader made.
    Leads(Option<Change>),
    /// This autoscaler no longer leads.
    Follows,
}

/// One observation.
#[derive(Debug)]
pub struct Observed {
    /// Unfinished work.
    pub demand: Demand,
    /// The queues one by one; `None` if there is only one.
    pub queues: Option<Arc<QueueDemands>>,
    /// Counters that the queue keeps.
    pub counters: Counters,
    /// What waits, runs and is due, if it is a framework that tells.
    pub work: Option<Arc<Work>>,
    /// When to look again, whatever is heard.
    pub look_at: Option<Timestamp>,
    /// The workers, or why they are unknown.
    pub view: Result<PoolView, BackendError>,
    /// Whether some heartbeats in it are remembered, not read. Such an observation lets no worker go.
    pub is_partial: bool,
    /// Override in force for the worker type.
    pub control: Option<Arc<Control>>,
}

/// Result of a request to scale.
#[derive(Debug)]
pub struct Scaled {
    /// What the backend did, or why it failed.
    pub outcome: Result<ScaleReport, BackendError>,
    /// Time from the first signal to the backend's answer.
    pub elapsed: Duration,
    /// Fencing token of the term in which the request was made; `None` without an election.
    pub token: Option<u64>,
}

/// Outputs of the actor.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// Observe, and return the result as [`Input::Observed`].
    Observe,
    /// Observe once more for the same evaluation, and read all heartbeats: what the last observation leads to would let
    /// workers go. The result is an [`Input::Observed`] that is not partial.
    ObserveInFull,
    /// Send the request to the backend, and return the result as [`Input::Scaled`].
    Scale(ScaleRequest, Signals),
    /// Ask these workers to leave once more.
    AskAgain(Vec<WorkerId>),
    /// Write one record of a change that was carried out or failed.
    Record(Box<ScalingRecord>),
}

/// One entry of `scaling:events`.
#[derive(Clone, Debug, PartialEq)]
pub struct ScalingRecord {
    /// Worker type whose pool changed.
    pub worker_type: WorkerType,
    /// Direction of the change.
    pub action: Action,
    /// Workers before.
    pub from: u32,
    /// Workers that the decision asks for.
    pub to: u32,
    /// When the decision was made.
    pub at: Timestamp,
    /// Headline of the decision.
    pub reason: String,
    /// Signals that led to the decision.
    pub trigger: Vec<Source>,
    /// Jobs that were not delivered at the time of the decision.
    pub lag: Option<u64>,
    /// Jobs that were delivered and unfinished at the time of the decision.
    pub pending: Option<u64>,
    /// Why the change failed; `None` if it did not fail.
    pub error: Option<String>,
    /// Time from the first signal to the backend's answer; `None` for a change that somebody else made.
    pub reaction: Option<Duration>,
    /// Change to remember across a restart: what was done, also if it failed halfway; `None` if nothing was done.
    pub change: Option<Change>,
    /// Fencing token of the leader that made the change; `None` without an election.
    pub token: Option<u64>,
}

/// What follows from the decisions of an actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// The actor carries its decisions out while it leads.
    Scale,
    /// The actor shows what it would do (`dry_run`).
    Show,
    /// The actor recommends a number to whoever scales the worker type.
    Recommend,
}
