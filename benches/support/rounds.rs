//! Rounds of one job each, by turns for the floor and for the product, so that whatever else the machine does hits
//! both.

use std::{ops::RangeInclusive, time::Duration};

use anyhow::Context;
use fred::{
    clients::Pipeline,
    prelude::{Client, PubsubInterface, StreamsInterface},
};
use swarm::model::keys::PUBLISHED_CHANNEL;

use crate::{
    floor::{Floor, Heard},
    percentile::percentile,
    protocol::{Command, Event, nanos, type_name},
    report::Finding,
    scaler::Scaler,
};

/// Idle time before a round, so that both kinds start from rest.
const PAUSE: Duration = Duration::from_millis(2);

/// The floor's queue and consumer group.
pub(crate) const FLOOR_QUEUE: &str = "floor";

/// Who works jobs off.
const CONSUMER: &str = "bench";

/// By which way a job is heard of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    Keyspace,
    Tracking,
    Channel,
}

impl Signal {
    /// Its name.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Keyspace => "keyspace",
            Self::Tracking => "tracking",
            Self::Channel => "channel",
        }
    }
}

/// The channel that the floor's jobs are published on: not the product's, so that neither hears the other's.
pub(crate) const FLOOR_CHANNEL: &str = "floor:published";

/// Microseconds from just before a job is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    /// Until the bare subscriber had heard of it, plus a bare probe.
    pub(crate) floor: f64,
    /// Until the backend was asked.
    pub(crate) product: f64,
}

/// Microseconds of many rounds.
#[derive(Debug, Default)]
pub(crate) struct Reactions {
    pub(crate) floors: Vec<f64>,
    pub(crate) products: Vec<f64>,
}

impl Reactions {
    pub(crate) fn push(&mut self, round: Round) {
        self.floors.push(round.floor);
        self.products.push(round.product);
    }

    /// Returns the percentile at this share of the rounds, against that of the floor.
    #[allow(dead_code, reason = "one benchmark has more in its floor")]
    pub(crate) fn finding(&self, what: impl Into<String>, share: f64, aim: RangeInclusive<f64>) -> Finding {
        let (product, floor) = (percentile(&self.products, share), percentile(&self.floors, share));
        Finding::new(what, product, "µs", Some(floor), aim)
    }
}

/// Everything that rounds need.
pub(crate) struct Rounds<'a> {
    client: &'a Client,
    scaler: &'a mut Scaler,
    floor: Floor,
    signal: Signal,
}

impl<'a> Rounds<'a> {
    /// Starts the floor on its queue of the server at this URL.
    pub(crate) async fn start(
        client: &'a Client,
        scaler: &'a mut Scaler,
        url: &str,
        signal: Signal,
    ) -> anyhow::Result<Self> {
        let floor = Floor::start(url, FLOOR_QUEUE, &signal).await?;
        Ok(Self { client, scaler, floor, signal })
    }

    /// One round of each. Worker type `index` gets a job on this one of its queues.
    pub(crate) async fn round(&mut self, queue: &str, index: usize) -> anyhow::Result<Round> {
        tokio::time::sleep(PAUSE).await;
        let sent = self.send(FLOOR_QUEUE, FLOOR_CHANNEL).await?;
        let Heard { at, probe } = self.floor.next().await?;
        let floor = at.saturating_sub(sent) + probe;
        work_off(self.client, FLOOR_QUEUE, FLOOR_QUEUE).await?;

        tokio::time::sleep(PAUSE).await;
        let sent = self.send(queue, PUBLISHED_CHANNEL).await?;
        let asked = loop {
            if let Event::Scale { nanos, .. } = self.scaler.next().await? {
                break nanos;
            }
        };
        let product = asked.saturating_sub(sent);
        work_off(self.client, queue, &type_name(index)).await?;
        self.scaler.command(Command::Clear(index))?;
        while !matches!(self.scaler.next().await?, Event::Settled) {}
        Ok(Round { floor: micros(floor), product: micros(product) })
    }

    /// Puts a job on a queue. Returns when it began to.
    async fn send(&self, queue: &str, channel: &str) -> anyhow::Result<u64> {
        let job = ("json", r#"{"id":"1","type":"bench"}"#);
        let sent = nanos();
        if self.signal == Signal::Channel {
            let both: Pipeline<Client> = self.client.pipeline();
            let _: () = both.xadd(queue, false, None, "*", job).await?;
            let _: () = both.publish(channel, queue).await?;
            let _: Vec<fred::types::Value> = both.all().await?;
        } else {
            let _: String = self.client.xadd(queue, false, None, "*", job).await?;
        }
        Ok(sent)
    }
}

/// Takes all jobs of a queue as workers would. Redis notifies nobody of that.
pub(crate) async fn work_off(client: &Client, queue: &str, group: &str) -> anyhow::Result<()> {
    let taken: fred::types::Value =
        client.xreadgroup(group, CONSUMER, None, None, true, queue, ">").await.context("XREADGROUP")?;
    drop(taken);
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a round takes far less than 2^53 ns")]
fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}

/// Makes a stream with a consumer group and its consumer: a consumer that comes into being is an event of its own.
pub(crate) async fn make_queue(client: &Client, queue: &str, group: &str) -> anyhow::Result<()> {
    let _: () = client.xgroup_create(queue, group, "0", true).await.with_context(|| format!("making {queue}"))?;
    let _: () = client.xgroup_createconsumer(queue, group, CONSUMER).await?;
    Ok(())
}
