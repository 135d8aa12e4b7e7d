//! Begins several jobs in one task, since a task of its own costs more than a job that ends at once. A job that does not
//! goes on in its own task, where it harms no other. For new jobs of handlers without sessions.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use super::{
    crew::{Crew, Taken},
    settler::Finished,
};
use crate::broker::Parcel;

/// Jobs that one task begins: few, since a handler that blocks its thread holds the others up.
const GANG: usize = 16;
/// If a job takes its thread for longer than this, those behind it get a task each, and with it other threads.
const LONG: Duration = Duration::from_micros(100);

/// Begins `jobs` in as few tasks as may be.
pub(super) fn spawn(crew: &Arc<Crew>, jobs: Vec<Parcel>) {
    let mut jobs = jobs.into_iter();
    while jobs.len() > 0 {
        let gang = jobs.by_ref().take(GANG).collect();
        crew.spawn(begin(Arc::clone(crew), gang));
    }
}

async fn begin(crew: Arc<Crew>, gang: Vec<Parcel>) {
    let mut ended = Vec::with_capacity(gang.len());
    let mut gang = crew.consumer.open(gang).map(|delivery| Taken { delivery, needs_slot: true });
    let mut began = Instant::now();
    for taken in gang.by_ref() {
        let mut job = Box::pin(Arc::clone(&crew).alone(taken));
        // Nobody is woken: a job that waits is polled anew as a task.
        match job.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(finished) => ended.push(finished),
            Poll::Pending => crew.spawn(go_on(Arc::clone(&crew), job)),
        }
        let now = Instant::now();
        if now - began > LONG {
            break;
        }
        began = now;
    }
    for taken in gang {
        crew.spawn(Arc::clone(&crew).work_alone(taken));
    }
    crew.end(ended).await;
}

async fn go_on(crew: Arc<Crew>, job: Pin<Box<impl Future<Output = Finished>>>) {
    let finished = job.await;
    crew.end(vec![finished]).await;
}
