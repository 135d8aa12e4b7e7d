//! Makes the backend that the settings name, with what the environment says about it.

use std::{collections::BTreeMap, sync::Arc};

use super::{MakeBackend, Options, kubernetes};
use crate::{
    backend::{
        OnChange, ScalingBackend,
        docker::{self, DockerBackend, DockerSpec, Endpoint},
        fly::{Access, FlyBackend, FlySpec},
        process::{ProcessBackend, ProcessSpec, Surroundings},
    },
    config::{Orchestrator, Settings, process_environment},
    model::{Clock, WorkerType},
};

/// How to make it.
///
/// # Errors
/// If what the environment says can't be used.
pub(super) fn make(options: &Options) -> anyhow::Result<Box<MakeBackend<'static>>> {
    let settings = options.settings.clone();
    let surroundings = Surroundings {
        swarm: options.program.clone(),
        redis_url: settings.redis_url.clone(),
        config_file: options.config_file.clone(),
    };
    Ok(match settings.orchestrator {
        Orchestrator::Process => Box::new(move |on_change, clock| {
            let specs: BTreeMap<WorkerType, ProcessSpec> = settings
                .enabled()
                .map(|(name, worker_type)| (WorkerType::new(name), ProcessSpec::from_settings(name, worker_type)))
                .collect();
            Box::pin(async move {
                let backend = ProcessBackend::start(&specs, surroundings, on_change, clock).await?;
                Ok(Arc::new(backend) as Arc<dyn ScalingBackend>)
            })
        }),
        Orchestrator::Kubernetes => kubernetes::make(settings)?,
        Orchestrator::Docker => {
            let surroundings = docker_surroundings(&settings)?;
            Box::new(move |on_change, clock| {
                let specs = DockerSpec::all(&settings);
                Box::pin(async move {
                    let backend = DockerBackend::start(&specs, surroundings, on_change, clock)?;
                    Ok(Arc::new(backend) as Arc<dyn ScalingBackend>)
                })
            })
        }
        Orchestrator::Fly => Box::new(move |on_change, clock| {
            Box::pin(async move { Ok(Arc::new(fly(&settings, on_change, clock)?) as Arc<dyn ScalingBackend>) })
        }),
    })
}

/// The engine and the project, as Docker's own tools are told.
pub(super) fn docker_surroundings(settings: &Settings) -> anyhow::Result<docker::Surroundings> {
    let variable = |name: &str| std::env::var(name).ok();
    Ok(docker::Surroundings {
        endpoint: Endpoint::from_environment(variable)?,
        limits: docker::Limits::default(),
        redis_url: settings.redis_url.clone(),
        project: variable("COMPOSE_PROJECT_NAME").filter(|project| !project.is_empty()),
        sweep_interval: settings.scaler.sweep_interval(),
    })
}

/// The backend of `orchestrator = "fly"`, with the token and the app that the environment names.
pub(super) fn fly(settings: &Settings, on_change: OnChange, clock: Clock) -> anyhow::Result<FlyBackend> {
    let own_app = process_environment("FLY_APP_NAME");
    let types = FlySpec::all(settings, own_app.as_deref())?;
    let access = Access::from_settings(&settings.fly, process_environment("FLY_API_TOKEN"));
    Ok(FlyBackend::start(&types, &access, settings.fly.poll(), on_change, clock)?.in_app(own_app))
}
