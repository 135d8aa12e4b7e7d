//! Measures the time from a job to the start request at the Machines API, against the floor: a bare subscriber's event,
//! a bare probe, and a bare request on an open connection.
//! `cargo bench --bench fly_reaction [-- --quick --json]`.
//!
//! The API is a fake on this machine, so the result is swarm's share, without the network to Fly.io. Each round starts
//! with an empty queue and a stopped machine, and floor and product alternate. The benchmark ignores Fly.io's rate
//! limits.

#[path = "support/bench_options.rs"]
mod bench_options;
#[allow(dead_code, reason = "shared with benchmarks that use more of it")]
#[path = "support/floor.rs"]
mod floor;
#[path = "support/fly_api.rs"]
mod fly_api;
#[path = "support/percentile.rs"]
mod percentile;
#[allow(dead_code, reason = "shared with benchmarks that use more of it")]
#[path = "support/protocol.rs"]
mod protocol;
#[allow(dead_code, reason = "shared with benchmarks that use more of it")]
#[path = "support/redis_server.rs"]
mod redis_server;
#[path = "support/report.rs"]
mod report;
#[allow(dead_code, reason = "shared with benchmarks that use more of it")]
#[path = "support/rounds.rs"]
mod rounds;
#[allow(dead_code, reason = "shared with benchmarks that use more of it")]
#[path = "support/scaler.rs"]
mod scaler;

