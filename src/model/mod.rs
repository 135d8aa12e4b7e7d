//! The vocabulary every other module shares: names, counts, times, what was observed, and the Redis keys
//! that other programs rely on. Holds no logic beyond small derivations and does no I/O.

pub mod control;
pub mod explanation;
mod feature;
pub mod history;
mod layout;
mod queues;
pub mod snapshot;

use std::{fmt, sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    feature::MissingFeature,
    layout::Layout,
    queues::{Combine, LongestQueue, QueueDemand, QueueDemands, QueuePattern, Queues},
};

/// Name of a worker type, for example `browser`. Lower-case letters, digits, `-`, `_` and `.`; 1 to 63 characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct WorkerType(Arc<str>);

/// Name of one worker, unique within its type. Also its consumer name in the consumer group.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct WorkerId(Arc<str>);

macro_rules! name {
    ($name:ident) => {
        impl $name {
            /// Wraps a name that has been validated where it came in.
            pub fn new(name: impl Into<Arc<str>>) -> Self {
                Self(name.into())
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}
name!(WorkerType);
name!(WorkerId);

impl WorkerId {
    /// Makes an id: the type and the random end of a UUID, 48 bits, so that two workers of a type hardly ever share one.
    pub fn random(worker_type: &WorkerType) -> Self {
        let uuid = uuid::Uuid::now_v7().simple().to_string();
        Self::new(format!("{worker_type}-{}", &uuid[uuid.len() - 12..]))
    }
}

impl WorkerType {
    /// Whether `name` may name a worker type.
    pub fn is_valid(name: &str) -> bool {
        (1..=63).contains(&name.len())
            && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c))
    }
}

/// Milliseconds since the Unix epoch.
///
/// Inside one process it never runs backwards: [`Clock`] derives it from a monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The wall clock now. Code with a [`Clock`] at hand uses that instead.
    pub fn wall() -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// Time from `earlier` to `self`; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// `self + by`, saturating.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// Wall-clock timestamps that advance with the monotonic clock, so a clock jump shortens no cooldown.
/// Under a paused tokio clock it stands still with it.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    base: Timestamp,
    at: tokio::time::Instant,
}

impl Clock {
    /// A clock that reads the wall clock once, now.
    pub fn start() -> Self {
        Self { base: Timestamp::wall(), at: tokio::time::Instant::now() }
    }

    /// The timestamp now.
    pub fn now(&self) -> Timestamp {
        self.base.after(self.at.elapsed())
    }

    /// The monotonic instant at which `at` is reached.
    pub fn instant_of(&self, at: Timestamp) -> tokio::time::Instant {
        self.at + at.since(self.base)
    }
}

/// Something observed: a value, or why there is none. Neither of the latter is ever treated as zero.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "Reading_of_{T}")]
pub enum Reading<T> {
    /// Read.
    Known(T),
    /// The source answered, and the answer does not tell (say, a list has no pending entries to show).
    Unknown(String),
    /// The source did not answer or refused.
    Failed(String),
}

impl<T> Reading<T> {
    /// The value, if it is known.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            _ => None,
        }
    }

    /// Why there is no value.
    pub fn why_not(&self) -> Option<&str> {
        match self {
            Self::Known(_) => None,
            Self::Unknown(why) | Self::Failed(why) => Some(why),
        }
    }

    /// Applies `f` to a known value.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Reading<U> {
        match self {
            Self::Known(value) => Reading::Known(f(value)),
            Self::Unknown(why) => Reading::Unknown(why),
            Self::Failed(why) => Reading::Failed(why),
        }
    }
}

/// Unfinished work in one queue, or in all queues of a worker type, as the probe saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Demand {
    /// Jobs not yet delivered to any worker.
    pub lag: Reading<u64>,
    /// Jobs delivered and not yet acknowledged.
    pub pending: Reading<u64>,
    /// When the oldest unfinished job was published; `None` if there is no unfinished job.
    pub oldest: Reading<Option<Timestamp>>,
}

impl Demand {
    /// `lag + pending`: all unfinished jobs. Not known unless both are.
    pub fn depth(&self) -> Reading<u64> {
        match (&self.lag, &self.pending) {
            (Reading::Known(lag), Reading::Known(pending)) => Reading::Known(lag.saturating_add(*pending)),
            (Reading::Known(_), other) | (other, _) => other.clone(),
        }
    }

