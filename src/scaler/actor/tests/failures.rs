//! Failures of the backend and of starts, and workers that die.

use super::*;

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
            is_partial: false,
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
fn a_refused_scale_in_does_not_delay_a_scale_out() {
    let mut actor = actor_with(settings(), false);
    at(&mut actor, 100_000, signals());
    assert_eq!(target_of(&at(&mut actor, 100_001, observed(0, view(4, 0)))), Some(0));
    at(&mut actor, 100_002, scaled(failure(ErrorKind::Permanent, "no room")));
    at(&mut actor, 100_100, signals());
    assert_eq!(target_of(&at(&mut actor, 100_101, observed(30, view(4, 0)))), Some(6));
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
