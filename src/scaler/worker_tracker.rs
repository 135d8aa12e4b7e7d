//! Who is there and who is worth what: brings together what the backend lists, what the heartbeats say, and who holds
//! delivered jobs. Remembers just enough of each worker to bridge a gap in what can be read. Pure.

use std::{collections::HashMap, time::Duration};

use crate::{
    backend::{Exit, ManualScale, Phase, Pool},
    model::{PoolCounts, Reading, Timestamp, WorkerId, WorkerState, snapshot::WorkerSnapshot},
    probe::{ConsumerPending, Heartbeat},
};

/// What is remembered of a worker.
#[derive(Clone, Copy, Debug)]
struct Memory {
    /// When it was last seen ready.
    ready_at: Option<Timestamp>,
    /// Since when it has been idle.
    idle_since: Option<Timestamp>,
}

/// Where a worker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WorkerStatus {
    Starting,
    Stalled,
    Idle,
    Busy,
    Draining,
    /// No capacity, as `Stalled`, but not to be replaced by us.
    Suspended,
}

/// The pool as of one observation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolView {
    /// How many are worth what.
    pub counts: PoolCounts,
    /// Every worker.
    pub workers: Vec<WorkerSnapshot>,
    /// Those that never became ready, or were lost: to be replaced.
    pub stalled: Vec<WorkerId>,
    /// Those that may be let go, in order: starting first (they hold nothing), then idle ones, longest idle first.
    pub idle: Vec<WorkerId>,
    /// Those that hold work; let go only when there are more workers than allowed.
    pub busy: Vec<WorkerId>,
    /// Workers that ended by themselves since the last observation.
    pub exits: Vec<Exit>,
    /// Changes made by somebody else since the last observation.
    pub manual: Vec<ManualScale>,
}

/// What a worker type's workers are expected to do.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// How long one may take until it is ready.
    pub start_grace: Duration,
    /// Whether they write heartbeats; if not, running is as good as ready.
    pub heartbeats: bool,
}

/// Keeps the memory from one observation to the next.
#[derive(Clone, Debug, Default)]
pub struct WorkerTracker {
    memories: HashMap<WorkerId, Memory>,
    exits_seen: u64,
    manual_seen: u64,
}

