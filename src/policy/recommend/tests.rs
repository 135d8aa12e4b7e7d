use proptest::prelude::*;

use super::*;
use crate::{
    config::Strategy as Scaling,
    model::{Demand, snapshot::Action, snapshot::Change},
    policy::Reason,
};

const NOW: Timestamp = Timestamp(1_000_000_000);

fn settings() -> ScalingSettings {
    ScalingSettings { strategy: Scaling::Backlog, jobs_per_worker: 2, max_workers: 10, ..ScalingSettings::default() }
}

fn seen(depth: u64, pool: PoolCounts) -> Observation {
    let demand = Demand { lag: Reading::Known(depth), pending: Reading::Known(0), oldest: Reading::Known(None) };
    Observation { demand, queues: None, allowance: None, pool: Reading::Known(pool) }
}

fn unreadable() -> Observation {
    Observation {
        demand: Demand::failed("away"),
        queues: None,
        allowance: None,
        pool: Reading::Known(PoolCounts::default()),
    }
}

fn after(last: Option<u32>) -> History {
    History { recommended: last, ..History::new(NOW) }
}

fn number(settings: &ScalingSettings, observation: &Observation, history: &History) -> Option<u32> {
    recommend(None, settings, observation, history, NOW).1
}

fn control(mode: Mode) -> Control {
    Control { mode, until: None, by: "ann@desk".to_owned(), why: String::new() }
}

#[test]
fn the_number_follows_the_depth_at_once_in_both_directions() {
    let mut history = after(None);
    // A change a moment ago starts a cooldown, and a restart a stabilization window; neither holds a recommendation.
    history.last_change = Some(Change { at: NOW, from: 0, to: 9 });
    let pool = PoolCounts { ready: 9, ..PoolCounts::default() };
    let numbers = [0, 1, 2, 3, 13, 1_000].map(|depth| number(&settings(), &seen(depth, pool), &history));
    assert_eq!(numbers, [0, 1, 1, 2, 7, 10].map(Some));
}

#[test]
fn it_is_a_hold_that_says_who_scales() {
    let (decision, known) = recommend(None, &settings(), &seen(5, PoolCounts::default()), &after(None), NOW);
    assert_eq!((decision.action, decision.target, decision.current, known), (Action::Hold, 3, 0, Some(3)));
    assert_eq!(decision.headline(), "recommends 3: KEDA scales this type, depth 5 at 2 per worker wants 3");
    assert_eq!(decision.reasons.last().map(Reason::label), Some("backlog"));
}

#[test]
fn between_the_thresholds_the_last_recommendation_stays_whatever_runs() {
    let settings = ScalingSettings { scale_up_threshold: 5, scale_down_threshold: 1, ..ScalingSettings::default() };
    let observation = |depth| seen(depth, PoolCounts { ready: 1, ..PoolCounts::default() });
    assert_eq!(number(&settings, &observation(23), &after(None)), Some(5));
    assert_eq!(number(&settings, &observation(3), &after(Some(5))), Some(5), "four of five are not there yet");
    assert_eq!(number(&settings, &observation(3), &after(None)), Some(1), "after a restart those that are there stay");
    assert_eq!(number(&settings, &observation(1), &after(Some(5))), Some(1));
    let idle = seen(0, PoolCounts { ready: 5, ..PoolCounts::default() });
    assert_eq!(number(&settings, &idle, &after(Some(5))), Some(0));
}

#[test]
fn busy_workers_are_recommended_up_to_the_maximum() {
    let busy = |busy, possibly_busy| seen(0, PoolCounts { ready: 20, busy, possibly_busy, ..PoolCounts::default() });
    assert_eq!(number(&settings(), &busy(3, 0), &after(Some(0))), Some(3));
    assert_eq!(number(&settings(), &busy(3, 2), &after(Some(0))), Some(5));
    assert_eq!(number(&settings(), &busy(20, 0), &after(Some(0))), Some(10));
}

