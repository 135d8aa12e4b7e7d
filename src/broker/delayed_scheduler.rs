//! Moves delayed jobs to their streams when they are due, also while no worker runs: the autoscaler's part. Unlike the
//! rest of the broker it owns its connection. A channel announces new delayed jobs, and the scheduler looks at all
//! streams after each connect and at each interval, so a missed message costs time and no job. Must not touch jobs that
//! are not due.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use redis::{PushInfo, PushKind, Value};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::{
    Beside, BrokerError,
    delayed::{move_due, with_delayed},
    find_beside,
};
use crate::{
    connection::{Connection, ConnectionError, RedisTarget, Session, keep_connected},
    model::{QueuePattern, keys, snapshot::DelayedCounts},
};

/// Maximum streams found by patterns that the scheduler watches.
const MAX_FOUND: usize = 10_000;

/// The task that moves delayed jobs.
#[derive(Debug)]
pub struct DelayedScheduler {
    target: Arc<RedisTarget>,
    watched: Arc<Watched>,
    channel: String,
    interval: Duration,
    counts: watch::Sender<DelayedCounts>,
    told: Arc<Told>,
    timers: Timers,
    /// Streams whose delayed jobs could not be moved the last time.
    broken: BTreeSet<Arc<str>>,
    /// Whether the last search by patterns failed.
    blind: bool,
}

/// The streams that the scheduler watches.
#[derive(Debug, Default)]
struct Watched {
    named: BTreeSet<Arc<str>>,
    /// Patterns of further streams. The scheduler watches those that match and have delayed jobs.
    patterns: Vec<QueuePattern>,
}

impl Watched {
    /// Returns the stream of that name, if the scheduler watches it.
    fn stream(&self, name: &str) -> Option<Arc<str>> {
        let found = || self.patterns.iter().any(|pattern| pattern.takes(name)).then(|| name.into());
        self.named.get(name).cloned().or_else(found)
    }
}

/// What the connection's driver has received and the task has not handled yet.
#[derive(Debug, Default)]
struct Told {
    /// The watched streams.
    ours: Arc<Watched>,
    named: Mutex<BTreeSet<Arc<str>>>,
    lost: Mutex<bool>,
    news: Notify,
}

impl Told {
    fn hear(&self, push: PushInfo) {
        match (push.kind, push.data.into_iter().nth(1)) {
            (PushKind::Message, Some(Value::BulkString(stream))) => {
                let Some(stream) = str::from_utf8(&stream).ok().and_then(|name| self.ours.stream(name)) else { return };
                self.named.lock().unwrap_or_else(PoisonError::into_inner).insert(stream);
            }
            (PushKind::Disconnection, _) => *self.lost.lock().unwrap_or_else(PoisonError::into_inner) = true,
            _ => return,
        }
        self.news.notify_one();
    }

