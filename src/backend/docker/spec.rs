//! How to run the workers of one type, from its settings.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    config::{DockerSettings, Settings, WORKER_SETTINGS, WorkerRedisUrl, WorkerTypeSettings},
    model::{StopPolicy, WorkerType},
};

/// How to run the workers of one type.
#[derive(Clone, Debug, PartialEq)]
pub struct DockerSpec {
    /// Its settings.
    pub settings: DockerSettings,
    /// Its Compose service.
    pub service: String,
    /// How long a worker may take to leave when the scaler drains all of them at its end.
    pub drain_timeout: Duration,
    /// How a worker is stopped. Its signal is for containers that name none.
    pub stop: StopPolicy,
    /// What its workers get as `REDIS_URL`.
    pub redis_url: WorkerRedisUrl,
    /// No more containers are ever needed, and none are made in advance beyond that.
    pub max_workers: u32,
}

impl DockerSpec {
    /// What the settings of worker type `name` say.
    pub fn from_settings(name: &str, settings: &WorkerTypeSettings) -> Self {
        let mut docker = DockerSettings::clone(&settings.docker);
        if let Some(handed) = settings.for_workers().filter(|_| settings.framework.is_none()) {
            docker.environment.entry(WORKER_SETTINGS.to_owned()).or_insert(handed);
        }
        let stop = settings.stop_policy();
        if settings.stop_signal.is_some() || settings.framework.is_some() {
            docker.stop_signal.get_or_insert_with(|| format!("SIG{}", stop.signal.as_str()));
        }
        Self {
            settings: docker,
            service: settings.docker.service(name),
            drain_timeout: settings.scaling.drain_timeout(),
            stop,
            redis_url: settings.worker_redis_url(),
            max_workers: settings.scaling.max_workers,
        }
    }

    /// Those of all worker types that are enabled.
    pub fn all(settings: &Settings) -> BTreeMap<WorkerType, Self> {
        settings.enabled().map(|(name, of)| (WorkerType::new(name), Self::from_settings(name, of))).collect()
    }
}
