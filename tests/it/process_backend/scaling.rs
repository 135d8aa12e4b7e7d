//! The number of workers, how workers leave, and the exits of those that die.

use super::*;

#[tokio::test]
async fn a_target_is_absolute_and_asking_twice_changes_nothing() {
    let bench = Bench::new(SLEEPER).await;
    let ids = bench.start(3).await;
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 3);
    assert!(ids.iter().all(|id| id.as_str().starts_with("shell-") && id.as_str().len() == "shell-".len() + 8));

    assert_eq!(bench.scale(3, &[], LONG).await.unwrap(), ScaleReport::default());
    assert_eq!(bench.scale(1, &[], LONG).await.unwrap(), ScaleReport::default(), "nobody was named");
    let pool = bench.pool().await;
    assert_eq!(pool.instances.iter().map(|instance| &instance.id).collect::<Vec<_>>(), ids.iter().collect::<Vec<_>>());
    assert!(pool.instances.iter().all(|instance| instance.phase == Phase::Running));
    for id in &ids {
        assert!(alive(bench.pid(id).await));
    }
    bench.backend.shutdown(false).await;
}

#[tokio::test]
async fn concurrent_requests_do_not_overshoot() {
    let bench = Bench::new(SLEEPER).await;
    let (a, b) = tokio::join!(bench.scale(5, &[], LONG), bench.scale(4, &[], LONG));
    assert_eq!(a.unwrap().started.len() + b.unwrap().started.len(), 5);
    assert_eq!(bench.pool().await.instances.len(), 5);
    bench.backend.shutdown(true).await;
}

#[tokio::test]
async fn exactly_the_named_workers_leave_and_no_exit_is_noted() {
    let mut bench = Bench::new(SLEEPER).await;
    let ids = bench.start(4).await;
    let gone = WorkerId::new("shell-gone");
    let retire = [ids[2].clone(), gone, ids[0].clone()];
    let pids = [bench.pid(&ids[0]).await, bench.pid(&ids[2]).await];

    let report = bench.scale(2, &retire, LONG).await.unwrap();
    assert_eq!(report, ScaleReport { started: vec![], retired: vec![ids[2].clone(), ids[0].clone()] });
    let pool = bench.until(|pool| pool.instances.len() == 2).await;
    assert_eq!(pool.instances.iter().map(|instance| &instance.id).collect::<Vec<_>>(), [&ids[1], &ids[3]]);
    assert_eq!(pool.exits, []);
    for pid in pids {
        dead(pid).await;
    }
    assert_eq!(bench.scale(2, &retire, LONG).await.unwrap(), ScaleReport::default());
    bench.backend.shutdown(true).await;
}

#[tokio::test]
async fn a_draining_worker_finishes_its_work_and_is_replaced_meanwhile() {
    let script = "trap 'echo yes > $SWARM_WORKER_ID.asked; while [ ! -e finish ]; do sleep 0.02; done; \
                  echo done > $SWARM_WORKER_ID.work; exit 0' TERM; echo $$ > $SWARM_WORKER_ID.pid; \
                  while :; do sleep 0.02; done";
    let mut bench = Bench::new(script).await;
    let ids = bench.start(1).await;
    bench.pid(&ids[0]).await;

    let report = bench.scale(1, &ids, LONG).await.unwrap();
    assert_eq!((report.retired, report.started.len()), (ids.clone(), 1));
    assert_eq!(bench.noted(&ids[0], "asked").await, "yes");
    let pool = bench.pool().await;
    assert_eq!(pool.instances.iter().map(|i| i.phase).collect::<Vec<_>>(), [Phase::Draining, Phase::Running]);

    bench.pid(&report.started[0]).await;
    fs::write(bench.directory.path().join("finish"), "").unwrap();
    let pool = bench.until(|pool| pool.instances.len() == 1).await;
    assert_eq!(pool.instances[0].id, report.started[0]);
    assert_eq!(bench.noted(&ids[0], "work").await, "done");
    bench.backend.shutdown(true).await;
}

