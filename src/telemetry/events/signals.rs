//! Events of the signal sources and the sweep.
#![expect(clippy::disallowed_macros, reason = "`telemetry` is where metrics are emitted")]

use std::{sync::OnceLock, time::Duration};

use metrics::{Counter, counter, gauge, histogram};
use tracing::{debug, info, warn};

use super::milliseconds;
use crate::{
    model::{Source, snapshot::SourceState},
    telemetry::metric,
};

/// One counter for each source, at its discriminant.
pub(in crate::telemetry) type SignalCounters = [Counter; Source::ALL.len()];

/// The counters of the process's recorder; none while nothing is installed.
static COUNTERS: OnceLock<SignalCounters> = OnceLock::new();

/// Counters in the recorder in force.
pub(in crate::telemetry) fn register() -> SignalCounters {
    Source::ALL.map(|source| counter!(metric::SIGNALS, "source" => source.as_str()))
}

/// Makes [`SignalsReceived`] count in the recorder in force from now on.
pub(in crate::telemetry) fn install() {
    COUNTERS.get_or_init(register);
}

/// Hints to look at a queue came in. Emitted up to hundreds of thousands of times a second: one atomic addition, no log.
#[derive(Clone, Copy, Debug)]
pub struct SignalsReceived {
    /// From where.
    pub source: Source,
    /// How many.
    pub count: u64,
}

impl SignalsReceived {
    /// Counts them. Does nothing while no recorder is installed.
    pub fn emit(self) {
        if let Some(counters) = COUNTERS.get() {
            counters[self.source as usize].increment(self.count);
        }
    }
}

/// A signal source changed its state. To be emitted on a change only.
#[derive(Clone, Copy, Debug)]
pub struct SourceChanged<'a> {
    /// Which.
    pub source: Source,
    /// How it does now.
    pub state: SourceState,
    /// In words: why it is off or down, or how it was set up.
    pub detail: &'a str,
}

impl SourceChanged<'_> {
    /// Logs it and sets `swarm_source_up`.
    pub fn emit(self) {
        let Self { source, state, detail } = self;
        let name = source.as_str();
        let up = match state {
            SourceState::Up => 1.0,
            SourceState::Down | SourceState::Connecting => 0.0,
            SourceState::Off => f64::NAN,
        };
        gauge!(metric::SOURCE_UP, "source" => name).set(up);
        match state {
            SourceState::Up => info!(source = name, "signal source is up: {detail}"),
            SourceState::Down => warn!(source = name, "signal source is down: {detail}"),
            SourceState::Off => info!(source = name, "signal source is off: {detail}"),
            SourceState::Connecting => debug!(source = name, "signal source is connecting: {detail}"),
        }
    }
}

/// Every queue was looked at once.
#[derive(Clone, Copy, Debug)]
pub struct SweepFinished {
    /// How many queues.
    pub queues: usize,
    /// How long it took.
    pub elapsed: Duration,
    /// Evaluations that changed something which no signal had told of.
    pub drift: u64,
}

impl SweepFinished {
    /// Measures it; logs at `info` if drift was found, since then a signal source misses something.
    pub fn emit(self) {
        let Self { queues, elapsed, drift } = self;
        histogram!(metric::SWEEP).record(elapsed);
        counter!(metric::SWEEP_DRIFT).increment(drift);
        if drift > 0 {
            info!(
                queues,
                drift,
                elapsed_ms = milliseconds(elapsed),
                "sweep repaired {drift} of {queues} queues that no signal had told of"
            );
        } else {
            debug!(queues, elapsed_ms = milliseconds(elapsed), "sweep found no drift");
        }
    }
}
