//! The gauges of one worker type.
#![expect(clippy::disallowed_macros, reason = "`telemetry` is where metrics are emitted")]

use std::sync::Arc;

use metrics::{Gauge, SharedString, gauge};

use super::metric;
use crate::model::{PoolCounts, Reading, WorkerType, snapshot::TypeSnapshot};

/// The gauges, in the order of [`values`].
const NAMES: [&str; 11] = [
    metric::QUEUE_LAG,
    metric::QUEUE_PENDING,
    metric::QUEUE_OLDEST_AGE,
    metric::WORKERS_DESIRED,
    metric::WORKERS_RUNNING,
    metric::WORKERS_READY,
    metric::WORKERS_BUSY,
    metric::WORKERS_STARTING,
    metric::WORKERS_DRAINING,
    metric::WORKERS_MIN,
    metric::WORKERS_MAX,
];

/// The gauges of one worker type, owned by whoever evaluates it.
///
/// A gauge comes into being with its first value other than 0, so an idle type costs next to nothing: with 10,000 worker
/// types most gauges never exist. An absent gauge therefore means "0 since the start". What is not known is NaN, never 0.
#[derive(Debug)]
pub struct TypeGauges {
    worker_type: SharedString,
    handles: [Option<Gauge>; NAMES.len()],
}

impl TypeGauges {
    /// The gauges of `worker_type`; none of them exists yet.
    pub fn register(worker_type: &WorkerType) -> Self {
        Self {
            worker_type: SharedString::from_shared(Arc::from(worker_type.as_str())),
            handles: [const { None }; NAMES.len()],
        }
    }

    /// Shows what the last evaluation saw and decided.
    pub fn set(&mut self, snapshot: &TypeSnapshot) {
        for ((handle, name), value) in self.handles.iter_mut().zip(NAMES).zip(values(snapshot)) {
            // NaN is not 0, so what is not known always shows.
            if handle.is_some() || value != 0.0 {
                handle.get_or_insert_with(|| gauge!(name, "worker_type" => self.worker_type.clone())).set(value);
            }
        }
    }
}

/// The values, in the order of [`NAMES`].
fn values(snapshot: &TypeSnapshot) -> [f64; NAMES.len()] {
    let pool = |count: fn(&PoolCounts) -> u32| snapshot.pool.known().map_or(f64::NAN, |pool| f64::from(count(pool)));
    [
        jobs(&snapshot.demand.lag),
        jobs(&snapshot.demand.pending),
        oldest_age(snapshot),
        f64::from(snapshot.desired),
        pool(|pool| pool.ready + pool.starting + pool.stalled),
        pool(|pool| pool.ready),
        pool(|pool| pool.busy),
        pool(|pool| pool.starting),
        pool(|pool| pool.draining),
        f64::from(snapshot.min_workers),
        f64::from(snapshot.max_workers),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is an f64; 2^53 jobs fit in no Redis")]
fn jobs(reading: &Reading<u64>) -> f64 {
    reading.known().map_or(f64::NAN, |jobs| *jobs as f64)
}

/// Age in seconds of the oldest unfinished job at the evaluation; 0 if there is none.
fn oldest_age(snapshot: &TypeSnapshot) -> f64 {
    match (&snapshot.demand.oldest, snapshot.evaluated_at) {
        (Reading::Known(Some(oldest)), Some(now)) => now.since(*oldest).as_secs_f64(),
        (Reading::Known(None), _) => 0.0,
        _ => f64::NAN,
    }
}
