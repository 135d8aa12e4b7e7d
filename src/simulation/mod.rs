//! Simulates what an autoscaler with given settings would have done about given jobs: the real state machine, worker
//! tracker and policy ([`Actor`](crate::scaler::Actor), [`WorkerTracker`](crate::scaler::WorkerTracker)) run on a
//! simulated queue, pool and clock.
//!
//! Owns traces of arrivals (read, written, generated), the distributions of service and start-up times, the event loop,
//! and the statistics. Must not do I/O beyond the reader or writer it is handed, read a clock, or make a decision: a
//! simulation is worth something because the decisions are the product's own. The same trace, settings and seed give
//! the same report.
//!
//! The simulation jumps from event to event: an arrival, the end of a job or of a start, a sweep, a time that the actor
//! asked for. Observing and asking the backend take no simulated time; their real duration is part of the start-up
//! time.

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
pub use report::{Report, ScaleStep, Waits, nearest_rank};
pub use sim_time::SimTime;
pub use stats::Bucket;
pub use times::{DurationError, Times, TimesError, parse_duration, spell};
pub use trace::{Trace, TraceJob, TraceOptions};
pub use trace_file::{Row, RowWriter, TraceError, read};

#[cfg(test)]
mod tests;
