//! Everything that `decide` takes, at random.

use proptest::prelude::*;
use swarm::{
    config::{ScalingSettings, ScheduleWindow, Strategy as Scaling},
    model::{Counters, Demand, PoolCounts, Reading, Timestamp, snapshot::Change},
    policy::{ByDirection, Decision, Failures, Flow, History, Observation, decide},
};

/// Late enough that everything in a generated past is after the epoch.
pub(crate) const NOW: Timestamp = Timestamp(1_000_000_000);
pub(crate) const SECOND: u64 = 1_000;

/// A case that failed is printed whole and belongs in a decision table, not in a file of seeds. `PROPTEST_CASES` asks
/// for more cases.
pub(crate) fn config(cases: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    let cases = cases.max(default.cases);
    ProptestConfig { cases, failure_persistence: None, max_global_rejects: cases.saturating_mul(100), ..default }
}

/// Everything that `decide` takes.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) settings: ScalingSettings,
    pub(crate) observation: Observation,
    pub(crate) history: History,
}

impl Case {
    pub(crate) fn decide(&self) -> Decision {
        decide(&self.settings, &self.observation, &self.history, NOW)
    }

    pub(crate) fn counts(&self) -> PoolCounts {
        *self.observation.pool.known().expect("the case was made with a known pool")
    }
}

/// Settings whose schedule opens and closes windows.
pub(crate) fn settings() -> impl Strategy<Value = ScalingSettings> {
    (steady_settings(), 0_usize..3).prop_flat_map(|(settings, windows)| {
        let window = window(settings.max_workers, prop_oneof![passing_times(), lasting_times()].boxed());
        proptest::collection::vec(window, windows)
            .prop_map(move |schedule| ScalingSettings { schedule, ..settings.clone() })
    })
}

