//! The environment of the demo: a temporary directory, a private Redis, the autoscaler in this process, and its
//! workers. Sets everything up and tears it down again, in order.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail};
use rustix::{
    io::Errno,
    process::{WaitId, WaitIdOptions, waitid},
};
use secrecy::SecretString;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{redis::PrivateRedis, script::Script};
use crate::{
    app::{Autoscaler, AutoscalerConfig, AutoscalerError},
    config::{Flags, Settings, load},
    connection::RedisTarget,
    model::snapshot::StatusSource,
    telemetry::install_metrics,
};

/// Environment variables that apply to all of `swarm`. The demo ignores what the user set for another Redis.
const GLOBAL_VARIABLES: [&str; 5] =
    ["CUSTOM_WORKER_TYPES", "ORCHESTRATOR", "CHECK_INTERVAL", "METRICS_PORT", "JOB_STREAM"];

/// Everything that runs.
pub(super) struct Stage {
    redis: PrivateRedis,
    autoscaler: JoinHandle<Result<(), AutoscalerError>>,
    cancel: CancellationToken,
    /// State of the autoscaler.
    pub(super) status: Arc<dyn StatusSource>,
    /// Address of the autoscaler's HTTP server.
    pub(super) http: Option<SocketAddr>,
    /// Settings of the autoscaler.
    pub(super) settings: Arc<Settings>,
    /// The private Redis.
    pub(super) target: Arc<RedisTarget>,
}

impl Stage {
    /// Starts everything; on an error nothing is left running.
    pub(super) async fn set(script: &Script, directory: &Path) -> anyhow::Result<Self> {
        let swarm = std::env::current_exe().context("can't tell where this program is")?;
        let redis = PrivateRedis::start(&swarm, directory).await?;
        match Self::with_redis(script, directory, swarm, redis.url()).await {
            Ok((autoscaler, settings, target)) => {
                let (status, http) = (autoscaler.status(), autoscaler.http_addr());
                let cancel = CancellationToken::new();
                let autoscaler = tokio::spawn(autoscaler.run(cancel.clone()));
                Ok(Self { redis, autoscaler, cancel, status, http, settings, target })
            }
            Err(error) => {
                redis.stop().await?;
                Err(error)
            }
        }
    }

    async fn with_redis(
        script: &Script,
        directory: &Path,
        program: PathBuf,
        redis_url: String,
    ) -> anyhow::Result<(Autoscaler, Arc<Settings>, Arc<RedisTarget>)> {
        let file = directory.join("swarm.toml");
        fs::write(&file, script.configuration())?;
        let settings = Arc::new(settings(&file, redis_url)?);
        let target =
            Arc::new(RedisTarget::new(&SecretString::clone(&settings.redis_url), settings.scaler.redis_timeout())?);
        let metrics = install_metrics()?;
        let options =
            AutoscalerConfig { settings: settings.clone(), config_file: Some(file), program, metrics, reload: None };
        Ok((Autoscaler::start(options).await?, settings, target))
    }

    /// Returns the URL of Redis.
    pub(super) fn redis_url(&self) -> String {
        self.redis.url()
    }

    /// Returns whether the autoscaler has stopped by itself; [`tear_down`](Self::tear_down) returns why.
    pub(super) fn has_collapsed(&self) -> bool {
        self.autoscaler.is_finished()
    }

    /// Drains the workers, stops everything, and checks that no process is left.
    pub(super) async fn tear_down(self) -> anyhow::Result<()> {
        self.cancel.cancel();
        let ran = self.autoscaler.await.context("the autoscaler crashed");
        self.redis.stop().await?;
        ran??;
        check_no_process_is_left()
    }
}

/// Returns the demo's own settings: those of the file, and nothing of the user's environment.
fn settings(file: &Path, redis_url: String) -> anyhow::Result<Settings> {
    let flags = Flags { config: Some(file.to_owned()), redis_url: Some(redis_url), ..Flags::default() };
    let mut settings = Settings::clone(&load(&flags, &|_| None)?.settings);
    let prefixes: Vec<String> =
        settings.worker_types.keys().map(|name| format!("{}_", name.to_ascii_uppercase())).collect();
    let disturbs = |name: &str| {
        GLOBAL_VARIABLES.contains(&name) || prefixes.iter().any(|prefix| name.starts_with(prefix.as_str()))
    };
    let set = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).filter(|name| disturbs(name));
    // For the workers, an empty variable counts as unset.
    let blanked: Vec<String> = set.collect();
    for worker_type in settings.worker_types.values_mut() {
        worker_type.process.environment.extend(blanked.iter().map(|name| (name.clone(), String::new())));
    }
    Ok(settings)
}

/// Checks for remaining processes: everything that the demo starts is a child of this process until it is reaped.
fn check_no_process_is_left() -> anyhow::Result<()> {
    let any = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    match waitid(WaitId::All, any) {
        Err(Errno::CHILD) => Ok(()),
        Err(error) => Err(error).context("can't tell whether a process is left"),
        Ok(_) => bail!("a process of the demo is left; this is a bug, please report it with the log"),
    }
}