#[test]
fn full_workers_want_one_more_and_the_next_evaluation_does_not_add_another() {
    let full = PoolCounts { ready: 2, busy: 2, full: 2, ..PoolCounts::default() };
    let one = ScalingSettings { jobs_per_worker: 100, ..settings() };
    let first = number(&one, &seen(1, full), &after(Some(2)));
    assert_eq!(first, Some(3));
    assert_eq!(number(&one, &seen(1, full), &after(first)), Some(3), "the third has not started yet");
}

#[test]
fn an_unreadable_queue_or_pool_gives_no_number() {
    assert_eq!(number(&settings(), &unreadable(), &after(Some(4))), None);
    let blind = Observation { pool: Reading::Failed("refused".to_owned()), ..seen(9, PoolCounts::default()) };
    let (decision, known) = recommend(None, &settings(), &blind, &after(Some(4)), NOW);
    assert_eq!((known, decision.target), (None, 4));
    assert_eq!(decision.reasons.last().map(Reason::label), Some("pool_unknown"));
}

#[test]
fn an_override_applies_to_the_number() {
    let many = seen(20, PoolCounts { ready: 4, ..PoolCounts::default() });
    let none = seen(0, PoolCounts { ready: 4, ..PoolCounts::default() });
    let under = |mode, observation: &Observation, last| {
        recommend(Some(&control(mode)), &settings(), observation, &after(last), NOW).1
    };
    assert_eq!(under(Mode::Paused, &many, Some(4)), Some(4));
    assert_eq!(under(Mode::Observe, &none, Some(4)), Some(4));
    assert_eq!(under(Mode::Paused, &many, None), None, "the number from before a restart is not known");
    assert_eq!([&many, &none].map(|seen| under(Mode::PausedIn, seen, Some(4))), [Some(10), Some(4)]);
    assert_eq!([&many, &none].map(|seen| under(Mode::PausedOut, seen, Some(4))), [Some(4), Some(0)]);
    assert_eq!(under(Mode::Pinned(7), &none, Some(4)), Some(7));
    assert_eq!(under(Mode::Pinned(70), &none, None), Some(10));
    let ended = Control { until: Some(NOW), ..control(Mode::Paused) };
    assert_eq!(recommend(Some(&ended), &settings(), &many, &after(Some(4)), NOW).1, Some(10));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_number_is_within_the_bounds_covers_the_busy_and_starts_the_first(
        depth in 0_u64..200,
        (ready, busy, last) in (0_u32..30, 0_u32..30, prop::option::of(0_u32..30)),
        (min, max) in (0_u32..5).prop_flat_map(|min| (Just(min), min.max(1)..20)),
        strategy in prop::sample::select(vec![Scaling::Threshold, Scaling::Backlog, Scaling::Latency]),
    ) {
        let settings = ScalingSettings { strategy, min_workers: min, max_workers: max, ..ScalingSettings::default() };
        let busy = busy.min(ready);
        let observation = seen(depth, PoolCounts { ready, busy, ..PoolCounts::default() });
        let (decision, known) = recommend(None, &settings, &observation, &after(last), NOW);
        let known = known.unwrap();
        prop_assert_eq!((decision.action, decision.target), (Action::Hold, known));
        prop_assert!((min..=max).contains(&known), "{known} of {min}..={max}");
        prop_assert!(known >= busy.min(max));
        prop_assert!(depth == 0 || known > 0);
        // A number that was recommended and an input that stays the same give the same number.
        let again = number(&settings, &observation, &after(Some(known)));
        prop_assert_eq!(again, Some(known));
    }

    #[test]
    fn more_jobs_never_lower_the_number(depth in 0_u64..200, more in 0_u64..50, last in prop::option::of(0_u32..12)) {
        for strategy in [Scaling::Threshold, Scaling::Backlog, Scaling::Latency] {
            let settings = ScalingSettings { strategy, ..ScalingSettings::default() };
            let pool = PoolCounts { ready: last.unwrap_or(3), ..PoolCounts::default() };
            let few = number(&settings, &seen(depth, pool), &after(last));
            let many = number(&settings, &seen(depth + more, pool), &after(last));
            prop_assert!(many >= few, "{many:?} for {} and {few:?} for {depth}", depth + more);
        }
    }
}
