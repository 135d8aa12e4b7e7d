//! Measures the time from a job to the first picture of a page, against the floor: a bare `chromium --screenshot` of
//! the same page, in the same run. `cargo bench --bench browser_start [-- --quick --json]`.
//!
//! A picture takes two jobs, as the Discord bot sends them: `start` with the address, then `screenshot`. Each round
//! closes its session. Floor and product alternate. Needs Chromium.

#[path = "support/bench_options.rs"]
mod bench_options;
#[path = "support/percentile.rs"]
mod percentile;
#[path = "support/redis_server.rs"]
mod redis_server;
#[path = "support/report.rs"]
mod report;

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, ensure};
use clap::Args;
use fred::prelude::{Client, HashesInterface, ListInterface, StreamsInterface};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::{bench_options::BenchOptions, percentile::percentile, redis_server::RedisServer, report::Finding};

const PAGE: &str = "<!doctype html><title>A page</title><h1>A page</h1><p>Some text.";
/// Name of each worker, and its settings.
const WORKERS: [(&str, &str); 3] = [
    ("with a spare Chromium", ""),
    ("without a spare", "spare_browser = false"),
    ("shared, Chromium runs", "isolation = \"shared\""),
];
/// Timeout of every wait.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
struct Options {
    /// Pictures of each worker, and of the floor for each; with --quick 5
    #[arg(long, default_value_t = 30)]
    rounds: usize,
}

fn main() -> anyhow::Result<()> {
    bench_options::run(swarm::app::runtime(), bench)
}

async fn bench(options: &BenchOptions<Options>) -> anyhow::Result<()> {
    let rounds = options.sized(options.rounds, 5);
    let port = serve()?;
    let mut findings = Vec::new();
    for (name, settings) in WORKERS {
        let server = RedisServer::start()?;
        let worker = Worker::start(&server, port, settings).await?;
        let (mut floors, mut products) = (Vec::with_capacity(rounds), Vec::with_capacity(rounds));
        // The first picture of a worker, for which it has no Chromium yet, does not count.
        worker.picture(port).await?;
        for _ in 0..rounds {
            floors.push(floor(port)?);
            worker.at_rest(settings).await?;
            products.push(worker.picture(port).await?);
        }
        for (share, which, aim) in [(0.5, "p50", 0.0..=1.0), (0.9, "p90", report::ANY)] {
            let (product, floor) = (percentile(&products, share), percentile(&floors, share));
            findings.push(Finding::new(format!("{name}, {which}"), product, "ms", Some(floor), aim));
        }
    }
    report::print(&format!("browser_start: job → first picture, {rounds} rounds each"), &findings, options.json)
}

/// Measures a bare Chromium that makes a picture, in milliseconds.
fn floor(port: u16) -> anyhow::Result<f64> {
    let directory = tempfile::tempdir()?;
    let picture = directory.path().join("picture.png");
    let started = Instant::now();
    let status = Command::new("chromium")
        .args(["--headless=new", "--disable-gpu", "--no-sandbox", "--window-size=1280,800"])
        .arg(format!("--user-data-dir={}", directory.path().join("profile").display()))
        .arg(format!("--screenshot={}", picture.display()))
        .arg(format!("http://127.0.0.1:{port}/"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("chromium can't be started; install it (Debian: apt install chromium)")?;
    let took = started.elapsed().as_secs_f64() * 1e3;
    ensure!(status.success() && picture.exists(), "chromium has made no picture: {status}");
    Ok(took)
}

/// A worker process.
struct Worker {
    process: Child,
    client: Client,
    _directory: TempDir,
}

impl Worker {
    async fn start(server: &RedisServer, port: u16, settings: &str) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let config = format!(
            "redis_url = \"{}\"\n[worker_types.browser.worker]\nheartbeat_seconds = 1\n[worker_types.browser.browser]\n\
             no_sandbox = true\nallow_private = [\"127.0.0.1:{port}\"]\n{settings}\n",
            server.url()
        );
        std::fs::write(directory.path().join("swarm.toml"), config)?;
        let process = Command::new(Path::new(env!("CARGO_BIN_EXE_swarm")))
            .args(["worker", "--type", "browser"])
            .current_dir(directory.path())
            .env("TMPDIR", directory.path())
            .env("SWARM_LOG", "warn")
            .env("SWARM_WORKER_ID", "bench")
            .spawn()?;
        Ok(Self { process, client: server.client().await?, _directory: directory })
    }

    /// Measures the time from a job that opens a session until its first picture is there, in milliseconds. Then closes
    /// the session.
    async fn picture(&self, port: u16) -> anyhow::Result<f64> {
        let started = Instant::now();
        self.ask("start", json!([format!("http://127.0.0.1:{port}/")])).await?;
        let picture = self.ask("screenshot", json!([])).await?;
        let took = started.elapsed().as_secs_f64() * 1e3;
        ensure!(picture["png"].as_str().is_some_and(|png| png.len() > 1_000), "no picture: {picture}");
        self.ask("close", json!([])).await?;
        Ok(took)
    }

    /// Waits until the Chromium of the closed session is gone, and the spare one is there, if there is to be one.
    async fn at_rest(&self, settings: &str) -> anyhow::Result<()> {
        let browsers = if settings.contains("spare_browser = false") { "0" } else { "1" };
        let waiting = async {
            loop {
                let fields: HashMap<String, String> = self.client.hgetall("worker:heartbeat:browser:bench").await?;
                let field = |name: &str| fields.get(name).map(String::as_str);
                if (field("sessions"), field("browsers")) == (Some("0"), Some(browsers)) {
                    // The heartbeat may be a second old, and a spare page is opened a moment after its Chromium.
                    tokio::time::sleep(Duration::from_secs(2)).await;
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.context("the worker does not come to rest")?
    }

    async fn ask(&self, method: &str, args: Value) -> anyhow::Result<Value> {
        let job = json!({
            "id": "b", "type": format!("browser.{method}"), "args": args, "session": "s", "reply_to": "result:b",
        });
        let _: String =
            self.client.xadd("browser:jobs", false, None::<()>, "*", vec![("json", job.to_string())]).await?;
        let (_, answer): (String, String) = self.client.blpop("result:b", PATIENCE.as_secs_f64()).await?;
        let mut answer: Value = serde_json::from_str(&answer)?;
        ensure!(answer["ok"] == json!(true), "{method}: {answer}");
        Ok(answer["value"].take())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Its guard ends what it has started.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Serves the page on a port of its own, from a thread that ends with the benchmark.
fn serve() -> anyhow::Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // Chromium opens connections in advance, and leaves them silent.
            std::thread::spawn(move || {
                let (mut request, length) = ([0; 4_096], PAGE.len());
                let asked = stream.read(&mut request).unwrap_or_default();
                if asked > 0 {
                    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\ncontent-length:";
                    // Whoever is gone needs no page.
                    let _ = write!(stream, "{head} {length}\r\n\r\n{PAGE}");
                }
            });
        }
    });
    Ok(port)
}
