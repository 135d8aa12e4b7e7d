//! The guard, which ends the workers of a killed autoscaler.

use super::*;
use crate::support::wait;

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

#[tokio::test]
async fn the_guard_sends_the_quiet_signal_first_and_the_stop_signal_when_the_time_for_jobs_is_over() {
    let directory = tempfile::tempdir().unwrap();
    let [ready, asked] = ["ready", "asked"].map(|name| directory.path().join(name));
    let script = format!(
        "trap 'echo tstp >> {1}' TSTP; trap 'echo term >> {1}; exit' TERM; echo yes > {0}; while :; do sleep 0.02; done",
        ready.display(),
        asked.display()
    );
    let mut leader = Command::new("sh").args(["-c", &script]).process_group(0).spawn().unwrap();
    noted(&ready).await;
    let mut guard = guard();
    let mut input = guard.stdin.take().unwrap();
    writeln!(input, "+{} - TERM TSTP 1", leader.id()).unwrap();
    drop(input);
    assert!(leader.wait().unwrap().success());
    assert!(guard.wait().unwrap().success());
    assert_eq!(noted(&asked).await, "tstp\nterm");
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

    // What failed for want of room works once there is room, which is a moment after the last end is told.
    bench.scale(0, &error.done.started, Duration::ZERO).await.unwrap();
    bench.until(|pool| pool.instances.is_empty()).await;
    let starts = async || bench.scale(1, &[], LONG).await.is_ok_and(|report| report.started.len() == 1);
    assert!(wait::eventually(DEADLINE, starts).await, "there is room again");
    bench.backend.shutdown(true).await;
}

#[test]
fn what_was_started_before_the_machine_was_full_is_told_and_worth_a_retry() {
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 48; exec \"$0\" --ignored --exact process_backend::guard::crowded_stand_in"])
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
            .args(["--ignored", "--exact", "--nocapture", "process_backend::guard::scaler_stand_in"])
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
