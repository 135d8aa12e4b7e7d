//! Says on Redis that an autoscaler runs, and what it thinks of the worker types that have unfinished jobs: for whoever
//! waits for an answer and gets none. Reads snapshots; nothing reads its keys to decide anything.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use redis::Pipeline;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::{
    connection::{Connection, RedisTarget},
    model::{
        keys,
        snapshot::{StatusSource, TypeSnapshot},
    },
};

/// Between two reports: a waiter that gives up sees what was so at most this long ago.
const INTERVAL: Duration = Duration::from_secs(2);
/// After so long without a report the autoscaler counts as gone.
const LAPSE: Duration = Duration::from_secs(10);
/// Worker types in one report: some milliseconds of the server's time. With more in trouble than that, some are not
/// explained.
const MAX_TYPES: usize = 1_000;

/// Writes the reports of one autoscaler.
pub struct Reporter {
    target: Arc<RedisTarget>,
    instance: String,
    status: Arc<dyn StatusSource>,
    trouble: Arc<AtomicBool>,
}

impl Reporter {
    /// Of what `status` shows. Its worker types are gone through only after `trouble` was set, and for as long as there
    /// is something to tell: with thousands of idle ones that would be most of what an idle autoscaler does.
    pub fn new(target: Arc<RedisTarget>, status: Arc<dyn StatusSource>, trouble: Arc<AtomicBool>) -> Self {
        Self { target, instance: status.fleet().instance, status, trouble }
    }

    /// Reports each interval until cancelled; then takes the sign of life back.
    pub async fn run(self, cancel: CancellationToken) {
        let mut connection = None;
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failing = false;
        let mut unfinished: Vec<Arc<TypeSnapshot>> = Vec::new();
        while cancel.run_until_cancelled(ticks.tick()).await.is_some() {
            if self.trouble.swap(false, Ordering::AcqRel) || !unfinished.is_empty() {
                let fleet = self.status.fleet().worker_types.into_iter();
                unfinished = fleet.filter(|of| of.is_unfinished()).take(MAX_TYPES).collect();
            }
            match self.send(&mut connection, &report(&self.instance, &unfinished)).await {
                Ok(()) => failing = false,
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(error, "can't report to redis: waiters can't tell that an autoscaler runs");
                    }
                    connection = None;
                }
            }
        }
        let mut farewell = redis::pipe();
        farewell.cmd("DEL").arg(keys::SCALER_ALIVE).ignore();
        if let Err(error) = self.send(&mut connection, &farewell).await {
            tracing::debug!(error, "the sign of life expires by itself");
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

fn report(instance: &str, unfinished: &[Arc<TypeSnapshot>]) -> Pipeline {
    let mut pipeline = redis::pipe();
    let lapse = LAPSE.as_millis().to_string();
    pipeline.cmd("SET").arg(keys::SCALER_ALIVE).arg(instance).arg("PX").arg(&lapse).ignore();
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