    /// Unfinished jobs known of: `depth` if that is known, else at least so many; `None` if nothing is known.
    pub fn at_least(&self) -> Option<u64> {
        match (self.lag.known(), self.pending.known()) {
            (None, None) => None,
            (lag, pending) => Some(lag.unwrap_or(&0).saturating_add(*pending.unwrap_or(&0))),
        }
    }

    /// A demand of which nothing could be read, for the same reason.
    pub fn failed(why: &str) -> Self {
        Self {
            lag: Reading::Failed(why.to_owned()),
            pending: Reading::Failed(why.to_owned()),
            oldest: Reading::Failed(why.to_owned()),
        }
    }
}

/// What a queue counts by itself, as far as it does: a list counts nothing, and a stream does so from Redis 7 on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Jobs ever added.
    pub added: Option<u64>,
    /// Jobs ever delivered to the group's workers. Redis may lose count of it, and find it again.
    pub read: Option<u64>,
}

/// How many workers of a type there are, by what they are worth as capacity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PoolCounts {
    /// Running and seen ready (a heartbeat, or the backend's own readiness).
    pub ready: u32,
    /// Asked for, not yet ready, within their start grace: counted as capacity.
    pub starting: u32,
    /// Not ready after the start grace: no capacity, to be replaced.
    pub stalled: u32,
    /// Ready workers that hold a job or an open session; never more than `ready`.
    pub busy: u32,
    /// Ready workers that are not heard, so that they may hold a job: never let go, and never a reason for more workers. With
    /// `busy` never more than `ready`.
    #[serde(default)]
    pub possibly_busy: u32,
    /// Asked for and held up by the platform: counted as capacity.
    #[serde(default)]
    pub blocked: u32,
    /// Asked to leave and not yet gone: no capacity.
    pub draining: u32,
    /// Of the draining ones those that hold no work and are still there: they may ignore that they were asked to leave.
    #[serde(default)]
    pub lingering: u32,
}

impl PoolCounts {
    /// Workers that count: ready, starting and blocked ones.
    pub fn current(&self) -> u32 {
        self.ready + self.starting + self.blocked
    }
}

/// What a worker says of itself in its heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WorkerState {
    /// Ready, holds no job.
    Idle,
    /// Holds a job or session that waits for something outside.
    Waiting,
    /// Works on a job.
    Busy,
    /// Can't work now; says why in its log.
    Error,
    /// Takes no more jobs, finishes those that it has.
    Draining,
    /// About to exit.
    Shutdown,
}

impl WorkerState {
    /// The name used on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "IDLE",
            Self::Waiting => "WAITING",
            Self::Busy => "BUSY",
            Self::Error => "ERROR",
            Self::Draining => "DRAINING",
            Self::Shutdown => "SHUTDOWN",
        }
    }

    /// The state with that name on the wire.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Idle, Self::Waiting, Self::Busy, Self::Error, Self::Draining, Self::Shutdown]
            .into_iter()
            .find(|state| state.as_str() == name)
    }
}

/// Where a hint to look at a queue came from. A closed set: metric labels and `scaling:events` use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Source {
    /// A Redis keyspace notification.
    Keyspace = 0,
    /// A message on the `jobs:published` channel.
    Channel = 1,
    /// A client-side-caching invalidation.
    Tracking = 2,
    /// A connection to Redis was made or lost: anything may have been missed, or can't be told now.
    Resync = 3,
    /// The periodic reconciliation.
    Sweep = 4,
    /// The backend or a worker changed by itself.
    Backend = 5,
    /// A rule asked to look again at this time.
    Recheck = 6,
    /// A person or another program changed the number of workers. Only in records: what tells of it is `Backend`.
    Manual = 7,
    /// This autoscaler has begun to lead: what it would have done as a standby is due.
    Leadership = 8,
    /// Somebody paused, resumed or pinned the worker type, or that ended.
    Control = 9,
    /// The settings of the worker type have changed, or it is new.
    Reload = 10,
}

