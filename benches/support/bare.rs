//! Bare stream commands, the floor of the cost of jobs: one producer, one consumer, the product's client crate.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use fred::prelude::{Client as Fred, StreamsInterface};
use redis::{Client, aio::MultiplexedConnection, streams::StreamReadReply};

/// Stream of the floor; the group and the consumer have the same name.
const FLOOR: &str = "floor";
/// Separate key for results, so that they can be deleted together.
const DATABASE: u8 = 1;
/// XADDs in one pipeline, the same number as in the product.
const BATCH: usize = 500;
/// Answer of the product's worker to the benchmark's job.
const RESULT: &str = r#"{"id":"00000000-0000-0000-0000-000000000000","ok":true,"value":["hello",42]}"#;
/// Interval of the check whether everything is acknowledged.
const POLL: Duration = Duration::from_millis(1);

/// Connections of a producer and a consumer.
pub(crate) struct Bare {
    producer: MultiplexedConnection,
    consumer: MultiplexedConnection,
    at_once: usize,
}

impl Bare {
    /// Connects and creates the group. The consumer takes `at_once` entries per read.
    pub(crate) async fn connect(url: &str, at_once: usize) -> anyhow::Result<Self> {
        let client = Client::open(url)?;
        let mut producer = client.get_multiplexed_async_connection().await?;
        let mut consumer = client.get_multiplexed_async_connection().await?;
        for connection in [&mut producer, &mut consumer] {
            redis::cmd("SELECT").arg(DATABASE).exec_async(connection).await?;
        }
        make_group(&mut producer).await?;
        Ok(Self { producer, consumer, at_once })
    }

    /// Jobs a second from the first XADD to the last XACK; `with_results`, each XACK is a transaction that pushes the
    /// results and lets them expire. The stream is empty afterwards. The consumer is a task of its own, as the
    /// product's worker is.
    pub(crate) async fn round(&mut self, count: usize, json: &str, with_results: bool) -> anyhow::Result<f64> {
        let started = Instant::now();
        let consumer = tokio::spawn(consume(self.consumer.clone(), count, self.at_once, with_results));
        produce(&mut self.producer, count, json).await?;
        consumer.await??;
        let elapsed = started.elapsed();
        redis::cmd("XTRIM").arg(FLOOR).arg("MAXLEN").arg(0).exec_async(&mut self.producer).await?;
        if with_results {
            redis::cmd("FLUSHDB").exec_async(&mut self.producer).await?;
            make_group(&mut self.producer).await?;
        }
        #[expect(clippy::cast_precision_loss, reason = "some ten thousand jobs")]
        Ok(count as f64 / elapsed.as_secs_f64())
    }

    /// XADD, XREADGROUP and XACK, one after another.
    pub(crate) async fn three_round_trips(&mut self, json: &str) -> anyhow::Result<Duration> {
        let started = Instant::now();
        let mut add = redis::cmd("XADD");
        add.arg(FLOOR).arg("*").arg("json").arg(json);
        add.exec_async(&mut self.producer).await?;
        let entries = read(&mut self.producer, 1).await?;
        acknowledge(&mut self.producer, &entries).await?;
        Ok(started.elapsed())
    }
}

async fn produce(connection: &mut MultiplexedConnection, count: usize, json: &str) -> anyhow::Result<()> {
    let mut left = count;
    while left > 0 {
        let batch = left.min(BATCH);
        let mut pipeline = redis::pipe();
        for _ in 0..batch {
            pipeline.cmd("XADD").arg(FLOOR).arg("*").arg("json").arg(json);
        }
        let ids: Vec<String> = pipeline.query_async(connection).await?;
        left -= ids.len();
    }
    Ok(())
}

async fn consume(
    mut connection: MultiplexedConnection,
    count: usize,
    at_once: usize,
    with_results: bool,
) -> anyhow::Result<()> {
    let mut left = count;
    while left > 0 {
        let entries = read(&mut connection, at_once).await?;
        if with_results {
            answer(&mut connection, &entries).await?;
        } else {
            acknowledge(&mut connection, &entries).await?;
        }
        left -= entries.len();
    }
    Ok(())
}

async fn read(connection: &mut MultiplexedConnection, count: usize) -> anyhow::Result<Vec<String>> {
    let mut command = redis::cmd("XREADGROUP");
    command.arg("GROUP").arg(FLOOR).arg(FLOOR).arg("COUNT").arg(count).arg("BLOCK").arg(400);
    command.arg("STREAMS").arg(FLOOR).arg(">");
    let reply: Option<StreamReadReply> = command.query_async(connection).await?;
    let stream = reply.and_then(|reply| reply.keys.into_iter().next()).context("the floor's jobs do not come")?;
    Ok(stream.ids.into_iter().map(|entry| entry.id).collect())
}

async fn acknowledge(connection: &mut MultiplexedConnection, entries: &[String]) -> anyhow::Result<()> {
    redis::cmd("XACK").arg(FLOOR).arg(FLOOR).arg(entries).exec_async(connection).await?;
    Ok(())
}

/// Acknowledges with the product's transaction and results of the same size.
async fn answer(connection: &mut MultiplexedConnection, entries: &[String]) -> anyhow::Result<()> {
    let mut pipeline = redis::pipe();
    pipeline.atomic();
    for entry in entries {
        let key = format!("result:00000000-0000-0000-{entry}");
        pipeline.cmd("LPUSH").arg(&key).arg(RESULT);
        pipeline.cmd("EXPIRE").arg(&key).arg(3_600);
    }
    pipeline.cmd("XACK").arg(FLOOR).arg(FLOOR).arg(entries);
    pipeline.exec_async(connection).await?;
    Ok(())
}

async fn make_group(connection: &mut MultiplexedConnection) -> anyhow::Result<()> {
    let mut group = redis::cmd("XGROUP");
    group.arg("CREATE").arg(FLOOR).arg(FLOOR).arg(0).arg("MKSTREAM");
    group.exec_async(connection).await?;
    Ok(())
}

/// Waits until every entry of `stream` was delivered to `group` and acknowledged.
pub(crate) async fn until_acknowledged(
    client: &Fred,
    stream: &str,
    group: &str,
    patience: Duration,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        let groups: Vec<std::collections::HashMap<String, fred::types::Value>> = client.xinfo_groups(stream).await?;
        let of_group = |field: &str| {
            let found = groups.iter().find(|found| found["name"].as_str().as_deref() == Some(group))?;
            found.get(field)?.as_u64()
        };
        if (of_group("lag"), of_group("pending")) == (Some(0), Some(0)) {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
    bail!("not every job of {stream} is acknowledged within {patience:?}")
}
