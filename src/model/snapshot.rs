//! What the scaler shows of itself: `/status`, `swarm status`, `swarm demo` and the gauges all read these, nothing
//! else.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Demand, PoolCounts, QueueDemands, Reading, Source, Timestamp, WorkerId, WorkerState, WorkerType, control::Control,
};

/// What a decision does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// When.
    pub at: Timestamp,
    /// Workers before.
    pub from: u32,
    /// Workers after.
    pub to: u32,
}

/// How long a reaction took, from the first signal that led to it. Milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Reaction {
    /// Until the decision was made.
    pub decided_ms: f64,
    /// Until the backend had been asked and had answered.
    pub requested_ms: Option<f64>,
    /// Until the first of the new workers was ready.
    pub running_ms: Option<f64>,
}

/// How an autoscaler classifies a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WorkerStatus {
    /// Asked for, and held up by the platform: it says why.
    Blocked,
    /// Asked for, not ready yet.
    #[default]
    Starting,
    /// Not ready when its start grace ended: it is replaced.
    Stalled,
    /// Ready, holds no work.
    Idle,
    /// Ready, holds a job or an open session.
    Busy,
    /// Was ready, and nothing can be read of it now: it may hold a job.
    PossiblyBusy,
    /// Was ready, and its heartbeat has lapsed: it may hold a job. Replaced only when its silence counts.
    Unheard,
    /// Finishes its work and leaves.
    Draining,
    /// Suspended by somebody; left alone.
    Suspended,
}

impl WorkerStatus {
    /// The name in metric labels and for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Starting => "starting",
            Self::Stalled => "stalled",
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::PossiblyBusy => "possibly_busy",
            Self::Unheard => "unheard",
            Self::Draining => "draining",
            Self::Suspended => "suspended",
        }
    }
}

/// One worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkerSnapshot {
    /// Its name.
    pub id: WorkerId,
    /// What it says of itself; `None` without a heartbeat.
    pub state: Option<WorkerState>,
    /// How the autoscaler classifies it.
    #[serde(default)]
    pub status: WorkerStatus,
    /// Whether it holds a job or session.
    pub busy: bool,
    /// Whether it was asked to leave.
    pub draining: bool,
    /// Why it is blocked or failing, in the platform's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it was asked for.
    pub started_at: Timestamp,
}

/// How often one kind of decision was made since the scaler started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DecisionCount {
    /// What it did.
    pub action: Action,
    /// The rule that had the last word, from the policy's closed set.
    pub reason: Cow<'static, str>,
    /// How often.
    pub count: u64,
}

/// Workers that ended before they were ready, or soon after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StartFailures {
    /// Failures in a row.
    pub count: u32,
    /// When the last one happened.
    pub last_at: Timestamp,
    /// What the platform said of the last one.
    pub message: String,
}

/// One worker type as of its last evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TypeSnapshot {
    /// Its name.
    pub worker_type: WorkerType,
    /// The key of its own queue.
    pub queue: String,
    /// Lower bound in force: `min_workers`, or what the schedule makes of it.
    pub min_workers: u32,
    /// Upper bound.
    pub max_workers: u32,
    /// When it was last evaluated; `None` before the first time.
    pub evaluated_at: Option<Timestamp>,
    /// Unfinished work, in all its queues together.
    pub demand: Demand,
    /// Its queues one by one, if it has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<Arc<QueueDemands>>,
    /// The pool.
    pub pool: Reading<PoolCounts>,
    /// The target in force.
    pub desired: u32,
    /// What the last evaluation did.
    pub action: Action,
    /// Why, in words; the first one is the headline.
    pub reasons: Vec<String>,
    /// The rule that had the last word, from the policy's closed set; empty before the first decision.
    #[serde(default)]
    pub rule: Cow<'static, str>,
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
    /// Decisions so far, by what they did and why.
    #[serde(default)]
    pub decisions: Vec<DecisionCount>,
    /// Why the backend could not be asked, if it could not.
    pub backend_error: Option<String>,
    /// How the newest workers failed to start, while they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_failures: Option<StartFailures>,
    /// Somebody's word about it, if it is paused, observed or pinned.
    #[serde(default)]
    pub control: Option<Arc<Control>>,
    /// The workers, draining ones included.
    pub workers: Vec<WorkerSnapshot>,
}

