//! What the policy promises when somebody has paused, observed or pinned a worker type.

use proptest::prelude::*;
use swarm::{
    config::{ScalingSettings, ScheduleWindow},
    model::{
        Demand, PoolCounts, Reading, Timestamp,
        control::{Control, Mode},
        snapshot::{Action, Change},
    },
    policy::{History, Observation, decide, decide_under},
};

const NOW: Timestamp = Timestamp(1_000_000_000);

#[derive(Clone, Debug)]
struct Case {
    settings: ScalingSettings,
    observation: Observation,
    history: History,
}

fn case() -> impl Strategy<Value = Case> {
    let bounds = (0_u32..12).prop_flat_map(|min| (Just(min), min..20));
    let reading =
        prop_oneof![4 => (0_u64..120).prop_map(Reading::Known), 1 => Just(Reading::Failed("away".to_owned()))];
    let pool = (0_u32..25, 0_u32..25, 0_u32..6);
    // What a pin goes before.
    let rules = (0_u32..4, prop::option::of(1_u32..4), prop::option::of(1_u32..30));
    (bounds, reading, pool, prop::option::of((0_u64..200_000, 0_u32..20, 0_u32..20)), rules).prop_map(
        |((min_workers, max_workers), lag, (ready, busy, starting), change, (spare, step, floor))| {
            let window = floor.map(|floor| ScheduleWindow {
                start: "* * * * *".into(),
                duration: Some("1h".into()),
                min_workers: floor.min(max_workers),
                ..ScheduleWindow::default()
            });
            let mut history = History::new(Timestamp(NOW.0 - 300_000));
            history.last_change = change.map(|(ago, from, to)| Change { at: Timestamp(NOW.0 - ago), from, to });
            let counts = PoolCounts { ready, busy: busy.min(ready), starting, ..PoolCounts::default() };
            let demand = Demand { lag, pending: Reading::Known(0), oldest: Reading::Known(None) };
            Case {
                settings: ScalingSettings {
                    min_workers,
                    max_workers,
                    spare,
                    max_step_up: step,
                    max_step_down: step,
                    schedule: window.into_iter().collect(),
                    ..ScalingSettings::default()
                },
                observation: Observation { demand, queues: None, allowance: None, pool: Reading::Known(counts) },
                history,
            }
        },
    )
}

fn control(mode: Mode, left: Option<u64>) -> Control {
    Control { mode, until: left.map(|left| Timestamp(NOW.0 + left)), by: "ann@desk".to_owned(), why: String::new() }
}

fn under(case: &Case, control: &Control) -> swarm::policy::Decision {
    decide_under(Some(control), &case.settings, &case.observation, &case.history, NOW)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn invariant_12_paused_asks_for_nothing(case in case(), left in prop::option::of(1_u64..100_000)) {
        let decision = under(&case, &control(Mode::Paused, left));
        prop_assert_eq!(decision.action, Action::Hold);
        prop_assert_eq!(decision.recheck_at, left.map(|left| Timestamp(NOW.0 + left)));
        prop_assert_eq!(decision.reasons.last().map(swarm::policy::Reason::label), Some("paused"));
    }

    #[test]
    fn invariant_12_observing_tells_what_would_be_done(case in case()) {
        let free = decide(&case.settings, &case.observation, &case.history, NOW);
        let seen = under(&case, &control(Mode::Observe, None));
        prop_assert_eq!((seen.action, seen.target, seen.recheck_at), (free.action, free.target, free.recheck_at));
        prop_assert_eq!(seen.reasons.last().map(swarm::policy::Reason::label), Some("observe_only"));
    }

    #[test]
    fn invariant_01_a_pin_is_reached_at_once_and_stays_within_bounds(case in case(), pin in 0_u32..30) {
        let decision = under(&case, &control(Mode::Pinned(pin), None));
        let expected = pin.clamp(case.settings.min_workers, case.settings.max_workers);
        prop_assert_eq!(decision.target, expected);
        let free = decide(&case.settings, &case.observation, &case.history, NOW);
        prop_assert_eq!(decision.floor, free.floor);
        let action = match expected.cmp(&decision.current) {
            std::cmp::Ordering::Less => Action::ScaleDown,
            std::cmp::Ordering::Equal => Action::Hold,
            std::cmp::Ordering::Greater => Action::ScaleUp,
        };
        prop_assert_eq!(decision.action, action);
    }

    #[test]
    fn invariant_12_nothing_goes_in_a_direction_that_is_paused_and_the_other_one_is_free(case in case()) {
        let free = decide(&case.settings, &case.observation, &case.history, NOW);
        for (mode, paused, label) in [
            (Mode::PausedIn, Action::ScaleDown, "paused_in"),
            (Mode::PausedOut, Action::ScaleUp, "paused_out"),
        ] {
            let decision = under(&case, &control(mode, None));
            if free.action == paused {
                prop_assert_eq!((decision.action, decision.target), (Action::Hold, decision.current));
                prop_assert_eq!(decision.reasons.last().map(swarm::policy::Reason::label), Some(label));
            } else {
                prop_assert_eq!(&decision, &free);
            }
            let ends = under(&case, &control(mode, Some(1))).recheck_at;
            prop_assert_eq!(ends, Some(Timestamp(NOW.0 + 1)));
        }
    }

    #[test]
    fn invariant_07_a_maximum_that_the_schedule_lowers_starts_nobody_beyond_it_and_stops_nobody_who_is_busy(
        case in case(), lowered in 0_u32..20,
    ) {
        let window = ScheduleWindow {
            start: "* * * * *".into(),
            duration: Some("1h".into()),
            max_workers: Some(lowered),
            ..ScheduleWindow::default()
        };
        let mut settings = case.settings.clone();
        settings.schedule.push(window);
        let decision = decide(&settings, &case.observation, &case.history, NOW);
        let max = lowered.min(settings.max_workers);
        prop_assert_eq!(decision.ceiling, max);
        if decision.action == Action::ScaleUp {
            prop_assert!(decision.target <= max, "{decision:?}");
        }
        let Reading::Known(counts) = case.observation.pool else { unreachable!("the case knows its pool") };
        if decision.action == Action::ScaleDown {
            prop_assert!(decision.target >= counts.busy.min(settings.max_workers), "{decision:?}");
        }
    }

    #[test]
    fn a_control_that_has_ended_changes_nothing(case in case(), pin in 0_u32..30) {
        let free = decide(&case.settings, &case.observation, &case.history, NOW);
        for mode in [Mode::Paused, Mode::PausedIn, Mode::PausedOut, Mode::Observe, Mode::Pinned(pin)] {
            prop_assert_eq!(&under(&case, &control(mode, Some(0))), &free);
        }
    }
}
