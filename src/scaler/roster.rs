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
enum Standing {
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
pub struct Census {
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
pub struct Roster {
    memories: HashMap<WorkerId, Memory>,
    exits_seen: u64,
    manual_seen: u64,
}

impl Roster {
    /// Takes stock. `heartbeats` are in the order of the pool's instances.
    pub fn take_stock(
        &mut self,
        pool: Pool,
        heartbeats: &Reading<Vec<Option<Heartbeat>>>,
        consumers: &Reading<Vec<ConsumerPending>>,
        expected: Expected,
        now: Timestamp,
    ) -> Census {
        let start_grace = expected.start_grace;
        let mut census = Census::default();
        let mut remembered = HashMap::with_capacity(pool.instances.len());
        let mut idle = Vec::new();
        for (position, instance) in pool.instances.into_iter().enumerate() {
            let heartbeat = heartbeats.known().and_then(|all| all.get(position)).and_then(Option::as_ref);
            let of_it = |consumer: &ConsumerPending| consumer.name == instance.id.as_str() && consumer.jobs > 0;
            let seen_with_jobs = consumers.known().map(|all| all.iter().any(of_it));
            // Not to know who holds jobs means that anyone may.
            let holds_jobs = seen_with_jobs.unwrap_or(true);
            let memory = self.memories.remove(&instance.id).unwrap_or(Memory { ready_at: None, idle_since: None });
            let standing = match instance.phase {
                Phase::Draining => Standing::Draining,
                Phase::Suspended => Standing::Suspended,
                Phase::Failing if heartbeat.is_none() => {
                    without_heartbeat(memory, instance.started_at, start_grace, now)
                }
                Phase::Ready if heartbeat.is_none() => with_jobs(holds_jobs),
                Phase::Running if heartbeat.is_none() && !expected.heartbeats => with_jobs(holds_jobs),
                Phase::Ready | Phase::Running | Phase::Failing => match heartbeat.map(|h| (h.state, h.sessions)) {
                    // A heartbeat follows the delivery of a job: in between it still says idle.
                    Some((WorkerState::Idle, 0)) => with_jobs(seen_with_jobs == Some(true)),
                    Some((WorkerState::Idle | WorkerState::Waiting | WorkerState::Busy, _)) => Standing::Busy,
                    Some((WorkerState::Draining | WorkerState::Shutdown, _)) => Standing::Draining,
                    Some((WorkerState::Error, _)) => if_not_ready(instance.started_at, start_grace, now),
                    None if heartbeats.known().is_none() && memory.ready_at.is_some() => Standing::Busy,
                    None if heartbeats.known().is_none() => Standing::Starting,
                    None => without_heartbeat(memory, instance.started_at, start_grace, now),
                },
            };
            let seen_ready = heartbeat.is_some() && matches!(standing, Standing::Idle | Standing::Busy);
            let memory = Memory {
                ready_at: if seen_ready { Some(now) } else { memory.ready_at },
                idle_since: (standing == Standing::Idle).then(|| memory.idle_since.unwrap_or(now)),
            };
            match standing {
                Standing::Starting => {
                    census.counts.starting += 1;
                    census.idle.push(instance.id.clone());
                }
                Standing::Stalled => {
                    census.counts.stalled += 1;
                    census.stalled.push(instance.id.clone());
                }
                Standing::Idle => {
                    census.counts.ready += 1;
                    idle.push((memory.idle_since, instance.id.clone()));
                }
                Standing::Busy => {
                    census.counts.ready += 1;
                    census.counts.busy += 1;
                    census.busy.push(instance.id.clone());
                }
                Standing::Draining => census.counts.draining += 1,
                Standing::Suspended => census.counts.stalled += 1,
            }
            census.workers.push(WorkerSnapshot {
                id: instance.id.clone(),
                state: heartbeat.map(|h| h.state),
                busy: standing == Standing::Busy,
                draining: standing == Standing::Draining,
                started_at: instance.started_at,
            });
            remembered.insert(instance.id, memory);
        }
        idle.sort();
        census.idle.extend(idle.into_iter().map(|(_, id)| id));
        census.exits = pool.exits.into_iter().filter(|exit| exit.seq > self.exits_seen).collect();
        self.exits_seen = census.exits.iter().map(|exit| exit.seq).max().unwrap_or(self.exits_seen);
        census.manual = pool.manual.into_iter().filter(|change| change.seq > self.manual_seen).collect();
        self.manual_seen = census.manual.iter().map(|change| change.seq).max().unwrap_or(self.manual_seen);
        self.memories = remembered;
        census
    }
}

fn with_jobs(holds_jobs: bool) -> Standing {
    if holds_jobs { Standing::Busy } else { Standing::Idle }
}

fn if_not_ready(started_at: Timestamp, start_grace: Duration, now: Timestamp) -> Standing {
    if now.since(started_at) < start_grace { Standing::Starting } else { Standing::Stalled }
}

/// A worker without a heartbeat is starting, until its grace is over. One that had been ready is given the same time again
/// and counts as busy in it: perhaps Redis lost its heartbeat, and it may hold a job.
fn without_heartbeat(memory: Memory, started_at: Timestamp, start_grace: Duration, now: Timestamp) -> Standing {
    match memory.ready_at {
        Some(ready_at) if now.since(ready_at) < start_grace => Standing::Busy,
        Some(_) => Standing::Stalled,
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
        let mut roster = Roster::default();
        let (idle, busy) = (Some(WorkerState::Idle), Some(WorkerState::Busy));
        roster.take_stock(
            pool(&["a", "b", "c"], 0),
            &beats(&[busy, idle, busy]),
            &Reading::Known(Vec::new()),
            EXPECTED,
            Timestamp(1_000),
        );
        let census = roster.take_stock(
            pool(&["a", "b", "c"], 0),
            &beats(&[idle, idle, busy]),
            &Reading::Known(Vec::new()),
            EXPECTED,
            Timestamp(2_000),
        );
        assert_eq!(census.counts, PoolCounts { ready: 3, busy: 1, ..PoolCounts::default() });
        assert_eq!(census.idle, [WorkerId::new("b"), WorkerId::new("a")]);
        assert_eq!(census.busy, [WorkerId::new("c")]);
    }

    #[test]
    fn a_job_just_delivered_makes_its_worker_busy_before_the_heartbeat_says_so() {
        let idle = beats(&[Some(WorkerState::Idle), Some(WorkerState::Idle)]);
        let delivered = Reading::Known(vec![ConsumerPending { name: "a".to_owned(), jobs: 1 }]);
        let census = Roster::default().take_stock(pool(&["a", "b"], 0), &idle, &delivered, EXPECTED, Timestamp(1));
        assert_eq!((census.busy, census.idle), (vec![WorkerId::new("a")], vec![WorkerId::new("b")]));

        let unreadable = Reading::Failed("no permission".to_owned());
        let census = Roster::default().take_stock(pool(&["a", "b"], 0), &idle, &unreadable, EXPECTED, Timestamp(1));
        assert_eq!(census.counts.busy, 0, "the heartbeats are known and say idle");
    }

    #[test]
    fn a_worker_that_never_gets_ready_stalls_after_its_grace() {
        let mut roster = Roster::default();
        let starting = roster.take_stock(
            pool(&["a"], 0),
            &beats(&[None]),
            &Reading::Known(Vec::new()),
            EXPECTED,
            Timestamp(59_999),
        );
        assert_eq!((starting.counts.starting, starting.counts.stalled), (1, 0));
        let stalled = roster.take_stock(
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
        let mut roster = Roster::default();
        let late = 3_600_000;
        roster.take_stock(
            pool(&["a"], 0),
            &beats(&[Some(WorkerState::Idle)]),
            &Reading::Known(Vec::new()),
            EXPECTED,
            Timestamp(late),
        );
        let lost = roster.take_stock(
            pool(&["a"], 0),
            &beats(&[None]),
            &Reading::Known(Vec::new()),
            EXPECTED,
            Timestamp(late + 59_999),
        );
        assert_eq!((lost.counts.ready, lost.counts.busy), (1, 1));
        let gone = roster.take_stock(
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
        let mut roster = Roster::default();
        roster.take_stock(
            pool(&["a"], 0),
            &beats(&[Some(WorkerState::Idle)]),
            &Reading::Known(Vec::new()),
            EXPECTED,
            Timestamp(0),
        );
        let failed = Reading::Failed("down".to_owned());
        let census =
            roster.take_stock(pool(&["a", "b"], 0), &failed, &Reading::Known(Vec::new()), EXPECTED, Timestamp(600_000));
        assert_eq!(census.counts, PoolCounts { ready: 1, busy: 1, starting: 1, ..PoolCounts::default() });
    }

    #[test]
    fn without_heartbeats_a_consumer_with_pending_jobs_is_busy() {
        let mut ready = pool(&["a", "b"], 0);
        ready.instances.iter_mut().for_each(|instance| instance.phase = Phase::Ready);
        let consumers = Reading::Known(vec![ConsumerPending { name: "a".to_owned(), jobs: 1 }]);
        let census =
            Roster::default().take_stock(ready, &beats(&[None, None]), &consumers, EXPECTED, Timestamp(600_000));
        assert_eq!(census.busy, [WorkerId::new("a")]);
        assert_eq!(census.idle, [WorkerId::new("b")]);
    }

    #[test]
    fn a_failing_worker_is_capacity_until_its_grace_is_over_whether_it_writes_heartbeats_or_not() {
        let consumers = Reading::Known(Vec::new());
        for heartbeats in [true, false] {
            let expected = Expected { heartbeats, ..EXPECTED };
            let standing = |now, beat| {
                let mut failing = pool(&["a"], 0);
                failing.instances[0].phase = Phase::Failing;
                Roster::default().take_stock(failing, &beats(&[beat]), &consumers, expected, Timestamp(now))
            };
            assert_eq!(standing(59_999, None).counts.starting, 1);
            assert_eq!(standing(60_000, None).stalled, [WorkerId::new("a")]);
            assert_eq!(standing(60_000, Some(WorkerState::Idle)).counts.ready, 1, "its heartbeat vouches for it");
        }
    }

    #[test]
    fn a_suspended_worker_is_no_capacity_and_left_alone() {
        let mut suspended = pool(&["a"], 0);
        suspended.instances[0].phase = Phase::Suspended;
        let (idle, nobody) = (beats(&[Some(WorkerState::Idle)]), Reading::Known(Vec::new()));
        let census = Roster::default().take_stock(suspended, &idle, &nobody, EXPECTED, Timestamp(1));
        assert_eq!(census.counts, PoolCounts { stalled: 1, ..PoolCounts::default() });
        assert!(census.stalled.is_empty() && census.idle.is_empty() && census.busy.is_empty());
    }

    #[test]
    fn a_manual_change_is_told_once() {
        let change = |seq| ManualScale { seq, from: 0, to: 1, at: Timestamp(1), detail: String::new() };
        let mut roster = Roster::default();
        let mut seqs = |told: &[u64]| {
            let pool = Pool { manual: told.iter().map(|seq| change(*seq)).collect(), ..Pool::default() };
            let nobody = Reading::Known(Vec::new());
            let census = roster.take_stock(pool, &beats(&[]), &nobody, EXPECTED, Timestamp(1));
            census.manual.iter().map(|change| change.seq).collect::<Vec<_>>()
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
        let census = Roster::default().take_stock(running, &beats(&[None, None]), &consumers, expected, Timestamp(1));
        assert_eq!(census.counts, PoolCounts { ready: 2, busy: 1, ..PoolCounts::default() });
    }
}
