//! Makes the backend of `orchestrator = "docker"`; the engine and the project come from the same settings as for
//! Docker's own tools.

use std::sync::Arc;

use crate::{
    app::MakeBackend,
    backend::{
        Check, ScalingBackend,
        docker::{self, DockerBackend, DockerSpec, Endpoint, Surroundings},
    },
    config::Settings,
};

pub(super) fn make(settings: Arc<Settings>) -> anyhow::Result<Box<MakeBackend<'static>>> {
    let surroundings = surroundings(&settings)?;
    Ok(Box::new(move |on_change, clock| {
        Box::pin(async move {
            let backend = DockerBackend::start(&DockerSpec::all(&settings), surroundings, on_change, clock)
                .map_err(super::reported)?;
            Ok(Arc::new(backend) as Arc<dyn ScalingBackend>)
        })
    }))
}

pub(super) async fn check(settings: &Settings) -> anyhow::Result<Vec<Check>> {
    Ok(docker::check(&DockerSpec::all(settings), &surroundings(settings)?).await)
}

fn surroundings(settings: &Settings) -> anyhow::Result<Surroundings> {
    let variable = |name: &str| std::env::var(name).ok();
    Ok(Surroundings {
        endpoint: Endpoint::from_environment(variable)?,
        limits: docker::Limits::default(),
        redis_url: settings.redis_url_of_workers().clone(),
        project: variable("COMPOSE_PROJECT_NAME").filter(|project| !project.is_empty()),
        sweep_interval: settings.scaler.sweep_interval(),
    })
}
