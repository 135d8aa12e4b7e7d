//! The registry of backends: makes or checks the backend that the settings name, with what it needs from the
//! environment. One file for each backend; `absent` stands in for those that this build was compiled without.

#[cfg(any(test, not(all(feature = "docker", feature = "kubernetes", feature = "fly", feature = "keda"))))]
mod absent;
mod command;
#[cfg(feature = "docker")]
mod docker;
#[cfg(feature = "fly")]
mod fly;
#[cfg(feature = "keda")]
mod keda;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod over_redis;
mod process;

#[cfg(not(feature = "docker"))]
use absent as docker;
#[cfg(not(feature = "fly"))]
use absent as fly;
#[cfg(not(feature = "keda"))]
use absent as keda;
#[cfg(not(feature = "kubernetes"))]
use absent as kubernetes;

use std::{path::PathBuf, sync::Arc};

use super::{AutoscalerConfig, MakeBackend};
use crate::{
    backend::{BackendError, Check, LeaseObject},
    config::{Orchestrator, Settings},
};

/// Returns the constructor of the backend that the settings name.
///
/// # Errors
/// If this build lacks the backend, or the environment is invalid.
pub(super) fn make(config: &AutoscalerConfig) -> anyhow::Result<Box<MakeBackend<'static>>> {
    let settings = config.settings.clone();
    match settings.orchestrator {
        Orchestrator::Process => Ok(process::make(config)),
        Orchestrator::Kubernetes => kubernetes::make(settings),
        Orchestrator::Docker => docker::make(settings),
        Orchestrator::Fly => fly::make(settings),
        Orchestrator::Command => command::make(settings),
        Orchestrator::Keda => keda::make(settings),
    }
}

/// Returns the Lease by which autoscalers elect the leader, if the settings name one.
///
/// # Errors
/// If the cluster can't be reached.
pub(super) async fn lease(settings: &Settings) -> anyhow::Result<Option<Arc<dyn LeaseObject>>> {
    match settings.lease_object() {
        Some(_) => kubernetes::lease(settings).await,
        None => Ok(None),
    }
}

/// Lets the backend of these settings try what it needs, without starting it. `program` is the `swarm` binary,
/// `config_file` the file of the settings.
///
/// # Errors
/// If this build lacks the backend, or the backend can't begin its checks, for example because `DOCKER_HOST` is
/// invalid.
pub async fn check_backend(
    settings: &Settings,
    config_file: Option<PathBuf>,
    program: PathBuf,
) -> anyhow::Result<Vec<Check>> {
    match settings.orchestrator {
        Orchestrator::Process => Ok(process::check(settings, config_file, program)),
        Orchestrator::Docker => docker::check(settings).await,
        Orchestrator::Kubernetes => kubernetes::check(settings).await,
        Orchestrator::Fly => fly::check(settings).await,
        Orchestrator::Command => command::check(settings).await,
        Orchestrator::Keda => keda::check(settings).await,
    }
}

/// Wraps an error of a backend without its cause: the message includes the words of the cause already.
fn reported(error: BackendError) -> anyhow::Error {
    anyhow::Error::msg(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reported_error_says_its_cause_once() {
        let error = BackendError::permanent("no room: disk full").caused_by(std::io::Error::other("disk full"));
        assert_eq!(format!("{:#}", reported(error)), "no room: disk full");
    }
}
