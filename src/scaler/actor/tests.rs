//! Drives the actor with made-up inputs: no runtime, no clock, no servers. Property tests carry the number of the
//! invariant that they prove (`docs/architecture.md`).

use proptest::prelude::*;
use tokio::time::Instant;

use super::*;
use crate::{
    config::Strategy as Scaling,
    model::{PoolCounts, WorkerState, snapshot::WorkerSnapshot},
    scaler::worker_tracker::{FailedStart, Held},
};

const DEBOUNCE: Duration = Duration::from_millis(50);

fn settings() -> ScalingSettings {
    ScalingSettings {
        min_workers: 0,
        max_workers: 10,
        scale_up_threshold: 5,
        cooldown_seconds: 60,
        ..Default::default()
    }
}

fn actor_with(settings: ScalingSettings, dry_run: bool) -> Actor {
    let consequence = if dry_run { Consequence::Show } else { Consequence::Scale };
    let browser = WorkerType::new("browser");
    let mut actor = Actor::new(browser, "browser:jobs", Arc::new(settings), DEBOUNCE, consequence, None, Timestamp(0));
    // A dry run never leads.
    if !dry_run {
        assert_eq!(at(&mut actor, 0, Input::Leads(None)), []);
    }
    actor
}

fn demand(lag: u64) -> Demand {
    Demand { lag: Reading::Known(lag), pending: Reading::Known(0), oldest: Reading::Known(None) }
}

fn signals() -> Input {
    Input::Signals(Signals::one(Source::Keyspace, Instant::now()))
}

/// Returns a pool with the given numbers of idle and busy workers.
fn view(idle: u32, busy: u32) -> PoolView {
    let name = |kind: &str, n: u32| WorkerId::new(format!("{kind}-{n}"));
    let seen = |id: WorkerId, busy: bool| WorkerSnapshot {
        id,
        state: Some(if busy { WorkerState::Busy } else { WorkerState::Idle }),
        status: if busy { WorkerStatus::Busy } else { WorkerStatus::Idle },
        busy,
        draining: false,
        reason: None,
        started_at: Timestamp(0),
    };
    let idle_ids: Vec<_> = (0..idle).map(|n| name("idle", n)).collect();
    let busy_ids: Vec<_> = (0..busy).map(|n| name("busy", n)).collect();
    let workers = idle_ids.iter().map(|id| (id, false)).chain(busy_ids.iter().map(|id| (id, true)));
    PoolView {
        counts: PoolCounts { ready: idle + busy, busy, ..PoolCounts::default() },
        workers: workers.map(|(id, busy)| seen(id.clone(), busy)).collect(),
        idle: idle_ids,
        busy: busy_ids,
        ..PoolView::default()
    }
}

fn observed(lag: u64, view: PoolView) -> Input {
    Input::Observed(Box::new(Observed {
        demand: demand(lag),
        queues: None,
        work: None,
        look_at: None,
        counters: Counters::default(),
        view: Ok(view),
        control: None,
    }))
}

fn scaled(outcome: Result<ScaleReport, BackendError>) -> Input {
    Input::Scaled(Box::new(Scaled { outcome, elapsed: Duration::from_millis(2), token: Some(7) }))
}

fn failure<T>(kind: ErrorKind, message: &str) -> Result<T, BackendError> {
    Err(BackendError::new(kind, message))
}

/// Applies an input at a time in milliseconds.
fn at(actor: &mut Actor, ms: u64, input: Input) -> Vec<Effect> {
    actor.apply(input, Timestamp(ms), Instant::now())
}

fn target_of(effects: &[Effect]) -> Option<u32> {
    effects.iter().find_map(|effect| match effect {
        Effect::Scale(request, _) => Some(request.target),
        _ => None,
    })
}

fn record_of(effects: &[Effect]) -> Option<&ScalingRecord> {
    effects.iter().find_map(|effect| match effect {
        Effect::Record(record) => Some(&**record),
        _ => None,
    })
}

