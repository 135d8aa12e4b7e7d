//! The invariants of the scaler that the pure core alone must keep, each test named after its number in
//! `docs/architecture.md`. The others (5, 7, 11 to 15) are about carrying decisions out, and are tested there.

use std::time::Duration;

use proptest::prelude::*;
use swarm::{
    config::{ScalingSettings, ScheduleWindow, Strategy as Scaling},
    model::{
        Counters, Demand, PoolCounts, Reading, Timestamp,
        snapshot::{Action, Change},
    },
    policy::{Backoff, Decision, Failures, Flow, History, Observation, Reason, decide},
};

/// Late enough that everything in a generated past is after the epoch.
const NOW: Timestamp = Timestamp(1_000_000_000);
const SECOND: u64 = 1_000;
const SWEEP: Duration = Duration::from_secs(30);
/// No rule holds anything for longer.
const LONGEST_HOLD: Duration = Duration::from_secs(700);

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

/// Settings whose schedule opens and closes windows.
fn settings() -> impl Strategy<Value = ScalingSettings> {
    (steady_settings(), 0_usize..3).prop_flat_map(|(settings, windows)| {
        let window = window(settings.max_workers, prop_oneof![passing_times(), lasting_times()].boxed());
        proptest::collection::vec(window, windows)
            .prop_map(move |schedule| ScalingSettings { schedule, ..settings.clone() })
    })
}

/// Settings whose schedule, if any, is the same for the next hour.
fn steady_settings() -> impl Strategy<Value = ScalingSettings> {
    let strategy =
        prop_oneof![Just(Scaling::Threshold), Just(Scaling::Step), Just(Scaling::Backlog), Just(Scaling::Latency)];
    let bounds = (0_u32..12).prop_flat_map(|min| (Just(min), min..20));
    let thresholds = (1_u64..12).prop_flat_map(|up| (Just(up), 0..up));
    let cooldown = prop_oneof![1 => Just(0_u64), 4 => 0_u64..90];
    let rest = (cooldown, 1_u64..4, 1_u32..5, 1_u64..8, prop::option::of(0_u64..90));
    let limit = || prop::option::weighted(0.3, 1_u32..6);
    let limits = (limit(), limit(), 1_u64..90, prop_oneof![2 => Just(0_u32), 1 => 0_u32..5], 1_u64..60);
    let settings = (strategy, bounds, thresholds, rest, limits).prop_map(
        |(strategy, (min_workers, max_workers), (up, down), rest, (step_up, step_down, period, spare, wait))| {
            let (cooldown, activation, step, each, window) = rest;
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
                max_step_up: step_up,
                max_step_down: step_down,
                step_period_seconds: period,
                spare,
                target_wait_seconds: wait,
                ..ScalingSettings::default()
            }
        },
    );
    settings.prop_flat_map(|settings| {
        let windows = proptest::collection::vec(window(settings.max_workers, lasting_times().boxed()), 0..2);
        windows.prop_map(move |schedule| ScalingSettings { schedule, ..settings.clone() })
    })
}

fn window(
    max_workers: u32,
    times: BoxedStrategy<(&'static str, &'static str)>,
) -> impl Strategy<Value = ScheduleWindow> {
    (times, 0..=max_workers).prop_map(|((start, duration), min_workers)| ScheduleWindow {
        start: start.into(),
        duration: Some(duration.into()),
        time_zone: "Europe/Berlin".into(),
        min_workers,
        ..ScheduleWindow::default()
    })
}

/// Windows that open or close around [`NOW`], which is 14:46:40 in Berlin.
fn passing_times() -> impl Strategy<Value = (&'static str, &'static str)> {
    let start = prop_oneof![
        Just("40 46 14 * * *"),
        Just("41 46 14 * * *"),
        Just("46 14 * * *"),
        Just("*/7 * * * *"),
        Just("0 14 * * *"),
        Just("0 15 * * MON"),
    ];
    (start, prop_oneof![Just("1s"), Just("40s"), Just("46m 40s"), Just("3h")])
}

