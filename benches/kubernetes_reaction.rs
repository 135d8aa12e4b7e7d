//! Measures the time from a job to the request for a pod at the API server, against the floor: a bare subscriber's
//! event, a bare probe, and a bare request of the same client library.
//! `cargo bench --bench kubernetes_reaction [-- --quick --json]`.
//!
//! Runs the real `swarm autoscaler --orchestrator kubernetes`, a real Redis, and the tests' fake API server on its own
//! threads. Each round starts without a worker and with an empty queue; `debounce_ms` and the cooldown are 0.

#[path = "support/bench_options.rs"]
mod bench_options;
#[expect(dead_code, reason = "the tests use the rest")]
#[path = "../tests/it/fake_kubernetes/mod.rs"]
mod fake_kubernetes;
#[path = "support/floor.rs"]
mod floor;
#[path = "support/percentile.rs"]
mod percentile;
#[expect(dead_code, reason = "other benchmarks use the rest")]
#[path = "support/protocol.rs"]
mod protocol;
#[path = "support/redis_server.rs"]
mod redis_server;
#[path = "support/report.rs"]
mod report;
#[expect(dead_code, reason = "other benchmarks use the rest")]
#[path = "support/rounds.rs"]
mod rounds;
#[expect(dead_code, reason = "`rounds` names it")]
#[path = "support/scaler.rs"]
mod scaler;

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use clap::Args;
use fred::prelude::{Client, PubsubInterface, StreamsInterface};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api, Config,
    api::{Patch, PatchParams},
    config::KubeConfigOptions,
};
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::{
    bench_options::BenchOptions,
    fake_kubernetes::{FakeKubernetes, NAMESPACE, Request},
    floor::{Floor, Heard},
    percentile::percentile,
    protocol::nanos,
    redis_server::RedisServer,
    report::Finding,
    rounds::{FLOOR_QUEUE, Signal, make_queue},
};

/// Warm-up rounds.
const WARM_UP: usize = 50;
/// Idle time before a round.
const PAUSE: Duration = Duration::from_millis(5);
/// Timeout of every wait.
const PATIENCE: Duration = Duration::from_secs(20);
/// Wait for a reaction to a message before the next one.
const NUDGE: Duration = Duration::from_millis(50);

const WORKER_TYPE: &str = "bench";
const TARGET: &str = "discord-worker-bench";
/// Target of the floor's requests, which the product does not watch.
const FLOOR_TARGET: &str = "floor";
/// Message that wakes the scaler when the job is done, because Redis does not report that.
const NUDGES: &str = "bench:nudges";

#[derive(Debug, Args)]
struct Options {
    /// Rounds; with --quick 300
    #[arg(long, default_value_t = 3_000)]
    rounds: usize,
}

fn main() -> anyhow::Result<()> {
    bench_options::run(bench_options::one_thread(), bench)
}

async fn bench(options: &BenchOptions<Options>) -> anyhow::Result<()> {
    let rounds = options.sized(options.rounds, 300);
    let mut bench = Bench::start().await?;
    let (mut floors, mut products) = (Vec::with_capacity(rounds), Vec::with_capacity(rounds));
    for number in 0..WARM_UP + rounds {
        let (floor, product) = (bench.floor_round().await?, bench.product_round().await?);
        if number >= WARM_UP {
            floors.push(floor);
            products.push(product);
        }
    }
    let finding = |share: f64, name: &str, aim: f64| {
        let (product, floor) = (percentile(&products, share), percentile(&floors, share));
        Finding::new(format!("keyspace {name}"), product, "µs", Some(floor), 0.0..=aim)
    };
    let title =
        format!("kubernetes: job sent → API request received, {rounds} rounds each, from rest, debounce_ms = 0");
    report::print(&title, &[finding(0.5, "p50", 1.5), finding(0.99, "p99", 2.0)], options.json)
}

struct Bench {
    client: Client,
    floor: Floor,
    /// Of the floor's bare requests.
    targets: Api<Deployment>,
    arrivals: UnboundedReceiver<(SystemTime, Request)>,
    replicas: u32,
    _scaler: Scaler,
    _fake: FakeKubernetes,
    _server: RedisServer,
}

/// Process of the autoscaler; killed when dropped.
struct Scaler {
    process: Child,
    _directory: TempDir,
}

impl Drop for Scaler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Bench {
    async fn start() -> anyhow::Result<Self> {
        let server = RedisServer::start()?;
        let client = server.client().await?;
        make_queue(&client, FLOOR_QUEUE, FLOOR_QUEUE).await?;
        make_queue(&client, &queue(), WORKER_TYPE).await?;
        let fake = start_fake().await?;
        let labels = json!({ "swarm/worker-type": WORKER_TYPE });
        fake.put("apps", "deployments", &deployment(TARGET, &labels));
        fake.put("apps", "deployments", &deployment(FLOOR_TARGET, &json!({})));
        let floor = Floor::start(&server.url(), FLOOR_QUEUE, &Signal::Keyspace).await?;
        let kubeconfig = serde_json::from_str(&fake.kubeconfig())?;
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let targets = Api::namespaced(kube::Client::try_from(config)?, NAMESPACE);
        let scaler = Scaler::start(&server.url(), &fake)?;
        let arrivals = fake.arrivals();
        let mut bench =
            Self { client, floor, targets, arrivals, replicas: 0, _scaler: scaler, _fake: fake, _server: server };
        // The first reaction shows that it listens.
        let first: String = bench.client.xadd(queue(), false, None, "*", ("json", "{}")).await?;
        drop(first);
        bench.until_patched(TARGET).await?;
        bench.rest().await?;
        Ok(bench)
    }

