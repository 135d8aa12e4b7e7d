//! Measures a worker type with a thousand workers that is looked at 20 times a second: commands, CPU of the scaler and
//! of Redis, against ten workers at the same time. `cargo bench --bench many_workers [-- --quick --json]`.
//!
//! Each pool has a server of its own. The benchmark writes the heartbeats. A job every 50 ms, which the benchmark
//! takes, causes the looks.

#[path = "support/bench_options.rs"]
mod bench_options;
#[path = "support/heartbeats.rs"]
mod heartbeats;
#[path = "support/load.rs"]
mod load;
#[path = "support/protocol.rs"]
mod protocol;
#[path = "support/recording.rs"]
mod recording;
#[path = "support/redis_server.rs"]
mod redis_server;
#[path = "support/report.rs"]
mod report;
#[path = "support/scaler.rs"]
mod scaler;
#[path = "support/scaler_process.rs"]
mod scaler_process;
#[path = "support/server_info.rs"]
mod server_info;
#[path = "support/usage.rs"]
mod usage;

use std::time::{Duration, Instant};

use clap::Args;
use fred::prelude::{Client, StreamsInterface};

use crate::{
    bench_options::BenchOptions,
    heartbeats::write_heartbeats,
    load::Load,
    protocol::{Setup, queue_name, type_name},
    redis_server::RedisServer,
    report::{ANY, Finding},
    scaler::Scaler,
    server_info::commands,
};

/// Workers of the small pool.
const FEW: u32 = 10;

/// Interval of the jobs.
const INTERVAL: Duration = Duration::from_millis(50);

#[derive(Debug, Args)]
struct Options {
    /// Workers of the large pool
    #[arg(long, default_value_t = 1_000)]
    workers: u32,
    /// Seconds of jobs; with --quick 5
    #[arg(long, default_value_t = 30)]
    seconds: u64,
}

fn main() -> anyhow::Result<()> {
    scaler_process::or_bench(bench)
}

async fn bench(options: &BenchOptions<Options>) -> anyhow::Result<()> {
    let time = Duration::from_secs(options.sized(options.seconds, 5));
    let (mut few, mut many) = (Pool::start(FEW).await?, Pool::start(options.workers).await?);
    let (few, many) = tokio::try_join!(few.measure(time), many.measure(time))?;
    let of_both = |what: &str, value: fn(&Measured) -> f64, unit, aim| {
        Finding::new(format!("{what}, floor {FEW} workers"), value(&many), unit, Some(value(&few)), aim)
    };
    let findings = [
        of_both("looks a second", |measured| measured.looks, "/s", ANY),
        of_both("commands a second", |measured| measured.commands, "/s", 0.0..=2.0),
        Finding::new("CPU of the scaler, of one core", many.cpu, "%", None, 0.0..=3.0),
        Finding::new(format!("the same with {FEW} workers"), few.cpu, "%", None, ANY),
        of_both("resident memory of the scaler", |measured| measured.resident, "MB", ANY),
        of_both("CPU of Redis", |measured| measured.redis_cpu, "%", ANY),
    ];
    let title = format!(
        "many_workers: one worker type with {} workers, a job every {INTERVAL:?} for {time:?}, hints by keyspace",
        options.workers
    );
    report::print(&title, &findings, options.json)
}

/// Pool whose workers' heartbeats are there, with its server.
struct Pool {
    server: RedisServer,
    client: Client,
    scaler: Scaler,
}

struct Measured {
    looks: f64,
    /// Without the benchmark's own.
    commands: f64,
    cpu: f64,
    resident: f64,
    redis_cpu: f64,
}

impl Pool {
    async fn start(workers: u32) -> anyhow::Result<Self> {
        let server = RedisServer::start()?;
        let client = server.client().await?;
        let _: () = client.xgroup_create(queue_name(0), type_name(0), "0", true).await?;
        write_heartbeats(&client, 0, workers as usize).await?;
        let setup = Setup { min_workers: workers, max_workers: workers, ..Setup::new(server.url()) };
        let mut scaler = Scaler::start(&setup).await?;
        scaler.until("aware of its workers", |status| status.ready_workers == u64::from(workers)).await?;
        Ok(Self { server, client, scaler })
    }

    async fn measure(&mut self, time: Duration) -> anyhow::Result<Measured> {
        let load = jobs(&self.server.url())?;
        let before = self.scaler.status().await?;
        let (sent, begun) = (commands(&self.client).await?, Instant::now());
        let (cpu, redis_cpu) = (usage::cpu(&self.scaler.process)?, usage::cpu(&self.server.process)?);
        tokio::time::sleep(time).await;
        let wall = begun.elapsed();
        let cpu = usage::percent_since(cpu, &self.scaler.process, wall)?;
        let redis_cpu = usage::percent_since(redis_cpu, &self.server.process, wall)?;
        let sent = commands(&self.client).await? - sent;
        let looks = self.scaler.status().await?.evaluations - before.evaluations;
        let own = load.stop()?.len() * 2;
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let (looks, own) = (looks as f64, own as f64);
        let a_second = |count: f64| count / wall.as_secs_f64();
        let resident = usage::resident_mb(&self.scaler.process)?;
        Ok(Measured { looks: a_second(looks), commands: a_second(sent - own), cpu, resident, redis_cpu })
    }
}

/// Adds a job and takes it, in each interval.
fn jobs(url: &str) -> anyhow::Result<Load<()>> {
    let mut connection = redis::Client::open(url)?.get_connection()?;
    let mut both = redis::pipe();
    both.cmd("XADD").arg(queue_name(0)).arg("*").arg("json").arg("{}");
    both.cmd("XREADGROUP").arg("GROUP").arg(type_name(0)).arg("bench").arg("NOACK");
    both.arg("STREAMS").arg(queue_name(0)).arg(">");
    Ok(Load::start(INTERVAL, move || Ok(both.exec(&mut connection)?)))
}
