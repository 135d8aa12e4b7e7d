//! The processes under test: a `redis-server` that keeps its data, the network to it, the autoscaler, and its workers.

use std::{
    collections::BTreeMap,
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use fred::prelude::{Builder, Client, ClientLike, Config, StreamsInterface};
use rustix::process::{Pid, Signal, kill_process};
use secrecy::SecretString;
use swarm::connection::RedisTarget;
use tempfile::TempDir;

use crate::{journal, network::Network};

pub(crate) const QUEUE: &str = "chaos:jobs";
const SWARM: &str = env!("CARGO_BIN_EXE_swarm");
/// Name of the journal in the directory of a run.
const JOURNAL: &str = "journal";
/// Name of the autoscaler's log in it.
const LOG: &str = "log";
/// In the environment of all processes of a run: identifies them.
const DIRECTORY: &str = "CHAOS_DIRECTORY";
/// Timeout of a start and of a stop.
const START: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);

/// When Redis writes its data to the disk.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Saves {
    /// At every write, so that a killed Redis loses nothing.
    Always,
    /// When it is stopped.
    AtStop,
}

/// A running pool. Dropping it kills everything.
pub(crate) struct World {
    directory: TempDir,
    port: u16,
    saves: Saves,
    pub(crate) network: Network,
    redis: Child,
    autoscaler: Child,
}

impl World {
    /// Starts Redis, and an autoscaler with a pool of exactly `workers`.
    pub(crate) async fn start(workers: u32, saves: Saves) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let network = Network::to(port).await?;
        let settings = settings(network.port(), workers, &directory.path().join(JOURNAL))?;
        fs::write(directory.path().join("swarm.toml"), settings)?;
        let redis = spawn_redis(&directory, port, saves)?;
        let autoscaler = spawn_autoscaler(&directory)?;
        Ok(Self { directory, port, saves, network, redis, autoscaler })
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.directory.path().join(JOURNAL)
    }

    /// Returns Redis as the producer reaches it, which no cut of the network concerns.
    pub(crate) fn target(&self) -> anyhow::Result<RedisTarget> {
        Ok(RedisTarget::new(&SecretString::from(url(self.port)), Duration::from_secs(2))?)
    }

    pub(crate) fn redis(&self) -> u32 {
        self.redis.id()
    }

    pub(crate) fn autoscaler(&self) -> u32 {
        self.autoscaler.id()
    }

    pub(crate) fn kill_redis(&mut self) -> anyhow::Result<()> {
        kill_and_wait(&mut self.redis)
    }

    /// Stops Redis as for a planned restart.
    pub(crate) fn stop_redis(&mut self) -> anyhow::Result<()> {
        terminate(&mut self.redis, "redis-server")
    }

    pub(crate) fn start_redis(&mut self) -> anyhow::Result<()> {
        self.redis = spawn_redis(&self.directory, self.port, self.saves)?;
        Ok(())
    }

    pub(crate) fn kill_autoscaler(&mut self) -> anyhow::Result<()> {
        kill_and_wait(&mut self.autoscaler)
    }

    pub(crate) fn start_autoscaler(&mut self) -> anyhow::Result<()> {
        self.autoscaler = spawn_autoscaler(&self.directory)?;
        Ok(())
    }

    /// Returns the process of each worker, by the worker's id.
    pub(crate) fn workers(&self) -> BTreeMap<String, u32> {
        let directory = self.directory.path().display().to_string();
        let ours = processes().filter(|(_, variables)| variables.get(DIRECTORY) == Some(&directory));
        // The programs that workers run for jobs have the same variable.
        let workers = ours.filter(|(process, _)| is_worker(*process));
        workers.filter_map(|(process, variables)| Some((variables.get("SWARM_WORKER_ID")?.clone(), process))).collect()
    }

    /// Waits for a pool of `count` workers.
    pub(crate) async fn until_workers(&mut self, count: u32, timeout: Duration) -> anyhow::Result<()> {
        let (deadline, count) = (Instant::now() + timeout, usize::try_from(count)?);
        while self.workers().len() != count {
            ensure!(self.autoscaler.try_wait()?.is_none(), "the autoscaler has ended:\n{}", self.log());
            ensure!(Instant::now() < deadline, "{} workers, not {count}", self.workers().len());
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Returns the log of the autoscaler and its workers.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join(LOG)).unwrap_or_default()
    }

    /// Waits until each of `count` jobs has ended; returns whether that happened in time.
    pub(crate) async fn until_ended(&self, count: usize, timeout: Duration) -> anyhow::Result<bool> {
        let deadline = Instant::now() + timeout;
        while Instant::now() < deadline {
            let lines = journal::read(&self.journal())?;
            let mut ended: Vec<usize> = lines.iter().filter(|line| !line.begins).map(|line| line.number).collect();
            ended.sort_unstable();
            ended.dedup();
            if ended.len() >= count {
                return Ok(true);
            }
            tokio::time::sleep(LOOK * 10).await;
        }
        Ok(false)
    }

    /// Returns the number of dead letters.
    pub(crate) async fn dead_letters(&self) -> anyhow::Result<usize> {
        let client: Client = Builder::from_config(Config::from_url(&url(self.port))?).build()?;
        client.init().await?;
        let count = client.xlen(format!("{QUEUE}:dead")).await?;
        client.quit().await?;
        Ok(count)
    }

    /// Stops the autoscaler, which stops its workers.
    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        terminate(&mut self.autoscaler, "the autoscaler")?;
        let left = self.workers();
        ensure!(left.is_empty(), "workers outlive the autoscaler: {left:?}");
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = kill_and_wait(&mut self.autoscaler);
        for process in self.workers().into_values() {
            signal(process, Signal::CONT);
            signal(process, Signal::KILL);
        }
        let _ = kill_and_wait(&mut self.redis);
    }
}

