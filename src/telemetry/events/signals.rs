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

/// One counter for each source, at the index of its discriminant.
pub(in crate::telemetry) type SignalCounters = [Counter; Source::ALL.len()];

/// The counters in the process's recorder; empty until [`install`].
static COUNTERS: OnceLock<SignalCounters> = OnceLock::new();

/// Registers the counters in the recorder in force.
pub(in crate::telemetry) fn register() -> SignalCounters {
    Source::ALL.map(|source| counter!(metric::SIGNALS, "source" => source.as_str()))
}

/// Binds [`SignalsReceived`] to the recorder in force.
pub(in crate::telemetry) fn install() {
    COUNTERS.get_or_init(register);
}

/// Signals arrived. Emitted up to hundreds of thousands of times a second, so it costs one atomic addition and logs
/// nothing.
#[derive(Clone, Copy, Debug)]
pub struct SignalsReceived {
    /// Origin of the signals.
    pub source: Source,
    /// Number of signals.
    pub count: u64,
}

impl SignalsReceived {
    /// Counts the signals. Does nothing until a recorder is installed.
    pub fn emit(self) {
        if let Some(counters) = COUNTERS.get() {
            counters[self.source as usize].increment(self.count);
        }
    }
}

/// A signal source changed its state. Emitted on a change only.
#[derive(Clone, Copy, Debug)]
pub struct SourceChanged<'a> {
    /// Server of worker types that have their own; `None` for the top-level one.
    pub server: Option<&'a str>,
    /// Source that changed.
    pub source: Source,
    /// New state of the source.
    pub state: SourceState,
    /// Details in words: why the source is off or down, or how it was set up.
    pub detail: &'a str,
}

impl SourceChanged<'_> {
    /// Logs the change and, for the top-level server, sets `swarm_source_up`.
    pub fn emit(self) {
        let Self { server, source, state, detail } = self;
        let name = source.as_str();
        if let Some(server) = server {
            return match state {
                SourceState::Up => info!(server, source = name, "signal source is up: {detail}"),
                SourceState::Down => warn!(server, source = name, "signal source is down: {detail}"),
                _ => debug!(server, source = name, "signal source is {state:?}: {detail}"),
            };
        }
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

/// A sweep read every queue.
#[derive(Clone, Copy, Debug)]
pub struct SweepFinished {
    /// Number of queues.
    pub queues: usize,
    /// Duration of the sweep.
    pub elapsed: Duration,
    /// Evaluations that changed something for which no signal had arrived.
    pub drift: u64,
}

impl SweepFinished {
    /// Records the sweep. Logs at `info` if drift was found, because then a signal source misses events.
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
