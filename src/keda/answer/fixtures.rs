//! Snapshots for the tests of answers.

use std::sync::Arc;

use crate::model::{
    Demand, Reading, Timestamp,
    snapshot::{DeadLetterCounts, DelayedCounts, FleetSnapshot, LeadershipSnapshot, TypeSnapshot},
};

/// Worker type `a` with this depth and recommendation.
pub(in crate::keda) fn seen(depth: u64, recommended: Option<u32>) -> TypeSnapshot {
    let demand = Demand { lag: Reading::Known(depth), pending: Reading::Known(0), oldest: Reading::Known(None) };
    TypeSnapshot { demand, recommended, ..TypeSnapshot::at_rest("a") }
}

/// An autoscaler with these worker types.
pub(in crate::keda) fn fleet(types: Vec<TypeSnapshot>) -> FleetSnapshot {
    FleetSnapshot {
        version: "1".to_owned(),
        instance: "i".to_owned(),
        orchestrator: "keda".to_owned(),
        started_at: Timestamp(0),
        dry_run: false,
        leadership: LeadershipSnapshot::default(),
        redis_error: None,
        redis_refuses_writes: None,
        sources: Vec::new(),
        queue_servers: Vec::new(),
        max_total_workers: None,
        worker_types: types.into_iter().map(Arc::new).collect(),
        delayed: DelayedCounts::default(),
        dead_letters: DeadLetterCounts::default(),
        reload: None,
    }
}
