//! The state that the autoscaler shows of itself. `/status`, `swarm status`, `swarm demo` and the gauges read these
//! types and nothing else.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Allowance, Demand, PoolCounts, QueueDemands, Reading, Source, Timestamp, Work, WorkerId, WorkerState, WorkerType,
    control::Control,
};

/// What a decision changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Leaves the number of workers as it is.
    Hold,
    /// Adds workers.
    ScaleUp,
    /// Removes workers.
    ScaleDown,
}

impl Action {
    /// Returns the name in metric labels and `scaling:events`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::ScaleUp => "scale_up",
            Self::ScaleDown => "scale_down",
        }
    }
}

/// A change of the target that the backend carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// When the change was made.
    pub at: Timestamp,
    /// Workers before.
    pub from: u32,
    /// Workers after.
    pub to: u32,
}

/// Times of one reaction, in milliseconds since the first signal that led to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Reaction {
    /// Until the decision was made.
    pub decided_ms: f64,
    /// Until the backend had answered the request; `None` before that.
    pub requested_ms: Option<f64>,
    /// Until the first of the new workers was ready; `None` before that.
    pub running_ms: Option<f64>,
}

/// How an autoscaler classifies a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WorkerStatus {
    /// Asked for, and held up by the platform, which says why.
    Blocked,
    /// Asked for, not ready yet.
    #[default]
    Starting,
    /// Not ready when its start grace ended; the autoscaler replaces it.
    Stalled,
    /// Ready, holds no work.
    Idle,
    /// Ready, holds a job or an open session.
    Busy,
    /// Was ready, and its state can't be read now: it may hold a job.
    PossiblyBusy,
    /// Was ready, and its heartbeat has lapsed: it may hold a job. The autoscaler replaces it only while heartbeats
    /// could be written.
    Unheard,
    /// Finishes its work and leaves.
    Draining,
    /// Suspended by somebody; the autoscaler leaves it alone.
    Suspended,
}

impl WorkerStatus {
    /// Returns the name in metric labels and for people.
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

/// One worker of a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkerSnapshot {
    /// Id of the worker.
    pub id: WorkerId,
    /// State in the worker's heartbeat; `None` without a heartbeat.
    pub state: Option<WorkerState>,
    /// How the autoscaler classifies it.
    #[serde(default)]
    pub status: WorkerStatus,
    /// Whether the worker holds a job or a session.
    pub busy: bool,
    /// Whether the worker was asked to leave.
    pub draining: bool,
    /// Why the worker is blocked or fails, in the platform's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When the worker was asked for.
    pub started_at: Timestamp,
}

/// How often the autoscaler has made one kind of decision since it started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DecisionCount {
    /// What the decisions changed.
    pub action: Action,
    /// Rule that decided last, from the policy's closed set.
    pub reason: Cow<'static, str>,
    /// Number of such decisions.
    pub count: u64,
}

/// Workers that ended before they were ready, or soon after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StartFailures {
    /// Consecutive failures.
    pub count: u32,
    /// When the last failure happened.
    pub last_at: Timestamp,
    /// What the platform said about the last failure.
    pub message: String,
}

/// State of one worker type as of its last evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TypeSnapshot {
    /// Name of the worker type.
    pub worker_type: WorkerType,
    /// Key of the worker type's own queue.
    pub queue: String,
    /// Lower bound in force: `min_workers`, or the value that the schedule puts in its place.
    pub min_workers: u32,
    /// Upper bound in force: `max_workers`, or the value that the schedule puts in its place.
    pub max_workers: u32,
    /// When the worker type was last evaluated; `None` before the first evaluation.
    pub evaluated_at: Option<Timestamp>,
    /// Unfinished work in all queues of the worker type together.
    pub demand: Demand,
    /// Its queues one by one; `None` if it has one queue only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<Arc<QueueDemands>>,
    /// What waits, runs and is due in the queues of a framework.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<Arc<Work>>,
    /// Workers of the pool, counted by status.
    pub pool: Reading<PoolCounts>,
    /// Target in force, in workers.
    pub desired: u32,
    /// Workers that swarm recommends to KEDA, which scales this type; `None` if swarm scales it, or while the number is
    /// not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recommended: Option<u32>,
    /// What the budget leaves to the pool; `None` while the budget does not hold the pool back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowance: Option<Allowance>,
    /// What the last decision changed.
    pub action: Action,
    /// Reasons of the last decision, in words; the first one is the headline.
    pub reasons: Vec<String>,
    /// Rule that decided last, from the policy's closed set; empty before the first decision.
    #[serde(default)]
    pub rule: Cow<'static, str>,
    /// When a rule asks for the next evaluation.
    pub recheck_at: Option<Timestamp>,
    /// Last change that the backend carried out.
    pub last_change: Option<Change>,
    /// Signals that led to the last evaluation.
    pub sources: Vec<Source>,
    /// Last reaction that changed the number of workers.
    pub reaction: Option<Reaction>,
    /// Number of evaluations since the autoscaler started.
    pub evaluations: u64,
    /// Number of decisions since the autoscaler started, by action and rule.
    #[serde(default)]
    pub decisions: Vec<DecisionCount>,
    /// Time that workers existed, in seconds, summed over the workers, while this autoscaler led. As of the last
    /// evaluation.
    #[serde(default)]
    pub worker_seconds: f64,
    /// Why the backend could not be asked; `None` if it answered.
    pub backend_error: Option<String>,
    /// How the newest workers fail to start; `None` once one of them has started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_failures: Option<StartFailures>,
    /// Override in force, if the worker type is paused, observed or pinned.
    #[serde(default)]
    pub control: Option<Arc<Control>>,
    /// The workers of the pool, including draining ones.
    pub workers: Vec<WorkerSnapshot>,
}

