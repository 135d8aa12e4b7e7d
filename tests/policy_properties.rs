//! The invariants of the scaler that the pure core alone must keep, each test named after its number in
//! `docs/architecture.md`. The others (5, 7, 11 to 15) are about carrying decisions out, and are tested there.

#[path = "policy_properties/budget.rs"]
mod budget;
#[path = "policy_properties/cases.rs"]
mod cases;
#[path = "policy_properties/fallback.rs"]
mod fallback;
#[path = "policy_properties/learning.rs"]
mod learning;
#[path = "policy_properties/several.rs"]
mod several;
#[path = "policy_properties/world.rs"]
mod world;

use cases::{
    Case, Learned, NOW, any_demand, case, config, gappy_demand, jobs, known_demand, learned, past, steady_case, taught,
    unreadable,
};
use proptest::prelude::*;
use swarm::{
    config::Strategy as Scaling,
    model::{
        PoolCounts, Reading, Timestamp,
        snapshot::{Action, Change},
    },
    policy::{Backoff, ByDirection, Decision, Failures, History, Observation, Reason, decide},
};
use world::{SWEEP, World};

/// Whether workers that neither get ready nor leave hold the pool where it is: with them it is at twice its maximum, or
/// has too little room up to that for its minimum.
fn is_at_ceiling(decision: &Decision) -> bool {
    decision.reasons.iter().any(|reason| matches!(reason, Reason::Ceiling { .. }))
}

