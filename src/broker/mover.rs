//! Puts delayed jobs on their streams at the moment they are due, also while no worker runs: the autoscaler's part. Unlike the
//! rest of the broker it owns its connection. Hears of new delayed jobs on a channel, and looks at all streams at each
//! connect and each interval, so a message that was missed costs time and no job. Must not touch jobs that are not due.

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
    BrokerError,
    delayed::{count_delayed, move_due},
};
use crate::{
    connection::{Connection, ConnectionError, RedisTarget, any_exists, backoff},
    model::{keys, snapshot::DelayedCounts},
};

/// Streams asked about in one pipeline.
const SLICE: usize = 500;

/// The task that moves delayed jobs.
#[derive(Debug)]
pub struct DelayedMover {
    target: Arc<RedisTarget>,
    streams: Arc<[String]>,
    channel: String,
    interval: Duration,
    counts: watch::Sender<DelayedCounts>,
    told: Arc<Told>,
    timers: Timers,
    /// Streams whose delayed jobs could not be moved the last time.
    broken: BTreeSet<usize>,
}

/// What the connection's driver has heard and the task has not yet looked at.
#[derive(Debug, Default)]
struct Told {
    /// The streams that we look after, in order.
    ours: Arc<[String]>,
    named: Mutex<BTreeSet<usize>>,
    lost: Mutex<bool>,
    news: Notify,
}

impl Told {
    fn hear(&self, push: PushInfo) {
        match (push.kind, push.data.into_iter().nth(1)) {
            (PushKind::Message, Some(Value::BulkString(stream))) => {
                let place = self.ours.binary_search_by(|ours| ours.as_bytes().cmp(&stream));
                let Ok(index) = place else { return };
                self.named.lock().unwrap_or_else(PoisonError::into_inner).insert(index);
            }
            (PushKind::Disconnection, _) => *self.lost.lock().unwrap_or_else(PoisonError::into_inner) = true,
            _ => return,
        }
        self.news.notify_one();
    }

