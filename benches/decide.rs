//! Measures nanoseconds per decision, for each strategy, against the floor of any decision: the division and the
//! bounds. `cargo bench --bench decide`.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion};
use swarm::{
    config::{ScalingSettings, ScheduleWindow, Strategy},
    model::{Counters, Demand, PoolCounts, Reading, Timestamp, snapshot::Change},
    policy::{History, Observation, decide},
};

const NOW: Timestamp = Timestamp(1_000_000_000);

/// Each strategy with its defaults, and the default one with a schedule and limits.
fn cases() -> Vec<(&'static str, ScalingSettings)> {
    let of = |strategy| ScalingSettings { strategy, ..ScalingSettings::default() };
    let window = ScheduleWindow {
        start: "0 8 * * MON-FRI".into(),
        end: Some("0 18 * * MON-FRI".into()),
        time_zone: "Europe/Berlin".into(),
        min_workers: 2,
        ..ScheduleWindow::default()
    };
    let scheduled = ScalingSettings { schedule: vec![window], ..ScalingSettings::default() };
    let limited = ScalingSettings {
        spare: 1,
        stabilization_window_seconds: Some(60),
        max_step_up: Some(4),
        max_step_down: Some(2),
        ..ScalingSettings::default()
    };
    vec![
        ("threshold", of(Strategy::Threshold)),
        ("step", of(Strategy::Step)),
        ("backlog", of(Strategy::Backlog)),
        ("latency", of(Strategy::Latency)),
        ("threshold with a schedule", scheduled),
        ("threshold with spare workers and limits", limited),
    ]
}

/// A pool that has just grown and whose queue is now empty: the cooldown holds a scale-down, so all rules run.
fn observation() -> Observation {
    Observation {
        demand: Demand { lag: Reading::Known(0), pending: Reading::Known(0), oldest: Reading::Known(None) },
        queues: None,
        allowance: None,
        pool: Reading::Known(PoolCounts { ready: 6, busy: 2, ..PoolCounts::default() }),
    }
}

fn history(settings: &ScalingSettings) -> History {
    let mut history = History::new(Timestamp(0));
    history.note_change(Change { at: Timestamp(NOW.0 - 10_000), from: 2, to: 6 });
    for (seconds, recommendation) in (1..=20).zip((0..20).rev()) {
        history.note_recommendation(settings, Timestamp(NOW.0 - 30_000 + seconds * 1_000), recommendation);
    }
    // Ten jobs in ten seconds, while others wait.
    for (seconds, read) in [(20, 2), (10, 12)] {
        let demand = Demand { lag: Reading::Known(90 - read), pending: Reading::Known(2), ..observation().demand };
        let counters = Counters { added: Some(90), read: Some(read), ..Counters::default() };
        let seen = Observation { demand, ..observation() };
        history.note_flow(settings, Timestamp(NOW.0 - seconds * 1_000), &seen, counters);
    }
    history
}

fn floor(depth: u64, settings: &ScalingSettings) -> u32 {
    let recommendation = u32::try_from(depth.div_ceil(settings.scale_up_threshold)).unwrap_or(u32::MAX);
    recommendation.max(settings.min_workers).min(settings.max_workers)
}

/// Returns nanoseconds per call: the best of several batches, because noise only adds time.
fn nanoseconds<T>(call: impl Fn() -> T) -> f64 {
    const BATCH: u32 = 20_000;
    let batch = || {
        let start = Instant::now();
        (0..BATCH).for_each(|_| drop(black_box(call())));
        start.elapsed()
    };
    let best = std::iter::repeat_with(batch).take(30).min().unwrap_or(Duration::MAX);
    best.as_secs_f64() * 1e9 / f64::from(BATCH)
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let observation = observation();
    let mut group = criterion.benchmark_group("decide");
    let defaults = ScalingSettings::default();
    let bare = || floor(black_box(20), black_box(&defaults));
    group.bench_function("floor", |bencher| bencher.iter(bare));
    for (name, settings) in cases() {
        let history = history(&settings);
        let run = || decide(black_box(&settings), black_box(&observation), black_box(&history), black_box(NOW));
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| bencher.iter(run));
    }
    group.finish();
    criterion.final_summary();
    // Cargo passes this flag for a measurement; a test run only shows that the benchmark works.
    if std::env::args().any(|argument| argument == "--bench") {
        print_ratios(&observation);
    }
}

#[expect(clippy::print_stdout, reason = "a bench reports on standard output")]
fn print_ratios(observation: &Observation) {
    let defaults = ScalingSettings::default();
    let floor_ns = nanoseconds(|| floor(black_box(20), black_box(&defaults)));
    for (name, settings) in cases() {
        let history = history(&settings);
        let ns =
            nanoseconds(|| decide(black_box(&settings), black_box(observation), black_box(&history), black_box(NOW)));
        println!("decide, {name}: {ns:.0} ns, floor {floor_ns:.1} ns, ratio {:.0}", ns / floor_ns);
    }
}
