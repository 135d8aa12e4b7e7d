//! `swarm worker`: one worker, until it is asked to leave.

use std::{process::ExitCode, sync::Arc};

use anyhow::ensure;
use uuid::Uuid;

use super::stop::stop_on_signal;
use crate::{
    config::{QueueKind, Settings, WorkerTypeSettings},
    connection::RedisTarget,
    model::{WorkerId, WorkerType},
    worker::{self, WorkerConfig, handlers::BuiltIn},
};

/// Run one worker: take jobs from the type's queue, do them, answer.
///
/// Usually the autoscaler starts workers; run one by hand to try things out. It acknowledges a job after the work, so a job
/// whose worker dies is done again by another one. SIGTERM or Ctrl-C: finish the jobs in hand, then leave; a second
/// one: leave at once, and other workers do the jobs again.
///
/// Every type knows two methods: `TYPE.echo ARG…` and `TYPE.sleep SECONDS` (see `swarm publish --help`).
#[derive(Debug, clap::Args)]
pub struct WorkerArgs {
    /// Worker type; its queue and group are in the config, or `TYPE:jobs` and `TYPE` if it is not configured.
    #[arg(long = "type", value_name = "TYPE", env = "SWARM_WORKER_TYPE")]
    pub worker_type: String,
    /// Name of this worker, unique within its type. [default: the type and something random]
    #[arg(long, value_name = "ID", env = "SWARM_WORKER_ID")]
    pub id: Option<String>,
    /// Jobs done at the same time. [default: the type's `worker.concurrency`, else 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub concurrency: Option<u32>,
}

/// Runs the worker. Success if every job that it took was finished.
pub async fn run(args: WorkerArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let config = configure(&args, settings)?;
    let target = RedisTarget::new(&settings.redis_url, settings.scaler.redis_timeout())?;
    let report = worker::run(config, target, Arc::new(BuiltIn), stop_on_signal("finishing the jobs in hand")?).await?;
    tracing::info!(report.processed, report.failed, report.abandoned, "worker left");
    Ok(if report.abandoned == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn configure(args: &WorkerArgs, settings: &Settings) -> anyhow::Result<WorkerConfig> {
    let name = args.worker_type.as_str();
    ensure!(
        WorkerType::is_valid(name),
        "`{name}` can't name a worker type: use 1 to 63 lower-case letters, digits, `-`, `_` and `.`"
    );
    let unconfigured = WorkerTypeSettings::default();
    let of_type = settings.worker_types.get(name).unwrap_or(&unconfigured);
    ensure!(
        of_type.kind == QueueKind::Stream,
        "the queue `{}` of worker type `{name}` is a list; `swarm worker` takes jobs from streams only",
        of_type.queue(name)
    );
    let mut of_type = of_type.clone();
    of_type.worker.concurrency = args.concurrency.unwrap_or(of_type.worker.concurrency);
    let id = args.id.clone().unwrap_or_else(|| random_id(name));
    ensure!(!id.is_empty(), "the worker's id is empty: leave `--id` and SWARM_WORKER_ID out, or name it");
    Ok(WorkerConfig::new(WorkerType::new(name), WorkerId::new(id), &of_type))
}

/// The type and the random end of a UUID: 48 bits, so that two workers of a type hardly ever share a name.
fn random_id(worker_type: &str) -> String {
    let uuid = Uuid::now_v7().simple().to_string();
    format!("{worker_type}-{}", &uuid[uuid.len() - 12..])
}