impl WorkerTracker {
    /// Takes stock. `heartbeats` are in the order of the pool's instances.
    pub fn classify(
        &mut self,
        pool: Pool,
        heartbeats: &Reading<Vec<Option<Heartbeat>>>,
        consumers: &Reading<Vec<ConsumerPending>>,
        expected: Expected,
        now: Timestamp,
    ) -> PoolView {
        let start_grace = expected.start_grace;
        let mut view = PoolView::default();
        let mut remembered = HashMap::with_capacity(pool.instances.len());
        let mut idle = Vec::new();
        for (position, instance) in pool.instances.into_iter().enumerate() {
            let heartbeat = heartbeats.known().and_then(|all| all.get(position)).and_then(Option::as_ref);
            let of_it = |consumer: &ConsumerPending| consumer.name == instance.id.as_str() && consumer.jobs > 0;
            let seen_with_jobs = consumers.known().map(|all| all.iter().any(of_it));
            // Not to know who holds jobs means that anyone may.
            let holds_jobs = seen_with_jobs.unwrap_or(true);
            let memory = self.memories.remove(&instance.id).unwrap_or(Memory { ready_at: None, idle_since: None });
            let status = match instance.phase {
                Phase::Draining => WorkerStatus::Draining,
                Phase::Suspended => WorkerStatus::Suspended,
                Phase::Failing if heartbeat.is_none() => {
                    without_heartbeat(memory, instance.started_at, start_grace, now)
                }
                Phase::Ready if heartbeat.is_none() => with_jobs(holds_jobs),
                Phase::Running if heartbeat.is_none() && !expected.heartbeats => with_jobs(holds_jobs),
                Phase::Ready | Phase::Running | Phase::Failing => match heartbeat.map(|h| (h.state, h.sessions)) {
                    // A heartbeat follows the delivery of a job: in between it still says idle.
                    Some((WorkerState::Idle, 0)) => with_jobs(seen_with_jobs == Some(true)),
                    Some((WorkerState::Idle | WorkerState::Waiting | WorkerState::Busy, _)) => WorkerStatus::Busy,
                    Some((WorkerState::Draining | WorkerState::Shutdown, _)) => WorkerStatus::Draining,
                    Some((WorkerState::Error, _)) => if_not_ready(instance.started_at, start_grace, now),
                    None if heartbeats.known().is_none() && memory.ready_at.is_some() => WorkerStatus::Busy,
                    None if heartbeats.known().is_none() => WorkerStatus::Starting,
                    None => without_heartbeat(memory, instance.started_at, start_grace, now),
                },
            };
            let seen_ready = heartbeat.is_some() && matches!(status, WorkerStatus::Idle | WorkerStatus::Busy);
            let memory = Memory {
                ready_at: if seen_ready { Some(now) } else { memory.ready_at },
                idle_since: (status == WorkerStatus::Idle).then(|| memory.idle_since.unwrap_or(now)),
            };
            match status {
                WorkerStatus::Starting => {
                    view.counts.starting += 1;
                    view.idle.push(instance.id.clone());
                }
                WorkerStatus::Stalled => {
                    view.counts.stalled += 1;
                    view.stalled.push(instance.id.clone());
                }
                WorkerStatus::Idle => {
                    view.counts.ready += 1;
                    idle.push((memory.idle_since, instance.id.clone()));
                }
                WorkerStatus::Busy => {
                    view.counts.ready += 1;
                    view.counts.busy += 1;
                    view.busy.push(instance.id.clone());
                }
                WorkerStatus::Draining => view.counts.draining += 1,
                WorkerStatus::Suspended => view.counts.stalled += 1,
            }
            view.workers.push(WorkerSnapshot {
                id: instance.id.clone(),
                state: heartbeat.map(|h| h.state),
                busy: status == WorkerStatus::Busy,
                draining: status == WorkerStatus::Draining,
                started_at: instance.started_at,
            });
            remembered.insert(instance.id, memory);
        }
        idle.sort();
        view.idle.extend(idle.into_iter().map(|(_, id)| id));
        view.exits = pool.exits.into_iter().filter(|exit| exit.seq > self.exits_seen).collect();
        self.exits_seen = view.exits.iter().map(|exit| exit.seq).max().unwrap_or(self.exits_seen);
        view.manual = pool.manual.into_iter().filter(|change| change.seq > self.manual_seen).collect();
        self.manual_seen = view.manual.iter().map(|change| change.seq).max().unwrap_or(self.manual_seen);
        self.memories = remembered;
        view
    }
}

fn with_jobs(holds_jobs: bool) -> WorkerStatus {
    if holds_jobs { WorkerStatus::Busy } else { WorkerStatus::Idle }
}

fn if_not_ready(started_at: Timestamp, start_grace: Duration, now: Timestamp) -> WorkerStatus {
    if now.since(started_at) < start_grace { WorkerStatus::Starting } else { WorkerStatus::Stalled }
}

