//! What the tests of all frameworks need: a server, a producer of the framework, the autoscaler, and the marks of the
//! jobs.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{ChildStdin, ChildStdout, Command, Stdio},
};

use crate::support::{autoscaler::Autoscaler, needs::repository, processes::KillOnDrop, redis::RedisServer};

/// Packages of a language in which frameworks are written, as `.ci/install-test-servers` has unpacked them.
#[derive(Clone, Copy)]
pub(super) enum Packages {
    /// Python, with the newest client of Redis.
    Python,
    /// Python, with version 5 of that client: arq, and other versions of RQ and Celery.
    PythonRedis5,
    /// JavaScript.
    Node,
    /// Go: one program, compiled.
    Go,
}

impl Packages {
    /// Returns where they are.
    pub(super) fn directory(self) -> PathBuf {
        let name = match self {
            Self::Python => "frameworks",
            Self::PythonRedis5 => "frameworks-redis-5",
            Self::Node => "frameworks-node",
            Self::Go => "frameworks-go",
        };
        repository("target/test-servers").join(name).join("bin")
    }

    /// Returns how a program is started: one of the packages, or in JavaScript a script of the tests.
    pub(super) fn command(self, program: &str) -> String {
        let place = if let Self::Node = self { jobs() } else { self.programs() };
        format!("exec {} {}/{program}", self.interpreter().unwrap_or("env"), place.display())
    }

    /// Returns where their programs are.
    pub(super) fn programs(self) -> PathBuf {
        match self {
            Self::Python | Self::PythonRedis5 => self.directory().join("bin"),
            Self::Node | Self::Go => self.directory(),
        }
    }

    /// Returns the interpreter; `None` for compiled programs.
    fn interpreter(self) -> Option<&'static str> {
        match self {
            Self::Python | Self::PythonRedis5 => Some("python3"),
            Self::Node => Some("node"),
            Self::Go => None,
        }
    }

    /// Returns the variable that is the search path, and its value: the packages, and the jobs of the tests.
    pub(super) fn search_path(self) -> (&'static str, String) {
        let (directory, jobs) = (self.directory(), jobs());
        match self {
            Self::Python | Self::PythonRedis5 => ("PYTHONPATH", format!("{}:{}", directory.display(), jobs.display())),
            Self::Node => ("NODE_PATH", directory.join("node_modules").display().to_string()),
            Self::Go => ("PATH", std::env::var("PATH").unwrap_or_default()),
        }
    }
}

/// Returns where the jobs of the tests and their producers are.
pub(super) fn jobs() -> PathBuf {
    repository("tests/testdata/frameworks")
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
        Self::start_with(Packages::Python, &[script], broker)
    }

    /// Starts a script with arguments, on these packages.
    pub(super) fn start_with(packages: Packages, script: &[&str], broker: &str) -> Self {
        let (variable, path) = packages.search_path();
        let mut command = match packages.interpreter() {
            Some(interpreter) => {
                let mut command = Command::new(interpreter);
                command.arg(jobs().join(script[0]));
                command
            }
            None => Command::new(packages.directory().join(script[0])),
        };
        let mut process = command
            .args(&script[1..])
            .env(variable, path)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("BROKER", broker)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the interpreter is installed with the frameworks");
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

/// Returns the TOML of a worker type whose workers are those of a framework, on these packages.
pub(super) fn settings(
    packages: Packages,
    worker_type: &str,
    scaling: &str,
    framework: &str,
    command: &str,
    broker: &str,
) -> String {
    let command = serde_json::Value::from(command);
    let (variable, path) = packages.search_path();
    format!(
        "[worker_types.{worker_type}]\n{framework}scaling = {{ {scaling} }}\n\
         [worker_types.{worker_type}.process]\ncommand = [\"sh\", \"-c\", {command}]\n\
         environment = {{ {variable} = \"{path}\", BROKER = \"{broker}\", PYTHONDONTWRITEBYTECODE = \"1\" }}\n"
    )
}

/// Starts a server.
pub(super) fn server() -> RedisServer {
    RedisServer::start()
}
