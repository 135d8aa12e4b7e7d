//! One struct for each event, one file for each part of the program that emits events.
//!
//! Labels come from closed sets and configured names. Error texts, worker ids and keys go to the log only: each new
//! label value costs memory, so nobody outside may be able to invent one.

mod backend;
mod discord;
mod evaluation;
mod jobs;
mod keda;
mod kubernetes;
mod leadership;
mod notify;
mod redis;
mod reload;
pub(super) mod signals;
mod worker;

pub use backend::{BackendCall, BackendCalled, BackendFailure, FailureKind, WorkerExited, WorkersAskedAgain};
pub use discord::{CommandAcknowledged, CommandAnswered, CommandOutcome, GatewayOddity, ShardChange, ShardChanged};
pub use evaluation::{
    EvaluationFinished, ReactionMeasured, RecordWaits, RecordingFailed, ScalingOutcome, ScalingRecorded, Stage,
};
pub use jobs::{DeadLettersDropped, DeadReason, DelayedMoved, JobBuried, JobRetried, StreamTrimmed};
pub use keda::KedaRequested;
pub use kubernetes::{NoticeFailed, PodRejected, PodRejectionsEnded, ScalingRefused, WatchBroken};
pub use leadership::{LateRecord, LeadershipChanged};
pub use notify::{NotificationOutcome, NotificationSent};
pub use redis::{ProbeFailed, QueueServerLeft, RedisReachable, RedisUnreachable, RedisWrites};
pub use reload::{BudgetConfigured, ConfigLoaded, ConfigReloaded};
pub use signals::{SignalsReceived, SourceChanged, SweepFinished};
pub use worker::{JobMetrics, JobOutcome, JobWorked, WorkerLoad};

use metrics::SharedString;

use crate::model::WorkerType;

/// Returns a duration as a log field: in milliseconds, with a resolution of one microsecond.
fn milliseconds(duration: std::time::Duration) -> f64 {
    let microseconds = u32::try_from(duration.as_micros()).unwrap_or(u32::MAX);
    f64::from(microseconds) / 1e3
}

/// Returns a worker type as a label value.
fn label(worker_type: &WorkerType) -> SharedString {
    SharedString::from_owned(worker_type.as_str().to_owned())
}
