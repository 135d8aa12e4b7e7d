//! Starts several jobs in one task, because a task costs more than a job that ends immediately. A job that does not end
//! immediately continues in its own task, where it delays no other. For new jobs of handlers without sessions.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use super::{Executor, Taken};
use crate::{broker::RawEntry, worker::complete::CompletedJob};

/// Maximum jobs that one task starts: few, because a handler that blocks its thread delays the others.
const BATCH_SIZE: usize = 16;
/// If a job occupies its thread for longer than this, the jobs behind it get a task each, and so other threads.
const LONG: Duration = Duration::from_micros(100);

/// Starts `jobs` in as few tasks as possible.
pub(in crate::worker) fn spawn(executor: &Arc<Executor>, jobs: Vec<RawEntry>) {
    let mut jobs = jobs.into_iter();
    while jobs.len() > 0 {
        let batch = jobs.by_ref().take(BATCH_SIZE).collect();
        executor.spawn(begin(Arc::clone(executor), batch));
    }
}

async fn begin(executor: Arc<Executor>, batch: Vec<RawEntry>) {
    let mut ended = Vec::with_capacity(batch.len());
    let mut batch = executor.consumer.open(batch).map(|delivery| Taken { delivery, needs_slot: true });
    let mut began = Instant::now();
    for taken in batch.by_ref() {
        let mut job = Box::pin(Arc::clone(&executor).alone(taken));
        // Nothing needs waking: a job that waits is polled again as a task.
        match job.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(finished) => ended.push(finished),
            Poll::Pending => executor.spawn(go_on(Arc::clone(&executor), job)),
        }
        let now = Instant::now();
        if now - began > LONG {
            break;
        }
        began = now;
    }
    for taken in batch {
        executor.spawn(Arc::clone(&executor).work_alone(taken));
    }
    executor.end(ended).await;
}

async fn go_on(executor: Arc<Executor>, job: Pin<Box<impl Future<Output = CompletedJob>>>) {
    let finished = job.await;
    executor.end(vec![finished]).await;
}
