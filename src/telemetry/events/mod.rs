//! One struct for each event, one file for each part of the program that emits them.
//!
//! Labels come from closed sets and configured names. Error text, worker ids and keys go to the log only: a label value
//! that anyone can make up is memory that anyone can take.

mod backend;
mod discord;
mod evaluation;
mod jobs;
mod kubernetes;
mod leadership;
mod redis;
mod reload;
pub(super) mod signals;
mod worker;

pub use backend::{BackendCall, BackendCalled, BackendFailure, FailureKind, WorkerExited};
pub use discord::{CommandAcknowledged, CommandAnswered, CommandOutcome, GatewayOddity, ShardChange, ShardChanged};
pub use evaluation::{
    EvaluationFinished, ReactionMeasured, RecordWaits, RecordingFailed, ScalingOutcome, ScalingRecorded, Stage,
};
pub use jobs::{DeadReason, DelayedMoved, JobBuried, JobRetried, StreamTrimmed};
pub use kubernetes::{NoticeFailed, PodRejected, PodRejectionsEnded, ScalingRefused, WatchBroken};
pub use leadership::{LateRecord, LeadershipChanged};
pub use redis::{ProbeFailed, RedisReachable, RedisUnreachable, RedisWrites};
pub use reload::{ConfigLoaded, ConfigReloaded};
pub use signals::{SignalsReceived, SourceChanged, SweepFinished};
pub use worker::{JobMetrics, JobOutcome, JobWorked, WorkerLoad};

use metrics::SharedString;

use crate::model::WorkerType;

/// A duration as a field of the log: in milliseconds, to a microsecond.
fn milliseconds(duration: std::time::Duration) -> f64 {
    let microseconds = u32::try_from(duration.as_micros()).unwrap_or(u32::MAX);
    f64::from(microseconds) / 1e3
}

/// A worker type as a label value.
fn label(worker_type: &WorkerType) -> SharedString {
    SharedString::from_owned(worker_type.as_str().to_owned())
}
