//! The process backend with real processes: shells that sleep, trap, print and die.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test as its own code does")]

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    io::{BufRead, BufReader, Lines, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use secrecy::SecretString;
use swarm::{
    backend::{
        BackendError, ErrorKind, Phase, Pool, ScaleReport, ScaleRequest, ScalingBackend,
        process::{ProcessBackend, ProcessSpec, Surroundings},
    },
    config::WorkerRedisUrl,
    model::{Clock, StopPolicy, StopSignal, WorkerId, WorkerType},
};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::support::processes;

const SWARM: &str = env!("CARGO_BIN_EXE_swarm");
/// Far more than anything here takes, so that a loaded machine fails no test.
const DEADLINE: Duration = Duration::from_secs(20);
/// A drain that no test waits for.
const LONG: Duration = Duration::from_secs(600);
/// Notes its process id under its name, and sleeps.
const SLEEPER: &str = "echo $$ > $SWARM_WORKER_ID.pid; exec sleep 1000";

/// A backend with one worker type, `shell`, whose workers run a script in a directory of their own.
struct Bench {
    backend: ProcessBackend,
    directory: TempDir,
    changes: watch::Receiver<u64>,
}

impl Bench {
    async fn new(script: &str) -> Self {
        Self::with(|_| {}, script).await
    }

    async fn with(adjust: impl FnOnce(&mut ProcessSpec), script: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut spec = spec(script, directory.path());
        adjust(&mut spec);
        let (count, changes) = watch::channel(0);
        let on_change = Arc::new(move |worker_type: &WorkerType| {
            assert_eq!(worker_type.as_str(), "shell");
            count.send_modify(|count| *count += 1);
        });
        let types = BTreeMap::from([(shell(), spec)]);
        let backend = ProcessBackend::start(&types, surroundings(), on_change, Clock::start()).await.unwrap();
        Self { backend, directory, changes }
    }

    async fn scale(&self, target: u32, retire: &[WorkerId], drain: Duration) -> Result<ScaleReport, BackendError> {
        let request = ScaleRequest { worker_type: shell(), target, retire: retire.to_vec(), drain_timeout: drain };
        self.backend.scale(request).await
    }

    async fn start(&self, count: u32) -> Vec<WorkerId> {
        self.scale(count, &[], LONG).await.unwrap().started
    }

    async fn pool(&self) -> Pool {
        self.backend.observe(&shell()).await.unwrap()
    }

    /// Waits for the backend to say that something changed until the pool is as wanted.
    async fn until(&mut self, wanted: impl Fn(&Pool) -> bool) -> Pool {
        let wait = async {
            loop {
                let pool = self.pool().await;
                if wanted(&pool) {
                    return pool;
                }
                self.changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.expect("the pool becomes as wanted, and the backend says so")
    }

    /// What a worker wrote to its file with this extension, once it has.
    async fn noted(&self, id: &WorkerId, extension: &str) -> String {
        noted(&self.directory.path().join(format!("{id}.{extension}"))).await
    }

    async fn pid(&self, id: &WorkerId) -> i32 {
        self.noted(id, "pid").await.parse().unwrap()
    }
}

fn shell() -> WorkerType {
    WorkerType::new("shell")
}

fn spec(script: &str, directory: &Path) -> ProcessSpec {
    ProcessSpec {
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        environment: BTreeMap::new(),
        directory: Some(directory.to_owned()),
        drain_timeout: Duration::from_secs(5),
        stop: StopPolicy { signal: StopSignal::Term, hard_kill: true, helpers_first: false },
        redis_url: WorkerRedisUrl::Scaler,
    }
}

fn surroundings() -> Surroundings {
    let redis_url = SecretString::from("redis://example:6379/3");
    Surroundings { swarm: PathBuf::from(SWARM), redis_url, config_file: Some(PathBuf::from("/etc/swarm.toml")) }
}

/// Polls what nobody notifies us of.
async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(started.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn noted(file: &Path) -> String {
    let what = file.display().to_string();
    let text = eventually(&what, || fs::read_to_string(file).ok().filter(|text| text.ends_with('\n'))).await;
    text.trim_end().to_owned()
}

/// Whether a process runs. A zombie whose new parent is slow to reap it does not.
fn alive(pid: i32) -> bool {
    processes::state_and_parent(pid).is_some_and(|(state, _)| state != 'Z')
}

async fn dead(pid: i32) {
    eventually(&format!("process {pid} ends"), || (!alive(pid)).then_some(())).await;
}

fn kill(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// The guard of a backend in this test process, found by its parent and command line.
fn guards_of(parent: u32) -> HashSet<i32> {
    let ours = |pid: &i32| processes::state_and_parent(*pid).is_some_and(|(state, of)| state != 'Z' && of == parent);
    let guard = |pid: &i32| processes::command_line(*pid).starts_with(&[SWARM.to_owned(), "process-guard".to_owned()]);
    processes::all().into_iter().filter(ours).filter(guard).collect()
}

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
        spec.stop = StopPolicy { signal: StopSignal::Quit, hard_kill: false, helpers_first: false };
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
async fn the_guard_waits_for_a_group_without_a_time_and_sends_its_signal() {
    let directory = tempfile::tempdir().unwrap();
    let [ready, asked, finish] = ["ready", "asked", "finish"].map(|name| directory.path().join(name));
    let [quoted_ready, quoted_asked, quoted_finish] = [&ready, &asked, &finish].map(|path| path.display().to_string());
    let script = format!(
        "trap 'echo int > {quoted_asked}' INT; echo yes > {quoted_ready}; \
         while [ ! -e {quoted_finish} ]; do sleep 0.02; done"
    );
    let mut leader = Command::new(SWARM);
    leader.args(["process-start", "--with-input", "sh", "-c", &script]).stdin(Stdio::piped()).process_group(0);
    let mut leader = leader.spawn().unwrap();
    leader.stdin.take().unwrap().write_all(b"\n").unwrap();
    noted(&ready).await;
    let mut guard = guard();
    let mut input = guard.stdin.take().unwrap();
    writeln!(input, "+{} - INT", leader.id()).unwrap();
    drop(input);
    assert_eq!(noted(&asked).await, "int");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(leader.try_wait().unwrap().is_none() && guard.try_wait().unwrap().is_none());
    fs::write(&finish, "").unwrap();
    assert!(leader.wait().unwrap().success());
    assert!(guard.wait().unwrap().success());
}

/// As for an autoscaler that a script runs in the background.
#[test]
fn a_worker_does_not_inherit_that_signals_are_ignored() {
    let script =
        format!("trap '' INT QUIT TERM; exec {SWARM} process-start -- sh -c 'kill -$1 $$; echo survived' sh $0");
    for signal in ["INT", "QUIT", "TERM"] {
        let mut start = Command::new("sh");
        start.args(["-c", &script, signal]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut worker = start.spawn().unwrap();
        writeln!(worker.stdin.take().unwrap()).unwrap();
        let output = worker.wait_with_output().unwrap();
        assert_eq!((output.status.success(), output.stdout.as_slice()), (false, &b""[..]), "{signal}");
    }
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
async fn a_missing_program_is_permanent_and_what_was_done_is_told() {
    let bench = Bench::with(|spec| spec.environment = BTreeMap::from([path("bin")]), SLEEPER).await;
    let bin = bench.directory.path().join("bin");
    fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink("/bin/sh", bin.join("sh")).unwrap();
    let ids = bench.start(2).await;

    fs::remove_dir_all(&bin).unwrap();
    let error = bench.scale(5, &ids[..1], LONG).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Permanent);
    assert_eq!(error.done, ScaleReport { started: vec![], retired: vec![ids[0].clone()] });
    assert!(error.message.contains("program `sh` of worker type `shell` was not found"), "{error}");
    assert_eq!(bench.pool().await.instances.iter().filter(|i| i.phase == Phase::Running).count(), 1);
    bench.backend.shutdown(true).await;
}

/// A PATH for the worker itself: its script needs no program but the shell's own.
fn path(entry: &str) -> (String, String) {
    ("PATH".to_owned(), entry.to_owned())
}

#[tokio::test]
async fn a_file_that_is_no_program_and_a_missing_directory_are_named() {
    let bench = Bench::with(|spec| spec.command = vec!["./notes.txt".to_owned()], "").await;
    fs::write(bench.directory.path().join("notes.txt"), "hello").unwrap();
    let error = bench.scale(1, &[], LONG).await.unwrap_err();
    assert!(error.message.contains("notes.txt` of worker type `shell` is not an executable file"), "{error}");
    assert_eq!(error.kind, ErrorKind::Permanent);

    let bench = Bench::with(|spec| spec.directory = Some("/does/not/exist".into()), SLEEPER).await;
    let error = bench.scale(1, &[], LONG).await.unwrap_err();
    assert!(error.message.contains("directory `/does/not/exist`"), "{error}");
    assert_eq!(error.kind, ErrorKind::Permanent);
}

#[tokio::test]
async fn a_program_that_does_not_run_after_all_exits_with_127() {
    let mut bench = Bench::with(|spec| spec.command = vec!["./broken".to_owned()], "").await;
    let file = bench.directory.path().join("broken");
    fs::write(&file, "#!/does/not/exist\n").unwrap();
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    bench.start(1).await;
    let pool = bench.until(|pool| !pool.exits.is_empty()).await;
    assert_eq!(pool.exits[0].detail, "exit code 127");
    bench.backend.shutdown(true).await;
}

#[tokio::test]
async fn an_unknown_worker_type_is_an_error_and_not_an_empty_pool() {
    let bench = Bench::new(SLEEPER).await;
    let error = bench.backend.observe(&WorkerType::new("other")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Permanent);
}

#[tokio::test]
async fn a_worker_knows_who_it_is_and_where_redis_is() {
    let script = "echo $SWARM_WORKER_TYPE $REDIS_URL $SWARM_CONFIG $MORE > $SWARM_WORKER_ID.env; exec sleep 1000";
    let more = BTreeMap::from([("MORE".to_owned(), "more".to_owned())]);
    let bench = Bench::with(|spec| spec.environment = more, script).await;
    let ids = bench.start(1).await;
    assert_eq!(bench.noted(&ids[0], "env").await, "shell redis://example:6379/3 /etc/swarm.toml more");
    bench.backend.shutdown(true).await;
}

/// Collects what is logged, as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn what_a_worker_prints_is_logged_in_bounded_lines_under_its_name() {
    let log = Log::default();
    let writer = log.clone();
    // With a single subscriber, `tracing` asks only that of the thread which reaches a line of the program first, and
    // remembers the answer for every thread. That may be the thread of another test, which has none.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let subscriber = tracing_subscriber::fmt().json().with_writer(move || writer.clone()).with_ansi(false).finish();
    let _guard = tracing::subscriber::set_default(subscriber);

    let script = "echo out; echo err >&2; printf 'bad \\377 byte\\n'; head -c 100000 /dev/zero | tr '\\0' x; exit 0";
    let mut bench = Bench::new(script).await;
    let ids = bench.start(1).await;
    bench.until(|pool| !pool.exits.is_empty()).await;
    bench.backend.shutdown(true).await;

    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let events = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let lines: Vec<String> = events
        .filter(|event| event["target"] == "swarm::worker_output")
        .map(|event| {
            assert_eq!((&event["level"], &event["fields"]["worker_type"]), (&"INFO".into(), &"shell".into()));
            assert_eq!(event["fields"]["worker_id"], ids[0].as_str());
            event["fields"]["message"].as_str().unwrap().to_owned()
        })
        .collect();
    for line in ["out", "err", "bad \u{fffd} byte"] {
        assert!(lines.iter().any(|seen| seen == line), "{line} in {lines:?}");
    }
    let pieces: Vec<_> = lines.iter().filter(|line| line.starts_with('x')).map(String::len).collect();
    assert_eq!(pieces.iter().sum::<usize>(), 100_000);
    assert!(pieces.iter().all(|&length| length <= 8 * 1024), "{pieces:?}");
}

#[tokio::test]
async fn shutdown_drains_everyone_at_once_leaves_no_process_and_starts_none() {
    let script = "trap '' TERM; echo $$ > $SWARM_WORKER_ID.pid; while :; do sleep 0.05; done";
    let bench = Bench::with(|spec| spec.drain_timeout = Duration::from_secs(1), script).await;
    let ids = bench.start(4).await;
    let mut pids = Vec::new();
    for id in &ids {
        pids.push(bench.pid(id).await);
    }
    let asked_at = Instant::now();
    bench.backend.shutdown(false).await;
    assert!(asked_at.elapsed() < Duration::from_secs(4), "one after the other: {:?}", asked_at.elapsed());
    assert!(pids.into_iter().all(|pid| !alive(pid)));
    assert_eq!(bench.pool().await, Pool::default());
    assert_eq!(bench.scale(1, &[], LONG).await.unwrap_err().kind, ErrorKind::Permanent);
    bench.backend.shutdown(false).await;
}

/// A process in a group of its own that ignores SIGTERM if `stubborn`, and a child of it.
async fn group(directory: &Path, name: &str, stubborn: bool) -> (Child, i32) {
    let trap = if stubborn { "trap '' TERM;" } else { "" };
    let file = directory.join(name);
    let script = format!("{trap} sleep 1000 & echo $! > {}; wait", file.display());
    let leader = Command::new("sh").args(["-c", &script]).process_group(0).spawn().unwrap();
    (leader, noted(&file).await.parse().unwrap())
}

fn guard() -> Child {
    let mut guard = Command::new(SWARM)
        .arg("process-guard")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(guard.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    guard
}

#[tokio::test]
async fn the_guard_ends_what_is_registered_when_its_input_ends_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let (mut willing, willing_child) = group(directory.path(), "willing", false).await;
    let (mut stubborn, stubborn_child) = group(directory.path(), "stubborn", true).await;
    let (mut forgotten, forgotten_child) = group(directory.path(), "forgotten", false).await;
    let mut guard = guard();
    let mut input = guard.stdin.take().unwrap();
    writeln!(input, "+{} 600 TERM\n+{} 1 TERM\n+{} 0 TERM", willing.id(), stubborn.id(), forgotten.id()).unwrap();
    writeln!(input, "-{}\nnonsense\n+0 0 TERM", forgotten.id()).unwrap();
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        kill(i32::try_from(guard.id()).unwrap(), signal);
    }
    assert!(guard.try_wait().unwrap().is_none());

    drop(input);
    // Reaped like the new parent of an orphan would do.
    willing.wait().unwrap();
    stubborn.wait().unwrap();
    assert!(guard.wait().unwrap().success());
    dead(willing_child).await;
    dead(stubborn_child).await;
    assert!(forgotten.try_wait().unwrap().is_none() && alive(forgotten_child));
    forgotten.kill().unwrap();
    forgotten.wait().unwrap();
    kill(forgotten_child, Signal::KILL);
}

/// Not a test of its own: the scaler that the tests below kill. Starts as many workers as each line of its input says.
#[tokio::test]
#[ignore = "run by the tests that kill it"]
#[expect(clippy::print_stdout, reason = "this is how it answers the test that runs it")]
async fn scaler_stand_in() {
    let bench = Bench::new(SLEEPER).await;
    let next = || std::io::stdin().lines().next();
    while let Some(Ok(target)) = tokio::task::spawn_blocking(next).await.unwrap() {
        for id in bench.start(target.parse().unwrap()).await {
            println!("worker {}", bench.pid(&id).await);
        }
        println!("complete");
    }
}

/// Not a test of its own: a scaler with too few file descriptors for the workers it is asked for.
#[tokio::test]
#[ignore = "run by the test that limits it"]
async fn crowded_stand_in() {
    let mut bench = Bench::new(SLEEPER).await;
    let error = bench.scale(100, &[], LONG).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Retryable, "{error}");
    assert!(error.message.contains("could not start a worker of `shell`"), "{error}");
    let pool = bench.pool().await;
    assert!(!error.done.started.is_empty());
    assert_eq!(pool.instances.into_iter().map(|instance| instance.id).collect::<Vec<_>>(), error.done.started);

    // What failed for want of room works once there is room.
    bench.scale(0, &error.done.started, Duration::ZERO).await.unwrap();
    bench.until(|pool| pool.instances.is_empty()).await;
    assert_eq!(bench.start(1).await.len(), 1);
    bench.backend.shutdown(true).await;
}

#[test]
fn what_was_started_before_the_machine_was_full_is_told_and_worth_a_retry() {
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 48; exec \"$0\" --ignored --exact process_backend::crowded_stand_in"])
        .arg(std::env::current_exe().unwrap())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

struct StandIn {
    scaler: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl StandIn {
    fn start() -> Self {
        let mut scaler = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "process_backend::scaler_stand_in"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = scaler.stdin.take().unwrap();
        let output = BufReader::new(scaler.stdout.take().unwrap()).lines();
        Self { scaler, input, output }
    }

    /// The process ids of the workers that it started, all of them running.
    fn scale(&mut self, target: u32) -> Vec<i32> {
        writeln!(self.input, "{target}").unwrap();
        let lines = self.output.by_ref().map_while(Result::ok).take_while(|line| line != "complete");
        // The test harness prints on the same line, before the first worker.
        let pids: Vec<i32> = lines.filter_map(|line| line.split_once("worker ")?.1.parse().ok()).collect();
        assert!(pids.iter().all(|&pid| alive(pid)));
        pids
    }

    fn kill(mut self) {
        self.scaler.kill().unwrap();
        self.scaler.wait().unwrap();
    }
}

#[tokio::test]
async fn no_worker_outlives_a_scaler_that_is_killed() {
    let mut scaler = StandIn::start();
    let workers = scaler.scale(3);
    assert_eq!(workers.len(), 3);
    scaler.kill();
    for pid in workers {
        dead(pid).await;
    }
}

#[tokio::test]
async fn a_guard_that_is_killed_is_replaced_by_one_that_knows_the_same_workers() {
    let mut scaler = StandIn::start();
    let mut workers = scaler.scale(3);
    let parent = scaler.scaler.id();
    let first = eventually("a guard runs", || guards_of(parent).into_iter().next()).await;
    kill(first, Signal::KILL);
    let another = || guards_of(parent).into_iter().find(|&guard| guard != first);
    let second = eventually("another guard runs", another).await;
    // A worker that runs now is known to the new guard, and those before it were made known first.
    workers.extend(scaler.scale(4));
    assert!(workers.len() == 4 && workers.iter().all(|&pid| alive(pid)), "a guard's death harms no worker");
    scaler.kill();
    for pid in workers {
        dead(pid).await;
    }
    dead(second).await;
}

#[test]
fn a_worker_at_the_starting_line_leaves_quietly_when_its_scaler_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ran");
    let output =
        Command::new(SWARM).args(["process-start", "--", "touch"]).arg(&file).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty());
    assert!(!file.exists());
}

#[test]
fn the_hidden_subcommands_are_hidden() {
    let help = Command::new(SWARM).arg("--help").output().unwrap();
    assert!(!String::from_utf8_lossy(&help.stdout).contains("process-"));
}
