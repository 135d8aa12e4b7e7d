//! A steady flood of XADDs that are sent one at a time, each after the reply to the last: what the scaler costs itself
//! and Redis, against the same flood without a scaler just before.

use std::time::{Duration, Instant};

use fred::prelude::Client;
use swarm::config::Switch;

use crate::{
    bench_options::BenchOptions,
    empty,
    load::Load,
    median,
    protocol::{Setup, queue_name},
    redis_server::RedisServer,
    report::{self, Finding},
    scaler::Scaler,
    usage,
};

/// XADDs a second.
const RATE: u32 = 10_000;

/// Result of one flood with a scaler, and of the one without just before.
struct Pair {
    bare: Usage,
    with: Usage,
    /// CPU of the scaler, in percent of one core.
    cpu: f64,
}

/// What a flood took.
struct Usage {
    /// XADDs a second.
    rate: f64,
    /// CPU of Redis, in percent of one core.
    redis_cpu: f64,
}

pub(crate) async fn bench(options: &BenchOptions<crate::Options>) -> anyhow::Result<()> {
    let (time, number) = options.sized((Duration::from_secs(20), options.floods), (Duration::from_secs(5), 1));
    let server = RedisServer::start()?;
    let client = server.client().await?;
    let mut findings = Vec::new();
    for (name, keyspace, tracking) in [("tracking", Switch::Off, Switch::On), ("keyspace", Switch::On, Switch::Off)] {
        let setup = Setup { keyspace, tracking, ..Setup::new(server.url()) };
        let mut pairs = Vec::with_capacity(number);
        for _ in 0..number {
            pairs.push(pair(&server, &client, &setup, time).await?);
        }
        let typical = |value: fn(&Pair) -> f64| median(pairs.iter().map(value));
        let finding = |what, value, unit, floor, aim| Finding::new(format!("{name}: {what}"), value, unit, floor, aim);
        let redis_cpu = typical(|pair| pair.with.redis_cpu);
        let bare_redis_cpu = redis_cpu / typical(|pair| pair.with.redis_cpu / pair.bare.redis_cpu);
        let rate = typical(|pair| pair.with.rate);
        findings.extend([
            finding("CPU of the scaler", typical(|pair| pair.cpu), "%", None, 0.0..=3.0),
            finding("CPU of Redis", redis_cpu, "%", Some(bare_redis_cpu), 0.0..=1.1),
            finding("producer", rate, "/s", Some(typical(|pair| pair.bare.rate)), 0.9..=f64::INFINITY),
        ]);
    }
    let title = format!("flood: {RATE} XADDs a second, one at a time, for {time:?}; median of {number} floods");
    report::print(&title, &findings, options.json)
}

async fn pair(server: &RedisServer, client: &Client, setup: &Setup, time: Duration) -> anyhow::Result<Pair> {
    empty(client).await?;
    let bare = flood(server, time).await?;
    empty(client).await?;
    let scaler = Scaler::start(setup).await?;
    let (cpu, begun) = (usage::cpu(&scaler.process)?, Instant::now());
    let with = flood(server, time).await?;
    let cpu = usage::percent_since(cpu, &scaler.process, begun.elapsed())?;
    Ok(Pair { bare, with, cpu })
}

async fn flood(server: &RedisServer, time: Duration) -> anyhow::Result<Usage> {
    let mut connection = redis::Client::open(server.url())?.get_connection()?;
    let mut add = redis::cmd("XADD");
    add.arg(queue_name(0)).arg("*").arg("json").arg("{}");
    let (cpu, begun) = (usage::cpu(&server.process)?, Instant::now());
    let load = Load::start(Duration::from_secs(1) / RATE, move || Ok(add.exec(&mut connection)?));
    tokio::time::sleep(time).await;
    let sent = load.stop()?.len();
    let wall = begun.elapsed();
    let redis_cpu = usage::percent_since(cpu, &server.process, wall)?;
    Ok(Usage { rate: f64::from(u32::try_from(sent)?) / wall.as_secs_f64(), redis_cpu })
}
