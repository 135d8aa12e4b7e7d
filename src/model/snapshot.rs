//! What the scaler shows of itself: `/status`, `swarm status`, `swarm demo` and the gauges all read these, nothing else.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Demand, PoolCounts, Reading, Source, Timestamp, WorkerId, WorkerState, WorkerType};

/// What a decision does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Nothing.
    Hold,
    /// More workers.
    ScaleUp,
    /// Fewer workers.
    ScaleDown,
}

impl Action {
    /// The name in metric labels and `scaling:events`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::ScaleUp => "scale_up",
            Self::ScaleDown => "scale_down",
        }
    }
}

/// A change of the target that was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// When.
    pub at: Timestamp,
    /// Workers before.
    pub from: u32,
    /// Workers after.
    pub to: u32,
}

/// How long a reaction took, from the first signal that led to it. Milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reaction {
    /// Until the decision was made.
    pub decided_ms: f64,
    /// Until the backend had been asked and had answered.
    pub requested_ms: Option<f64>,
    /// Until the first of the new workers was ready.
    pub running_ms: Option<f64>,
}

/// One worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerSnapshot {
    /// Its name.
    pub id: WorkerId,
    /// What it says of itself; `None` without a heartbeat.
    pub state: Option<WorkerState>,
    /// Whether it holds a job or session.
    pub busy: bool,
    /// Whether it was asked to leave.
    pub draining: bool,
    /// When it was asked for.
    pub started_at: Timestamp,
}

/// One worker type as of its last evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TypeSnapshot {
    /// Its name.
    pub worker_type: WorkerType,
    /// The key of its queue.
    pub queue: String,
    /// Lower bound.
    pub min_workers: u32,
    /// Upper bound.
    pub max_workers: u32,
    /// When it was last evaluated; `None` before the first time.
    pub evaluated_at: Option<Timestamp>,
    /// Unfinished work.
    pub demand: Demand,
    /// The pool.
    pub pool: Reading<PoolCounts>,
    /// The target in force.
    pub desired: u32,
    /// What the last evaluation did.
    pub action: Action,
    /// Why, in words; the first one is the headline.
    pub reasons: Vec<String>,
    /// When a rule asked to look again.
    pub recheck_at: Option<Timestamp>,
    /// The last change that was carried out.
    pub last_change: Option<Change>,
    /// What led to the last evaluation.
    pub sources: Vec<Source>,
    /// The last reaction that changed something.
    pub reaction: Option<Reaction>,
    /// Evaluations so far.
    pub evaluations: u64,
    /// Why the backend could not be asked, if it could not.
    pub backend_error: Option<String>,
    /// The workers, draining ones included.
    pub workers: Vec<WorkerSnapshot>,
}

/// How a signal source does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceState {
    /// Turned off, or not needed.
    Off,
    /// Not yet connected.
    Connecting,
    /// Works.
    Up,
    /// Does not work.
    Down,
}

/// One signal source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceSnapshot {
    /// Which.
    pub source: Source,
    /// How it does.
    pub state: SourceState,
    /// In words: why it is off or down, or how it was set up.
    pub detail: String,
}

/// The whole autoscaler.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FleetSnapshot {
    /// Version of `swarm`.
    pub version: String,
    /// Name of this instance.
    pub instance: String,
    /// Who runs the workers.
    pub orchestrator: String,
    /// When this instance started.
    pub started_at: Timestamp,
    /// Whether it only decides and never acts.
    pub dry_run: bool,
    /// `None` while Redis answers; else why it does not.
    pub redis_error: Option<String>,
    /// The signal sources.
    pub sources: Vec<SourceSnapshot>,
    /// The worker types, by name.
    pub worker_types: Vec<Arc<TypeSnapshot>>,
}

/// Gives out snapshots. The scaler implements it; readers hold it as `Arc<dyn StatusSource>`.
pub trait StatusSource: Send + Sync + 'static {
    /// The autoscaler now.
    fn fleet(&self) -> FleetSnapshot;

    /// What is not ready, in words: one entry for each thing; empty when ready.
    fn not_ready(&self) -> Vec<String>;
}
