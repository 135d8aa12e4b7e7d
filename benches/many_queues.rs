//! Measures ten thousand worker types at rest: memory, CPU, the time of a sweep over all of them, and the reaction to
//! one job among them. `cargo bench --bench many_queues [-- --quick --json]`.
//!
//! The reaction is measured like in `reaction`, against the same floor.

#[path = "support/bench_options.rs"]
mod bench_options;
#[path = "support/floor.rs"]
mod floor;
#[path = "support/percentile.rs"]
mod percentile;
#[path = "support/protocol.rs"]
mod protocol;
#[path = "support/recording.rs"]
mod recording;
#[path = "support/redis_server.rs"]
mod redis_server;
#[path = "support/report.rs"]
mod report;
#[path = "support/rounds.rs"]
mod rounds;
#[path = "support/scaler.rs"]
mod scaler;
#[path = "support/scaler_process.rs"]
mod scaler_process;
#[path = "support/usage.rs"]
mod usage;

use std::time::{Duration, Instant};

use clap::Args;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::{
    bench_options::BenchOptions,
    protocol::{Setup, queue_name, type_name},
    redis_server::RedisServer,
    report::Finding,
    rounds::{FLOOR_QUEUE, Reactions, Rounds, Signal, make_queue},
    scaler::Scaler,
};

/// Sweep interval of the reported CPU: the product's default.
const SWEEP_INTERVAL: f64 = 30.0;

/// Step between the worker types of two rounds, so that each is far from the last ones.
const STRIDE: usize = 6_997;

#[derive(Debug, Args)]
struct Options {
    /// Worker types
    #[arg(long, default_value_t = 10_000)]
    types: usize,
    /// Rounds of one job each; with --quick 200, and sweeps every 5 s for each 10,000 types, at most every 30 s
    #[arg(long, default_value_t = 1_000)]
    rounds: usize,
}

fn main() -> anyhow::Result<()> {
    scaler_process::or_bench(bench)
}

async fn bench(options: &BenchOptions<Options>) -> anyhow::Result<()> {
    // Long enough for a sweep to end before the next one begins.
    let sweep_interval_seconds = options.sized(30, (options.types as u64 / 2_000).clamp(5, 30));
    let rounds = options.sized(options.rounds, 200);
    let server = RedisServer::start()?;
    let client = server.client().await?;
    make_queue(&client, FLOOR_QUEUE, FLOOR_QUEUE).await?;
    stream::iter(0..options.types)
        .map(|index| {
            let client = &client;
            async move { make_queue(client, &queue_name(index), &type_name(index)).await }
        })
        .buffer_unordered(128)
        .try_collect::<()>()
        .await?;
    let setup = Setup { types: options.types, debounce_ms: 0, sweep_interval_seconds, ..Setup::new(server.url()) };
    let mut scaler = Scaler::start(&setup).await?;

    let (before, started, cpu) = (scaler.status().await?, Instant::now(), usage::cpu(&scaler.process)?);
    // Exactly two sweeps, wherever in an interval this begins.
    tokio::time::sleep(Duration::from_secs(2 * sweep_interval_seconds)).await;
    let cpu = usage::cpu(&scaler.process)?.saturating_sub(cpu).as_secs_f64() / started.elapsed().as_secs_f64() * 100.0;
    let resident = usage::resident_mb(&scaler.process)?;
    let after = scaler.status().await?;
    let sweep = (after.sweep_seconds - before.sweep_seconds) / (after.sweeps - before.sweeps) * 1e3;

    let reactions = react(&server, &client, &mut scaler, options.types, rounds).await?;
    let interval = f64::from(u32::try_from(sweep_interval_seconds)?);
    // The aims of memory, CPU and sweep are for ten thousand types, and in proportion for more.
    let share = (f64::from(u32::try_from(options.types)?) / 1e4).max(1.0);
    let reaction =
        |name: &str, share| reactions.finding(format!("reaction to one job among them, {name}"), share, 0.0..=2.0);
    let findings = [
        Finding::new("resident memory, metrics rendered once", resident, "MB", None, 0.0..=64.0 * share),
        Finding::new("CPU at rest, of one core", cpu * interval / SWEEP_INTERVAL, "%", None, 0.0..=share),
        Finding::new("sweep of all queues", sweep, "ms", None, 0.0..=500.0 * share),
        reaction("p50", 0.5),
        reaction("p99", 0.99),
    ];
    let title = format!(
        "many_queues: {} worker types at rest, hints by {}; CPU for a sweep every {SWEEP_INTERVAL} s, \
         measured with one every {interval} s; {rounds} rounds, debounce_ms = 0",
        options.types,
        Signal::Keyspace.name(),
    );
    report::print(&title, &findings, options.json)
}

async fn react(
    server: &RedisServer,
    client: &fred::prelude::Client,
    scaler: &mut Scaler,
    types: usize,
    rounds: usize,
) -> anyhow::Result<Reactions> {
    let mut by_turns = Rounds::start(client, scaler, &server.url(), Signal::Keyspace).await?;
    let mut reactions = Reactions::default();
    for number in 0..rounds {
        let index = number * STRIDE % types;
        reactions.push(by_turns.round(&queue_name(index), index).await?);
    }
    Ok(reactions)
}
