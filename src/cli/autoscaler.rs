//! `swarm autoscaler`: the scaler as a service.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::{ConfigFlags, stop::stop_on_signal};
use crate::{
    app::{Autoscaler, AutoscalerConfig, Reload},
    config::{ConfigSource, Flags, Loaded, Origin},
    connection::RedisTarget,
    telemetry::{LogFormat, Traces, init_logging, install_metrics},
};

/// Watch the queues and scale their workers
///
/// Reacts to every job published to a queue. Starts workers, and stops idle ones after the cooldown; a busy worker is
/// never stopped. Runs until SIGTERM or Ctrl-C; a second signal ends it immediately. Reloads the configuration when the
/// file changes, and on SIGHUP.
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
    /// Platform that runs the workers: process, docker (also docker-api, docker-compose), kubernetes, fly,
    /// command, keda
    /// [default: $ORCHESTRATOR, or orchestrator of the file]
    #[arg(long, value_name = "NAME")]
    orchestrator: Option<String>,
    /// Seconds between sweeps of all queues [default: $CHECK_INTERVAL, or scaler.sweep_interval_seconds of the file]
    #[arg(long, value_name = "SECONDS")]
    check_interval: Option<u64>,
    /// Log decisions without carrying them out
    #[arg(long)]
    dry_run: bool,
    /// Format of the log
    #[arg(long, value_enum, default_value_t, env = "SWARM_LOG_FORMAT", value_name = "FORMAT")]
    log_format: LogFormat,
}

/// Logs which Redis is used and which layer of the configuration named it. Never logs the URL, which may hold a
/// password.
fn log_redis(loaded: &Loaded) -> anyhow::Result<()> {
    const REDIS_URL: &str = "/redis_url";
    let settings = &loaded.settings;
    let target = RedisTarget::new(&settings.redis_url, settings.scaler.redis_timeout())?;
    let set_by = match loaded.origins.of(REDIS_URL) {
        Origin::Default => "the default, because nothing sets redis_url".to_owned(),
        origin => origin.to_string(),
    };
    let overrides = loaded.origins.overridden(REDIS_URL).map(tracing::field::display);
    tracing::info!(redis = target.display(), database = target.database(), set_by, overrides, "redis selected");
    Ok(())
}

/// Runs it.
///
/// # Errors
/// If it can't start or one of its parts fails.
pub async fn run(args: AutoscalerArgs) -> anyhow::Result<ExitCode> {
    init_logging(args.log_format, "info")?;
    super::open_files::raise_limit();
    let traces = Traces::start();
    let flags = Flags {
        orchestrator: args.orchestrator,
        check_interval: args.check_interval,
        dry_run: args.dry_run,
        ..Flags::default()
    };
    // Before anything is read: a SIGHUP must not end the process, and no change of the file be missed.
    let (source, watch) = ConfigSource::new(args.config.flags(flags));
    let reload = Reload::listen(source.clone(), watch).context("can't listen for SIGHUP")?;
    let loaded = source.load()?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    log_redis(&loaded)?;
    let options = AutoscalerConfig {
        settings: loaded.settings.clone(),
        config_file: loaded.file.clone(),
        program: std::env::current_exe()?,
        metrics: install_metrics()?,
        reload: Some(reload),
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
    // The autoscaler has what it needs of it.
    drop(loaded);
    let stopped = stop_on_signal("workers finish their jobs first")?;
    let ended = autoscaler.run(stopped).await;
    traces.stop().await;
    ended?;
    tracing::info!("autoscaler stopped");
    Ok(ExitCode::SUCCESS)
}
