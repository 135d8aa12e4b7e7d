//! The tasks of a worker's jobs, spawned by the run loop and by tasks that start several jobs. They are dropped with
//! the run loop.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::task::JoinSet;

/// Tasks of jobs.
#[derive(Default)]
pub(in crate::worker) struct Tasks(Mutex<JoinSet<()>>);

impl Tasks {
    pub(in crate::worker) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.lock().spawn(task);
    }

    /// Removes tasks that have ended.
    pub(in crate::worker) fn reap(&self) {
        let mut tasks = self.lock();
        while tasks.try_join_next().is_some() {}
    }

    /// Drops all jobs, and those that they start meanwhile, and waits until none is running.
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
