//! Puts a million jobs on one queue as fast as the server accepts them. Measures what that costs the scaler, whether it
//! slows the producer, and whether the count is right in the end. `cargo bench --bench flood [-- --quick --json]`.
//! With `-- --unpipelined`, a steady flood of XADDs that are sent one at a time: see [`unpipelined`].
//!
//! Floods with and without a scaler alternate. The scaler has its default debounce.

#[path = "../support/bench_options.rs"]
mod bench_options;
#[path = "../support/load.rs"]
mod load;
#[path = "../support/percentile.rs"]
mod percentile;
#[path = "../support/protocol.rs"]
mod protocol;
#[path = "../support/recording.rs"]
mod recording;
#[path = "../support/redis_server.rs"]
mod redis_server;
#[path = "../support/report.rs"]
mod report;
#[path = "../support/scaler.rs"]
mod scaler;
#[path = "../support/scaler_process.rs"]
mod scaler_process;
mod unpipelined;
#[path = "../support/usage.rs"]
mod usage;

use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use fred::{
    clients::Pipeline,
    prelude::{Client, ClientLike, ConfigInterface, StreamsInterface},
};
use futures_util::{StreamExt, stream};
use swarm::config::Switch;

use crate::{
    bench_options::BenchOptions,
    percentile::percentile,
    protocol::{Setup, Status, queue_name, type_name},
    redis_server::RedisServer,
    report::Finding,
    scaler::Scaler,
};

/// Jobs in one pipeline.
const BATCH: u32 = 1_000;

/// Simultaneous pipelines.
const IN_FLIGHT: usize = 8;

/// Workers that the whole flood needs. Below `max_workers`, so that only an exact count leads to it.
const WORKERS: u32 = 50;

/// Timeout for the scaler to see the last job.
const SETTLE: Duration = Duration::from_secs(10);

/// Interval of the check whether it has.
const LOOK: Duration = Duration::from_millis(20);

#[derive(Debug, Args)]
struct Options {
    /// Jobs in each flood; with --quick 200,000
    #[arg(long, default_value_t = 1_000_000)]
    jobs: u32,
    /// Floods of each kind; with --quick 1
    #[arg(long, default_value_t = 5)]
    floods: usize,
    /// Send 10,000 XADDs a second for 20 s, each after the reply to the last, instead of a burst; with --quick for 5 s
    #[arg(long)]
    unpipelined: bool,
}

fn main() -> anyhow::Result<()> {
    scaler_process::or_bench(bench)
}

/// Result of one flood with a scaler.
#[derive(Clone, Copy, Debug)]
struct Flood {
    /// Jobs a second with the scaler, and without one just before.
    rate: f64,
    bare_rate: f64,
    /// CPU during the flood, in percent of one core.
    cpu: f64,
    /// Growth of resident memory, in MB.
    growth: f64,
    evaluations: f64,
    /// Maximum evaluations under the debounce.
    allowed: f64,
    desired: f64,
}

async fn bench(options: &BenchOptions<Options>) -> anyhow::Result<()> {
    if options.unpipelined {
        return unpipelined::bench(options).await;
    }
    let (jobs, number) = options.sized((options.jobs, options.floods), (200_000, 1));
    let server = RedisServer::start()?;
    let client = server.client().await?;
    flood(&client, jobs.min(100_000)).await?;
    let mut findings = Vec::new();
    for (name, keyspace, tracking) in [("tracking", Switch::Off, Switch::On), ("keyspace", Switch::On, Switch::Off)] {
        let mut floods = Vec::with_capacity(number);
        for _ in 0..number {
            empty(&client).await?;
            let bare_rate = f64::from(jobs) / flood(&client, jobs).await?.as_secs_f64();
            empty(&client).await?;
            let setup = Setup {
                keyspace,
                tracking,
                max_workers: WORKERS * 2,
                scale_up_threshold: u64::from(jobs / WORKERS),
                ..Setup::new(server.url())
            };
            floods.push(with_scaler(&client, &setup, jobs, bare_rate).await?);
        }
        findings.extend(findings_of(name, &floods));
    }
    let title = format!("flood: {jobs} jobs on one queue, median of {number} floods");
    report::print(&title, &findings, options.json)
}