/// Always, and once in some years.
fn lasting_times() -> impl Strategy<Value = (&'static str, &'static str)> {
    prop_oneof![Just(("* * * * *", "3h")), Just(("0 0 29 2 *", "1h"))]
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

/// Nothing, too little, or a time for a job and a number of jobs a second.
#[derive(Clone, Copy, Debug)]
enum Learned {
    Nothing,
    Uncounted,
    Rates { job_millis: u64, jobs_an_hour: u64 },
}

fn learned() -> impl Strategy<Value = Learned> {
    let rates = (1_u64..200_000, 0_u64..40_000);
    prop_oneof![
        1 => Just(Learned::Nothing),
        1 => Just(Learned::Uncounted),
        4 => rates.prop_map(|(job_millis, jobs_an_hour)| Learned::Rates { job_millis, jobs_an_hour }),
    ]
}

/// Ten looks an hour apart at ten workers behind a queue that never empties.
fn teach(history: &mut History, learned: Learned) {
    const HOUR: u64 = 3_600_000;
    const QUEUE: u64 = 1 << 50;
    let settings = ScalingSettings { strategy: Scaling::Latency, ..ScalingSettings::default() };
    let mut look = |hour: u64, counters: Counters, lag: u64| {
        let pool = Reading::Known(PoolCounts { ready: 10, busy: 10, ..PoolCounts::default() });
        let observation = Observation { demand: demand(Reading::Known(lag), Reading::Known(10)), pool };
        history.note_flow(&settings, Timestamp(NOW.0 - (10 - hour) * HOUR), &observation, counters);
    };
    match learned {
        Learned::Nothing => {}
        Learned::Uncounted => look(9, Counters::default(), 0),
        Learned::Rates { job_millis, jobs_an_hour } => (0..10).for_each(|hour| {
            let (added, read) = (QUEUE + hour * jobs_an_hour, hour * 10 * HOUR / job_millis + 10);
            look(hour, Counters { added: Some(added), read: Some(read) }, added - read);
        }),
    }
}

fn taught(learned: Learned) -> Flow {
    let mut history = History::new(NOW);
    teach(&mut history, learned);
    history.flow
}

fn history() -> impl Strategy<Value = History> {
    let wishes = proptest::collection::vec((past(150), 0_u32..30), 0..6);
    let changes = proptest::collection::vec((past(150), 0_u32..25, 0_u32..25), 0..4);
    (past(300), changes, wishes, failures(), failures(), learned()).prop_map(
        |(started_at, mut changes, wishes, start_failures, backend_failures, learned)| {
            let mut history =
                History { wishes: wishes.into(), start_failures, backend_failures, ..History::new(started_at) };
            changes.sort_unstable();
            changes.into_iter().for_each(|(at, from, to)| history.note_change(Change { at, from, to }));
            teach(&mut history, learned);
            history
        },
    )
}

fn case(demand: impl Strategy<Value = Demand>) -> impl Strategy<Value = Case> {
    case_of(settings(), demand)
}

/// For a [`World`], which goes on for a while.
fn steady_case(demand: impl Strategy<Value = Demand>) -> impl Strategy<Value = Case> {
    case_of(steady_settings(), demand)
}

fn case_of(
    settings: impl Strategy<Value = ScalingSettings>,
    demand: impl Strategy<Value = Demand>,
) -> impl Strategy<Value = Case> {
    (settings, demand, counts(), history()).prop_map(|(settings, demand, counts, history)| Case {
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

    /// Evaluates at each recheck, and at sweeps between, until a hold says that only a new observation can change it, or the
    /// schedule after a long time.
    fn settle(&mut self, demand: &Demand) -> Decision {
        // The past reaches 400 s, and a pool of 30 takes at most 30 steps with waits of up to 90 s.
        for _ in 0..1_000 {
            let decision = self.evaluate(demand);
            let sweep = self.now.after(SWEEP);
            let settled = decision.recheck_at.is_none_or(|at| at.since(self.now) > LONGEST_HOLD);
            if settled && decision.action == Action::Hold {
                return decision;
            }
            self.now = decision.recheck_at.map_or(sweep, |at| at.min(sweep));
        }
        panic!("still not settled: {:?}", self.look(demand));
    }
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
        case.history.backend_failures = None;
        let decision = case.decide();
        let repaired = decision.action != Action::Hold;
        let outside = !(decision.floor..=case.settings.max_workers).contains(&decision.current);
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
        // What `latency` learned is learned anew; until then it may want fewer, and nobody is let go for that.
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
        case.history.backend_failures = None;
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
        for (at, last) in &changes {
            // A repair goes to the bound, or to the first worker, and no further.
            let bound = last.current.clamp(last.floor, world.settings.max_workers);
            let is_repair = last.target == bound || (bound == 0 && last.target == 1);
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
    fn invariant_09_constant_input_ends_in_silence(case in steady_case(any_demand())) {
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

/// A queue in which everything takes its time: when each job comes, is begun and is finished, in milliseconds.
struct Flowing {
    workers: u32,
    came: Vec<u64>,
    begun: Vec<u64>,
    finished: Vec<u64>,
}

impl Flowing {
    fn new(workers: u32, job_millis: u64, every_millis: u64, until: u64) -> Self {
        let came: Vec<u64> = (1..=until / every_millis).map(|job| job * every_millis).collect();
        let mut free_at = vec![0; workers as usize];
        let begun = came.iter().map(|came| {
            let worker = free_at.iter_mut().min().expect("there is one");
            let begun = (*worker).max(*came);
            *worker = begun + job_millis;
            begun
        });
        let begun: Vec<u64> = begun.collect();
        let finished = begun.iter().map(|begun| begun + job_millis).collect();
        Self { workers, came, begun, finished }
    }

    fn look(&self, settings: &ScalingSettings, history: &mut History, millis: u64) {
        let until = |times: &[u64]| times.partition_point(|time| *time <= millis) as u64;
        let (came, begun, finished) = (until(&self.came), until(&self.begun), until(&self.finished));
        let demand = demand(Reading::Known(came - begun), Reading::Known(begun - finished));
        let busy = u32::try_from(begun - finished).expect("no more than there are workers");
        let counts = PoolCounts { ready: self.workers, busy, ..PoolCounts::default() };
        let observation = Observation { demand, pool: Reading::Known(counts) };
        let counters = Counters { added: Some(came), read: Some(begun) };
        history.note_flow(settings, Timestamp(NOW.0 + millis), &observation, counters);
    }
}

fn learned_rates(history: &History, settings: &ScalingSettings) -> Option<(f64, f64)> {
    let pool = Reading::Known(PoolCounts { ready: 1, ..PoolCounts::default() });
    let observation = Observation { demand: demand(Reading::Known(1), Reading::Known(0)), pool };
    let decision = decide(settings, &observation, history, Timestamp(NOW.0 + 600_000));
    decision.reasons.iter().find_map(|reason| match reason {
        Reason::Latency { job, arriving, .. } => {
            let arriving = f64::from(u32::try_from(*arriving).expect("few jobs a second"));
            Some((job.as_secs_f64(), arriving / 1e3))
        }
        _ => None,
    })
}

proptest! {
    #![proptest_config(config(200))]

    #[test]
    fn latency_learns_what_a_steady_queue_does_however_irregular_the_looks(
        job_millis in 200_u64..8_000,
        every_millis in 200_u64..4_000,
        workers in 1_u32..12,
        pauses in proptest::collection::vec(20_u64..1_500, 200..300),
    ) {
        let settings = ScalingSettings { strategy: Scaling::Latency, ..ScalingSettings::default() };
        let flowing = Flowing::new(workers, job_millis, every_millis, pauses.iter().sum());
        let mut history = History::new(NOW);
        let mut millis = 0;
        for pause in pauses {
            millis += pause;
            flowing.look(&settings, &mut history, millis);
        }
        let (job, arriving) = learned_rates(&history, &settings).expect("enough has finished");
        let (true_job, true_rate) = (job_millis as f64 / 1e3, 1e3 / every_millis as f64);
        // Looks are up to 1.5 s apart, so the time of a job that nobody waits for is known to about half of that.
        prop_assert!((job - true_job).abs() <= 0.75 + 0.15 * true_job, "{job} s a job, truly {true_job}");
        prop_assert!((arriving - true_rate).abs() <= 0.1 + 0.25 * true_rate, "{arriving} jobs/s, truly {true_rate}");
    }

    #[test]
    fn latency_survives_counters_that_jump_vanish_and_go_back(
        case in steady_case(known_demand()),
        looks in proptest::collection::vec(
            (0_u64..100_000, prop::option::of(any::<u64>()), prop::option::of(any::<u64>()), known_demand(), counts()),
            0..40,
        ),
    ) {
        let mut case = case;
        case.settings.strategy = Scaling::Latency;
        let mut now = NOW;
        for (pause, added, read, demand, counts) in looks {
            now = Timestamp(now.0 + pause);
            let observation = Observation { demand, pool: Reading::Known(counts) };
            case.history.note_flow(&case.settings, now, &observation, Counters { added, read });
            let decision = decide(&case.settings, &observation, &case.history, now);
            let bounds = decision.floor..=case.settings.max_workers;
            prop_assert!(bounds.contains(&decision.target), "{decision:?}");
            let told = decision.headline();
            prop_assert!(!told.contains("NaN") && !told.contains("inf"), "{told}");
        }
    }
}
