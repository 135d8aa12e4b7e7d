//! What `latency` learns of a queue.

use std::collections::VecDeque;

use proptest::prelude::*;
use swarm::{
    config::{ScalingSettings, Strategy as Scaling},
    model::{
        Counters, PoolCounts, Reading, Timestamp,
        snapshot::{Action, Change},
    },
    policy::{History, Observation, Reason, decide},
};

use crate::cases::{NOW, config, counts, demand, known_demand, steady_case};

/// A queue in which everything takes its time: when each job comes, is begun and is finished, in milliseconds.
struct Flowing {
    workers: u32,
    came: Vec<u64>,
    begun: Vec<u64>,
    finished: Vec<u64>,
}

impl Flowing {
    fn new(workers: u32, job_millis: u64, every_millis: u64, until: u64) -> Self {
        let came: Vec<u64> = (1..=until / every_millis).map(|job| job * every_millis).collect();
        let mut free_at = vec![0; workers as usize];
        let begun = came.iter().map(|came| {
            let worker = free_at.iter_mut().min().expect("there is one");
            let begun = (*worker).max(*came);
            *worker = begun + job_millis;
            begun
        });
        let begun: Vec<u64> = begun.collect();
        let finished = begun.iter().map(|begun| begun + job_millis).collect();
        Self { workers, came, begun, finished }
    }

    fn look(&self, settings: &ScalingSettings, history: &mut History, millis: u64) {
        let until = |times: &[u64]| times.partition_point(|time| *time <= millis) as u64;
        let (came, begun, finished) = (until(&self.came), until(&self.begun), until(&self.finished));
        let demand = demand(Reading::Known(came - begun), Reading::Known(begun - finished));
        let busy = u32::try_from(begun - finished).expect("no more than there are workers");
        let counts = PoolCounts { ready: self.workers, busy, ..PoolCounts::default() };
        let observation = Observation { demand, queues: None, allowance: None, pool: Reading::Known(counts) };
        let counters = Counters { added: Some(came), read: Some(begun), ..Counters::default() };
        history.note_flow(settings, Timestamp(NOW.0 + millis), &observation, counters);
    }
}

/// A queue whose workers are as many as `latency` wants, from one tenth of a second to the next.
struct Steered {
    settings: ScalingSettings,
    history: History,
    now: u64,
    /// When each worker is free.
    workers: Vec<u64>,
    waiting: VecDeque<u64>,
    added: u64,
    read: u64,
    look_at: u64,
}

const TENTH: u64 = 100;

impl Steered {
    fn new(settings: ScalingSettings) -> Self {
        let (workers, waiting) = (Vec::new(), VecDeque::new());
        Self { settings, history: History::new(NOW), now: 0, workers, waiting, added: 0, read: 0, look_at: 0 }
    }

    /// Jobs that come are signals; then workers take what waits. Gives how long each of those that were taken had
    /// waited.
    fn pass(&mut self, came: u64, job_millis: u64) -> Vec<u64> {
        self.now += TENTH;
        self.added += came;
        self.waiting.extend((0..came).map(|_| self.now));
        if came > 0 || self.now >= self.look_at {
            self.look();
        }
        let mut waits = Vec::new();
        let now = self.now;
        for free_at in self.workers.iter_mut().filter(|free_at| **free_at <= now) {
            let Some(since) = self.waiting.pop_front() else { break };
            *free_at = now + job_millis;
            self.read += 1;
            waits.push(now - since);
        }
        waits
    }

    fn look(&mut self) {
        let now = Timestamp(NOW.0 + self.now);
        let count = |of: usize| u32::try_from(of).expect("a few");
        let busy = self.workers.iter().filter(|free_at| **free_at > self.now).count();
        let demand = demand(Reading::Known(self.waiting.len() as u64), Reading::Known(busy as u64));
        let counts = PoolCounts { ready: count(self.workers.len()), busy: count(busy), ..PoolCounts::default() };
        let observation = Observation { demand, queues: None, allowance: None, pool: Reading::Known(counts) };
        let counters = Counters { added: Some(self.added), read: Some(self.read), ..Counters::default() };
        self.history.note_flow(&self.settings, now, &observation, counters);
        let decision = decide(&self.settings, &observation, &self.history, now);
        if let Some(recommendation) = decision.recommendation {
            self.history.note_recommendation(&self.settings, now, recommendation);
        }
        if decision.action != Action::Hold {
            self.history.note_change(Change { at: now, from: decision.current, to: decision.target });
            // Idle ones leave first.
            self.workers.sort_unstable_by(|one, other| other.cmp(one));
            self.workers.resize(decision.target as usize, 0);
        }
        let learns_at = self.history.learns_at(&self.settings, now, &observation);
        let next = [decision.recheck_at, learns_at, Some(now.after(std::time::Duration::from_secs(30)))];
        self.look_at = next.into_iter().flatten().min().expect("the sweep, at the latest").0 - NOW.0;
    }
}