#[tokio::test]
async fn after_the_drain_timeout_the_worker_and_its_descendants_are_killed() {
    let script = "trap '' TERM; sh -c 'trap \"\" TERM; echo $$ > $SWARM_WORKER_ID.child; while :; do sleep 0.1; done' & \
                  echo $$ > $SWARM_WORKER_ID.pid; wait";
    let mut bench = Bench::new(script).await;
    let ids = bench.start(1).await;
    let (worker, child) = (bench.pid(&ids[0]).await, bench.noted(&ids[0], "child").await.parse().unwrap());

    let asked_at = Instant::now();
    bench.scale(0, &ids, Duration::from_millis(300)).await.unwrap();
    bench.until(|pool| pool.instances.is_empty()).await;
    assert!(asked_at.elapsed() >= Duration::from_millis(300));
    dead(worker).await;
    dead(child).await;
    bench.backend.shutdown(true).await;
}

#[tokio::test]
async fn without_a_hard_kill_a_worker_takes_its_time_and_gets_its_own_signal_once() {
    let script = "trap 'echo term > $SWARM_WORKER_ID.wrong' TERM; \
                  trap 'echo quit >> $SWARM_WORKER_ID.asked' QUIT; echo $$ > $SWARM_WORKER_ID.pid; \
                  echo ${REDIS_URL-none} > $SWARM_WORKER_ID.url; \
                  while [ ! -e finish ]; do sleep 0.02; done; echo done > $SWARM_WORKER_ID.work";
    let patient = |spec: &mut ProcessSpec| {
        spec.stop = StopPolicy { signal: StopSignal::Quit, hard_kill: false, ..StopPolicy::default() };
        (spec.redis_url, spec.drain_timeout) = (WorkerRedisUrl::Absent, Duration::ZERO);
    };
    let mut bench = Bench::with(patient, script).await;
    let ids = bench.start(1).await;
    bench.pid(&ids[0]).await;
    assert_eq!(bench.noted(&ids[0], "url").await, "none");

    bench.scale(0, &ids, Duration::ZERO).await.unwrap();
    assert_eq!(bench.noted(&ids[0], "asked").await, "quit");
    // Longer than any kill that would follow its time, which is over.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(bench.pool().await.instances.len(), 1);
    fs::write(bench.directory.path().join("finish"), "").unwrap();
    bench.until(|pool| pool.instances.is_empty()).await;
    assert_eq!(bench.noted(&ids[0], "work").await, "done");
    assert_eq!(bench.noted(&ids[0], "asked").await, "quit");
    assert!(!bench.directory.path().join(format!("{}.wrong", ids[0])).exists());
    bench.backend.shutdown(true).await;
}

#[tokio::test]
async fn only_a_worker_that_was_asked_to_leave_is_asked_again() {
    let script = "n=0; trap 'n=$((n+1)); echo $n > $SWARM_WORKER_ID.asked; [ $n = 2 ] && exit' TERM; \
                  echo $$ > $SWARM_WORKER_ID.pid; while :; do sleep 0.02; done";
    let deaf = |spec: &mut ProcessSpec| spec.stop = StopPolicy { may_be_missed: true, ..StopPolicy::default() };
    let mut bench = Bench::with(deaf, script).await;
    let ids = bench.start(2).await;
    for id in &ids {
        bench.pid(id).await;
    }
    bench.scale(1, &ids[..1], LONG).await.unwrap();
    assert_eq!(bench.noted(&ids[0], "asked").await, "1");
    bench.backend.ask_again(&shell(), &ids);
    let pool = bench.until(|pool| pool.instances.len() == 1).await;
    assert_eq!((&pool.instances[0].id, pool.exits.len()), (&ids[1], 0));
    assert!(!bench.directory.path().join(format!("{}.asked", ids[1])).exists(), "it was never asked");
    bench.scale(0, &ids[1..], LONG).await.unwrap();
    assert_eq!(bench.noted(&ids[1], "asked").await, "1");
    bench.backend.ask_again(&shell(), &ids);
    bench.until(|pool| pool.instances.is_empty()).await;
    bench.backend.shutdown(true).await;
}

/// Says that a worker is done when a file exists.
struct DoneWhen(PathBuf);