/// Signals a process, which may be gone already.
pub(crate) fn signal(process: u32, signal: Signal) {
    if let Some(process) = i32::try_from(process).ok().and_then(Pid::from_raw) {
        let _ = kill_process(process, signal);
    }
}

fn url(port: u16) -> String {
    format!("redis://127.0.0.1:{port}/0")
}

fn settings(port: u16, workers: u32, journal: &Path) -> anyhow::Result<String> {
    let program = std::env::current_exe()?;
    Ok(format!(
        "redis_url = \"{}\"\n\
         [scaler]\nsweep_interval_seconds = 2\nleader_lease_seconds = 2\n\
         [http]\nlisten = \"\"\n\
         [worker_types.chaos]\n\
         scaling = {{ min_workers = {workers}, max_workers = {workers}, start_grace_seconds = 10, \
         drain_timeout_seconds = 20 }}\n\
         worker = {{ heartbeat_seconds = 1, concurrency = 2, exec = [{}, \"{}\"], exec_environment = {{ {} = {} }} }}\n\
         jobs = {{ max_attempts = 5 }}\n",
        url(port),
        serde_json::to_string(&program)?,
        journal::ARGUMENT,
        journal::PATH,
        serde_json::to_string(journal)?,
    ))
}

fn spawn_redis(directory: &TempDir, port: u16, saves: Saves) -> anyhow::Result<Child> {
    let saves = match saves {
        Saves::Always => ["--save", "", "--appendonly", "yes", "--appendfsync", "always"].as_slice(),
        Saves::AtStop => ["--save", "86400 1", "--appendonly", "no"].as_slice(),
    };
    let mut process = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(saves)
        .arg("--dir")
        .arg(directory.path())
        .stdout(Stdio::null())
        .spawn()
        .context("redis-server can't be started; install it (`make packages`) and have it in the PATH")?;
    let deadline = Instant::now() + START;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        ensure!(process.try_wait()?.is_none(), "redis-server on port {port} ended at once");
        ensure!(Instant::now() < deadline, "redis-server does not listen within {START:?}");
        std::thread::sleep(LOOK);
    }
    Ok(process)
}

fn spawn_autoscaler(directory: &TempDir) -> anyhow::Result<Child> {
    let log = fs::OpenOptions::new().append(true).create(true).open(directory.path().join(LOG))?;
    Command::new(SWARM)
        .args(["autoscaler", "--config"])
        .arg(directory.path().join("swarm.toml"))
        .env(DIRECTORY, directory.path())
        .env_remove("REDIS_URL")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .context("the autoscaler can't be started")
}

/// Ends a process by SIGTERM.
fn terminate(process: &mut Child, name: &str) -> anyhow::Result<()> {
    signal(process.id(), Signal::TERM);
    let deadline = Instant::now() + START;
    while process.try_wait()?.is_none() {
        ensure!(Instant::now() < deadline, "{name} does not end within {START:?} of SIGTERM");
        std::thread::sleep(LOOK);
    }
    Ok(())
}

fn kill_and_wait(process: &mut Child) -> anyhow::Result<()> {
    process.kill()?;
    process.wait()?;
    Ok(())
}

/// Returns all processes with their environment.
fn processes() -> impl Iterator<Item = (u32, BTreeMap<String, String>)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.map(|process: u32| {
        let environment = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
        let words = environment.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        let variables = words.filter_map(|word| word.split_once('=').map(|(name, value)| (name.into(), value.into())));
        (process, variables.collect())
    })
}

fn is_worker(process: u32) -> bool {
    let words = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    words.split(|byte| *byte == 0).nth(1) == Some(b"worker")
}
