//! The curves of the last minutes, so that a reader who opens the status page sees where the numbers come from.
//! Bounded: a point is kept only if something has changed, only for worker types that are not at rest, and only for a
//! limited number of them.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use crate::model::{Timestamp, WorkerType, snapshot::TypeSnapshot};

/// Time span of the curves. The page shows the same span.
const KEPT: Duration = Duration::from_secs(600);

/// Maximum worker types with a curve. Together with one point in five seconds: some megabytes at most.
const CURVES: usize = 500;

/// Unfinished jobs (`None`: unknown), the target, and the present workers (`None`: unknown).
type Values = (Option<u64>, u32, Option<u32>);

/// One point of a curve: it is valid until the next one.
type Point = (Timestamp, Values);

/// The curves, by worker type.
#[derive(Default)]
pub(super) struct Trace {
    curves: HashMap<WorkerType, VecDeque<Point>>,
}

fn values(of: &TypeSnapshot) -> Values {
    (of.demand.depth().known().copied(), of.desired, of.pool.known().map(|pool| pool.current() + pool.draining))
}

impl Trace {
    /// Adds the present values.
    pub(super) fn add(&mut self, types: &[Arc<TypeSnapshot>], now: Timestamp) {
        for of in types {
            let values = values(of);
            match self.curves.get_mut(&of.worker_type) {
                Some(curve) if curve.back().is_none_or(|last| last.1 != values) => curve.push_back((now, values)),
                None if values != (Some(0), 0, Some(0)) => self.begin(of.worker_type.clone(), (now, values)),
                _ => {}
            }
        }
        // The last point that is too old still defines the beginning of the curve.
        for curve in self.curves.values_mut() {
            while curve.get(1).is_some_and(|second| now.since(second.0) > KEPT) {
                curve.pop_front();
            }
        }
        let at_rest = |curve: &VecDeque<Point>| {
            curve.len() == 1
                && curve.front().is_some_and(|only| only.1 == (Some(0), 0, Some(0)) && now.since(only.0) > KEPT)
        };
        self.curves.retain(|_, curve| !at_rest(curve));
    }

    /// Starts a curve. If there are too many, drops the one that has not changed for longest.
    fn begin(&mut self, worker_type: WorkerType, point: Point) {
        if self.curves.len() >= CURVES {
            let last = |(_, curve): &(&WorkerType, &VecDeque<Point>)| curve.back().map(|point| point.0);
            let stillest = self.curves.iter().min_by_key(last).map(|(name, _)| name.clone());
            if let Some(stillest) = stillest {
                self.curves.remove(&stillest);
            }
        }
        self.curves.insert(worker_type, VecDeque::from([point]));
    }

    /// Returns the curves of these worker types: `{"browser":[[time, depth, target, workers], …]}`.
    pub(super) fn json(&self, types: &[&WorkerType]) -> String {
        let curve = |name: &&WorkerType| {
            let points = self.curves.get(*name)?.iter();
            let points: Vec<_> = points.map(|(at, (depth, desired, workers))| (at, depth, desired, workers)).collect();
            Some(format!("{}:{}", serde_json::json!(name), serde_json::json!(points)))
        };
        format!("{{{}}}", types.iter().filter_map(curve).collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        http::tests::made_up_type,
        model::{PoolCounts, Reading},
    };

    fn types(names: &[&str], depth: u64, desired: u32) -> Vec<Arc<TypeSnapshot>> {
        let of = |name: &&str| {
            let mut of = made_up_type(name);
            of.demand.lag = Reading::Known(depth);
            of.desired = desired;
            of.pool = Reading::Known(PoolCounts { ready: desired, ..PoolCounts::default() });
            Arc::new(of)
        };
        names.iter().map(of).collect()
    }

    #[test]
    fn only_changes_of_what_is_not_at_rest_are_kept() {
        let (mut trace, name) = (Trace::default(), WorkerType::new("a"));
        trace.add(&types(&["a", "b"], 0, 0), Timestamp(0));
        assert!(trace.curves.is_empty());
        for (at, depth) in [(5_000, 3), (10_000, 3), (15_000, 0)] {
            trace.add(&types(&["a"], depth, 1), Timestamp(at));
        }
        assert_eq!(trace.json(&[&name, &WorkerType::new("b")]), r#"{"a":[[5000,3,1,1],[15000,0,1,1]]}"#);
        trace.add(&types(&["a"], 0, 0), Timestamp(20_000));
        trace.add(&types(&["a"], 0, 0), Timestamp(20_000 + 600_001));
        assert!(trace.curves.is_empty(), "at rest for ten minutes");
    }

    #[test]
    fn there_are_never_more_than_so_many() {
        let mut trace = Trace::default();
        let names: Vec<String> = (0..CURVES + 5).map(|number| format!("t{number}")).collect();
        for (at, name) in (0..).zip(&names) {
            trace.add(&types(&[name], 1, 1), Timestamp(at));
        }
        assert_eq!(trace.curves.len(), CURVES);
        assert!(!trace.curves.contains_key(&WorkerType::new("t0")));
        assert!(trace.curves.contains_key(&WorkerType::new(names.last().unwrap().as_str())));
    }
}
