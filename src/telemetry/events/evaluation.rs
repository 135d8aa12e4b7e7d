//! Events of a worker type's evaluation: its decision, its reaction times, its record.
#![expect(clippy::disallowed_macros, reason = "`telemetry` is where metrics are emitted")]

use std::time::Duration;

use metrics::{counter, gauge, histogram};
use tracing::{debug, info, warn};

use super::{label, milliseconds};
use crate::{
    model::{Source, WorkerType, snapshot::Action},
    telemetry::metric,
};

/// A worker type was evaluated.
#[derive(Clone, Copy, Debug)]
pub struct EvaluationFinished<'a> {
    /// Worker type that was evaluated.
    pub worker_type: &'a WorkerType,
    /// What the decision changes.
    pub action: Action,
    /// Rule that decided last, from the policy's closed set: a label value.
    pub reason: &'static str,
    /// Decision in words.
    pub headline: &'a str,
    /// Signals that led to the evaluation.
    pub sources: &'a [Source],
    /// Whether this autoscaler carries out the decision, or would without `dry_run`; false on a standby.
    pub acts: bool,
    /// Whether the same decision was made before and could not be carried out.
    pub retries: bool,
    /// Whether the observation or the decision differs from the previous one.
    pub changed: bool,
}

impl EvaluationFinished<'_> {
    /// Logs the decision. A decision that scales is one `info` line, the headline. A hold, a standby's decision, or a
    /// decision that failed before is `debug` if something changed, else `trace`. The snapshot counts the decision.
    pub fn emit(self) {
        let Self { worker_type, action, reason, headline, sources, acts, retries, changed } = self;
        let action = action.as_str();
        // A closure, because at `info` most evaluations log nothing and need no names.
        let names = || sources.iter().map(|source| source.as_str()).collect::<Vec<_>>().join(",");
        if acts && !retries {
            info!(%worker_type, action, reason, sources = names(), "{headline}");
        } else if changed {
            debug!(%worker_type, action, reason, sources = names(), "{headline}");
        } else {
            tracing::trace!(%worker_type, action, reason, sources = names(), "{headline}");
        }
    }
}

/// Stage of a reaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The decision was made.
    Decided,
    /// The backend had answered the request.
    Requested,
    /// The first of the new workers was ready.
    Running,
}

impl Stage {
    /// Returns the name in metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Decided => "decided",
            Self::Requested => "requested",
            Self::Running => "running",
        }
    }
}

/// A reaction reached a stage.
///
/// The histogram has no label for the worker type: with one, each type and stage would have 18 series, which is more
/// than half a million for 10,000 types. `swarm status` and `/status` show the last reaction of each type.
#[derive(Clone, Copy, Debug)]
pub struct ReactionMeasured<'a> {
    /// Worker type that reacts, for the log.
    pub worker_type: &'a WorkerType,
    /// Stage that the reaction reached.
    pub stage: Stage,
    /// Time since the first signal that led to the reaction.
    pub elapsed: Duration,
}

impl ReactionMeasured<'_> {
    /// Records the time.
    pub fn emit(self) {
        let Self { worker_type, stage, elapsed } = self;
        let stage = stage.as_str();
        histogram!(metric::REACTION, "stage" => stage).record(elapsed);
        debug!(%worker_type, stage, elapsed_ms = milliseconds(elapsed), "reaction measured");
    }
}

/// How a change of a pool ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScalingOutcome {
    /// The backend carried out the whole request.
    Done,
    /// The backend failed, possibly after a part of the request.
    Failed,
}

impl ScalingOutcome {
    /// Returns the name in metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

/// A change of a pool was written to `scaling:events`.
#[derive(Clone, Copy, Debug)]
pub struct ScalingRecorded<'a> {
    /// Worker type whose pool changed.
    pub worker_type: &'a WorkerType,
    /// Direction of the change.
    pub action: Action,
    /// Workers before.
    pub from: u32,
    /// Workers after.
    pub to: u32,
    /// How the change ended.
    pub outcome: ScalingOutcome,
    /// Records that still wait to be written.
    pub waiting: usize,
}

impl ScalingRecorded<'_> {
    /// Counts the change.
    pub fn emit(self) {
        let Self { worker_type, action, from, to, outcome, waiting } = self;
        count_scaling(worker_type, action, outcome);
        show_waiting(waiting);
        debug!(%worker_type, action = action.as_str(), from, to, outcome = outcome.as_str(), "scaling recorded");
    }
}

/// A change of a pool was carried out or tried, and could not be written to `scaling:events`.
#[derive(Clone, Copy, Debug)]
pub struct RecordingFailed<'a> {
    /// Worker type whose pool changed.
    pub worker_type: &'a WorkerType,
    /// Direction of the change.
    pub action: Action,
    /// Workers before.
    pub from: u32,
    /// Workers after.
    pub to: u32,
    /// How the change ended.
    pub outcome: ScalingOutcome,
    /// Why the record could not be written.
    pub error: &'a str,
}

impl RecordingFailed<'_> {
    /// Counts the change and the failure; the log line contains what the record would have contained.
    pub fn emit(self) {
        let Self { worker_type, action, from, to, outcome, error } = self;
        count_scaling(worker_type, action, outcome);
        counter!(metric::RECORDING_FAILURES).increment(1);
        let (action, outcome) = (action.as_str(), outcome.as_str());
        warn!(%worker_type, action, from, to, outcome, error, "scaling could not be written to scaling:events");
    }
}

/// A change of a pool can't be written to `scaling:events` yet; its record is kept and the write retried.
#[derive(Clone, Copy, Debug)]
pub struct RecordWaits<'a> {
    /// Worker type whose pool changed.
    pub worker_type: &'a WorkerType,
    /// Records that wait, including this one.
    pub waiting: usize,
    /// Why the record can't be written.
    pub error: &'a str,
    /// Whether this is the first failure since the last record was written.
    pub news: bool,
}

impl RecordWaits<'_> {
    /// Sets the gauge of waiting records, and warns of the first failure.
    pub fn emit(self) {
        let Self { worker_type, waiting, error, news } = self;
        show_waiting(waiting);
        if news {
            warn!(%worker_type, waiting, error, "scaling can't be written to scaling:events yet; its record is kept and tried again");
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a few thousand at most")]
fn show_waiting(waiting: usize) {
    gauge!(metric::RECORDS_WAITING).set(waiting as f64);
}

fn count_scaling(worker_type: &WorkerType, action: Action, outcome: ScalingOutcome) {
    counter!(
        metric::SCALING_EVENTS,
        "worker_type" => label(worker_type), "action" => action.as_str(), "outcome" => outcome.as_str()
    )
    .increment(1);
}
