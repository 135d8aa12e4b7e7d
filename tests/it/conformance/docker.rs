//! Containers of a real engine, built from settings.

use swarm::{
    backend::ScalingBackend,
    model::{WorkerId, WorkerType},
};

use super::Rig;
use crate::{
    docker::bench::{Bench, shell},
    support::docker::{Engine, IMAGE, Project},
};

pub(super) struct Containers {
    bench: Bench,
    /// A name of the image that can be taken away.
    image: String,
}

impl Rig for Containers {
    async fn start() -> Self {
        let engine = Engine::any().await;
        let socket = engine.socket().to_owned();
        let project = Project::new(engine);
        let image = format!("{}:conformance", project.name);
        project.engine.docker(&["tag", IMAGE, &image]);
        let bench = Bench::through(&socket, project, |settings| settings.image = Some(image.clone()));
        Self { bench, image }
    }

    fn backend(&self) -> &dyn ScalingBackend {
        &self.bench.backend
    }

    fn worker_type(&self) -> WorkerType {
        shell()
    }

    async fn changed(&mut self) {
        self.bench.changed().await;
    }

    async fn until_listening(&self) {
        self.bench.until_listening().await;
    }

    async fn crash(&self, id: &WorkerId) {
        let label = format!("label=swarm.worker={id}");
        let container = self.bench.project.engine.docker(&["ps", "--quiet", "--no-trunc", "--filter", &label]);
        self.bench.project.engine.crash(container.trim());
    }

    async fn allow_starts(&self, allowed: bool) {
        let arguments = if allowed { vec!["tag", IMAGE, &self.image] } else { vec!["rmi", "--force", &self.image] };
        self.bench.project.engine.docker(&arguments);
    }

    async fn count(&self) -> usize {
        self.bench.containers(&["running"]).len()
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        // Only this name of it.
        let images = self.bench.project.engine.docker(&["images", "--quiet", &self.image]);
        if !images.trim().is_empty() {
            self.bench.project.engine.docker(&["rmi", "--force", &self.image]);
        }
    }
}
