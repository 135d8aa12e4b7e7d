//! Backend in memory: records each request to scale, and has the requested workers immediately.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc::Sender,
    },
};

use async_trait::async_trait;
use swarm::{
    backend::{BackendError, Instance, Phase, Pool, ScaleReport, ScaleRequest, ScalingBackend},
    model::{Timestamp, WorkerId, WorkerType},
};

use crate::protocol::{Event, nanos, worker_name};

/// See the module.
#[derive(Debug)]
pub(crate) struct RecordingBackend {
    pools: Mutex<HashMap<WorkerType, Vec<Instance>>>,
    started: AtomicUsize,
    events: Sender<Event>,
}

impl RecordingBackend {
    /// Creates the backend without workers. It reports requests to `events`.
    pub(crate) fn new(events: Sender<Event>) -> Self {
        Self { pools: Mutex::default(), started: AtomicUsize::new(0), events }
    }

    /// Removes all workers of a type.
    pub(crate) fn clear(&self, worker_type: &WorkerType) {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).remove(worker_type);
    }
}

#[async_trait]
impl ScalingBackend for RecordingBackend {
    fn name(&self) -> &'static str {
        "recording"
    }

    async fn observe(&self, worker_type: &WorkerType) -> Result<Pool, BackendError> {
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Pool { instances: pools.get(worker_type).cloned().unwrap_or_default(), ..Pool::default() })
    }

    async fn scale(&self, request: ScaleRequest) -> Result<ScaleReport, BackendError> {
        let asked = Event::Scale { nanos: nanos(), target: request.target };
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let pool = pools.entry(request.worker_type).or_default();
        pool.retain(|instance| !request.retire.contains(&instance.id));
        let missing = (request.target as usize).saturating_sub(pool.len());
        let first = self.started.fetch_add(missing, Ordering::Relaxed);
        let started: Vec<_> = (first..first + missing).map(|index| WorkerId::new(worker_name(index))).collect();
        let ready = |id: &WorkerId| Instance::new(id.clone(), Phase::Ready, Timestamp::wall());
        pool.extend(started.iter().map(ready));
        // Told last, so that what the benchmark does next finds the pool as asked for. If it is over, nobody listens.
        let _ = self.events.send(asked);
        Ok(ScaleReport { started, retired: request.retire })
    }

    async fn shutdown(&self, _drain: bool) {}
}
