use super::*;
use crate::{model::WorkerState, queue_kind::FrameworkWorker};

const EXPECTED: Expected = Expected {
    is_foreign: false,
    ends_when_done: false,
    may_miss_stop_signal: false,
    start_grace: Duration::from_secs(60),
    heartbeats: true,
    heartbeat_lapse: Duration::from_secs(15),
    claim: Duration::from_secs(90),
};

fn pool(ids: &[&str], started_at: u64) -> Pool {
    let instance = |id: &&str| Instance::new(WorkerId::new(*id), Phase::Running, Timestamp(started_at));
    Pool { instances: ids.iter().map(instance).collect(), ..Pool::default() }
}

/// Classifies while heartbeats can be written.
fn classify(
    tracker: &mut WorkerTracker,
    pool: Pool,
    heartbeats: &Heartbeats,
    consumers: &Reading<Vec<ConsumerPending>>,
    expected: Expected,
    now: Timestamp,
) -> PoolView {
    tracker.classify(
        pool,
        &Heard { heartbeats, consumers, occupation: None, channel: Channel::FLAWLESS },
        expected,
        now,
    )
}

fn beats(states: &[Option<WorkerState>]) -> Heartbeats {
    let beat = |state: &Option<WorkerState>| state.map(|state| Heartbeat { state, sessions: 0, places: None });
    Reading::Known(states.iter().map(|state| Reading::Known(beat(state))).collect())
}

#[test]
fn heartbeats_tell_idle_from_busy_and_the_longest_idle_goes_first() {
    let mut worker_tracker = WorkerTracker::default();
    let (idle, busy) = (Some(WorkerState::Idle), Some(WorkerState::Busy));
    classify(
        &mut worker_tracker,
        pool(&["a", "b", "c"], 0),
        &beats(&[busy, idle, busy]),
        &Reading::Known(Vec::new()),
        EXPECTED,
        Timestamp(1_000),
    );
    let view = classify(
        &mut worker_tracker,
        pool(&["a", "b", "c"], 0),
        &beats(&[idle, idle, busy]),
        &Reading::Known(Vec::new()),
        EXPECTED,
        Timestamp(2_000),
    );
    assert_eq!(view.counts, PoolCounts { ready: 3, busy: 1, ..PoolCounts::default() });
    assert_eq!(view.idle, [WorkerId::new("b"), WorkerId::new("a")]);
    assert_eq!(view.busy, [WorkerId::new("c")]);
}

#[test]
fn a_job_just_delivered_makes_its_worker_busy_before_the_heartbeat_says_so() {
    let idle = beats(&[Some(WorkerState::Idle), Some(WorkerState::Idle)]);
    let delivered = Reading::Known(vec![ConsumerPending { name: "a".to_owned(), jobs: 1 }]);
    let view = classify(&mut WorkerTracker::default(), pool(&["a", "b"], 0), &idle, &delivered, EXPECTED, Timestamp(1));
    assert_eq!((view.busy, view.idle), (vec![WorkerId::new("a")], vec![WorkerId::new("b")]));

    let unreadable = Reading::Failed("no permission".to_owned());
    let view =
        classify(&mut WorkerTracker::default(), pool(&["a", "b"], 0), &idle, &unreadable, EXPECTED, Timestamp(1));
    assert_eq!(view.counts.busy, 0, "the heartbeats are known and say idle");
}

#[test]
fn a_worker_that_never_gets_ready_stalls_after_its_grace() {
    let mut worker_tracker = WorkerTracker::default();
    let starting = classify(
        &mut worker_tracker,
        pool(&["a"], 0),
        &beats(&[None]),
        &Reading::Known(Vec::new()),
        EXPECTED,
        Timestamp(59_999),
    );
    assert_eq!((starting.counts.starting, starting.counts.stalled), (1, 0));
    let stalled = classify(
        &mut worker_tracker,
        pool(&["a"], 0),
        &beats(&[None]),
        &Reading::Known(Vec::new()),
        EXPECTED,
        Timestamp(60_000),
    );
    assert_eq!((stalled.counts.starting, stalled.counts.stalled), (0, 1));
    assert_eq!(stalled.stalled, [WorkerId::new("a")]);
}

