//! `swarm demo` as a user without a terminal runs it: it answers every job and leaves no process, however it ends.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// The shortest demo, and a loaded machine.
const DEADLINE: Duration = Duration::from_secs(90);
/// How long the guards may take when the demo is killed: the workers' and the server's time to leave, and some.
const CLEAN_UP: Duration = Duration::from_secs(20);
/// In the environment of everything that a demo starts: tells the processes of one test from all others.
const MARK: &str = "SWARM_DEMO_TEST";

/// A demo under way.
struct Demo {
    process: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    mark: String,
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
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines, mark }
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

/// Processes with this mark that are no zombies, by their command lines.
fn running(mark: &str) -> Vec<String> {
    let wanted = format!("{MARK}={mark}");
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
    let marked = processes.filter(|process| {
        // Unreadable ones are gone or someone else's; a zombie's environment is empty.
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
    });
    marked
        .map(|process| {
            String::from_utf8_lossy(&fs::read(process.join("cmdline")).unwrap_or_default()).replace('\0', " ")
        })
        .collect()
}

fn until_none_is_left(mark: &str, deadline: Duration) {
    let started = Instant::now();
    loop {
        let left = running(mark);
        if left.is_empty() {
            return;
        }
        assert!(started.elapsed() < deadline, "left after {deadline:?}: {left:#?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_demo_answers_every_job_and_leaves_no_process() {
    let started = Instant::now();
    let mut demo = Demo::start("complete");
    let mark = demo.mark.clone();
    demo.wait_for("act 1 of 4");
    assert!(running(&mark).iter().any(|command| command.contains("redis-server")), "the mark finds processes");
    demo.wait_for("tankpit 0 → ");
    demo.wait_for("act 4 of 4");
    let (rest, status) = demo.finish();
    assert!(status.success(), "{status}\n{rest}");
    assert!(rest.contains("Done: every job was answered"), "{rest}");
    assert!(rest.contains("0 failed, 0 lost"), "{rest}");
    assert!(rest.contains("→ 0  "), "tankpit is back at none: {rest}");
    assert!(rest.contains("swarm autoscaler"), "{rest}");
    assert!(!rest.contains('\u{1b}'), "no colours without a terminal: {rest}");
    assert_eq!(running(&mark), Vec::<String>::new());
    assert!(started.elapsed() < DEADLINE);
}

#[test]
fn ctrl_c_stops_the_demo_in_order() {
    let mut demo = Demo::start("interrupted");
    let mark = demo.mark.clone();
    demo.wait_for("act 2 of 4");
    demo.signal(Signal::INT);
    let (rest, status) = demo.finish();
    assert_eq!(status.code(), Some(130), "{rest}");
    assert!(rest.contains("Stopped on request"), "{rest}");
    assert!(rest.contains("published"), "{rest}");
    assert_eq!(running(&mark), Vec::<String>::new());
}

#[test]
fn a_killed_demo_leaves_no_process_either() {
    let mut demo = Demo::start("killed");
    let mark = demo.mark.clone();
    demo.wait_for("act 2 of 4");
    demo.signal(Signal::KILL);
    let status = demo.process.wait().unwrap();
    assert!(!status.success());
    until_none_is_left(&mark, CLEAN_UP);
}
