//! Lets the backend that the settings name try what it would need, without starting it.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use super::backends::{docker_surroundings, fly};
use crate::{
    backend::{
        Check, ScalingBackend,
        docker::{self, DockerSpec},
        kubernetes::{self, KubernetesSpec},
        process::{self, ProcessSpec, Surroundings},
    },
    config::{Orchestrator, Settings},
    model::{Clock, WorkerType},
};

/// What the backend of these settings could do here. `program` is the `swarm` binary, `config_file` where settings came from.
///
/// # Errors
/// If it can't even try, such as for a `DOCKER_HOST` that names nothing.
pub async fn check_backend(
    settings: &Settings,
    config_file: Option<PathBuf>,
    program: PathBuf,
) -> anyhow::Result<Vec<Check>> {
    match settings.orchestrator {
        Orchestrator::Process => {
            let specs: BTreeMap<WorkerType, ProcessSpec> = settings
                .enabled()
                .map(|(name, worker_type)| (WorkerType::new(name), ProcessSpec::from_settings(name, worker_type)))
                .collect();
            let surroundings = Surroundings { swarm: program, redis_url: settings.redis_url.clone(), config_file };
            Ok(process::check(&specs, &surroundings))
        }
        Orchestrator::Docker => {
            let specs: BTreeMap<WorkerType, DockerSpec> = settings
                .enabled()
                .map(|(name, worker_type)| (WorkerType::new(name), DockerSpec::from_settings(name, worker_type)))
                .collect();
            Ok(docker::check(&specs, &docker_surroundings(settings)?).await)
        }
        Orchestrator::Kubernetes => Ok(kubernetes::check(&KubernetesSpec::from_settings(settings)).await),
        Orchestrator::Fly => {
            let backend = fly(settings, Arc::new(|_| {}), Clock::start())?;
            let checks = backend.check().await;
            backend.shutdown(false).await;
            Ok(checks)
        }
    }
}
