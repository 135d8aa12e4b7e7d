//! One state of the fleet as readers get it. Its JSON is rendered once, and only for what has changed.

use std::{collections::HashMap, sync::Arc};

use serde::Serialize;
use tokio::time::Instant;

use crate::model::{
    PoolCounts, Timestamp, WorkerType,
    history::{EventSource, ScalingEvent},
    snapshot::{DelayedCounts, LeadershipSnapshot, SourceSnapshot, StatusSource, TypeSnapshot},
};

/// Maximum worker types in a frame; of more types, the most important ones are shown.
pub(super) const SHOWN: usize = 100;

/// Maximum workers of one type that are listed, and maximum entries of the history.
#[derive(Clone, Copy)]
struct Limits {
    workers: usize,
    events: usize,
}

/// Limits beside all other worker types.
const AMONG_ALL: Limits = Limits { workers: 50, events: 50 };

/// Limits for readers who follow a single worker type.
const ALONE: Limits = Limits { workers: 200, events: 200 };

/// One worker type.
pub(super) struct Row {
    snapshot: Arc<TypeSnapshot>,
    pub(super) json: String,
}

impl Row {
    pub(super) fn worker_type(&self) -> &WorkerType {
        &self.snapshot.worker_type
    }
}

/// One entry of the history.
pub(super) struct Entry {
    pub(super) event: Arc<ScalingEvent>,
    pub(super) json: String,
}

/// Worker types, and what happened to them.
#[derive(Default)]
pub(super) struct View {
    pub(super) rows: Vec<Arc<Row>>,
    /// Entries of the history, oldest first.
    pub(super) entries: Vec<Arc<Entry>>,
}

/// One state of the fleet.
pub(super) struct Frame {
    /// When the frame was made; `None` before the first one.
    pub(super) made: Option<Instant>,
    /// JSON of everything except the worker types and the history.
    pub(super) fleet: Arc<str>,
    /// The most important worker types, and the newest entries.
    all: View,
    /// The worker types that somebody follows alone. Without a row: there is no such worker type any more.
    single: HashMap<WorkerType, View>,
}

impl Default for Frame {
    fn default() -> Self {
        Self { made: None, fleet: "{}".into(), all: View::default(), single: HashMap::new() }
    }
}

/// The part of a frame about the fleet as a whole.
#[derive(Serialize)]
struct FleetBody<'a> {
    version: &'a str,
    instance: &'a str,
    orchestrator: &'a str,
    started_at: Timestamp,
    dry_run: bool,
    leadership: &'a LeadershipSnapshot,
    redis_error: Option<&'a str>,
    not_ready: Vec<String>,
    /// Whether clients with the token can send overrides.
    controls: bool,
    sources: &'a [SourceSnapshot],
    #[serde(skip_serializing_if = "Option::is_none")]
    max_total_workers: Option<u32>,
    delayed: &'a DelayedCounts,
    events_problem: Option<String>,
    totals: Totals,
}

/// Sums over all worker types, shown or not.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Totals {
    types: usize,
    shown: usize,
    /// Known unfinished jobs.
    depth: u64,
    desired: u64,
    ready: u64,
    starting: u64,
    busy: u64,
    draining: u64,
    /// Worker types with unreadable data, or whose workers fail to start.
    troubled: usize,
}

impl Totals {
    fn of(types: &[Arc<TypeSnapshot>]) -> Self {
        let mut totals = Self { types: types.len(), shown: types.len().min(SHOWN), ..Self::default() };
        for of in types {
            totals.depth += of.demand.depth().known().copied().unwrap_or_default();
            totals.desired += u64::from(of.desired);
            let pool = of.pool.known().copied().unwrap_or_default();
            let PoolCounts { ready, starting, busy, draining, .. } = pool;
            totals.ready += u64::from(ready);
            totals.starting += u64::from(starting);
            totals.busy += u64::from(busy);
            totals.draining += u64::from(draining);
            totals.troubled += usize::from(of.is_troubled());
        }
        totals
    }
}

