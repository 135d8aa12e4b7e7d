//! The invariants of the scaler that the pure core alone must keep, each test named after its number in
//! `docs/architecture.md`. The others (5, 7, 11 to 15) are about carrying decisions out, and are tested there.

use std::time::Duration;

use proptest::prelude::*;
use swarm::{
    config::{ScalingSettings, Strategy as Scaling},
    model::{
        Demand, PoolCounts, Reading, Timestamp,
        snapshot::{Action, Change},
    },
    policy::{Backoff, Decision, Failures, History, Observation, Reason, decide},
};

/// Late enough that everything in a generated past is after the epoch.
const NOW: Timestamp = Timestamp(1_000_000_000);
const SECOND: u64 = 1_000;
const SWEEP: Duration = Duration::from_secs(30);

/// A case that failed is printed whole and belongs in a decision table, not in a file of seeds.
fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, max_global_rejects: 50_000, ..ProptestConfig::default() }
}

/// Everything that `decide` takes.
#[derive(Clone, Debug)]
struct Case {
    settings: ScalingSettings,
    observation: Observation,
    history: History,
}

impl Case {
    fn decide(&self) -> Decision {
        decide(&self.settings, &self.observation, &self.history, NOW)
    }

    fn counts(&self) -> PoolCounts {
        *self.observation.pool.known().expect("the case was made with a known pool")
    }
}

fn settings() -> impl Strategy<Value = ScalingSettings> {
    let strategy = prop_oneof![Just(Scaling::Threshold), Just(Scaling::Step), Just(Scaling::Backlog)];
    let bounds = (0_u32..12).prop_flat_map(|min| (Just(min), min..20));
    let thresholds = (1_u64..12).prop_flat_map(|up| (Just(up), 0..up));
    let cooldown = prop_oneof![1 => Just(0_u64), 4 => 0_u64..90];
    let rest = (cooldown, 1_u64..4, 1_u32..5, 1_u64..8, 0_u64..90);
    (strategy, bounds, thresholds, rest).prop_map(
        |(strategy, (min_workers, max_workers), (up, down), (cooldown, activation, step, each, window))| {
            ScalingSettings {
                strategy,
                min_workers,
                max_workers,
                scale_up_threshold: up,
                scale_down_threshold: down,
                cooldown_seconds: cooldown,
                activation_threshold: activation,
                step,
                jobs_per_worker: each,
                stabilization_window_seconds: window,
                ..ScalingSettings::default()
            }
        },
    )
}

/// Mostly small, sometimes none, sometimes absurd.
fn jobs() -> impl Strategy<Value = u64> {
    prop_oneof![2 => 0_u64..4, 6 => 0_u64..120, 1 => any::<u64>()]
}

fn unreadable<T: Clone + std::fmt::Debug + 'static>() -> impl Strategy<Value = Reading<T>> {
    prop_oneof![Just(Reading::Unknown("lag is nil".to_owned())), Just(Reading::Failed("timed out".to_owned()))]
}

fn demand(lag: Reading<u64>, pending: Reading<u64>) -> Demand {
    Demand { lag, pending, oldest: Reading::Unknown("not looked at".to_owned()) }
}

fn known_demand() -> impl Strategy<Value = Demand> {
    (jobs(), jobs()).prop_map(|(lag, pending)| demand(Reading::Known(lag), Reading::Known(pending)))
}

fn gappy_demand() -> impl Strategy<Value = Demand> {
    prop_oneof![
        (unreadable(), unreadable()).prop_map(|(lag, pending)| demand(lag, pending)),
        (jobs(), unreadable()).prop_map(|(lag, pending)| demand(Reading::Known(lag), pending)),
        (unreadable(), jobs()).prop_map(|(lag, pending)| demand(lag, Reading::Known(pending))),
    ]
}

fn counts() -> impl Strategy<Value = PoolCounts> {
    (0_u32..25, 0_u32..6, 0_u32..3, 0_u32..3).prop_flat_map(|(ready, starting, stalled, draining)| {
        (0..=ready).prop_map(move |busy| PoolCounts { ready, starting, stalled, busy, draining })
    })
}

fn past(within_seconds: u64) -> impl Strategy<Value = Timestamp> {
    (0..within_seconds * SECOND).prop_map(|ago| Timestamp(NOW.0 - ago))
}

fn failures() -> impl Strategy<Value = Option<Failures>> {
    let some = (1_u32..14, past(400)).prop_map(|(count, last_at)| Failures { count, last_at, message: "no".into() });
    prop_oneof![3 => Just(None), 1 => some.prop_map(Some)]
}

