//! Vocabulary that all other modules share: names, counts, times, observations, and the Redis keys that other programs
//! rely on. Holds no logic beyond small derivations and does no I/O.

mod budget;
pub mod control;
pub mod dead_letter;
pub mod explanation;
mod feature;
pub mod history;
pub mod job;
mod layout;
pub mod progress;
mod queues;
pub mod snapshot;
mod stop;
mod stream_id;
mod work;

use std::{fmt, sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    budget::Allowance,
    feature::MissingFeature,
    layout::Layout,
    queues::{Combine, LongestQueue, QueueDemand, QueueDemands, QueuePattern, Queues, covering_pattern},
    stop::{AFTER_QUIET, QuietSignal, StopPolicy, StopSignal},
    stream_id::StreamId,
    work::Work,
};

/// Name of a worker type, for example `browser`: 1 to 63 lower-case letters, digits, `-`, `_` and `.`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct WorkerType(Arc<str>);

/// Name of one worker, unique within its type. It is also the worker's consumer name in the consumer group.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct WorkerId(Arc<str>);

macro_rules! name {
    ($name:ident) => {
        impl $name {
            /// Wraps a name. The caller has validated it.
            pub fn new(name: impl Into<Arc<str>>) -> Self {
                Self(name.into())
            }

            /// Returns the name as text.
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
    /// Returns a new id: the type and the random end of a UUID. With 48 random bits, two workers of a type hardly ever
    /// share an id.
    pub fn random(worker_type: &WorkerType) -> Self {
        let uuid = uuid::Uuid::now_v7().simple().to_string();
        Self::new(format!("{worker_type}-{}", &uuid[uuid.len() - 12..]))
    }
}

impl WorkerType {
    /// Returns whether `name` is a valid name of a worker type.
    pub fn is_valid(name: &str) -> bool {
        (1..=63).contains(&name.len())
            && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c))
    }
}

/// Milliseconds since the Unix epoch.
///
/// Within one process a timestamp never runs backwards, because [`Clock`] derives it from a monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Returns the wall-clock time. Code that has a [`Clock`] uses the clock instead.
    pub fn wall() -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// Returns the time from `earlier` to `self`; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Returns `self + by`, saturating.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// Wall-clock timestamps that advance with the monotonic clock, so that a jump of the wall clock does not shorten a
/// cooldown. While tokio's clock is paused, this clock stands still.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    base: Timestamp,
    at: tokio::time::Instant,
}

impl Clock {
    /// Returns a clock that reads the wall clock once, now.
    pub fn start() -> Self {
        Self { base: Timestamp::wall(), at: tokio::time::Instant::now() }
    }

    /// Returns the current timestamp.
    pub fn now(&self) -> Timestamp {
        self.base.after(self.at.elapsed())
    }

    /// Returns the monotonic instant at which the clock reaches `at`.
    pub fn instant_of(&self, at: Timestamp) -> tokio::time::Instant {
        self.at + at.since(self.base)
    }
}

/// An observation: a value, or the reason why there is none. A missing value is never treated as zero.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "Reading_of_{T}")]
pub enum Reading<T> {
    /// The value was read.
    Known(T),
    /// The source answered, but its answer does not contain the value (for example, a list does not show pending
    /// entries).
    Unknown(String),
    /// The source did not answer, or it refused.
    Failed(String),
}

impl<T> Reading<T> {
    /// Returns the value, if it is known.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            _ => None,
        }
    }

    /// Returns why there is no value; `None` if there is one.
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

/// Unfinished work in one queue, or in all queues of a worker type, as the probe read it.
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
    /// Returns `lag + pending`, all unfinished jobs. The depth is known only if both are.
    pub fn depth(&self) -> Reading<u64> {
        match (&self.lag, &self.pending) {
            (Reading::Known(lag), Reading::Known(pending)) => Reading::Known(lag.saturating_add(*pending)),
            (Reading::Known(_), other) | (other, _) => other.clone(),
        }
    }

    /// Returns the known unfinished jobs: the depth if it is known, else a lower limit. `None` if nothing is known.
    pub fn at_least(&self) -> Option<u64> {
        match (self.lag.known(), self.pending.known()) {
            (None, None) => None,
            (lag, pending) => Some(lag.unwrap_or(&0).saturating_add(*pending.unwrap_or(&0))),
        }
    }

    /// Returns a demand without any value, every part with the same reason.
    pub fn failed(why: &str) -> Self {
        Self {
            lag: Reading::Failed(why.to_owned()),
            pending: Reading::Failed(why.to_owned()),
            oldest: Reading::Failed(why.to_owned()),
        }
    }
}

