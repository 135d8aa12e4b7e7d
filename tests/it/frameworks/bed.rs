//! What the tests of all frameworks need: a server, a producer of the framework, the autoscaler, and the marks of the
//! jobs.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{ChildStdin, ChildStdout, Command, Stdio},
};

use crate::support::{autoscaler::Autoscaler, needs::repository, processes::KillOnDrop, redis::RedisServer};

/// Where the frameworks are installed.
pub(super) fn installed() -> PathBuf {
    repository("target/test-servers/frameworks/bin")
}

/// Returns the search path of Python modules: the frameworks, and the jobs of the tests.
pub(super) fn python_path() -> String {
    format!("{}:{}", installed().display(), repository("tests/testdata/frameworks").display())
}

/// A running producer. It takes one line for a job.
pub(super) struct Producer {
    _process: KillOnDrop,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Producer {
    /// Starts `tests/testdata/frameworks/SCRIPT`.
    pub(super) fn start(script: &str, broker: &str) -> Self {
        let mut process = Command::new("python3")
            .arg(repository("tests/testdata/frameworks").join(script))
            .env("PYTHONPATH", python_path())
            .env("BROKER", broker)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is installed with the frameworks");
        let input = process.stdin.take().expect("it is piped");
        let output = BufReader::new(process.stdout.take().expect("it is piped"));
        Self { _process: KillOnDrop(process), input, output }
    }

    /// Enqueues one job: `KIND QUEUE JOB SECONDS [MORE]`.
    pub(super) fn enqueue(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("the producer runs");
        let mut answer = String::new();
        self.output.read_line(&mut answer).expect("the producer answers");
        assert_eq!(answer.trim(), "ok", "the producer fails for `{line}`");
    }
}

/// What jobs left as marks: how often each began and ended.
pub(super) fn marks(scaler: &Autoscaler) -> BTreeMap<String, (u32, u32)> {
    let mut marks = BTreeMap::<String, (u32, u32)>::new();
    for line in scaler.lines("marks") {
        let mut words = line.split(' ');
        let (what, job) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let counts = marks.entry(job.to_owned()).or_default();
        *(if what == "begin" { &mut counts.0 } else { &mut counts.1 }) += 1;
    }
    marks
}

/// Waits until this many jobs have ended.
pub(super) async fn until_ended(scaler: &Autoscaler, jobs: usize) {
    let what = format!("{jobs} jobs have ended");
    scaler.until(&what, async || marks(scaler).values().filter(|(_, ended)| *ended > 0).count() >= jobs).await;
}

/// Waits until no worker is left, not even one that leaves.
pub(super) async fn until_empty(scaler: &Autoscaler) {
    scaler.until("every worker has ended", async || scaler.of("mail").await.workers.is_empty()).await;
}

/// Asserts that every job that left a mark began once and ended once.
pub(super) fn assert_each_once(scaler: &Autoscaler, jobs: usize) {
    let marks = marks(scaler);
    assert_eq!(marks.len(), jobs);
    let others: Vec<_> = marks.iter().filter(|(_, counts)| **counts != (1, 1)).collect();
    assert!(others.is_empty(), "not begun and ended once: {others:?}\n{}", scaler.log());
}

/// Returns the TOML of a worker type whose workers are those of a framework.
pub(super) fn settings(worker_type: &str, scaling: &str, framework: &str, command: &str, broker: &str) -> String {
    let command = serde_json::Value::from(command);
    let path = python_path();
    format!(
        "[worker_types.{worker_type}]\n{framework}scaling = {{ {scaling} }}\n\
         [worker_types.{worker_type}.process]\ncommand = [\"sh\", \"-c\", {command}]\n\
         environment = {{ PYTHONPATH = \"{path}\", BROKER = \"{broker}\", PYTHONDONTWRITEBYTECODE = \"1\" }}\n"
    )
}

/// Starts a server.
pub(super) fn server() -> RedisServer {
    RedisServer::start()
}