/// Selects the most important worker types if there are many; all if there are few. Sorted by name.
fn shown(mut types: Vec<Arc<TypeSnapshot>>) -> Vec<Arc<TypeSnapshot>> {
    if types.len() > SHOWN {
        let importance = |of: &Arc<TypeSnapshot>| {
            let depth = of.demand.depth().known().copied().unwrap_or_default();
            std::cmp::Reverse((of.is_troubled(), of.control.is_some(), depth, of.desired))
        };
        types.sort_by_cached_key(importance);
        types.truncate(SHOWN);
        types.sort_by(|one, other| one.worker_type.cmp(&other.worker_type));
    }
    types
}

/// A worker type with its listed workers.
#[derive(Serialize)]
struct RowBody<'a> {
    #[serde(flatten)]
    of: &'a TypeSnapshot,
    /// Workers that are not listed.
    more_workers: usize,
}

fn row_json(of: &TypeSnapshot, workers: usize) -> String {
    let more_workers = of.workers.len().saturating_sub(workers);
    if more_workers == 0 {
        return json(&RowBody { of, more_workers });
    }
    let mut fewer = of.clone();
    fewer.workers.truncate(workers);
    json(&RowBody { of: &fewer, more_workers })
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("names, numbers and texts can be written as JSON")
}

impl View {
    /// Returns the view of these worker types and events. Reuses what has not changed since `before`.
    fn after(
        before: &Self,
        types: Vec<Arc<TypeSnapshot>>,
        events: Vec<Arc<ScalingEvent>>,
        Limits { workers, .. }: Limits,
    ) -> Self {
        let known: HashMap<_, _> = before.rows.iter().map(|row| (row.worker_type(), row)).collect();
        let row = |snapshot: Arc<TypeSnapshot>| match known.get(&snapshot.worker_type) {
            Some(row) if Arc::ptr_eq(&row.snapshot, &snapshot) => Arc::clone(row),
            _ => Arc::new(Row { json: row_json(&snapshot, workers), snapshot }),
        };
        let entry = |event: Arc<ScalingEvent>| {
            let same = before.entries.iter().find(|entry| Arc::ptr_eq(&entry.event, &event));
            same.cloned().unwrap_or_else(|| Arc::new(Entry { json: json(&*event), event }))
        };
        Self { rows: types.into_iter().map(row).collect(), entries: events.into_iter().map(entry).collect() }
    }
}

impl Frame {
    /// Returns the present state, with a view of each of the worker types in `followed`. Reuses what has not changed
    /// since `before`.
    pub(super) fn after(
        before: &Self,
        status: &dyn StatusSource,
        events: &dyn EventSource,
        controls: bool,
        followed: Vec<WorkerType>,
    ) -> Self {
        let now = status.fleet();
        let body = FleetBody {
            version: &now.version,
            instance: &now.instance,
            orchestrator: &now.orchestrator,
            started_at: now.started_at,
            dry_run: now.dry_run,
            leadership: &now.leadership,
            redis_error: now.redis_error.as_deref(),
            not_ready: status.not_ready(),
            controls,
            sources: &now.sources,
            max_total_workers: now.max_total_workers,
            delayed: &now.delayed,
            events_problem: events.problem(),
            totals: Totals::of(&now.worker_types),
        };
        let fleet = json(&body);
        let fleet = if *fleet == *before.fleet { before.fleet.clone() } else { fleet.into() };
        let nothing = View::default();
        let single = |name: WorkerType| {
            let types = now.worker_type(name.as_str()).cloned().into_iter().collect();
            let events = events.newest(ALONE.events, Some(name.as_str()));
            let view = View::after(before.single.get(&name).unwrap_or(&nothing), types, events, ALONE);
            (name, view)
        };
        let single = followed.into_iter().map(single).collect();
        let newest = events.newest(AMONG_ALL.events, None);
        let all = View::after(&before.all, shown(now.worker_types), newest, AMONG_ALL);
        Self { made: Some(Instant::now()), fleet, all, single }
    }

    /// Returns what readers of all worker types see, or readers of one. `None` if the frame was made without that one.
    pub(super) fn view(&self, only: Option<&WorkerType>) -> Option<&View> {
        only.map_or(Some(&self.all), |name| self.single.get(name))
    }
}
