//! Measures the reaction to a job where Redis is 5 ms away in each direction, behind a proxy on this machine.
//! `cargo bench --bench distance [-- --quick --json]`.
//!
//! The floor is that of `reaction`, without the proxy, and two round trips through the proxy, as PINGs take them. Only
//! the scaler is at a distance: the job is sent to the server itself.

#[path = "support/bench_options.rs"]
mod bench_options;
#[path = "support/floor.rs"]
mod floor;
#[path = "support/load.rs"]
mod load;
#[path = "support/percentile.rs"]
mod percentile;
#[path = "support/protocol.rs"]
mod protocol;
#[path = "support/proxy.rs"]
mod proxy;
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

use std::time::Duration;

use clap::Args;

use crate::{
    bench_options::BenchOptions,
    percentile::percentile,
    protocol::{Setup, queue_name, type_name},
    proxy::Proxy,
    redis_server::RedisServer,
    report::{ANY, Finding},
    rounds::{FLOOR_QUEUE, Reactions, Rounds, Signal, make_queue},
    scaler::Scaler,
};

/// Warm-up rounds.
const WARM_UP: usize = 20;

#[derive(Debug, Args)]
struct Options {
    /// Delay in each direction, in milliseconds
    #[arg(long, default_value_t = 5)]
    delay_ms: u64,
    /// Rounds; with --quick 200
    #[arg(long, default_value_t = 1_000)]
    rounds: usize,
}

fn main() -> anyhow::Result<()> {
    scaler_process::or_bench(bench)
}

async fn bench(options: &BenchOptions<Options>) -> anyhow::Result<()> {
    let rounds = options.sized(options.rounds, 200);
    let server = RedisServer::start()?;
    let client = server.client().await?;
    make_queue(&client, FLOOR_QUEUE, FLOOR_QUEUE).await?;
    make_queue(&client, &queue_name(0), &type_name(0)).await?;
    let proxy = Proxy::start(server.port(), Duration::from_millis(options.delay_ms))?;
    let mut scaler = Scaler::start(&Setup { debounce_ms: 0, ..Setup::new(redis_server::url(proxy.port())) }).await?;
    let pings = load::pings(proxy.port())?;
    let mut by_turns = Rounds::start(&client, &mut scaler, &server.url(), Signal::Keyspace).await?;
    let mut reactions = Reactions::default();
    for number in 0..WARM_UP + rounds {
        let round = by_turns.round(&queue_name(0), 0).await?;
        if number >= WARM_UP {
            reactions.push(round);
        }
    }
    let pings = pings.stop()?;
    let trip = |share| percentile(&pings, share) / 1e3;
    let bare = |share| percentile(&reactions.floors, share) / 1e3;
    let finding = |name: &str, share, aim| {
        let floor = 2.0 * trip(share) + bare(share);
        Finding::new(format!("reaction {name}"), percentile(&reactions.products, share) / 1e3, "ms", Some(floor), aim)
    };
    let findings = [
        finding("p50", 0.5, 0.0..=1.2),
        finding("p99", 0.99, ANY),
        Finding::new("of the floor: one round trip p50", trip(0.5), "ms", None, ANY),
        Finding::new("of the floor: event and probe without the proxy p50", bare(0.5), "ms", None, ANY),
    ];
    let title = format!(
        "distance: job sent → backend asked, Redis {} ms away in each direction; {rounds} rounds, hints by {}, \
         debounce_ms = 0",
        options.delay_ms,
        Signal::Keyspace.name(),
    );
    report::print(&title, &findings, options.json)
}