#[test]
fn the_first_signal_is_evaluated_at_once_and_leads_to_one_write() {
    let mut actor = actor_with(settings(), false);
    assert_eq!(at(&mut actor, 1_000, signals()), [Effect::Observe]);
    let effects = at(&mut actor, 1_001, observed(20, view(0, 0)));
    assert_eq!(target_of(&effects), Some(4));
    let effects = at(&mut actor, 1_003, scaled(Ok(ScaleReport::default())));
    let record = record_of(&effects).expect("one record for each write");
    assert_eq!((record.from, record.to, record.action, record.error.as_deref()), (0, 4, Action::ScaleUp, None));
    assert_eq!(record.reason, "scale up 0 → 4: depth 20 ≥ 5 wants 4");
}

#[test]
fn signals_during_an_effect_lead_to_exactly_one_more_evaluation_after_the_debounce() {
    let mut actor = actor_with(settings(), false);
    at(&mut actor, 1_000, signals());
    for _ in 0..100 {
        assert_eq!(at(&mut actor, 1_001, signals()), []);
    }
    assert_eq!(at(&mut actor, 1_002, observed(0, view(0, 0))), []);
    assert_eq!(actor.next_wake(), Some(Timestamp(1_050)), "the deadline was set by the evaluation");
    assert_eq!(at(&mut actor, 1_049, signals()), []);
    assert_eq!(actor.next_wake(), Some(Timestamp(1_050)), "and is not moved by signals");
    assert_eq!(at(&mut actor, 1_050, Input::Tick), [Effect::Observe]);
    assert_eq!(at(&mut actor, 1_051, observed(0, view(0, 0))), []);
    assert_eq!(actor.next_wake(), None, "all signals have been answered");
}

#[test]
fn a_held_scale_down_is_looked_at_again_when_its_cooldown_ends() {
    let mut actor = actor_with(settings(), false);
    at(&mut actor, 1_000, signals());
    assert_eq!(at(&mut actor, 1_001, observed(0, view(3, 0))), []);
    assert_eq!(actor.next_wake(), Some(Timestamp(60_000)), "60 s after the start");
    assert_eq!(at(&mut actor, 60_000, Input::Tick), [Effect::Observe]);
    let effects = at(&mut actor, 60_001, observed(0, view(3, 0)));
    let [Effect::Scale(request, _)] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!((request.target, request.retire.len()), (0, 3));
}

#[test]
fn idle_workers_are_let_go_and_busy_ones_stay() {
    let mut actor = actor_with(settings(), false);
    at(&mut actor, 100_000, signals());
    let effects = at(&mut actor, 100_001, observed(0, view(2, 2)));
    let [Effect::Scale(request, _)] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!(request.target, 2);
    assert_eq!(request.retire, [WorkerId::new("idle-0"), WorkerId::new("idle-1")]);
}

#[test]
fn stalled_workers_are_replaced_without_changing_the_count() {
    let mut actor = actor_with(settings(), false);
    at(&mut actor, 1_000, signals());
    let mut pool = view(1, 0);
    pool.counts.stalled = 1;
    pool.stalled = vec![WorkerId::new("stuck")];
    let effects = at(&mut actor, 1_001, observed(3, pool));
    let [Effect::Scale(request, _)] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!((request.target, request.retire.as_slice()), (1, [WorkerId::new("stuck")].as_slice()));
}

