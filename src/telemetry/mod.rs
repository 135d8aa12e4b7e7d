//! What the program reports about itself: the set-up of the log, the metrics recorder, and one struct for each event
//! that deserves a log line or a metric. An event's `emit` does both, so that neither is forgotten and a metric's name
//! and labels are written down once. Sees only `model`; makes no decisions; keeps no state except the recorder and
//! handles to it; does no I/O except writing the log.

mod events;
mod log_format;
mod logging;
mod metric;
#[cfg(feature = "autoscaler")]
mod per_type;
#[cfg(feature = "autoscaler")]
mod recorder;
#[cfg(test)]
mod tests;
mod traces;
mod worker_output;

pub use events::{
    BackendCall, BackendCalled, BackendFailure, BudgetConfigured, ConfigLoaded, ConfigReloaded, DeadLettersDropped,
    DeadReason, DelayedMoved, EvaluationFinished, FailureKind, JobBuried, JobMetrics, JobOutcome, JobRetried,
    JobWorked, KedaRequested, LateRecord, LeadershipChanged, NoticeFailed, NotificationOutcome, NotificationSent,
    PodRejected, PodRejectionsEnded, ProbeFailed, QueueServerLeft, ReactionMeasured, RecordWaits, RecordingFailed,
    RedisReachable, RedisUnreachable, RedisWrites, ScalingOutcome, ScalingRecorded, ScalingRefused, SignalsReceived,
    SourceChanged, Stage, StreamTrimmed, SweepFinished, WatchBroken, WorkerExited, WorkerLoad, WorkersAskedAgain,
};
pub use events::{CommandAcknowledged, CommandAnswered, CommandOutcome, GatewayOddity, ShardChange, ShardChanged};
pub use log_format::LogFormat;
pub use logging::{LoggingError, init_logging, init_logging_into, log_format};
#[cfg(feature = "autoscaler")]
pub use recorder::{InstallError, MetricsHandle, install_metrics};
pub use traces::{Acted, Course, JobTraced, Publishing, TRACEPARENT, Traces};
pub use worker_output::WorkerPrinted;
