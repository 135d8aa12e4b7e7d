//! Measures the time from a job to the backend's `scale` call, against the floor: a bare subscriber's event plus a bare
//! probe's round trip. `cargo bench --bench reaction [-- --quick --json]`.
//!
//! Each round starts with an empty queue and no worker, and floor and product alternate. `debounce_ms` is 0: at its
//! default, a round that follows another within 50 ms is delayed by design.

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

use clap::Args;
use swarm::{config::Switch, model::keys::PUBLISHED_CHANNEL};

use crate::{
    bench_options::BenchOptions,
    protocol::{Setup, queue_name, type_name},
    redis_server::RedisServer,
    report::Finding,
    rounds::{FLOOR_QUEUE, Reactions, Rounds, Signal, make_queue},
    scaler::Scaler,
};

/// Warm-up rounds for connections, caches and the branch predictor.
const WARM_UP: usize = 50;

#[derive(Debug, Args)]
struct Options {
    /// Rounds for each signal source; with --quick 300
    #[arg(long, default_value_t = 5_000)]
    rounds: usize,
}

fn main() -> anyhow::Result<()> {
    scaler_process::or_bench(bench)
}

async fn bench(options: &BenchOptions<Options>) -> anyhow::Result<()> {
    let rounds = options.sized(options.rounds, 300);
    let mut findings = Vec::new();
    for signal in [Signal::Keyspace, Signal::Tracking, Signal::Channel] {
        findings.extend(measure(&signal, rounds).await?);
    }
    let title = format!("reaction: job sent → backend asked, {rounds} rounds each, from rest, debounce_ms = 0");
    report::print(&title, &findings, options.json)
}

async fn measure(signal: &Signal, rounds: usize) -> anyhow::Result<[Finding; 2]> {
    let server = RedisServer::start()?;
    let client = server.client().await?;
    make_queue(&client, FLOOR_QUEUE, FLOOR_QUEUE).await?;
    make_queue(&client, &queue_name(0), &type_name(0)).await?;
    let only = |wanted: Signal| if *signal == wanted { Switch::On } else { Switch::Off };
    let channel = if *signal == Signal::Channel { PUBLISHED_CHANNEL } else { "" };
    let setup = Setup {
        keyspace: only(Signal::Keyspace),
        tracking: only(Signal::Tracking),
        channel: channel.to_owned(),
        debounce_ms: 0,
        ..Setup::new(server.url())
    };
    let mut scaler = Scaler::start(&setup).await?;
    let mut by_turns = Rounds::start(&client, &mut scaler, &server.url(), signal.clone()).await?;
    let mut reactions = Reactions::default();
    for number in 0..WARM_UP + rounds {
        let round = by_turns.round(&queue_name(0), 0).await?;
        if number >= WARM_UP {
            reactions.push(round);
        }
    }
    let finding =
        |share: f64, name: &str, aim: f64| reactions.finding(format!("{} {name}", signal.name()), share, 0.0..=aim);
    Ok([finding(0.5, "p50", 1.3), finding(0.99, "p99", 2.0)])
}
