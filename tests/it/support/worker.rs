//! Runs the real `swarm worker` as a child process with its own settings, watched through its heartbeat and its log;
//! killed when dropped.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    process::{Child, ExitStatus, Stdio},
};

use fred::{interfaces::HashesInterface, prelude::Client};
use rustix::process::Signal;
use tempfile::TempDir;

use super::{
    autoscaler::swarm,
    log::Log,
    processes::kill,
    wait::{DEADLINE, eventually},
};

/// Running worker of type `t`.
pub(crate) struct WorkerProcess {
    process: Child,
    id: String,
    log: Log,
    directory: TempDir,
}

impl WorkerProcess {
    /// Starts worker `id` of type `t` with these lines in `[worker_types.t.worker]`.
    pub(crate) fn start(redis_url: &str, id: &str, worker: &str) -> Self {
        Self::start_with(redis_url, id, &format!("[worker_types.t.worker]\n{worker}\n"))
    }

    /// Starts worker `id` of type `t` with this configuration.
    pub(crate) fn start_with(redis_url: &str, id: &str, settings: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let file = directory.path().join("swarm.toml");
        fs::write(&file, format!("redis_url = \"{redis_url}\"\n{settings}")).expect("the directory is ours");
        let mut process = swarm(directory.path())
            .args(["worker", "--type", "t", "--id", id, "--config"])
            .arg(&file)
            .env("SWARM_LOG", "info,swarm=debug")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary was built for this test");
        let log = Log::capture(process.stderr.take().expect("it is piped"));
        Self { process, id: id.to_owned(), log, directory }
    }

    /// Returns all fields of its heartbeat; empty if there is none.
    pub(crate) async fn heartbeat(&self, client: &Client) -> HashMap<String, String> {
        client.hgetall(format!("worker:heartbeat:t:{}", self.id)).await.expect("the server answers")
    }

    /// Waits until its heartbeat has this state.
    pub(crate) async fn until_state(&self, client: &Client, state: &str) {
        self.until_field(client, "state", state).await;
    }

    /// Waits until a field of its heartbeat has this value. A heartbeat that was written late may be gone for a moment.
    pub(crate) async fn until_field(&self, client: &Client, field: &str, value: &str) {
        let is = async || self.heartbeat(client).await.get(field).is_some_and(|found| found == value);
        let told = eventually(DEADLINE, is).await;
        assert!(told, "worker {}: {field} is not {value}; its log:\n{}", self.id, self.log.tail());
    }

    /// Returns where it runs, with its settings.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Returns the log so far.
    pub(crate) fn log(&self) -> String {
        self.log.text()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.process.id(), signal);
    }

    /// Sends SIGKILL and waits until the process is gone.
    pub(crate) fn kill(&mut self) {
        self.process.kill().expect("it is our child");
        self.process.wait().expect("it is our child");
    }

    /// Waits for its end.
    pub(crate) async fn exit(&mut self) -> ExitStatus {
        let mut status = None;
        let ended = eventually(DEADLINE, async || {
            status = self.process.try_wait().expect("it is our child");
            status.is_some()
        })
        .await;
        assert!(ended, "worker {} does not end; its log:\n{}", self.id, self.log.tail());
        status.expect("it has ended")
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
