use super::*;
use crate::scaler::budget::fixtures::decision;

/// Worker types with their minimum, maximum and priority.
fn claims(total: u32, pools: &[(&str, u32, u32, i32)], before: Option<&Claims>) -> Claims {
    let scaling: Vec<(WorkerType, ScalingSettings)> = pools
        .iter()
        .map(|&(name, min_workers, max_workers, priority)| {
            let scaling = ScalingSettings { min_workers, max_workers, priority, ..ScalingSettings::default() };
            (WorkerType::new(name), scaling)
        })
        .collect();
    Claims::new(total, scaling.iter().map(|(name, scaling)| (name.clone(), scaling)), before)
}

fn ready(ready: u32) -> PoolCounts {
    PoolCounts { ready, ..PoolCounts::default() }
}

/// What became of an evaluation.
#[derive(Debug, PartialEq)]
struct Told {
    target: u32,
    /// Whether the budget held the pool back, and at how many.
    limit: Option<u32>,
    woken: Vec<String>,
}

fn told(target: u32, limit: Option<u32>, woken: &[&str]) -> Told {
    Told { target, limit, woken: woken.iter().map(|name| (*name).to_owned()).collect() }
}

const ALL: Participation = Participation { acts: true, grows: true };

/// Evaluates a pool that wants `wanted` workers, and in which all workers are idle.
fn evaluate(claims: &mut Claims, name: &str, counts: PoolCounts, wanted: u32) -> Told {
    evaluate_as(claims, name, &Reading::Known(counts), ALL, wanted)
}

fn evaluate_as(
    claims: &mut Claims,
    name: &str,
    pool: &Reading<PoolCounts>,
    participation: Participation,
    wanted: u32,
) -> Told {
    let index = claims.index_of(&WorkerType::new(name)).expect("it has a claim");
    let current = pool.known().map_or(wanted, PoolCounts::current);
    let (decision, woken) = claims.decide(index, pool, participation, |allowance| {
        let lowered = allowance.filter(|allowance| allowance.workers < wanted);
        let target = lowered.map_or(wanted, |allowance| allowance.workers);
        decision(current, target, lowered)
    });
    let limit = decision.reasons.iter().find_map(|reason| match reason {
        Reason::Budget(allowance) => Some(allowance.workers),
        _ => None,
    });
    Told { target: decision.target, limit, woken: woken.iter().map(ToString::to_string).collect() }
}

/// Two pools that were observed and have no worker.
fn two(total: u32, priorities: [i32; 2]) -> Claims {
    let mut claims = claims(total, &[("a", 0, 10, priorities[0]), ("b", 0, 10, priorities[1])], None);
    evaluate(&mut claims, "a", ready(0), 0);
    evaluate(&mut claims, "b", ready(0), 0);
    claims
}

#[test]
fn a_pool_that_nobody_has_observed_counts_with_its_maximum() {
    let mut claims = claims(10, &[("a", 0, 10, 0), ("b", 0, 4, 0)], None);
    assert_eq!(evaluate(&mut claims, "a", ready(0), 9), told(6, Some(6), &["b"]));
    // Once b was observed, a has the whole budget.
    assert_eq!(evaluate(&mut claims, "b", ready(0), 0), told(0, None, &["a"]));
    assert_eq!(evaluate(&mut claims, "a", ready(6), 9), told(9, None, &[]));
}