impl TypeSnapshot {
    /// Whether somebody may be waiting: there is unfinished work, or that can't be told.
    pub fn is_unfinished(&self) -> bool {
        self.backend_error.is_some() || self.demand.depth().known().is_none_or(|depth| *depth > 0)
    }

    /// Returns whether something of it can't be read, or its workers fail to start.
    pub fn is_troubled(&self) -> bool {
        self.backend_error.is_some()
            || self.start_failures.is_some()
            || self.demand.lag.why_not().is_some()
            || self.pool.why_not().is_some()
    }

    /// Counts a decision.
    pub fn count_decision(&mut self, action: Action, reason: &'static str) {
        self.evaluations += 1;
        self.rule = Cow::Borrowed(reason);
        if let Some(seen) = self.decisions.iter_mut().find(|seen| seen.action == action && seen.reason == reason) {
            seen.count += 1;
            return;
        }
        // Few ever come: room for just one more, as there may be ten thousand of these.
        self.decisions.reserve_exact(1);
        self.decisions.push(DecisionCount { action, reason: Cow::Borrowed(reason), count: 1 });
    }
}

/// How a signal source does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SourceSnapshot {
    /// Which.
    pub source: Source,
    /// How it does.
    pub state: SourceState,
    /// In words: why it is off or down, or how it was set up.
    pub detail: String,
}

/// What an autoscaler is among all that watch the same queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Decides and acts.
    Leader,
    /// Decides, and is ready to act when the leader is gone.
    #[default]
    Standby,
    /// Decides and says so, and never acts (`dry_run`).
    Observer,
}

impl Role {
    /// The name in `/readyz` and for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Standby => "standby",
            Self::Observer => "observer",
        }
    }
}

/// Who leads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeadershipSnapshot {
    /// What this autoscaler is.
    pub role: Role,
    /// The instance that leads; `None` if none is known to.
    pub leader: Option<String>,
    /// The fencing token of its term; `None` without an election.
    pub token: Option<u64>,
    /// Since when this autoscaler leads.
    pub since: Option<Timestamp>,
    /// Why it can't be told who leads.
    pub problem: Option<String>,
}

/// The whole autoscaler.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// Who leads.
    #[serde(default)]
    pub leadership: LeadershipSnapshot,
    /// `None` while Redis answers; else why it does not.
    pub redis_error: Option<String>,
    /// Why Redis refuses writes (full, a failed save, too few replicas); `None` while it accepts them, or nobody has tried.
    #[serde(default)]
    pub redis_refuses_writes: Option<String>,
    /// The signal sources.
    pub sources: Vec<SourceSnapshot>,
    /// The worker types, by name.
    pub worker_types: Vec<Arc<TypeSnapshot>>,
    /// Jobs that are not due yet.
    #[serde(default)]
    pub delayed: DelayedCounts,
    /// How loading the configuration again went the last time; `None` before the first time.
    #[serde(default)]
    pub reload: Option<ReloadSnapshot>,
}

/// What became of a configuration that was loaded while running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReloadOutcome {
    /// It holds.
    Applied,
    /// It says what held already.
    Unchanged,
    /// It can't be used; the one before goes on.
    Refused,
}

impl ReloadOutcome {
    /// The name in metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
        }
    }
}

/// How loading the configuration again went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReloadSnapshot {
    /// When.
    pub at: Timestamp,
    /// What became of it.
    pub outcome: ReloadOutcome,
    /// What was taken over, in words.
    pub changes: String,
    /// Why it was refused: everything that is wrong with it.
    pub errors: Vec<String>,
    /// Settings that differ from those in force, and hold only after a restart.
    pub need_restart: Vec<String>,
}

/// How many jobs of each queue are not due yet; queues without any are left out.
pub type DelayedCounts = Arc<BTreeMap<String, u64>>;

/// Gives out snapshots. The scaler implements it; readers hold it as `Arc<dyn StatusSource>`.
pub trait StatusSource: Send + Sync + 'static {
    /// The autoscaler now.
    fn fleet(&self) -> FleetSnapshot;

    /// What is not ready, in words: one entry for each thing; empty when ready.
    fn not_ready(&self) -> Vec<String>;
}
