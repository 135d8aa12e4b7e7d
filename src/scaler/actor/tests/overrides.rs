//! Overrides.

use super::*;

fn controlled(mode: Mode, until: Option<u64>, lag: u64, view: PoolView) -> Input {
    let until = until.map(Timestamp);
    let control = Some(Arc::new(Control { mode, until, by: "ann@desk".to_owned(), why: String::new() }));
    observed_under(control, lag, view)
}

#[test]
fn invariant_12_a_type_that_is_paused_or_observed_is_not_even_repaired() {
    for mode in [Mode::Paused, Mode::Observe] {
        let mut actor = actor_with(ScalingSettings { min_workers: 2, ..settings() }, false);
        at(&mut actor, 100_000, signals());
        let stalled = PoolView { stalled: vec![WorkerId::new("lame")], ..view(0, 0) };
        assert_eq!(at(&mut actor, 100_001, controlled(mode, None, 50, stalled)), []);
        assert!(actor.snapshot().control.is_some());
    }
}

#[test]
fn invariant_12_a_pause_of_one_direction_leaves_the_other_one_free() {
    let stalled = || PoolView { stalled: vec![WorkerId::new("lame")], ..view(1, 0) };
    for (mode, lag, view, expected) in [
        (Mode::PausedIn, 50, view(1, 0), Some(10)),
        (Mode::PausedIn, 0, view(3, 0), None),
        (Mode::PausedIn, 0, stalled(), Some(1)),
        (Mode::PausedOut, 50, view(1, 0), None),
        (Mode::PausedOut, 0, view(3, 0), Some(0)),
        (Mode::PausedOut, 50, stalled(), None),
    ] {
        let mut actor = actor_with(settings(), false);
        at(&mut actor, 100_000, signals());
        let effects = at(&mut actor, 100_001, controlled(mode, None, lag, view));
        let target = if effects.is_empty() { None } else { target_of(&effects) };
        assert_eq!(target, expected, "{mode:?} {lag}");
    }
}

#[test]
fn a_pin_is_written_at_once_and_looked_at_again_when_it_ends() {
    let mut actor = actor_with(settings(), false);
    at(&mut actor, 1_000, signals());
    let effects = at(&mut actor, 1_001, controlled(Mode::Pinned(3), Some(61_000), 0, view(0, 0)));
    assert_eq!(target_of(&effects), Some(3));
    at(&mut actor, 1_002, scaled(Ok(ScaleReport::default())));
    at(&mut actor, 1_060, Input::Tick);
    at(&mut actor, 1_061, controlled(Mode::Pinned(3), Some(61_000), 0, view(3, 0)));
    assert_eq!(actor.next_wake(), Some(Timestamp(61_000)));
}
