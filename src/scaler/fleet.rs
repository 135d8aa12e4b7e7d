//! All actors seen from outside: combines their snapshots on request.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::watch;

use crate::{
    model::{
        Timestamp, WorkerType,
        snapshot::{
            DeadLetterCounts, DelayedCounts, FleetSnapshot, QueueServerSnapshot, ReloadSnapshot, SourceSnapshot,
            SourceState, StatusSource,
        },
    },
    probe::ProberHandle,
    scaler::{CanaryState, Leadership, SnapshotCell},
    signal::SourceStatus,
};

/// Facts that do not change while the autoscaler runs.
#[derive(Clone, Debug)]
pub struct FleetInfo {
    /// Name of this instance.
    pub instance: String,
    /// Backend that runs the workers.
    pub orchestrator: &'static str,
    /// When the autoscaler started.
    pub started_at: Timestamp,
    /// Whether the autoscaler only decides.
    pub dry_run: bool,
}

/// A Redis server of worker types that have their own.
#[derive(Debug)]
pub struct QueueServerParts {
    /// Name of the server for people.
    pub server: String,
    /// Reads the server.
    pub prober: ProberHandle,
    /// State of its signal sources.
    pub source_status: Arc<SourceStatus>,
    /// Worker types whose queues it has.
    pub worker_types: Vec<WorkerType>,
}

impl QueueServerParts {
    fn snapshot(&self) -> QueueServerSnapshot {
        QueueServerSnapshot {
            server: self.server.clone(),
            worker_types: self.worker_types.clone(),
            redis_error: self.prober.redis_error(),
            sources: self.source_status.snapshot(),
        }
    }
}

/// Returns why nothing of a server's queues can be read or heard, if so.
fn missing_on(server: &QueueServerSnapshot) -> Option<String> {
    let whose = format!("for the worker types {}", server.type_names());
    let silent = || format!("no signal source of redis at {} is up: reactions wait for the sweep", server.server);
    let error = server.redis_error.clone().or_else(|| (!any_up(&server.sources)).then(silent))?;
    Some(format!("{whose}: {error}"))
}

fn any_up(sources: &[SourceSnapshot]) -> bool {
    sources.iter().any(|source| source.state == SourceState::Up)
}

/// Parts that a change of the worker types replaces.
#[derive(Debug)]
pub struct FleetParts {
    /// Reads the top-level Redis server.
    pub prober: ProberHandle,
    /// The other servers that have queues.
    pub queue_servers: Vec<QueueServerParts>,
    /// The configured `min_workers` and `max_workers`, without the schedule.
    pub bounds: HashMap<WorkerType, (u32, u32)>,
    /// `max_total_workers`.
    pub max_total_workers: Option<u32>,
    /// Snapshot cells of the actors, in the order of the output.
    pub snapshots: Vec<SnapshotCell>,
    /// Delayed jobs, by queue.
    pub delayed: watch::Receiver<DelayedCounts>,
    /// Dead letters, by worker type.
    pub dead_letters: watch::Receiver<DeadLetterCounts>,
}

/// Serves snapshots.
#[derive(Debug)]
pub struct Fleet {
    info: FleetInfo,
    source_status: Arc<SourceStatus>,
    leadership: Arc<Leadership>,
    canary: Arc<CanaryState>,
    parts: RwLock<Arc<FleetParts>>,
    reload: RwLock<Option<ReloadSnapshot>>,
    stopping: AtomicBool,
}

impl Fleet {
    /// Returns the fleet of these parts.
    pub fn new(
        info: FleetInfo,
        source_status: Arc<SourceStatus>,
        leadership: Arc<Leadership>,
        canary: Arc<CanaryState>,
        parts: FleetParts,
    ) -> Self {
        let (parts, reload) = (RwLock::new(Arc::new(parts)), RwLock::default());
        Self { info, source_status, leadership, canary, parts, reload, stopping: AtomicBool::new(false) }
    }

    /// Replaces the parts.
    pub fn replace(&self, parts: FleetParts) {
        *self.parts.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(parts);
    }

    /// Stores the result of the last reload.
    pub fn note_reload(&self, reload: ReloadSnapshot) {
        *self.reload.write().unwrap_or_else(PoisonError::into_inner) = Some(reload);
    }

    fn parts(&self) -> Arc<FleetParts> {
        self.parts.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the configured `min_workers` and `max_workers` of a worker type.
    pub(super) fn configured_bounds(&self, worker_type: &WorkerType) -> Option<(u32, u32)> {
        self.parts().bounds.get(worker_type).copied()
    }

    /// Reports not ready from now on, because the autoscaler is being stopped.
    pub fn begin_stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }
}

impl StatusSource for Fleet {
    fn fleet(&self) -> FleetSnapshot {
        let parts = self.parts();
        FleetSnapshot {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: self.info.instance.clone(),
            orchestrator: self.info.orchestrator.to_owned(),
            started_at: self.info.started_at,
            dry_run: self.info.dry_run,
            leadership: self.leadership.snapshot(),
            redis_error: parts.prober.redis_error(),
            redis_refuses_writes: self.canary.refused(),
            sources: self.source_status.snapshot(),
            queue_servers: parts.queue_servers.iter().map(QueueServerParts::snapshot).collect(),
            worker_types: parts.snapshots.iter().map(SnapshotCell::get).collect(),
            max_total_workers: parts.max_total_workers,
            delayed: parts.delayed.borrow().clone(),
            dead_letters: parts.dead_letters.borrow().clone(),
            reload: self.reload.read().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    fn not_ready(&self) -> Vec<String> {
        let parts = self.parts();
        let mut missing: Vec<String> = parts.prober.redis_error().into_iter().collect();
        missing.extend(self.canary.refused().map(|why| format!("redis refuses writes: {why}")));
        missing.extend(self.leadership.snapshot().problem.map(|why| format!("it is not known who leads: {why}")));
        if self.stopping.load(Ordering::Acquire) {
            missing.push("the autoscaler is being stopped".to_owned());
        }
        if !any_up(&self.source_status.snapshot()) {
            missing.push("no signal source is up: reactions wait for the sweep".to_owned());
        }
        missing.extend(parts.queue_servers.iter().filter_map(|server| missing_on(&server.snapshot())));
        let unseen = parts.snapshots.iter().filter(|snapshot| snapshot.get().evaluated_at.is_none()).count();
        if unseen > 0 {
            missing.push(format!("{unseen} worker types have not been evaluated yet"));
        }
        missing
    }
}
