//! `swarm publish`, `swarm status` and `swarm events` beside a running autoscaler, as people and programs use them.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Output, Stdio},
    sync::{Arc, Mutex},
};

use serde_json::Value;

use crate::support::{
    autoscaler::{Autoscaler, pool, real_pool, swarm},
    redis::RedisServer,
};

const ON_DEMAND: &str = "min_workers = 0, max_workers = 3, scale_up_threshold = 5, cooldown_seconds = 60";

/// Runs a command to its end, in the directory that holds the autoscaler's `swarm.toml`.
async fn run(scaler: &Autoscaler, words: &[&str]) -> Output {
    let mut command = swarm(scaler.directory());
    command.args(words).stdin(Stdio::null());
    tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A command that goes on, and what it has printed so far.
struct Following {
    process: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Following {
    fn start(scaler: &Autoscaler, words: &[&str]) -> Self {
        let mut command = swarm(scaler.directory());
        let mut process = command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let output = BufReader::new(process.stdout.take().unwrap());
        std::thread::spawn({
            let lines = lines.clone();
            move || output.lines().map_while(Result::ok).for_each(|line| lines.lock().unwrap().push(line))
        });
        Self { process, lines }
    }

    fn has(&self, text: &str) -> bool {
        self.lines.lock().unwrap().iter().any(|line| line.contains(text))
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn a_published_job_is_answered_shown_and_recorded() {
    let server = RedisServer::start();
    let scaler = Autoscaler::start(&server.url(), &real_pool("test", ON_DEMAND)).await;
    let following = Following::start(&scaler, &["events", "--follow", "--json"]);
    let watching = Following::start(&scaler, &["status", "--watch", "--url", &scaler.url()]);

    let answer = printed(&run(&scaler, &["publish", "test.echo", "hi", "42", "--wait"]).await);
    assert_eq!(answer.trim(), r#"["hi",42]"#);
    let many = ["publish", "test.echo", "hi", "--count", "12", "--wait", "--json"];
    let answers = json_lines(&printed(&run(&scaler, &many).await));
    assert_eq!(answers.len(), 12);
    assert!(answers.iter().all(|answer| answer["ok"] == true), "{answers:?}");

    let table = printed(&run(&scaler, &["status", "--url", &scaler.url()]).await);
    assert!(table.contains("test") && table.contains("keyspace"), "{table}");
    let status = printed(&run(&scaler, &["status", "--json", "--url", &scaler.url()]).await);
    let fleet: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(fleet["worker_types"][0]["worker_type"], "test");

    let events = json_lines(&printed(&run(&scaler, &["events", "--json", "--type", "test"]).await));
    let first = events.first().expect("the first worker was started");
    assert!(first.to_string().contains("starts the first worker"), "{first}");
    scaler.until("the follower prints it", async || following.has("starts the first worker")).await;
    scaler.until("the watcher prints it", async || watching.has("test")).await;
}

#[tokio::test]
async fn a_pool_whose_workers_fail_to_start_is_shown_as_failing() {
    let server = RedisServer::start();
    let settings = pool("broken", "min_workers = 1, max_workers = 2", "echo no license >&2; exit 3");
    let scaler = Autoscaler::start(&server.url(), &settings).await;
    scaler
        .until("failures are counted", async || {
            scaler.of("broken").await.start_failures.as_ref().is_some_and(|failures| failures.count >= 2)
        })
        .await;
    let of = scaler.of("broken").await;
    assert!(of.start_failures.as_ref().is_some_and(|failures| failures.message.contains('3')), "{of:?}");
    for words in [&["status"][..], &["why", "broken"]] {
        let text = printed(&run(&scaler, &[words, &["--url", &scaler.url()]].concat()).await);
        assert!(text.contains("FAILS TO START ("), "{words:?}: {text}");
    }
}

#[tokio::test]
async fn a_follower_goes_on_after_redis_restarts() {
    let mut server = RedisServer::start();
    let scaler = Autoscaler::start(&server.url(), &real_pool("test", ON_DEMAND)).await;
    scaler.until_ready().await;
    let following = Following::start(&scaler, &["events", "--follow", "--json"]);
    printed(&run(&scaler, &["publish", "test.echo", "hi", "--wait"]).await);
    scaler.until("the follower follows", async || following.has("starts the first worker")).await;
    server.restart();
    scaler.until_ready().await;
    printed(&run(&scaler, &["publish", "test.sleep", "3", "--count", "10"]).await);
    scaler.until("the follower is back", async || following.has("scale up 1 → 2")).await;
}

#[tokio::test]
async fn without_an_autoscaler_the_cause_and_the_cure_are_told() {
    let server = RedisServer::start();
    let mut scaler = Autoscaler::start(&server.url(), &real_pool("test", ON_DEMAND)).await;
    scaler.signal(rustix::process::Signal::TERM);
    scaler.exit().await;

    let status = run(&scaler, &["status", "--url", &scaler.url()]).await;
    let told = String::from_utf8_lossy(&status.stderr).into_owned();
    assert_eq!(status.status.code(), Some(1), "{told}");
    assert!(told.contains("swarm autoscaler"), "says what to start: {told}");

    let waited = run(&scaler, &["publish", "test.echo", "hi", "--wait", "--timeout", "0.5"]).await;
    let told = String::from_utf8_lossy(&waited.stderr).into_owned();
    assert_eq!(waited.status.code(), Some(1), "{told}");
    assert!(told.contains("is `swarm autoscaler` running?"), "says why nobody answered: {told}");
}