#[test]
fn a_pool_that_was_held_back_is_woken_by_the_place_that_becomes_free() {
    let mut claims = two(3, [0, 0]);
    assert_eq!(evaluate(&mut claims, "a", ready(0), 3), told(3, None, &[]));
    assert_eq!(evaluate(&mut claims, "b", ready(0), 1), told(0, Some(0), &["a"]), "a has more than its share");
    // Its workers are busy: nothing happens, and nobody is woken again and again.
    for _ in 0..3 {
        let busy = PoolCounts { ready: 3, busy: 3, ..PoolCounts::default() };
        let index = claims.index_of(&WorkerType::new("a")).unwrap();
        let (_, woken) = claims.decide(index, &Reading::Known(busy), ALL, |allowance| decision(3, 3, allowance));
        assert!(woken.is_empty(), "{woken:?}");
        assert_eq!(evaluate(&mut claims, "b", ready(0), 1), told(0, Some(0), &[]));
    }
    // One is idle and asked to go: its place is not free before it is gone.
    assert_eq!(evaluate(&mut claims, "a", ready(3), 3), told(2, Some(2), &[]));
    let leaving = PoolCounts { ready: 2, draining: 1, ..PoolCounts::default() };
    assert_eq!(evaluate(&mut claims, "a", leaving, 3), told(2, Some(2), &[]));
    assert_eq!(evaluate(&mut claims, "b", ready(0), 1), told(0, Some(0), &[]));
    assert_eq!(evaluate(&mut claims, "a", ready(2), 3), told(2, Some(2), &["b"]));
    assert_eq!(evaluate(&mut claims, "b", ready(0), 1), told(1, None, &[]));
}

#[test]
fn workers_under_way_and_those_that_leave_or_never_started_take_places() {
    let mut claims = two(10, [0, 0]);
    // Seven were asked for and are not there yet.
    assert_eq!(evaluate(&mut claims, "a", ready(0), 7), told(7, None, &[]));
    assert_eq!(evaluate(&mut claims, "b", ready(0), 9), told(3, Some(3), &["a"]));
    let leaving = PoolCounts { ready: 2, draining: 4, stalled: 1, ..PoolCounts::default() };
    assert_eq!(evaluate(&mut claims, "a", leaving, 7).target, 2, "of ten, b has three, and five are no capacity");
}

#[test]
fn a_higher_priority_wakes_those_that_have_its_places() {
    let mut claims = two(3, [0, 5]);
    assert_eq!(evaluate(&mut claims, "a", ready(0), 3), told(3, None, &[]));
    assert_eq!(evaluate(&mut claims, "b", ready(0), 2), told(0, Some(0), &["a"]));
    assert_eq!(evaluate(&mut claims, "a", ready(3), 3), told(1, Some(1), &[]));
    assert_eq!(evaluate(&mut claims, "a", ready(1), 3), told(1, Some(1), &["b"]));
    assert_eq!(evaluate(&mut claims, "b", ready(0), 2), told(2, None, &[]));
    // What it no longer wants goes back.
    assert_eq!(evaluate(&mut claims, "b", ready(2), 0), told(0, None, &[]));
    assert_eq!(evaluate(&mut claims, "b", ready(0), 0), told(0, None, &["a"]));
    assert_eq!(evaluate(&mut claims, "a", ready(1), 3), told(3, None, &[]));
}

#[test]
fn a_pool_that_can_no_longer_be_read_keeps_its_places_also_across_a_reload() {
    let mut before = two(10, [0, 0]);
    evaluate(&mut before, "a", ready(4), 4);
    evaluate_as(&mut before, "a", &Reading::Failed("away".to_owned()), ALL, 4);
    assert_eq!(evaluate(&mut before, "b", ready(0), 9), told(6, Some(6), &[]));
    let mut after = claims(8, &[("a", 0, 10, 0), ("b", 0, 10, 0)], Some(&before));
    assert!(!before.has_same_settings(&after));
    assert_eq!(evaluate(&mut after, "b", ready(0), 9), told(4, Some(4), &[]));
}

#[test]
fn no_place_is_kept_for_a_pool_that_may_not_grow() {
    let mut claims = two(3, [0, 5]);
    let observed = Participation { acts: false, grows: false };
    evaluate_as(&mut claims, "b", &Reading::Known(ready(0)), observed, 3);
    assert_eq!(evaluate(&mut claims, "a", ready(0), 3), told(3, None, &[]));
}

#[test]
fn a_standby_counts_what_exists_and_knows_who_comes_first() {
    let mut claims = two(3, [0, 5]);
    let standby = Participation { acts: false, grows: true };
    let none = Reading::Known(ready(0));
    assert_eq!(evaluate_as(&mut claims, "a", &none, standby, 3), told(3, None, &[]));
    assert_eq!(evaluate_as(&mut claims, "b", &none, standby, 2), told(2, None, &[]), "a has started nobody");
    assert_eq!(evaluate(&mut claims, "a", ready(0), 3).target, 1);
}