#[async_trait::async_trait]
impl QuietWatch for DoneWhen {
    async fn is_done(&self, worker_type: &WorkerType, _: &WorkerId, _: Duration) -> bool {
        assert_eq!(*worker_type, shell());
        self.0.exists()
    }
}

fn quiet_first(spec: &mut ProcessSpec) {
    spec.stop = StopPolicy { quiet: Some(QuietSignal::Tstp), ..StopPolicy::default() };
}

/// Notes its signals, and leaves at SIGTERM.
const NOTING: &str = "trap 'echo tstp >> $SWARM_WORKER_ID.asked' TSTP; \
                      trap 'echo term >> $SWARM_WORKER_ID.asked; exit' TERM; \
                      echo $$ > $SWARM_WORKER_ID.pid; while :; do sleep 0.02; done";

#[tokio::test]
async fn a_worker_is_told_to_take_no_more_jobs_and_gets_its_stop_signal_when_it_has_none() {
    let mut bench = Bench::with(quiet_first, NOTING).await;
    let done = bench.directory.path().join("done");
    bench.backend.watch_quiet(Arc::new(DoneWhen(done.clone())));
    let ids = bench.start(1).await;
    bench.pid(&ids[0]).await;
    bench.scale(0, &ids, LONG).await.unwrap();
    assert_eq!(bench.noted(&ids[0], "asked").await, "tstp");
    // Longer than the time between two questions.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(bench.noted(&ids[0], "asked").await, "tstp", "it has a job");
    fs::write(done, "").unwrap();
    bench.until(|pool| pool.instances.is_empty()).await;
    assert_eq!(bench.noted(&ids[0], "asked").await, "tstp\nterm");
    bench.backend.shutdown(true).await;
}

#[tokio::test]
async fn a_worker_that_does_not_say_that_it_is_done_gets_its_stop_signal_after_its_drain_timeout() {
    let mut bench = Bench::with(quiet_first, NOTING).await;
    let ids = bench.start(1).await;
    bench.pid(&ids[0]).await;
    bench.scale(0, &ids, Duration::from_millis(300)).await.unwrap();
    bench.until(|pool| pool.instances.is_empty()).await;
    assert_eq!(bench.noted(&ids[0], "asked").await, "tstp\nterm");
    bench.backend.shutdown(true).await;
}

/// By default the signal suspends a program. One that does not handle it yet has no jobs.
#[tokio::test]
async fn a_worker_that_is_suspended_by_the_quiet_signal_is_asked_immediately() {
    let mut bench = Bench::with(quiet_first, SLEEPER).await;
    let ids = bench.start(1).await;
    bench.pid(&ids[0]).await;
    bench.scale(0, &ids, LONG).await.unwrap();
    bench.until(|pool| pool.instances.is_empty()).await;
    bench.backend.shutdown(true).await;
}

#[tokio::test]
async fn the_helpers_of_a_worker_leave_first_if_they_are_to() {
    let script = "(trap 'echo asked > $SWARM_WORKER_ID.helper; sleep 0.3; echo gone > $SWARM_WORKER_ID.helper; exit' TERM; \
                  echo yes > $SWARM_WORKER_ID.ready; while :; do sleep 0.02; done) & \
                  trap 'cat $SWARM_WORKER_ID.helper > $SWARM_WORKER_ID.then; exit' TERM; \
                  echo $$ > $SWARM_WORKER_ID.pid; while :; do sleep 0.02; done";
    let mut bench = Bench::with(|spec| spec.stop.helpers_first = true, script).await;
    let ids = bench.start(1).await;
    bench.pid(&ids[0]).await;
    bench.noted(&ids[0], "ready").await;
    bench.scale(0, &ids, LONG).await.unwrap();
    bench.until(|pool| pool.instances.is_empty()).await;
    assert_eq!(bench.noted(&ids[0], "then").await, "gone", "the worker was asked while its helper was there");
    bench.backend.shutdown(true).await;
}

