//! Progress that handlers report: the newest of each job, until it is written. Bounds how often that happens. Sends
//! nothing itself, and never holds a job up.

mod slots;

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use self::slots::{Execution, Slots};
pub(super) use self::slots::{JobClaim, Step, Write};
use crate::model::{Timestamp, progress::Progress};

tokio::task_local! {
    static CURRENT: JobContext;
}

/// What a handler may use for the job that it is executing.
///
/// ```
/// # use swarm::{Job, JobError, JobContext, Progress};
/// # fn convert(_page: usize) {}
/// async fn pages(job: &Job) -> Result<serde_json::Value, JobError> {
///     let context = JobContext::current();
///     for page in 0..8 {
///         context.progress(Progress::new(format!("page {} of 8", page + 1)).with_fraction(page as f64 / 8.0));
///         convert(page);
///     }
///     Ok(8.into())
/// }
/// ```
#[derive(Clone, Default)]
pub struct JobContext(Option<Arc<Running>>);

/// A job that a handler is executing.
struct Running {
    board: Arc<ProgressBoard>,
    execution: Execution,
}

impl JobContext {
    /// Returns the context of the job that is executed by the present task. In a task or thread that the handler has
    /// started, and outside of jobs, the context reports nothing: take it before, and clone it.
    pub fn current() -> Self {
        CURRENT.try_with(Clone::clone).unwrap_or_default()
    }

    /// Reports how far the job is, for whoever waits for it or asks about it. Returns immediately, as often as it is
    /// called: the worker writes the newest progress to Redis, at most once a second, and not before the job has run
    /// for a second. Reports nothing after the job has ended, or while Redis refuses it, which does not fail the job.
    /// Values of `masked_arguments` are masked.
    pub fn progress(&self, progress: Progress) {
        if let Some(running) = &self.0 {
            running.board.report(&running.execution, progress);
        }
    }
}

impl fmt::Debug for JobContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JobContext").field(&self.0.as_ref().map(|running| &running.execution.claim.id)).finish()
    }
}

/// The progress of all jobs of a worker.
#[derive(Default)]
pub(super) struct ProgressBoard {
    runs: AtomicU64,
    slots: Mutex<Slots>,
    changed: Notify,
}

impl ProgressBoard {
    /// Executes a job's handler, which finds its context. When the handler is done or dropped, its progress ends.
    pub(super) async fn executing<T>(self: &Arc<Self>, claim: JobClaim, handling: impl Future<Output = T>) -> T {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let execution = Execution::new(run, Instant::now(), claim);
        let running = Arc::new(Running { board: Arc::clone(self), execution });
        let _end = EndOnDrop(Arc::clone(&running));
        CURRENT.scope(JobContext(Some(running)), handling).await
    }

    fn report(&self, execution: &Execution, progress: Progress) {
        let is_new = {
            let mut slots = self.lock();
            slots.report(execution, progress, Timestamp::wall())
        };
        if is_new {
            self.changed.notify_one();
        }
    }

    /// Waits until something is due, and returns at most `limit` steps. Supports one waiter.
    pub(super) async fn due(&self, limit: usize) -> Vec<Step> {
        loop {
            let next = {
                let mut slots = self.lock();
                let due = slots.take_due(Instant::now(), limit);
                if !due.is_empty() {
                    return due;
                }
                slots.next_due()
            };
            let timer = async {
                match next {
                    Some(next) => sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.changed.notified() => {}
                () = timer => {}
            }
        }
    }

    /// Records that progress was not written: it is due again, unless newer progress is.
    pub(super) fn not_written(&self, write: &Write) {
        self.lock().not_written(write.run);
    }

    /// Records that the claim on the job was lost: it reports nothing more.
    pub(super) fn lost(&self, write: &Write) {
        self.lock().lost(write.run);
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the progress of a job when dropped.
struct EndOnDrop(Arc<Running>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        let board = &self.0.board;
        let was_written = {
            let mut slots = board.lock();
            slots.end(&self.0.execution)
        };
        if was_written {
            board.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_handler_finds_its_context_and_nobody_else_does() {
        let board = Arc::new(ProgressBoard::default());
        JobContext::current().progress(Progress::new("nowhere"));
        let handling = async {
            let context = JobContext::current();
            context.progress(Progress::new("a"));
            assert_eq!(board.lock().len(), 1);
            context
        };
        let kept = board.executing(JobClaim::of_test(1), handling).await;
        kept.progress(Progress::new("late"));
        assert_eq!(board.lock().len(), 0);
    }
}
