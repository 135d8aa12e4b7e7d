//! The description that every kind of queue provides.

use std::{fmt, sync::Arc};

use redis::{Cmd, Value};

use super::{
    QueueKind,
    counted_entries::CountedEntries,
    foreign::{FrameworkReading, FrameworkSpec, Heard},
};
use crate::model::{Counters, Demand, Reading, StreamId, Timestamp};

/// How to read one queue.
#[derive(Clone, Debug)]
pub struct QueueSpec {
    /// Key of the queue.
    pub key: Arc<str>,
    /// Consumer group that counts, for kinds with groups.
    pub group: Arc<str>,
    /// What the key holds.
    pub kind: QueueKind,
    /// Evidence that the workers are idle, for kinds that forget delivered jobs.
    pub idleness: Idleness,
    /// Description of the queues for their framework, for kinds that are one.
    pub framework: Option<Arc<FrameworkSpec>>,
}

impl QueueSpec {
    /// Returns the spec of a key whose workers state whether they are idle.
    pub fn new(key: &str, group: &str, kind: QueueKind) -> Self {
        Self { key: key.into(), group: group.into(), kind, idleness: Idleness::Stated, framework: None }
    }
}

/// Evidence that the workers of a queue are idle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Idleness {
    /// The workers report it in heartbeats.
    #[default]
    Stated,
    /// An empty queue counts as evidence: the workers may be stopped at any time.
    EmptyQueue,
    /// There is no evidence.
    Unknown,
}

/// How jobs get from the queue to workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// A consumer group remembers which consumer holds which job until the job is acknowledged. Several groups may read
    /// one queue.
    ConsumerGroup,
    /// A worker removes the job from the key, and the server forgets it. Worker types that share the key share the
    /// jobs.
    Removal,
}

/// How to send a read-only script on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scripts {
    /// With `EVAL_RO`, since Redis 7: it needs no right to write.
    ReadOnly,
    /// With `EVAL`.
    Eval,
    /// The server refuses both.
    Refused,
}

impl Scripts {
    /// Returns what to try next after the server refused this.
    #[must_use]
    pub fn next(self) -> Self {
        match self {
            Self::ReadOnly => Self::Eval,
            Self::Eval | Self::Refused => Self::Refused,
        }
    }

    /// Returns the command that runs `script` on `key`; `None` if scripts are refused.
    pub(super) fn command(self, script: &str, key: &str) -> Option<Cmd> {
        let mut command = match self {
            Self::ReadOnly => redis::cmd("EVAL_RO"),
            Self::Eval => redis::cmd("EVAL"),
            Self::Refused => return None,
        };
        command.arg(script).arg(1).arg(key);
        Some(command)
    }
}

/// A consumer and how many delivered jobs it has not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerPending {
    /// Name of the consumer: the worker's id.
    pub name: String,
    /// Jobs that the consumer holds.
    pub jobs: u64,
}

/// Result of one reading of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Unfinished work.
    pub demand: Demand,
    /// Counters that the queue keeps itself.
    pub counters: Counters,
    /// Delivered jobs of each consumer.
    pub consumers: Reading<Vec<ConsumerPending>>,
    /// Whether the key holds another type than this kind of queue.
    pub is_foreign: bool,
    /// A warning, given once.
    pub warning: Option<&'static str>,
    /// Further results, for frameworks.
    pub framework: Option<Box<FrameworkReading>>,
}

impl Observed {
    /// Returns the result for a queue that can't be read.
    pub fn failed(why: &str) -> Self {
        Self::of(Demand::failed(why), Reading::Failed(why.to_owned()))
    }

    pub(super) fn of(demand: Demand, consumers: Reading<Vec<ConsumerPending>>) -> Self {
        let counters = Counters::default();
        Self { demand, counters, consumers, is_foreign: false, warning: None, framework: None }
    }
}

/// What is known before a follow-up counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Lag that the server reports.
    pub reported: Option<u64>,
    /// Entries in the queue.
    pub length: u64,
    /// Position of the group: last delivered entry, entries read and entries added.
    pub stood: (StreamId, Option<u64>, Option<u64>),
    /// What was counted before.
    pub(super) counted: CountedEntries,
}

