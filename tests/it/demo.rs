//! `swarm demo` as a user without a terminal runs it: it answers every job and leaves no process, however it ends.

use std::{
    fs,
    io::{BufRead, BufReader, Lines},
    net::TcpStream,
    path::PathBuf,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use crate::support::wait::DEADLINE;
use rustix::process::{Pid, Signal, kill_process};

/// In the environment of everything that a demo starts: tells the processes of one test from all others.
const MARK: &str = "SWARM_DEMO_TEST";

/// A demo under way.
struct Demo {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    traces: Traces,
}

/// How to find what a demo started: its processes by their mark, its server by its address, since a server that sets
/// its own process title wipes its environment.
#[derive(Clone)]
struct Traces {
    mark: String,
    redis: String,
}

impl Demo {
    fn start(name: &str) -> Self {
        let mark = format!("{name}-{}", std::process::id());
        let mut process = Command::new(env!("CARGO_BIN_EXE_swarm"))
            .args(["demo", "--duration", "8"])
            .env(MARK, &mark)
            // What a user has set for another Redis and other pools must not matter.
            .env("REDIS_URL", "redis://127.0.0.1:1/9")
            .env("BROWSER_JOB_QUEUE", "elsewhere")
            .env("TANKPIT_MIN_WORKERS", "900")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        let address = first.split_once("redis://").and_then(|(_, rest)| rest.split_once('/')).unwrap().0;
        Self { process, lines, traces: Traces { mark, redis: address.to_owned() } }
    }

    /// Reads on until a line has `text` in it.
    fn wait_for(&mut self, text: &str) {
        let mut seen = Vec::new();
        for line in self.lines.by_ref() {
            let line = line.unwrap();
            if line.contains(text) {
                return;
            }
            seen.push(line);
        }
        panic!("`{text}` did not come:\n{}", seen.join("\n"));
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw).unwrap();
        kill_process(id, signal).unwrap();
    }

    /// The rest of what it prints, and how it ends.
    fn finish(mut self) -> (String, ExitStatus) {
        let rest: Vec<String> = self.lines.by_ref().map(Result::unwrap).collect();
        (rest.join("\n"), self.process.wait().unwrap())
    }
}

impl Traces {
    /// What runs, by command line; zombies don't.
    fn running(&self) -> Vec<String> {
        let wanted = format!("{MARK}={}", self.mark);
        let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
        let marked = processes.filter(|process| {
            // Unreadable ones are gone or someone else's; a zombie's environment is empty.
            let environment = fs::read(process.join("environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
        });
        let command = |process: PathBuf| fs::read(process.join("cmdline")).unwrap_or_default();
        let words = |command: Vec<u8>| String::from_utf8_lossy(&command).replace('\0', " ");
        let server = TcpStream::connect(&self.redis).is_ok().then(|| format!("redis-server at {}", self.redis));
        marked.map(command).map(words).chain(server).collect()
    }

    fn assert_none_in_time(&self) {
        let started = Instant::now();
        loop {
            let left = self.running();
            if left.is_empty() {
                return;
            }
            assert!(started.elapsed() < DEADLINE, "left after {DEADLINE:?}: {left:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn the_demo_answers_every_job_and_leaves_no_process() {
    let started = Instant::now();
    let mut demo = Demo::start("complete");
    let traces = demo.traces.clone();
    demo.wait_for("act 1 of 4");
    let running = traces.running();
    for program in ["redis-server", "swarm worker --type browser", "swarm process-guard"] {
        assert!(running.iter().any(|command| command.contains(program)), "`{program}` is not in {running:#?}");
    }
    demo.wait_for("tankpit 0 → ");
    demo.wait_for("act 4 of 4");
    let (rest, status) = demo.finish();
    assert!(status.success(), "{status}\n{rest}");
    assert!(rest.contains("Done: every job was answered"), "{rest}");
    assert!(rest.contains("0 failed, 0 lost"), "{rest}");
    assert!(rest.contains("→ 0  "), "tankpit is back at none: {rest}");
    let last_change = rest.rfind("tankpit").map(|at| &rest[..at]).unwrap_or_default();
    assert!(last_change.contains("→ 0  ") && rest.contains("at rest: every pool"), "the last scale-in is told: {rest}");
    let pasted = rest.lines().find_map(|line| line.trim().strip_suffix("every setting")).expect(&rest);
    let program = pasted.split_whitespace().next().expect(&rest);
    let version = Command::new(program).arg("--version").output().expect("the command can be pasted");
    assert!(version.status.success() && program.ends_with("swarm"), "{pasted}");
    assert!(!rest.contains('\u{1b}'), "no colours without a terminal: {rest}");
    assert_eq!(traces.running(), Vec::<String>::new());
    assert!(started.elapsed() < DEADLINE);
}

#[test]
fn ctrl_c_stops_the_demo_in_order() {
    let mut demo = Demo::start("interrupted");
    let traces = demo.traces.clone();
    demo.wait_for("act 2 of 4");
    demo.signal(Signal::INT);
    let (rest, status) = demo.finish();
    assert_eq!(status.code(), Some(130), "{rest}");
    assert!(rest.contains("Stopped on request"), "{rest}");
    assert!(rest.contains("published"), "{rest}");
    assert_eq!(traces.running(), Vec::<String>::new());
}

#[test]
fn a_killed_demo_leaves_no_process_either() {
    let mut demo = Demo::start("killed");
    let traces = demo.traces.clone();
    demo.wait_for("act 2 of 4");
    demo.signal(Signal::KILL);
    let status = demo.process.wait().unwrap();
    assert!(!status.success());
    traces.assert_none_in_time();
}