#[tokio::test]
async fn a_death_is_an_exit_and_takes_the_descendants_along() {
    let script = "sleep 1000 & echo $! > $SWARM_WORKER_ID.child; while [ ! -e die ]; do sleep 0.02; done; exit 3";
    let mut bench = Bench::new(script).await;
    let ids = bench.start(1).await;
    let child = bench.noted(&ids[0], "child").await.parse().unwrap();

    fs::write(bench.directory.path().join("die"), "").unwrap();
    let pool = bench.until(|pool| !pool.exits.is_empty()).await;
    assert!(pool.instances.is_empty());
    let exit = &pool.exits[0];
    assert_eq!((exit.seq, &exit.id, exit.success, exit.detail.as_str()), (1, &ids[0], false, "exit code 3"));
    dead(child).await;
    bench.backend.shutdown(true).await;
}

#[tokio::test]
async fn exits_tell_success_and_signals_apart_and_are_numbered() {
    let mut bench = Bench::new(SLEEPER).await;
    let first = bench.start(1).await;
    kill(bench.pid(&first[0]).await, Signal::KILL);
    bench.until(|pool| pool.exits.len() == 1).await;
    let second = bench.start(1).await;
    kill(bench.pid(&second[0]).await, Signal::TERM);
    let pool = bench.until(|pool| pool.exits.len() == 2).await;
    let seen: Vec<_> = pool.exits.iter().map(|exit| (exit.seq, exit.detail.as_str())).collect();
    assert_eq!(seen, [(1, "signal 9 (SIGKILL)"), (2, "signal 15 (SIGTERM)")]);
    bench.backend.shutdown(true).await;

    let mut bench = Bench::new("exit 0").await;
    bench.start(1).await;
    let pool = bench.until(|pool| pool.exits.len() == 1).await;
    assert_eq!((pool.exits[0].success, pool.exits[0].detail.as_str()), (true, "exit code 0"));
    bench.backend.shutdown(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_deaths_at_once_are_all_noticed() {
    let mut bench = Bench::new("echo $$ > $SWARM_WORKER_ID.pid; while [ ! -e die ]; do sleep 0.1; done").await;
    for id in bench.start(100).await {
        bench.pid(&id).await;
    }
    fs::write(bench.directory.path().join("die"), "").unwrap();
    let pool = bench.until(|pool| pool.instances.is_empty()).await;
    assert_eq!(pool.exits.iter().map(|exit| exit.seq).collect::<Vec<_>>(), (85..=100).collect::<Vec<_>>());
    bench.backend.shutdown(true).await;
}

#[tokio::test]
async fn shutdown_asks_everyone_at_once() {
    let script = "trap 'echo yes > $SWARM_WORKER_ID.asked; while [ ! -e finish ]; do sleep 0.02; done; exit 0' TERM; \
                  echo $$ > $SWARM_WORKER_ID.pid; while :; do sleep 0.02; done";
    let bench = Bench::with(|spec| spec.drain_timeout = LONG, script).await;
    let ids = bench.start(4).await;
    for id in &ids {
        bench.pid(id).await;
    }
    // Nobody leaves before all have been asked.
    let let_go = async {
        for id in &ids {
            bench.noted(id, "asked").await;
        }
        fs::write(bench.directory.path().join("finish"), "").unwrap();
    };
    tokio::join!(bench.backend.shutdown(false), let_go);
    assert_eq!(bench.pool().await, Pool::default());
}

#[tokio::test]
async fn shutdown_kills_whoever_does_not_leave_and_starts_none() {
    let script = "trap '' TERM; echo $$ > $SWARM_WORKER_ID.pid; while :; do sleep 0.05; done";
    let bench = Bench::with(|spec| spec.drain_timeout = Duration::from_secs(1), script).await;
    let ids = bench.start(4).await;
    let mut pids = Vec::new();
    for id in &ids {
        pids.push(bench.pid(id).await);
    }
    bench.backend.shutdown(false).await;
    assert!(pids.into_iter().all(|pid| !alive(pid)));
    assert_eq!(bench.pool().await, Pool::default());
    assert_eq!(bench.scale(1, &[], LONG).await.unwrap_err().kind, ErrorKind::Permanent);
    bench.backend.shutdown(false).await;
}