#[test]
fn a_backend_failure_is_recorded_and_backed_off_from() {
    let mut actor = actor_with(settings(), false);
    at(&mut actor, 1_000, signals());
    at(&mut actor, 1_001, observed(20, view(0, 0)));
    let effects = at(&mut actor, 1_002, scaled(failure(ErrorKind::Retryable, "no room")));
    assert_eq!(record_of(&effects).and_then(|record| record.error.as_deref()), Some("no room"));
    assert_eq!(actor.next_wake(), Some(Timestamp(2_002)), "a second after the first failure");
    at(&mut actor, 1_500, signals());
    assert_eq!(at(&mut actor, 1_501, observed(20, view(0, 0))), [], "held while backing off");
    assert!(actor.snapshot().reasons[0].starts_with("held at 0"), "{:?}", actor.snapshot().reasons);
    assert_eq!(at(&mut actor, 2_002, Input::Tick), [Effect::Observe]);
    assert_eq!(target_of(&at(&mut actor, 2_003, observed(20, view(0, 0)))), Some(4));
}

#[test]
fn a_permanent_failure_is_tried_again_rarely() {
    let mut actor = actor_with(settings(), false);
    at(&mut actor, 1_000, signals());
    at(&mut actor, 1_001, observed(20, view(0, 0)));
    at(&mut actor, 1_002, scaled(failure(ErrorKind::Permanent, "no room")));
    assert_eq!(actor.next_wake(), Some(Timestamp(61_002)));
}

#[test]
fn a_queue_that_latency_learns_from_is_looked_at_again_while_jobs_are_done_and_a_new_leader_goes_on() {
    let latency = ScalingSettings { strategy: Scaling::Latency, target_wait_seconds: 20, ..settings() };
    let mut actor = actor_with(latency, false);
    let look = |actor: &mut Actor, ms: u64, added: u64, read: u64| {
        at(actor, ms, signals());
        let (lag, pending) = (Reading::Known(added - read), Reading::Known(2));
        let demand = Demand { lag, pending, oldest: Reading::Known(None) };
        let counters = Counters { added: Some(added), read: Some(read) };
        let observed =
            Observed { demand, queues: None, work: None, look_at: None, counters, view: Ok(view(0, 2)), control: None };
        let effects = at(actor, ms, Input::Observed(Box::new(observed)));
        if target_of(&effects).is_some() {
            at(actor, ms, scaled(failure(ErrorKind::Retryable, "no room")));
        }
    };
    look(&mut actor, 1_000, 10, 2);
    assert!(actor.snapshot().reasons[0].contains("until it is known"), "{:?}", actor.snapshot().reasons);
    look(&mut actor, 3_000, 10, 6);
    let known = actor.snapshot().reasons[1].clone();
    assert!(known.starts_with("depth 6, 0.8 s a job, "), "{known}");
    assert_eq!(actor.next_wake(), Some(Timestamp(5_000)), "a tenth of the target");
    at(&mut actor, 3_500, Input::Follows);
    at(&mut actor, 4_000, Input::Leads(None));
    look(&mut actor, 5_000, 10, 10);
    assert!(actor.snapshot().reasons[1].starts_with("depth 2, 0.88 s a job, "), "{:?}", actor.snapshot().reasons);
    // No job is in progress, so there is nothing to learn.
    at(&mut actor, 6_000, signals());
    let none = Demand { lag: Reading::Known(0), pending: Reading::Known(0), oldest: Reading::Known(None) };
    let counters = Counters { added: Some(10), read: Some(10) };
    let observed = Observed {
        demand: none,
        queues: None,
        work: None,
        look_at: None,
        counters,
        view: Ok(view(2, 0)),
        control: None,
    };
    at(&mut actor, 6_000, Input::Observed(Box::new(observed)));
    assert!(actor.next_wake().is_none_or(|at| at >= Timestamp(60_000)), "{:?}", actor.next_wake());
}

#[test]
fn an_unreadable_pool_changes_nothing_and_is_looked_at_again_soon() {
    let mut actor = actor_with(settings(), false);
    at(&mut actor, 1_000, signals());
    let unseen = || {
        Input::Observed(Box::new(Observed {
            demand: demand(20),
            queues: None,
            work: None,
            look_at: None,
            counters: Counters::default(),
            view: failure(ErrorKind::Retryable, "engine is away"),
            control: None,
        }))
    };
    assert_eq!(at(&mut actor, 1_001, unseen()), []);
    assert_eq!(actor.next_wake(), Some(Timestamp(2_001)));
    at(&mut actor, 2_001, Input::Tick);
    assert_eq!(at(&mut actor, 2_002, unseen()), []);
    assert_eq!(actor.next_wake(), Some(Timestamp(4_002)), "and ever less often");
    assert_eq!(actor.snapshot().backend_error.as_deref(), Some("engine is away"));
}