proptest! {
    #![proptest_config(config(2_000))]

    #[test]
    fn invariant_01_target_within_bounds(case in case(any_demand())) {
        let decision = case.decide();
        prop_assert!((case.settings.min_workers..=case.settings.max_workers).contains(&decision.floor), "{decision:?}");
        prop_assert!((decision.floor..=case.settings.max_workers).contains(&decision.target), "{decision:?}");
    }

    #[test]
    fn invariant_01_target_within_bounds_with_an_unreadable_pool(
        case in case(any_demand()), pool in unreadable()
    ) {
        let decision = Case { observation: Observation { pool, ..case.observation.clone() }, ..case.clone() }.decide();
        prop_assert!((decision.floor..=case.settings.max_workers).contains(&decision.target), "{decision:?}");
    }

    #[test]
    fn invariant_02_an_unreadable_depth_lowers_nothing_that_is_within_bounds(case in case(gappy_demand())) {
        let decision = case.decide();
        prop_assert!(decision.target >= decision.current.min(case.settings.max_workers), "{decision:?}");
    }

    #[test]
    fn invariant_02_an_unreadable_depth_still_allows_repairs(case in case(gappy_demand())) {
        let mut case = case;
        case.history.start_failures = None;
        case.history.backend_failures = ByDirection::default();
        let decision = case.decide();
        let repaired = decision.action != Action::Hold;
        let outside = !(decision.floor..=case.settings.max_workers).contains(&decision.current);
        prop_assert!(repaired || !outside || is_at_ceiling(&decision), "{decision:?}");
    }

    #[test]
    fn invariant_02_an_unreadable_pool_is_never_written_to(case in case(any_demand()), pool in unreadable()) {
        let decision = Case { observation: Observation { pool, ..case.observation }, ..case }.decide();
        prop_assert_eq!(decision.action, Action::Hold);
        prop_assert_eq!(decision.recheck_at, None);
    }

    #[test]
    fn invariant_03_a_scale_down_delays_no_scale_up(case in case(known_demand()), ago in past(90), from in 1_u32..25) {
        let mut quiet = case;
        quiet.history.last_change = None;
        let wanted = quiet.decide();
        let mut after_down = quiet.clone();
        after_down.history.last_change = Some(Change { at: ago, from, to: from - 1 });
        if wanted.action == Action::ScaleUp {
            let (limited, after_down) = (quiet.settings.max_step_up.is_some(), after_down.decide());
            // A limit on steps lets what was there come back.
            prop_assert!(after_down == wanted || (limited && after_down.target > wanted.target), "{after_down:?}");
        }
    }

    #[test]
    fn invariant_03_a_larger_target_is_not_held_by_an_earlier_smaller_one(
        case in case(known_demand()), at in past(90)
    ) {
        let mut quiet = case;
        prop_assume!(quiet.settings.strategy != Scaling::Step);
        quiet.settings.max_step_up = None;
        quiet.history.last_change = None;
        let wanted = quiet.decide();
        let mut after_up = quiet.clone();
        after_up.history.last_change = Some(Change { at, from: 0, to: wanted.current });
        if wanted.action == Action::ScaleUp {
            prop_assert_eq!(after_up.decide(), wanted);
        }
    }

    #[test]
    fn invariant_06_retries_never_ask_for_more(case in steady_case(known_demand()), tries in 1_u32..6) {
        let demand = case.observation.demand.clone();
        let mut world = World::new(&case);
        // Longer than all the tries: a step that a wait allows is no retry.
        world.settings.cooldown_seconds = 600;
        world.settings.step_period_seconds = 600;
        world.history.backend_failures = ByDirection::default();
        let first = world.look(&demand);
        // The first worker, here one of the spare ones, ends the activation threshold.
        let is_gated = first.reasons.iter().any(|reason| matches!(reason, Reason::BelowActivation { .. }));
        prop_assume!(first.action == Action::ScaleUp && !is_gated);
        for attempt in 0..tries {
            // The call fails half-way: sometimes a worker was started, the rest never.
            if attempt % 2 == 0 && world.counts.current() < first.target {
                let from = world.counts.current();
                world.counts.starting += 1;
                world.history.note_change(Change { at: world.now, from, to: from + 1 });
            }
            world.history.note_backend_failure(Action::ScaleUp, world.now, "timed out");
            let failures = world.history.backend_failures.up.as_ref().expect("one was just noted");
            world.now = failures.retry_at(Backoff::BACKEND);
            let retry = world.look(&demand);
            prop_assert!(retry.action != Action::ScaleDown && retry.target <= first.target, "{first:?} {retry:?}");
        }
    }

    #[test]
    fn invariant_10_a_restart_never_lowers(case in case(any_demand())) {
        let mut case = case;
        case.history.start_failures = None;
        case.history.backend_failures = ByDirection::default();
        let stayed = case.decide();
        let mut restarted = case.clone();
        restarted.history = History::resumed(NOW, case.history.last_change);
        let restarted = restarted.decide();
        // `latency` has to learn again. Until then it may recommend fewer workers, but none is let go for that.
        if case.settings.strategy != Scaling::Latency {
            prop_assert!(restarted.target >= stayed.target, "{stayed:?} {restarted:?}");
        }
        if case.settings.cooldown_seconds > 0 || !case.settings.stabilization_window().is_zero() {
            prop_assert!(restarted.target >= stayed.current.min(case.settings.max_workers), "{restarted:?}");
        }
    }

    #[test]
    fn invariant_16_more_waiting_never_lowers(case in case(known_demand()), more in jobs()) {
        let fewer = case.decide();
        let mut fuller = case;
        fuller.observation.demand.lag = fuller.observation.demand.lag.map(|lag| lag.saturating_add(more));
        let fuller = fuller.decide();
        prop_assert!(fuller.target >= fewer.target, "{fewer:?} {fuller:?}");
    }

    #[test]
    fn longer_or_more_jobs_never_want_fewer_workers(case in case(known_demand()), learned in learned(), more in 0_u64..9) {
        let Learned::Rates { job_millis, jobs_an_hour } = learned else { return Ok(()) };
        let mut calm = case;
        calm.settings.strategy = Scaling::Latency;
        let mut hard = calm.clone();
        calm.history.flow = taught(learned);
        hard.history.flow = taught(Learned::Rates {
            job_millis: job_millis * (1 + more % 3),
            jobs_an_hour: jobs_an_hour * (1 + more / 3),
        });
        let (calm, hard) = (calm.decide(), hard.decide());
        prop_assert!(hard.target >= calm.target, "{calm:?} {hard:?}");
    }

    #[test]
    fn spare_workers_are_idle_within_the_maximum(case in case(any_demand())) {
        let mut case = case;
        case.settings.strategy = Scaling::Backlog;
        case.settings.max_step_up = None;
        case.history.start_failures = None;
        case.history.backend_failures = ByDirection::default();
        let decision = case.decide();
        let wanted = case.counts().busy + case.settings.spare;
        prop_assert!(decision.target >= wanted.min(case.settings.max_workers), "{decision:?}");
        // And it asks for no more than those, whatever else is wanted.
        let mut without = case.clone();
        without.settings.spare = 0;
        let without = without.decide();
        let waiting = case.observation.demand.lag.known().copied().unwrap_or(0);
        let at_work = u32::try_from(u64::from(case.counts().busy).saturating_add(waiting)).unwrap_or(u32::MAX);
        let most = at_work.min(case.counts().ready) + case.settings.spare;
        prop_assert!(decision.target >= without.target, "{without:?} {decision:?}");
        prop_assert!(decision.target <= without.target.max(most), "{without:?} {decision:?}");
    }

    #[test]
    fn the_floor_is_the_same_until_it_looks_again(case in case(any_demand()), part in 1_u64..1_000) {
        let decision = case.decide();
        if let Some(at) = decision.recheck_at {
            let wait = u64::try_from(at.since(NOW).as_millis()).expect("it is not that long");
            for later in [NOW.0 + (wait - 1) * part / 1_000, at.0 - 1] {
                let floor = decide(&case.settings, &case.observation, &case.history, Timestamp(later)).floor;
                prop_assert_eq!(floor, decision.floor, "at {}", later);
            }
        }
    }

    #[test]
    fn a_schedule_only_raises(case in case(any_demand())) {
        let mut without = case.clone();
        without.settings.schedule.clear();
        let (with, without) = (case.decide(), without.decide());
        prop_assert!(with.target >= without.target, "{without:?} {with:?}");
        prop_assert!(with.floor >= without.floor);
        if with.floor == without.floor {
            prop_assert_eq!((with.target, with.action, &with.reasons), (without.target, without.action, &without.reasons));
        }
    }

    #[test]
    fn busy_workers_are_not_let_go_unless_above_max(case in case(any_demand())) {
        let decision = case.decide();
        let floor = case.counts().busy.min(case.settings.max_workers);
        prop_assert!(decision.action != Action::ScaleDown || decision.target >= floor, "{decision:?}");
    }

    #[test]
    fn failed_starts_hold_scale_ups_and_cause_no_scale_down(case in steady_case(any_demand()), count in 2_u32..20) {
        let mut healthy = case;
        healthy.history.start_failures = None;
        healthy.history.backend_failures = ByDirection::default();
        let mut failing = healthy.clone();
        failing.history.start_failures = Some(Failures { count, last_at: NOW, message: "exit code 1".into() });
        let (healthy, failing) = (healthy.decide(), failing.decide());
        if healthy.action == Action::ScaleUp {
            prop_assert_eq!(failing.action, Action::Hold);
            prop_assert!(failing.recheck_at >= Some(NOW.after(Backoff::START.wait(count))));
        } else {
            prop_assert_eq!(failing, healthy);
        }
    }

    #[test]
    fn a_failing_backend_is_left_alone_until_its_retry(case in case(any_demand()), count in 1_u32..20) {
        let mut failing = case;
        let failures = Some(Failures { count, last_at: NOW, message: "refused".into() });
        failing.history.backend_failures = ByDirection { up: failures.clone(), down: failures };
        prop_assert_eq!(failing.decide().action, Action::Hold);
    }

    #[test]
    fn a_refused_scale_in_never_delays_a_scale_out(case in case(any_demand()), count in 1_u32..20) {
        let mut healthy = case;
        healthy.history.backend_failures = ByDirection::default();
        let mut failing = healthy.clone();
        failing.history.backend_failures.down = Some(Failures { count, last_at: NOW, message: "refused".into() });
        let (healthy, failing) = (healthy.decide(), failing.decide());
        prop_assert!(failing.action != Action::ScaleDown);
        if healthy.action != Action::ScaleDown {
            prop_assert_eq!(failing, healthy);
        }
    }

    #[test]
    fn possibly_busy_workers_never_raise_a_target_and_are_never_let_go(
        case in case(any_demand()), from_idle in 0_u32..30, from_busy in 0_u32..30,
    ) {
        let mut unheard = case.clone();
        let counts = case.counts();
        let from_busy = from_busy.min(counts.busy);
        let from_idle = from_idle.min(counts.ready - counts.busy);
        let possibly_busy = from_idle + from_busy;
        let busy = counts.busy - from_busy;
        unheard.observation.pool = Reading::Known(PoolCounts { busy, possibly_busy, ..counts });
        let (heard, unheard) = (case.decide(), unheard.decide());
        prop_assert!(
            unheard.action != Action::ScaleUp || (heard.action == Action::ScaleUp && unheard.target <= heard.target),
            "{heard:?} {unheard:?}"
        );
        let floor = (busy + possibly_busy).min(case.settings.max_workers);
        prop_assert!(unheard.action != Action::ScaleDown || unheard.target >= floor, "{unheard:?}");
    }

    #[test]
    fn every_decision_explains_itself(case in case(any_demand())) {
        let decision = case.decide();
        prop_assert!(!decision.reasons.is_empty());
        prop_assert!(decision.recheck_at.is_none_or(|at| at > NOW), "a recheck that is due already spins: {decision:?}");
        let target_differs = decision.target != decision.current;
        let held = decision.reasons.iter().any(|reason| {
            matches!(reason, Reason::StartBackoff { .. } | Reason::BackendBackoff { .. } | Reason::Ceiling { .. })
        });
        prop_assert_eq!(target_differs && !held, decision.action != Action::Hold);
    }
}