/// Counters that a queue keeps by itself. A list keeps none; a stream does since Redis 7, and so do a few frameworks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Number of jobs ever added.
    pub added: Option<u64>,
    /// Number of jobs ever delivered to the workers of the group. Redis can lose this count and find it again.
    pub read: Option<u64>,
    /// Number of jobs that run now, for frameworks that tell how many, and not where.
    pub running: Option<u64>,
}

/// Workers of a type, counted by their worth as capacity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PoolCounts {
    /// Running, and seen ready by a heartbeat or by the backend's own readiness.
    pub ready: u32,
    /// Asked for, not yet ready, within their start grace. They count as capacity.
    pub starting: u32,
    /// Not ready after their start grace. They are not capacity and are replaced.
    pub stalled: u32,
    /// Ready workers that hold a job or an open session; at most `ready`.
    pub busy: u32,
    /// Ready workers whose state can't be read, so that they may hold a job. They are never let go and never a reason
    /// for more workers. Together with `busy` at most `ready`.
    #[serde(default)]
    pub possibly_busy: u32,
    /// Asked for and held up by the platform. They count as capacity.
    #[serde(default)]
    pub blocked: u32,
    /// Asked to leave and not yet gone. They are not capacity.
    pub draining: u32,
    /// Draining workers that hold no work and are still there: they may have ignored the request to leave.
    #[serde(default)]
    pub lingering: u32,
    /// Ready workers that have no room for another session: no place, or no slot for the job that opens it.
    #[serde(default)]
    pub full: u32,
    /// Sessions that the ready workers can hold; 0 if they don't limit them.
    #[serde(default)]
    pub places: u32,
    /// Of these places the taken ones.
    #[serde(default)]
    pub places_taken: u32,
    /// Jobs that workers hold and have no place for.
    #[serde(default)]
    pub waiting_for_place: u32,
    /// Of those that count, the ones that can't be let go because the platform would first remove others that are not
    /// idle; 0 where each worker can be let go.
    #[serde(default)]
    pub must_stay: u32,
}

impl PoolCounts {
    /// Returns the workers that count as capacity: ready, starting and blocked ones.
    pub fn current(&self) -> u32 {
        self.ready + self.starting + self.blocked
    }
}

/// State that a worker reports in its heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WorkerState {
    /// Ready, holds no job.
    Idle,
    /// Holds a job or a session that waits for something outside the worker.
    Waiting,
    /// Works on a job.
    Busy,
    /// Can't work now; the worker's log says why.
    Error,
    /// Takes no more jobs and finishes those that it has.
    Draining,
    /// About to exit.
    Shutdown,
}

impl WorkerState {
    /// Returns the name on the wire.
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

    /// Returns the state with that name on the wire.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Idle, Self::Waiting, Self::Busy, Self::Error, Self::Draining, Self::Shutdown]
            .into_iter()
            .find(|state| state.as_str() == name)
    }
}

/// Origin of a signal. A closed set, because metric labels and `scaling:events` use it.
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
    /// A connection to Redis was made or lost: signals may have been missed, or are no longer received.
    Resync = 3,
    /// The periodic sweep.
    Sweep = 4,
    /// The backend's pool or a worker changed by itself.
    Backend = 5,
    /// A rule asked for an evaluation at this time.
    Recheck = 6,
    /// A person or another program changed the number of workers. Used in records only; the signal is `Backend`.
    Manual = 7,
    /// This autoscaler began to lead: what it decided as a standby is due.
    Leadership = 8,
    /// Somebody paused, resumed or pinned the worker type, or an override ended.
    Control = 9,
    /// The worker type is new, or its settings changed.
    Reload = 10,
    /// The budget leaves more to the worker type, or another worker type lacks a place.
    Budget = 11,
}

impl Source {
    /// All sources, in the order of their discriminants.
    pub const ALL: [Self; 12] = [
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
        Self::Budget,
    ];

    /// Returns the name in metric labels and `scaling:events`.
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
            Self::Budget => "budget",
        }
    }
}

/// The Redis keys of the contract with other programs (`docs/protocol.md`).
pub mod keys {
    use super::{WorkerId, WorkerType};