/// A worker without a heartbeat is starting, until its grace is over. One that had been ready is given the same time again
/// and counts as busy in it: perhaps Redis lost its heartbeat, and it may hold a job.
fn without_heartbeat(memory: Memory, started_at: Timestamp, start_grace: Duration, now: Timestamp) -> WorkerStatus {
    match memory.ready_at {
        Some(ready_at) if now.since(ready_at) < start_grace => WorkerStatus::Busy,
        Some(_) => WorkerStatus::Stalled,
        None => if_not_ready(started_at, start_grace, now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Instance;

    const EXPECTED: Expected = Expected { start_grace: Duration::from_secs(60), heartbeats: true };

    fn pool(ids: &[&str], started_at: u64) -> Pool {
        let instance =
            |id: &&str| Instance { id: WorkerId::new(*id), phase: Phase::Running, started_at: Timestamp(started_at) };
        Pool { instances: ids.iter().map(instance).collect(), ..Pool::default() }
    }

    fn beats(states: &[Option<WorkerState>]) -> Reading<Vec<Option<Heartbeat>>> {
        Reading::Known(states.iter().map(|state| state.map(|state| Heartbeat { state, sessions: 0 })).collect())
    }

    #[test]
    fn heartbeats_tell_idle_from_busy_and_the_longest_idle_goes_first() {
        let mut worker_tracker = WorkerTracker::default();
        let (idle, busy) = (Some(WorkerState::Idle), Some(WorkerState::Busy));
        worker_tracker.classify(
            pool(&["a", "b", "c"], 0),
            &beats(&[busy, idle, busy]),
            &Reading::Known(Vec::new()),
            EXPECTED,
            Timestamp(1_000),
        );
        let view = worker_tracker.classify(
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
        let view = WorkerTracker::default().classify(pool(&["a", "b"], 0), &idle, &delivered, EXPECTED, Timestamp(1));
        assert_eq!((view.busy, view.idle), (vec![WorkerId::new("a")], vec![WorkerId::new("b")]));

        let unreadable = Reading::Failed("no permission".to_owned());
        let view = WorkerTracker::default().classify(pool(&["a", "b"], 0), &idle, &unreadable, EXPECTED, Timestamp(1));
        assert_eq!(view.counts.busy, 0, "the heartbeats are known and say idle");
    }

    #[test]
    fn a_worker_that_never_gets_ready_stalls_after_its_grace() {
        let mut worker_tracker = WorkerTracker::default();
        let starting = worker_tracker.classify(
            pool(&["a"], 0),
            &beats(&[None]),
            &Reading::Known(Vec::new()),
            EXPECTED,
            Timestamp(59_999),
        );
        assert_eq!((starting.counts.starting, starting.counts.stalled), (1, 0));
        let stalled = worker_tracker.classify(
            pool(&["a"], 0),
            &beats(&[None]),
            &Reading::Known(Vec::new()),
            EXPECTED,
            Timestamp(60_000),
        );
        assert_eq!((stalled.counts.starting, stalled.counts.stalled), (0, 1));
        assert_eq!(stalled.stalled, [WorkerId::new("a")]);
    }

    #[test]
    fn lost_heartbeats_are_bridged_before_anyone_is_replaced() {
        let mut worker_tracker = WorkerTracker::default();
        let late = 3_600_000;
        worker_tracker.classify(
            pool(&["a"], 0),
            &beats(&[Some(WorkerState::Idle)]),
            &Reading::Known(Vec::new()),
            EXPECTED,
            Timestamp(late),
        );
        let lost = worker_tracker.classify(
            pool(&["a"], 0),
            &beats(&[None]),
            &Reading::Known(Vec::new()),
            EXPECTED,
            Timestamp(late + 59_999),
        );
        assert_eq!((lost.counts.ready, lost.counts.busy), (1, 1));
        let gone = worker_tracker.classify(
            pool(&["a"], 0),
            &beats(&[None]),
            &Reading::Known(Vec::new()),
            EXPECTED,
            Timestamp(late + 60_000),
        );
        assert_eq!(gone.counts.stalled, 1);
    }

    #[test]
    fn unreadable_heartbeats_make_nobody_idle_or_stalled() {
        let mut worker_tracker = WorkerTracker::default();
        worker_tracker.classify(
            pool(&["a"], 0),
            &beats(&[Some(WorkerState::Idle)]),
            &Reading::Known(Vec::new()),
            EXPECTED,
            Timestamp(0),
        );
        let failed = Reading::Failed("down".to_owned());
        let view = worker_tracker.classify(
            pool(&["a", "b"], 0),
            &failed,
            &Reading::Known(Vec::new()),
            EXPECTED,
            Timestamp(600_000),
        );
        assert_eq!(view.counts, PoolCounts { ready: 1, busy: 1, starting: 1, ..PoolCounts::default() });
    }

    #[test]
    fn without_heartbeats_a_consumer_with_pending_jobs_is_busy() {
        let mut ready = pool(&["a", "b"], 0);
        ready.instances.iter_mut().for_each(|instance| instance.phase = Phase::Ready);
        let consumers = Reading::Known(vec![ConsumerPending { name: "a".to_owned(), jobs: 1 }]);
        let view =
            WorkerTracker::default().classify(ready, &beats(&[None, None]), &consumers, EXPECTED, Timestamp(600_000));
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
                WorkerTracker::default().classify(failing, &beats(&[beat]), &consumers, expected, Timestamp(now))
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
        let view = WorkerTracker::default().classify(suspended, &idle, &nobody, EXPECTED, Timestamp(1));
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
            let view = worker_tracker.classify(pool, &beats(&[]), &nobody, EXPECTED, Timestamp(1));
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
            WorkerTracker::default().classify(running, &beats(&[None, None]), &consumers, expected, Timestamp(1));
        assert_eq!(view.counts, PoolCounts { ready: 2, busy: 1, ..PoolCounts::default() });
    }
}
