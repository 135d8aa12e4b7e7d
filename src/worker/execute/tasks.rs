//! The tasks of a worker's jobs: begun by the run loop, and by tasks that begin several jobs. When the run loop is dropped, so
//! are they.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::task::JoinSet;

/// Tasks of jobs.
#[derive(Default)]
pub(in crate::worker) struct Tasks(Mutex<JoinSet<()>>);

impl Tasks {
    pub(in crate::worker) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.lock().spawn(task);
    }

    /// Forgets those that have ended.
    pub(in crate::worker) fn reap(&self) {
        let mut tasks = self.lock();
        while tasks.try_join_next().is_some() {}
    }

    /// Drops all jobs, and those that they begin meanwhile, and waits until none runs any more.
    pub(in crate::worker) async fn shutdown(&self) {
        loop {
            let mut tasks = std::mem::take(&mut *self.lock());
            if tasks.is_empty() {
                return;
            }
            tasks.shutdown().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