impl TypeSnapshot {
    /// A pool of 0 to 10 workers that has none, and no job, for tests.
    #[cfg(test)]
    pub(crate) fn at_rest(name: &str) -> Self {
        Self {
            worker_type: WorkerType::new(name),
            queue: format!("{name}:jobs"),
            min_workers: 0,
            max_workers: 10,
            evaluated_at: Some(Timestamp(1)),
            demand: Demand { lag: Reading::Known(0), pending: Reading::Known(0), oldest: Reading::Known(None) },
            queues: None,
            work: None,
            pool: Reading::Known(PoolCounts::default()),
            desired: 0,
            recommended: None,
            allowance: None,
            action: Action::Hold,
            reasons: Vec::new(),
            rule: Cow::default(),
            recheck_at: None,
            last_change: None,
            sources: Vec::new(),
            reaction: None,
            evaluations: 1,
            decisions: Vec::new(),
            backend_error: None,
            worker_seconds: 0.0,
            start_failures: None,
            control: None,
            workers: Vec::new(),
        }
    }

    /// Returns whether somebody may be waiting for a job: there is unfinished work, or the amount is unknown.
    pub fn is_unfinished(&self) -> bool {
        self.backend_error.is_some() || self.demand.depth().known().is_none_or(|depth| *depth > 0)
    }

    /// Returns whether the queue or the pool can't be read, or workers fail to start.
    pub fn is_troubled(&self) -> bool {
        self.backend_error.is_some()
            || self.start_failures.is_some()
            || self.demand.lag.why_not().is_some()
            || self.pool.why_not().is_some()
    }

    /// Adds the time that the workers of the last evaluation have existed since. A blocked worker does not exist yet.
    pub fn count_worker_time(&mut self, since: Duration) {
        let existing = self.workers.iter().filter(|worker| worker.status != WorkerStatus::Blocked).count();
        let existing = u32::try_from(existing).unwrap_or(u32::MAX);
        self.worker_seconds += since.as_secs_f64() * f64::from(existing);
    }

    /// Counts a decision and records its rule.
    pub fn count_decision(&mut self, action: Action, reason: &'static str) {
        self.evaluations += 1;
        self.rule = Cow::Borrowed(reason);
        if let Some(seen) = self.decisions.iter_mut().find(|seen| seen.action == action && seen.reason == reason) {
            seen.count += 1;
            return;
        }
        // Few kinds of decision occur. Reserve room for one, because there may be ten thousand of these vectors.
        self.decisions.reserve_exact(1);
        self.decisions.push(DecisionCount { action, reason: Cow::Borrowed(reason), count: 1 });
    }
}

/// Health of a signal source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SourceState {
    /// Turned off, or not needed.
    Off,
    /// Not yet connected.
    Connecting,
    /// Connected and delivering signals.
    Up,
    /// Fails.
    Down,
}

/// State of one signal source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SourceSnapshot {
    /// Signal source that the state belongs to.
    pub source: Source,
    /// Health of the source.
    pub state: SourceState,
    /// Details in words: why the source is off or down, or how it was set up.
    pub detail: String,
}

/// State of a Redis server that worker types have of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QueueServerSnapshot {
    /// Host, port and database, or the sentinels or nodes that lead to it.
    pub server: String,
    /// Worker types whose queues it has.
    pub worker_types: Vec<WorkerType>,
    /// Why the server does not answer; `None` while it answers.
    pub redis_error: Option<String>,
    /// States of the signal sources there.
    pub sources: Vec<SourceSnapshot>,
}

