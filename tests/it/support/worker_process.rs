//! Runs `swarm worker` as a process with its own settings, and publishes jobs like any program.

use std::{
    fs::{self, File},
    process::{Child, Command},
    sync::atomic::{AtomicU64, Ordering},
};

use fred::prelude::Client;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    command::{answers, redis, waiting_and_pending},
    processes::{kill, with_variable},
    redis::RedisServer,
    wait::{DEADLINE, eventually},
};

/// Variable in the environment of the worker and its children.
const MARK: &str = "SWARM_TEST_MARK";

static NUMBER: AtomicU64 = AtomicU64::new(0);

/// Running worker.
pub(crate) struct WorkerProcess {
    pub(crate) directory: TempDir,
    process: Child,
    worker_type: &'static str,
    mark: String,
    client: Client,
}

impl WorkerProcess {
    /// Starts a worker for jobs of `worker_type`; `settings` is TOML.
    pub(crate) async fn start(server: &RedisServer, worker_type: &'static str, settings: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let config = format!("redis_url = \"{}\"\n{settings}", server.url());
        fs::write(directory.path().join("swarm.toml"), config).expect("the directory is ours");
        let mark = format!("{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let process = spawn(&directory, worker_type, &mark);
        Self { directory, process, worker_type, mark, client: server.client().await }
    }

    /// Starts a worker in place of a killed one.
    pub(crate) fn start_again(&mut self) {
        self.process = spawn(&self.directory, self.worker_type, &self.mark);
    }

    /// Reconnects to a restarted Redis.
    pub(crate) async fn reconnect(&mut self, server: &RedisServer) {
        self.client = server.client().await;
    }

    /// Returns the number of answers to a job.
    pub(crate) async fn answered(&self, id: &str) -> usize {
        answers(&self.client, id).await.len()
    }

    /// Returns the published jobs that are not completed: waiting, and taken.
    pub(crate) async fn unsettled(&self) -> u64 {
        let counts = waiting_and_pending(&self.client, &format!("{}:jobs", self.worker_type)).await;
        counts.map_or(u64::MAX, |(waiting, pending)| waiting + pending)
    }

    /// Publishes a job and returns its id.
    pub(crate) async fn publish(&self, method: &str, args: Value, more: Value) -> String {
        let id = format!("j{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut job = json!({
            "id": id, "type": format!("{}.{method}", self.worker_type), "args": args, "kwargs": {},
            "reply_to": format!("result:{id}"), "created_ts": 1.5,
        });
        if let (Value::Object(job), Value::Object(more)) = (&mut job, more) {
            job.extend(more);
        }
        let stream = format!("{}:jobs", self.worker_type);
        let client = &self.client;
        let _: String =
            fred::interfaces::StreamsInterface::xadd(client, stream, false, None, "*", ("json", job.to_string()))
                .await
                .expect("redis takes jobs");
        id
    }

    /// Waits for the answer to a job: its value, or its error.
    pub(crate) async fn answer(&self, id: &str) -> Result<Value, String> {
        let mut found = Vec::new();
        let there = eventually(DEADLINE, async || {
            found = answers(&self.client, id).await;
            !found.is_empty()
        });
        assert!(there.await, "no answer within {DEADLINE:?}; the worker says:\n{}", self.log());
        let answer = found.remove(0);
        if answer["ok"] == json!(true) {
            Ok(answer["value"].clone())
        } else {
            Err(answer["error"].as_str().unwrap_or("no error").to_owned())
        }
    }

    /// Publishes a job of a session and waits for the answer.
    pub(crate) async fn ask(&self, session: &str, method: &str, args: Value) -> Result<Value, String> {
        self.ask_with(method, args, json!({ "session": session })).await
    }

    /// Publishes a job with more fields and waits for the answer.
    pub(crate) async fn ask_with(&self, method: &str, args: Value, more: Value) -> Result<Value, String> {
        let id = self.publish(method, args, more).await;
        self.answer(&id).await
    }

    /// Returns a field of its heartbeat.
    pub(crate) async fn heartbeat(&self, field: &str) -> Option<String> {
        let keys: Vec<String> = redis(&self.client, "KEYS worker:heartbeat:*").await;
        redis(&self.client, &format!("HGET {} {field}", keys.first()?)).await
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Returns the worker and its running children, with their command lines.
    pub(crate) fn processes(&self) -> Vec<(u32, String)> {
        with_variable(MARK, &self.mark)
    }

    /// Sends SIGKILL to the worker only.
    pub(crate) fn kill(&mut self) {
        kill(self.process.id(), Signal::KILL);
        self.process.wait().expect("the worker is our child");
    }

    /// Sends SIGTERM and waits for the end.
    pub(crate) async fn leave(&mut self) {
        kill(self.process.id(), Signal::TERM);
        let left = eventually(DEADLINE, async || matches!(self.process.try_wait(), Ok(Some(_)))).await;
        assert!(left, "the worker does not leave; it says:\n{}", self.log());
    }
}

fn spawn(directory: &TempDir, worker_type: &str, mark: &str) -> Child {
    let log = File::options().create(true).append(true).open(directory.path().join("log"));
    Command::new(env!("CARGO_BIN_EXE_swarm"))
        .args(["worker", "--type", worker_type, "--concurrency", "4"])
        .current_dir(directory.path())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("TMPDIR", directory.path())
        .env("HOME", directory.path())
        .env(MARK, mark)
        .stderr(log.expect("the directory is ours"))
        .spawn()
        .expect("the binary was built for this test")
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
