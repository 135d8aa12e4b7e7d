//! Tests of the task on a paused clock, with a backend and a queue in memory.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use secrecy::SecretString;

use super::*;
use crate::{
    backend::{Instance, Phase, ScaleRequest},
    config::{ScalingSettings, Switch},
    connection::RedisTarget,
    model::{Counters, Demand, Reading, Timestamp, WorkerState},
    probe::Heartbeat,
    scaler::{
        CanaryState, Recorder,
        actor::{Consequence, Tuning},
        worker_tracker::Expected,
    },
    signal::{Listener, ListenerSettings, SourceStatus, WatchedType},
};

/// A backend whose workers are ready immediately and leave immediately; it can be told to hang.
#[derive(Debug, Default)]
struct Workers {
    ids: Mutex<Vec<WorkerId>>,
    writes: Mutex<Vec<(Instant, u32)>>,
    hang: tokio::sync::Mutex<()>,
}

#[async_trait]
impl ScalingBackend for Workers {
    fn name(&self) -> &'static str {
        "memory"
    }

    async fn observe(&self, _: &WorkerType) -> Result<Pool, BackendError> {
        let instance = |id: &WorkerId| Instance::new(id.clone(), Phase::Ready, Timestamp(0));
        Ok(Pool { instances: self.ids.lock().unwrap().iter().map(instance).collect(), ..Pool::default() })
    }

    async fn scale(&self, request: ScaleRequest) -> Result<ScaleReport, BackendError> {
        self.writes.lock().unwrap().push((Instant::now(), request.target));
        let _released = self.hang.lock().await;
        let mut ids = self.ids.lock().unwrap();
        ids.retain(|id| !request.retire.contains(id));
        let mut report = ScaleReport::default();
        while ids.len() < request.target as usize {
            let id = WorkerId::new(format!("w{}", ids.len()));
            report.started.push(id.clone());
            ids.push(id);
        }
        Ok(report)
    }

    async fn shutdown(&self, _: bool) {}
}

/// One actor, with all parts that it talks to.
struct Rig {
    workers: Arc<Workers>,
    directory: Arc<Directory>,
    lag: Arc<AtomicU64>,
    looks: Arc<AtomicU64>,
    /// Heartbeats by key, and how many keys were read.
    heartbeats: Arc<Mutex<HashMap<String, Heartbeat>>>,
    read: Arc<AtomicU64>,
    shared: Arc<Shared>,
    shown: SnapshotCell,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<SuspendedActor>,
}

impl Rig {
    fn start(settings: ScalingSettings) -> Self {
        let worker_type = WorkerType::new("browser");
        let watched = WatchedType {
            worker_type: worker_type.clone(),
            queue: "browser:jobs".into(),
            kind: crate::queue_kind::QueueKind::Stream,
            several: None,
            signals: None,
        };
        let directory = Arc::new(Directory::new(vec![watched]));
        let target = RedisTarget::new(&SecretString::from("redis://127.0.0.1:1/0"), Duration::from_secs(1)).unwrap();
        let target = Arc::new(target);
        let off =
            ListenerSettings { keyspace: Switch::Off, channel: String::new(), tracking: Switch::Off, is_own: false };
        let source_status = Arc::new(SourceStatus::default());
        let (_, listener, _) = Listener::new(target.clone(), off, directory.clone(), source_status);
        let (_, recorder) = Recorder::new(target, "test".to_owned(), 10);
        let (lag, looks) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (heartbeats, read) = (Arc::new(Mutex::new(HashMap::new())), Arc::new(AtomicU64::new(0)));
        let prober = ProberHandle::answered_by({
            let (lag, looks, heartbeats, read) = (lag.clone(), looks.clone(), heartbeats.clone(), read.clone());
            move |request| {
                looks.fetch_add(1, Ordering::SeqCst);
                read.fetch_add(request.workers.heartbeats.len() as u64, Ordering::SeqCst);
                let lag = Reading::Known(lag.load(Ordering::SeqCst));
                let demand = Demand { lag, pending: Reading::Known(0), oldest: Reading::Known(None) };
                let there = heartbeats.lock().unwrap();
                let heartbeats = request.workers.heartbeats.iter().map(|key| Reading::Known(there.get(key).copied()));
                let heartbeats = Reading::Known(heartbeats.collect());
                Answer {
                    demand,
                    queues: None,
                    counters: Counters::default(),
                    consumers: Reading::Known(Vec::new()),
                    heartbeats,
                    all_exist: request.workers.existing.iter().all(|key| there.contains_key(key)),
                    framework: None,
                }
            }
        });
        let workers = Arc::new(Workers::default());
        let clock = Clock::start();
        let shared = Arc::new(Shared {
            is_own_server: false,
            trouble: Arc::default(),
            patience: Duration::from_secs(1),
            directory: directory.clone(),
            listener,
            prober,
            backend: workers.clone(),
            recorder,
            clock,
            sweep: Arc::new(SweepMonitor::default()),
            leadership: Leadership::unopposed("test", clock.now()),
            updates: Arc::default(),
            controls: Arc::default(),
            budget: Arc::default(),
            canary: CanaryState::flawless(),
            outages: Arc::default(),
        });
        let context = context(&shared, &settings);
        let debounce = Duration::from_millis(50);
        let actor = Actor::new(
            worker_type,
            "browser:jobs",
            Arc::new(settings),
            debounce,
            Consequence::Scale,
            None,
            clock.now(),
        );
        let shown = SnapshotCell::new(actor.snapshot().clone());
        let stop = CancellationToken::new();
        let task = tokio::spawn(run_actor(context, actor, shown.clone(), stop.clone()));
        Self { workers, directory, lag, looks, heartbeats, read, shared, shown, stop, task }
    }

