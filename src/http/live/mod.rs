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
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    extract::{Extension, Query, State, rejection::QueryRejection},
    http::{HeaderName, StatusCode, header},
    response::{IntoResponse, Response, sse::Sse},
};
use serde::Deserialize;
use tokio::{
    sync::{Notify, Semaphore, watch},
    task::spawn_blocking,
    time::MissedTickBehavior,
};

use self::{frame::Frame, reader::Reader, trace::Trace};
use super::{Served, connections::Connection, error::refusal};
use crate::model::{Timestamp, WorkerType, history::EventSource, snapshot::StatusSource};

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
    /// Worker types that readers follow alone, with the number of those readers.
    followed: Mutex<HashMap<WorkerType, usize>>,
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
            followed: Mutex::default(),
            frames: watch::Sender::new(Arc::new(Frame::default())),
            wanted: Notify::new(),
            seats: Arc::new(Semaphore::new(READERS)),
        })
    }

    fn trace(&self) -> MutexGuard<'_, Trace> {
        self.trace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn followed(&self) -> MutexGuard<'_, HashMap<WorkerType, usize>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
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
                let followed = live.followed().keys().cloned().collect();
                Frame::after(&before, &*live.status, &*live.events, live.controls, followed)
            });
            match made.await {
                Ok(frame) => drop(self.frames.send_replace(Arc::new(frame))),
                Err(error) => tracing::error!("the status page could not be continued: {error}"),
            }
            tokio::time::sleep(GAP).await;
        }
    }
}

/// Keeps one worker type in the frames. Ends when dropped.
struct Following {
    live: Arc<Live>,
    worker_type: WorkerType,
}

impl Following {
    fn new(live: &Arc<Live>, worker_type: WorkerType) -> Self {
        *live.followed().entry(worker_type.clone()).or_default() += 1;
        Self { live: Arc::clone(live), worker_type }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let mut followed = self.live.followed();
        if let Some(readers) = followed.get_mut(&self.worker_type) {
            *readers -= 1;
            if *readers == 0 {
                followed.remove(&self.worker_type);
            }
        }
    }
}

/// Query of [`stream`].
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Followed {
    r#type: Option<String>,
}

/// `GET /v1/stream`
pub(super) async fn stream(
    State(served): State<Served>,
    asked: Result<Query<Followed>, QueryRejection>,
    Extension(connection): Extension<Connection>,
) -> Response {
    let only = match asked {
        Ok(Query(asked)) => asked.r#type,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    let only = match only {
        None => None,
        Some(name) => match served.worker_type(name).await {
            Ok(found) => Some(found.worker_type.clone()),
            Err(refused) => return refused,
        },
    };
    let Ok(seat) = Arc::clone(&served.live.seats).try_acquire_owned() else {
        let error = format!("{READERS} readers follow already; close some, or read /v1/status from time to time");
        return ([(header::RETRY_AFTER, "10")], refusal(StatusCode::SERVICE_UNAVAILABLE, &error)).into_response();
    };
    connection.follow();
    let reader = Reader::new(&served.live, only, seat, served.ending);
    let messages = futures_util::stream::unfold(reader, async |mut reader| {
        let message = reader.next().await?;
        Some((Ok::<_, Infallible>(message), reader))
    });
    let sse = Sse::new(messages);
    // Proxies must not buffer messages.
    let unbuffered = (HeaderName::from_static("x-accel-buffering"), "no");
    ([(header::CACHE_CONTROL, "no-store"), unbuffered], sse).into_response()
}
