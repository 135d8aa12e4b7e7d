//! Reports the autoscaler's view of the worker types that have unfinished jobs, for publishers that wait for a result
//! that does not come. Reads snapshots; no part reads these keys to decide anything.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use redis::Pipeline;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::{
    connection::{Connection, RedisTarget},
    model::{
        keys,
        snapshot::{StatusSource, TypeSnapshot},
    },
};

/// Interval between two reports: a waiter that gives up reads a state that is at most this old.
const INTERVAL: Duration = Duration::from_secs(2);
/// TTL of a report: without a new report for this long, the autoscaler counts as gone.
const LAPSE: Duration = Duration::from_secs(10);
/// Maximum worker types in one report; they take some milliseconds of the server's time. If more are in trouble, some
/// are not explained.
const MAX_TYPES: usize = 1_000;

/// Writes the reports of one autoscaler.
pub struct Reporter {
    target: Arc<RedisTarget>,
    status: Arc<dyn StatusSource>,
    trouble: Arc<AtomicBool>,
}

impl Reporter {
    /// Returns a reporter of `status`. It examines the worker types only after `trouble` was set, and while there is
    /// something to report: with thousands of idle types, that examination would be most of what an idle autoscaler
    /// does.
    pub fn new(target: Arc<RedisTarget>, status: Arc<dyn StatusSource>, trouble: Arc<AtomicBool>) -> Self {
        Self { target, status, trouble }
    }

    /// Reports at each interval until cancelled.
    pub async fn run(self, cancel: CancellationToken) {
        let mut connection = None;
        // At the start nothing was evaluated yet, and unknown is not unfinished.
        let mut ticks = tokio::time::interval_at(Instant::now() + INTERVAL, INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failing = false;
        let mut unfinished: Vec<Arc<TypeSnapshot>> = Vec::new();
        while cancel.run_until_cancelled(ticks.tick()).await.is_some() {
            if self.trouble.swap(false, Ordering::AcqRel) || !unfinished.is_empty() {
                let fleet = self.status.fleet().worker_types.into_iter();
                unfinished = fleet.filter(|of| of.is_unfinished()).take(MAX_TYPES).collect();
            }
            if unfinished.is_empty() {
                // A connection that is not used would stay open without being noticed when it is lost.
                connection = None;
                continue;
            }
            match self.send(&mut connection, &report(&unfinished)).await {
                Ok(()) => failing = false,
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(
                            error,
                            "report to redis failed, waiting publishers can't see what the autoscaler wants"
                        );
                    }
                    connection = None;
                }
            }
        }
    }

    async fn send(&self, connection: &mut Option<Connection>, report: &Pipeline) -> Result<(), String> {
        let connection = match connection {
            Some(connection) => connection,
            None => connection.insert(self.target.connect().await.map_err(|error| error.to_string())?),
        };
        report.exec_async(connection).await.map_err(|error| error.to_string())
    }
}

fn report(unfinished: &[Arc<TypeSnapshot>]) -> Pipeline {
    let mut pipeline = redis::pipe();
    let lapse = LAPSE.as_millis().to_string();
    for of in unfinished {
        let key = keys::scaler_report(&of.worker_type);
        pipeline.cmd("HSET").arg(&key).arg(&fields(of)).ignore();
        pipeline.cmd("PEXPIRE").arg(&key).arg(&lapse).ignore();
    }
    pipeline
}

fn fields(of: &TypeSnapshot) -> [(&'static str, String); 4] {
    [
        ("headline", of.reasons.first().cloned().unwrap_or_default()),
        ("desired", of.desired.to_string()),
        ("max_workers", of.max_workers.to_string()),
        ("backend_error", of.backend_error.clone().unwrap_or_default()),
    ]
}
