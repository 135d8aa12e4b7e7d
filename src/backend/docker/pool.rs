//! One worker type: what was said about it, its registry, and what its containers are made after.

use std::sync::{
    Arc, Mutex, OnceLock, PoisonError, RwLock,
    atomic::{AtomicBool, Ordering},
};

use super::{
    container_template::{ContainerTemplate, Owner},
    self_container::SelfContainer,
    spec::DockerSpec,
    worker_registry::WorkerRegistry,
};
use crate::{backend::BackendError, model::WorkerType};

/// One worker type.
pub(super) struct TypePool {
    pub(super) worker_type: WorkerType,
    /// With the project it says which containers are its own, for as long as it lives.
    pub(super) service: String,
    spec: RwLock<Arc<DockerSpec>>,
    pub(super) registry: WorkerRegistry,
    project: OnceLock<String>,
    example: Mutex<Example>,
    unsure: AtomicBool,
}

/// The example that containers are created from.
#[derive(Default)]
struct Example {
    template: Option<Arc<ContainerTemplate>>,
    /// The container that it was read from; none if it was built from settings.
    container: Option<String>,
}

impl TypePool {
    pub(super) fn new(worker_type: WorkerType, spec: DockerSpec) -> Self {
        let (registry, project, example, unsure) = Default::default();
        let (service, spec) = (spec.service.clone(), RwLock::new(Arc::new(spec)));
        Self { worker_type, service, spec, registry, project, example, unsure }
    }

    /// How to run its workers from now on.
    pub(super) fn spec(&self) -> Arc<DockerSpec> {
        self.spec.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the containers of `spec` are its own.
    pub(super) fn is_of(&self, spec: &DockerSpec) -> bool {
        self.service == spec.service && self.spec().settings.project == spec.settings.project
    }

    /// From now on its workers are run by other words. Those that a container of Compose says it all for are not
    /// concerned.
    pub(super) fn respec(&self, spec: DockerSpec, self_container: Option<&SelfContainer>) {
        *self.spec.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(spec);
        if let Some(self_container) = self_container.filter(|_| self.project.get().is_some() && !self.keeps_last()) {
            self.build(self_container);
        }
    }

    fn build(&self, self_container: &SelfContainer) {
        // Errors were found before: the backend takes no settings that have any.
        let built = ContainerTemplate::of_settings(&self.spec(), self.owner(), &self_container.networks);
        self.example().template = built.ok().flatten().map(Arc::new);
    }

    /// Settles what depends on where the scaler lives. Only the first time counts.
    pub(super) fn settle(&self, self_container: &SelfContainer) {
        if self.project.get().is_some() {
            return;
        }
        let project = self.spec().settings.project.clone().unwrap_or_else(|| self_container.project.clone());
        if self.project.set(project).is_ok() {
            self.build(self_container);
        }
    }

    /// Whose its containers are. The project is empty before it has been settled, and then nothing is started either.
    pub(super) fn owner(&self) -> Owner<'_> {
        let project = self.project.get().map_or("", String::as_str);
        Owner { worker_type: &self.worker_type, project, service: &self.service }
    }

    fn example(&self) -> std::sync::MutexGuard<'_, Example> {
        self.example.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn template(&self) -> Option<Arc<ContainerTemplate>> {
        self.example().template.clone()
    }

    /// Whether a container has been read already, or one that was made after the same example.
    pub(super) fn knows(&self, container: &str, fingerprint: Option<&str>) -> bool {
        let example = self.example();
        let same = |template: &Arc<ContainerTemplate>| fingerprint.is_some_and(|print| print == template.fingerprint);
        example.container.as_deref() == Some(container)
            || (example.container.is_some() && example.template.as_ref().is_some_and(same))
    }

    /// From now on containers are made after this one.
    pub(super) fn follow(&self, container: &str, template: ContainerTemplate) {
        *self.example() = Example { template: Some(Arc::new(template)), container: Some(container.to_owned()) };
    }

    /// Whether the last container of the service has to stay, as the only place that says what it looks like.
    pub(super) fn keeps_last(&self) -> bool {
        self.example().container.is_some()
    }

    /// Why nothing can be started.
    pub(super) fn no_template(&self) -> BackendError {
        let (name, Owner { project, service, .. }) = (&self.worker_type, self.owner());
        BackendError::permanent(format!(
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

    /// The registry has been compared with the engine.
    pub(super) fn sure(&self) {
        self.unsure.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        config::{DockerSettings, WorkerRedisUrl},
        model::StopPolicy,
    };

    fn spec(image: &str) -> DockerSpec {
        let settings = DockerSettings { image: Some(image.to_owned()), ..DockerSettings::default() };
        DockerSpec {
            settings,
            service: "web".to_owned(),
            drain_timeout: Duration::ZERO,
            stop: StopPolicy::default(),
            redis_url: WorkerRedisUrl::Scaler,
            max_workers: 1,
        }
    }

    fn image(pool: &TypePool) -> Option<String> {
        pool.template().map(|template| template.image().to_owned())
    }

    #[test]
    fn other_words_hold_for_containers_made_from_then_on_unless_compose_says_it_all() {
        let self_container = SelfContainer { project: "shop".to_owned(), networks: Vec::new() };
        let pool = TypePool::new(WorkerType::new("browser"), spec("one"));
        pool.respec(spec("two"), None);
        assert_eq!(image(&pool), None, "it is not known yet where the scaler lives");
        pool.settle(&self_container);
        assert_eq!(image(&pool).as_deref(), Some("two"));
        pool.respec(spec("three"), Some(&self_container));
        assert_eq!((image(&pool).as_deref(), pool.owner().project), (Some("three"), "shop"));

        let found = bollard::models::ContainerInspectResponse::default();
        pool.follow("c", ContainerTemplate::of_container(found, pool.owner()));
        let copied = pool.template().map(|template| template.fingerprint.clone());
        pool.respec(DockerSpec { max_workers: 7, ..spec("four") }, Some(&self_container));
        assert_eq!(pool.template().map(|template| template.fingerprint.clone()), copied);
        assert_eq!(pool.spec().max_workers, 7);
    }

    #[test]
    fn another_service_or_project_is_another_pool() {
        let pool = TypePool::new(WorkerType::new("browser"), spec("one"));
        assert!(pool.is_of(&spec("two")));
        assert!(!pool.is_of(&DockerSpec { service: "other".to_owned(), ..spec("one") }));
        let mut elsewhere = spec("one");
        elsewhere.settings.project = Some("elsewhere".to_owned());
        assert!(!pool.is_of(&elsewhere));
    }
}
