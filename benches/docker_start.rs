//! Measures the time from a job to its running container, against the floor: a bare create and start of the same
//! container through the API, in the same run. `cargo bench --bench docker_start [-- --quick --json]`.
//!
//! Each round starts without a worker, and floor and product alternate. Both end when the engine reports `start`. Needs
//! a Docker engine (DOCKER_HOST), busybox (Debian: busybox-static) and the `docker` command, which imports the image.

#[path = "support/bench_options.rs"]
mod bench_options;
#[path = "support/percentile.rs"]
mod percentile;
#[path = "support/redis_server.rs"]
mod redis_server;
#[path = "support/report.rs"]
mod report;

use std::{collections::HashMap, path::PathBuf, process::Command, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use bollard::{
    Docker,
    models::{ContainerCreateBody, HostConfig},
    query_parameters::{CreateContainerOptions, EventsOptions, RemoveContainerOptions},
};
use clap::Args;
use fred::prelude::{Client, StreamsInterface};
use futures_util::StreamExt;
use swarm::{
    app::{Autoscaler, AutoscalerConfig as AppOptions},
    config::{DockerSettings, Orchestrator, ScalingSettings, Settings, WorkerSettings, WorkerTypeSettings},
    telemetry::{MetricsHandle, install_metrics},
};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{bench_options::BenchOptions, percentile::percentile, redis_server::RedisServer, report::Finding};

const IMAGE: &str = "swarm-bench:1";
const PROJECT: &str = "swarmbench";
const SERVICE: &str = "worker-bench";
/// Command that catches SIGTERM, so that a stop does not take ten seconds.
const SCRIPT: &str = "trap 'exit 0' TERM; sleep 100000 & wait";
/// Timeout of every wait.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
struct Options {
    /// Rounds for each setting; with --quick 10
    #[arg(long, default_value_t = 60)]
    rounds: usize,
}

fn main() -> anyhow::Result<()> {
    bench_options::run(swarm::app::runtime(), bench)
}

async fn bench(options: &BenchOptions<Options>) -> anyhow::Result<()> {
    let rounds = options.sized(options.rounds, 10);
    import_image()?;
    let docker = Docker::connect_with_defaults().context("no docker engine; DOCKER_HOST names one")?;
    let metrics = install_metrics()?;
    let mut findings = Vec::new();
    for standby in [0, 1] {
        findings.extend(measure(&docker, metrics.clone(), standby, rounds).await?);
    }
    let title = format!("docker_start: job sent → container started, {rounds} rounds each, from no worker");
    report::print(&title, &findings, options.json)
}

async fn measure(docker: &Docker, metrics: MetricsHandle, standby: u32, rounds: usize) -> anyhow::Result<Vec<Finding>> {
    let server = RedisServer::start()?;
    let client = server.client().await?;
    let mut events = events(docker);
    let settings = settings(&server.url(), standby);
    let options =
        AppOptions { settings: Arc::new(settings), config_file: None, program: PathBuf::new(), metrics, reload: None };
    let autoscaler = Autoscaler::start(options).await?;
    let status = autoscaler.status();
    let cancel = CancellationToken::new();
    let running = tokio::spawn(autoscaler.run(cancel.clone()));
    let ready = async {
        while !status.not_ready().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ready).await.context("the autoscaler does not get ready")?;
    if standby > 0 {
        events.until("create").await?;
    }
    let (mut floors, mut products) = (Vec::with_capacity(rounds), Vec::with_capacity(rounds));
    for _ in 0..rounds {
        floors.push(floor(docker, &mut events).await?);
        products.push(product(&client, &mut events, standby).await?);
    }
    cancel.cancel();
    running.await??;
    let finding = |share: f64, name: &str| {
        let (product, floor) = (percentile(&products, share), percentile(&floors, share));
        Finding::new(format!("standby = {standby}, {name}"), product, "ms", Some(floor), 0.0..=1.1)
    };
    Ok(vec![finding(0.5, "p50"), finding(0.99, "p99")])
}

/// Measures a bare create and start, in milliseconds.
async fn floor(docker: &Docker, events: &mut Events) -> anyhow::Result<f64> {
    let labels = HashMap::from([("com.docker.compose.project".to_owned(), PROJECT.to_owned())]);
    let body = ContainerCreateBody {
        image: Some(IMAGE.to_owned()),
        cmd: Some(["sh", "-c", SCRIPT].map(str::to_owned).to_vec()),
        labels: Some(labels),
        host_config: Some(HostConfig { network_mode: Some("bridge".to_owned()), ..HostConfig::default() }),
        ..ContainerCreateBody::default()
    };
    let started = Instant::now();
    let made = docker.create_container(None::<CreateContainerOptions>, body).await?;
    docker.start_container(&made.id, None).await?;
    let ended = events.until("start").await?;
    let options = RemoveContainerOptions { force: true, ..RemoveContainerOptions::default() };
    docker.remove_container(&made.id, Some(options)).await?;
    events.until("destroy").await?;
    Ok((ended - started).as_secs_f64() * 1e3)
}

/// Measures a job, in milliseconds. Then removes the job, and waits until the worker is let go.
async fn product(client: &Client, events: &mut Events, standby: u32) -> anyhow::Result<f64> {
    let started = Instant::now();
    let job: String = client.xadd("bench:jobs", false, None::<()>, "*", vec![("json", "{}")]).await?;
    let ended = events.until("start").await?;
    if standby > 0 {
        events.until("create").await?;
    }
    let _: i64 = client.xdel("bench:jobs", job).await?;
    events.until("destroy").await?;
    // The scaler evaluates once more after the last change, which must not happen in the next round.
    tokio::time::sleep(Duration::from_millis(200)).await;
    Ok((ended - started).as_secs_f64() * 1e3)
}

fn settings(redis_url: &str, standby: u32) -> Settings {
    let docker = DockerSettings {
        image: Some(IMAGE.to_owned()),
        command: ["sh", "-c", SCRIPT].map(str::to_owned).to_vec(),
        networks: vec!["bridge".to_owned()],
        project: Some(PROJECT.to_owned()),
        service: Some(SERVICE.to_owned()),
        standby,
        ..DockerSettings::default()
    };
    let worker_type = WorkerTypeSettings {
        docker: docker.into(),
        scaling: ScalingSettings { cooldown_seconds: 0, ..ScalingSettings::default() },
        worker: WorkerSettings { heartbeats: false, ..WorkerSettings::default() }.into(),
        ..WorkerTypeSettings::default()
    };
    let mut settings =
        Settings { redis_url: redis_url.into(), orchestrator: Orchestrator::Docker, ..Settings::default() };
    settings.http.listen = String::new();
    settings.scaler.on_shutdown = swarm::config::OnShutdown::Drain;
    settings.worker_types.insert("bench".to_owned(), worker_type);
    settings
}

/// Events of this benchmark's containers, with their time of arrival.
struct Events(mpsc::UnboundedReceiver<(String, Instant)>);

impl Events {
    /// Waits for the next event of this kind; skips others.
    async fn until(&mut self, action: &str) -> anyhow::Result<Instant> {
        let next = async {
            while let Some((told, at)) = self.0.recv().await {
                if told == action {
                    return Ok(at);
                }
            }
            anyhow::bail!("the engine's events have ended")
        };
        tokio::time::timeout(PATIENCE, next).await.with_context(|| format!("no `{action}` from the engine"))?
    }
}

fn events(docker: &Docker) -> Events {
    let label = format!("com.docker.compose.project={PROJECT}");
    let filters = HashMap::from([("label".to_owned(), vec![label]), ("type".to_owned(), vec!["container".to_owned()])]);
    let mut stream = docker.events(Some(EventsOptions { filters: Some(filters), ..EventsOptions::default() }));
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(event)) = stream.next().await {
            let _ = sender.send((event.action.unwrap_or_default(), Instant::now()));
        }
    });
    Events(receiver)
}

/// Imports an image with only a shell.
fn import_image() -> anyhow::Result<()> {
    let script = "set -e; cd \"$(mktemp -d)\"; mkdir -p bin proc sys dev etc tmp; cp \"$(command -v busybox)\" bin/\n\
                  ln -s busybox bin/sh; ln -s busybox bin/sleep; tar -c . | docker import - \"$0\"; rm -r \"$PWD\"";
    let output = Command::new("sh").args(["-c", script, IMAGE]).output()?;
    ensure!(output.status.success(), "the image can't be imported: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
