//! Measures a queue of a thousand jobs of 900 KiB, of which an undelivered one is deleted, so that Redis does not tell
//! the lag and the entries have to be counted: bytes that the scaler reads, its memory, how late it answers another
//! worker type, whether it keeps the lead, and what Redis and its other clients notice.
//! `cargo bench --bench large_jobs [-- --quick --json]`.
//!
//! The floor is the same with jobs of two bytes. Every 50 ms another job is added and the one before it deleted, so the
//! queue is evaluated 20 times a second, and the lag is unknown each time.

#[path = "support/bench_options.rs"]
mod bench_options;
#[path = "support/floor.rs"]
mod floor;
#[path = "support/heartbeats.rs"]
mod heartbeats;
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
#[path = "support/server_info.rs"]
mod server_info;
#[path = "support/usage.rs"]
mod usage;

use std::time::Duration;

use anyhow::ensure;
use clap::Args;
use fred::types::InfoKind;

use crate::{
    bench_options::BenchOptions,
    heartbeats::write_heartbeats,
    load::Load,
    percentile::percentile,
    protocol::{Setup, queue_name, type_name},
    proxy::Proxy,
    redis_server::RedisServer,
    report::{ANY, Finding},
    rounds::{FLOOR_QUEUE, Reactions, Rounds, Signal, make_queue},
    scaler::Scaler,
    server_info::info_number,
};

/// Jobs that are delivered before one is deleted: from the start of a stream, the backlog is its length.
const DELIVERED: usize = 10;

/// Interval of jobs that are added.
const INTERVAL: Duration = Duration::from_millis(50);

/// Payload of the floor's jobs.
const SMALL: usize = 2;

/// Workers of the large queue, all of which its backlog needs from the beginning.
const WORKERS: u32 = 5;

#[derive(Debug, Args)]
struct Options {
    /// Jobs that wait; with --quick 200
    #[arg(long, default_value_t = 1_000)]
    jobs: usize,
    /// Size of a job, in KiB
    #[arg(long, default_value_t = 900)]
    kib: usize,
    /// Rounds of one job each to another worker type; with --quick 200
    #[arg(long, default_value_t = 1_000)]
    rounds: usize,
}

fn main() -> anyhow::Result<()> {
    scaler_process::or_bench(bench)
}

/// What was measured with jobs of one size.
struct Measured {
    bytes_per_look: f64,
    resident: f64,
    reactions: Reactions,
    /// Terms as leader that began after the first.
    lost_leads: f64,
    /// Memory that scripts take on the server, in MB.
    script_memory: f64,
    bare_pings: Vec<f64>,
    pings: Vec<f64>,
}

async fn bench(options: &BenchOptions<Options>) -> anyhow::Result<()> {
    let (jobs, rounds) = options.sized((options.jobs, options.rounds), (200, 200));
    let small = measure(jobs, SMALL, rounds).await?;
    let large = measure(jobs, options.kib * 1_024, rounds).await?;
    let share = |values: &[f64], share| percentile(values, share);
    let late = |name: &str, at, aim| {
        large.reactions.finding(format!("reaction of another worker type, {name}"), at, 0.0..=aim)
    };
    let with_small = |name: &str, at| small.reactions.finding(format!("the same with small jobs, {name}"), at, ANY);
    let findings = [
        Finding::new(
            "bytes read for each evaluation",
            large.bytes_per_look,
            "bytes",
            Some(small.bytes_per_look),
            0.0..=2.0,
        ),
        Finding::new("resident memory of the scaler", large.resident, "MB", Some(small.resident), 0.0..=1.5),
        late("p50", 0.5, 1.5),
        late("p99", 0.99, 4.0),
        with_small("p50", 0.5),
        with_small("p99", 0.99),
        Finding::new("leads lost", large.lost_leads, "", None, 0.0..=0.0),
        Finding::new(
            "memory of scripts on the server (used_memory_vm_eval)",
            large.script_memory,
            "MB",
            Some(small.script_memory),
            ANY,
        ),
        Finding::new(
            "PING of another client p99, floor without a scaler",
            share(&large.pings, 0.99),
            "µs",
            Some(share(&large.bare_pings, 0.99)),
            ANY,
        ),
        Finding::new(
            "the same with small jobs",
            share(&small.pings, 0.99),
            "µs",
            Some(share(&small.bare_pings, 0.99)),
            ANY,
        ),
    ];
    let title = format!(
        "large_jobs: {jobs} jobs of {} KiB, undelivered ones deleted, one more every {INTERVAL:?}; floor: jobs of {SMALL} \
         bytes; {rounds} rounds of another worker type, hints by {}, debounce_ms = 0",
        options.kib,
        Signal::Keyspace.name(),
    );
    report::print(&title, &findings, options.json)
}

