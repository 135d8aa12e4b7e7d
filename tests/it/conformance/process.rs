//! Processes of this machine.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc, time::Duration};

use rustix::process::Signal;
use secrecy::SecretString;
use swarm::{
    backend::{
        ScalingBackend,
        process::{ProcessBackend, ProcessSpec, Surroundings},
    },
    config::WorkerRedisUrl,
    model::{Clock, StopPolicy, StopSignal, WorkerId, WorkerType},
};
use tempfile::TempDir;
use tokio::sync::watch;

use super::Rig;
use crate::support::{
    processes::{kill, variable_of, with_variable},
    wait::eventually,
};

/// By which its workers are found.
const MARK: &str = "SWARM_TEST_CONFORMANCE";

pub(super) struct Processes {
    backend: ProcessBackend,
    directory: TempDir,
    changes: watch::Receiver<u64>,
}

impl Processes {
    fn program(&self) -> PathBuf {
        self.directory.path().join("worker")
    }

    /// Those that run the program already: before, they wait at the starting line.
    fn workers(&self) -> Vec<u32> {
        let (mark, program) = (self.directory.path().display().to_string(), self.program().display().to_string());
        let all = with_variable(MARK, &mark).into_iter();
        all.filter(|(_, command)| command.starts_with(&program)).map(|(id, _)| id).collect()
    }
}

impl Rig for Processes {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("worker");
        std::os::unix::fs::symlink("/bin/sleep", &program).unwrap();
        let mark = (MARK.to_owned(), directory.path().display().to_string());
        let spec = ProcessSpec {
            command: vec![program.display().to_string(), "100000".to_owned()],
            environment: BTreeMap::from([mark]),
            directory: None,
            drain_timeout: Duration::from_secs(5),
            stop: StopPolicy { signal: StopSignal::Term, hard_kill: true, ..StopPolicy::default() },
            redis_url: WorkerRedisUrl::Scaler,
        };
        let surroundings = Surroundings {
            swarm: PathBuf::from(env!("CARGO_BIN_EXE_swarm")),
            redis_url: SecretString::from("redis://example:6379/3"),
            config_file: None,
        };
        let (count, changes) = watch::channel(0);
        let on_change = Arc::new(move |_: &WorkerType| count.send_modify(|count| *count += 1));
        let types = BTreeMap::from([(WorkerType::new("shell"), spec)]);
        let backend = ProcessBackend::start(&types, surroundings, on_change, Clock::start()).await.unwrap();
        Self { backend, directory, changes }
    }

    fn backend(&self) -> &dyn ScalingBackend {
        &self.backend
    }

    fn worker_type(&self) -> WorkerType {
        WorkerType::new("shell")
    }

    async fn changed(&mut self) {
        self.changes.changed().await.unwrap();
    }

    async fn crash(&self, id: &WorkerId) {
        let is_it = |process: &u32| variable_of(*process, "SWARM_WORKER_ID") == id.as_str();
        let mut found = None;
        let there = eventually(super::DEADLINE, async || {
            found = self.workers().into_iter().find(is_it);
            found.is_some()
        });
        assert!(there.await, "no process of {id}");
        kill(found.unwrap(), Signal::KILL);
    }

    async fn allow_starts(&self, allowed: bool) {
        let (program, hidden) = (self.program(), self.directory.path().join("hidden"));
        if allowed { fs::rename(hidden, program).unwrap() } else { fs::rename(program, hidden).unwrap() }
    }

    async fn count(&self) -> usize {
        self.workers().len()
    }
}
