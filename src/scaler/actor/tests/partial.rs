//! Observations in which some heartbeats are remembered: they decide everything but who is let go.

use super::*;

fn partly(lag: u64, view: PoolView) -> Input {
    let Input::Observed(observed) = observed(lag, view) else { unreachable!("it is one") };
    Input::Observed(Box::new(Observed { is_partial: true, ..*observed }))
}

fn retired(effects: &[Effect]) -> Vec<&str> {
    let retired = effects.iter().filter_map(|effect| match effect {
        Effect::Scale(request, _) => Some(request.retire.iter().map(WorkerId::as_str)),
        _ => None,
    });
    retired.flatten().collect()
}

#[test]
fn before_a_worker_is_let_go_all_heartbeats_are_read() {
    let mut actor = actor_with(settings(), false);
    at(&mut actor, 100_000, signals());
    let before = actor.snapshot().clone();
    assert_eq!(at(&mut actor, 100_001, partly(0, view(3, 0))), [Effect::ObserveInFull]);
    assert_eq!(actor.snapshot(), &before, "nothing is shown of what is not decided");
    assert!(actor.evaluated_signals().is_some(), "the same evaluation goes on");
    // Two of them have just begun something.
    let effects = at(&mut actor, 100_002, observed(0, view(1, 2)));
    assert_eq!((target_of(&effects), retired(&effects)), (Some(2), vec!["idle-0"]));
}

#[test]
fn workers_above_the_maximum_are_looked_at_too_before_one_leaves() {
    let mut actor = actor_with(settings(), false);
    at(&mut actor, 1_000, signals());
    assert_eq!(at(&mut actor, 1_001, partly(90, view(12, 0))), [Effect::ObserveInFull]);
    let effects = at(&mut actor, 1_002, observed(90, view(2, 10)));
    assert_eq!(retired(&effects), ["idle-0", "idle-1"]);
}

#[test]
fn more_workers_and_a_hold_need_no_second_look() {
    let mut actor = actor_with(settings(), false);
    at(&mut actor, 1_000, signals());
    let effects = at(&mut actor, 1_001, partly(20, view(2, 0)));
    assert_eq!((target_of(&effects), retired(&effects)), (Some(4), vec![]));
    at(&mut actor, 1_002, scaled(Ok(ScaleReport::default())));
    at(&mut actor, 1_100, Input::Tick);
    assert_eq!(at(&mut actor, 1_101, partly(0, view(4, 0))), [], "held by the cooldown");
}

#[test]
fn a_replacement_is_decided_by_a_full_look() {
    let stalled = || PoolView { stalled: vec![WorkerId::new("stalled")], ..view(1, 0) };
    let mut actor = actor_with(settings(), false);
    at(&mut actor, 1_000, signals());
    assert_eq!(at(&mut actor, 1_001, partly(5, stalled())), [Effect::ObserveInFull]);
    assert_eq!(retired(&at(&mut actor, 1_002, observed(5, stalled()))), ["stalled"]);

    let mut standby = actor_with(settings(), false);
    at(&mut standby, 500, Input::Follows);
    at(&mut standby, 1_000, signals());
    assert_eq!(at(&mut standby, 1_001, partly(5, stalled())), [], "the leader replaces it");
}