fn change() -> impl Strategy<Value = Option<Change>> {
    let some = (past(150), 0_u32..25, 0_u32..25).prop_map(|(at, from, to)| Change { at, from, to });
    prop_oneof![1 => Just(None), 3 => some.prop_map(Some)]
}

fn history() -> impl Strategy<Value = History> {
    let wishes = proptest::collection::vec((past(150), 0_u32..30), 0..6);
    (past(300), change(), wishes, failures(), failures()).prop_map(
        |(started_at, last_change, wishes, start_failures, backend_failures)| History {
            started_at,
            last_change,
            wishes: wishes.into(),
            start_failures,
            backend_failures,
        },
    )
}

fn case(demand: impl Strategy<Value = Demand>) -> impl Strategy<Value = Case> {
    (settings(), demand, counts(), history()).prop_map(|(settings, demand, counts, history)| Case {
        settings,
        observation: Observation { demand, pool: Reading::Known(counts) },
        history,
    })
}

fn any_demand() -> impl Strategy<Value = Demand> {
    prop_oneof![3 => known_demand(), 1 => gappy_demand()]
}

/// A pool that obeys decisions, in a time that jumps from one evaluation to the next.
struct World {
    settings: ScalingSettings,
    history: History,
    now: Timestamp,
    counts: PoolCounts,
    writes: u32,
}

impl World {
    fn new(case: &Case) -> Self {
        Self {
            settings: case.settings.clone(),
            history: case.history.clone(),
            now: NOW,
            counts: case.counts(),
            writes: 0,
        }
    }

    /// Observes, decides, and carries the decision out at once.
    fn evaluate(&mut self, demand: &Demand) -> Decision {
        let decision = self.look(demand);
        if decision.action != Action::Hold {
            self.writes += 1;
            self.history.note_change(Change { at: self.now, from: decision.current, to: decision.target });
            self.counts.ready = decision.target;
            self.counts.starting = 0;
            self.counts.busy = self.counts.busy.min(decision.target);
        }
        decision
    }

    /// Observes and decides, as when nothing could be carried out.
    fn look(&mut self, demand: &Demand) -> Decision {
        let observation = Observation { demand: demand.clone(), pool: Reading::Known(self.counts) };
        let decision = decide(&self.settings, &observation, &self.history, self.now);
        if let Some(wish) = decision.wish {
            self.history.note_wish(&self.settings, self.now, wish);
        }
        decision
    }

    /// Evaluates at each recheck, and at sweeps between, until a hold says that only a new observation can change it.
    fn settle(&mut self, demand: &Demand) -> Decision {
        // The past reaches 400 s, and a pool of 30 takes at most 30 steps with a cooldown of up to 90 s.
        for _ in 0..250 {
            let decision = self.evaluate(demand);
            let sweep = self.now.after(SWEEP);
            match decision.recheck_at {
                None if decision.action == Action::Hold => return decision,
                recheck_at => self.now = recheck_at.map_or(sweep, |at| at.min(sweep)),
            }
        }
        panic!("still not settled: {:?}", self.look(demand));
    }
}