impl Source {
    /// All sources, in the order of their discriminants.
    pub const ALL: [Self; 11] = [
        Self::Keyspace,
        Self::Channel,
        Self::Tracking,
        Self::Resync,
        Self::Sweep,
        Self::Backend,
        Self::Recheck,
        Self::Manual,
        Self::Leadership,
        Self::Control,
        Self::Reload,
    ];

    /// The name in metric labels and `scaling:events`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Keyspace => "keyspace",
            Self::Channel => "channel",
            Self::Tracking => "tracking",
            Self::Resync => "resync",
            Self::Sweep => "sweep",
            Self::Backend => "backend",
            Self::Recheck => "recheck",
            Self::Manual => "manual",
            Self::Leadership => "leadership",
            Self::Control => "control",
            Self::Reload => "reload",
        }
    }
}

/// The Redis keys of the contract with other programs (`docs/protocol.md`).
pub mod keys {
    use super::{WorkerId, WorkerType};

    /// Default channel on which publishers name the stream they wrote to.
    pub const PUBLISHED_CHANNEL: &str = "jobs:published";
    /// Default stream of job types with no queue of their own.
    pub const DEFAULT_STREAM: &str = "jobs";
    /// Default group on [`DEFAULT_STREAM`].
    pub const DEFAULT_STREAM_GROUP: &str = "all-workers";
    /// Capped stream of scaling decisions that were carried out or failed.
    pub const SCALING_EVENTS: &str = "scaling:events";
    /// Capped stream of every heartbeat.
    pub const WORKER_STATUS: &str = "worker:status";
    /// Channel on which a worker says `{type}` when it becomes ready or leaves: a hint for the scaler.
    pub const WORKER_EVENTS_CHANNEL: &str = "worker:events";

    /// Expires unless an autoscaler runs: its instance's name.
    pub const SCALER_ALIVE: &str = "scaler:alive";
    /// `scaler:canary`, a hash with a TTL that the leader writes as workers write heartbeats: `at`, `instance`, and
    /// `unbroken_since`, the milliseconds since 1970 since which every write has succeeded. On a cluster
    /// `scaler:canary:{number}`, one on each primary.
    pub const SCALER_CANARY: &str = "scaler:canary";
    /// Channel on which publishers and workers say that a stream has a new delayed job: payload `{stream}`.
    pub const DELAYED_CHANNEL: &str = "jobs:delayed";
    /// Field of a heartbeat: whole seconds after which the worker's claims on jobs run out. Absent: never while it
    /// lives.
    pub const CLAIM_FIELD: &str = "claim_seconds";
    /// Field of a heartbeat: `1` if the worker listens on its control channel while it is connected.
    pub const LISTENS_FIELD: &str = "listens";

    /// `worker:heartbeat:{type}:{id}`, a hash with a TTL.
    pub fn heartbeat(worker_type: &WorkerType, id: &WorkerId) -> String {
        format!("worker:heartbeat:{worker_type}:{id}")
    }

    /// `worker:queues:{type}`, a string with a TTL: the queues that a worker of the type has found by its patterns, as
    /// JSON.
    pub fn found_queues(worker_type: &WorkerType) -> String {
        format!("worker:queues:{worker_type}")
    }

    /// Channel on which whoever changes a `scaler:override:{type}` names the worker type.
    pub const CONTROL_CHANNEL: &str = "scaler:control";

    /// `worker:control:{type}:{id}`: what a worker is asked to do, and the channel that wakes it to look.
    pub fn control(worker_type: &WorkerType, id: &WorkerId) -> String {
        format!("worker:control:{worker_type}:{id}")
    }

    /// `session:{type}:{name}`: the id of the worker that holds the session, with a TTL.
    pub fn session(worker_type: &WorkerType, name: &str) -> String {
        format!("session:{worker_type}:{name}")
    }

    /// `scaler:report:{type}`, a hash that expires: what the autoscaler thinks of a worker type with unfinished jobs.
    pub fn scaler_report(worker_type: &WorkerType) -> String {
        format!("scaler:report:{worker_type}")
    }

    /// `{reply_to}` of a job published with a waiter: `result:{job id}`, a list with a TTL.
    pub fn result(job_id: &str) -> String {
        format!("result:{job_id}")
    }
}
