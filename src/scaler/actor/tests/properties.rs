//! Properties that hold in every sequence of events.

use proptest::prelude::*;

use super::*;

/// Events that can happen to an actor.
#[derive(Clone, Debug)]
enum Happening {
    Signal,
    Pass(u64),
    Finish { lag: Option<u64>, idle: u32, busy: u32, fail: bool, remembers: bool },
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        3 => Just(Happening::Signal),
        2 => (0_u64..200).prop_map(Happening::Pass),
        1 => (1_000_u64..100_000).prop_map(Happening::Pass),
        4 => (
            prop::option::weighted(0.9, 0_u64..100), 0_u32..15, 0_u32..6, prop::bool::weighted(0.2), any::<bool>()
        ).prop_map(|(lag, idle, busy, fail, remembers)| Happening::Finish { lag, idle, busy, fail, remembers }),
    ]
}

/// Returns the effects, with the times at which the actor asked for them.
fn play(actor: &mut Actor, happenings: &[Happening]) -> Vec<(u64, Effect)> {
    let mut now = 1_000;
    let mut under_way: Option<Effect> = None;
    let mut last = (0, false);
    let mut seen = Vec::new();
    for happening in happenings {
        let input = match happening {
            Happening::Signal => Some(signals()),
            Happening::Pass(ms) => {
                now += ms;
                Some(Input::Tick)
            }
            Happening::Finish { lag, idle, busy, fail, remembers } => under_way.take().map(|effect| {
                if is_look(&effect) {
                    last = (idle + busy, *remembers && effect == Effect::Observe);
                    let demand = lag.map_or_else(|| Demand::failed("redis is away"), demand);
                    Input::Observed(Box::new(Observed {
                        demand,
                        queues: None,
                        work: None,
                        look_at: None,
                        counters: Counters::default(),
                        view: Ok(view(*idle, *busy)),
                        is_partial: last.1,
                        control: None,
                    }))
                } else if *fail {
                    scaled(failure(ErrorKind::Retryable, "no room"))
                } else {
                    scaled(Ok(ScaleReport::default()))
                }
            }),
        };
        for effect in input.map(|input| at(actor, now, input)).unwrap_or_default() {
            if let Effect::Scale(request, _) = &effect {
                let (workers, is_partial) = last;
                let lets_go = request.target < workers || !request.retire.is_empty();
                assert!(!(is_partial && lets_go), "by remembered heartbeats: {request:?}");
            }
            if is_look(&effect) || is_write(&effect) {
                assert_eq!(under_way, None, "two effects under way at once");
                let kept = match &effect {
                    Effect::Scale(request, signals) => Effect::Scale(request.clone(), *signals),
                    Effect::ObserveInFull => Effect::ObserveInFull,
                    _ => Effect::Observe,
                };
                under_way = Some(kept);
            }
            seen.push((now, effect));
        }
    }
    seen
}

fn is_look(effect: &Effect) -> bool {
    matches!(effect, Effect::Observe | Effect::ObserveInFull)
}

fn is_write(effect: &Effect) -> bool {
    matches!(effect, Effect::Scale(..))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn invariant_05_at_most_one_write_in_a_debounce_window(happenings in prop::collection::vec(happening(), 1..120)) {
        let mut actor = actor_with(settings(), false);
        let effects = play(&mut actor, &happenings);
        let looks: Vec<u64> = effects.iter().filter(|(_, e)| *e == Effect::Observe).map(|(at, _)| *at).collect();
        prop_assert!(looks.windows(2).all(|pair| pair[1] - pair[0] >= 50), "{looks:?}");
        let writes = effects.iter().filter(|(_, effect)| is_write(effect)).count();
        prop_assert!(writes <= looks.len(), "a write without a look");
    }

    #[test]
    fn invariant_04_no_signal_is_left_unanswered(happenings in prop::collection::vec(happening(), 1..120)) {
        let mut actor = actor_with(settings(), false);
        play(&mut actor, &happenings);
        at(&mut actor, 10_000_000, signals());
        let answered = actor.evaluated_signals().is_some() || !actor.is_resting();
        prop_assert!(answered, "a signal to a resting actor, long after the debounce, is evaluated at once");
    }

    #[test]
    fn invariant_12_a_dry_run_never_writes(happenings in prop::collection::vec(happening(), 1..120)) {
        let mut actor = actor_with(settings(), true);
        let effects = play(&mut actor, &happenings);
        prop_assert!(effects.iter().all(|(_, effect)| is_look(effect)), "{effects:?}");
    }

    #[test]
    fn invariant_13_every_write_has_exactly_one_record(happenings in prop::collection::vec(happening(), 1..120)) {
        let mut actor = actor_with(settings(), false);
        let effects = play(&mut actor, &happenings);
        let mut open = 0;
        for (_, effect) in effects {
            match effect {
                Effect::Scale(..) => open += 1,
                Effect::Record(_) => open -= 1,
                Effect::Observe | Effect::ObserveInFull | Effect::AskAgain(_) => {}
            }
            prop_assert!((0..=1).contains(&open), "a record for each write, and before the next");
        }
    }

    #[test]
    fn invariant_07_a_busy_worker_is_asked_to_leave_only_above_the_maximum(
        lag in 0_u64..40, idle in 0_u32..15, busy in 0_u32..15,
    ) {
        let mut actor = actor_with(settings(), false);
        at(&mut actor, 1_000_000, signals());
        let effects = at(&mut actor, 1_000_001, observed(lag, view(idle, busy)));
        for effect in effects {
            if let Effect::Scale(request, _) = effect {
                let busy_victims = request.retire.iter().filter(|id| id.as_str().starts_with("busy")).count();
                let allowed = (busy.saturating_sub(settings().max_workers)) as usize;
                prop_assert!(busy_victims <= allowed, "{request:?}");
            }
        }
    }

    #[test]
    fn invariant_11_a_write_is_always_of_the_newest_observation(happenings in prop::collection::vec(happening(), 1..120)) {
        let mut actor = actor_with(settings(), false);
        let effects = play(&mut actor, &happenings);
        for pair in effects.windows(2) {
            if is_write(&pair[1].1) {
                prop_assert!(is_look(&pair[0].1), "nothing comes between an observation and its write");
            }
        }
    }
}
