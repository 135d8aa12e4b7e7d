//! `swarm autoscaler`: the scaler as a service.

use std::process::ExitCode;

use clap::Args;

use super::{ConfigFlags, stop::stop_on_signal};
use crate::{
    app::{Autoscaler, Options},
    config::Flags,
    telemetry::{LogFormat, Traces, init_logging, install_metrics},
};

/// Watch the queues and keep as many workers as they need
///
/// Reacts to every job put on a queue, starts workers, lets idle ones go after the cooldown, never busy ones. Runs until
/// SIGTERM or Ctrl-C; a second one ends it at once.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  swarm autoscaler
  swarm autoscaler --config /etc/swarm/swarm.toml --dry-run
  REDIS_URL=redis://cache:6379/1 swarm autoscaler --orchestrator process

While it runs: `swarm status`, `swarm events --follow`, and http://127.0.0.1:9000/metrics.")]
pub struct AutoscalerArgs {
    #[command(flatten)]
    config: ConfigFlags,
    /// Who runs the workers: process, docker (also docker-api, docker-compose), kubernetes, fly
    /// [default: $ORCHESTRATOR, or orchestrator of the file]
    #[arg(long, value_name = "NAME")]
    orchestrator: Option<String>,
    /// Seconds between sweeps of all queues [default: $CHECK_INTERVAL, or scaler.sweep_interval_seconds of the file]
    #[arg(long, value_name = "SECONDS")]
    check_interval: Option<u64>,
    /// Decide and log, but change nothing
    #[arg(long)]
    dry_run: bool,
    /// How log lines look
    #[arg(long, value_enum, default_value_t, env = "SWARM_LOG_FORMAT", value_name = "FORMAT")]
    log_format: LogFormat,
}

/// Runs it.
///
/// # Errors
/// If it can't start or one of its parts fails.
pub async fn run(args: AutoscalerArgs) -> anyhow::Result<ExitCode> {
    init_logging(args.log_format, "info")?;
    let traces = Traces::start();
    let flags = Flags {
        orchestrator: args.orchestrator,
        check_interval: args.check_interval,
        dry_run: args.dry_run,
        ..Flags::default()
    };
    let loaded = args.config.load_with(flags)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let options = Options {
        settings: loaded.settings.clone(),
        config_file: loaded.file.clone(),
        program: std::env::current_exe()?,
        metrics: install_metrics()?,
    };
    let autoscaler = Autoscaler::start(options).await?;
    let file =
        loaded.file.as_deref().map_or_else(|| "none, built-in worker types".to_owned(), |f| f.display().to_string());
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        config = file,
        orchestrator = loaded.settings.orchestrator.as_str(),
        worker_types = loaded.settings.worker_types.len(),
        http = autoscaler.http_addr().map(tracing::field::display),
        dry_run = loaded.settings.scaler.dry_run,
        "autoscaler started"
    );
    let stopped = stop_on_signal("workers finish their jobs first")?;
    let ended = autoscaler.run(stopped).await;
    traces.stop().await;
    ended?;
    tracing::info!("autoscaler stopped");
    Ok(ExitCode::SUCCESS)
}
