//! Tests of the engine against cases that can be computed by hand, and against laws that hold for all cases.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{
    config::{
        QueueKind, ScalerSettings, ScalingSettings, ScheduleWindow, Strategy as Scaling, WorkerSettings,
        WorkerTypeSettings,
    },
    model::{Timestamp, WorkerType},
};

const BEGINS: Timestamp = Timestamp(1_700_000_000_000);

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// Returns jobs with the given arrival and service times, in seconds.
fn trace(jobs: &[(f64, f64)]) -> Trace {
    let job = |&(at, service): &(f64, f64)| TraceJob {
        arrives: SimTime::START.after(seconds(at)),
        service: seconds(service),
    };
    let lasts = seconds(jobs.iter().map(|job| job.0).fold(0.0, f64::max));
    Trace { begins: BEGINS, lasts, jobs: jobs.iter().map(job).collect(), services: String::new() }
}

fn setup(scaling: ScalingSettings) -> Setup {
    Setup {
        worker_type: WorkerType::new("browser"),
        initial: scaling.min_workers,
        settings: WorkerTypeSettings { scaling, ..WorkerTypeSettings::default() },
        scaler: ScalerSettings::default(),
        startup: Times::Fixed(Duration::ZERO),
        tail: Duration::from_secs(100),
        seed: 0,
    }
}

/// Returns a setup with a fixed number of workers.
fn always(workers: u32) -> Setup {
    setup(ScalingSettings { min_workers: workers, max_workers: workers, ..ScalingSettings::default() })
}

fn run(setup: &Setup, trace: &Trace) -> Report {
    simulate(setup, trace, &mut |_| {})
}

fn close(value: f64, expected: f64) -> bool {
    (value - expected).abs() < 1e-6
}

#[test]
fn a_budget_bounds_the_pool() {
    let mut setup = setup(ScalingSettings { scale_up_threshold: 1, max_workers: 9, ..ScalingSettings::default() });
    let jobs = trace(&[(1.0, 5.0), (1.0, 5.0), (1.0, 5.0), (1.0, 5.0)]);
    let free = run(&setup, &jobs);
    setup.scaler.max_total_workers = Some(2);
    let report = run(&setup, &jobs);
    assert!(free.workers_max > 2 && report.workers_max == 2, "{} {}", free.workers_max, report.workers_max);
    assert_eq!(report.unfinished, 0);
    let reason = &report.changes[0].reason;
    assert!(reason.contains("at most 2 (max_total_workers 2; other worker types have 0)"), "{reason}");
}

#[test]
fn one_worker_serves_in_order() {
    // Starts at 0, 2, 4 and 10: waits of 0, 1, 2.5 and 0.
    let report = run(&always(1), &trace(&[(0.0, 2.0), (1.0, 2.0), (1.5, 2.0), (10.0, 2.0)]));
    assert_eq!((report.jobs, report.finished, report.depth_max), (4, 4, 3));
    let waits = report.wait_seconds;
    assert!(close(waits.mean, 3.5 / 4.0) && close(waits.p50, 0.0) && close(waits.max, 2.5), "{waits:?}");
    assert!(close(report.seconds, 110.0) && close(report.worker_hours, 110.0 / 3_600.0), "{:?}", report.wait_seconds);
    assert!(close(report.busy_hours, 8.0 / 3_600.0) && close(report.utilisation, 8.0 / 110.0));
    assert_eq!((report.scaled_up, report.scaled_down, report.workers_max), (0, 0, 1));
}

#[test]
fn latency_learns_what_the_jobs_of_the_trace_take() {
    // Ten jobs a second for a minute, of one second each. One worker does not know the service time at first; ten
    // workers are needed.
    let jobs: Vec<(f64, f64)> = (0..600_u32).map(|job| (f64::from(job) / 10.0, 1.0)).collect();
    let latency = ScalingSettings {
        strategy: Scaling::Latency,
        target_wait_seconds: 5,
        jobs_per_worker: 1_000,
        max_workers: 100,
        ..ScalingSettings::default()
    };
    let report = run(&setup(latency.clone()), &trace(&jobs));
    let seen = (report.wait_seconds.max, report.workers_max);
    assert!(seen.0 < 10.0 && (10..30).contains(&seen.1), "{seen:?} {:?}", report.changes);
    let mut of_a_list = setup(latency);
    of_a_list.settings.kind = QueueKind::List;
    assert_eq!(run(&of_a_list, &trace(&jobs)).workers_max, 1, "nothing counts there");
}