async fn measure(jobs: usize, size: usize, rounds: usize) -> anyhow::Result<Measured> {
    let server = RedisServer::start()?;
    let client = server.client().await?;
    make_queue(&client, FLOOR_QUEUE, FLOOR_QUEUE).await?;
    make_queue(&client, &queue_name(0), &type_name(0)).await?;
    make_queue(&client, &queue_name(1), &type_name(1)).await?;
    write_heartbeats(&client, 0, WORKERS as usize).await?;
    fill(&server.url(), jobs, size)?;
    // As long as the rounds below take.
    let time = Duration::from_millis(u64::try_from(rounds)? * 10);
    let load = load(&server.url(), size)?;
    let bare_pings = pings(&server, time).await?;

    let proxy = Proxy::start(server.port(), Duration::ZERO)?;
    let setup = Setup { types: 2, debounce_ms: 0, max_workers: WORKERS, ..Setup::new(redis_server::url(proxy.port())) };
    let mut scaler = Scaler::start(&setup).await?;
    scaler.until("at its maximum", |status| status.desired == u64::from(WORKERS)).await?;
    let (before, sent) = (scaler.status().await?, proxy.sent());
    let pings = pings(&server, time).await?;
    let (after, sent) = (scaler.status().await?, proxy.sent() - sent);
    ensure!(after.evaluations > before.evaluations, "nothing was evaluated");

    let mut by_turns = Rounds::start(&client, &mut scaler, &server.url(), Signal::Keyspace).await?;
    let mut reactions = Reactions::default();
    for _ in 0..rounds {
        reactions.push(by_turns.round(&queue_name(1), 1).await?);
    }
    load.stop()?;
    let end = scaler.status().await?;
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    Ok(Measured {
        bytes_per_look: sent as f64 / (after.evaluations - before.evaluations) as f64,
        resident: usage::resident_mb(&scaler.process)?,
        reactions,
        lost_leads: if end.token == 0 { f64::INFINITY } else { (end.token - before.token) as f64 },
        script_memory: info_number(&client, InfoKind::Memory, "used_memory_vm_eval").await? / 1e6,
        bare_pings,
        pings,
    })
}

/// Adds jobs of this size, delivers the first ones, and deletes one that was not delivered.
fn fill(url: &str, jobs: usize, size: usize) -> anyhow::Result<()> {
    let mut connection = redis::Client::open(url)?.get_connection()?;
    let mut ids = Vec::with_capacity(jobs);
    // One more, which is deleted.
    for _ in 0..=DELIVERED + jobs {
        ids.push(add(size).query::<String>(&mut connection)?);
    }
    let mut read = redis::cmd("XREADGROUP");
    read.arg("GROUP").arg(type_name(0)).arg("bench").arg("COUNT").arg(DELIVERED).arg("NOACK");
    read.arg("STREAMS").arg(queue_name(0)).arg(">").exec(&mut connection)?;
    redis::cmd("XDEL").arg(queue_name(0)).arg(&ids[DELIVERED + jobs / 2]).exec(&mut connection)?;
    Ok(())
}

fn add(size: usize) -> redis::Cmd {
    let mut add = redis::cmd("XADD");
    add.arg(queue_name(0)).arg("*").arg("json").arg(vec![b'x'; size]);
    add
}

/// Adds a job in each interval, and deletes the one before it.
fn load(url: &str, size: usize) -> anyhow::Result<Load<()>> {
    let mut connection = redis::Client::open(url)?.get_connection()?;
    let (add, mut last) = (add(size), None::<String>);
    Ok(Load::start(INTERVAL, move || {
        let id = add.query(&mut connection)?;
        if let Some(last) = last.replace(id) {
            redis::cmd("XDEL").arg(queue_name(0)).arg(last).exec(&mut connection)?;
        }
        Ok(())
    }))
}

async fn pings(server: &RedisServer, time: Duration) -> anyhow::Result<Vec<f64>> {
    let pings = load::pings(server.port())?;
    tokio::time::sleep(time).await;
    pings.stop()
}
