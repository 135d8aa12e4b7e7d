//! The process backend with real processes: shells that sleep, trap, print and die.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test as its own code does")]

mod guard;
mod scaling;
mod starting;

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
        BackendError, ErrorKind, Phase, Pool, QuietWatch, ScaleReport, ScaleRequest, ScalingBackend,
        process::{ProcessBackend, ProcessSpec, Surroundings},
    },
    config::WorkerRedisUrl,
    model::{Clock, QuietSignal, StopPolicy, StopSignal, WorkerId, WorkerType},
};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::support::{processes, wait::DEADLINE};

const SWARM: &str = env!("CARGO_BIN_EXE_swarm");
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
        stop: StopPolicy { signal: StopSignal::Term, hard_kill: true, ..StopPolicy::default() },
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