#[test]
fn a_schedule_goes_by_the_time_of_the_trace() {
    // The simulation begins at 22:13:20.
    let window = ScheduleWindow {
        start: "15 22 * * *".into(),
        duration: Some("1m".into()),
        min_workers: 3,
        ..ScheduleWindow::default()
    };
    let report =
        run(&setup(ScalingSettings { schedule: vec![window], ..ScalingSettings::default() }), &trace(&[(600.0, 1.0)]));
    // The window lasts from 100 s to 160 s.
    assert_eq!((report.workers_max, report.scaled_up), (3, 2));
    assert!(close(report.changes[0].at_seconds, 100.0), "{:?}", report.changes);
}

#[test]
fn random_arrivals_wait_as_queueing_theory_says() {
    // M/D/1 at a load of 0.8 with a service of 1 s: a mean wait of 0.8 / (2 × (1 − 0.8)) s = 2 s (Pollaczek and
    // Khinchine).
    let workload = Workload { pattern: Pattern::Steady, per_second: 0.8, lasts: Duration::from_secs(200_000) };
    let options = TraceOptions { service: Some(Times::Fixed(Duration::from_secs(1))), ..TraceOptions::default() };
    let report = run(&always(1), &Trace::generated(&workload, &options).unwrap());
    assert!((report.wait_seconds.mean - 2.0).abs() < 0.15, "{:?}", report.wait_seconds);
    assert!((report.utilisation - 0.8).abs() < 0.01, "{}", report.utilisation);
}

#[test]
fn a_worker_does_as_many_jobs_at_once_as_it_may() {
    let mut two_at_once = always(1);
    two_at_once.settings.worker = WorkerSettings { concurrency: 2, ..WorkerSettings::default() }.into();
    let report = run(&two_at_once, &trace(&[(0.0, 4.0), (0.0, 4.0), (0.0, 4.0)]));
    assert!(
        close(report.wait_seconds.max, 4.0) && close(report.busy_hours, 8.0 / 3_600.0),
        "{:?}",
        report.wait_seconds
    );
    assert!(close(report.utilisation, 12.0 / (2.0 * 100.0)), "{}", report.utilisation);
}

#[test]
fn the_first_job_starts_a_worker_and_the_cooldown_lets_it_go() {
    let mut on_demand = setup(ScalingSettings { cooldown_seconds: 30, ..ScalingSettings::default() });
    on_demand.startup = Times::Fixed(Duration::from_secs(3));
    let report = run(&on_demand, &trace(&[(0.0, 2.0)]));
    assert!(close(report.wait_seconds.max, 3.0), "{:?}", report.wait_seconds);
    let steps: Vec<_> = report.changes.iter().map(|step| (step.from, step.to)).collect();
    assert_eq!(steps, [(0, 1), (1, 0)], "{:?}", report.changes);
    // The job ends after 5 s. The cooldown that began with the start ends after 30 s, and wakes the actor.
    assert!(close(report.changes[1].at_seconds, 30.0), "{:?}", report.changes);
    assert!(close(report.worker_hours, 30.0 / 3_600.0), "{}", report.worker_hours);
    assert!(report.changes[0].reason.contains("starts the first worker"), "{:?}", report.changes);
}

#[test]
fn a_burst_is_shared_by_as_many_workers_as_the_threshold_says() {
    let burst = setup(ScalingSettings { scale_up_threshold: 5, max_workers: 10, ..ScalingSettings::default() });
    let report = run(&burst, &trace(&[(0.0, 1.0); 20]));
    assert_eq!((report.workers_max, report.changes[0].to), (4, 4));
    assert!(close(report.wait_seconds.max, 4.0), "{:?}", report.wait_seconds);
}

#[test]
fn a_worker_that_is_not_ready_in_its_grace_is_replaced_ever_less_often() {
    let mut slow = setup(ScalingSettings { start_grace_seconds: 10, ..ScalingSettings::default() });
    slow.startup = Times::Fixed(Duration::from_secs(20));
    let report = run(&slow, &trace(&[(0.0, 1.0)]));
    // Failed rounds wait 0, 1, 2, 4 and 8 s. The next wait is 16 s, in which the worker of the last round becomes
    // ready.
    let starts: Vec<f64> = report.changes.iter().map(|change| change.at_seconds).collect();
    assert_eq!(starts, [0.0, 10.0, 21.0, 33.0, 47.0, 65.0]);
    assert_eq!((report.finished, report.workers_max, report.workers_started), (1, 1, 6), "{:?}", report.changes);
    assert!(close(report.wait_seconds.max, 85.0), "{:?}", report.wait_seconds);
}

