//! Counts the dead letters of all worker types, for metrics: the autoscaler's part, at each interval and never because
//! of a signal. Only reads.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::watch, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{Beside, BrokerError, Client, beside::counts_beside, dead_streams::streams};
use crate::{
    config::Settings,
    connection::Connection,
    model::{Queues, snapshot::DeadLetterCounts},
};

/// Name of the search by patterns among the failures. No stream has it.
const SEARCH: &str = "*";

/// The task that counts.
pub struct DeadLetterCounter {
    client: Client,
    interval: Duration,
    counts: watch::Sender<DeadLetterCounts>,
    /// What could not be counted the last time: streams, and the [search](SEARCH).
    broken: BTreeSet<String>,
}

/// One count of everything.
#[derive(Default)]
struct Count {
    /// Dead letters by worker type. Worker types of which something could not be counted are left out.
    known: BTreeMap<String, u64>,
    /// What could not be counted, and why.
    failed: BTreeMap<String, BrokerError>,
}

impl DeadLetterCounter {
    /// Returns a counter for the worker types that the client's settings enable. It counts immediately, and at each
    /// `interval`.
    pub fn new(client: Client, interval: Duration) -> (Self, watch::Receiver<DeadLetterCounts>) {
        let (counts, watched) = watch::channel(DeadLetterCounts::default());
        (Self { client, interval, counts, broken: BTreeSet::new() }, watched)
    }

    /// Runs until cancelled.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while cancel.run_until_cancelled(ticks.tick()).await.is_some() {
            let settings = self.client.settings();
            let counted = self.client.ask(|connection| count(connection, settings));
            let Some(counted) = cancel.run_until_cancelled(counted).await else { return };
            self.note(counted.unwrap_or_else(|error| {
                // Whoever reads the queues says that Redis is away.
                tracing::debug!(%error, "dead letters can't be counted");
                Count::default()
            }));
        }
    }

    /// Shows the numbers, and logs each failure once.
    fn note(&mut self, Count { known, failed }: Count) {
        for (what, error) in &failed {
            if !self.broken.contains(what) {
                tracing::warn!(%error, "dead letters are not counted");
            }
        }
        self.broken = failed.into_keys().collect();
        self.counts.send_replace(Arc::new(known));
    }
}

async fn count(mut connection: Connection, settings: &Settings) -> Result<Count, BrokerError> {
    let mut count = Count::default();
    let native = settings.enabled().filter(|(_, of)| of.queue_kind().is_native());
    let (mut names, mut queues): (Vec<&str>, Vec<Queues>) = native.map(|(name, of)| (name, of.queues(name))).unzip();
    let found = match streams(&connection, &queues).await {
        Ok(found) => found,
        Err(error) if error.is_connection_lost() => return Err(error),
        Err(error) => {
            count.failed.insert(SEARCH.to_owned(), error);
            (names, queues) = names.into_iter().zip(queues).filter(|(_, queues)| queues.patterns.is_empty()).unzip();
            streams(&connection, &queues).await?
        }
    };
    let of_types: Vec<(&str, BTreeSet<String>)> = names.into_iter().zip(found).collect();
    let all: BTreeSet<&str> = of_types.iter().flat_map(|(_, streams)| streams).map(String::as_str).collect();
    let all: Vec<&str> = all.into_iter().collect();
    let mut letters = BTreeMap::new();
    for (stream, number) in counts_beside(&mut connection, Beside::Dead, &all).await? {
        match number {
            Ok(number) => drop(letters.insert(*stream, number)),
            Err(error) => drop(count.failed.insert((*stream).to_owned(), error)),
        }
    }
    for (name, streams) in &of_types {
        if !streams.iter().any(|stream| count.failed.contains_key(stream)) {
            let number = streams.iter().filter_map(|stream| letters.get(stream.as_str())).sum();
            count.known.insert((*name).to_owned(), number);
        }
    }
    Ok(count)
}
