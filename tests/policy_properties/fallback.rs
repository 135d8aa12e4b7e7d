//! What `fallback_workers` may change: it raises the number of workers while the queue can't be read, and nothing else.

use proptest::prelude::*;
use swarm::{
    model::{Timestamp, snapshot::Action},
    policy::{ByDirection, Decision},
};

use super::cases::{Case, NOW, case, config, gappy_demand, known_demand};

/// Returns the decision without a fallback, and with one since the queue became unreadable `seconds` ago.
fn without_and_with(case: &Case, workers: u32, seconds: u64) -> (Decision, Decision) {
    let mut with = case.clone();
    with.settings.fallback_workers = Some(workers.min(case.settings.max_workers).max(1));
    with.settings.fallback_after_seconds = 60;
    with.history.unreadable_since = Some(Timestamp(NOW.0 - seconds * 1_000));
    (case.decide(), with.decide())
}

proptest! {
    #![proptest_config(config(2_000))]

    #[test]
    fn invariant_02_a_fallback_raises_and_never_lowers(
        case in case(gappy_demand()), workers in 1_u32..25, seconds in 60_u64..600,
    ) {
        let (without, with) = without_and_with(&case, workers, seconds);
        prop_assert!(with.target >= without.target, "{without:?} {with:?}");
        prop_assert!(with.target <= without.target.max(workers), "{without:?} {with:?}");
        if with.action == Action::ScaleDown {
            prop_assert_eq!((with.action, with.target), (without.action, without.target));
        }
    }

    #[test]
    fn a_fallback_is_reached_unless_something_else_delays_every_start(
        case in case(gappy_demand()), workers in 1_u32..25,
    ) {
        let mut case = case;
        case.history.start_failures = None;
        case.history.backend_failures = ByDirection::default();
        case.settings.max_step_up = None;
        case.settings.schedule.clear();
        case.settings.strategy = swarm::config::Strategy::Threshold;
        let swarm::model::Reading::Known(counts) = &mut case.observation.pool else { return Ok(()) };
        (counts.lingering, counts.stalled) = (0, 0);
        let (_, with) = without_and_with(&case, workers, 60);
        prop_assert!(with.target >= workers.min(case.settings.max_workers), "{with:?}");
    }

    #[test]
    fn a_fallback_changes_nothing_before_its_time_or_while_the_queue_is_readable(
        early in case(gappy_demand()), readable in case(known_demand()), workers in 1_u32..25, seconds in 0_u64..60,
    ) {
        let (without, with) = without_and_with(&early, workers, seconds);
        prop_assert_eq!((with.action, with.target, &with.reasons), (without.action, without.target, &without.reasons));
        if with.action == Action::Hold {
            prop_assert!(with.recheck_at.is_some_and(|at| at > NOW), "{with:?}");
        }
        let (without, with) = without_and_with(&readable, workers, 600);
        prop_assert_eq!(with, without);
    }
}