/// After an outage of Redis every worker says for a moment that it can't take jobs.
#[test]
fn a_worker_that_cannot_take_jobs_is_replaced_only_if_that_lasts() {
    let mut tracker = WorkerTracker::default();
    let none = Reading::Known(Vec::new());
    let (idle, error) = (Some(WorkerState::Idle), Some(WorkerState::Error));
    let mut at = |states: &[Option<WorkerState>], seconds: u64| {
        classify(
            &mut tracker,
            pool(&["a", "b", "c", "d"], 0),
            &beats(states),
            &none,
            EXPECTED,
            Timestamp(seconds * 1_000),
        )
    };
    at(&[idle; 4], 3_600);
    for seconds in [3_601, 3_660] {
        let view = at(&[error, idle, idle, idle], seconds);
        assert_eq!((view.counts.ready, view.counts.possibly_busy, view.counts.stalled), (4, 1, 0), "{seconds}");
        assert_eq!((view.overdue.len(), view.failed_starts.len()), (0, 0), "{seconds}");
    }
    let view = at(&[error, idle, idle, idle], 3_671);
    assert_eq!(view.overdue, [WorkerId::new("a")], "a grace and a reconnect later");
    assert_eq!(at(&[idle; 4], 3_672).overdue, []);
    let view = at(&[error; 4], 3_800);
    assert_eq!(view.overdue, [], "all at once: the trouble is not theirs");

    let mut tracker = WorkerTracker::default();
    let view = classify(&mut tracker, pool(&["new"], 0), &beats(&[error]), &none, EXPECTED, Timestamp(59_999));
    assert_eq!(view.counts.starting, 1);
    let view = classify(&mut tracker, pool(&["new"], 0), &beats(&[error]), &none, EXPECTED, Timestamp(60_000));
    assert_eq!(view.stalled, [WorkerId::new("new")], "it never was ready");
}

const LATE: u64 = 3_600_000;

/// Returns the views of a pool of `workers` workers which were all heard at [`LATE`]. After that the first `silent` of
/// them have no heartbeat. One view for each time in `after`, in milliseconds after [`LATE`], with the channel as
/// given.
fn silenced(workers: usize, silent: usize, holder: Option<&str>, channel: Channel, after: &[u64]) -> Vec<PoolView> {
    let names: Vec<String> = (0..workers).map(|number| format!("w{number}")).collect();
    let ids: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut tracker = WorkerTracker::default();
    let holding = holder.map(|name| ConsumerPending { name: name.to_owned(), jobs: 1 });
    let consumers = Reading::Known(holding.into_iter().collect());
    classify(
        &mut tracker,
        pool(&ids, 0),
        &beats(&vec![Some(WorkerState::Idle); workers]),
        &consumers,
        EXPECTED,
        Timestamp(LATE),
    );
    let mut now = vec![Some(WorkerState::Idle); workers];
    now[..silent].fill(None);
    let heartbeats = beats(&now);
    let heard = Heard { heartbeats: &heartbeats, consumers: &consumers, occupation: None, channel };
    after.iter().map(|after| tracker.classify(pool(&ids, 0), &heard, EXPECTED, Timestamp(LATE + after))).collect()
}

#[test]
fn a_silent_worker_counts_as_possibly_busy_until_its_silence_counts() {
    let views = silenced(1, 1, None, Channel::FLAWLESS, &[69_999, 70_000]);
    let unheard = PoolCounts { ready: 1, possibly_busy: 1, ..PoolCounts::default() };
    assert_eq!(views.iter().map(|view| view.counts).collect::<Vec<_>>(), [unheard, unheard]);
    assert_eq!(views[0].look_at, Some(Timestamp(LATE + 70_000)));
    assert_eq!((views[0].overdue.len(), views[1].overdue.as_slice()), (0, &[WorkerId::new("w0")][..]));
    assert_eq!(views[1].workers[0].status, WorkerStatus::Unheard);
}

#[test]
fn a_silent_worker_with_a_job_is_left_alone_until_its_claim_has_lapsed() {
    let views = silenced(1, 1, Some("w0"), Channel::FLAWLESS, &[70_000, 89_999, 90_000]);
    assert_eq!(views.iter().map(|view| view.overdue.len()).collect::<Vec<_>>(), [0, 0, 1]);
}