/// Settings whose schedule, if any, is the same for the next hour.
pub(crate) fn steady_settings() -> impl Strategy<Value = ScalingSettings> {
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

pub(crate) fn window(
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
pub(crate) fn passing_times() -> impl Strategy<Value = (&'static str, &'static str)> {
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
pub(crate) fn lasting_times() -> impl Strategy<Value = (&'static str, &'static str)> {
    prop_oneof![Just(("* * * * *", "3h")), Just(("0 0 29 2 *", "1h"))]
}

/// Mostly small, sometimes none, sometimes absurd.
pub(crate) fn jobs() -> impl Strategy<Value = u64> {
    prop_oneof![2 => 0_u64..4, 6 => 0_u64..120, 1 => any::<u64>()]
}

pub(crate) fn unreadable<T: Clone + std::fmt::Debug + 'static>() -> impl Strategy<Value = Reading<T>> {
    prop_oneof![Just(Reading::Unknown("lag is nil".to_owned())), Just(Reading::Failed("timed out".to_owned()))]
}

pub(crate) fn demand(lag: Reading<u64>, pending: Reading<u64>) -> Demand {
    Demand { lag, pending, oldest: Reading::Unknown("not looked at".to_owned()) }
}

pub(crate) fn known_demand() -> impl Strategy<Value = Demand> {
    (jobs(), jobs()).prop_map(|(lag, pending)| demand(Reading::Known(lag), Reading::Known(pending)))
}

pub(crate) fn gappy_demand() -> impl Strategy<Value = Demand> {
    prop_oneof![
        (unreadable(), unreadable()).prop_map(|(lag, pending)| demand(lag, pending)),
        (jobs(), unreadable()).prop_map(|(lag, pending)| demand(Reading::Known(lag), pending)),
        (unreadable(), jobs()).prop_map(|(lag, pending)| demand(lag, Reading::Known(pending))),
    ]
}

pub(crate) fn counts() -> impl Strategy<Value = PoolCounts> {
    (0_u32..25, 0_u32..6, 0_u32..3, 0_u32..3).prop_flat_map(|(ready, starting, stalled, draining)| {
        (0..=ready).prop_map(move |busy| PoolCounts {
            ready,
            starting,
            stalled,
            busy,
            draining,
            ..PoolCounts::default()
        })
    })
}

pub(crate) fn past(within_seconds: u64) -> impl Strategy<Value = Timestamp> {
    (0..within_seconds * SECOND).prop_map(|ago| Timestamp(NOW.0 - ago))
}

pub(crate) fn failures() -> impl Strategy<Value = Option<Failures>> {
    let some = (1_u32..14, past(400)).prop_map(|(count, last_at)| Failures { count, last_at, message: "no".into() });
    prop_oneof![3 => Just(None), 1 => some.prop_map(Some)]
}

/// Nothing, too little, or a time for a job and a number of jobs a second.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Learned {
    Nothing,
    Uncounted,
    Rates { job_millis: u64, jobs_an_hour: u64 },
}

pub(crate) fn learned() -> impl Strategy<Value = Learned> {
    let rates = (1_u64..200_000, 0_u64..40_000);
    prop_oneof![
        1 => Just(Learned::Nothing),
        1 => Just(Learned::Uncounted),
        4 => rates.prop_map(|(job_millis, jobs_an_hour)| Learned::Rates { job_millis, jobs_an_hour }),
    ]
}

/// Ten looks an hour apart at ten workers behind a queue that never empties.
pub(crate) fn teach(history: &mut History, learned: Learned) {
    const HOUR: u64 = 3_600_000;
    const QUEUE: u64 = 1 << 50;
    let settings = ScalingSettings { strategy: Scaling::Latency, ..ScalingSettings::default() };
    let mut look = |hour: u64, counters: Counters, lag: u64| {
        let pool = Reading::Known(PoolCounts { ready: 10, busy: 10, ..PoolCounts::default() });
        let observation = Observation {
            demand: demand(Reading::Known(lag), Reading::Known(10)),
            queues: None,
            allowance: None,
            pool,
        };
        history.note_flow(&settings, Timestamp(NOW.0 - (10 - hour) * HOUR), &observation, counters);
    };
    match learned {
        Learned::Nothing => {}
        Learned::Uncounted => look(9, Counters::default(), 0),
        Learned::Rates { job_millis, jobs_an_hour } => (0..10).for_each(|hour| {
            let (added, read) = (QUEUE + hour * jobs_an_hour, hour * 10 * HOUR / job_millis + 10);
            look(hour, Counters { added: Some(added), read: Some(read), ..Counters::default() }, added - read);
        }),
    }
}

pub(crate) fn taught(learned: Learned) -> Flow {
    let mut history = History::new(NOW);
    teach(&mut history, learned);
    history.flow
}

pub(crate) fn history() -> impl Strategy<Value = History> {
    let recommendations = proptest::collection::vec((past(150), 0_u32..30), 0..6);
    let changes = proptest::collection::vec((past(150), 0_u32..25, 0_u32..25), 0..4);
    (past(300), changes, recommendations, failures(), failures(), learned()).prop_map(
        |(started_at, mut changes, recommendations, start_failures, backend_failures, learned)| {
            let mut history = History {
                recommendations: recommendations.into(),
                start_failures,
                backend_failures: ByDirection { up: backend_failures.clone(), down: backend_failures },
                ..History::new(started_at)
            };
            changes.sort_unstable();
            for (at, from, to) in changes {
                history.note_change(Change { at, from, to });
            }
            teach(&mut history, learned);
            history
        },
    )
}

pub(crate) fn case(demand: impl Strategy<Value = Demand>) -> impl Strategy<Value = Case> {
    case_of(settings(), demand)
}

/// For a [`World`], which goes on for a while.
pub(crate) fn steady_case(demand: impl Strategy<Value = Demand>) -> impl Strategy<Value = Case> {
    case_of(steady_settings(), demand)
}

pub(crate) fn case_of(
    settings: impl Strategy<Value = ScalingSettings>,
    demand: impl Strategy<Value = Demand>,
) -> impl Strategy<Value = Case> {
    (settings, demand, counts(), history()).prop_map(|(settings, demand, counts, history)| Case {
        settings,
        observation: Observation { demand, queues: None, allowance: None, pool: Reading::Known(counts) },
        history,
    })
}

pub(crate) fn any_demand() -> impl Strategy<Value = Demand> {
    prop_oneof![3 => known_demand(), 1 => gappy_demand()]
}
