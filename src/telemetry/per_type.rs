//! The metrics of worker types. They are rendered from the snapshots on each scrape instead of recorded: ten thousand
//! worker types would keep more than a hundred thousand series in memory between scrapes.

use std::{collections::BTreeMap, fmt::Write, sync::Arc};

use metrics_exporter_prometheus::formatting::{sanitize_label_value, write_help_line, write_type_line};

use super::metric::{self, Kind};
use crate::model::{
    PoolCounts, Reading,
    control::Mode,
    snapshot::{DeadLetterCounts, TypeSnapshot},
};

/// A metric that every worker type has.
pub(super) struct Family {
    name: &'static str,
    value: Value,
}

/// How a metric is read from a snapshot.
enum Value {
    /// One number. An unknown value is NaN, never 0.
    One(fn(&TypeSnapshot) -> f64),
    /// One number for each kind of decision that was made.
    Decisions,
    /// One number for each status that a worker of the pool has.
    Workers,
    /// The number of dead letters, which a snapshot does not have; nothing while it is unknown.
    DeadLetters,
}

/// All metrics of worker types.
pub(super) const FAMILIES: [Family; 23] = [
    Family { name: metric::EVALUATIONS, value: Value::One(|seen| float(seen.evaluations)) },
    Family { name: metric::DECISIONS, value: Value::Decisions },
    Family { name: metric::QUEUE_LAG, value: Value::One(|seen| jobs(&seen.demand.lag)) },
    Family { name: metric::QUEUE_PENDING, value: Value::One(|seen| jobs(&seen.demand.pending)) },
    Family { name: metric::QUEUE_OLDEST_AGE, value: Value::One(oldest_age) },
    Family { name: metric::DEAD_LETTERS, value: Value::DeadLetters },
    Family { name: metric::WORKERS, value: Value::Workers },
    Family { name: metric::WORKER_SECONDS, value: Value::One(|seen| seen.worker_seconds) },
    Family { name: metric::WORKERS_DESIRED, value: Value::One(|seen| f64::from(seen.desired)) },
    Family {
        name: metric::WORKERS_RECOMMENDED,
        value: Value::One(|seen| seen.recommended.map_or(f64::NAN, f64::from)),
    },
    Family {
        name: metric::WORKERS_RUNNING,
        value: Value::One(|seen| pool(seen, |pool| pool.ready + pool.starting + pool.stalled)),
    },
    Family { name: metric::WORKERS_READY, value: Value::One(|seen| pool(seen, |pool| pool.ready)) },
    Family { name: metric::WORKERS_BUSY, value: Value::One(|seen| pool(seen, |pool| pool.busy)) },
    Family { name: metric::WORKERS_STARTING, value: Value::One(|seen| pool(seen, |pool| pool.starting)) },
    Family { name: metric::WORKERS_DRAINING, value: Value::One(|seen| pool(seen, |pool| pool.draining)) },
    Family { name: metric::SESSION_PLACES, value: Value::One(|seen| pool(seen, |pool| pool.places)) },
    Family { name: metric::SESSION_PLACES_TAKEN, value: Value::One(|seen| pool(seen, |pool| pool.places_taken)) },
    Family { name: metric::SESSION_JOBS_WAITING, value: Value::One(|seen| pool(seen, |pool| pool.waiting_for_place)) },
    Family { name: metric::WORKERS_MIN, value: Value::One(|seen| f64::from(seen.min_workers)) },
    Family { name: metric::WORKERS_MAX, value: Value::One(|seen| f64::from(seen.max_workers)) },
    Family { name: metric::WORKERS_ALLOWED, value: Value::One(allowed) },
    Family {
        name: metric::WORKERS_PAUSED,
        value: Value::One(|seen| match mode(seen) {
            Some(Mode::Paused | Mode::PausedIn | Mode::PausedOut | Mode::Observe) => 1.0,
            Some(Mode::Pinned(_)) | None => 0.0,
        }),
    },
    Family {
        name: metric::WORKERS_PINNED,
        value: Value::One(|seen| match mode(seen) {
            Some(Mode::Pinned(workers)) => f64::from(workers),
            Some(Mode::Paused | Mode::PausedIn | Mode::PausedOut | Mode::Observe) | None => f64::NAN,
        }),
    },
];