use std::{
    collections::BTreeMap,
    io::Read,
    num::NonZeroU32,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use fred::prelude::{Client, StreamsInterface};
use swarm::{
    app::{Autoscaler, AutoscalerConfig as ScalerOptions, runtime},
    backend::{
        ScalingBackend,
        fly::{Access, FlyBackend, FlySpec, RateLimit},
    },
    config::{FlyWorkerSettings, Settings, Switch, WorkerTypeSettings},
    model::{StopSignal, WorkerType},
    telemetry::{LogFormat, init_logging, install_metrics},
};
use tokio_util::sync::CancellationToken;

use crate::{
    bench_options::BenchOptions,
    floor::{Floor, Heard},
    fly_api::{FlyApi, Reached},
    percentile::percentile,
    protocol::{nanos, queue_name, type_name},
    redis_server::RedisServer,
    report::Finding,
    rounds::{FLOOR_QUEUE, Signal, make_queue},
};

/// The hidden argument that makes this the scaler's process; the addresses of Redis and of the API follow it.
const SCALER: &str = "--scaler";
/// Warm-up rounds.
const WARM_UP: usize = 20;
/// Idle time before each half of a round.
const PAUSE: Duration = Duration::from_millis(10);
/// Timeout of every wait.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Args)]
struct Options {
    /// Rounds; with --quick 200
    #[arg(long, default_value_t = 1_000)]
    rounds: usize,
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip_while(|argument| argument != SCALER).skip(1);
    if let (Some(redis), Some(api)) = (arguments.next(), arguments.next()) {
        return run_scaler(&redis, api);
    }
    bench_options::run(bench_options::one_thread(), bench)
}

/// Runs the real autoscaler with the real backend until stdin ends.
fn run_scaler(redis: &str, api: String) -> anyhow::Result<()> {
    init_logging(LogFormat::Text, "info")?;
    let mut settings = Settings { redis_url: redis.into(), ..Settings::default() };
    settings.scaler.debounce_ms = 0;
    settings.http.listen = String::new();
    settings.signals.keyspace = Switch::On;
    let mut worker_type = WorkerTypeSettings::default();
    worker_type.scaling.cooldown_seconds = 0;
    worker_type.worker.heartbeats = false;
    settings.worker_types = BTreeMap::from([(type_name(0), worker_type)]);
    let spec = FlySpec {
        app: "bench".to_owned(),
        group: format!("worker-{}", type_name(0)),
        settings: FlyWorkerSettings::default(),
        drain_timeout: Duration::from_secs(1),
        signal: StopSignal::default(),
    };
    let access = Access {
        base_url: api,
        token: Some("none".into()),
        token_file: None,
        timeout: Duration::from_secs(5),
        rate_limit: RateLimit { every: Duration::from_micros(1), burst: NonZeroU32::MAX },
    };
    let poll = settings.fly.poll();
    let options = ScalerOptions {
        settings: Arc::new(settings),
        config_file: None,
        program: PathBuf::new(),
        metrics: install_metrics()?,
        reload: None,
    };
    runtime()?.block_on(async {
        let types = BTreeMap::from([(WorkerType::new(type_name(0)), spec)]);
        let make = move |on_change, clock| -> swarm::app::MadeBackend {
            Box::pin(async move {
                let backend = FlyBackend::start(&types, &access, poll, on_change, clock)?;
                Ok(Arc::new(backend) as Arc<dyn ScalingBackend>)
            })
        };
        let autoscaler = Autoscaler::start_with(options, Box::new(make)).await?;
        let cancel = CancellationToken::new();
        let stop = cancel.clone();
        std::thread::spawn(move || {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            stop.cancel();
        });
        Ok(autoscaler.run(cancel).await?)
    })
}

/// Process of the scaler; ends when its stdin does.
struct Process(Child);

impl Process {
    fn start(redis: &str, api: &str) -> anyhow::Result<Self> {
        let log = if std::env::var_os("SWARM_LOG").is_some() { Stdio::inherit() } else { Stdio::null() };
        let mut command = Command::new(std::env::current_exe()?);
        command.args([SCALER, redis, api]).stdin(Stdio::piped()).stderr(log);
        Ok(Self(command.spawn().context("the scaler's process can't be started")?))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

struct Rounds {
    client: Client,
    http: reqwest::Client,
    api: FlyApi,
    floor: Floor,
}

impl Rounds {
    /// Microseconds of the floor and of the product.
    async fn round(&mut self) -> anyhow::Result<(f64, f64)> {
        tokio::time::sleep(PAUSE).await;
        let (sent, entry) = self.send(FLOOR_QUEUE).await?;
        let Heard { at, probe } = self.floor.next().await?;
        self.remove(FLOOR_QUEUE, &entry).await?;
        self.floor.next().await?;
        let asked = nanos();
        self.http.post(format!("{}/bare", self.api.url)).send().await?;
        let Reached::Bare(reached) = self.reached(|what| matches!(what, Reached::Bare(_))).await? else {
            anyhow::bail!("the bare request did not arrive");
        };
        let floor = at.saturating_sub(sent) + probe + reached.saturating_sub(asked);

        tokio::time::sleep(PAUSE).await;
        let queue = queue_name(0);
        let (sent, entry) = self.send(&queue).await?;
        let Reached::Start(reached) = self.reached(|what| matches!(what, Reached::Start(_))).await? else {
            anyhow::bail!("the start did not arrive");
        };
        tokio::time::sleep(PAUSE).await;
        self.remove(&queue, &entry).await?;
        self.reached(|what| *what == Reached::SeenStopped).await?;
        Ok((micros(floor), micros(reached.saturating_sub(sent))))
    }

    async fn send(&self, queue: &str) -> anyhow::Result<(u64, String)> {
        let sent = nanos();
        let entry = self.client.xadd(queue, false, None, "*", ("json", r#"{"id":"1","type":"bench"}"#)).await?;
        Ok((sent, entry))
    }

    /// Removes a job, which Redis reports, and waits until the machine is let go.
    async fn remove(&self, queue: &str, entry: &str) -> anyhow::Result<()> {
        let _: u64 = self.client.xdel(queue, entry).await?;
        Ok(())
    }

    async fn reached(&mut self, wanted: impl Fn(&Reached) -> bool) -> anyhow::Result<Reached> {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.api.reached.recv()).await;
            let next = next.context("nothing reaches the API")?.context("the API has ended")?;
            if wanted(&next) {
                return Ok(next);
            }
        }
    }
}

async fn bench(options: &BenchOptions<Options>) -> anyhow::Result<()> {
    let rounds = options.sized(options.rounds, 200);
    let server = RedisServer::start()?;
    let client = server.client().await?;
    make_queue(&client, FLOOR_QUEUE, FLOOR_QUEUE).await?;
    make_queue(&client, &queue_name(0), &type_name(0)).await?;
    let api = FlyApi::start()?;
    let _scaler = Process::start(&server.url(), &api.url)?;
    // The floor needs the notifications too; the scaler has extended them before the first round.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let floor = Floor::start(&server.url(), FLOOR_QUEUE, &Signal::Keyspace).await?;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut by_turns = Rounds { client, http: reqwest::Client::new(), api, floor };
    let (mut floors, mut products) = (Vec::with_capacity(rounds), Vec::with_capacity(rounds));
    for number in 0..WARM_UP + rounds {
        let (floor, product) = by_turns.round().await?;
        if number >= WARM_UP {
            floors.push(floor);
            products.push(product);
        }
    }
    let finding = |share: f64, name: &str, aim: f64| {
        let (product, floor) = (percentile(&products, share), percentile(&floors, share));
        Finding::new(name, product, "µs", Some(floor), 0.0..=aim)
    };
    let findings = [finding(0.5, "p50", 1.5), finding(0.99, "p99", 2.5)];
    let title = format!("fly_reaction: job sent → start request received, {rounds} rounds, from rest, debounce_ms = 0");
    report::print(&title, &findings, options.json)
}

#[expect(clippy::cast_precision_loss, reason = "a round takes far less than 2^53 ns")]
fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}
