//! The stream that the status page follows: the fleet, at most twice a second, for a limited number of readers.
//!
//! One task makes a frame and all readers share it, so a further reader costs only the bytes that it is sent. Each
//! reader gets what has changed since its last message; a slow reader skips frames and continues with the newest.
//! Without readers, no frame is made.

mod frame;
mod reader;
#[cfg(test)]
mod tests;
mod trace;

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    extract::{Extension, State},
    http::{HeaderName, StatusCode, header},
    response::{IntoResponse, Response, sse::Sse},
};
use tokio::{
    sync::{Notify, Semaphore, watch},
    task::spawn_blocking,
    time::MissedTickBehavior,
};

use self::{frame::Frame, reader::Reader, trace::Trace};
use super::{Served, connections::Connection, error::refusal};
use crate::model::{Timestamp, history::EventSource, snapshot::StatusSource};

/// Pause between two frames: as fast as a person can follow numbers.
const GAP: Duration = Duration::from_millis(500);

/// Time between two points of a curve.
const SAMPLE: Duration = Duration::from_secs(5);

/// Maximum readers at the same time: each holds a connection and some hundred kilobytes.
const READERS: usize = 64;

/// Makes frames, and keeps the curves of the last minutes.
pub(super) struct Live {
    status: Arc<dyn StatusSource>,
    events: Arc<dyn EventSource>,
    /// Whether overrides over HTTP are on.
    controls: bool,
    trace: Mutex<Trace>,
    frames: watch::Sender<Arc<Frame>>,
    wanted: Notify,
    seats: Arc<Semaphore>,
}

impl Live {
    /// Returns the stream of this fleet and this history.
    pub(super) fn new(status: Arc<dyn StatusSource>, events: Arc<dyn EventSource>, controls: bool) -> Arc<Self> {
        Arc::new(Self {
            status,
            events,
            controls,
            trace: Mutex::default(),
            frames: watch::Sender::new(Arc::new(Frame::default())),
            wanted: Notify::new(),
            seats: Arc::new(Semaphore::new(READERS)),
        })
    }

    fn trace(&self) -> MutexGuard<'_, Trace> {
        self.trace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes frames and curves. Never ends.
    pub(super) async fn publish(self: Arc<Self>) {
        tokio::join!(self.sample(), self.make_frames());
    }

    async fn sample(self: &Arc<Self>) {
        let mut ticks = tokio::time::interval(SAMPLE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let live = Arc::clone(self);
            // Runs on a blocking thread, because it takes a millisecond with ten thousand worker types.
            let sampled = spawn_blocking(move || {
                let fleet = live.status.fleet();
                live.trace().add(&fleet.worker_types, Timestamp::wall());
            });
            if let Err(error) = sampled.await {
                tracing::error!("the curves of the status page could not be continued: {error}");
            }
        }
    }

    async fn make_frames(self: &Arc<Self>) {
        loop {
            if self.frames.receiver_count() == 0 {
                self.wanted.notified().await;
            }
            let live = Arc::clone(self);
            let made = spawn_blocking(move || {
                let before = live.frames.borrow().clone();
                Frame::after(&before, &*live.status, &*live.events, live.controls)
            });
            match made.await {
                Ok(frame) => drop(self.frames.send_replace(Arc::new(frame))),
                Err(error) => tracing::error!("the status page could not be continued: {error}"),
            }
            tokio::time::sleep(GAP).await;
        }
    }
}

/// `GET /v1/stream`
pub(super) async fn stream(State(served): State<Served>, Extension(connection): Extension<Connection>) -> Response {
    let Ok(seat) = Arc::clone(&served.live.seats).try_acquire_owned() else {
        let error = format!("{READERS} readers follow already; close some, or read /v1/status from time to time");
        return ([(header::RETRY_AFTER, "10")], refusal(StatusCode::SERVICE_UNAVAILABLE, &error)).into_response();
    };
    connection.follow();
    let reader = Reader::new(&served.live, seat, served.ending);
    let messages = futures_util::stream::unfold(reader, async |mut reader| {
        let message = reader.next().await?;
        Some((Ok::<_, Infallible>(message), reader))
    });
    let sse = Sse::new(messages);
    // Proxies must not buffer messages.
    let unbuffered = (HeaderName::from_static("x-accel-buffering"), "no");
    ([(header::CACHE_CONTROL, "no-store"), unbuffered], sse).into_response()
}
