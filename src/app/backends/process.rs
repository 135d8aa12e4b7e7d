//! Makes the backend of `orchestrator = "process"`.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use crate::{
    app::{AutoscalerConfig, MakeBackend},
    backend::{
        Check, ScalingBackend,
        process::{self, ProcessBackend, ProcessSpec, Surroundings},
    },
    config::Settings,
    model::WorkerType,
};

pub(super) fn make(config: &AutoscalerConfig) -> Box<MakeBackend<'static>> {
    let settings = config.settings.clone();
    let surroundings = surroundings(&settings, config.config_file.clone(), config.program.clone());
    Box::new(move |on_change, clock| {
        Box::pin(async move {
            let backend = ProcessBackend::start(&specs(&settings), surroundings, on_change, clock)
                .await
                .map_err(super::reported)?;
            Ok(Arc::new(backend) as Arc<dyn ScalingBackend>)
        })
    })
}

pub(super) fn check(settings: &Settings, config_file: Option<PathBuf>, program: PathBuf) -> Vec<Check> {
    process::check(&specs(settings), &surroundings(settings, config_file, program))
}

fn specs(settings: &Settings) -> BTreeMap<WorkerType, ProcessSpec> {
    let spec = |(name, of)| (WorkerType::new(name), ProcessSpec::from_settings(name, of));
    settings.enabled().map(spec).collect()
}

fn surroundings(settings: &Settings, config_file: Option<PathBuf>, program: PathBuf) -> Surroundings {
    Surroundings { swarm: program, redis_url: settings.redis_url_of_workers().clone(), config_file }
}