fn findings_of(name: &str, floods: &[Flood]) -> [Finding; 5] {
    let typical = |value: fn(&Flood) -> f64| median(floods.iter().map(value));
    let worst = |value: fn(&Flood) -> f64| floods.iter().map(value).fold(f64::MIN, f64::max);
    // The flood that came closest to its maximum.
    let hasty = floods.iter().max_by(|a, b| (a.evaluations / a.allowed).total_cmp(&(b.evaluations / b.allowed)));
    let (evaluations, allowed) = hasty.map_or((0.0, 0.0), |flood| (flood.evaluations, flood.allowed));
    let wrong = floods.iter().find(|flood| (flood.desired - f64::from(WORKERS)).abs() > 0.5).or(floods.first());
    let desired = wrong.map_or(f64::NAN, |flood| flood.desired);
    let slowest = floods.iter().map(|flood| flood.rate / flood.bare_rate).fold(f64::MAX, f64::min);
    let rate = typical(|flood| flood.rate);
    let bare_rate = rate / typical(|flood| flood.rate / flood.bare_rate);
    let finding =
        |what: String, value, unit, floor, aim| Finding::new(format!("{name}: {what}"), value, unit, floor, aim);
    [
        finding("CPU of the scaler".to_owned(), typical(|flood| flood.cpu), "%", None, 0.0..=5.0),
        finding(
            format!("evaluations (wall time / debounce + 2 allow {allowed:.0})"),
            evaluations,
            "",
            None,
            0.0..=allowed,
        ),
        finding("memory growth, worst".to_owned(), worst(|flood| flood.growth), "MB", None, 0.0..=5.0),
        finding("workers in the end".to_owned(), desired, "", None, f64::from(WORKERS)..=f64::from(WORKERS)),
        finding(
            format!("producer (worst ratio of a pair {slowest:.2})"),
            rate,
            "/s",
            Some(bare_rate),
            0.9..=f64::INFINITY,
        ),
    ]
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    percentile(&values.collect::<Vec<_>>(), 0.5)
}

/// Prepares an empty server without notifications, as it is without a scaler, with the queue's consumer group.
async fn empty(client: &Client) -> anyhow::Result<()> {
    let _: () = client.config_set("notify-keyspace-events", "").await?;
    let _: () = client.flushall(false).await?;
    let _: () = client.xgroup_create(queue_name(0), type_name(0), "0", true).await?;
    Ok(())
}

/// Sends the jobs and returns the time that took.
async fn flood(client: &Client, jobs: u32) -> anyhow::Result<Duration> {
    let started = Instant::now();
    let mut batches = stream::iter(0..jobs / BATCH).map(|_| batch(client)).buffer_unordered(IN_FLIGHT);
    while let Some(sent) = batches.next().await {
        sent?;
    }
    Ok(started.elapsed())
}

async fn batch(client: &Client) -> anyhow::Result<()> {
    let queue = queue_name(0);
    let batch: Pipeline<Client> = client.pipeline();
    for _ in 0..BATCH {
        let _: () = batch.xadd(queue.as_str(), false, None, "*", ("json", "{}")).await?;
    }
    Ok(batch.last::<()>().await?)
}

async fn with_scaler(client: &Client, setup: &Setup, jobs: u32, bare_rate: f64) -> anyhow::Result<Flood> {
    let mut scaler = Scaler::start(setup).await?;
    let before = scaler.status().await?;
    let resident = usage::resident_mb(&scaler.process)?;
    let (started, cpu) = (Instant::now(), usage::cpu(&scaler.process)?);
    let wall = flood(client, jobs).await?;
    let cpu = usage::cpu(&scaler.process)?.saturating_sub(cpu);
    let settled = settle(&mut scaler).await?;
    let allowed = (started.elapsed().as_millis() / u128::from(setup.debounce_ms)).saturating_add(2);
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    Ok(Flood {
        rate: f64::from(jobs) / wall.as_secs_f64(),
        bare_rate,
        cpu: cpu.as_secs_f64() / wall.as_secs_f64() * 100.0,
        growth: (usage::resident_mb(&scaler.process)? - resident).max(0.0),
        evaluations: (settled.evaluations - before.evaluations) as f64,
        allowed: allowed as f64,
        desired: settled.desired as f64,
    })
}

/// Waits until no more evaluations come, and returns the status.
async fn settle(scaler: &mut Scaler) -> anyhow::Result<Status> {
    let deadline = Instant::now() + SETTLE;
    let (mut last, mut same) = (scaler.status().await?, 0);
    while same < 10 {
        if Instant::now() > deadline {
            bail!("the scaler goes on evaluating {SETTLE:?} after the flood");
        }
        tokio::time::sleep(LOOK).await;
        let status = scaler.status().await?;
        same = if status.evaluations == last.evaluations { same + 1 } else { 0 };
        last = status;
    }
    Ok(last)
}
