//! Kinds of queues: what the key of a queue holds, which commands read it and what their replies mean, which events
//! announce a job, and where to find which worker holds which job. Descriptions without I/O: a [`Profile`] never talks
//! to Redis.
//!
//! A kind is one file with a [`Profile`], a variant here, its tests and a row in `docs/redis.md`. No other code
//! distinguishes kinds.

mod counted_entries;
mod foreign;
mod framework;
mod list;
mod profile;
pub mod reply;
mod stream;

use std::ops::Deref;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    foreign::{
        Framework, FrameworkReading, FrameworkSpec, FrameworkWorker, Heard, HeardWorker, Occupation, SignalKeys,
        WorkerStatement,
    },
    framework::{Certainty, DueJobs, FetchedJobs, FrameworkProfile, JobStage, JobTimes, TimesOfJob, Trace},
    profile::{
        Bounds, ConsumerPending, Delivery, FollowUp, Idleness, Interpretation, Observed, Profile, QueueReader,
        QueueSpec, Scripts, explain,
    },
    stream::group_position,
};

/// What a queue's key holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum QueueKind {
    /// A stream read through a consumer group.
    #[default]
    Stream,
    /// A list whose length is the backlog.
    List,
    /// The queues of a job framework, each of several keys. Set by `framework`.
    #[serde(skip)]
    Framework(Framework),
}

impl QueueKind {
    /// Every kind whose queue is a single key.
    pub const ALL: [Self; 2] = [Self::Stream, Self::List];

    /// Returns the description of this kind.
    pub fn profile(self) -> &'static dyn Profile {
        match self {
            Self::Stream => &stream::Stream,
            Self::List => &list::List,
            Self::Framework(framework) => framework.kind(),
        }
    }
}

impl Deref for QueueKind {
    type Target = dyn Profile;

    fn deref(&self) -> &Self::Target {
        self.profile()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn kinds_are_told_apart_by_their_words_and_their_arrivals() {
        let frameworks = Framework::ALL.map(QueueKind::Framework);
        let names: BTreeSet<_> = QueueKind::ALL.iter().chain(&frameworks).map(|kind| kind.name()).collect();
        assert_eq!(names.len(), QueueKind::ALL.len() + frameworks.len());
        for kind in QueueKind::ALL {
            assert_eq!(serde_json::to_value(kind).expect("it is a word"), kind.name());
            assert!(!kind.arrival_events().is_empty(), "{kind:?}");
            let spec = QueueSpec::new("q", "g", kind);
            assert!(!kind.reader(&spec).commands(&spec, Scripts::ReadOnly).is_empty(), "{kind:?}");
            assert!(!kind.rights("g").is_empty(), "{kind:?}");
        }
    }
}
