//! Runs the real `swarm autoscaler` as a child process: started with a TOML file, watched through its HTTP server and
//! its log, stopped by signals. Dropping it kills it, and none of its children may remain.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::StatusCode;
use rustix::process::Signal;
use serde_json::Value;
use swarm::model::{
    Source, Timestamp,
    snapshot::{FleetSnapshot, ReloadSnapshot, TypeSnapshot},
};
use tempfile::TempDir;

use super::{
    gate::Gate,
    http::get,
    log::Log,
    processes::{kill, with_variable},
    wait::{DEADLINE, eventually},
};

/// The binary under test.
pub(crate) const SWARM: &str = env!("CARGO_BIN_EXE_swarm");
/// Variable with the test's directory, in the environment of everything that the scaler starts. Workers may write
/// there, and it identifies remaining processes.
const DIRECTORY: &str = "SWARM_TEST_DIR";
/// Interval between two equal observations that show a scaler at rest.
const QUIET: Duration = Duration::from_millis(300);

/// Settings in which only a signal wakes the scaler.
pub(crate) const NO_SWEEP: &str = "[scaler]\nsweep_interval_seconds = 86400\n";
/// Added to [`NO_SWEEP`] or [`FAST_SWEEP`]: a single autoscaler, which acts without Redis too.
pub(crate) const ALONE: &str = "leader_lease_seconds = 0\n";
/// Added to [`NO_SWEEP`] or [`FAST_SWEEP`]: an order that Redis takes long for must not fail beside other tests.
pub(crate) const PATIENT: &str = "redis_timeout_ms = 30000\n";
/// Settings in which the sweep replaces all signals.
pub(crate) const FAST_SWEEP: &str = "[scaler]\nsweep_interval_seconds = 1\n";
/// Settings with keyspace notifications as the only signal.
pub(crate) const KEYSPACE: &str = "[signals]\nkeyspace = \"on\"\nchannel = \"\"\ntracking = \"off\"\n";
/// Settings with client-side-caching invalidations as the only signal.
pub(crate) const TRACKING: &str = "[signals]\nkeyspace = \"off\"\nchannel = \"\"\ntracking = \"on\"\n";
/// Worker that sleeps until it is asked to leave.
pub(crate) const SLEEPER: &str = "exec sleep 1000";

/// Returns the TOML of a worker type: `scaling` as `key = value, …`, and a shell script as its worker.
pub(crate) fn pool(name: &str, scaling: &str, script: &str) -> String {
    let script = Value::from(script);
    format!(
        "[worker_types.{name}]\nscaling = {{ {scaling} }}\nworker = {{ heartbeats = false }}\n\
         process = {{ command = [\"sh\", \"-c\", {script}] }}\n"
    )
}

/// Returns the TOML of a worker type with `swarm worker` as its worker, and a heartbeat every second.
pub(crate) fn real_pool(name: &str, scaling: &str) -> String {
    format!("[worker_types.{name}]\nscaling = {{ {scaling} }}\nworker = {{ heartbeat_seconds = 1 }}\n")
}

/// Like [`real_pool`], with jobs that wait for the gate.
pub(crate) fn gated_pool(name: &str, scaling: &str, gate: &Gate) -> String {
    let exec = gate.exec();
    format!("[worker_types.{name}]\nscaling = {{ {scaling} }}\nworker = {{ heartbeat_seconds = 1, {exec} }}\n")
}

/// Running autoscaler.
pub(crate) struct Autoscaler {
    process: Child,
    http: SocketAddr,
    log: Log,
    /// Directory of the test, kept until all children have ended.
    directory: Arc<TempDir>,
}

impl Autoscaler {
    /// Starts an autoscaler with these settings, plus the Redis URL and a free port, and waits until it listens.
    pub(crate) async fn start(redis_url: &str, settings: &str) -> Self {
        Self::start_with(redis_url, settings, &[]).await
    }

    /// Like [`Autoscaler::start`], with more flags.
    pub(crate) async fn start_with(redis_url: &str, settings: &str, flags: &[&str]) -> Self {
        let directory = Arc::new(tempfile::tempdir().expect("a temporary directory can be made"));
        Self::start_in(directory, redis_url, settings, flags, &[]).await
    }

