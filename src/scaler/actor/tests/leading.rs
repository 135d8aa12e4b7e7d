//! Leaders and standbys, and changes that others make.

use super::*;

#[test]
fn what_is_known_outlives_a_gap_in_leading() {
    let mut actor = actor_with(settings(), false);
    at(&mut actor, 100_000, signals());
    at(&mut actor, 100_001, observed(20, view(0, 0)));
    at(&mut actor, 100_002, scaled(failure(ErrorKind::Permanent, "no room")));
    at(&mut actor, 110_000, Input::Follows);
    at(&mut actor, 120_000, Input::Leads(None));
    assert_eq!((actor.history.started_at, actor.history.backend_failures.is_empty()), (Timestamp(0), false));
    at(&mut actor, 120_000, signals());
    assert_eq!(target_of(&at(&mut actor, 120_001, observed(20, view(0, 0)))), None, "the backoff goes on");

    // Another autoscaler led, and changed something.
    let change = Change { at: Timestamp(130_000), from: 0, to: 3 };
    at(&mut actor, 125_000, Input::Follows);
    at(&mut actor, 140_000, Input::Leads(Some(change)));
    assert_eq!((actor.history.started_at, actor.history.last_change), (Timestamp(140_000), Some(change)));
}

/// Returns a pool of idle workers that somebody else has just scaled to `to`, at `ms`.
fn changed_by_hand(ms: u64, from: u32, to: u32) -> PoolView {
    let detail = "docker compose made 2".to_owned();
    PoolView { manual: vec![ManualScale { seq: 1, from, to, at: Timestamp(ms), detail }], ..view(to, 0) }
}

/// A manual change is recorded, starts the cooldown and counts as a change; then the normal rules apply.
/// Jobs, workers before and after the manual change; the immediate request, and the one after the cooldown.
type ByHand = (u64, u32, u32, Option<u32>, Option<u32>);

#[test]
fn a_manual_scale_is_recorded_and_starts_the_cooldown() {
    const MADE: u64 = 200_000;
    let table: [ByHand; 5] = [
        (0, 0, 3, None, Some(0)),
        (0, 5, 2, None, Some(0)),
        (20, 0, 4, None, None),
        (20, 5, 2, Some(4), None),
        (30, 0, 12, Some(10), None),
    ];
    for (lag, from, to, at_once, cooled) in table {
        let case = format!("{lag} jobs, by hand {from} → {to}");
        let mut actor = actor_with(settings(), false);
        at(&mut actor, MADE, signals());
        let effects = at(&mut actor, MADE + 5, observed(lag, changed_by_hand(MADE, from, to)));
        let record = record_of(&effects).expect(&case);
        assert_eq!(
            (record.from, record.to, record.trigger.as_slice()),
            (from, to, [Source::Manual].as_slice()),
            "{case}"
        );
        let action = if to > from { Action::ScaleUp } else { Action::ScaleDown };
        assert_eq!((record.action, record.at, record.error.as_deref()), (action, Timestamp(MADE), None), "{case}");
        assert_eq!(record.reason, format!("manual scale {from} → {to}: docker compose made 2"));
        assert_eq!(record.change, Some(Change { at: Timestamp(MADE), from, to }), "remembered over a restart");
        assert_eq!(target_of(&effects), at_once, "{case}");
        assert_eq!(effects.iter().filter(|effect| matches!(effect, Effect::Record(_))).count(), 1, "{case}");
        let mut last_change = MADE;
        let mut workers = to;
        if let Some(target) = at_once {
            last_change += 10;
            workers = target;
            at(&mut actor, last_change, scaled(Ok(ScaleReport::default())));
        } else {
            assert_eq!(actor.snapshot().last_change, record.change, "{case}");
        }
        let just_before = last_change + 59_900;
        for (now, expected) in [(just_before, None), (last_change + 60_000, cooled)] {
            at(&mut actor, now, signals());
            let effects = at(&mut actor, now, observed(lag, view(workers, 0)));
            assert_eq!((target_of(&effects), record_of(&effects)), (expected, None), "{case}, at {now}");
        }
    }
}

#[test]
fn only_the_leader_records_what_others_change() {
    let seen_by = |mut actor: Actor| {
        at(&mut actor, 100_000, signals());
        at(&mut actor, 100_001, observed(20, changed_by_hand(100_000, 0, 2)))
    };
    let records = |effects: &[Effect]| effects.iter().filter(|effect| matches!(effect, Effect::Record(_))).count();
    assert_eq!(records(&seen_by(actor_with(settings(), false))), 1);
    assert_eq!(records(&seen_by(actor_with(settings(), true))), 0, "a dry run");
    let mut standby = actor_with(settings(), false);
    at(&mut standby, 1, Input::Follows);
    assert_eq!(records(&seen_by(standby)), 0, "a standby: what it sees may be the leader's doing");
}

#[test]
fn invariant_15_a_standby_decides_and_asks_for_nothing() {
    let mut actor = actor_with(settings(), false);
    at(&mut actor, 500, Input::Follows);
    at(&mut actor, 1_000, signals());
    assert_eq!(at(&mut actor, 1_001, observed(20, view(0, 0))), []);
    assert_eq!((actor.snapshot().action, actor.snapshot().desired), (Action::ScaleUp, 4));

    // A new leader evaluates immediately, without the rest of the debounce.
    assert_eq!(at(&mut actor, 1_002, Input::Leads(None)), []);
    assert_eq!(at(&mut actor, 1_002, signals()), [Effect::Observe]);
    assert_eq!(target_of(&at(&mut actor, 1_003, observed(20, view(0, 0)))), Some(4));
}

#[test]
fn a_scaling_that_was_not_begun_leaves_no_trace_and_is_made_by_the_next_look() {
    let mut actor = actor_with(settings(), false);
    at(&mut actor, 1_000, signals());
    assert_eq!(target_of(&at(&mut actor, 1_001, observed(20, view(0, 0)))), Some(4));
    assert_eq!(at(&mut actor, 1_002, Input::NotScaled), []);
    assert_eq!((actor.snapshot().last_change, actor.next_wake()), (None, None));
    assert_eq!(at(&mut actor, 2_000, signals()), [Effect::Observe]);
    assert_eq!(target_of(&at(&mut actor, 2_001, observed(20, view(0, 0)))), Some(4));
}

#[test]
fn invariant_10_a_new_leader_lets_nobody_go_before_a_cooldown_has_passed() {
    let mut actor = actor_with(settings(), false);
    at(&mut actor, 500, Input::Follows);
    // The previous leader has just scaled up; this autoscaler has watched for far longer than a cooldown.
    let before = Change { at: Timestamp(990_000), from: 1, to: 5 };
    at(&mut actor, 1_000_000, Input::Leads(Some(before)));
    assert_eq!(actor.snapshot().last_change, Some(before));
    at(&mut actor, 1_000_000, signals());
    assert_eq!(target_of(&at(&mut actor, 1_000_001, observed(0, view(5, 0)))), None);
    at(&mut actor, 1_060_000, signals());
    assert_eq!(target_of(&at(&mut actor, 1_060_001, observed(0, view(5, 0)))), Some(0));
}
