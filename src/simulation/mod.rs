//! What an autoscaler with given settings would have done about given jobs: the real state machine, worker_tracker and
//! policy ([`Actor`](crate::scaler::Actor), [`WorkerTracker`](crate::scaler::WorkerTracker)), driven by a made-up
//! queue, pool and clock.
//!
//! Owns traces of arrivals (read, written, generated), how long services and starts take, the event loop, and what is
//! counted in it. Must not do I/O beyond the reader or writer it is handed, read a clock, or decide anything itself:
//! what it says is worth something because the decisions are the product's own. The same trace, settings and seed give
//! the same report.
//!
//! The simulation jumps from event to event: an arrival, the end of a job or of a start, a sweep, a time that the actor
//! asked for. Observing and asking the backend take no time here; what they take in life is part of the start-up time.

mod engine;
mod generate;
mod pool;
mod random;
mod report;
mod sim_time;
mod stats;
mod times;
mod trace;
mod trace_file;

pub use engine::{Setup, simulate};
pub use generate::{Pattern, Workload, WorkloadError};
pub use report::{Report, ScaleStep, Waits};
pub use sim_time::SimTime;
pub use stats::Bucket;
pub use times::{Times, TimesError, parse_duration, spell};
pub use trace::{Trace, TraceJob, TraceOptions};
pub use trace_file::{Row, RowWriter, TraceError, read};

#[cfg(test)]
mod tests;