    /// Like [`Autoscaler::start`], with more environment variables.
    pub(crate) async fn start_in_environment(redis_url: &str, settings: &str, more: &[(&str, &str)]) -> Self {
        let directory = Arc::new(tempfile::tempdir().expect("a temporary directory can be made"));
        Self::start_in(directory, redis_url, settings, &[], more).await
    }

    async fn start_in(
        directory: Arc<TempDir>,
        redis_url: &str,
        settings: &str,
        flags: &[&str],
        more: &[(&str, &str)],
    ) -> Self {
        let file = directory.path().join("swarm.toml");
        fs::write(&file, whole(redis_url, settings)).expect("the temporary directory is ours");
        let mut process = swarm(directory.path())
            .arg("autoscaler")
            .arg("--config")
            .arg(&file)
            .args(flags)
            .env("SWARM_LOG", "info,swarm=debug")
            .envs(more.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary was built for this test");
        let log = Log::capture(process.stderr.take().expect("it is piped"));
        let mut http = None;
        let started = eventually(DEADLINE, async || {
            http = log.address();
            http.is_some() || !matches!(process.try_wait(), Ok(None))
        })
        .await;
        let Some(http) = http.filter(|_| started) else {
            let _ = process.kill();
            let _ = process.wait();
            panic!("the autoscaler does not start; its log:\n{}", log.tail());
        };
        Self { process, http, log, directory }
    }

    /// Writes other settings into its file, without a signal.
    pub(crate) fn rewrite(&self, redis_url: &str, settings: &str) {
        fs::write(self.directory().join("swarm.toml"), whole(redis_url, settings)).expect("the directory is ours");
    }

    /// Writes other settings, sends SIGHUP, and waits for the result of the reload.
    pub(crate) async fn reload(&self, redis_url: &str, settings: &str) -> ReloadSnapshot {
        let before = self.status().await.reload.map(|reload| reload.at);
        self.rewrite(redis_url, settings);
        self.signal(Signal::HUP);
        self.reloaded_since(before).await
    }

    /// Waits for a reload after the given one.
    pub(crate) async fn reloaded_since(&self, before: Option<Timestamp>) -> ReloadSnapshot {
        let mut reload = None;
        self.until("it has loaded its settings again", async || {
            reload = self.status().await.reload.filter(|reload| Some(reload.at) != before);
            reload.is_some()
        })
        .await;
        reload.expect("it was there just now")
    }

    /// Sends SIGTERM, waits for the end, and starts another autoscaler with the same directory.
    pub(crate) async fn restart(mut self, redis_url: &str, settings: &str) -> Self {
        self.signal(Signal::TERM);
        self.exit().await;
        let directory = self.directory.clone();
        drop(self);
        Self::start_in(directory, redis_url, settings, &[], &[]).await
    }

    /// Fetches its status.
    pub(crate) async fn status(&self) -> FleetSnapshot {
        let (code, body) = self.get("/status").await;
        assert_eq!(code, StatusCode::OK, "{body}");
        serde_json::from_str(&body).expect("/status is a snapshot")
    }

    /// Fetches the status of a worker type.
    pub(crate) async fn of(&self, worker_type: &str) -> Arc<TypeSnapshot> {
        let status = self.status().await;
        let found = status.worker_types.iter().find(|one| one.worker_type.as_str() == worker_type);
        found.expect("the worker type is configured").clone()
    }

    /// Fetches the value of a metric with these labels, in their written order; 0 before its first sample.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        self.sample(series).await.unwrap_or(0.0)
    }

    /// Fetches the same; `None` if there is no such sample.
    pub(crate) async fn sample(&self, series: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics").await;
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map(|value| value.trim().parse().expect("a sample is a number"))
    }

    /// Fetches readiness, and the reasons.
    pub(crate) async fn readyz(&self) -> (bool, String) {
        let (code, body) = self.get("/readyz").await;
        (code == StatusCode::OK, body)
    }

    /// Waits for a condition. A failure shows the status and the log.
    pub(crate) async fn until(&self, what: &str, condition: impl AsyncFnMut() -> bool) {
        if !eventually(DEADLINE, condition).await {
            let status = serde_json::to_string_pretty(&self.status().await).unwrap_or_default();
            panic!("not within {DEADLINE:?}: {what}\n{status}\n{}", self.log.tail());
        }
    }

