//! Tests of the search with real simulations of small recordings.

use proptest::prelude::*;

use super::*;
use crate::{
    config::{ScalerSettings, WorkerSettings, WorkerTypeSettings},
    model::{Timestamp, WorkerType},
    simulation::{SimTime, Times, TraceJob, simulate},
};

/// Monday 2026-01-05T00:00:00Z.
const MONDAY: Timestamp = Timestamp(1_767_571_200_000);

fn input(scaling: ScalingSettings, concurrency: u32, trace: Trace) -> SuggestionInput {
    let worker = WorkerSettings { concurrency, ..WorkerSettings::default() };
    let setup = Setup {
        worker_type: WorkerType::new("mail"),
        initial: scaling.min_workers,
        settings: WorkerTypeSettings { scaling, worker: worker.into(), ..WorkerTypeSettings::default() },
        // Few sweeps, so that many days are simulated quickly.
        scaler: ScalerSettings { sweep_interval_seconds: 900, ..ScalerSettings::default() },
        startup: Times::Fixed(Duration::from_secs(10)),
        tail: Duration::from_secs(600),
        seed: 1,
    };
    SuggestionInput { setup, trace, has_clock: true, initial_is_fixed: false }
}

fn search(input: &SuggestionInput) -> Suggestion {
    let run = |_, setups: &[Setup], trace: &Trace| {
        Ok::<_, ()>(setups.iter().map(|setup| Outcome::from(&simulate(setup, trace, &mut |_| {}))).collect())
    };
    suggest(input, run).expect("a simulation does not fail")
}

fn trace(lasts: Duration, mut jobs: Vec<TraceJob>) -> Trace {
    jobs.sort_by_key(|job| job.arrives);
    Trace { begins: MONDAY, lasts, jobs, services: String::new() }
}

fn job(at_seconds: u64, service_seconds: u64) -> TraceJob {
    TraceJob { arrives: SimTime(at_seconds * 1_000_000), service: Duration::from_secs(service_seconds) }
}

/// Days with `jobs` jobs of 100 s, all at the beginning of each hour of office hours.
fn office(days: u64, jobs: u64) -> Trace {
    let hours = (0..days).filter(|day| day % 7 < 5).flat_map(|day| (8..18).map(move |hour| day * 24 + hour));
    let all = hours.flat_map(|hour| (0..jobs).map(move |number| job(hour * 3_600 + number, 100))).collect();
    trace(DAY * u32::try_from(days).unwrap(), all)
}

#[test]
fn a_recording_of_weeks_is_learned_from_its_beginning_and_checked_on_its_end() {
    let wasteful = ScalingSettings { min_workers: 8, max_workers: 20, ..ScalingSettings::default() };
    let found = search(&input(wasteful, 1, office(21, 6)));
    assert_eq!(
        (found.learned.seconds, found.checked.as_ref().map(|of| of.seconds)),
        (14.0 * 86_400.0, Some(7.0 * 86_400.0))
    );
    assert_eq!(found.no_schedule, None);
    let best = found.best().expect("eight workers day and night are too many");
    assert_eq!(best.aim, Aim::Cheaper);
    assert!(best.learned.worker_hours < found.present.worker_hours * 0.9, "{best:?}");
    let checked = best.checked.expect("there is a week for it");
    assert!(checked.worker_hours < found.present_checked.unwrap().worker_hours, "{best:?}");
}

#[test]
fn a_schedule_is_tried_only_with_days_and_a_clock() {
    let present = ScalingSettings::default();
    let windows = |input: &SuggestionInput| {
        let mut windows = 0;
        let run = |stage, setups: &[Setup], trace: &Trace| {
            if stage == Stage::Minimums {
                windows = setups.iter().map(|setup| setup.settings.scaling.schedule.len()).max().unwrap_or(0);
            }
            Ok::<_, ()>(setups.iter().map(|setup| Outcome::from(&simulate(setup, trace, &mut |_| {}))).collect())
        };
        let found = suggest(input, run).unwrap();
        (windows > 0, found.no_schedule)
    };
    let (tried, why) = windows(&input(present.clone(), 1, office(5, 6)));
    assert_eq!((tried, why), (true, None));
    let (tried, why) = windows(&input(present.clone(), 1, office(2, 6)));
    assert_eq!((tried, why.as_deref()), (false, Some("a schedule needs jobs over 3 days or more")));
    let undated = SuggestionInput { has_clock: false, ..input(present, 1, office(5, 6)) };
    let (tried, why) = windows(&undated);
    assert!(!tried && why.is_some_and(|why| why.contains("--start")));
}

#[test]
fn nothing_is_suggested_where_nothing_is_better() {
    // A job an hour, a worker for it that leaves as soon as it may: less is not possible, and waits are the start.
    let jobs = (0..48).map(|hour| job(hour * 3_600, 60)).collect();
    let lean = ScalingSettings { cooldown_seconds: 0, max_workers: 1, ..ScalingSettings::default() };
    let found = search(&input(lean, 1, trace(DAY * 2, jobs)));
    assert!(found.best().is_none(), "{:?}", found.choices);
    assert!(found.tried > 10, "{}", found.tried);
}

fn any_scaling() -> impl Strategy<Value = ScalingSettings> {
    let strategy = prop_oneof![
        Just(crate::config::Strategy::Threshold),
        Just(crate::config::Strategy::Step),
        Just(crate::config::Strategy::Backlog),
        Just(crate::config::Strategy::Latency),
    ];
    (strategy, 0_u32..4, 4_u32..8, 1_u64..10, 0_u64..400).prop_map(
        |(strategy, min_workers, max_workers, jobs, cooldown)| ScalingSettings {
            strategy,
            min_workers,
            max_workers,
            scale_up_threshold: jobs,
            jobs_per_worker: jobs,
            cooldown_seconds: cooldown,
            ..ScalingSettings::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, ..ProptestConfig::default() })]

    /// Whatever the jobs and the settings: what is suggested waits no longer, costs no more and is better in one, on
    /// the jobs that it was learned from; and the same jobs lead to the same suggestion.
    #[test]
    fn a_suggestion_is_never_worse(
        scaling in any_scaling(),
        concurrency in 1_u32..3,
        jobs in prop::collection::vec((0_u64..4 * 86_400, 1_u64..300), 1..60),
    ) {
        let all = jobs.into_iter().map(|(at, service)| job(at, service)).collect();
        let input = input(scaling, concurrency, trace(DAY * 4, all));
        let found = search(&input);
        for choice in &found.choices {
            let (of, before) = (choice.learned, found.present);
            prop_assert!(of.worker_hours <= before.worker_hours, "{choice:?}");
            prop_assert!(of.wait_seconds.p95 <= before.wait_seconds.p95, "{choice:?}");
            prop_assert!(of.wait_seconds.p99 <= before.wait_seconds.p99, "{choice:?}");
            prop_assert!(of.unfinished <= before.unfinished, "{choice:?}");
            prop_assert!(of.worker_hours < before.worker_hours || of.wait_seconds.p95 < before.wait_seconds.p95
                || of.wait_seconds.p99 < before.wait_seconds.p99, "{choice:?}");
            prop_assert_eq!(choice.candidate.scaling.max_workers, input.setup.settings.scaling.max_workers);
        }
        let again = search(&input);
        prop_assert_eq!(format!("{:?}", again.choices), format!("{:?}", found.choices));
    }
}
