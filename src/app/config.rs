//! What an autoscaler is started with, for the program and for those that embed one.

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
    /// The file that the settings came from, handed on to the workers.
    #[doc(hidden)]
    pub config_file: Option<PathBuf>,
    /// The program that guards the workers of the process backend, and is what `swarm` means in their commands.
    #[doc(hidden)]
    pub program: PathBuf,
    /// Renders `/metrics`.
    #[doc(hidden)]
    pub metrics: MetricsHandle,
    /// Loads the settings again while the autoscaler runs; `None`: they stay as they are.
    #[doc(hidden)]
    pub reload: Option<Reload>,
}

/// Why there is no [`AutoscalerConfig`].
#[derive(Debug, thiserror::Error)]
pub enum AutoscalerConfigError {
    /// The settings are not valid. The message has a line for each problem.
    #[error(transparent)]
    Settings(#[from] ConfigErrors),
    /// The path of the running program is not known.
    #[error("the path of the running program can't be read: {0}; name it with `AutoscalerConfig::program`")]
    Program(#[source] io::Error),
    /// Metrics can't be recorded.
    #[error(transparent)]
    Metrics(InstallError),
}

impl AutoscalerConfig {
    /// Reads the settings from text in the form of `swarm.toml`. The environment is not looked at.
    ///
    /// # Errors
    /// Everything that is wrong with the settings.
    pub fn from_toml(text: &str) -> Result<Self, AutoscalerConfigError> {
        Self::new(load_text(text)?)
    }

    /// Reads the settings as `swarm autoscaler` does: those of `file` (else of `SWARM_CONFIG`, else of the first of
    /// `swarm.toml`, `config/swarm.toml` and `/etc/swarm/swarm.toml` that exists), with the environment over them.
    ///
    /// # Errors
    /// Everything that is wrong with the settings.
    pub fn from_file(file: Option<&Path>) -> Result<Self, AutoscalerConfigError> {
        let flags = Flags { config: file.map(Path::to_owned), ..Flags::default() };
        Self::new(load(&flags, &process_environment)?)
    }

    fn new(loaded: Loaded) -> Result<Self, AutoscalerConfigError> {
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        // Where the program has a recorder of its own, what is recorded goes there, and `/metrics` shows only the
        // pools.
        let metrics = match install_metrics() {
            Err(InstallError::AlreadyInstalled) => MetricsHandle::detached().map_err(AutoscalerConfigError::Metrics)?,
            installed => installed.map_err(AutoscalerConfigError::Metrics)?,
        };
        let program = std::env::current_exe().map_err(AutoscalerConfigError::Program)?;
        Ok(Self { settings: loaded.settings, config_file: loaded.file, program, metrics, reload: None })
    }

    /// Names the program that guards the workers of the process backend, and that `swarm` stands for in their commands.
    /// Default: the running program, which must then begin with [`run_as_helper`](crate::run_as_helper).
    #[must_use]
    pub fn program(mut self, path: impl Into<PathBuf>) -> Self {
        self.program = path.into();
        self
    }
}
