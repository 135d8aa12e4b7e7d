//! Drives the actor with made-up inputs: no runtime, no clock, no servers. Property tests carry the number of the
//! invariant that they prove (`docs/architecture.md`).

mod failures;
mod leading;
mod overrides;
mod partial;
mod properties;

use tokio::time::Instant;

use super::*;
use crate::{
    backend::{ErrorKind, ScaleReport},
    config::Strategy as Scaling,
    model::{
        Counters, PoolCounts, WorkerId, WorkerState,
        control::Control,
        snapshot::{WorkerSnapshot, WorkerStatus},
    },
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
    observed_under(None, lag, view)
}

fn observed_under(control: Option<Arc<Control>>, lag: u64, view: PoolView) -> Input {
    Input::Observed(Box::new(Observed {
        demand: demand(lag),
        queues: None,
        work: None,
        look_at: None,
        counters: Counters::default(),
        view: Ok(view),
        is_partial: false,
        control,
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
fn only_who_leads_asks_a_worker_again_that_may_have_missed_its_signal() {
    let unmoved = || PoolView { unmoved: vec![WorkerId::new("deaf")], ..view(1, 1) };
    for (leads, dry_run, asks) in [(true, false, true), (false, false, false), (true, true, false)] {
        let mut actor = actor_with(settings(), dry_run);
        if !leads {
            at(&mut actor, 1, Input::Follows);
        }
        at(&mut actor, 1_000, signals());
        let expected = if asks { vec![Effect::AskAgain(vec![WorkerId::new("deaf")])] } else { Vec::new() };
        assert_eq!(at(&mut actor, 1_001, observed(1, unmoved())), expected, "leads: {leads}, dry run: {dry_run}");
        assert!(actor.is_resting(), "nothing is waited for");
    }
}

#[test]
fn a_queue_that_latency_learns_from_is_looked_at_again_while_jobs_are_done_and_a_new_leader_goes_on() {
    let latency = ScalingSettings { strategy: Scaling::Latency, target_wait_seconds: 20, ..settings() };
    let mut actor = actor_with(latency, false);
    let look = |actor: &mut Actor, ms: u64, added: u64, read: u64| {
        at(actor, ms, signals());
        let (lag, pending) = (Reading::Known(added - read), Reading::Known(2));
        let demand = Demand { lag, pending, oldest: Reading::Known(None) };
        let counters = Counters { added: Some(added), read: Some(read), ..Counters::default() };
        let observed = Observed {
            demand,
            queues: None,
            work: None,
            look_at: None,
            counters,
            view: Ok(view(0, 2)),
            is_partial: false,
            control: None,
        };
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
    let counters = Counters { added: Some(10), read: Some(10), ..Counters::default() };
    let observed = Observed {
        demand: none,
        queues: None,
        work: None,
        look_at: None,
        counters,
        view: Ok(view(2, 0)),
        is_partial: false,
        control: None,
    };
    at(&mut actor, 6_000, Input::Observed(Box::new(observed)));
    assert!(actor.next_wake().is_none_or(|at| at >= Timestamp(60_000)), "{:?}", actor.next_wake());
}

#[test]
fn a_job_that_becomes_due_while_its_counts_are_on_their_way_is_looked_at_again() {
    let mut actor = actor_with(settings(), false);
    assert_eq!(at(&mut actor, 1_000, signals()), [Effect::Observe]);
    let Input::Observed(mut counted) = observed(0, view(0, 0)) else { panic!("it is one") };
    counted.look_at = Some(Timestamp(1_003));
    at(&mut actor, 1_010, Input::Observed(counted));
    let wake = actor.next_wake().expect("it looks again");
    assert!(wake < Timestamp(1_100), "{wake:?}");
    assert_eq!(at(&mut actor, wake.0, Input::Tick), [Effect::Observe]);
    at(&mut actor, wake.0 + 1, observed(0, view(0, 0)));
    assert!(actor.next_wake().is_none_or(|at| at >= Timestamp(30_000)), "{:?}", actor.next_wake());
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

#[test]
fn the_time_of_workers_counts_while_the_actor_leads() {
    let mut actor = actor_with(settings(), false);
    let seconds = |actor: &Actor| actor.snapshot().worker_seconds;
    for (ms, expected) in [(1_000, 0.0), (61_000, 180.0), (71_000, 210.0)] {
        at(&mut actor, ms, signals());
        at(&mut actor, ms, observed(3, view(1, 2)));
        assert!((seconds(&actor) - expected).abs() < 1e-9, "{ms}: {}", seconds(&actor));
    }
    // The next leader counts them.
    at(&mut actor, 72_000, Input::Follows);
    at(&mut actor, 131_000, signals());
    at(&mut actor, 131_000, observed(3, view(1, 2)));
    assert!((seconds(&actor) - 210.0).abs() < 1e-9, "{}", seconds(&actor));
}
