//! Searches for the queues that patterns match: by SCAN, after each connect and with each sweep, never for a signal. A
//! search scans the keys of each primary once for all patterns, twice if streams and lists are wanted: one SCAN selects
//! keys of one type, and asking for each key's type would cost a command for each. The search has a connection of its
//! own, so that it delays nothing else, and runs only if a worker type has patterns.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use redis::RedisError;
use tokio::time::{Instant, MissedTickBehavior, sleep};
use tokio_util::sync::CancellationToken;

use super::{Directory, KeyEvent, discovered_queues::PatternedType};
use crate::{
    connection::{Connection, Primaries, RedisTarget, Scan, backoff, is_lost},
    model::{QueuePattern, Source, covering_pattern},
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
        let kinds: BTreeSet<&str> = discovery.types().iter().map(|of| of.kind.redis_type()).collect();
        for redis_type in kinds {
            let of_kind = discovery.types().iter().enumerate().filter(|(_, of)| of.kind.redis_type() == redis_type);
            let of_kind: Vec<(usize, &PatternedType)> = of_kind.collect();
            let searched = self.search_for(&of_kind, redis_type, &mut open, source).await;
            if let Err(error) = &searched
                && is_lost(error)
            {
                return Err(format!("the search for queues broke off: {error}"));
            }
            for (place, of) in of_kind {
                match &searched {
                    Ok(()) if missing.is_empty() => {
                        if discovery.finish_search(place) {
                            self.directory.post(of.index, source);
                        }
                    }
                    Ok(()) => {
                        let why = format!("primaries can't be searched for queues: {}", missing.join(", "));
                        self.failed(place, &why);
                    }
                    Err(error) => self.failed(place, &refused(of, error)),
                }
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

    /// Searches for the queues of all worker types whose queues have this Redis type. The server selects keys by their
    /// type and by what all patterns have in common; the directory does the rest.
    async fn search_for(
        &self,
        types: &[(usize, &PatternedType)],
        redis_type: &str,
        servers: &mut [Connection],
        source: Source,
    ) -> Result<(), RedisError> {
        let patterns: Vec<&str> = types.iter().flat_map(|(_, of)| texts(of)).collect();
        let pattern = covering_pattern(&patterns);
        let wanted = Scan { pattern: &pattern, kind: Some(redis_type), count: SCAN_COUNT };
        for server in servers {
            self.scan(wanted, redis_type, server, source).await?;
        }
        Ok(())
    }

    async fn scan(
        &self,
        wanted: Scan<'_>,
        redis_type: &str,
        server: &mut Connection,
        source: Source,
    ) -> Result<(), RedisError> {
        let mut cursor = 0;
        loop {
            let asked_at = Instant::now();
            let (next, keys) = wanted.step(server, cursor).await?;
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

fn texts(of: &PatternedType) -> impl Iterator<Item = &str> {
    of.queues.patterns.iter().map(QueuePattern::as_str)
}

/// Returns why the queues of a worker type are not known: the server refuses the search.
fn refused(of: &PatternedType, error: &RedisError) -> String {
    let patterns: Vec<String> = texts(of).map(|pattern| format!("`{pattern}`")).collect();
    let cure = "give the ACL user +scan, or name the queues in extra_queues";
    format!("queues like {} can't be searched for: {error}; {cure}", patterns.join(", "))
}