/// A second request about a queue.
#[derive(Debug)]
pub struct FollowUp {
    /// Commands of the request. Several commands are one transaction, whose reply is the array of their replies.
    pub commands: Vec<Cmd>,
    /// Result so far.
    pub so_far: Observed,
    /// Maximum entries that the command returns.
    pub limit: u64,
    /// Upper bounds of the count.
    pub bounds: Bounds,
}

/// Meaning of the replies to a reading's commands.
#[derive(Debug)]
pub enum Interpretation {
    /// The result is complete.
    Complete(Observed),
    /// A second request is needed.
    Ask(Box<FollowUp>),
    /// The server refused the script: read again with [`Scripts::next`].
    ScriptRefused,
    /// The commands were made from a wrong estimate, which is corrected now: read again.
    Again,
}

/// Reads one queue, and keeps the state that it needs between readings. Does no I/O.
pub trait QueueReader: fmt::Debug + Send + Sync {
    /// Sets the time, before each of the other calls. Kinds without due times ignore it.
    fn note_time(&mut self, _now: Timestamp) {}

    /// Sets the workers' reports on their channels, before each of the other calls.
    fn note_heard(&mut self, _heard: Heard) {}

    /// Returns the commands of one reading. The first command reads the key, which arms client-side caching.
    fn commands(&mut self, spec: &QueueSpec, scripts: Scripts) -> Vec<Cmd>;

    /// Interprets the replies to [`commands`](Self::commands), one for each.
    fn interpret(&mut self, spec: &QueueSpec, replies: Vec<Value>, scripts: Scripts) -> Interpretation;

    /// Completes a reading with the reply to its follow-up, or with the error of the follow-up. Kinds without
    /// follow-ups don't need it.
    fn complete(&mut self, _: &QueueSpec, follow_up: FollowUp, _: Result<Value, String>) -> Interpretation {
        Interpretation::Complete(follow_up.so_far)
    }
}

/// The description of one kind of queue.
pub trait Profile: fmt::Debug + Send + Sync {
    /// Returns the name in the configuration.
    fn name(&self) -> &'static str;

    /// Returns the type of its keys, as Redis' `TYPE` names it.
    fn redis_type(&self) -> &'static str;

    /// Returns the flags in `notify-keyspace-events` for the events of such keys.
    fn event_flags(&self) -> &'static str;

    /// Returns the keyspace events that announce a job.
    fn arrival_events(&self) -> &'static [&'static str];

    /// Returns how jobs get to workers.
    fn delivery(&self) -> Delivery;

    /// Returns whether jobs are in swarm's own format, which `swarm worker`, `swarm publish`, `swarm dead` and delayed
    /// jobs need.
    fn is_native(&self) -> bool;

    /// Returns a command that the server refuses if the key holds another type.
    fn content(&self, key: &str) -> Cmd;

    /// Returns a reader for one queue.
    fn reader(&self, spec: &QueueSpec) -> Box<dyn QueueReader>;

    /// Returns whether the commands of a reading are sent as one transaction. That makes the reading consistent, and
    /// arms client-side caching for every key.
    fn is_one_transaction(&self) -> bool {
        false
    }

    /// Returns the commands that the reader needs, each in the form of ACLs, with harmless arguments after the key.
    fn rights(&self, group: &str) -> Vec<(&'static str, Vec<String>)>;
}

/// Returns what is wrong with a key, and the cure.
pub fn explain(key: &str, error: &str) -> String {
    if error.contains("WRONGTYPE") {
        let kinds: Vec<_> = QueueKind::ALL.iter().map(|kind| format!("\"{}\"", kind.name())).collect();
        format!(
            "key `{key}` holds another type than configured; set `kind` of the worker type to what it holds, {}",
            kinds.join(" or ")
        )
    } else if error.contains("NOPERM") {
        format!("no permission to read `{key}`: {error}; give the ACL user the rights listed in docs/redis.md")
    } else {
        format!("key `{key}`: {error}")
    }
}
