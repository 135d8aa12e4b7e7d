//! Begins several jobs in one task, since a task of its own costs more than a job that ends at once. A job that does not
//! goes on in its own task, where it harms no other. For new jobs of handlers without sessions.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use super::{Executor, Taken};
use crate::{broker::RawEntry, worker::complete::CompletedJob};

/// Jobs that one task begins: few, since a handler that blocks its thread holds the others up.
const BATCH_SIZE: usize = 16;
/// If a job takes its thread for longer than this, those behind it get a task each, and with it other threads.
const LONG: Duration = Duration::from_micros(100);

/// Begins `jobs` in as few tasks as may be.
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
        // Nobody is woken: a job that waits is polled anew as a task.
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
