//! The leader's canary: a key of its own, written in the same way as workers write heartbeats. While the canary can be
//! written, a heartbeat could be written too; [`evidence`](crate::evidence) draws the conclusions. On a cluster there
//! is one canary on each primary.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use redis::{FromRedisValue, Value};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Leadership;
use crate::{
    connection::{Connection, RedisTarget},
    evidence::{CANARY_INTERVAL, Canary, Channel},
    model::{Clock, Timestamp, keys},
    telemetry::RedisWrites,
};

/// TTL of the key: several intervals, so that a slow server does not look like one that lost the key.
const TTL: Duration = Duration::from_secs(30);

/// Names that are tried to find one on each primary of a cluster. With 256 names, a primary with 1 slot in 50 is almost
/// certain to get one.
const NAMES: u32 = 256;

/// What the canary has shown. Written by its [`CanaryWriter`], read by all actors and by readers of the state of Redis.
#[derive(Debug, Default)]
pub struct CanaryState(Mutex<CanaryFacts>);

#[derive(Debug, Default)]
struct CanaryFacts {
    canary: Canary,
    connected_since: Option<Timestamp>,
    refused: Option<String>,
}

impl CanaryState {
    /// Returns a canary that has always been written, for tests of unrelated parts.
    #[cfg(test)]
    pub(crate) fn flawless() -> Arc<Self> {
        let shown = CanaryFacts { canary: Canary::flawless(), ..CanaryFacts::default() };
        Arc::new(Self(Mutex::new(shown)))
    }

    /// Returns what is known at `now` about the path that heartbeats take.
    pub fn channel(&self, now: Timestamp) -> Channel {
        let shown = self.lock();
        Channel { writable_since: shown.canary.unbroken_since(now), connected_since: shown.connected_since }
    }

    /// Returns why Redis refuses writes while it answers; `None` if it accepts writes, or none was tried.
    pub fn refused(&self) -> Option<String> {
        self.lock().refused.clone()
    }

    fn connected(&self, now: Timestamp) {
        self.lock().connected_since = Some(now);
    }

    fn written(&self, kept: bool, now: Timestamp) -> Timestamp {
        let mut shown = self.lock();
        shown.refused = None;
        shown.canary.written(kept, now);
        shown.canary.unbroken_since(now).unwrap_or(now)
    }

    fn failed(&self, refused: Option<String>) {
        let mut shown = self.lock();
        shown.canary.failed();
        shown.refused = refused;
    }

    fn lock(&self) -> MutexGuard<'_, CanaryFacts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a canary was not written.
#[derive(Debug)]
enum Failure {
    /// The server answered, and refused the write.
    Refused(String),
    /// The server did not answer.
    Away(String),
}

/// Writes the canary of one autoscaler while it leads.
pub struct CanaryWriter {
    target: Arc<RedisTarget>,
    instance: String,
    leadership: Arc<Leadership>,
    clock: Clock,
    state: Arc<CanaryState>,
    connection: Option<Connection>,
    /// Value of the previous write.
    last: String,
}

impl CanaryWriter {
    /// Returns a writer that publishes its results in `state`.
    pub fn new(
        target: Arc<RedisTarget>,
        instance: String,
        leadership: Arc<Leadership>,
        clock: Clock,
        state: Arc<CanaryState>,
    ) -> Self {
        Self { target, instance, leadership, clock, state, connection: None, last: String::new() }
    }

    /// Writes at each interval until cancelled. Logs when a refusal begins and when it ends.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut ticks = tokio::time::interval(CANARY_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut refused_since: Option<Instant> = None;
        while cancel.run_until_cancelled(ticks.tick()).await.is_some() {
            if self.leadership.permit().is_none() {
                self.state.failed(None);
                continue;
            }
            let outcome = self.write().await;
            match &outcome {
                Ok(kept) => {
                    self.state.written(*kept, self.clock.now());
                }
                Err(Failure::Refused(error)) => {
                    self.state.failed(Some(error.clone()));
                    if refused_since.is_none() {
                        RedisWrites { refused: Some(error) }.emit();
                    }
                    refused_since.get_or_insert_with(Instant::now);
                }
                Err(Failure::Away(error)) => {
                    tracing::debug!(%error, "canary not written");
                    self.state.failed(None);
                    self.connection = None;
                }
            }
            if outcome.is_ok()
                && let Some(since) = refused_since.take()
            {
                RedisWrites { refused: None }.emit();
                tracing::debug!(lasted_seconds = since.elapsed().as_secs(), "redis had refused writes");
            }
        }
    }

    /// Writes once on each primary. Returns whether all of them still had the previous write.
    async fn write(&mut self) -> Result<bool, Failure> {
        let mut connection = if let Some(connection) = self.connection.take() {
            connection
        } else {
            let connected = self.target.connect().await.map_err(|error| Failure::Away(error.to_string()))?;
            self.state.connected(self.clock.now());
            connected
        };
        let (now, ttl) = (self.clock.now(), TTL.as_millis().to_string());
        let since = self.state.channel(now).writable_since.map_or(String::new(), |since| since.0.to_string());
        let at = format!("{}:{}", self.instance, now.0);
        let mut pipeline = redis::pipe();
        for key in keys_of(&connection) {
            pipeline.cmd("HMGET").arg(&key).arg("at");
            pipeline.cmd("HSET").arg(&key).arg(&[
                ("at", &at),
                ("instance", &self.instance),
                ("unbroken_since", &since),
            ]);
            pipeline.cmd("PEXPIRE").arg(&key).arg(&ttl);
        }
        let replies = connection.each(&pipeline).await.map_err(|error| Failure::Away(error.to_string()))?;
        self.connection = Some(connection);
        let last = std::mem::replace(&mut self.last, at);
        kept(replies, &last)
    }
}

/// Returns the keys of the canary: one, or on a cluster one on each primary.
fn keys_of(connection: &Connection) -> Vec<String> {
    if !connection.is_cluster() {
        return vec![keys::SCALER_CANARY.to_owned()];
    }
    let names = (0..NAMES).map(|number| format!("{}:{number}", keys::SCALER_CANARY));
    let placed: BTreeMap<String, String> =
        names.filter_map(|key| connection.place(&key).map(|place| (place, key))).collect();
    placed.into_values().collect()
}

/// Returns whether each server still had the previous write, and accepted this one.
fn kept(replies: Vec<Value>, last: &str) -> Result<bool, Failure> {
    let refusal = replies.iter().find_map(|reply| match reply {
        Value::ServerError(error) => Some(format!("{} {}", error.code(), error.details().unwrap_or_default())),
        _ => None,
    });
    if let Some(refusal) = refusal {
        return Err(Failure::Refused(refusal.trim().to_owned()));
    }
    let mut before = replies.into_iter().step_by(3).map(<(Option<String>,)>::from_redis_value);
    Ok(before.all(|it| it.is_ok_and(|(before,)| before.as_deref() == Some(last))))
}
