//! `swarm cancel` and `swarm job` on a real `redis-server` with real workers: a cancelled job has exactly one outcome,
//! wherever it was, and whoever waits for it is told.

use std::{
    path::Path,
    process::{Child, Output, Stdio},
    sync::Arc,
    time::Duration,
};

use fred::prelude::*;
use serde_json::{Map, Value as Json, json};
use swarm::{
    CancellationToken, Handler, JobError, Worker, WorkerConfig, async_trait,
    broker::{Client as Swarm, Job, JobPolicy},
    config::JobSettings,
    model::job::{Cancelled, JobState},
};

use crate::support::{
    autoscaler::swarm,
    client::patient_client,
    command::{answers, pending, redis, waiting_and_pending},
    processes::with_variable,
    redis::RedisServer,
    wait::{DEADLINE, eventually},
    worker::WorkerProcess,
};

const QUEUE: &str = "t:jobs";

/// Starts a worker whose program hangs with a child of its own, or asks for another attempt at once.
async fn worker(server: &RedisServer, client: &Client) -> WorkerProcess {
    let program = "case $SWARM_JOB_METHOD in hangs) sleep 1000 & sleep 1000 ;; again) exit 75 ;; esac";
    let settings = format!(
        "[worker_types.t.worker]\nheartbeat_seconds = 1\nconcurrency = 4\nexec = [\"sh\", \"-c\", {}]\n\
         [worker_types.t.jobs]\nmax_attempts = 1000\nretry_backoff_ms = 1\n",
        Json::from(program)
    );
    let worker = WorkerProcess::start_with(&server.url(), "w1", &settings);
    worker.until_state(client, "IDLE").await;
    worker
}

fn client(server: &RedisServer) -> Swarm {
    patient_client(&server.url(), "t")
}

fn job(id: &str, method: &str, args: Json) -> Job {
    let Json::Array(args) = args else { panic!("arguments are a list, not {args}") };
    Job { id: id.to_owned(), ..Job::new(format!("t.{method}"), args, Map::new()) }.with_reply()
}

/// Runs `swarm` against the server, without a configuration file.
fn run(server: &RedisServer, directory: &Path, arguments: &[&str]) -> Output {
    let file = directory.join("client.toml");
    std::fs::write(&file, format!("redis_url = \"{}\"\n[worker_types.t]\n", server.url())).unwrap();
    swarm(directory).args(arguments).arg("--config").arg(file).output().unwrap()
}

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

/// Nothing of the job is left: no entry, no mark.
async fn is_settled(client: &Client) -> bool {
    let marks: u64 = redis(client, &format!("EXISTS {QUEUE}:cancelled")).await;
    marks == 0 && pending(client, QUEUE, "t").await.is_empty()
}

async fn lag(client: &Client) -> Option<u64> {
    waiting_and_pending(client, QUEUE).await.map(|(waiting, _)| waiting)
}

async fn outcome(client: &Client, id: &str) -> Json {
    let there = async || answers(client, id).await.len() == 1;
    assert!(eventually(DEADLINE, there).await, "{id} has {:?}", answers(client, id).await);
    answers(client, id).await.remove(0)
}