impl QueueServerSnapshot {
    /// Returns the names of its worker types for people.
    pub fn type_names(&self) -> String {
        const NAMED: usize = 5;
        let named: Vec<&str> = self.worker_types.iter().take(NAMED).map(WorkerType::as_str).collect();
        let more = self.worker_types.len().saturating_sub(NAMED);
        if more > 0 { format!("{} and {more} more", named.join(", ")) } else { named.join(", ") }
    }
}

/// Role of an autoscaler among all that watch the same queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Decides and acts.
    Leader,
    /// Decides, and takes over when the leader is gone.
    #[default]
    Standby,
    /// Decides and publishes its decisions, and never acts (`dry_run`).
    Observer,
}

impl Role {
    /// Returns the name in `/readyz` and for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Standby => "standby",
            Self::Observer => "observer",
        }
    }
}

/// Which autoscaler leads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeadershipSnapshot {
    /// Role of this autoscaler.
    pub role: Role,
    /// Instance that leads; `None` if no leader is known.
    pub leader: Option<String>,
    /// Fencing token of the leader's term; `None` without an election.
    pub token: Option<u64>,
    /// When this autoscaler began to lead; `None` while it does not lead.
    pub since: Option<Timestamp>,
    /// Why the leader is unknown; `None` if the election works.
    pub problem: Option<String>,
}

/// State of the whole autoscaler.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FleetSnapshot {
    /// Version of `swarm`.
    pub version: String,
    /// Name of this instance.
    pub instance: String,
    /// Backend that runs the workers (the setting `orchestrator`).
    pub orchestrator: String,
    /// When this instance started.
    pub started_at: Timestamp,
    /// Whether this instance only decides and never acts.
    pub dry_run: bool,
    /// Which autoscaler leads.
    #[serde(default)]
    pub leadership: LeadershipSnapshot,
    /// Why the top-level Redis server does not answer; `None` while it answers.
    pub redis_error: Option<String>,
    /// Why Redis refuses writes (out of memory, a failed save, too few replicas); `None` while it accepts them, or
    /// before the first write.
    #[serde(default)]
    pub redis_refuses_writes: Option<String>,
    /// States of the signal sources on the top-level Redis server.
    pub sources: Vec<SourceSnapshot>,
    /// States of the Redis servers that worker types have of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queue_servers: Vec<QueueServerSnapshot>,
    /// States of the worker types, sorted by name.
    pub worker_types: Vec<Arc<TypeSnapshot>>,
    /// Budget of all worker types together (`max_total_workers`); `None` if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_total_workers: Option<u32>,
    /// Delayed jobs, by queue.
    #[serde(default)]
    pub delayed: DelayedCounts,
    /// Dead letters, by worker type.
    #[serde(default)]
    pub dead_letters: DeadLetterCounts,
    /// Result of the last reload; `None` before the first reload.
    #[serde(default)]
    pub reload: Option<ReloadSnapshot>,
}

impl FleetSnapshot {
    /// Returns the worker type of this name; `None` if there is none.
    pub fn worker_type(&self, name: &str) -> Option<&Arc<TypeSnapshot>> {
        self.worker_types.iter().find(|of| of.worker_type.as_str() == name)
    }
}

/// Result of a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReloadOutcome {
    /// The new configuration is in force.
    Applied,
    /// The new configuration equals the one in force.
    Unchanged,
    /// The new configuration is invalid; the previous one stays in force.
    Refused,
}

impl ReloadOutcome {
    /// Returns the name in metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
        }
    }
}

/// The last reload of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReloadSnapshot {
    /// When the configuration was reloaded.
    pub at: Timestamp,
    /// Result of the reload.
    pub outcome: ReloadOutcome,
    /// Changes that took effect, in words.
    pub changes: String,
    /// All errors for which the configuration was refused.
    pub errors: Vec<String>,
    /// Settings that differ from those in force and take effect only after a restart.
    pub need_restart: Vec<String>,
}

/// Number of delayed jobs of each queue. Queues without delayed jobs are left out.
pub type DelayedCounts = Arc<BTreeMap<String, u64>>;

/// Number of dead letters in all queues of each worker type. Worker types of which that is unknown, and those whose
/// jobs are a framework's, are left out.
pub type DeadLetterCounts = Arc<BTreeMap<String, u64>>;

/// Serves snapshots. The scaler implements this trait; readers hold it as `Arc<dyn StatusSource>`.
pub trait StatusSource: Send + Sync + 'static {
    /// Returns the current state of the autoscaler.
    fn fleet(&self) -> FleetSnapshot;

    /// Returns everything that is not ready, one entry in words for each; empty when the autoscaler is ready.
    fn not_ready(&self) -> Vec<String>;
}