#[test]
fn the_shape_of_a_job_in_the_timeline() {
    let report = run(&always(1), &trace(&[(10.0, 5.0), (490.0, 10.0), (500.0, 1.0)]));
    let bucket = |at: usize| report.timeline[at];
    assert_eq!(report.timeline.len(), 600);
    assert_eq!((bucket(9).depth, bucket(10).depth, bucket(10).arrivals), (0.0, 1.0, 1));
    assert_eq!((bucket(12).busy, bucket(15).busy, bucket(495).ready), (1.0, 0.0, 1.0));
    assert_eq!(report.timeline.iter().map(|bucket| bucket.arrivals).sum::<u64>(), 3);
}

/// Returns arbitrary settings that can be simulated.
fn any_setup() -> impl Strategy<Value = Setup> {
    let strategy = prop_oneof![Just(Scaling::Threshold), Just(Scaling::Step), Just(Scaling::Backlog)];
    let scaling = (strategy, 0..3_u32, 0..6_u32, 1..8_u64, 0..40_u64, 1..20_u64).prop_map(
        |(strategy, min_workers, more, scale_up_threshold, cooldown_seconds, seconds)| ScalingSettings {
            strategy,
            min_workers,
            max_workers: min_workers + more,
            scale_up_threshold,
            jobs_per_worker: scale_up_threshold,
            cooldown_seconds,
            stabilization_window_seconds: Some(seconds),
            start_grace_seconds: seconds,
            drain_timeout_seconds: seconds,
            ..ScalingSettings::default()
        },
    );
    let rest = (0..4_u32, 1..4_u32, any::<bool>(), any::<bool>(), 0..15_u64, any::<u64>(), 0..200_u64);
    (scaling, rest).prop_map(|(scaling, (initial, concurrency, heartbeats, list, startup, seed, debounce_ms))| Setup {
        initial,
        settings: WorkerTypeSettings {
            scaling,
            kind: if list { QueueKind::List } else { QueueKind::Stream },
            worker: WorkerSettings { concurrency, heartbeats, ..WorkerSettings::default() }.into(),
            ..WorkerTypeSettings::default()
        },
        scaler: ScalerSettings { debounce_ms, ..ScalerSettings::default() },
        startup: Times::Exponential(Duration::from_millis(startup * 1_000 + 1)),
        // One worker may have to do all jobs of the longest trace: nine minutes of work.
        tail: Duration::from_secs(3_600),
        seed,
        ..setup(ScalingSettings::default())
    })
}

fn any_trace() -> impl Strategy<Value = Trace> {
    prop::collection::vec((0..60_000_u64, 0..9_000_u64), 0..60).prop_map(|jobs| {
        let row =
            |(at, service): (u64, u64)| Row { arrival_us: at * 1_000, service: Some(Duration::from_millis(service)) };
        Trace::recorded(jobs.into_iter().map(row).collect(), &TraceOptions::default())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_gets_lost_and_nobody_is_there_that_may_not_be(setup in any_setup(), trace in any_trace()) {
        let report = run(&setup, &trace);
        prop_assert_eq!(report.jobs, trace.jobs.len());
        prop_assert_eq!(report.finished + report.unfinished, report.jobs);
        prop_assert_eq!(report.timeline.iter().map(|bucket| bucket.arrivals).sum::<u64>(), report.jobs as u64);
        prop_assert!(report.depth_max <= report.jobs as u64);
        prop_assert!(report.utilisation <= 1.0 + 1e-9 && report.busy_hours <= report.worker_hours + 1e-9);
        let waits = report.wait_seconds;
        prop_assert!(waits.p50 <= waits.p95 && waits.p95 <= waits.p99 && waits.p99 <= waits.max);
        let (min, max) = (setup.settings.scaling.min_workers, setup.settings.scaling.max_workers);
        for step in &report.changes {
            prop_assert!((min..=max).contains(&step.to), "{:?}", step);
        }
        // If no job was done again, the busy time is exactly the sum of the service times.
        if report.redone == 0 && report.unfinished == 0 && setup.settings.worker.concurrency == 1 {
            let work: f64 = trace.jobs.iter().map(|job| job.service.as_secs_f64()).sum();
            prop_assert!((report.busy_hours * 3_600.0 - work).abs() < 1e-3, "{} {}", report.busy_hours * 3_600.0, work);
        }
        if max > 0 && matches!(setup.startup, Times::Exponential(mean) if mean < Duration::from_secs(1)) {
            prop_assert_eq!(report.unfinished, 0, "there was time enough");
        }
    }

    #[test]
    fn the_same_input_gives_the_same_report(setup in any_setup(), trace in any_trace()) {
        prop_assert_eq!(run(&setup, &trace), run(&setup, &trace));
    }
}