fn waiting_publisher(server: &RedisServer, directory: &Path) -> Child {
    let mut publish = swarm(directory);
    publish.args(["publish", "t.echo", "--wait", "--timeout", "300", "--redis-url"]).arg(server.url());
    publish.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[tokio::test]
async fn a_waiting_job_is_told_at_once_and_never_started() {
    let server = RedisServer::start();
    let redis_client = server.client().await;
    let directory = tempfile::tempdir().unwrap();
    // Without a configuration, the job goes to the stream `jobs`; another test shows a configured queue.
    let publisher = waiting_publisher(&server, directory.path());
    let there = async || redis_client.xlen::<u64, _>("jobs").await.unwrap() == 1;
    assert!(eventually(DEADLINE, there).await);
    let entries: Vec<(String, std::collections::HashMap<String, String>)> =
        redis(&redis_client, "XRANGE jobs - +").await;
    let id = serde_json::from_str::<Json>(&entries[0].1["json"]).unwrap()["id"].as_str().unwrap().to_owned();
    let cancelled = run(&server, directory.path(), &["cancel", &id]);
    assert!(cancelled.status.success() && said(&cancelled).contains("no worker starts it"), "{}", said(&cancelled));
    let told = publisher.wait_with_output().unwrap();
    assert!(!told.status.success() && said(&told).contains("cancelled before it began"), "{}", said(&told));
}

#[tokio::test]
async fn a_cancelled_job_is_acknowledged_unread_and_the_lag_stays_known() {
    let server = RedisServer::start();
    let redis_client = server.client().await;
    let swarm = client(&server);
    let _: String = redis(&redis_client, &format!("XGROUP CREATE {QUEUE} t 0 MKSTREAM")).await;
    for id in ["a", "b", "c"] {
        swarm.publish(&job(id, "echo", json!([id]))).await.unwrap();
    }
    assert_eq!(swarm.cancel("b", DEADLINE).await.unwrap(), Cancelled::Waiting);
    assert_eq!(swarm.cancel("b", DEADLINE).await.unwrap(), Cancelled::Already);
    assert_eq!(lag(&redis_client).await, Some(3), "an entry that is marked still waits");
    assert_eq!(swarm.job("b").await.unwrap().unwrap().state, JobState::Cancelled);
    let worker = worker(&server, &redis_client).await;
    for id in ["a", "c"] {
        assert_eq!(outcome(&redis_client, id).await["value"], json!([id]), "{}", worker.log());
    }
    assert!(eventually(DEADLINE, async || is_settled(&redis_client).await).await, "{}", worker.log());
    assert_eq!(outcome(&redis_client, "b").await["error"], json!("cancelled before it began"));
    assert_eq!(lag(&redis_client).await, Some(0));
    worker.until_field(&redis_client, "jobs_processed", "2").await;
    assert_eq!(swarm.cancel("a", DEADLINE).await.unwrap(), Cancelled::Finished);
    assert_eq!(swarm.cancel("nobody", DEADLINE).await.unwrap(), Cancelled::Unknown);
}

#[tokio::test]
async fn a_delayed_job_is_removed() {
    let server = RedisServer::start();
    let redis_client = server.client().await;
    let swarm = client(&server);
    for id in ["a", "b"] {
        swarm.publish(&job(id, "echo", json!([])).with_delay(Duration::from_secs(600))).await.unwrap();
    }
    let state = swarm.job("a").await.unwrap().unwrap().state;
    assert!(matches!(state, JobState::Delayed { .. }), "{state:?}");
    assert_eq!(swarm.cancel("a", DEADLINE).await.unwrap(), Cancelled::Delayed);
    assert_eq!(outcome(&redis_client, "a").await["error"], json!("cancelled before it began"));
    assert_eq!(redis_client.zcard::<u64, _>(format!("{QUEUE}:delayed")).await.unwrap(), 1);
    assert_eq!(swarm.cancel("a", DEADLINE).await.unwrap(), Cancelled::Finished);
}

#[tokio::test]
async fn a_running_job_is_stopped_with_all_its_processes() {
    let server = RedisServer::start();
    let redis_client = server.client().await;
    let worker = worker(&server, &redis_client).await;
    let swarm = client(&server);
    let id = format!("cancel-hangs-{}", std::process::id());
    swarm.publish(&job(&id, "hangs", json!([]))).await.unwrap();
    let runs = async || with_variable("SWARM_JOB_ID", &id).len() >= 2;
    assert!(eventually(DEADLINE, runs).await, "{}", worker.log());
    worker.until_state(&redis_client, "BUSY").await;
    let report = swarm.job(&id).await.unwrap().unwrap();
    let state = JobState::Running { worker: "w1".to_owned(), worker_state: "BUSY".to_owned() };
    assert_eq!((report.state, report.deliveries, report.failed_attempts), (state, 1, 0));

    let stopped = run(&server, worker.directory(), &["cancel", &id, "--timeout", "60"]);
    assert!(stopped.status.success() && said(&stopped).contains("ran on w1 and is stopped"), "{}", said(&stopped));
    assert_eq!(outcome(&redis_client, &id).await["error"], json!("cancelled"));
    let gone = async || with_variable("SWARM_JOB_ID", &id).is_empty();
    assert!(eventually(DEADLINE, gone).await, "{:?}", with_variable("SWARM_JOB_ID", &id));
    assert!(is_settled(&redis_client).await);
    swarm.publish(&job("next", "echo", json!(["next"]))).await.unwrap();
    assert!(outcome(&redis_client, "next").await["ok"].as_bool().unwrap());
    assert_eq!(swarm.cancel(&id, DEADLINE).await.unwrap(), Cancelled::Finished);
}

/// The worker does not hear the message; it looks at its next heartbeat.
#[tokio::test]
async fn a_worker_that_was_not_told_stops_the_job_at_its_next_heartbeat() {
    let server = RedisServer::start();
    let redis_client = server.client().await;
    let worker = worker(&server, &redis_client).await;
    let swarm = client(&server);
    swarm.publish(&job("deaf", "sleep", json!([1000]))).await.unwrap();
    worker.until_state(&redis_client, "BUSY").await;
    let entries: Vec<(String, std::collections::HashMap<String, String>)> =
        redis(&redis_client, &format!("XRANGE {QUEUE} - +")).await;
    let _: u64 = redis(&redis_client, &format!("HSET {QUEUE}:cancelled deaf untold @{} deaf", entries[0].0)).await;
    assert_eq!(outcome(&redis_client, "deaf").await["error"], json!("cancelled"), "{}", worker.log());
    assert!(eventually(DEADLINE, async || is_settled(&redis_client).await).await);
}

#[tokio::test]
async fn the_job_of_a_dead_worker_is_cancelled_by_whoever_takes_it_over() {
    let server = RedisServer::start();
    let redis_client = server.client().await;
    let mut first = worker(&server, &redis_client).await;
    let swarm = client(&server);
    swarm.publish(&job("orphan", "sleep", json!([1000]))).await.unwrap();
    first.until_state(&redis_client, "BUSY").await;
    first.kill();
    let told = swarm.cancel("orphan", Duration::from_millis(100)).await.unwrap();
    assert_eq!(told, Cancelled::Told { worker: "w1".to_owned() });
    let _second = WorkerProcess::start(&server.url(), "w2", "heartbeat_seconds = 1");
    assert_eq!(outcome(&redis_client, "orphan").await["error"], json!("cancelled"));
    assert!(eventually(DEADLINE, async || is_settled(&redis_client).await).await);
}

/// Whatever comes first, there is one outcome, and the canceller is told the same as the publisher.
#[tokio::test]
async fn a_job_that_is_cancelled_while_it_is_taken_has_one_outcome() {
    let server = RedisServer::start();
    let redis_client = server.client().await;
    let worker = worker(&server, &redis_client).await;
    let swarm = client(&server);
    let (mut cancelled, mut done) = (0, 0);
    for round in 0..60_u64 {
        let id = format!("race-{round}");
        swarm.publish(&job(&id, "echo", json!([round]))).await.unwrap();
        tokio::time::sleep(Duration::from_micros(round % 6 * 300)).await;
        let told = swarm.cancel(&id, DEADLINE).await.unwrap();
        let outcome = outcome(&redis_client, &id).await;
        let was_cancelled = outcome["error"].as_str().is_some_and(|error| error.starts_with("cancelled"));
        assert_eq!(told.is_cancelled(), was_cancelled, "{told:?}, {outcome}\n{}", worker.log());
        assert!(was_cancelled || outcome["value"] == json!([round]), "{outcome}");
        *(if was_cancelled { &mut cancelled } else { &mut done }) += 1;
    }
    // A job that was marked while it waited is not pending before the worker takes it, and drops it.
    let settled = eventually(DEADLINE, async || is_settled(&redis_client).await).await;
    assert!(settled, "{cancelled} cancelled, {done} done\n{}", worker.log());
    for round in 0..60 {
        assert_eq!(
            answers(&redis_client, &format!("race-{round}")).await.len(),
            1,
            "{cancelled} cancelled, {done} done"
        );
    }
}

/// Fails at once, and asks for another attempt.
struct Fails;

#[async_trait]
impl Handler for Fails {
    async fn handle(&self, _method: &str, _job: &Job) -> Result<Json, JobError> {
        Err(JobError::Transient("not yet".to_owned()))
    }
}

/// The job moves between its stream, its worker and the delayed jobs all the time, within a millisecond.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_is_cancelled_while_it_is_retried_has_one_outcome() {
    let server = RedisServer::start();
    let redis_client = server.client().await;
    let config = WorkerConfig::builder("t").id("w1").build().unwrap();
    let jobs = JobSettings { max_attempts: u32::MAX, retry_backoff_ms: 0, ..JobSettings::default() };
    let config = WorkerConfig { policy: JobPolicy { jobs, ..JobPolicy::default() }, ..config };
    let stop = CancellationToken::new();
    let worker = Worker::open(&server.url(), config).unwrap();
    let running = tokio::spawn(worker.run(Arc::new(Fails), stop.clone()));
    let swarm = client(&server);
    for round in 0..60_u64 {
        let id = format!("retried-{round}");
        swarm.publish(&job(&id, "again", json!([]))).await.unwrap();
        tokio::time::sleep(Duration::from_micros(round * 150)).await;
        let report = swarm.job(&id).await.unwrap();
        assert!(report.is_some(), "{id} is nowhere");
        let told = swarm.cancel(&id, DEADLINE).await.unwrap();
        assert!(told.is_cancelled(), "{id}: {told:?}");
        let error = outcome(&redis_client, &id).await["error"].as_str().unwrap().to_owned();
        assert!(error.starts_with("cancelled"), "{error}");
    }
    let settled = async || is_settled(&redis_client).await;
    assert!(eventually(DEADLINE, settled).await);
    assert_eq!(redis_client.zcard::<u64, _>(format!("{QUEUE}:delayed")).await.unwrap(), 0);
    for round in 0..60 {
        assert_eq!(answers(&redis_client, &format!("retried-{round}")).await.len(), 1);
    }
    stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_jobs_life_is_told() {
    let server = RedisServer::start();
    let redis_client = server.client().await;
    let swarm = client(&server);
    let directory = tempfile::tempdir().unwrap();
    let told = |arguments: &[&str]| {
        let output = run(&server, directory.path(), &[&["job"], arguments].concat());
        (output.status.success(), said(&output))
    };
    swarm.publish(&job("first", "echo", json!([]))).await.unwrap();
    swarm.publish(&job("second", "echo", json!([])).with_max_attempts(7)).await.unwrap();
    let (_, text) = told(&["second"]);
    for part in ["second t.echo", "waiting, 1 jobs ahead", "0 of 7 failed", "no autoscaler is running"] {
        assert!(text.contains(part), "no {part} in:\n{text}");
    }
    let worker = worker(&server, &redis_client).await;
    outcome(&redis_client, "second").await;
    assert!(told(&["second"]).1.contains("done; its result waits to be fetched"));
    let bad = job("bad", "again", json!([])).with_max_attempts(1);
    swarm.publish(&Job { reply_to: None, ..bad }).await.unwrap();
    let buried = async || redis_client.xlen::<u64, _>(format!("{QUEUE}:dead")).await.unwrap() == 1;
    assert!(eventually(DEADLINE, buried).await, "{}", worker.log());
    let (ok, json) = told(&["bad", "--json"]);
    let report: Json = serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}"));
    assert_eq!((ok, &report["state"], &report["reason"]), (true, &json!("dead"), &json!("failed")), "{json}");
    assert_eq!((&report["failed_attempts"], &report["max_attempts"]), (&json!(1), &json!(1)));
    let (ok, text) = told(&["nobody"]);
    assert!(!ok && text.contains("there is no job nobody"), "{text}");
}

