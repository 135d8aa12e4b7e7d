//! Worker types with several queues: what is known of each goes through the same rule into one decision.

use std::sync::Arc;

use proptest::prelude::*;
use swarm::{
    model::{Combine, Demand, QueueDemand, Reading, snapshot::Action},
    policy::{ByDirection, Decision, Observation},
    probe::combine,
};

use crate::cases::{Case, any_demand, case, config, jobs, known_demand};

/// Decides for these queues instead of the case's own demand.
fn decided(case: &Case, rule: Combine, queues: &[Demand]) -> Decision {
    let named = |(number, demand): (usize, &Demand)| QueueDemand {
        queue: format!("queue-{number}").into(),
        demand: demand.clone(),
    };
    let queues: Vec<_> = queues.iter().enumerate().map(named).collect();
    let count = queues.len();
    let (demand, queues) = combine(rule, queues, count, &Reading::Known(()));
    let observation = Observation { demand, queues: Some(Arc::new(queues)), ..case.observation.clone() };
    Case { observation, ..case.clone() }.decide()
}

fn rule() -> impl Strategy<Value = Combine> {
    prop_oneof![Just(Combine::Sum), Just(Combine::Max)]
}

fn queues(demand: impl Strategy<Value = Demand>) -> impl Strategy<Value = Vec<Demand>> {
    prop::collection::vec(demand, 1..5)
}

/// What is decided; the words may differ.
fn outcome(decision: &Decision) -> (u32, Action, Option<u32>) {
    (decision.target, decision.action, decision.recommendation)
}

proptest! {
    #![proptest_config(config(2_000))]

    #[test]
    fn one_queue_of_several_is_as_a_single_one(case in case(any_demand()), rule in rule()) {
        let several = decided(&case, rule, std::slice::from_ref(&case.observation.demand));
        prop_assert_eq!(outcome(&several), outcome(&case.decide()));
    }

    #[test]
    fn the_order_of_queues_does_not_matter(
        case in case(known_demand()), rule in rule(), queues in queues(any_demand()), turn in 0_usize..5,
    ) {
        let mut turned = queues.clone();
        turned.rotate_left(turn % queues.len());
        prop_assert_eq!(outcome(&decided(&case, rule, &queues)), outcome(&decided(&case, rule, &turned)));
    }

    #[test]
    fn all_queues_together_are_as_one_with_all_their_jobs(
        case in case(known_demand()), queues in queues(known_demand()),
    ) {
        let add = |sum: Reading<u64>, more: &Reading<u64>| sum.map(|sum| sum.saturating_add(*more.known().expect("known")));
        let all = queues.iter().fold(None::<Demand>, |all, demand| Some(match all {
            None => demand.clone(),
            Some(all) => Demand { lag: add(all.lag, &demand.lag), pending: add(all.pending, &demand.pending), ..all },
        }));
        let mut one = case.clone();
        one.observation.demand = all.expect("there is one at least");
        prop_assert_eq!(outcome(&decided(&case, Combine::Sum, &queues)), outcome(&one.decide()));
    }

    #[test]
    fn the_longest_never_wants_more_than_all(case in case(known_demand()), queues in queues(known_demand())) {
        let [longest, all] = [Combine::Max, Combine::Sum].map(|rule| decided(&case, rule, &queues));
        prop_assert!(longest.target <= all.target, "{longest:?} {all:?}");
    }

    #[test]
    fn invariant_02_a_queue_that_cannot_be_read_lowers_nothing(
        case in case(known_demand()), rule in rule(), queues in queues(any_demand()), place in 0_usize..5,
    ) {
        let mut queues = queues;
        let place = place % queues.len();
        queues[place] = Demand::failed("timed out");
        let decision = decided(&case, rule, &queues);
        prop_assert!(decision.target >= decision.current.min(case.settings.max_workers), "{decision:?}");
        // What is known of the others still raises.
        queues.remove(place);
        if !queues.is_empty() {
            let others = decided(&case, rule, &queues);
            prop_assert!(others.action != Action::ScaleUp || decision.target >= others.target, "{decision:?} {others:?}");
        }
    }

    #[test]
    fn invariant_08_jobs_in_any_queue_get_a_worker_at_once(
        case in case(known_demand()), rule in rule(), queues in queues(any_demand()), place in 0_usize..5, lag in 1_u64..9,
    ) {
        let (mut case, mut queues) = (case, queues);
        case.history.start_failures = None;
        case.history.backend_failures = ByDirection::default();
        case.settings.activation_threshold = 1;
        case.observation.pool = Reading::Known(swarm::model::PoolCounts::default());
        prop_assume!(case.settings.max_workers >= 1);
        let place = place % queues.len();
        queues[place].lag = Reading::Known(lag);
        prop_assert_eq!(decided(&case, rule, &queues).action, Action::ScaleUp);
    }

    #[test]
    fn invariant_16_more_jobs_in_any_queue_never_lower_the_target(
        case in case(known_demand()), rule in rule(), queues in queues(any_demand()), place in 0_usize..5, more in jobs(),
    ) {
        let mut longer = queues.clone();
        let lag = &mut longer[place % queues.len()].lag;
        *lag = lag.clone().map(|lag| lag.saturating_add(more));
        let [before, after] = [&queues, &longer].map(|queues| decided(&case, rule, queues));
        prop_assert!(after.target >= before.target, "{before:?} {after:?}");
    }
}