#[test]
fn workers_that_keep_dying_are_started_ever_less_often() {
    let mut actor = actor_with(settings(), false);
    let died = |seq: u64, ms: u64| {
        let mut pool = view(0, 0);
        pool.failed_starts = vec![FailedStart {
            id: WorkerId::new(format!("w-{seq}")),
            started_at: Timestamp(ms - 5),
            at: Timestamp(ms),
            detail: Some("exit code 1".to_owned()),
        }];
        pool
    };
    at(&mut actor, 1_000, signals());
    assert!(target_of(&at(&mut actor, 1_001, observed(1, died(1, 1_000)))).is_some(), "one death may be chance");
    at(&mut actor, 1_002, scaled(Ok(ScaleReport::default())));
    at(&mut actor, 1_100, signals());
    assert_eq!(at(&mut actor, 1_101, observed(1, died(2, 1_100))), []);
    let headline = &actor.snapshot().reasons[0];
    assert!(headline.contains("exit code 1"), "{headline}");
    assert_eq!(actor.next_wake(), Some(Timestamp(2_100)));
}

/// Returns a pool without workers, in which `count` workers had died by `ms` after `lived` milliseconds.
fn deaths(count: u64, lived: u64, ms: u64) -> PoolView {
    let failed = |number| FailedStart {
        id: WorkerId::new(format!("w-{number}")),
        started_at: Timestamp(ms - lived),
        at: Timestamp(ms - number % 3),
        detail: Some("signal 9 (SIGKILL)".to_owned()),
    };
    PoolView { failed_starts: (0..count).map(failed).collect(), ..view(0, 0) }
}

#[test]
fn twelve_workers_killed_at_once_are_replaced_at_once() {
    let mut actor = actor_with(ScalingSettings { max_workers: 20, strategy: Scaling::Backlog, ..settings() }, false);
    at(&mut actor, 100_000, signals());
    let effects = at(&mut actor, 100_001, observed(60, deaths(12, 20_000, 100_000)));
    assert_eq!(target_of(&effects), Some(12), "one failed round");
}

#[test]
fn one_silent_worker_at_a_time_is_replaced_and_ever_less_often() {
    let mut actor = actor_with(settings(), false);
    let unheard = |ids: &[&str]| {
        let mut pool = view(8, 0);
        pool.overdue = ids.iter().map(|id| WorkerId::new(*id)).collect();
        for worker in pool.workers.iter_mut().filter(|worker| ids.contains(&worker.id.as_str())) {
            worker.status = WorkerStatus::Unheard;
        }
        pool.counts.possibly_busy = u32::try_from(ids.len()).unwrap();
        pool
    };
    let mut look = |ms, ids: &[&str]| {
        at(&mut actor, ms, signals());
        let effects = at(&mut actor, ms + 1, observed(40, unheard(ids)));
        let request = effects.iter().find_map(|effect| match effect {
            Effect::Scale(request, _) => Some((request.target, request.retire.clone())),
            _ => None,
        });
        if request.is_some() {
            at(&mut actor, ms + 2, scaled(Ok(ScaleReport::default())));
        }
        request
    };
    let first = Some((8, vec![WorkerId::new("idle-0")]));
    let second = Some((8, vec![WorkerId::new("idle-1")]));
    assert_eq!(look(100_000, &["idle-0", "idle-1"]), first);
    assert_eq!(look(101_000, &["idle-1"]), None, "10 s between the first two");
    assert_eq!(look(110_100, &["idle-1"]), second);
    assert_eq!(look(121_000, &["idle-2"]), None, "20 s after that");
    assert_eq!(look(122_000, &[]), None, "all are heard");
    assert_eq!(look(123_000, &["idle-2"]), Some((8, vec![WorkerId::new("idle-2")])));
}