/// A worker and an operator whose Redis users have the rights of `docs/protocol.md`, and no more.
#[tokio::test]
async fn the_documented_rights_are_enough() {
    let server = RedisServer::start();
    let redis_client = server.client().await;
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/protocol.md")).unwrap();
    for rule in page.lines().filter(|line| line.contains("ACL SETUSER")) {
        let _: String = redis(&redis_client, &rule.replace("browser", "t")).await;
    }
    let url = |user: &str| format!("redis://{user}:secret@127.0.0.1:{}/0", server.port());
    let (operator, publisher) = (patient_client(&url("operator"), "t"), client(&server));
    publisher.publish(&job("waits", "echo", json!([]))).await.unwrap();
    publisher.publish(&job("late", "echo", json!([])).with_delay(Duration::from_secs(600))).await.unwrap();
    assert!(matches!(operator.job("waits").await.unwrap().unwrap().state, JobState::Waiting { ahead: 0 }));
    assert_eq!(operator.cancel("waits", DEADLINE).await.unwrap(), Cancelled::Waiting);
    assert_eq!(operator.cancel("late", DEADLINE).await.unwrap(), Cancelled::Delayed);
    assert!(matches!(operator.job("late").await.unwrap().unwrap().state, JobState::Finished { ok: false, .. }));
    let worker = WorkerProcess::start(&url("worker"), "w1", "heartbeat_seconds = 1");
    publisher.publish(&job("runs", "sleep", json!([1000]))).await.unwrap();
    worker.until_state(&redis_client, "BUSY").await;
    let stopped = operator.cancel("runs", DEADLINE).await.unwrap();
    assert_eq!(stopped, Cancelled::Stopped { worker: "w1".to_owned() }, "{}", worker.log());
    for id in ["waits", "late", "runs"] {
        assert!(outcome(&redis_client, id).await["error"].as_str().unwrap().starts_with("cancelled"));
    }
    assert!(eventually(DEADLINE, async || is_settled(&redis_client).await).await, "{}", worker.log());
    assert_eq!(operator.cancel("nobody", DEADLINE).await.unwrap(), Cancelled::Unknown);
}

/// With two groups on a stream, neither runs the job, and whoever waits is told once.
#[tokio::test]
async fn a_cancelled_job_is_cancelled_for_every_group() {
    let server = RedisServer::start();
    let redis_client = server.client().await;
    let swarm = client(&server);
    for group in ["t", "other"] {
        let _: String = redis(&redis_client, &format!("XGROUP CREATE {QUEUE} {group} 0 MKSTREAM")).await;
    }
    swarm.publish(&job("a", "echo", json!([]))).await.unwrap();
    assert_eq!(swarm.cancel("a", DEADLINE).await.unwrap(), Cancelled::Waiting);
    let _own = WorkerProcess::start(&server.url(), "w1", "heartbeat_seconds = 1");
    let settings = "[worker_types.t]\ngroup = \"other\"\nworker = { heartbeat_seconds = 1 }\n";
    let _other = WorkerProcess::start_with(&server.url(), "w2", settings);
    swarm.publish(&job("b", "echo", json!([]))).await.unwrap();
    let both = async || answers(&redis_client, "b").await.len() == 2;
    assert!(eventually(DEADLINE, both).await);
    assert_eq!(answers(&redis_client, "a").await.len(), 1);
}
