//! All actors seen from outside: the snapshots, put together on request.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::watch;

use crate::{
    model::{
        Timestamp,
        snapshot::{DelayedCounts, FleetSnapshot, SourceState, StatusSource, TypeSnapshot},
    },
    probe::ProberHandle,
    scaler::Leadership,
    signal::SourceBoard,
};

/// What does not change while the autoscaler runs.
#[derive(Clone, Debug)]
pub struct FleetInfo {
    /// Name of this instance.
    pub instance: String,
    /// Who runs the workers.
    pub orchestrator: &'static str,
    /// When it started.
    pub started_at: Timestamp,
    /// Whether it only decides.
    pub dry_run: bool,
}

/// Gives out snapshots.
#[derive(Debug)]
pub struct Fleet {
    info: FleetInfo,
    board: Arc<SourceBoard>,
    prober: ProberHandle,
    leadership: Arc<Leadership>,
    snapshots: Vec<watch::Receiver<Arc<TypeSnapshot>>>,
    delayed: watch::Receiver<DelayedCounts>,
    stopping: AtomicBool,
}

impl Fleet {
    /// Of these actors.
    pub fn new(
        info: FleetInfo,
        board: Arc<SourceBoard>,
        prober: ProberHandle,
        leadership: Arc<Leadership>,
        snapshots: Vec<watch::Receiver<Arc<TypeSnapshot>>>,
        delayed: watch::Receiver<DelayedCounts>,
    ) -> Self {
        Self { info, board, prober, leadership, snapshots, delayed, stopping: AtomicBool::new(false) }
    }

    /// From now on it is not ready: it is being stopped.
    pub fn begin_stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }
}

impl StatusSource for Fleet {
    fn fleet(&self) -> FleetSnapshot {
        FleetSnapshot {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: self.info.instance.clone(),
            orchestrator: self.info.orchestrator.to_owned(),
            started_at: self.info.started_at,
            dry_run: self.info.dry_run,
            leadership: self.leadership.snapshot(),
            redis_error: self.prober.redis_error(),
            sources: self.board.snapshot(),
            worker_types: self.snapshots.iter().map(|snapshot| snapshot.borrow().clone()).collect(),
            delayed: self.delayed.borrow().clone(),
        }
    }

    fn not_ready(&self) -> Vec<String> {
        let mut missing: Vec<String> = self.prober.redis_error().into_iter().collect();
        missing.extend(self.leadership.snapshot().problem.map(|why| format!("it is not known who leads: {why}")));
        if self.stopping.load(Ordering::Acquire) {
            missing.push("the autoscaler is being stopped".to_owned());
        }
        let sources = self.board.snapshot();
        if !sources.iter().any(|source| source.state == SourceState::Up) {
            missing.push("no signal source is up: reactions wait for the sweep".to_owned());
        }
        let unseen = self.snapshots.iter().filter(|snapshot| snapshot.borrow().evaluated_at.is_none()).count();
        if unseen > 0 {
            missing.push(format!("{unseen} worker types have not been evaluated yet"));
        }
        missing
    }
}
