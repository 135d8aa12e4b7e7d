//! Snapshots for tests.

use std::sync::Arc;

use crate::model::{
    Demand, PoolCounts, Reading, Timestamp,
    snapshot::{FleetSnapshot, LeadershipSnapshot, Role, TypeSnapshot},
};

/// A pool with one idle worker and no job.
pub(super) fn pool(name: &str) -> TypeSnapshot {
    TypeSnapshot {
        demand: Demand { lag: Reading::Known(0), pending: Reading::Known(0), ..Demand::failed("not read") },
        pool: Reading::Known(PoolCounts { ready: 1, ..PoolCounts::default() }),
        desired: 1,
        reasons: vec!["held at 1".to_owned()],
        ..TypeSnapshot::at_rest(name)
    }
}

/// An autoscaler `a` in this role.
pub(super) fn fleet(role: Role, leader: Option<&str>, pools: Vec<TypeSnapshot>) -> FleetSnapshot {
    FleetSnapshot {
        version: "0".to_owned(),
        instance: "a".to_owned(),
        orchestrator: "process".to_owned(),
        started_at: Timestamp(0),
        dry_run: false,
        leadership: LeadershipSnapshot { role, leader: leader.map(str::to_owned), ..LeadershipSnapshot::default() },
        redis_error: None,
        redis_refuses_writes: None,
        queue_servers: Vec::new(),
        max_total_workers: None,
        sources: Vec::new(),
        worker_types: pools.into_iter().map(Arc::new).collect(),
        delayed: Arc::default(),
        dead_letters: Arc::default(),
        reload: None,
    }
}