#[test]
fn a_worker_told_to_drain_by_somebody_else_is_counted_where_the_backend_counts_it() {
    let mut actor = actor_with(settings(), false);
    at(&mut actor, 100_000, signals());
    let counts = PoolCounts { draining: 1, ..PoolCounts::default() };
    let pool = PoolView { counts, leaving: vec![WorkerId::new("by-hand")], ..PoolView::default() };
    let effects = at(&mut actor, 100_001, observed(1, pool));
    let request = effects.iter().find_map(|effect| match effect {
        Effect::Scale(request, _) => Some(request),
        _ => None,
    });
    let request = request.expect("a job waits and nobody takes it");
    assert_eq!((request.target, request.retire.as_slice()), (2, &[][..]), "the one that leaves, and one that stays");
    let effects = at(&mut actor, 100_002, scaled(Ok(ScaleReport::default())));
    let record = record_of(&effects).expect("it was carried out");
    assert_eq!((record.from, record.to), (0, 1));
}

#[test]
fn a_refused_scale_in_does_not_delay_a_scale_out() {
    let mut actor = actor_with(settings(), false);
    at(&mut actor, 100_000, signals());
    assert_eq!(target_of(&at(&mut actor, 100_001, observed(0, view(4, 0)))), Some(0));
    at(&mut actor, 100_002, scaled(failure(ErrorKind::Permanent, "no room")));
    at(&mut actor, 100_100, signals());
    assert_eq!(target_of(&at(&mut actor, 100_101, observed(30, view(4, 0)))), Some(6));
}

#[test]
fn what_is_known_outlives_a_gap_in_leading() {
    let mut actor = actor_with(settings(), false);
    at(&mut actor, 100_000, signals());
    at(&mut actor, 100_001, observed(20, view(0, 0)));
    at(&mut actor, 100_002, scaled(failure(ErrorKind::Permanent, "no room")));
    at(&mut actor, 110_000, Input::Follows);
    at(&mut actor, 120_000, Input::Leads(None));
    assert_eq!((actor.history.started_at, actor.history.backend_failures.is_empty()), (Timestamp(0), false));
    at(&mut actor, 120_000, signals());
    assert_eq!(target_of(&at(&mut actor, 120_001, observed(20, view(0, 0)))), None, "the backoff goes on");

    // Another autoscaler led, and changed something.
    let change = Change { at: Timestamp(130_000), from: 0, to: 3 };
    at(&mut actor, 125_000, Input::Follows);
    at(&mut actor, 140_000, Input::Leads(Some(change)));
    assert_eq!((actor.history.started_at, actor.history.last_change), (Timestamp(140_000), Some(change)));
}

#[test]
fn blocked_workers_and_held_replacements_are_shown_with_their_reasons() {
    let mut pool = view(1, 0);
    let reason = Some("0/3 nodes are available".to_owned());
    pool.workers[0] = WorkerSnapshot { status: WorkerStatus::Blocked, reason, ..pool.workers[0].clone() };
    pool.counts = PoolCounts { blocked: 1, ..PoolCounts::default() };
    pool.held = Some(Held::Mass { silent: 4, of: 9, until: Timestamp(130_000) });
    let mut actor = actor_with(settings(), false);
    let mut shown = |ms| {
        at(&mut actor, ms, signals());
        at(&mut actor, ms + 1, observed(1, pool.clone()));
        actor.snapshot().reasons.join("\n")
    };
    let early = shown(100_000);
    assert!(early.contains("1 blocked: 0/3 nodes are available"), "{early}");
    assert!(early.contains("4 of 9 workers fell silent at once") && early.contains("for 30 s"), "{early}");
    let late = shown(600_000);
    assert!(late.contains("1 not begun within 600 s (start_timeout_seconds): 0/3 nodes are available"), "{late}");
}