proptest! {
    // Each case runs tens of evaluations.
    #![proptest_config(config(500))]

    #[test]
    fn invariant_04_doubled_and_reordered_evaluations_end_at_the_same_target(
        case in steady_case(known_demand()), noise in proptest::collection::vec((0_u64..5_000, any::<bool>()), 0..30)
    ) {
        let demand = case.observation.demand.clone();
        let mut calm = World::new(&case);
        let mut noisy = World::new(&case);
        for (millis, doubled) in noise {
            noisy.now = Timestamp(noisy.now.0 + millis);
            noisy.evaluate(&demand);
            if doubled {
                noisy.evaluate(&demand);
            }
        }
        prop_assert_eq!(calm.settle(&demand).target, noisy.settle(&demand).target);
    }

    #[test]
    fn no_period_sees_more_added_or_let_go_than_allowed(
        case in steady_case(known_demand()), demands in proptest::collection::vec((known_demand(), 0_u64..40_000), 1..40)
    ) {
        let mut world = World::new(&case);
        let period = world.settings.step_period();
        let mut changes: Vec<(Timestamp, Decision)> = Vec::new();
        for (demand, millis) in demands {
            world.now = Timestamp(world.now.0 + millis);
            let decision = world.evaluate(&demand);
            if decision.action != Action::Hold {
                changes.push((world.now, decision));
            }
        }
        let mut had = case.history.last_change.map_or(0, |change| change.to);
        for (at, last) in &changes {
            // A repair goes to the bound, to the first worker, or to as many as there were, and no further.
            let bound = last.current.clamp(last.floor, world.settings.max_workers);
            let is_repair = last.target == bound || (bound == 0 && last.target == 1) || last.target <= had;
            had = last.target;
            let within = changes.iter().filter(|(then, _)| *then <= *at && then.after(period) > *at);
            let same_way = within.filter(|(_, change)| change.action == last.action);
            let moved: u32 = same_way.map(|(_, change)| change.target.abs_diff(change.current)).sum();
            let most = match last.action {
                Action::ScaleUp => world.settings.max_step_up,
                _ => world.settings.max_step_down,
            };
            prop_assert!(is_repair || most.is_none_or(|most| moved <= most), "{moved} within {period:?}: {last:?}");
        }
    }

    #[test]
    fn invariant_08_work_gets_a_worker(case in steady_case(any_demand())) {
        let demand = case.observation.demand.clone();
        let seen = demand.lag.known().unwrap_or(&0).saturating_add(*demand.pending.known().unwrap_or(&0));
        prop_assume!(case.settings.max_workers >= 1 && seen >= case.settings.activation_threshold);
        let settled = World::new(&case).settle(&demand);
        prop_assert!(settled.current >= 1 || is_at_ceiling(&settled), "{settled:?}");
    }

    #[test]
    fn invariant_08_an_empty_pool_does_not_wait(case in case(known_demand())) {
        let mut case = case;
        case.history.start_failures = None;
        case.history.backend_failures = ByDirection::default();
        case.observation.pool = Reading::Known(PoolCounts::default());
        let depth = *case.observation.demand.depth().known().expect("made known");
        prop_assume!(case.settings.max_workers >= 1 && depth >= case.settings.activation_threshold);
        prop_assert_eq!(case.decide().action, Action::ScaleUp);
    }

    #[test]
    fn invariant_09_constant_input_ends_in_silence(case in steady_case(any_demand())) {
        let demand = case.observation.demand.clone();
        let mut world = World::new(&case);
        let settled = world.settle(&demand);
        prop_assert!(settled.target == settled.current || is_at_ceiling(&settled), "{:?}", settled);
        let written = world.writes;
        for _ in 0..20 {
            world.now = world.now.after(SWEEP);
            world.evaluate(&demand);
        }
        prop_assert_eq!(world.writes, written, "{:?}", settled);
    }
}
