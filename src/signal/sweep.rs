//! The periodic reconciliation: every worker type gets a signal, whatever the other sources sent. It takes the same
//! path as any other signal.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{Directories, Directory};
use crate::{
    model::Source,
    telemetry::{SignalsReceived, SweepFinished},
};

/// Worker types in one slice of a sweep, and the pause before the next slice: a job that arrives during a sweep waits
/// behind the probes of one slice, not of ten thousand queues. The pause is about the time that a slice takes.
const SWEEP_SLICE: usize = 128;
const SLICE_PAUSE: Duration = Duration::from_millis(2);

/// Tracks when all worker types have been evaluated after a sweep.
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

    /// Records that one worker type was evaluated because of the sweep. `drift`: it needed more workers, and no other
    /// signal had announced that.
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
/// the resync of the first connection has evaluated everything.
pub async fn run_sweep(
    directories: Arc<Directories>,
    monitor: Arc<SweepMonitor>,
    interval: Duration,
    cancel: CancellationToken,
) {
    let mut ticks = tokio::time::interval_at(Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while cancel.run_until_cancelled(ticks.tick()).await.is_some() {
        monitor.begin(directories.worker_types().count());
        for directory in directories.all() {
            if cancel.run_until_cancelled(post_in_slices(directory)).await.is_none() {
                return;
            }
        }
    }
}

async fn post_in_slices(directory: &Directory) {
    let indices: Vec<u32> = (0_u32..).take(directory.watched().len()).collect();
    for (number, slice) in indices.chunks(SWEEP_SLICE).enumerate() {
        if number > 0 {
            tokio::time::sleep(SLICE_PAUSE).await;
        }
        for index in slice {
            directory.post(*index, Source::Sweep);
        }
        SignalsReceived { source: Source::Sweep, count: slice.len() as u64 }.emit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::WorkerType, signal::WatchedType};

    #[tokio::test(start_paused = true)]
    async fn every_worker_type_is_posted_to_once_per_interval() {
        let watched = |number: usize| WatchedType {
            worker_type: WorkerType::new(format!("t{number}")),
            queue: format!("t{number}:jobs").into(),
            kind: crate::queue_kind::QueueKind::Stream,
            several: None,
            signals: None,
        };
        let directory = Arc::new(Directory::new((0..200).map(watched).collect()));
        let cancel = CancellationToken::new();
        let directories = Directories::new(vec![directory.clone()]);
        let sweep = run_sweep(directories, Arc::default(), Duration::from_secs(30), cancel.clone());
        let task = tokio::spawn(sweep);
        let take = |index| {
            let signals = directory.mailbox(index).take();
            directory.mailbox(index).observing();
            signals
        };
        let taken = || (0..200).filter_map(take).count();
        tokio::time::sleep(Duration::from_secs(29)).await;
        assert_eq!(taken(), 0, "the first sweep comes after one interval");
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_secs(30)).await;
            assert_eq!(taken(), 200);
        }
        cancel.cancel();
        task.await.expect("ends when cancelled");
    }
}