/// Returns a pool of idle workers that somebody else has just scaled to `to`, at `ms`.
fn changed_by_hand(ms: u64, from: u32, to: u32) -> PoolView {
    let detail = "docker compose made 2".to_owned();
    PoolView { manual: vec![ManualScale { seq: 1, from, to, at: Timestamp(ms), detail }], ..view(to, 0) }
}

/// Jobs, workers before and after the manual change; the immediate request, and the one after the cooldown.
type ByHand = (u64, u32, u32, Option<u32>, Option<u32>);

/// A manual change is recorded, starts the cooldown and counts as a change; then the normal rules apply.
#[test]
fn a_manual_scale_is_recorded_and_starts_the_cooldown() {
    const MADE: u64 = 200_000;
    let table: [ByHand; 5] = [
        (0, 0, 3, None, Some(0)),
        (0, 5, 2, None, Some(0)),
        (20, 0, 4, None, None),
        (20, 5, 2, Some(4), None),
        (30, 0, 12, Some(10), None),
    ];
    for (lag, from, to, at_once, cooled) in table {
        let case = format!("{lag} jobs, by hand {from} → {to}");
        let mut actor = actor_with(settings(), false);
        at(&mut actor, MADE, signals());
        let effects = at(&mut actor, MADE + 5, observed(lag, changed_by_hand(MADE, from, to)));
        let record = record_of(&effects).expect(&case);
        assert_eq!(
            (record.from, record.to, record.trigger.as_slice()),
            (from, to, [Source::Manual].as_slice()),
            "{case}"
        );
        let action = if to > from { Action::ScaleUp } else { Action::ScaleDown };
        assert_eq!((record.action, record.at, record.error.as_deref()), (action, Timestamp(MADE), None), "{case}");
        assert_eq!(record.reason, format!("manual scale {from} → {to}: docker compose made 2"));
        assert_eq!(record.change, Some(Change { at: Timestamp(MADE), from, to }), "remembered over a restart");
        assert_eq!(target_of(&effects), at_once, "{case}");
        assert_eq!(effects.iter().filter(|effect| matches!(effect, Effect::Record(_))).count(), 1, "{case}");
        let mut last_change = MADE;
        let mut workers = to;
        if let Some(target) = at_once {
            last_change += 10;
            workers = target;
            at(&mut actor, last_change, scaled(Ok(ScaleReport::default())));
        } else {
            assert_eq!(actor.snapshot().last_change, record.change, "{case}");
        }
        let just_before = last_change + 59_900;
        for (now, expected) in [(just_before, None), (last_change + 60_000, cooled)] {
            at(&mut actor, now, signals());
            let effects = at(&mut actor, now, observed(lag, view(workers, 0)));
            assert_eq!((target_of(&effects), record_of(&effects)), (expected, None), "{case}, at {now}");
        }
    }
}

#[test]
fn only_the_leader_records_what_others_change() {
    let seen_by = |mut actor: Actor| {
        at(&mut actor, 100_000, signals());
        at(&mut actor, 100_001, observed(20, changed_by_hand(100_000, 0, 2)))
    };
    let records = |effects: &[Effect]| effects.iter().filter(|effect| matches!(effect, Effect::Record(_))).count();
    assert_eq!(records(&seen_by(actor_with(settings(), false))), 1);
    assert_eq!(records(&seen_by(actor_with(settings(), true))), 0, "a dry run");
    let mut standby = actor_with(settings(), false);
    at(&mut standby, 1, Input::Follows);
    assert_eq!(records(&seen_by(standby)), 0, "a standby: what it sees may be the leader's doing");
}

