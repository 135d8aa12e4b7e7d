//! What a budget may change: it starts nobody beyond what it leaves, and stops no busy worker.

use proptest::prelude::*;
use swarm::{
    model::{Allowance, Reading, snapshot::Action},
    policy::{Decision, Observation, Reason},
};

use super::cases::{Case, any_demand, case, config};

fn with(case: &Case, workers: Option<u32>) -> Decision {
    let allowance = workers.map(|workers| Allowance { workers, total: workers, ..Allowance::default() });
    Case { observation: Observation { allowance, ..case.observation.clone() }, ..case.clone() }.decide()
}

proptest! {
    #![proptest_config(config(2_000))]

    #[test]
    fn a_budget_starts_nobody_beyond_it_and_stops_nobody_who_is_busy(case in case(any_demand()), left in 0_u32..20) {
        let decision = with(&case, Some(left));
        if decision.action == Action::ScaleUp {
            prop_assert!(decision.target <= left, "{decision:?}");
        }
        let Reading::Known(counts) = case.observation.pool else { return Ok(()) };
        if decision.action == Action::ScaleDown {
            let at_work = counts.busy.saturating_add(counts.possibly_busy);
            prop_assert!(decision.target >= at_work.min(case.settings.max_workers), "{decision:?}");
        }
    }

    #[test]
    fn a_budget_never_raises_and_is_not_felt_where_it_suffices(case in case(any_demand()), left in 0_u32..40) {
        let (free, decision) = (with(&case, None), with(&case, Some(left)));
        prop_assert!(decision.target <= free.target.max(decision.current), "{free:?} {decision:?}");
        if left >= case.settings.max_workers {
            prop_assert_eq!(&decision, &free);
        }
        let is_told = decision.reasons.iter().any(|reason| matches!(reason, Reason::Budget(_)));
        prop_assert!(is_told || decision == free, "{free:?} {decision:?}");
    }
}
