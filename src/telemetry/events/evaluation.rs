//! Events of a worker type's evaluation: decided, how fast, recorded.
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
    /// Which.
    pub worker_type: &'a WorkerType,
    /// What was decided.
    pub action: Action,
    /// The rule that had the last word, from the policy's closed set: a label value.
    pub reason: &'static str,
    /// The decision in words.
    pub headline: &'a str,
    /// What led to the evaluation.
    pub sources: &'a [Source],
    /// Whether this autoscaler carries it out, or would without `dry_run`; not for a standby.
    pub acts: bool,
    /// Whether it saw or decided something else than the one before.
    pub changed: bool,
}

impl EvaluationFinished<'_> {
    /// Logs it: one `info` line for a decision that scales, the headline; a hold, or a standby's decision, is `debug` if something changed, else
    /// `trace`. It is counted in the snapshot.
    pub fn emit(self) {
        let Self { worker_type, action, reason, headline, sources, acts, changed } = self;
        let action = action.as_str();
        // A closure: at `info` most evaluations log nothing, and need no words.
        let names = || sources.iter().map(|source| source.as_str()).collect::<Vec<_>>().join(",");
        if acts {
            info!(%worker_type, action, reason, sources = names(), "{headline}");
        } else if changed {
            debug!(%worker_type, action, reason, sources = names(), "{headline}");
        } else {
            tracing::trace!(%worker_type, action, reason, sources = names(), "{headline}");
        }
    }
}

/// How far a reaction has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The decision was made.
    Decided,
    /// The backend was asked and had answered.
    Requested,
    /// The first of the new workers was ready.
    Running,
}

impl Stage {
    /// The name in metric labels.
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
/// The histogram has no label for the worker type: it would be 18 series for each type and stage, more than half a
/// million with 10,000 types. `swarm status` and `/status` show the last reaction of each type.
#[derive(Clone, Copy, Debug)]
pub struct ReactionMeasured<'a> {
    /// Whose, for the log.
    pub worker_type: &'a WorkerType,
    /// How far.
    pub stage: Stage,
    /// Time since the first signal that led to it.
    pub elapsed: Duration,
}

impl ReactionMeasured<'_> {
    /// Measures it.
    pub fn emit(self) {
        let Self { worker_type, stage, elapsed } = self;
        let stage = stage.as_str();
        histogram!(metric::REACTION, "stage" => stage).record(elapsed);
        debug!(%worker_type, stage, elapsed_ms = milliseconds(elapsed), "reaction measured");
    }
}

/// How a scaling ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScalingOutcome {
    /// The backend did all that it was asked.
    Done,
    /// The backend failed, perhaps after doing a part.
    Failed,
}

impl ScalingOutcome {
    /// The name in metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

/// A scaling was written to `scaling:events`.
#[derive(Clone, Copy, Debug)]
pub struct ScalingRecorded<'a> {
    /// Whose.
    pub worker_type: &'a WorkerType,
    /// Which way.
    pub action: Action,
    /// Workers before.
    pub from: u32,
    /// Workers after.
    pub to: u32,
    /// How it ended.
    pub outcome: ScalingOutcome,
    /// Records that still wait.
    pub waiting: usize,
}

impl ScalingRecorded<'_> {
    /// Counts it.
    pub fn emit(self) {
        let Self { worker_type, action, from, to, outcome, waiting } = self;
        count_scaling(worker_type, action, outcome);
        show_waiting(waiting);
        debug!(%worker_type, action = action.as_str(), from, to, outcome = outcome.as_str(), "scaling recorded");
    }
}

/// A scaling was carried out or tried, and could not be written to `scaling:events`.
#[derive(Clone, Copy, Debug)]
pub struct RecordingFailed<'a> {
    /// Whose.
    pub worker_type: &'a WorkerType,
    /// Which way.
    pub action: Action,
    /// Workers before.
    pub from: u32,
    /// Workers after.
    pub to: u32,
    /// How the scaling ended.
    pub outcome: ScalingOutcome,
    /// Why it could not be written.
    pub error: &'a str,
}

impl RecordingFailed<'_> {
    /// Counts the scaling and the failure; the log line holds what the record would have told.
    pub fn emit(self) {
        let Self { worker_type, action, from, to, outcome, error } = self;
        count_scaling(worker_type, action, outcome);
        counter!(metric::RECORDING_FAILURES).increment(1);
        let (action, outcome) = (action.as_str(), outcome.as_str());
        warn!(%worker_type, action, from, to, outcome, error, "scaling could not be written to scaling:events");
    }
}

/// A scaling can't be written to `scaling:events` yet; its record waits and is tried again.
#[derive(Clone, Copy, Debug)]
pub struct RecordWaits<'a> {
    /// Whose.
    pub worker_type: &'a WorkerType,
    /// Records that wait, this one included.
    pub waiting: usize,
    /// Why it can't be written.
    pub error: &'a str,
    /// Whether this is the first failure since the last record was written.
    pub news: bool,
}

impl RecordWaits<'_> {
    /// Shows how many wait, and warns of the first failure.
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