fn learned_rates(history: &History, settings: &ScalingSettings) -> Option<(f64, f64)> {
    let pool = Reading::Known(PoolCounts { ready: 1, ..PoolCounts::default() });
    let observation =
        Observation { demand: demand(Reading::Known(1), Reading::Known(0)), queues: None, allowance: None, pool };
    let decision = decide(settings, &observation, history, Timestamp(NOW.0 + 600_000));
    decision.reasons.iter().find_map(|reason| match reason {
        Reason::Latency { job, arriving, .. } => {
            let arriving = f64::from(u32::try_from(*arriving).expect("few jobs a second"));
            Some((job.as_secs_f64(), arriving / 1e3))
        }
        _ => None,
    })
}

proptest! {
    #![proptest_config(config(200))]

    #[test]
    fn latency_learns_what_a_steady_queue_does_however_irregular_the_looks(
        job_millis in 200_u32..8_000,
        every_millis in 200_u32..4_000,
        workers in 1_u32..12,
        pauses in proptest::collection::vec(20_u64..1_500, 200..300),
    ) {
        let settings = ScalingSettings { strategy: Scaling::Latency, ..ScalingSettings::default() };
        let flowing = Flowing::new(workers, job_millis.into(), every_millis.into(), pauses.iter().sum());
        let mut history = History::new(NOW);
        let mut millis = 0;
        for pause in pauses {
            millis += pause;
            flowing.look(&settings, &mut history, millis);
        }
        let (job, arriving) = learned_rates(&history, &settings).expect("enough has finished");
        let (true_job, true_rate) = (f64::from(job_millis) / 1e3, 1e3 / f64::from(every_millis));
        // Looks are up to 1.5 s apart, so the time of a job that nobody waits for is known to about half of that.
        prop_assert!((job - true_job).abs() <= 0.75 + 0.15 * true_job, "{job} s a job, truly {true_job}");
        prop_assert!((arriving - true_rate).abs() <= 0.1 + 0.25 * true_rate, "{arriving} jobs/s, truly {true_rate}");
    }

    #[test]
    fn latency_keeps_waits_within_the_target_with_few_more_workers_than_that_takes(
        job_millis in 200_u32..6_000,
        jobs_per_100_s in 10_u32..600,
        target_wait_seconds in 2_u64..20,
        chances in proptest::collection::vec(0_u32..1_000, 6_000),
    ) {
        let settings = ScalingSettings {
            strategy: Scaling::Latency,
            target_wait_seconds,
            max_workers: 200,
            ..ScalingSettings::default()
        };
        let mut steered = Steered::new(settings);
        let (mut longest, mut worker_tenths) = (0, 0);
        for (tenth, chance) in chances.into_iter().enumerate() {
            let waits = steered.pass(u64::from(chance < jobs_per_100_s), job_millis.into());
            // The first minutes are for learning.
            if tenth >= 3_000 {
                longest = waits.into_iter().chain([longest]).max().unwrap_or(0);
                worker_tenths += steered.workers.len();
            }
        }
        let workers = f64::from(u32::try_from(worker_tenths).expect("few")) / 3_000.0;
        let load = f64::from(jobs_per_100_s) / 100.0 * f64::from(job_millis) / 1e3;
        prop_assert!(longest <= target_wait_seconds * 1_000 + u64::from(job_millis), "a job waited {longest} ms");
        // What comes by chance goes up and down by the root of it, and a high recommendation is remembered for a
        // minute.
        let most = 2.0f64.mul_add(load, 4.0 * load.sqrt()) + 3.0;
        prop_assert!(workers <= most, "{workers} workers for a load of {load}");
    }

    #[test]
    fn latency_survives_counters_that_jump_vanish_and_go_back(
        case in steady_case(known_demand()),
        looks in proptest::collection::vec(
            (0_u64..100_000, prop::option::of(any::<u64>()), prop::option::of(any::<u64>()), known_demand(), counts()),
            0..40,
        ),
    ) {
        let mut case = case;
        case.settings.strategy = Scaling::Latency;
        let mut now = NOW;
        for (pause, added, read, demand, counts) in looks {
            now = Timestamp(now.0 + pause);
            let observation = Observation { demand, queues: None, allowance: None, pool: Reading::Known(counts) };
            case.history.note_flow(&case.settings, now, &observation, Counters { added, read, ..Counters::default() });
            let decision = decide(&case.settings, &observation, &case.history, now);
            let bounds = decision.floor..=case.settings.max_workers;
            prop_assert!(bounds.contains(&decision.target), "{decision:?}");
            let told = decision.headline();
            prop_assert!(!told.contains("NaN") && !told.contains("inf"), "{told}");
        }
    }
}
