//! Searches for the queues that patterns match: by SCAN, after each connect and with each sweep, never for a signal. It
//! has a connection of its own, so that a search through many keys delays nothing else, and runs only if a worker type
//! has patterns.

use std::{sync::Arc, time::Duration};

use redis::RedisError;
use tokio::time::{Instant, MissedTickBehavior, sleep};
use tokio_util::sync::CancellationToken;

use super::{Directory, KeyEvent, discovered_queues::PatternedType};
use crate::{
    connection::{Connection, Primaries, RedisTarget, Scan, backoff, is_lost},
    model::{QueuePattern, Source},
};

/// Keys that one SCAN examines: a few tenths of a millisecond of the server's time.
const SCAN_COUNT: usize = 500;

/// Pause after each SCAN but the last, as a multiple of its duration: a search through millions of keys takes at most
/// a fifth of the server's time.
const REST_FACTOR: u32 = 4;

/// Searches for the queues of all patterns.
#[derive(Debug)]
pub struct QueueFinder {
    target: Arc<RedisTarget>,
    directory: Arc<Directory>,
    interval: Duration,
}

/// Why a search ended early.
enum Failure {
    /// The server refuses to search for this pattern.
    Refused(String),
    /// The connection is lost.
    Lost(String),
}

impl QueueFinder {
    /// Searches once per interval, and when keys may have come or gone without a signal. `None` if no worker type has
    /// patterns.
    pub fn new(target: Arc<RedisTarget>, directory: Arc<Directory>, interval: Duration) -> Option<Self> {
        (!directory.discovery().types().is_empty()).then_some(Self { target, directory, interval })
    }

    /// Runs until cancelled.
    pub async fn run(self, cancel: CancellationToken) {
        cancel.run_until_cancelled(self.keep_searching()).await;
    }

    async fn keep_searching(&self) {
        let mut ticks = tokio::time::interval_at(Instant::now() + self.interval, self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut connection = None;
        loop {
            let source = tokio::select! {
                () = self.directory.discovery().wanted.notified() => Source::Resync,
                _ = ticks.tick() => Source::Sweep,
            };
            let mut pauses = backoff();
            while let Err(why) = self.search(&mut connection, source).await {
                connection = None;
                for place in 0..self.directory.discovery().types().len() {
                    self.failed(place, &why);
                }
                sleep(pauses.next_pause()).await;
            }
        }
    }

    /// Runs one search for all patterns. An error means that the connection is lost.
    async fn search(&self, connection: &mut Option<Connection>, source: Source) -> Result<(), String> {
        let connection = match connection {
            Some(connection) => connection,
            none => none.insert(self.target.connect().await.map_err(|error| error.to_string())?),
        };
        let Primaries { mut open, missing } = connection.primaries().await.map_err(|error| error.to_string())?;
        let discovery = self.directory.discovery();
        discovery.begin_search();
        for (place, of) in discovery.types().iter().enumerate() {
            match self.search_for(of, &mut open, source).await {
                Ok(()) if missing.is_empty() => {
                    if discovery.finish_search(place) {
                        self.directory.post(of.index, source);
                    }
                }
                Ok(()) => {
                    let why = format!("primaries can't be searched for queues: {}", missing.join(", "));
                    self.failed(place, &why);
                }
                Err(Failure::Refused(why)) => self.failed(place, &why),
                Err(Failure::Lost(why)) => return Err(why),
            }
        }
        Ok(())
    }

    /// Records that a search failed: queues that it did not find may exist, so the worker type is evaluated.
    fn failed(&self, place: usize, why: &str) {
        let discovery = self.directory.discovery();
        if discovery.fail_search(place, why) {
            self.directory.post(discovery.types()[place].index, Source::Resync);
        }
    }

    async fn search_for(&self, of: &PatternedType, servers: &mut [Connection], source: Source) -> Result<(), Failure> {
        for pattern in &of.queues.patterns {
            for server in &mut *servers {
                self.scan(pattern, of.kind.redis_type(), server, source).await?;
            }
        }
        Ok(())
    }

    async fn scan(
        &self,
        pattern: &QueuePattern,
        redis_type: &str,
        server: &mut Connection,
        source: Source,
    ) -> Result<(), Failure> {
        let wanted = Scan { pattern: pattern.as_str(), kind: Some(redis_type), count: SCAN_COUNT };
        let mut cursor = 0;
        loop {
            let asked_at = Instant::now();
            let page = wanted.step(server, cursor).await;
            let (next, keys) = page.map_err(|error| failure(pattern, &error))?;
            for key in &keys {
                for index in self.directory.discovery().see(key, KeyEvent::OfType(redis_type)) {
                    self.directory.post(index, source);
                }
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
            sleep(asked_at.elapsed() * REST_FACTOR).await;
        }
    }
}

fn failure(pattern: &QueuePattern, error: &RedisError) -> Failure {
    let pattern = pattern.as_str();
    if is_lost(error) {
        Failure::Lost(format!("the search for queues like `{pattern}` broke off: {error}"))
    } else {
        let cure = "give the ACL user +scan, or name the queues in extra_queues";
        Failure::Refused(format!("queues like `{pattern}` can't be searched for: {error}; {cure}"))
    }
}
