//! What every kind of queue has to say about itself.

use std::{fmt, sync::Arc};

use redis::{Cmd, Value};

use super::{
    QueueKind, StreamId,
    foreign::{FrameworkReading, FrameworkSpec, Heard},
};
use crate::model::{Counters, Demand, Reading, Timestamp};

/// How to read one queue.
#[derive(Clone, Debug)]
pub struct QueueSpec {
    /// Its key.
    pub key: Arc<str>,
    /// The consumer group that counts, for kinds that have groups.
    pub group: Arc<str>,
    /// What the key holds.
    pub kind: QueueKind,
    /// What shows that its workers are idle, for kinds that forget the jobs that they gave away.
    pub idleness: Idleness,
    /// Which queues these are in the words of their framework, for kinds that are one.
    pub framework: Option<Arc<FrameworkSpec>>,
}

impl QueueSpec {
    /// Returns the spec of a key whose workers state whether they are idle.
    pub fn new(key: &str, group: &str, kind: QueueKind) -> Self {
        Self { key: key.into(), group: group.into(), kind, idleness: Idleness::Stated, framework: None }
    }
}

/// What shows that the workers of a queue are idle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Idleness {
    /// The workers state it, by heartbeats.
    #[default]
    Stated,
    /// An empty queue is taken for it: the workers may be stopped at any time.
    EmptyQueue,
    /// Nothing shows it.
    Unknown,
}

/// How jobs get from the queue to workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// A consumer group remembers who holds which job until the job is acknowledged. Several groups may read one queue.
    ConsumerGroup,
    /// A worker removes the job from the key, and the server forgets it. Whoever shares the key shares the jobs.
    Removal,
}

/// Which way a read-only script can be sent on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scripts {
    /// By `EVAL_RO`, from Redis 7 on: it needs no right to write.
    ReadOnly,
    /// By `EVAL`.
    Eval,
    /// The server refuses both.
    Refused,
}

impl Scripts {
    /// Returns the next way to try after the server refused this one.
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
    /// Its name: the worker's id.
    pub name: String,
    /// Jobs it holds.
    pub jobs: u64,
}

/// What one reading of a queue says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Unfinished work.
    pub demand: Demand,
    /// What the queue counts by itself.
    pub counters: Counters,
    /// Who holds how many delivered jobs.
    pub consumers: Reading<Vec<ConsumerPending>>,
    /// The key holds something else than this kind of queue.
    pub is_foreign: bool,
    /// Something to warn about, said once.
    pub warning: Option<&'static str>,
    /// What a framework tells besides.
    pub framework: Option<Box<FrameworkReading>>,
}

impl Observed {
    /// A queue that can't be read.
    pub(super) fn failed(why: &str) -> Self {
        Self::of(Demand::failed(why), Reading::Failed(why.to_owned()))
    }

    pub(super) fn of(demand: Demand, consumers: Reading<Vec<ConsumerPending>>) -> Self {
        let counters = Counters::default();
        Self { demand, counters, consumers, is_foreign: false, warning: None, framework: None }
    }
}

/// What is known before a follow-up has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// What the server reports.
    pub reported: Option<u64>,
    /// Entries in the queue.
    pub length: u64,
    /// Where the group stood: last delivered entry, entries read and entries added.
    pub stood: (StreamId, Option<u64>, Option<u64>),
}

/// A second question about a queue.
#[derive(Debug)]
pub struct FollowUp {
    /// What to ask. Several commands are one transaction, and the reply to it is the array of theirs.
    pub commands: Vec<Cmd>,
    /// What is known already.
    pub so_far: Observed,
    /// Entries that the command returns at most.
    pub limit: u64,
    /// What bounds the count from above.
    pub bounds: Bounds,
}

/// What the replies to the commands of a reading mean.
#[derive(Debug)]
pub enum Interpretation {
    /// All there is to know.
    Complete(Observed),
    /// Something has to be asked first.
    Ask(Box<FollowUp>),
    /// The server refused the script: read again with [`Scripts::next`].
    ScriptRefused,
    /// What the commands were made from was wrong, and is known now: read again.
    Again,
}

/// Reads one queue, and remembers what it has to between readings. Does no I/O.
pub trait QueueReader: fmt::Debug + Send + Sync {
    /// Notes the time, before each of the other calls. Kinds without due times ignore it.
    fn note_time(&mut self, _now: Timestamp) {}

    /// Notes what workers said on their channels, before each of the other calls.
    fn note_heard(&mut self, _heard: Heard) {}

    /// Returns the commands of one reading. Reading the key by the first of them arms client-side caching.
    fn commands(&mut self, spec: &QueueSpec, scripts: Scripts) -> Vec<Cmd>;

    /// Interprets the replies to [`commands`](Self::commands), one for each.
    fn interpret(&mut self, spec: &QueueSpec, replies: Vec<Value>, scripts: Scripts) -> Interpretation;

    /// Completes a reading by the reply to its follow-up, or by why there is none. Kinds that never ask need none.
    fn complete(&mut self, _: &QueueSpec, follow_up: FollowUp, _: Result<Value, String>) -> Interpretation {
        Interpretation::Complete(follow_up.so_far)
    }
}

/// The description of one kind of queue.
pub trait Profile: fmt::Debug + Send + Sync {
    /// The word for it in the configuration.
    fn name(&self) -> &'static str;

    /// The type of its keys in the words of Redis' `TYPE`.
    fn redis_type(&self) -> &'static str;

    /// The flags in `notify-keyspace-events` of the events of such keys.
    fn event_flags(&self) -> &'static str;

    /// The keyspace events that announce a job.
    fn arrival_events(&self) -> &'static [&'static str];

    /// How jobs get to workers.
    fn delivery(&self) -> Delivery;

    /// Whether jobs are in swarm's own format: `swarm worker`, `swarm publish`, `swarm dead` and delayed jobs work with
    /// it.
    fn is_native(&self) -> bool;

    /// Returns the command whose refusal tells that a key holds something else.
    fn content(&self, key: &str) -> Cmd;

    /// Returns a reader for one queue.
    fn reader(&self, spec: &QueueSpec) -> Box<dyn QueueReader>;

    /// Whether the commands of a reading are sent as one transaction. That makes the reading a single moment, and arms
    /// client-side caching for every key.
    fn is_one_transaction(&self) -> bool {
        false
    }

    /// Returns the commands that the reader needs, each as ACLs name it, with arguments behind the key that change
    /// nothing.
    fn rights(&self, group: &str) -> Vec<(&'static str, Vec<String>)>;
}

/// Says what is wrong with a key, and the cure.
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