    fn take(&self) -> (BTreeSet<usize>, bool) {
        let named = std::mem::take(&mut *self.named.lock().unwrap_or_else(PoisonError::into_inner));
        (named, std::mem::take(&mut *self.lost.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// When to look at which stream again: one time for each.
#[derive(Debug, Default)]
struct Timers {
    queue: BTreeSet<(Instant, usize)>,
    at: BTreeMap<usize, Instant>,
}

impl Timers {
    fn set(&mut self, index: usize, at: Option<Instant>) {
        if let Some(before) = self.at.remove(&index) {
            self.queue.remove(&(before, index));
        }
        if let Some(at) = at {
            self.at.insert(index, at);
            self.queue.insert((at, index));
        }
    }

    fn next(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// The streams whose time has come.
    fn due(&mut self, now: Instant) -> Vec<usize> {
        let due: Vec<usize> = self.queue.iter().take_while(|(at, _)| *at <= now).map(|(_, index)| *index).collect();
        for index in &due {
            self.set(*index, None);
        }
        due
    }
}

#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error(transparent)]
    Connect(#[from] ConnectionError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error("the connection was closed")]
    Closed,
}

impl DelayedMover {
    /// For `streams`, which are named on `channel` when jobs were moved. All of them are looked at each `interval`.
    pub fn new(
        target: Arc<RedisTarget>,
        streams: BTreeSet<String>,
        channel: String,
        interval: Duration,
    ) -> (Self, watch::Receiver<DelayedCounts>) {
        let (counts, watched) = watch::channel(DelayedCounts::default());
        let streams: Arc<[String]> = streams.into_iter().collect();
        let told = Arc::new(Told { ours: streams.clone(), ..Told::default() });
        let (timers, broken) = Default::default();
        (Self { target, streams, channel, interval, counts, told, timers, broken }, watched)
    }

    /// Runs until cancelled.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut pauses = backoff();
        loop {
            let connected_at = Instant::now();
            match cancel.run_until_cancelled(self.session()).await {
                None => return,
                Some(Ok(never)) => match never {},
                Some(Err(error)) => tracing::warn!(%error, "delayed jobs wait until redis answers"),
            }
            if connected_at.elapsed() > self.interval {
                pauses = backoff();
            }
            let pause = pauses.next().unwrap_or(self.interval);
            if cancel.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// One connection, from connect to failure.
    async fn session(&mut self) -> Result<Infallible, SessionError> {
        self.told.take();
        let told = self.told.clone();
        let push = move |push: PushInfo| -> Result<(), Infallible> {
            told.hear(push);
            Ok(())
        };
        let mut connection = self.target.connect_with_push(push).await?;
        if let Err(error) = connection.subscribe(keys::DELAYED_CHANNEL).await {
            let interval = self.interval;
            tracing::warn!(%error, ?interval, "can't subscribe to `{}`: delayed jobs are looked for each interval", keys::DELAYED_CHANNEL);
        }
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let next = self.timers.next();
            tokio::select! {
                _ = ticks.tick() => self.look_at_all(&mut connection).await?,
                () = sleep_until(next), if next.is_some() => {
                    for index in self.timers.due(Instant::now()) {
                        self.look_at(&mut connection, index).await?;
                    }
                }
                () = self.told.news.notified() => {
                    let (named, lost) = self.told.take();
                    if lost {
                        return Err(SessionError::Closed);
                    }
                    for index in named {
                        self.look_at(&mut connection, index).await?;
                    }
                }
            }
        }
    }

    async fn look_at_all(&mut self, connection: &mut Connection) -> Result<(), SessionError> {
        for start in (0..self.streams.len()).step_by(SLICE) {
            let slice: Vec<&str> = self.streams[start..].iter().take(SLICE).map(String::as_str).collect();
            // Few streams ever have delayed jobs.
            let layout = connection.layout();
            if !any_exists(connection, slice.iter().map(|stream| layout.delayed(stream))).await {
                for index in start..start + slice.len() {
                    self.timers.set(index, None);
                    self.count(index, 0);
                }
                continue;
            }
            let counts = count_delayed(connection, &slice).await?;
            for (offset, count) in counts.into_iter().enumerate() {
                match count {
                    Ok(0) => {
                        self.timers.set(start + offset, None);
                        self.count(start + offset, 0);
                    }
                    Ok(_) => self.look_at(connection, start + offset).await?,
                    Err(error) => self.tell_broken(start + offset, &error),
                }
            }
        }
        Ok(())
    }

    /// Moves what is due of one stream, and sets the time of the next look. A stream that can't be moved holds up no other.
    async fn look_at(&mut self, connection: &mut Connection, index: usize) -> Result<(), SessionError> {
        let stream = &self.streams[index];
        match move_due(connection, stream, &self.channel).await {
            Ok(delayed) => {
                self.broken.remove(&index);
                self.timers.set(index, delayed.next.map(|wait| Instant::now() + wait));
                self.count(index, delayed.left);
                Ok(())
            }
            Err(error) if error.is_connection_lost() => Err(error.into()),
            Err(error) => {
                self.tell_broken(index, &error);
                Ok(())
            }
        }
    }

    /// Once for each time that it breaks. It is looked at again with the next message or interval.
    fn tell_broken(&mut self, index: usize, error: &BrokerError) {
        if self.broken.insert(index) {
            tracing::warn!(%error, "delayed jobs stay where they are");
        }
        self.timers.set(index, None);
    }

    fn count(&self, index: usize, left: u64) {
        let stream = &self.streams[index];
        self.counts.send_if_modified(|counts| {
            let before = counts.get(stream).copied().unwrap_or(0);
            if before != left {
                let counts = Arc::make_mut(counts);
                counts.remove(stream);
                counts.extend((left > 0).then(|| (stream.clone(), left)));
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
        timers.set(0, Some(after(5)));
        timers.set(1, Some(after(3)));
        timers.set(0, Some(after(1)));
        assert_eq!((timers.next(), timers.due(after(0))), (Some(after(1)), vec![]));
        assert_eq!(timers.due(after(3)), [0, 1]);
        assert_eq!(timers.next(), None);
        timers.set(1, Some(after(9)));
        timers.set(1, None);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn our_streams_and_losses_are_heard_once() {
        let told = Told { ours: ["0".to_owned(), "a".to_owned()].into(), ..Told::default() };
        let message = |stream: &str| PushInfo {
            kind: PushKind::Message,
            data: ["jobs:delayed", stream].map(|text| Value::BulkString(text.into())).into(),
        };
        for stream in ["a", "a", "somebody else's"] {
            told.hear(message(stream));
        }
        told.hear(PushInfo { kind: PushKind::Disconnection, data: Vec::new() });
        assert_eq!(told.take(), ([1].into(), true));
        assert_eq!(told.take(), (BTreeSet::new(), false));
    }
}