    /// Suspends the actor and resumes it with these settings; `meanwhile` runs in between.
    async fn retuned(mut self, settings: ScalingSettings, changed: bool, meanwhile: impl FnOnce(&Self)) -> Self {
        self.stop.cancel();
        let suspended = (&mut self.task).await.expect("it does not panic");
        meanwhile(&self);
        self.stop = CancellationToken::new();
        let context = context(&self.shared, &settings);
        let (queue, debounce) = ("browser:jobs".to_owned(), Duration::from_millis(50));
        let tuning = Tuning { queue, settings: Arc::new(settings), debounce, changed };
        self.task = tokio::spawn(suspended.resume(context, tuning, self.stop.clone()));
        self
    }

    fn publish(&self, jobs: u64) {
        self.lag.fetch_add(jobs, Ordering::SeqCst);
        self.directory.post(0, Source::Keyspace);
    }

    /// Writes the heartbeats of these workers, without a signal.
    fn beat(&self, workers: &[&str], state: WorkerState) {
        let key = |id: &&str| keys::heartbeat(&WorkerType::new("browser"), &WorkerId::new(*id));
        let beats = workers.iter().map(|id| (key(id), Heartbeat { state, sessions: 0, places: None }));
        self.heartbeats.lock().unwrap().extend(beats);
    }

    /// Returns how many heartbeats are read while `times` signals of this source are answered.
    async fn read_after(&self, source: Source, times: u32) -> u64 {
        let before = self.read.load(Ordering::SeqCst);
        for _ in 0..times {
            self.directory.post(0, source);
            self.pass(Duration::from_millis(60)).await;
        }
        self.read.load(Ordering::SeqCst) - before
    }

    fn writes(&self) -> Vec<u32> {
        self.workers.writes.lock().unwrap().iter().map(|(_, target)| *target).collect()
    }