    /// Waits until it is ready and at rest, so that only new input wakes it.
    pub(crate) async fn until_ready(&self) {
        self.until("it is ready", async || self.readyz().await.0).await;
        self.until_quiet().await;
    }

    /// Waits until every worker type was evaluated, and no evaluation happens between two observations.
    pub(crate) async fn until_quiet(&self) {
        let evaluations = async || {
            let status = self.status().await;
            status.worker_types.iter().map(|one| one.evaluations).collect::<Vec<_>>()
        };
        self.until("nothing is evaluated any more", async || {
            let before = evaluations().await;
            tokio::time::sleep(QUIET).await;
            before.iter().all(|count| *count > 0) && before == evaluations().await
        })
        .await;
    }

    /// Waits until a worker type has exactly `count` workers, leaving ones not counted.
    pub(crate) async fn until_workers(&self, worker_type: &str, count: u32) {
        self.until(&format!("{count} workers of {worker_type}"), async || {
            self.of(worker_type).await.pool.known().is_some_and(|pool| pool.current() == count)
        })
        .await;
    }

    /// Waits for `times` more evaluations of a worker type.
    pub(crate) async fn until_evaluated(&self, worker_type: &str, times: u64) {
        let before = self.of(worker_type).await.evaluations;
        self.until("more evaluations", async || self.of(worker_type).await.evaluations >= before + times).await;
    }

    /// Waits until a signal source is in a state: `up`, `off`, `down`.
    pub(crate) async fn until_source(&self, source: Source, state: &str) {
        self.until(&format!("{source:?} is {state}"), async || {
            let status = self.status().await;
            status.sources.iter().any(|one| one.source == source && serde_json::json!(one.state) == state)
        })
        .await;
    }

    /// Waits until a log line contains this text. The log arrives through a pipe, slightly late.
    pub(crate) async fn until_logged(&self, text: &str) {
        let logged = eventually(DEADLINE, async || self.log.text().contains(text)).await;
        assert!(logged, "nobody logged `{text}`:\n{}", self.log.tail());
    }

    /// Returns the log so far.
    pub(crate) fn log(&self) -> String {
        self.log.text()
    }

    /// Returns the address of its HTTP server.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.http)
    }

    /// Returns the directory of its configuration file, where workers may write: `$SWARM_TEST_DIR`.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Returns the lines of a file that workers wrote in their directory; none before the first line.
    pub(crate) fn lines(&self, file: &str) -> Vec<String> {
        let text = fs::read_to_string(self.directory().join(file)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.process.id(), signal);
    }

    /// Waits for its end.
    pub(crate) async fn exit(&mut self) -> ExitStatus {
        let mut status = None;
        let ended = eventually(DEADLINE, async || {
            status = self.process.try_wait().expect("it is our child");
            status.is_some()
        })
        .await;
        assert!(ended, "it does not end; its log:\n{}", self.log.tail());
        status.expect("it has ended")
    }

    /// Returns the living processes of this test: the scaler, its guard, its workers and all their children.
    pub(crate) fn processes(&self) -> Vec<(u32, String)> {
        with_variable(DIRECTORY, &self.directory().display().to_string())
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        get(&format!("{}{path}", self.url()), DEADLINE).await.expect("the autoscaler answers in time")
    }
}

impl Drop for Autoscaler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let deadline = Instant::now() + DEADLINE;
        while !self.processes().is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        let left = self.processes();
        for (id, _) in &left {
            kill(*id, Signal::KILL);
        }
        assert!(left.is_empty() || std::thread::panicking(), "left behind: {left:?}");
    }
}

/// Returns the text of a configuration file: the Redis URL, a free port, and these settings.
pub(crate) fn whole(redis_url: &str, settings: &str) -> String {
    format!("redis_url = \"{redis_url}\"\n[http]\nlisten = \"127.0.0.1:0\"\n{settings}")
}

/// Returns `swarm` without variables of this machine's environment that could change its behaviour.
pub(crate) fn swarm(directory: &Path) -> Command {
    let mut command = Command::new(SWARM);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env(DIRECTORY, directory);
    // Where the temporary files of the test lie that must be gone after it.
    command.env("TMPDIR", std::env::temp_dir()).current_dir(directory);
    command
}