impl Family {
    /// Renders the metric in the Prometheus text format; empty without a worker type.
    pub(super) fn render(&self, worker_types: &[Arc<TypeSnapshot>], dead_letters: &DeadLetterCounts) -> String {
        let mut text = String::new();
        if let Some(metric) = metric::ALL.iter().find(|metric| metric.name == self.name)
            && !worker_types.is_empty()
        {
            let kind = if metric.kind == Kind::Counter { "counter" } else { "gauge" };
            write_help_line(&mut text, metric.name, None, None, metric.help);
            write_type_line(&mut text, metric.name, None, None, kind);
            for snapshot in worker_types {
                self.lines(&mut text, snapshot, dead_letters);
            }
            text.push('\n');
        }
        text
    }

    fn lines(&self, text: &mut String, snapshot: &TypeSnapshot, dead_letters: &DeadLetterCounts) {
        let worker_type = snapshot.worker_type.as_str();
        match self.value {
            Value::One(value) => line(text, self.name, &[("worker_type", worker_type)], value(snapshot)),
            Value::Decisions => {
                for seen in &snapshot.decisions {
                    let (action, reason) = (seen.action.as_str(), seen.reason.as_ref());
                    let labels = [("worker_type", worker_type), ("action", action), ("reason", reason)];
                    line(text, self.name, &labels, float(seen.count));
                }
            }
            Value::DeadLetters => {
                if let Some(letters) = dead_letters.get(worker_type) {
                    line(text, self.name, &[("worker_type", worker_type)], float(*letters));
                }
            }
            Value::Workers => {
                let mut counts = BTreeMap::new();
                for worker in &snapshot.workers {
                    *counts.entry(worker.status.as_str()).or_insert(0) += 1;
                }
                for (state, count) in counts {
                    line(text, self.name, &[("worker_type", worker_type), ("state", state)], float(count));
                }
            }
        }
    }
}

fn line(text: &mut String, name: &str, labels: &[(&str, &str)], value: f64) {
    text.push_str(name);
    for (index, (label, value)) in labels.iter().enumerate() {
        let before = if index == 0 { '{' } else { ',' };
        // Writing to a String can't fail.
        let _ = write!(text, "{before}{label}=\"{}\"", sanitize_label_value(value));
    }
    let _ = writeln!(text, "}} {value}");
}

fn mode(snapshot: &TypeSnapshot) -> Option<Mode> {
    snapshot.control.as_ref().map(|control| control.mode)
}

fn pool(snapshot: &TypeSnapshot, count: impl Fn(&PoolCounts) -> u32) -> f64 {
    snapshot.pool.known().map_or(f64::NAN, |pool| f64::from(count(pool)))
}

fn jobs(reading: &Reading<u64>) -> f64 {
    reading.known().map_or(f64::NAN, |jobs| float(*jobs))
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus knows f64 only; nothing here is counted to 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}

/// Returns the upper bound in force, budget included.
fn allowed(seen: &TypeSnapshot) -> f64 {
    f64::from(seen.allowance.map_or(seen.max_workers, |allowance| allowance.workers.min(seen.max_workers)))
}

/// Returns the age of the oldest unfinished job at the evaluation, in seconds; 0 without an unfinished job, NaN if the
/// age is unknown.
fn oldest_age(snapshot: &TypeSnapshot) -> f64 {
    match (&snapshot.demand.oldest, snapshot.evaluated_at) {
        (Reading::Known(Some(oldest)), Some(now)) => now.since(*oldest).as_secs_f64(),
        (Reading::Known(None), _) => 0.0,
        _ => f64::NAN,
    }
}