    fn take(&self) -> (BTreeSet<Arc<str>>, bool) {
        let named = std::mem::take(&mut *self.named.lock().unwrap_or_else(PoisonError::into_inner));
        (named, std::mem::take(&mut *self.lost.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// When to look at which stream again: one time for each stream.
#[derive(Debug, Default)]
struct Timers {
    queue: BTreeSet<(Instant, Arc<str>)>,
    at: BTreeMap<Arc<str>, Instant>,
}

impl Timers {
    fn set(&mut self, stream: &Arc<str>, at: Option<Instant>) {
        if let Some(before) = self.at.remove(stream) {
            self.queue.remove(&(before, stream.clone()));
        }
        if let Some(at) = at {
            self.at.insert(stream.clone(), at);
            self.queue.insert((at, stream.clone()));
        }
    }

    fn next(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// Returns the streams that are due.
    fn due(&mut self, now: Instant) -> Vec<Arc<str>> {
        let due = self.queue.iter().take_while(|(at, _)| *at <= now).map(|(_, stream)| stream.clone());
        let due: Vec<Arc<str>> = due.collect();
        for stream in &due {
            self.set(stream, None);
        }
        due
    }
}

/// Why a session of the scheduler ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error(transparent)]
    Connect(#[from] ConnectionError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error("the connection was closed")]
    Closed,
}

impl Session for DelayedScheduler {
    type Error = SessionError;

    async fn run_session(&mut self) -> Result<Infallible, SessionError> {
        self.move_until_lost().await
    }

    async fn failed(&mut self, error: SessionError, pause: Duration) {
        tracing::warn!(%error, "delayed jobs wait until redis answers");
        tokio::time::sleep(pause).await;
    }
}

impl DelayedScheduler {
    /// Returns a scheduler for `streams`, and for streams that match `patterns`. It names a stream on `channel` when it
    /// has moved jobs, and looks at all streams at each `interval`.
    pub fn new(
        target: Arc<RedisTarget>,
        streams: BTreeSet<String>,
        patterns: Vec<QueuePattern>,
        channel: String,
        interval: Duration,
    ) -> (Self, watch::Receiver<DelayedCounts>) {
        let (counts, watched) = watch::channel(DelayedCounts::default());
        let ours = Arc::new(Watched { named: streams.into_iter().map(Arc::from).collect(), patterns });
        let told = Arc::new(Told { ours: ours.clone(), ..Told::default() });
        let (timers, broken, blind) = Default::default();
        (Self { target, watched: ours, channel, interval, counts, told, timers, broken, blind }, watched)
    }

    /// Runs until cancelled.
    pub async fn run(mut self, cancel: CancellationToken) {
        keep_connected(&mut self, &cancel).await;
    }

    async fn move_until_lost(&mut self) -> Result<Infallible, SessionError> {
        self.told.take();
        let told = self.told.clone();
        let push = move |push: PushInfo| -> Result<(), Infallible> {
            told.hear(push);
            Ok(())
        };
        let mut connection = self.target.connect_with_push(push).await?;
        if let Err(error) = connection.subscribe(keys::DELAYED_CHANNEL).await {
            let interval = self.interval;
            tracing::warn!(%error, interval_seconds = interval.as_secs(), "can't subscribe to `{}`: delayed jobs are looked for each interval", keys::DELAYED_CHANNEL);
        }
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let next = self.timers.next();
            tokio::select! {
                _ = ticks.tick() => self.look_at_all(&mut connection).await?,
                () = sleep_until(next), if next.is_some() => {
                    for stream in self.timers.due(Instant::now()) {
                        self.look_at(&mut connection, &stream).await?;
                    }
                }
                () = self.told.news.notified() => {
                    let (named, lost) = self.told.take();
                    if lost {
                        return Err(SessionError::Closed);
                    }
                    for stream in named {
                        self.look_at(&mut connection, &stream).await?;
                    }
                }
            }
        }
    }

    async fn look_at_all(&mut self, connection: &mut Connection) -> Result<(), SessionError> {
        let streams = self.streams(connection).await?;
        let found: BTreeSet<Arc<str>> = with_delayed(connection, &streams).await?.into_iter().cloned().collect();
        for stream in streams.iter().filter(|stream| !found.contains(*stream)) {
            self.timers.set(stream, None);
            self.count(stream, 0);
        }
        for stream in &found {
            self.look_at(connection, stream).await?;
        }
        Ok(())
    }

    /// Returns the named streams, those that patterns find now, and those with known delayed jobs.
    async fn streams(&mut self, connection: &Connection) -> Result<Vec<Arc<str>>, SessionError> {
        let counted: Vec<Arc<str>> = self.counts.borrow().keys().map(|stream| stream.as_str().into()).collect();
        let known = self.watched.named.iter().chain(self.timers.at.keys()).cloned().chain(counted);
        let mut streams: BTreeSet<Arc<str>> = known.collect();
        if !self.watched.patterns.is_empty() {
            match find_beside(connection, &[&self.watched.patterns], Beside::Delayed, MAX_FOUND).await {
                Ok(found) => {
                    self.blind = false;
                    streams.extend(found.into_iter().flatten().map(Arc::from));
                }
                Err(error) if error.is_connection_lost() && !connection.is_cluster() => return Err(error.into()),
                // Named queues and announcements on the channel are not affected.
                Err(error) => {
                    if !std::mem::replace(&mut self.blind, true) {
                        tracing::warn!(%error, "delayed jobs of queues that are not named may wait until they are found");
                    }
                }
            }
        }
        Ok(streams.into_iter().collect())
    }

    /// Moves the due jobs of one stream, and sets the time of the next look. A stream that fails does not delay the
    /// others.
    async fn look_at(&mut self, connection: &mut Connection, stream: &Arc<str>) -> Result<(), SessionError> {
        match move_due(connection, stream, &self.channel).await {
            Ok(delayed) => {
                self.broken.remove(stream);
                self.timers.set(stream, delayed.next.map(|wait| Instant::now() + wait));
                self.count(stream, delayed.left);
                Ok(())
            }
            Err(error) if error.is_connection_lost() => Err(error.into()),
            Err(error) => {
                // Logged once for each time that the failure begins. The next message or interval looks again.
                if self.broken.insert(stream.clone()) {
                    tracing::warn!(%error, "delayed jobs stay where they are");
                }
                self.timers.set(stream, None);
                Ok(())
            }
        }
    }

    fn count(&self, stream: &str, left: u64) {
        self.counts.send_if_modified(|counts| {
            let before = counts.get(stream).copied().unwrap_or(0);
            if before != left {
                let counts = Arc::make_mut(counts);
                counts.remove(stream);
                counts.extend((left > 0).then(|| (stream.to_owned(), left)));
            }
            before != left
        });
    }
}

async fn sleep_until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_stream_has_one_timer() {
        let mut timers = Timers::default();
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        let [a, b] = ["a", "b"].map(Arc::<str>::from);
        timers.set(&a, Some(after(5)));
        timers.set(&b, Some(after(3)));
        timers.set(&a, Some(after(1)));
        assert_eq!((timers.next(), timers.due(after(0))), (Some(after(1)), vec![]));
        assert_eq!(timers.due(after(3)), [a, b.clone()]);
        assert_eq!(timers.next(), None);
        timers.set(&b, Some(after(9)));
        timers.set(&b, None);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn our_streams_and_losses_are_heard_once() {
        let patterns = vec![QueuePattern::parse("t-*").unwrap()];
        let ours = Watched { named: ["0", "a"].map(Arc::from).into(), patterns };
        let told = Told { ours: ours.into(), ..Told::default() };
        let message = |stream: &str| PushInfo {
            kind: PushKind::Message,
            data: ["jobs:delayed", stream].map(|text| Value::BulkString(text.into())).into(),
        };
        for stream in ["a", "a", "t-1", "somebody else's", "t-1:dead"] {
            told.hear(message(stream));
        }
        told.hear(PushInfo { kind: PushKind::Disconnection, data: Vec::new() });
        assert_eq!(told.take(), (["a", "t-1"].map(Arc::from).into(), true));
        assert_eq!(told.take(), (BTreeSet::new(), false));
    }
}
