//! Other people's job frameworks: which keys their queues consist of, which reads tell what waits, runs and is due,
//! who of their workers is busy, and how such a worker is stopped. A [`FrameworkProfile`] only reads, and never talks
//! to Redis itself.
//!
//! A framework is one file with a profile, a variant of [`Framework`], its tests and a section in `docs/frameworks.md`.
//! Nothing else asks which framework a queue belongs to.

mod arq;
mod asynq;
mod base64;
mod bull;
mod bullmq;
mod celery;
mod clock;
mod counted;
mod dramatiq;
mod kind;
mod laravel;
mod replies;
mod rq;
mod sidekiq;
mod tally;

use std::sync::Arc;

use redis::Cmd;

pub(super) use self::kind::FrameworkKind;
use super::{
    QueueReader,
    foreign::{
        Framework, FrameworkReading, FrameworkSpec, FrameworkWorker, Heard, HeardWorker, Occupation, SignalKeys,
        WorkerStatement,
    },
};
use crate::model::StopSignal;

impl Framework {
    /// Returns it as a kind of queue.
    pub(super) fn kind(self) -> &'static FrameworkKind {
        let all = const { &FrameworkKind::ALL };
        all.iter().find(|kind| kind.0 == self).expect("every framework is a kind of queue")
    }

    /// Returns its profile.
    pub fn profile(self) -> &'static dyn FrameworkProfile {
        match self {
            Self::Rq => &rq::Rq,
            Self::Celery => &celery::Celery,
            Self::Sidekiq => &sidekiq::Sidekiq,
            Self::BullMq => &bullmq::BullMq,
            Self::Bull => &bull::Bull,
            Self::Asynq => &asynq::Asynq,
            Self::Dramatiq => &dramatiq::Dramatiq,
            Self::Arq => &arq::Arq,
            Self::Laravel => &laravel::Laravel,
        }
    }
}

impl FrameworkSpec {
    /// Returns the main keys of the queues, in their order.
    pub fn keys(&self) -> impl Iterator<Item = String> {
        self.queues.iter().map(|queue| self.framework.profile().key(self, queue))
    }

    /// Returns the keys whose changes are news.
    pub fn signals(&self) -> SignalKeys {
        self.framework.profile().signals(self)
    }
}

/// How surely a framework tells which of its workers are idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// By worker, as of now.
    Exact,
    /// By worker, up to some seconds old. The gentle signal lets running jobs finish.
    Recent,
    /// Only whether all of them are idle.
    PoolOnly,
    /// Not at all.
    Never,
}

/// The description of one framework.
pub trait FrameworkProfile: std::fmt::Debug + Send + Sync {
    /// Its name in the configuration.
    fn name(&self) -> &'static str;

    /// The queue that the framework uses if none is named.
    fn default_queue(&self) -> &'static str;

    /// What the framework puts before its keys if nothing else is configured there.
    fn default_prefix(&self) -> &'static str;

    /// The main key of a queue: no two worker types may read the same one.
    fn key(&self, spec: &FrameworkSpec, queue: &str) -> String;

    /// The command whose refusal tells that the main key of a queue holds something else.
    fn content(&self, key: &str) -> Cmd;

    /// The keys whose changes are news.
    fn signals(&self, spec: &FrameworkSpec) -> SignalKeys;

    /// The flags in `notify-keyspace-events` of the events of those keys.
    fn event_flags(&self) -> &'static str;

    /// Reads what a worker says on one of the channels; `None` if it does not tell what the worker does.
    fn hear(&self, _payload: &[u8]) -> Option<WorkerStatement> {
        None
    }

    /// Returns a reader for all queues of a worker type.
    fn reader(&self, spec: &Arc<FrameworkSpec>) -> Box<dyn QueueReader>;

    /// The commands that the reader needs, as ACLs name them.
    fn commands(&self) -> &'static [&'static str];

    /// How surely it tells which workers are idle.
    fn certainty(&self) -> Certainty;

    /// The signal that lets a worker finish its jobs and leave.
    fn stop_signal(&self) -> StopSignal;

    /// Whether a worker waits for helper processes of its own while it still takes jobs: they are to leave first.
    fn helpers_first(&self) -> bool {
        false
    }

    /// What the command of a worker has to contain so that its statements can be matched with it; `None` if no
    /// statement names a worker.
    fn identity(&self) -> Option<&'static str>;
}

#[cfg(test)]
mod tests;