#[test]
fn invariant_15_a_standby_decides_and_asks_for_nothing() {
    let mut actor = actor_with(settings(), false);
    at(&mut actor, 500, Input::Follows);
    at(&mut actor, 1_000, signals());
    assert_eq!(at(&mut actor, 1_001, observed(20, view(0, 0))), []);
    assert_eq!((actor.snapshot().action, actor.snapshot().desired), (Action::ScaleUp, 4));

    // A new leader evaluates immediately, without the rest of the debounce.
    assert_eq!(at(&mut actor, 1_002, Input::Leads(None)), []);
    assert_eq!(at(&mut actor, 1_002, signals()), [Effect::Observe]);
    assert_eq!(target_of(&at(&mut actor, 1_003, observed(20, view(0, 0)))), Some(4));
}

#[test]
fn a_scaling_that_was_not_begun_leaves_no_trace_and_is_made_by_the_next_look() {
    let mut actor = actor_with(settings(), false);
    at(&mut actor, 1_000, signals());
    assert_eq!(target_of(&at(&mut actor, 1_001, observed(20, view(0, 0)))), Some(4));
    assert_eq!(at(&mut actor, 1_002, Input::NotScaled), []);
    assert_eq!((actor.snapshot().last_change, actor.next_wake()), (None, None));
    assert_eq!(at(&mut actor, 2_000, signals()), [Effect::Observe]);
    assert_eq!(target_of(&at(&mut actor, 2_001, observed(20, view(0, 0)))), Some(4));
}

#[test]
fn invariant_10_a_new_leader_lets_nobody_go_before_a_cooldown_has_passed() {
    let mut actor = actor_with(settings(), false);
    at(&mut actor, 500, Input::Follows);
    // The previous leader has just scaled up; this autoscaler has watched for far longer than a cooldown.
    let before = Change { at: Timestamp(990_000), from: 1, to: 5 };
    at(&mut actor, 1_000_000, Input::Leads(Some(before)));
    assert_eq!(actor.snapshot().last_change, Some(before));
    at(&mut actor, 1_000_000, signals());
    assert_eq!(target_of(&at(&mut actor, 1_000_001, observed(0, view(5, 0)))), None);
    at(&mut actor, 1_060_000, signals());
    assert_eq!(target_of(&at(&mut actor, 1_060_001, observed(0, view(5, 0)))), Some(0));
}

fn controlled(mode: Mode, until: Option<u64>, lag: u64, view: PoolView) -> Input {
    let until = until.map(Timestamp);
    let control = Some(Arc::new(Control { mode, until, by: "ann@desk".to_owned(), why: String::new() }));
    Input::Observed(Box::new(Observed {
        demand: demand(lag),
        queues: None,
        work: None,
        look_at: None,
        counters: Counters::default(),
        view: Ok(view),
        control,
    }))
}

#[test]
fn invariant_12_a_type_that_is_paused_or_observed_is_not_even_repaired() {
    for mode in [Mode::Paused, Mode::Observe] {
        let mut actor = actor_with(ScalingSettings { min_workers: 2, ..settings() }, false);
        at(&mut actor, 100_000, signals());
        let stalled = PoolView { stalled: vec![WorkerId::new("lame")], ..view(0, 0) };
        assert_eq!(at(&mut actor, 100_001, controlled(mode, None, 50, stalled)), []);
        assert!(actor.snapshot().control.is_some());
    }
}

#[test]
fn invariant_12_a_pause_of_one_direction_leaves_the_other_one_free() {
    let stalled = || PoolView { stalled: vec![WorkerId::new("lame")], ..view(1, 0) };
    for (mode, lag, view, expected) in [
        (Mode::PausedIn, 50, view(1, 0), Some(10)),
        (Mode::PausedIn, 0, view(3, 0), None),
        (Mode::PausedIn, 0, stalled(), Some(1)),
        (Mode::PausedOut, 50, view(1, 0), None),
        (Mode::PausedOut, 0, view(3, 0), Some(0)),
        (Mode::PausedOut, 50, stalled(), None),
    ] {
        let mut actor = actor_with(settings(), false);
        at(&mut actor, 100_000, signals());
        let effects = at(&mut actor, 100_001, controlled(mode, None, lag, view));
        let target = if effects.is_empty() { None } else { target_of(&effects) };
        assert_eq!(target, expected, "{mode:?} {lag}");
    }
}