    /// Default channel on which publishers name the stream they wrote to.
    pub const PUBLISHED_CHANNEL: &str = "jobs:published";
    /// Default stream for job types that have no queue of their own.
    pub const DEFAULT_STREAM: &str = "jobs";
    /// Default consumer group on [`DEFAULT_STREAM`].
    pub const DEFAULT_STREAM_GROUP: &str = "all-workers";
    /// Capped stream of scaling decisions that were carried out or failed.
    pub const SCALING_EVENTS: &str = "scaling:events";
    /// Capped stream of all heartbeats.
    pub const WORKER_STATUS: &str = "worker:status";
    /// Channel on which a worker publishes [`worker_event`] when the scaler has to read its heartbeat.
    pub const WORKER_EVENTS_CHANNEL: &str = "worker:events";

    /// Key with a TTL that exists while an autoscaler runs; its value is the instance's name.
    pub const SCALER_ALIVE: &str = "scaler:alive";
    /// `scaler:canary`, a hash with a TTL that the leader writes in the way workers write heartbeats: `at`, `instance`,
    /// and `unbroken_since`, the time in milliseconds since 1970 since which every write has succeeded. On a cluster
    /// `scaler:canary:{number}`, one on each primary.
    pub const SCALER_CANARY: &str = "scaler:canary";
    /// Channel on which publishers and workers announce a new delayed job; the payload is `{stream}`.
    pub const DELAYED_CHANNEL: &str = "jobs:delayed";
    /// Field of a heartbeat: whole seconds after which the worker's claims on jobs expire. If absent, they do not
    /// expire while the worker lives.
    pub const CLAIM_FIELD: &str = "claim_seconds";
    /// Field of a heartbeat: `1` if the worker listens on its control channel while it is connected.
    pub const LISTENS_FIELD: &str = "listens";
    /// Field of a heartbeat: sessions that the worker can hold at most. Absent: it does not limit them.
    pub const PLACES_FIELD: &str = "places";
    /// Field of a heartbeat: open sessions.
    pub const SESSIONS_FIELD: &str = "sessions";
    /// Field of a heartbeat: jobs that may begin now besides those in progress.
    pub const FREE_SLOTS_FIELD: &str = "free_slots";
    /// Field of a heartbeat: jobs in hand that wait for a place, on this worker or another.
    pub const WAITING_FIELD: &str = "waiting_for_place";
    /// Field of a heartbeat: what the worker does.
    pub const STATE_FIELD: &str = "state";

    /// Returns `{type} {id}`, the message of a worker on [`WORKER_EVENTS_CHANNEL`].
    pub fn worker_event(worker_type: &WorkerType, id: &WorkerId) -> String {
        format!("{worker_type} {id}")
    }

    /// Returns `worker:heartbeat:{type}:{id}`, a hash with a TTL.
    pub fn heartbeat(worker_type: &WorkerType, id: &WorkerId) -> String {
        format!("worker:heartbeat:{worker_type}:{id}")
    }

    /// Returns `worker:queues:{type}`, a string with a TTL: the queues that a worker of the type found by its patterns,
    /// as JSON.
    pub fn found_queues(worker_type: &WorkerType) -> String {
        format!("worker:queues:{worker_type}")
    }

    /// Channel on which whoever changes a `scaler:override:{type}` publishes the worker type.
    pub const CONTROL_CHANNEL: &str = "scaler:control";

    /// Returns `worker:control:{type}:{id}`, the key with the request to a worker, and the channel that tells the
    /// worker to read the key.
    pub fn control(worker_type: &WorkerType, id: &WorkerId) -> String {
        format!("worker:control:{worker_type}:{id}")
    }

    /// Returns `session:{type}:{name}`, a key with a TTL that holds the id of the worker that has the session.
    pub fn session(worker_type: &WorkerType, name: &str) -> String {
        format!("session:{worker_type}:{name}")
    }

    /// Returns `session-openers:{type}`, a hash: who opened which session, for programs that limit their number.
    pub fn session_openers(worker_type: &WorkerType) -> String {
        format!("session-openers:{worker_type}")
    }

    /// Returns `scaler:report:{type}`, a hash with a TTL: the autoscaler's view of a worker type with unfinished jobs.
    pub fn scaler_report(worker_type: &WorkerType) -> String {
        format!("scaler:report:{worker_type}")
    }

    /// Returns the `{reply_to}` of a job whose publisher waits: `result:{job id}`, a list with a TTL.
    pub fn result(job_id: &str) -> String {
        format!("result:{job_id}")
    }
}
