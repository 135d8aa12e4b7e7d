//! Job frameworks other than swarm's own: which keys make up their queues, which reads show the waiting, running and
//! due jobs and the busy workers, and how to stop a worker. A [`FrameworkProfile`] only describes reads, and never
//! talks to Redis itself.
//!
//! A framework is one file with a profile, a variant of [`Framework`], its tests and a section in `docs/frameworks.md`.
//! No other code distinguishes frameworks.

mod arq;
mod asynq;
mod base64;
mod bull;
mod bullmq;
mod celery;
mod clock;
mod counted;
mod counted_profile;
mod dramatiq;
mod huey;
mod job_times;
mod kind;
mod laravel;
mod replies;
mod resque;
mod rq;
mod sidekiq;
mod tally;
mod taskiq;
mod taskiq_stream;

use std::{sync::Arc, time::Duration};

use redis::Cmd;

pub use self::job_times::{JobStage, JobTimes, TimesOfJob};
pub(super) use self::kind::FrameworkKind;
use super::{
    QueueReader,
    foreign::{
        Framework, FrameworkReading, FrameworkSpec, FrameworkWorker, Heard, HeardWorker, Occupation, SignalKeys,
        WorkerStatement,
    },
};
use crate::model::{QuietSignal, StopSignal};

impl Framework {
    /// Returns the framework as a kind of queue.
    pub(super) fn kind(self) -> &'static FrameworkKind {
        let all = const { &FrameworkKind::ALL };
        all.iter().find(|kind| kind.0 == self).expect("every framework is a kind of queue")
    }

    /// Returns the profile of the framework.
    pub fn profile(self) -> &'static dyn FrameworkProfile {
        match self {
            Self::Rq => &rq::Rq,
            Self::Celery => &celery::Celery,
            Self::Sidekiq => &sidekiq::Sidekiq,
            Self::BullMq => &bullmq::PROFILE,
            Self::Bull => &bull::PROFILE,
            Self::Asynq => &asynq::PROFILE,
            Self::Dramatiq => &dramatiq::PROFILE,
            Self::Arq => &arq::PROFILE,
            Self::Resque => &resque::Resque,
            Self::Laravel => &laravel::PROFILE,
            Self::Huey => &huey::PROFILE,
            Self::Taskiq => &taskiq::PROFILE,
            Self::TaskiqStream => &taskiq_stream::TaskiqStream,
        }
    }
}

impl FrameworkSpec {
    /// Returns the main keys of the queues, in their order.
    pub fn keys(&self) -> impl Iterator<Item = String> {
        self.queues.iter().map(|queue| self.framework.profile().key(self, queue))
    }

    /// Returns the keys whose changes are signals.
    pub fn signals(&self) -> SignalKeys {
        self.framework.profile().signals(self)
    }
}

#[cfg(test)]
impl FrameworkSpec {
    /// Returns queues under the framework's own prefix, with its own defaults.
    fn of(framework: Framework, queues: &[&str]) -> Self {
        Self {
            framework,
            queues: queues.iter().map(|queue| (*queue).to_owned()).collect(),
            prefix: framework.profile().default_prefix().to_owned(),
            late_acknowledgement: false,
            visibility_timeout: Duration::from_secs(3_600),
            longest_job: None,
        }
    }
}

/// How reliably a framework shows which of its workers are idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// For each worker, and current.
    Exact,
    /// For each worker, up to some seconds old. The gentle stop signal lets running jobs finish.
    Recent,
    /// Only whether all of them are idle.
    PoolOnly,
    /// Not at all. If the longest job is known, a pool whose queues have not changed for longer is idle.
    Never,
}

/// Evidence that a queue has been used, which outlives its jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trace {
    /// A key.
    Key(String),
    /// A member of a set.
    Member { set: String, member: String },
}

/// Jobs that only a process of the framework moves to their queue when they are due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueJobs {
    /// Sorted set by due time, in seconds.
    pub schedule: String,
    /// Key that exists while such a process runs.
    pub mover: String,
    /// How to run one.
    pub cure: &'static str,
}

