//! Workers that KEDA scales. Sees those that announce themselves by heartbeats, and changes nothing.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;

use super::{BackendError, Instance, Phase, Pool, ScaleReport, ScaleRequest, ScalingBackend};
use crate::{
    config::Settings,
    model::{Clock, Timestamp, WorkerId, WorkerType},
};

/// Finds workers by their heartbeats.
#[async_trait]
pub trait FindWorkers: Send + Sync + 'static {
    /// Returns the workers of this type that have a heartbeat, found through the consumer group of a stream.
    ///
    /// # Errors
    /// If that can't be told now.
    async fn find(&self, worker_type: &WorkerType, stream: &str, group: &str) -> Result<Vec<WorkerId>, BackendError>;
}

/// The stream and the consumer group of a worker type; `None` for other kinds of queues, whose workers are not seen.
type Places = HashMap<WorkerType, Option<(String, String)>>;

/// Observes the workers of all types; never starts or stops one.
pub struct KedaBackend {
    workers: Arc<dyn FindWorkers>,
    clock: Clock,
    places: Mutex<Places>,
    /// When each worker was first seen.
    seen: Mutex<HashMap<WorkerType, HashMap<WorkerId, Timestamp>>>,
}

impl KedaBackend {
    /// Returns the backend for the worker types of these settings.
    pub fn new(settings: &Settings, workers: Arc<dyn FindWorkers>, clock: Clock) -> Self {
        Self { workers, clock, places: Mutex::new(places(settings)), seen: Mutex::default() }
    }

    /// Returns the pool of these workers, and forgets when others were first seen.
    fn pool(&self, worker_type: &WorkerType, ids: Vec<WorkerId>) -> Pool {
        let now = self.clock.now();
        let mut seen = lock(&self.seen);
        let before = seen.remove(worker_type).unwrap_or_default();
        let after: HashMap<WorkerId, Timestamp> =
            ids.iter().map(|id| (id.clone(), before.get(id).copied().unwrap_or(now))).collect();
        let instance = |id: WorkerId| {
            let since = after.get(&id).copied().unwrap_or(now);
            Instance::new(id, Phase::Running, since)
        };
        let instances = ids.into_iter().map(instance).collect();
        if !after.is_empty() {
            seen.insert(worker_type.clone(), after);
        }
        Pool { instances, known_by_heartbeat: true, ..Pool::default() }
    }
}

#[async_trait]
impl ScalingBackend for KedaBackend {
    fn name(&self) -> &'static str {
        "keda"
    }

    async fn observe(&self, worker_type: &WorkerType) -> Result<Pool, BackendError> {
        let place = lock(&self.places).get(worker_type).cloned().flatten();
        let Some((stream, group)) = place else { return Ok(Pool::default()) };
        let found = self.workers.find(worker_type, &stream, &group).await?;
        Ok(self.pool(worker_type, found))
    }

    async fn scale(&self, request: ScaleRequest) -> Result<ScaleReport, BackendError> {
        // The actor only recommends; see `Consequence::Recommend`.
        Err(BackendError::permanent(format!(
            "KEDA scales worker type `{}`; swarm only recommends a number",
            request.worker_type
        )))
    }

    async fn reconfigure(&self, settings: &Settings) -> Result<(), BackendError> {
        *lock(&self.places) = places(settings);
        Ok(())
    }

    async fn release(&self, worker_type: &WorkerType) {
        lock(&self.seen).remove(worker_type);
    }

    async fn shutdown(&self, _drain: bool) {}
}

fn places(settings: &Settings) -> Places {
    let place = |(name, of): (&str, &crate::config::WorkerTypeSettings)| {
        let is_seen = of.queue_kind().is_native() && of.framework.is_none() && of.worker.heartbeats;
        (WorkerType::new(name), is_seen.then(|| (of.queue(name), of.group(name))))
    };
    settings.enabled().map(place).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{backend::ErrorKind, config::load_text};

    struct Fixed(Mutex<Result<Vec<&'static str>, &'static str>>);

    #[async_trait]
    impl FindWorkers for Fixed {
        async fn find(&self, _: &WorkerType, stream: &str, group: &str) -> Result<Vec<WorkerId>, BackendError> {
            assert_eq!((stream, group), ("a:jobs", "a"));
            let found = lock(&self.0).clone();
            found.map(|ids| ids.into_iter().map(WorkerId::new).collect()).map_err(BackendError::retryable)
        }
    }

    fn backend(found: &Arc<Fixed>) -> KedaBackend {
        let text = "orchestrator = \"keda\"\n[worker_types.a]\n[worker_types.l]\nkind = \"list\"\n";
        let settings = load_text(text).unwrap().settings;
        KedaBackend::new(&settings, found.clone(), Clock::start())
    }

    #[tokio::test]
    async fn workers_are_those_with_a_heartbeat_since_they_were_first_seen() {
        let found = Arc::new(Fixed(Mutex::new(Ok(vec!["one", "two"]))));
        let backend = backend(&found);
        let a = WorkerType::new("a");
        let first = backend.observe(&a).await.unwrap();
        assert!(first.known_by_heartbeat);
        *lock(&found.0) = Ok(vec!["two", "three"]);
        let second = backend.observe(&a).await.unwrap();
        let ids: Vec<_> = second.instances.iter().map(|instance| instance.id.as_str()).collect();
        assert_eq!(ids, ["two", "three"]);
        assert_eq!(first.instances[1], second.instances[0], "the same worker, with the same start");
    }

    #[tokio::test]
    async fn unreadable_is_not_none_and_unseen_kinds_are_not_asked() {
        let found = Arc::new(Fixed(Mutex::new(Err("connection refused"))));
        let backend = backend(&found);
        let error = backend.observe(&WorkerType::new("a")).await.unwrap_err();
        assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Retryable, "connection refused"));
        assert_eq!(backend.observe(&WorkerType::new("l")).await.unwrap(), Pool::default());
    }

    #[tokio::test]
    async fn nothing_is_scaled() {
        let backend = backend(&Arc::new(Fixed(Mutex::new(Ok(Vec::new())))));
        let request = ScaleRequest {
            worker_type: WorkerType::new("a"),
            target: 3,
            retire: Vec::new(),
            drain_timeout: std::time::Duration::ZERO,
        };
        let error = backend.scale(request).await.unwrap_err();
        assert!(error.message.contains("KEDA scales worker type `a`"), "{error}");
    }
}