    /// Lets this time pass, and everything happen that is due.
    async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

fn context(shared: &Arc<Shared>, settings: &ScalingSettings) -> ActorContext {
    ActorContext {
        index: 0,
        worker_type: WorkerType::new("browser"),
        expected: Expected {
            is_foreign: false,
            ends_when_done: false,
            may_miss_stop_signal: false,
            start_grace: settings.start_grace(),
            heartbeats: true,
            heartbeat_lapse: Duration::from_secs(15),
            claim: Duration::from_secs(60),
        },
        shared: shared.clone(),
    }
}

fn settings() -> ScalingSettings {
    ScalingSettings { scale_up_threshold: 5, cooldown_seconds: 60, ..ScalingSettings::default() }
}

#[tokio::test(start_paused = true)]
async fn the_first_job_is_acted_on_without_any_delay() {
    let rig = Rig::start(settings());
    rig.publish(1);
    let published = Instant::now();
    rig.pass(Duration::from_millis(1)).await;
    let writes = rig.workers.writes.lock().unwrap().clone();
    assert_eq!(writes, [(published, 1)], "on a paused clock, at the very same instant");
}

#[tokio::test(start_paused = true)]
async fn a_steady_stream_of_signals_neither_starves_nor_floods() {
    let rig = Rig::start(settings());
    for _ in 0..1_000 {
        rig.publish(0);
        rig.pass(Duration::from_millis(1)).await;
    }
    // A thousand signals over a second cause one evaluation immediately, and one for each debounce.
    let looks = rig.looks.load(Ordering::SeqCst);
    assert!((20..=21).contains(&looks), "{looks}");
}

#[tokio::test(start_paused = true)]
async fn a_steady_flood_counts_as_one_although_each_signal_comes_alone() {
    let rig = Rig::start(settings());
    let mailbox = rig.directory.mailbox(0);
    let (mut reports, mut looks) = (0, 0);
    for number in 0..5_000 {
        if mailbox.post_counted(Source::Keyspace, Instant::now()) {
            reports += 1;
            looks = rig.looks.load(Ordering::SeqCst);
        }
        tokio::task::yield_now().await;
        if number % 10 == 0 {
            rig.pass(Duration::from_millis(1)).await;
        }
        // As the listener does before the next probe.
        if rig.looks.load(Ordering::SeqCst) > looks {
            mailbox.unmute();
        }
    }
    assert!((9..=11).contains(&reports), "{reports} reports; each debounce of 50 ms has 500 signals");
}

#[tokio::test(start_paused = true)]
async fn an_idle_pool_goes_down_when_its_cooldown_ends_without_any_signal() {
    let rig = Rig::start(settings());
    rig.publish(20);
    rig.pass(Duration::from_secs(1)).await;
    assert_eq!(rig.writes(), [4]);
    rig.lag.store(0, Ordering::SeqCst);
    rig.directory.post(0, Source::Sweep);
    rig.pass(Duration::from_secs(58)).await;
    assert_eq!(rig.writes(), [4], "held by the cooldown");
    rig.pass(Duration::from_secs(2)).await;
    assert_eq!(rig.writes(), [4, 0]);
}

#[tokio::test(start_paused = true)]
async fn signals_during_a_slow_backend_lead_to_one_more_write_of_the_newest_target() {
    let rig = Rig::start(settings());
    let hang = rig.workers.hang.lock().await;
    rig.publish(5);
    rig.pass(Duration::from_secs(1)).await;
    for _ in 0..10 {
        rig.publish(5);
        rig.pass(Duration::from_millis(100)).await;
    }
    assert_eq!(rig.writes(), [1], "at most one effect is under way");
    drop(hang);
    rig.pass(Duration::from_secs(1)).await;
    assert_eq!(rig.writes(), [1, 10], "what came in between is acted on once, at its newest");
}

#[tokio::test(start_paused = true)]
async fn a_stopped_actor_keeps_what_is_under_way_and_finishes_it() {
    let rig = Rig::start(settings());
    let hang = rig.workers.hang.lock().await;
    rig.publish(5);
    rig.pass(Duration::from_secs(1)).await;
    rig.stop.cancel();
    let suspended = rig.task.await.expect("ends without a panic");
    let never = CancellationToken::new();
    let finished = tokio::spawn(async move { suspended.finish(&never).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!finished.is_finished(), "waits for the backend");
    drop(hang);
    assert!(finished.await.expect("ends without a panic").is_none());
    assert_eq!(rig.workers.ids.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn new_settings_hold_at_once_and_what_is_under_way_goes_on() {
    let rig = Rig::start(settings());
    let workers = rig.workers.clone();
    let hang = workers.hang.lock().await;
    rig.publish(20);
    rig.pass(Duration::from_secs(1)).await;
    assert_eq!(rig.writes(), [4]);
    let rig = rig.retuned(ScalingSettings { scale_up_threshold: 2, ..settings() }, true, |_| {}).await;
    rig.pass(Duration::from_secs(1)).await;
    assert_eq!(rig.writes(), [4], "one write at a time, over the change too");
    drop(hang);
    rig.pass(Duration::from_secs(1)).await;
    assert_eq!((rig.writes(), workers.ids.lock().unwrap().len()), (vec![4, 10], 10));
    assert_eq!(rig.shown.get().desired, 10, "who watched before sees it");
}

#[tokio::test(start_paused = true)]
async fn a_cooldown_goes_on_over_new_settings() {
    let rig = Rig::start(settings());
    rig.publish(20);
    rig.pass(Duration::from_secs(30)).await;
    rig.lag.store(0, Ordering::SeqCst);
    let rig = rig.retuned(ScalingSettings { max_workers: 9, ..settings() }, true, |_| {}).await;
    rig.pass(Duration::from_secs(28)).await;
    assert_eq!(rig.writes(), [4], "neither over nor begun again");
    rig.pass(Duration::from_secs(4)).await;
    assert_eq!(rig.writes(), [4, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_signal_in_the_moment_of_the_change_is_not_lost() {
    let rig = Rig::start(settings());
    rig.pass(Duration::from_secs(1)).await;
    let rig = rig.retuned(settings(), false, |rig| rig.publish(1)).await;
    rig.pass(Duration::from_millis(100)).await;
    assert_eq!(rig.writes(), [1]);
    let looks = rig.looks.load(Ordering::SeqCst);
    let rig = rig.retuned(settings(), false, |_| {}).await;
    rig.pass(Duration::from_secs(1)).await;
    assert_eq!(rig.looks.load(Ordering::SeqCst), looks, "what has not changed is no reason to look");
}

#[tokio::test(start_paused = true)]
async fn heartbeats_of_idle_workers_are_read_after_news_and_time() {
    let rig = Rig::start(ScalingSettings { min_workers: 3, max_workers: 3, ..settings() });
    rig.beat(&["w0", "w1", "w2"], WorkerState::Idle);
    rig.directory.post(0, Source::Sweep);
    rig.pass(Duration::from_secs(1)).await;
    assert_eq!(rig.writes(), [3]);
    assert_eq!(rig.read_after(Source::Keyspace, 100).await, 0, "6 s in which nothing tells of workers");
    for source in [Source::Sweep, Source::Resync, Source::Leadership] {
        assert_eq!(rig.read_after(source, 1).await, 3, "{source:?}");
        assert_eq!(rig.read_after(Source::Channel, 1).await, 0, "{source:?}");
    }
    for (event, read) in [("browser", 3), ("browser w1", 1), ("browser other", 0), ("mail w1", 0)] {
        assert_eq!(rig.directory.worker_event(event), event.starts_with("browser"));
        assert_eq!(rig.read_after(Source::Channel, 1).await, read, "{event}");
    }
    assert_eq!(rig.read_after(Source::Backend, 1).await, 0, "its list is the news");
    rig.pass(Duration::from_secs(10)).await;
    assert_eq!(rig.read_after(Source::Keyspace, 2).await, 0, "they could have lapsed, and exist");
    rig.heartbeats.lock().unwrap().remove(&keys::heartbeat(&WorkerType::new("browser"), &WorkerId::new("w2")));
    rig.pass(Duration::from_secs(10)).await;
    assert_eq!(rig.read_after(Source::Keyspace, 1).await, 3, "one does not exist");
    rig.beat(&["w2"], WorkerState::Idle);
    assert_eq!(rig.read_after(Source::Keyspace, 2).await, 1, "it is back");
    rig.pass(Duration::from_secs(30)).await;
    assert_eq!(rig.read_after(Source::Keyspace, 2).await, 3, "from time to time");
    rig.beat(&["w1"], WorkerState::Busy);
    assert!(rig.directory.worker_event("browser w1"));
    assert_eq!(rig.read_after(Source::Keyspace, 1).await, 1);
    assert_eq!(rig.read_after(Source::Keyspace, 5).await, 5, "a busy worker at each look");
    let rig = rig.retuned(settings(), false, |_| {}).await;
    assert_eq!(rig.read_after(Source::Keyspace, 1).await, 3, "it may be another server");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_was_idle_at_the_last_reading_is_read_before_it_would_be_let_go() {
    let rig = Rig::start(settings());
    rig.publish(20);
    rig.pass(Duration::from_secs(1)).await;
    assert_eq!(rig.writes(), [4]);
    rig.beat(&["w0", "w1", "w2", "w3"], WorkerState::Idle);
    rig.pass(Duration::from_secs(120)).await;
    assert_eq!(rig.read_after(Source::Keyspace, 2).await, 4);
    // No signal tells of it, and the queue does not show it either.
    rig.beat(&["w0", "w2"], WorkerState::Busy);
    rig.lag.store(0, Ordering::SeqCst);
    assert_eq!(rig.read_after(Source::Keyspace, 1).await, 4 + 2, "before the decision, and to see its result");
    assert_eq!(rig.writes(), [4, 2]);
    assert_eq!(*rig.workers.ids.lock().unwrap(), ["w0", "w2"].map(WorkerId::new));
}