    /// Measures event, probe and request, each with bare commands.
    async fn floor_round(&mut self) -> anyhow::Result<f64> {
        tokio::time::sleep(PAUSE).await;
        let sent = nanos();
        let _: String = self.client.xadd(FLOOR_QUEUE, false, None, "*", ("json", "{}")).await?;
        let Heard { at, probe } = self.floor.next().await?;
        let taken: fred::types::Value =
            self.client.xreadgroup(FLOOR_QUEUE, "bench", None, None, true, FLOOR_QUEUE, ">").await?;
        drop(taken);
        self.replicas = 1 - self.replicas;
        let patch = Patch::Merge(json!({ "spec": { "replicas": self.replicas } }));
        let (targets, params) = (self.targets.clone(), PatchParams::default());
        let asked = nanos();
        let request = targets.patch_scale(FLOOR_TARGET, &params, &patch);
        let (answer, received) = tokio::join!(request, self.until_patched(FLOOR_TARGET));
        answer?;
        Ok(micros(at.saturating_sub(sent) + probe + received?.saturating_sub(asked)))
    }

    async fn product_round(&mut self) -> anyhow::Result<f64> {
        tokio::time::sleep(PAUSE).await;
        let sent = nanos();
        let _: String = self.client.xadd(queue(), false, None, "*", ("json", "{}")).await?;
        let received = self.until_patched(TARGET).await?;
        self.rest().await?;
        Ok(micros(received.saturating_sub(sent)))
    }

    /// Takes the job like a worker, and waits until the scaler has let the worker go.
    async fn rest(&mut self) -> anyhow::Result<()> {
        let taken: fred::types::Value =
            self.client.xreadgroup(WORKER_TYPE, "bench", None, None, true, queue(), ">").await?;
        drop(taken);
        let nudged = async {
            loop {
                let _: () = self.client.publish(NUDGES, queue()).await?;
                if tokio::time::timeout(NUDGE, patched(&mut self.arrivals, TARGET)).await.is_ok() {
                    return anyhow::Ok(());
                }
            }
        };
        tokio::time::timeout(PATIENCE, nudged).await.context("the scaler lets nobody go")?
    }

    async fn until_patched(&mut self, target: &str) -> anyhow::Result<u64> {
        let patched = tokio::time::timeout(PATIENCE, patched(&mut self.arrivals, target)).await;
        patched.with_context(|| format!("nobody scales `{target}`"))?
    }
}

/// Returns the arrival time of the next request to scale this target.
async fn patched(arrivals: &mut UnboundedReceiver<(SystemTime, Request)>, target: &str) -> anyhow::Result<u64> {
    loop {
        let (at, request) = arrivals.recv().await.context("the fake has ended")?;
        if request.verb == "patch" && request.resource == "deployments/scale" && request.name == target {
            return Ok(u64::try_from(at.duration_since(UNIX_EPOCH)?.as_nanos())?);
        }
    }
}

/// Runs on its own threads, so that it does not compete with the measured tasks.
async fn start_fake() -> anyhow::Result<FakeKubernetes> {
    let (sender, fake) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        runtime.expect("a thread can be had").block_on(async {
            let _ = sender.send(FakeKubernetes::start().await);
            std::future::pending::<()>().await;
        });
    });
    fake.await.context("the fake does not start")
}

impl Scaler {
    fn start(redis_url: &str, fake: &FakeKubernetes) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let kubeconfig = directory.path().join("kubeconfig");
        std::fs::write(&kubeconfig, fake.kubeconfig())?;
        let settings = directory.path().join("swarm.toml");
        std::fs::write(
            &settings,
            format!(
                "redis_url = \"{redis_url}\"\n[http]\nlisten = \"\"\n[kubernetes]\nkubeconfig = \"{}\"\n[scaler]\n\
                 debounce_ms = 0\n[signals]\nkeyspace = \"on\"\ntracking = \"off\"\nchannel = \"{NUDGES}\"\n\
                 [worker_types.{WORKER_TYPE}.scaling]\ncooldown_seconds = 0\n",
                kubeconfig.display()
            ),
        )?;
        let log = if std::env::var_os("SWARM_LOG").is_some() { Stdio::inherit() } else { Stdio::null() };
        let process = Command::new(env!("CARGO_BIN_EXE_swarm"))
            .args(["autoscaler", "--orchestrator", "kubernetes", "--config"])
            .arg(&settings)
            .stderr(log)
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self { process, _directory: directory })
    }
}

fn queue() -> String {
    format!("{WORKER_TYPE}:jobs")
}

fn deployment(name: &str, labels: &serde_json::Value) -> serde_json::Value {
    json!({ "metadata": { "name": name, "labels": labels }, "spec": { "replicas": 0, "selector": {}, "template": {} } })
}

#[expect(clippy::cast_precision_loss, reason = "a round takes far less than 2^53 ns")]
fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}