#[test]
fn a_pin_is_written_at_once_and_looked_at_again_when_it_ends() {
    let mut actor = actor_with(settings(), false);
    at(&mut actor, 1_000, signals());
    let effects = at(&mut actor, 1_001, controlled(Mode::Pinned(3), Some(61_000), 0, view(0, 0)));
    assert_eq!(target_of(&effects), Some(3));
    at(&mut actor, 1_002, scaled(Ok(ScaleReport::default())));
    at(&mut actor, 1_060, Input::Tick);
    at(&mut actor, 1_061, controlled(Mode::Pinned(3), Some(61_000), 0, view(3, 0)));
    assert_eq!(actor.next_wake(), Some(Timestamp(61_000)));
}

/// Events that can happen to an actor.
#[derive(Clone, Debug)]
enum Happening {
    Signal,
    Pass(u64),
    Finish { lag: Option<u64>, idle: u32, busy: u32, fail: bool },
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        3 => Just(Happening::Signal),
        2 => (0_u64..200).prop_map(Happening::Pass),
        1 => (1_000_u64..100_000).prop_map(Happening::Pass),
        4 => (prop::option::weighted(0.9, 0_u64..100), 0_u32..6, 0_u32..6, prop::bool::weighted(0.2))
            .prop_map(|(lag, idle, busy, fail)| Happening::Finish { lag, idle, busy, fail }),
    ]
}

/// Returns the effects, with the times at which the actor asked for them.
fn play(actor: &mut Actor, happenings: &[Happening]) -> Vec<(u64, Effect)> {
    let mut now = 1_000;
    let mut under_way: Option<bool> = None;
    let mut seen = Vec::new();
    for happening in happenings {
        let input = match happening {
            Happening::Signal => Some(signals()),
            Happening::Pass(ms) => {
                now += ms;
                Some(Input::Tick)
            }
            Happening::Finish { lag, idle, busy, fail } => under_way.take().map(|observing| {
                if observing {
                    let demand = lag.map_or_else(|| Demand::failed("redis is away"), demand);
                    Input::Observed(Box::new(Observed {
                        demand,
                        queues: None,
                        work: None,
                        look_at: None,
                        counters: Counters::default(),
                        view: Ok(view(*idle, *busy)),
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
            match effect {
                Effect::Observe | Effect::Scale(..) => {
                    assert_eq!(under_way, None, "two effects under way at once");
                    under_way = Some(effect == Effect::Observe);
                }
                Effect::Record(_) => {}
            }
            seen.push((now, effect));
        }
    }
    seen
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
        prop_assert!(effects.iter().all(|(_, effect)| *effect == Effect::Observe), "{effects:?}");
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
                Effect::Observe => {}
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
                prop_assert_eq!(&pair[0].1, &Effect::Observe, "nothing comes between an observation and its write");
            }
        }
    }
}

#[test]
fn what_a_failed_scaling_did_in_part_counts_as_a_change() {
    let mut actor = actor_with(settings(), false);
    at(&mut actor, 1_000, signals());
    at(&mut actor, 1_001, observed(20, view(0, 0)));
    let done = ScaleReport { started: vec![WorkerId::new("a"), WorkerId::new("b")], retired: Vec::new() };
    let mut error = BackendError::retryable("no room");
    error.done = done;
    let effects = at(&mut actor, 1_002, scaled(Err(error)));
    let record = record_of(&effects).expect("failures are recorded too");
    assert_eq!((record.from, record.to), (0, 4));
    assert_eq!(record.change, Some(Change { at: Timestamp(1_002), from: 0, to: 2 }));
    assert_eq!(actor.snapshot().last_change, record.change);
}
