//! Waiting for a worker that was asked to take no more jobs: it gets its last signal when it says that it has none. The
//! backend signals; who watches knows what workers say, and where.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::{Instant, sleep, timeout};

use crate::model::{WorkerId, WorkerType};

/// Time between two questions about a worker.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Knows what workers that were asked to take no more jobs say about themselves.
#[async_trait]
pub trait QuietWatch: Send + Sync + 'static {
    /// Returns whether a worker has said, since it was asked this long ago, that it takes no more jobs and has none.
    /// `false` if that is unknown.
    async fn is_done(&self, worker_type: &WorkerType, id: &WorkerId, asked_for: Duration) -> bool;
}

/// The watch of a backend. Until it is [set](Self::set), nothing is known of any worker.
#[derive(Default)]
pub(super) struct QuietWorkers(OnceLock<Arc<dyn QuietWatch>>);

impl QuietWorkers {
    /// From now on this one is asked; the first one stays.
    pub(super) fn set(&self, watch: Arc<dyn QuietWatch>) {
        let _ = self.0.set(watch);
    }

    /// Waits until a worker that has just been asked says that it is done. Returns whether it did so within the time.
    pub(super) async fn until_done(&self, worker_type: &WorkerType, id: &WorkerId, within: Duration) -> bool {
        let asked_at = Instant::now();
        let done = async {
            loop {
                sleep(POLL_INTERVAL).await;
                if let Some(watch) = self.0.get()
                    && watch.is_done(worker_type, id, asked_at.elapsed()).await
                {
                    return;
                }
            }
        };
        timeout(within, done).await.is_ok()
    }
}

impl fmt::Debug for QuietWorkers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("QuietWorkers").field(&self.0.get().is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Says that every worker is done from a time on.
    struct DoneAfter(Duration, Mutex<u32>);

    #[async_trait]
    impl QuietWatch for DoneAfter {
        async fn is_done(&self, _: &WorkerType, _: &WorkerId, asked_for: Duration) -> bool {
            *self.1.lock().unwrap() += 1;
            asked_for >= self.0
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_waits_for_the_worker_and_no_longer_than_it_may() {
        let (worker_type, id) = (WorkerType::new("mail"), WorkerId::new("mail-1"));
        let workers = QuietWorkers::default();
        let minute = Duration::from_secs(60);
        assert!(!workers.until_done(&worker_type, &id, minute).await, "nobody knows");
        let watch = Arc::new(DoneAfter(minute, Mutex::default()));
        workers.set(watch.clone());
        let began = Instant::now();
        assert!(workers.until_done(&worker_type, &id, 2 * minute).await);
        assert!(began.elapsed() < minute + 2 * POLL_INTERVAL);
        assert_eq!(*watch.1.lock().unwrap(), 60);
        let began = Instant::now();
        assert!(!workers.until_done(&worker_type, &id, minute / 2).await);
        assert_eq!(began.elapsed(), minute / 2);
    }
}
