//! One worker type: what was said about it, its books, and what its containers are made after.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{
    blueprint::{Blueprint, Owner},
    books::Books,
    home::Home,
    permanent,
};
use crate::{
    backend::BackendError,
    config::{DockerSettings, WorkerTypeSettings},
    model::WorkerType,
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
    /// No more containers are ever needed, and none are made in advance beyond that.
    pub max_workers: u32,
}

impl DockerSpec {
    /// What the settings of worker type `name` say.
    pub fn from_settings(name: &str, settings: &WorkerTypeSettings) -> Self {
        Self {
            settings: DockerSettings::clone(&settings.docker),
            service: settings.docker.service(name),
            drain_timeout: settings.scaling.drain_timeout(),
            max_workers: settings.scaling.max_workers,
        }
    }
}

/// One worker type.
pub(super) struct TypePool {
    pub(super) worker_type: WorkerType,
    pub(super) spec: DockerSpec,
    pub(super) books: Books,
    project: OnceLock<String>,
    example: Mutex<Example>,
    unsure: AtomicBool,
}

/// What containers are made after.
#[derive(Default)]
struct Example {
    blueprint: Option<Arc<Blueprint>>,
    /// The container that it was read from; none if it was built from settings.
    container: Option<String>,
}

impl TypePool {
    pub(super) fn new(worker_type: WorkerType, spec: DockerSpec) -> Self {
        let (books, project, example, unsure) = Default::default();
        Self { worker_type, spec, books, project, example, unsure }
    }

    /// Settles what depends on where the scaler lives. Only the first time counts.
    pub(super) fn settle(&self, home: &Home) {
        let project = self.spec.settings.project.as_ref().unwrap_or(&home.project);
        if self.project.set(project.clone()).is_ok() {
            let built = Blueprint::of_settings(&self.spec.settings, self.owner(), &home.networks);
            self.example().blueprint = built.map(Arc::new);
        }
    }

    /// Whose its containers are. The project is empty before it has been settled, and then nothing is started either.
    pub(super) fn owner(&self) -> Owner<'_> {
        let project = self.project.get().map_or("", String::as_str);
        Owner { worker_type: &self.worker_type, project, service: &self.spec.service }
    }

    fn example(&self) -> std::sync::MutexGuard<'_, Example> {
        self.example.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn blueprint(&self) -> Option<Arc<Blueprint>> {
        self.example().blueprint.clone()
    }

    /// Whether a container has been read already, or one that was made after the same example.
    pub(super) fn knows(&self, container: &str, fingerprint: Option<&str>) -> bool {
        let example = self.example();
        let same = |blueprint: &Arc<Blueprint>| fingerprint.is_some_and(|print| print == blueprint.fingerprint);
        example.container.as_deref() == Some(container)
            || (example.container.is_some() && example.blueprint.as_ref().is_some_and(same))
    }

    /// From now on containers are made after this one.
    pub(super) fn follow(&self, container: &str, blueprint: Blueprint) {
        *self.example() = Example { blueprint: Some(Arc::new(blueprint)), container: Some(container.to_owned()) };
    }

    /// Whether the last container of the service has to stay, as the only place that says what it looks like.
    pub(super) fn keeps_last(&self) -> bool {
        self.example().container.is_some()
    }

    /// Why nothing can be started.
    pub(super) fn no_blueprint(&self) -> BackendError {
        let (name, Owner { project, service, .. }) = (&self.worker_type, self.owner());
        permanent(format!(
            "there is nothing to make a worker of `{name}` after: the Compose project `{project}` has no container of \
             service `{service}`; make one (`docker compose -p {project} up --no-start --scale {service}=1 {service}`), \
             or set `worker_types.{name}.docker.image`"
        ))
    }

    /// Something was asked of the engine and its answer is missing.
    pub(super) fn unsure(&self) {
        self.unsure.store(true, Ordering::Release);
    }

    pub(super) fn is_unsure(&self) -> bool {
        self.unsure.load(Ordering::Acquire)
    }

    /// The books have been compared with the engine.
    pub(super) fn sure(&self) {
        self.unsure.store(false, Ordering::Release);
    }
}
