//! The periodic reconciliation: every worker type gets a hint, whatever the other sources said. It walks exactly the
//! path of any other signal.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Directory;
use crate::{model::Source, telemetry::SweepFinished};

/// Knows when all worker types have answered a sweep.
#[derive(Debug, Default)]
pub struct SweepMonitor {
    left: AtomicUsize,
    drift: AtomicU64,
    started: Mutex<Option<(Instant, usize)>>,
}

impl SweepMonitor {
    fn begin(&self, queues: usize) {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        *started = Some((Instant::now(), queues));
        self.drift.store(0, Ordering::Relaxed);
        self.left.store(queues, Ordering::Release);
    }

    /// One worker type has been evaluated because of the sweep. `drift`: it needed more workers and no other signal
    /// had said so.
    pub fn answered(&self, drift: bool) {
        if drift {
            self.drift.fetch_add(1, Ordering::Relaxed);
        }
        let before = self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1));
        if before == Ok(1)
            && let Some((at, queues)) = self.started.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            SweepFinished { queues, elapsed: at.elapsed(), drift: self.drift.load(Ordering::Relaxed) }.emit();
        }
    }
}

/// Posts to every worker type once per interval until cancelled. The first sweep comes one interval after the start:
/// the resync of the first connection has already looked at everything.
pub async fn run_sweep(
    directory: Arc<Directory>,
    monitor: Arc<SweepMonitor>,
    interval: Duration,
    cancel: CancellationToken,
) {
    let mut ticks = tokio::time::interval_at(Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while cancel.run_until_cancelled(ticks.tick()).await.is_some() {
        monitor.begin(directory.watched().len());
        directory.post_all(Source::Sweep);
    }
}