#[test]
fn silence_says_nothing_while_heartbeats_could_not_be_written() {
    let views = silenced(1, 1, None, Channel::default(), &[70_000, 3_600_000]);
    assert!(views.iter().all(|view| view.overdue.is_empty() && view.stalled.is_empty()));
    assert_eq!(views[1].held, Some(Held::Unwritable { silent: 1 }));

    let since = Timestamp(LATE + 600_000);
    let back = Channel { writable_since: Some(since), connected_since: Some(since) };
    let views = silenced(1, 1, None, back, &[669_999, 670_000]);
    assert_eq!(views.iter().map(|view| view.overdue.len()).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn a_worker_that_never_wrote_stalls_only_when_it_could_have_written_for_its_grace() {
    let status = |channel, now| {
        let (heartbeats, consumers) = (beats(&[None]), Reading::Known(Vec::new()));
        let heard = Heard { heartbeats: &heartbeats, consumers: &consumers, occupation: None, channel };
        WorkerTracker::default().classify(pool(&["a"], 0), &heard, EXPECTED, Timestamp(now)).workers[0].status
    };
    let since = |at| Channel { writable_since: Some(Timestamp(at)), connected_since: None };
    assert_eq!(status(Channel::default(), 600_000), WorkerStatus::Starting);
    assert_eq!(status(since(550_000), 600_000), WorkerStatus::Starting);
    assert_eq!(status(since(540_000), 600_000), WorkerStatus::Stalled);
}

#[test]
fn a_mass_silence_holds_replacements_back_and_then_lets_them_go() {
    let views = silenced(9, 4, None, Channel::FLAWLESS, &[20_000, 70_000, 320_000]);
    let held = Held::Mass { silent: 4, of: 9, until: Timestamp(LATE + 320_000) };
    assert_eq!((views[0].held, views[1].held, views[2].held), (Some(held), Some(held), None));
    assert_eq!(views.iter().map(|view| view.overdue.len()).collect::<Vec<_>>(), [0, 0, 4]);
    assert_eq!(silenced(9, 3, None, Channel::FLAWLESS, &[70_000])[0].overdue.len(), 3, "no more than a third");
    assert_eq!(silenced(3, 3, None, Channel::FLAWLESS, &[20_000, 80_000])[1].overdue.len(), 3, "nobody else is left");
}

#[test]
fn a_blocked_worker_counts_and_is_let_go_first_and_never_replaced() {
    let mut blocked = pool(&["a", "b"], 0);
    blocked.instances[1].phase = Phase::Blocked;
    blocked.instances[1].reason = Some("0/3 nodes are available".to_owned());
    let nobody = Reading::Known(Vec::new());
    let beats = beats(&[Some(WorkerState::Idle), None]);
    let view = classify(&mut WorkerTracker::default(), blocked, &beats, &nobody, EXPECTED, Timestamp(LATE));
    assert_eq!(view.counts, PoolCounts { ready: 1, blocked: 1, ..PoolCounts::default() });
    assert_eq!(view.counts.current(), 2);
    assert_eq!(view.idle, [WorkerId::new("b"), WorkerId::new("a")]);
    assert!(view.stalled.is_empty() && view.overdue.is_empty() && view.failed_starts.is_empty());
    assert_eq!(view.workers[1].reason.as_deref(), Some("0/3 nodes are available"));
}

#[test]
fn where_the_platform_decides_who_goes_only_its_first_ones_may_leave_and_nobody_is_replaced() {
    let (idle, busy) = (Some(WorkerState::Idle), Some(WorkerState::Busy));
    let view = |groups: &[&[&str]], states: &[Option<WorkerState>], now| {
        let group = |group: &&[&str]| group.iter().map(|id| WorkerId::new(*id)).collect();
        let removal = Removal::ByOrder(groups.iter().map(group).collect());
        let pool = Pool { removal, ..pool(&["a", "b", "c", "d"], 0) };
        let nobody = Reading::Known(Vec::new());
        classify(&mut WorkerTracker::default(), pool, &beats(states), &nobody, EXPECTED, Timestamp(now))
    };
    let ids = |view: &PoolView| view.idle.iter().map(WorkerId::as_str).collect::<String>();
    let states = [idle, busy, idle, idle];
    let ordered = view(&[&["d"], &["c"], &["b"], &["a"]], &states, 1_000);
    assert_eq!((ids(&ordered), ordered.counts.must_stay), ("dc".to_owned(), 2));
    let ties = view(&[&["d"], &["c", "b"], &["a"]], &states, 1_000);
    assert_eq!((ids(&ties), ties.counts.must_stay), ("d".to_owned(), 3), "it may take either of two");
    let unknown = view(&[&["a", "b", "c", "d"]], &states, 1_000);
    assert_eq!((ids(&unknown), unknown.counts.must_stay), (String::new(), 4));
    let all_idle = view(&[&["a", "b", "c", "d"]], &[idle; 4], 1_000);
    assert_eq!((ids(&all_idle), all_idle.counts.must_stay), ("abcd".to_owned(), 0));

    let stalled = view(&[&["d"], &["c"], &["b"], &["a"]], &[idle, idle, idle, None], LATE);
    assert_eq!((stalled.stalled.len(), stalled.counts.current(), stalled.counts.stalled), (0, 4, 0));
    assert_eq!(ids(&stalled), "dcba");
    assert_eq!(stalled.failed_starts.len(), 1, "it is told nevertheless");
}

#[test]
fn the_grace_runs_from_the_start_of_the_process() {
    let status = |began_at, now| {
        let mut late = pool(&["a"], 0);
        late.instances[0].began_at = Some(Timestamp(began_at));
        let nobody = Reading::Known(Vec::new());
        classify(&mut WorkerTracker::default(), late, &beats(&[None]), &nobody, EXPECTED, Timestamp(now)).workers[0]
            .status
    };
    assert_eq!(status(240_000, 299_999), WorkerStatus::Starting);
    assert_eq!(status(240_000, 300_000), WorkerStatus::Stalled);
}

#[test]
fn a_worker_that_says_it_drains_is_leaving_and_one_that_says_nothing_lingers() {
    let mut leaving = pool(&["by-hand", "asked", "deaf"], 0);
    leaving.instances[1].phase = Phase::Draining;
    leaving.instances[2].phase = Phase::Draining;
    let beats = beats(&[Some(WorkerState::Draining), Some(WorkerState::Draining), None]);
    let nobody = Reading::Known(Vec::new());
    let view = classify(&mut WorkerTracker::default(), leaving, &beats, &nobody, EXPECTED, Timestamp(1));
    assert_eq!(view.counts, PoolCounts { draining: 3, lingering: 1, ..PoolCounts::default() });
    assert_eq!(view.leaving, [WorkerId::new("by-hand")]);
}

#[test]
fn a_worker_that_took_its_heartbeat_along_is_still_leaving() {
    let mut tracker = WorkerTracker::default();
    let nobody = Reading::Known(Vec::new());
    let mut look = |beat, now| {
        let view = classify(&mut tracker, pool(&["a"], 0), &beats(&[beat]), &nobody, EXPECTED, Timestamp(now));
        view.workers[0].status
    };
    assert_eq!(look(Some(WorkerState::Busy), 1), WorkerStatus::Busy);
    assert_eq!(look(Some(WorkerState::Draining), 2), WorkerStatus::Draining);
    assert_eq!(look(None, 3), WorkerStatus::Draining, "its process ends in a moment");
    assert_eq!(look(Some(WorkerState::Idle), 4), WorkerStatus::Idle, "it was called back");
}

/// Returns whether an exit is a failed start. The worker became ready a second after its start and stayed so for
/// `ready_for` seconds; `None`: it was never seen ready.
fn failed(ready_for: Option<u64>, lived: u64) -> bool {
    exit_is_failed_start(ready_for, lived, false, EXPECTED)
}

fn exit_is_failed_start(ready_for: Option<u64>, lived: u64, success: bool, expected: Expected) -> bool {
    let mut tracker = WorkerTracker::default();
    let nobody = Reading::Known(Vec::new());
    let beat = ready_for.map(|_| WorkerState::Busy);
    classify(&mut tracker, pool(&["a"], 0), &beats(&[beat]), &nobody, expected, Timestamp(1_000));
    let at = Timestamp(lived * 1_000);
    let (id, detail) = (WorkerId::new("a"), "signal 9 (SIGKILL)".to_owned());
    let exit = Exit { seq: 1, id, at, lived: Duration::from_secs(lived), success, detail };
    let gone = Pool { exits: vec![exit], ..Pool::default() };
    let view = classify(&mut tracker, gone, &beats(&[]), &nobody, expected, at);
    assert_eq!(view.exits.len(), 1);
    !view.failed_starts.is_empty()
}

#[test]
fn a_life_of_a_grace_after_ready_is_a_start_that_succeeded() {
    for (ready_for, lived, is_failed) in
        [(Some(69), 70, false), (Some(60), 61, false), (Some(59), 60, true), (None, 70, true), (None, 120, false)]
    {
        assert_eq!(failed(ready_for, lived), is_failed, "ready for {ready_for:?} of {lived} s");
    }
}

#[test]
fn a_worker_that_ends_when_its_jobs_are_done_has_started_if_it_was_ready_and_succeeded() {
    let ends = Expected { ends_when_done: true, ..EXPECTED };
    for (ready_for, success, expected, is_failed) in [
        (Some(9), true, ends, false),
        (Some(9), true, EXPECTED, true),
        (Some(9), false, ends, true),
        (None, true, ends, true),
    ] {
        let failed = exit_is_failed_start(ready_for, 10, success, expected);
        assert_eq!(failed, is_failed, "ready for {ready_for:?}, success: {success}");
    }
}

#[test]
fn a_worker_that_stalls_is_a_failed_start_once() {
    let mut tracker = WorkerTracker::default();
    let nobody = Reading::Known(Vec::new());
    let failures = [60_000, 61_000].map(|now| {
        let view = classify(&mut tracker, pool(&["a"], 0), &beats(&[None]), &nobody, EXPECTED, Timestamp(now));
        view.failed_starts.len()
    });
    assert_eq!(failures, [1, 0]);
}

#[test]
fn unreadable_heartbeats_make_nobody_idle_or_stalled() {
    let mut worker_tracker = WorkerTracker::default();
    classify(
        &mut worker_tracker,
        pool(&["a"], 0),
        &beats(&[Some(WorkerState::Idle)]),
        &Reading::Known(Vec::new()),
        EXPECTED,
        Timestamp(0),
    );
    let failed = Reading::Failed("down".to_owned());
    let view = classify(
        &mut worker_tracker,
        pool(&["a", "b"], 0),
        &failed,
        &Reading::Known(Vec::new()),
        EXPECTED,
        Timestamp(600_000),
    );
    assert_eq!(view.counts, PoolCounts { ready: 1, possibly_busy: 1, starting: 1, ..PoolCounts::default() });
}

#[test]
fn an_unreadable_heartbeat_says_nothing_of_other_workers() {
    let mut tracker = WorkerTracker::default();
    let (consumers, idle) = (Reading::Known(Vec::new()), Some(WorkerState::Idle));
    let mut heartbeats = beats(&[idle, idle, None]);
    classify(&mut tracker, pool(&["a", "b", "c"], 0), &heartbeats, &consumers, EXPECTED, Timestamp(0));
    let Reading::Known(all) = &mut heartbeats else { unreachable!("they are known") };
    all[0] = Reading::Failed("its primary is frozen".to_owned());
    all[2] = all[0].clone();
    let view = classify(&mut tracker, pool(&["a", "b", "c"], 0), &heartbeats, &consumers, EXPECTED, Timestamp(600_000));
    let statuses: Vec<WorkerStatus> = view.workers.iter().map(|worker| worker.status).collect();
    assert_eq!(statuses, [WorkerStatus::PossiblyBusy, WorkerStatus::Idle, WorkerStatus::Starting]);
    assert_eq!(view.idle, ["c", "b"].map(WorkerId::new));
}

#[test]
fn without_heartbeats_a_consumer_with_pending_jobs_is_busy() {
    let mut ready = pool(&["a", "b"], 0);
    ready.instances.iter_mut().for_each(|instance| instance.phase = Phase::Ready);
    let consumers = Reading::Known(vec![ConsumerPending { name: "a".to_owned(), jobs: 1 }]);
    let view =
        classify(&mut WorkerTracker::default(), ready, &beats(&[None, None]), &consumers, EXPECTED, Timestamp(600_000));
    assert_eq!(view.busy, [WorkerId::new("a")]);
    assert_eq!(view.idle, [WorkerId::new("b")]);
}

#[test]
fn a_failing_worker_is_capacity_until_its_grace_is_over_whether_it_writes_heartbeats_or_not() {
    let consumers = Reading::Known(Vec::new());
    for heartbeats in [true, false] {
        let expected = Expected { heartbeats, ..EXPECTED };
        let status = |now, beat| {
            let mut failing = pool(&["a"], 0);
            failing.instances[0].phase = Phase::Failing;
            classify(&mut WorkerTracker::default(), failing, &beats(&[beat]), &consumers, expected, Timestamp(now))
        };
        assert_eq!(status(59_999, None).counts.starting, 1);
        assert_eq!(status(60_000, None).stalled, [WorkerId::new("a")]);
        assert_eq!(status(60_000, Some(WorkerState::Idle)).counts.ready, 1, "its heartbeat vouches for it");
    }
}

#[test]
fn a_suspended_worker_is_no_capacity_and_left_alone() {
    let mut suspended = pool(&["a"], 0);
    suspended.instances[0].phase = Phase::Suspended;
    let (idle, nobody) = (beats(&[Some(WorkerState::Idle)]), Reading::Known(Vec::new()));
    let view = classify(&mut WorkerTracker::default(), suspended, &idle, &nobody, EXPECTED, Timestamp(1));
    assert_eq!(view.counts, PoolCounts { stalled: 1, ..PoolCounts::default() });
    assert!(view.stalled.is_empty() && view.idle.is_empty() && view.busy.is_empty());
}

#[test]
fn a_manual_change_is_told_once() {
    let change = |seq| ManualScale { seq, from: 0, to: 1, at: Timestamp(1), detail: String::new() };
    let mut worker_tracker = WorkerTracker::default();
    let mut seqs = |told: &[u64]| {
        let pool = Pool { manual: told.iter().map(|seq| change(*seq)).collect(), ..Pool::default() };
        let nobody = Reading::Known(Vec::new());
        let view = classify(&mut worker_tracker, pool, &beats(&[]), &nobody, EXPECTED, Timestamp(1));
        view.manual.iter().map(|change| change.seq).collect::<Vec<_>>()
    };
    assert_eq!(seqs(&[1, 2]), [1, 2]);
    assert_eq!(seqs(&[1, 2, 3]), [3]);
    assert_eq!(seqs(&[2, 3]), [0_u64; 0]);
}

#[test]
fn workers_that_write_no_heartbeats_are_ready_as_soon_as_they_run() {
    let expected = Expected { heartbeats: false, ..EXPECTED };
    let consumers = Reading::Known(vec![ConsumerPending { name: "a".to_owned(), jobs: 1 }]);
    let running = pool(&["a", "b"], 0);
    let view =
        classify(&mut WorkerTracker::default(), running, &beats(&[None, None]), &consumers, expected, Timestamp(1));
    assert_eq!(view.counts, PoolCounts { ready: 2, busy: 1, ..PoolCounts::default() });
}

#[test]
fn a_worker_of_a_framework_that_is_asked_to_leave_and_stays_idle_is_asked_again_at_a_slow_pace() {
    let expected = Expected { is_foreign: true, heartbeats: false, may_miss_stop_signal: true, ..EXPECTED };
    let occupied =
        |is_busy| Occupation::Stated(vec![FrameworkWorker { name: "a".to_owned(), is_busy, quiet_age: None }]);
    let mut tracker = WorkerTracker::default();
    let mut look = |phase: Phase, occupation: &Occupation, expected: Expected, at: u64| {
        let instances = vec![Instance::new(WorkerId::new("a"), phase, Timestamp(0))];
        let (heartbeats, consumers) = (beats(&[None]), Reading::Known(Vec::new()));
        let heard = Heard {
            heartbeats: &heartbeats,
            consumers: &consumers,
            occupation: Some(occupation),
            channel: Channel::FLAWLESS,
        };
        let pool = Pool { instances, ..Pool::default() };
        let view = tracker.classify(pool, &heard, expected, Timestamp(at));
        (view.unmoved.len(), view.look_at)
    };
    let (idle, busy) = (occupied(false), occupied(true));
    assert_eq!(look(Phase::Running, &idle, expected, 1_000), (0, None), "nobody asked it");
    assert_eq!(look(Phase::Draining, &idle, expected, 50_000), (0, Some(Timestamp(60_000))), "it has its time");
    assert_eq!(look(Phase::Draining, &idle, expected, 59_999), (0, Some(Timestamp(60_000))));
    assert_eq!(look(Phase::Draining, &idle, expected, 60_000), (1, Some(Timestamp(70_000))), "it has not left");
    assert_eq!(look(Phase::Draining, &idle, expected, 60_001), (0, Some(Timestamp(70_000))), "once for each time");
    assert_eq!(look(Phase::Draining, &busy, expected, 69_000), (0, None), "it has a job after all");
    assert_eq!(look(Phase::Draining, &Occupation::Unknown, expected, 90_000), (0, None), "unknown is not idle");
    assert_eq!(
        look(Phase::Draining, &Occupation::Stated(Vec::new()), expected, 90_001),
        (0, None),
        "it is about to end"
    );
    assert_eq!(look(Phase::Draining, &idle, expected, 100_000), (0, Some(Timestamp(110_000))), "idle from now on");
    assert_eq!(look(Phase::Draining, &idle, expected, 110_000).0, 1);
    let reliable = Expected { may_miss_stop_signal: false, ..expected };
    assert_eq!(look(Phase::Draining, &idle, reliable, 500_000), (0, None), "a second signal may end a job");
}

#[test]
fn a_worker_that_takes_no_more_jobs_is_no_capacity_and_is_let_go_when_it_has_none() {
    let expected = Expected { is_foreign: true, heartbeats: false, ..EXPECTED };
    let worker = |name: &str, is_busy, quiet_age| FrameworkWorker { name: name.to_owned(), is_busy, quiet_age };
    let second = Some(Duration::from_secs(1));
    let occupation =
        Occupation::Stated(vec![worker("a", true, second), worker("b", false, second), worker("c", false, None)]);
    let (heartbeats, consumers) = (beats(&[None, None, None]), Reading::Known(Vec::new()));
    let heard = Heard {
        heartbeats: &heartbeats,
        consumers: &consumers,
        occupation: Some(&occupation),
        channel: Channel::FLAWLESS,
    };
    let looked = |pool| WorkerTracker::default().classify(pool, &heard, expected, Timestamp(1));
    let view = looked(pool(&["a", "b", "c"], 0));
    assert_eq!(view.counts, PoolCounts { ready: 1, draining: 2, ..PoolCounts::default() });
    let [a, b, c] = ["a", "b", "c"].map(WorkerId::new);
    assert_eq!((&view.leaving[..], &view.spent[..], &view.idle[..]), (&[a.clone()][..], &[b.clone()][..], &[c][..]));
    // A platform that chooses by itself can't let go of this one.
    let ordered = Pool { removal: Removal::ByOrder(Vec::new()), ..pool(&["a", "b", "c"], 0) };
    let view = looked(ordered);
    assert_eq!((view.leaving, view.spent), (vec![a, b], Vec::new()));
}

/// As when KEDA goes from many to none: all leave within the time of one observation.
#[test]
fn a_worker_known_by_its_heartbeat_is_gone_without_it() {
    let known_by_heartbeat = || Pool { known_by_heartbeat: true, ..pool(&["a", "b", "c"], 0) };
    let mut worker_tracker = WorkerTracker::default();
    let mut counts = |heartbeats: &Heartbeats, at: u64| {
        let nobody = Reading::Known(Vec::new());
        classify(&mut worker_tracker, known_by_heartbeat(), heartbeats, &nobody, EXPECTED, Timestamp(at)).counts
    };
    let idle = Some(WorkerState::Idle);
    assert_eq!(counts(&beats(&[idle; 3]), 1_000).ready, 3);
    let unreadable = counts(&Reading::Failed("away".to_owned()), 2_000);
    assert_eq!(unreadable.possibly_busy, 3, "unknown is not gone");
    let left = counts(&beats(&[idle, None, None]), 3_000);
    assert_eq!((left.ready, left.possibly_busy), (1, 0));
}
