//! `swarm worker`: runs one worker until it is asked to leave.

use std::{path::Path, process::ExitCode, sync::Arc};

use anyhow::ensure;
use rustix::process::{Pid, getpid, getppid};

use super::{ConfigFlags, metrics::serve_metrics, stop::stop_on_signal};
use crate::{
    broker::Routes,
    config::{Settings, WorkerTypeSettings, process_environment},
    connection::RedisTarget,
    model::{WorkerId, WorkerType},
    telemetry::{LogFormat, Traces},
    worker::{Worker, WorkerConfig, handlers},
};

/// Run one worker, which takes jobs of one type
///
/// Takes jobs from the queues of its type, runs them and publishes the results. The autoscaler usually starts workers;
/// run one by hand to try things out. A job is acknowledged after it ran, so another worker repeats the job of a worker
/// that dies. On SIGTERM or Ctrl-C the worker finishes its jobs, then exits. On a second signal it exits immediately,
/// and other workers repeat its jobs.
///
/// A type may have several queues (`job_queue` and `extra_queues`, which may be patterns). The worker serves them in
/// turn, so that a busy queue cannot starve the others.
///
/// Every type has two built-in methods: `TYPE.echo ARG…` and `TYPE.sleep SECONDS` (see `swarm publish --help`). The
/// type's `worker.handler` runs all other methods, for example as a program (`worker.exec`).
#[derive(Debug, clap::Args)]
pub struct WorkerArgs {
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigFlags,
    /// Worker type. The configuration names its queues and group; without it they are `TYPE:jobs` and `TYPE`
    #[arg(long = "type", value_name = "TYPE", env = "SWARM_WORKER_TYPE")]
    pub worker_type: String,
    /// Name of this worker, unique within its type [default: FLY_MACHINE_ID; the host name, as the main process of a
    /// container; else the type and a random suffix]
    #[arg(long, value_name = "ID", env = "SWARM_WORKER_ID")]
    pub id: Option<String>,
    /// Maximum number of jobs that run at the same time [default: the type's `worker.concurrency`, else 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub concurrency: Option<u32>,
    /// Number of jobs after which this worker finishes what it has and exits; every job that it takes counts, failed
    /// ones included [default: the type's `worker.max_jobs`, else unlimited]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_jobs: Option<u64>,
    /// Address of a metrics server for this worker; port 0 takes a free port [default: the type's
    /// `worker.metrics_listen`, else no server]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics_listen: Option<String>,
    /// Format of the log
    #[arg(long, value_enum, default_value_t, env = "SWARM_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: LogFormat,
}

/// Runs `swarm worker`. Succeeds if the worker finished every job that it took.
pub async fn run(args: WorkerArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let (mut config, of_type) = configure(&args, settings)?;
    warn_if_unconfigured(&args.worker_type, &of_type, settings);
    let target = RedisTarget::new(&settings.redis_url, settings.scaler.redis_timeout())?;
    let served = serve_metrics(&of_type.worker.metrics_listen).await?;
    config.metrics = served.as_ref().map(|metrics| metrics.at);
    let traces = Traces::start();
    let worker = Worker::new(config, target);
    let handler = handlers::build(worker.context(Arc::new(of_type)))?;
    let report = worker.run(handler, stop_on_signal("finishing the jobs in hand")?).await;
    traces.stop().await;
    let report = report?;
    if let Some(metrics) = served {
        metrics.stop().await;
    }
    tracing::info!(report.processed, report.failed, report.abandoned, "worker left");
    Ok(if report.abandoned == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Warns if the worker type is not configured and its jobs would go to another stream. Jobs of unconfigured worker
/// types go to one common stream, and this worker reads the stream of its own type: without the warning, both sides
/// would wait forever.
fn warn_if_unconfigured(name: &str, of_type: &WorkerTypeSettings, settings: &Settings) {
    let routes = Routes::from_env(settings);
    let (reads, written) = (of_type.queue(name), routes.default_stream());
    if settings.worker_types.contains_key(name) || reads == written {
        return;
    }
    tracing::warn!(
        worker_type = name,
        reads,
        published_to = written,
        "worker type `{name}` is not configured: this worker reads `{reads}`, and `swarm publish {name}.METHOD` writes to \
         `{written}`; add [worker_types.{name}] to the configuration, or publish with --queue {reads}"
    );
}

fn configure(args: &WorkerArgs, settings: &Settings) -> anyhow::Result<(WorkerConfig, WorkerTypeSettings)> {
    let name = args.worker_type.as_str();
    ensure!(
        WorkerType::is_valid(name),
        "`{name}` can't name a worker type: use 1 to 63 lower-case letters, digits, `-`, `_` and `.`"
    );
    let unconfigured = WorkerTypeSettings::default();
    let of_type = settings.worker_types.get(name).unwrap_or(&unconfigured);
    ensure!(
        of_type.queue_kind().is_native(),
        "the queue `{}` of worker type `{name}` is a {}; `swarm worker` takes jobs from streams only",
        of_type.queue(name),
        of_type.queue_kind().name()
    );
    let mut of_type = of_type.clone();
    of_type.worker.concurrency = args.concurrency.unwrap_or(of_type.worker.concurrency);
    of_type.worker.max_jobs = args.max_jobs.or(of_type.worker.max_jobs);
    if let Some(listen) = &args.metrics_listen {
        of_type.worker.metrics_listen.clone_from(listen);
    }
    let machine = || process_environment("FLY_MACHINE_ID").filter(|id| !id.is_empty());
    let worker_type = WorkerType::new(name);
    let id = match args.id.clone().or_else(machine).or_else(container_name) {
        Some(id) => WorkerId::new(id),
        None => WorkerId::random(&worker_type),
    };
    ensure!(!id.as_str().is_empty(), "the worker's id is empty: leave `--id` and SWARM_WORKER_ID out, or name it");
    let mut config = WorkerConfig::new(worker_type, id, &of_type);
    config.sweep_interval = settings.scaler.sweep_interval();
    config.policy.broker = settings.broker.clone();
    config.policy.channel.clone_from(&settings.signals.channel);
    Ok((config, of_type))
}

/// Returns the host name of a container whose purpose is this worker. By this name the autoscaler finds the worker in a
/// container that it did not create itself. Unless the container was given another host name, it is the container's id.
fn container_name() -> Option<String> {
    let is_container = CONTAINER_MARKS.iter().any(|mark| Path::new(mark).exists());
    // This is the first process, or a child of the first one (an init, an entry point). Of other processes, a container
    // may have several.
    let is_purpose = getpid().is_init() || getppid().is_some_and(Pid::is_init);
    (is_container && is_purpose).then(|| rustix::system::uname().nodename().to_string_lossy().into_owned())
}

/// Files that Docker and Podman put into every container.
const CONTAINER_MARKS: [&str; 2] = ["/.dockerenv", "/run/.containerenv"];