/// Jobs that workers have fetched, and that the framework delivers a second time if that takes too long.
#[derive(Clone, Debug)]
pub struct FetchedJobs {
    /// Sorted set of the jobs, by the time at which they were fetched, in seconds.
    pub fetched: String,
    /// Hash of the jobs, by the members of the set.
    pub jobs: String,
    /// Time after which a job is delivered a second time.
    pub redelivered_after: Duration,
    /// Returns whether a job is one of the queues, as the hash has it.
    pub is_of: fn(job: &str, queues: &[String]) -> bool,
    /// How to prevent it.
    pub cure: &'static str,
}

/// The description of one framework.
pub trait FrameworkProfile: std::fmt::Debug + Send + Sync {
    /// Returns the name in the configuration.
    fn name(&self) -> &'static str;

    /// Returns the queue that the framework uses if none is named.
    fn default_queue(&self) -> &'static str;

    /// Returns the prefix of the framework's keys, if the framework's configuration does not change it.
    fn default_prefix(&self) -> &'static str;

    /// Returns the main key of a queue. Two worker types must not read the same one.
    fn key(&self, spec: &FrameworkSpec, queue: &str) -> String;

    /// Returns a command that the server refuses if the main key of a queue holds another type.
    fn content(&self, key: &str) -> Cmd;

    /// Returns the keys whose changes are signals.
    fn signals(&self, spec: &FrameworkSpec) -> SignalKeys;

    /// Returns the flags in `notify-keyspace-events` for the events of those keys.
    fn event_flags(&self) -> &'static str;

    /// Parses a worker's report on one of the channels; `None` if it does not show what the worker does.
    fn hear(&self, _payload: &[u8]) -> Option<WorkerStatement> {
        None
    }

    /// Returns a reader for all queues of a worker type.
    fn reader(&self, spec: &Arc<FrameworkSpec>) -> Box<dyn QueueReader>;

    /// Returns the commands that the reader needs, in the form of ACLs.
    fn commands(&self) -> &'static [&'static str];

    /// Returns how reliably the framework shows which workers are idle.
    fn certainty(&self) -> Certainty;

    /// Returns the signal that lets a worker finish its jobs and leave.
    fn stop_signal(&self) -> StopSignal;

    /// Returns the signal that makes a worker take no more jobs, for frameworks that give running jobs little time
    /// after the stop signal.
    fn quiet_signal(&self) -> Option<QuietSignal> {
        None
    }

    /// Returns what a program of the framework must have so that the signal is safe, if that can't be read from the
    /// configuration.
    fn stop_caveat(&self) -> Option<&'static str> {
        None
    }

    /// Returns whether a worker still takes jobs while it waits for its helper processes to end: then the helpers are
    /// stopped first.
    fn helpers_first(&self) -> bool {
        false
    }

    /// Returns whether a worker can lose the stop signal and go on, in which case an idle one may be sent it again. The
    /// framework must show exactly who is idle.
    fn may_miss_stop_signal(&self) -> bool {
        false
    }

    /// Returns the evidence that a queue has been used; `None` if an empty queue leaves nothing behind.
    fn trace(&self, _spec: &FrameworkSpec, _queue: &str) -> Option<Trace> {
        None
    }

    /// Returns the jobs that a process of its own moves; `None` if every worker moves them, or nobody can tell.
    fn due_jobs(&self, _spec: &FrameworkSpec, _queue: &str) -> Option<DueJobs> {
        None
    }

    /// Returns the jobs that are delivered a second time if workers hold them for too long; `None` if there are none,
    /// or Redis does not tell since when a worker has had a job.
    fn fetched_jobs(&self, _spec: &FrameworkSpec) -> Option<FetchedJobs> {
        None
    }

    /// Returns where the times of a queue's jobs are; `None` if the framework forgets a job as soon as it has begun.
    fn job_times(&self, _spec: &FrameworkSpec, _queue: &str) -> Option<JobTimes> {
        None
    }

    /// Returns the text that a worker's command must contain, so that its reports can be matched with it; `None` if the
    /// reports name no worker.
    fn identity(&self) -> Option<&'static str>;
}

#[cfg(test)]
mod tests;
