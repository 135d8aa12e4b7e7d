//! Configuration of an autoscaler, for the program and for programs that embed an autoscaler.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::Reload;
use crate::{
    config::{ConfigErrors, Flags, Loaded, Settings, load, load_text, process_environment},
    telemetry::{InstallError, MetricsHandle, install_metrics},
};

/// What an [`Autoscaler`](super::Autoscaler) is started with.
#[derive(Debug)]
pub struct AutoscalerConfig {
    /// Validated settings.
    #[doc(hidden)]
    pub settings: Arc<Settings>,
    /// File of the settings, passed to the workers.
    #[doc(hidden)]
    pub config_file: Option<PathBuf>,
    /// Program that guards the workers of the process backend, and that `swarm` stands for in their commands.
    #[doc(hidden)]
    pub program: PathBuf,
    /// Renders `/metrics`.
    #[doc(hidden)]
    pub metrics: MetricsHandle,
    /// Reloads the settings while the autoscaler runs; `None`: the settings do not change.
    #[doc(hidden)]
    pub reload: Option<Reload>,
}

/// Why an [`AutoscalerConfig`] can't be made.
#[derive(Debug, thiserror::Error)]
pub enum AutoscalerConfigError {
    /// The settings are invalid. The message has a line for each problem.
    #[error(transparent)]
    Settings(#[from] ConfigErrors),
    /// The path of the running program is unknown.
    #[error("the path of the running program can't be read: {0}; name it with `AutoscalerConfig::program`")]
    Program(#[source] io::Error),
    /// Metrics can't be recorded.
    #[error(transparent)]
    Metrics(InstallError),
}

impl AutoscalerConfig {
    /// Reads the settings from text in the form of `swarm.toml`. Ignores the environment.
    ///
    /// # Errors
    /// All errors of the settings.
    pub fn from_toml(text: &str) -> Result<Self, AutoscalerConfigError> {
        Self::new(load_text(text)?)
    }

    /// Reads the settings as `swarm autoscaler` does: those of `file` (else of `SWARM_CONFIG`, else of the first of
    /// `swarm.toml`, `config/swarm.toml` and `/etc/swarm/swarm.toml` that exists), overridden by the environment.
    ///
    /// # Errors
    /// All errors of the settings.
    pub fn from_file(file: Option<&Path>) -> Result<Self, AutoscalerConfigError> {
        let flags = Flags { config: file.map(Path::to_owned), ..Flags::default() };
        Self::new(load(&flags, &process_environment)?)
    }

    fn new(loaded: Loaded) -> Result<Self, AutoscalerConfigError> {
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        // If the program has a recorder of its own, metrics go to that recorder, and `/metrics` shows only the pools.
        let metrics = match install_metrics() {
            Err(InstallError::AlreadyInstalled) => MetricsHandle::detached().map_err(AutoscalerConfigError::Metrics)?,
            installed => installed.map_err(AutoscalerConfigError::Metrics)?,
        };
        let program = std::env::current_exe().map_err(AutoscalerConfigError::Program)?;
        Ok(Self { settings: loaded.settings, config_file: loaded.file, program, metrics, reload: None })
    }

    /// Sets the program that guards the workers of the process backend, and that `swarm` stands for in their commands.
    /// Default: the running program, which must then begin with [`run_as_helper`](crate::run_as_helper).
    #[must_use]
    pub fn program(mut self, path: impl Into<PathBuf>) -> Self {
        self.program = path.into();
        self
    }
}
