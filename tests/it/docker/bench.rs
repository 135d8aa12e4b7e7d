//! A Docker backend with one worker type in a project of its own.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use secrecy::SecretString;
use swarm::{
    backend::{
        BackendError, Pool, ScaleReport, ScaleRequest, ScalingBackend,
        docker::{DockerBackend, DockerSpec, Endpoint, Limits, Surroundings},
    },
    config::{DockerSettings, WorkerRedisUrl},
    model::{Clock, StopPolicy, WorkerId, WorkerType},
};
use tokio::sync::watch;

use crate::support::{
    docker::{Engine, IMAGE, Project},
    wait::{DEADLINE, eventually},
};

/// A drain that no test waits for.
pub(crate) const LONG: Duration = Duration::from_secs(600);
/// A worker that leaves when asked to, and fails on SIGUSR1. The first process of a container gets no signal that it
/// does not catch: before it says that it listens, a signal is lost (see [`Bench::until_listening`]).
pub(crate) const SLEEPER: &str = "trap 'exit 0' TERM; trap 'exit 7' USR1; echo listening; sleep 100000 & wait";
/// For an engine that answers late, but answers.
const PATIENT: Limits =
    Limits { call: Duration::from_secs(30), launch: Duration::from_secs(60), pull: Duration::from_secs(60) };
/// For an engine that never answers.
pub(crate) const IMPATIENT: Limits =
    Limits { call: Duration::from_secs(5), launch: Duration::from_secs(10), ..PATIENT };

/// The bench.
pub(crate) struct Bench {
    pub(crate) backend: DockerBackend,
    pub(crate) project: Project,
    changes: watch::Receiver<u64>,
}

impl Bench {
    /// A backend whose workers are built from settings and run a script.
    pub(crate) async fn new(script: &str) -> Self {
        let engine = Engine::any().await;
        Self::on(engine, |settings| settings.command = shell_command(script))
    }

    /// On this engine, with these settings.
    pub(crate) fn on(engine: Arc<Engine>, adjust: impl FnOnce(&mut DockerSettings)) -> Self {
        let socket = engine.socket().to_owned();
        Self::through(&socket, Project::new(engine), adjust)
    }

    /// Through this socket, which leads to the project's engine.
    pub(crate) fn through(socket: &Path, project: Project, adjust: impl FnOnce(&mut DockerSettings)) -> Self {
        Self::at(Endpoint::Unix(socket.to_owned()), project, adjust)
    }

    /// At this endpoint, which leads to the project's engine.
    pub(crate) fn at(endpoint: Endpoint, project: Project, adjust: impl FnOnce(&mut DockerSettings)) -> Self {
        Self::within(PATIENT, endpoint, project, adjust)
    }

    /// At this endpoint, whose answers may take this long.
    pub(crate) fn within(
        limits: Limits,
        endpoint: Endpoint,
        project: Project,
        adjust: impl FnOnce(&mut DockerSettings),
    ) -> Self {
        let mut settings = DockerSettings {
            image: Some(IMAGE.to_owned()),
            command: shell_command(SLEEPER),
            networks: vec!["none".to_owned()],
            ..DockerSettings::default()
        };
        adjust(&mut settings);
        let (backend, changes) = backend(limits, endpoint, &project.name, settings);
        Self { backend, project, changes }
    }

    pub(crate) async fn scale(
        &self,
        target: u32,
        retire: &[WorkerId],
        drain: Duration,
    ) -> Result<ScaleReport, BackendError> {
        let request = ScaleRequest { worker_type: shell(), target, retire: retire.to_vec(), drain_timeout: drain };
        self.backend.scale(request).await
    }

    pub(crate) async fn start(&self, count: u32) -> Vec<WorkerId> {
        self.scale(count, &[], LONG).await.unwrap().started
    }

    pub(crate) async fn observe(&self) -> Result<Pool, BackendError> {
        self.backend.observe(&shell()).await
    }

    /// Waits for the backend to say that something changed until the pool is as wanted.
    pub(crate) async fn until(&mut self, what: &str, wanted: impl Fn(&Pool) -> bool) -> Pool {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let seen = self.observe().await;
            if let Ok(pool) = &seen
                && wanted(pool)
            {
                return seen.unwrap();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let told = tokio::time::timeout(left, self.changes.changed()).await;
            assert!(told.is_ok(), "not within {DEADLINE:?}: {what}; last seen: {seen:#?}");
        }
    }

    /// Waits until nothing can be told about the workers.
    pub(crate) async fn until_unknown(&mut self) {
        let unknown = async {
            while self.observe().await.is_ok() {
                self.changed().await;
            }
        };
        tokio::time::timeout(DEADLINE, unknown).await.expect("an engine that can't be asked is noticed");
    }

    /// Drains everybody and ends the backend.
    pub(crate) async fn backend_shutdown(&self) {
        self.backend.shutdown(true).await;
    }

    /// Waits until the backend has said once more that something changed.
    pub(crate) async fn changed(&mut self) {
        self.changes.changed().await.unwrap();
    }

    /// Replaces the backend by a new one, as a restart of the scaler does.
    pub(crate) async fn restart(&mut self, adjust: impl FnOnce(&mut DockerSettings)) {
        self.backend.shutdown(false).await;
        let mut settings = DockerSettings::default();
        adjust(&mut settings);
        let endpoint = Endpoint::Unix(self.project.engine.socket().to_owned());
        (self.backend, self.changes) = backend(PATIENT, endpoint, &self.project.name, settings);
    }

    /// Waits until the project has `count` containers, running or not.
    pub(crate) async fn until_containers(&self, count: usize) {
        let there = eventually(DEADLINE, async || self.containers(&[]).len() == count).await;
        assert!(there, "not {count} containers: {:?}", self.containers(&[]));
    }

    /// Waits until every running [`SLEEPER`] catches signals.
    pub(crate) async fn until_listening(&self) {
        for name in self.containers(&["running"]) {
            let said = async || self.project.engine.docker(&["logs", &name]).contains("listening");
            assert!(eventually(DEADLINE, said).await, "{name} does not say that it listens");
        }
    }

    /// The names of its containers in these states.
    pub(crate) fn containers(&self, states: &[&str]) -> Vec<String> {
        self.project.containers(states)
    }
}

fn backend(
    limits: Limits,
    endpoint: Endpoint,
    project: &str,
    settings: DockerSettings,
) -> (DockerBackend, watch::Receiver<u64>) {
    let (count, changes) = watch::channel(0);
    let on_change = Arc::new(move |worker_type: &WorkerType| {
        assert_eq!(*worker_type, shell());
        count.send_modify(|count| *count += 1);
    });
    let drain_timeout = Duration::from_secs(5);
    let stop = StopPolicy { hard_kill: true, ..StopPolicy::default() };
    let (service, redis_url) = ("worker-shell".to_owned(), WorkerRedisUrl::Scaler);
    let spec = DockerSpec { settings, service, drain_timeout, stop, redis_url, max_workers: 100 };
    let surroundings = Surroundings {
        endpoint,
        limits,
        redis_url: SecretString::from("redis://example:6379/3"),
        project: Some(project.to_owned()),
        sweep_interval: Duration::from_secs(2),
    };
    let types = BTreeMap::from([(shell(), spec)]);
    (DockerBackend::start(&types, surroundings, on_change, Clock::start()).unwrap(), changes)
}

/// The worker type.
pub(crate) fn shell() -> WorkerType {
    WorkerType::new("shell")
}

/// A shell that runs a script.
pub(crate) fn shell_command(script: &str) -> Vec<String> {
    ["sh", "-c", script].map(str::to_owned).to_vec()
}