proptest! {
    #![proptest_config(config(2_000))]

    #[test]
    fn invariant_01_target_within_bounds(case in case(any_demand())) {
        let decision = case.decide();
        prop_assert!((case.settings.min_workers..=case.settings.max_workers).contains(&decision.target), "{decision:?}");
    }

    #[test]
    fn invariant_01_target_within_bounds_with_an_unreadable_pool(
        case in case(any_demand()), pool in unreadable()
    ) {
        let decision = Case { observation: Observation { pool, ..case.observation.clone() }, ..case.clone() }.decide();
        prop_assert!((case.settings.min_workers..=case.settings.max_workers).contains(&decision.target), "{decision:?}");
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
        case.history.backend_failures = None;
        let decision = case.decide();
        let repaired = decision.action != Action::Hold;
        let outside = !(case.settings.min_workers..=case.settings.max_workers).contains(&decision.current);
        prop_assert!(repaired || !outside, "{decision:?}");
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
            prop_assert_eq!(after_down.decide(), wanted);
        }
    }

    #[test]
    fn invariant_03_a_larger_target_is_not_held_by_an_earlier_smaller_one(
        case in case(known_demand()), at in past(90)
    ) {
        let mut quiet = case;
        prop_assume!(quiet.settings.strategy != Scaling::Step);
        quiet.history.last_change = None;
        let wanted = quiet.decide();
        let mut after_up = quiet.clone();
        after_up.history.last_change = Some(Change { at, from: 0, to: wanted.current });
        if wanted.action == Action::ScaleUp {
            prop_assert_eq!(after_up.decide(), wanted);
        }
    }

    #[test]
    fn invariant_06_retries_never_ask_for_more(case in case(known_demand()), tries in 1_u32..6) {
        let demand = case.observation.demand.clone();
        let mut world = World::new(&case);
        // Longer than all the tries: a step that the cooldown allows is no retry.
        world.settings.cooldown_seconds = 600;
        world.history.backend_failures = None;
        let first = world.look(&demand);
        prop_assume!(first.action == Action::ScaleUp);
        for attempt in 0..tries {
            // The call fails half-way: sometimes a worker was started, the rest never.
            if attempt % 2 == 0 && world.counts.current() < first.target {
                let from = world.counts.current();
                world.counts.starting += 1;
                world.history.note_change(Change { at: world.now, from, to: from + 1 });
            }
            world.history.note_backend_failure(world.now, "timed out");
            let failures = world.history.backend_failures.as_ref().expect("one was just noted");
            world.now = failures.retry_at(Backoff::BACKEND);
            let retry = world.look(&demand);
            prop_assert!(retry.action != Action::ScaleDown && retry.target <= first.target, "{first:?} {retry:?}");
        }
    }

    #[test]
    fn invariant_10_a_restart_never_lowers(case in case(any_demand())) {
        let mut case = case;
        case.history.start_failures = None;
        case.history.backend_failures = None;
        let stayed = case.decide();
        let mut restarted = case.clone();
        restarted.history = History::resumed(NOW, case.history.last_change);
        let restarted = restarted.decide();
        prop_assert!(restarted.target >= stayed.target, "{stayed:?} {restarted:?}");
        if case.settings.cooldown_seconds > 0 {
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
    fn busy_workers_are_not_let_go_unless_above_max(case in case(any_demand())) {
        let decision = case.decide();
        let floor = case.counts().busy.min(case.settings.max_workers);
        prop_assert!(decision.action != Action::ScaleDown || decision.target >= floor, "{decision:?}");
    }

    #[test]
    fn failed_starts_hold_scale_ups_and_cause_no_scale_down(case in case(any_demand()), count in 2_u32..20) {
        let mut healthy = case;
        healthy.history.start_failures = None;
        healthy.history.backend_failures = None;
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
        failing.history.backend_failures = Some(Failures { count, last_at: NOW, message: "refused".into() });
        prop_assert_eq!(failing.decide().action, Action::Hold);
    }

    #[test]
    fn every_decision_explains_itself(case in case(any_demand())) {
        let decision = case.decide();
        prop_assert!(!decision.reasons.is_empty());
        prop_assert!(decision.recheck_at.is_none_or(|at| at > NOW), "a recheck that is due already spins: {decision:?}");
        let target_differs = decision.target != decision.current;
        let held = decision.reasons.iter().any(|reason| {
            matches!(reason, Reason::StartBackoff { .. } | Reason::BackendBackoff { .. })
        });
        prop_assert_eq!(target_differs && !held, decision.action != Action::Hold);
    }
}

proptest! {
    // Each case runs tens of evaluations.
    #![proptest_config(config(500))]

    #[test]
    fn invariant_04_doubled_and_reordered_evaluations_end_at_the_same_target(
        case in case(known_demand()), noise in proptest::collection::vec((0_u64..5_000, any::<bool>()), 0..30)
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
    fn invariant_08_work_gets_a_worker(case in case(any_demand())) {
        let demand = case.observation.demand.clone();
        let seen = demand.lag.known().unwrap_or(&0).saturating_add(*demand.pending.known().unwrap_or(&0));
        prop_assume!(case.settings.max_workers >= 1 && seen >= case.settings.activation_threshold);
        let settled = World::new(&case).settle(&demand);
        prop_assert!(settled.current >= 1, "{settled:?}");
    }

    #[test]
    fn invariant_08_an_empty_pool_does_not_wait(case in case(known_demand())) {
        let mut case = case;
        case.history.start_failures = None;
        case.history.backend_failures = None;
        case.observation.pool = Reading::Known(PoolCounts::default());
        let depth = *case.observation.demand.depth().known().expect("made known");
        prop_assume!(case.settings.max_workers >= 1 && depth >= case.settings.activation_threshold);
        prop_assert_eq!(case.decide().action, Action::ScaleUp);
    }

    #[test]
    fn invariant_09_constant_input_ends_in_silence(case in case(any_demand())) {
        let demand = case.observation.demand.clone();
        let mut world = World::new(&case);
        let settled = world.settle(&demand);
        prop_assert_eq!(settled.target, settled.current);
        let written = world.writes;
        for _ in 0..20 {
            world.now = world.now.after(SWEEP);
            world.evaluate(&demand);
        }
        prop_assert_eq!(world.writes, written, "{:?}", settled);
    }
}
