//! The real `swarm worker`: its states, draining on request, claims, time-outs, metrics, programs as handlers.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use fred::prelude::*;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::{client::legacy::Client as HttpClient, rt::TokioExecutor};
use rustix::process::Signal;
use secrecy::SecretString;
use serde_json::{Value as Json, json};
use swarm::{
    broker::{Job, JobResult, cancel_drain, request_drain},
    config::WorkerTypeSettings,
    connection::RedisTarget,
    model::{WorkerId, WorkerType},
    worker::{Handler, JobError, WorkerConfig, run},
};
use tokio_util::sync::CancellationToken;

use crate::support::{
    autoscaler::swarm,
    command::{pending, redis},
    gate::Gate,
    processes::with_variable,
    redis::RedisServer,
    wait::{DEADLINE, eventually},
    worker::WorkerProcess,
};

const FAST: &str = "heartbeat_seconds = 1";
const QUEUE: &str = "t:jobs";

async fn publish(client: &Client, id: &str, job_type: &str, args: Json) {
    let job = json!({"id": id, "type": job_type, "args": args, "reply_to": format!("result:{id}")});
    let _: String = client.xadd(QUEUE, false, None, "*", ("json", job.to_string())).await.unwrap();
}

async fn result(client: &Client, id: &str) -> JobResult {
    let popped: Option<(String, String)> = client.blpop(format!("result:{id}"), DEADLINE.as_secs_f64()).await.unwrap();
    let (_, json) = popped.unwrap_or_else(|| panic!("no result of {id} within {DEADLINE:?}"));
    serde_json::from_str(&json).unwrap()
}

async fn error(client: &Client, id: &str) -> String {
    let result = result(client, id).await;
    result.error.unwrap_or_else(|| panic!("{id} was done: {:?}", result.value))
}

#[tokio::test]
async fn the_heartbeat_tells_state_and_resources() {
    let server = RedisServer::start();
    let client = server.client().await;
    let gate = Gate::new();
    let mut worker = WorkerProcess::start(&server.url(), "w1", &format!("{FAST}\n{}", gate.exec()));
    worker.until_state(&client, "IDLE").await;
    let mut heartbeat = HashMap::new();
    let written = async || {
        heartbeat = worker.heartbeat(&client).await;
        !heartbeat.is_empty()
    };
    assert!(eventually(DEADLINE, written).await, "{}", worker.log());
    for field in ["rss_bytes", "cpu_percent", "load_1m", "pid", "uptime_seconds"] {
        assert!(heartbeat[field].parse::<f64>().is_ok_and(|value| value >= 0.0), "{field}: {heartbeat:?}");
    }
    publish(&client, "a", "t.wait", json!([])).await;
    worker.until_state(&client, "BUSY").await;
    worker.until_field(&client, "jobs_in_progress", "1").await;
    gate.open();
    assert!(result(&client, "a").await.ok);
    worker.until_state(&client, "IDLE").await;
    worker.until_field(&client, "jobs_processed", "1").await;
    gate.shut();

    let _: bool = redis(&client, &format!("RENAME {QUEUE} elsewhere")).await;
    let _: String = redis(&client, &format!("SET {QUEUE} in-the-way")).await;
    worker.until_state(&client, "ERROR").await;
    let _: u64 = redis(&client, &format!("DEL {QUEUE}")).await;
    worker.until_state(&client, "IDLE").await;

    publish(&client, "b", "t.wait", json!([])).await;
    worker.until_state(&client, "BUSY").await;
    worker.signal(Signal::TERM);
    worker.until_state(&client, "DRAINING").await;
    gate.open();
    assert!(worker.exit().await.success());
    assert!(result(&client, "b").await.ok);
    assert!(worker.heartbeat(&client).await.is_empty());
    let said: Vec<(String, HashMap<String, String>)> =
        client.xrange_values("worker:status", "-", "+", None).await.unwrap();
    assert_eq!(said.last().unwrap().1["state"], "SHUTDOWN");
}

/// Notes how many jobs were in progress at once.
#[derive(Default)]
struct Counting {
    now: AtomicUsize,
    most: AtomicUsize,
}

#[async_trait]
impl Handler for Counting {
    async fn handle(&self, _method: &str, _job: &Job) -> Result<Json, JobError> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.now.fetch_sub(1, Ordering::SeqCst);
        Ok(Json::Null)
    }
}

#[tokio::test]
async fn no_more_jobs_are_in_progress_than_configured() {
    let server = RedisServer::start();
    let client = server.client().await;
    for number in 0..60 {
        publish(&client, &number.to_string(), "t.count", json!([])).await;
    }
    let settings = WorkerTypeSettings::default();
    let config =
        WorkerConfig { concurrency: 3, ..WorkerConfig::new(WorkerType::new("t"), WorkerId::new("w1"), &settings) };
    let target = RedisTarget::new(&SecretString::from(server.url()), Duration::from_secs(5)).unwrap();
    let (handler, stop) = (Arc::new(Counting::default()), CancellationToken::new());
    let worker = tokio::spawn(run(config, target, handler.clone(), stop.clone()));
    for number in 0..60 {
        assert!(result(&client, &number.to_string()).await.ok);
    }
    stop.cancel();
    assert_eq!(worker.await.unwrap().unwrap().processed, 60);
    assert_eq!(handler.most.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn asked_to_drain_over_redis_it_takes_nothing_until_that_is_taken_back() {
    let server = RedisServer::start();
    let client = server.client().await;
    let gate = Gate::new();
    // Heartbeats so rare that only being woken explains what follows.
    let worker = WorkerProcess::start(&server.url(), "w1", &format!("heartbeat_seconds = 3600\n{}", gate.exec()));
    worker.until_state(&client, "IDLE").await;
    let target = RedisTarget::new(&SecretString::from(server.url()), DEADLINE).unwrap();
    let mut connection = target.connect().await.unwrap();
    let (of_type, ids) = (WorkerType::new("t"), [WorkerId::new("w1")]);

    publish(&client, "in-hand", "t.wait", json!([])).await;
    worker.until_state(&client, "BUSY").await;
    request_drain(&mut connection, &of_type, &ids, Duration::from_secs(600)).await.unwrap();
    worker.until_state(&client, "DRAINING").await;
    publish(&client, "later", "t.echo", json!([])).await;
    gate.open();
    assert!(result(&client, "in-hand").await.ok, "what it has, it finishes");
    let drained = async || {
        client.hget::<String, _, _>("worker:heartbeat:t:w1", "state").await.unwrap() == "DRAINING"
            && pending(&client, QUEUE, "t").await.is_empty()
    };
    assert!(eventually(DEADLINE, drained).await, "{}", worker.log());
    assert!(!client.exists::<bool, _>("result:later").await.unwrap());

    cancel_drain(&mut connection, &of_type, &ids).await.unwrap();
    assert!(result(&client, "later").await.ok);
    worker.until_state(&client, "IDLE").await;
}

#[tokio::test]
async fn a_request_to_drain_that_nobody_repeats_runs_out() {
    let server = RedisServer::start();
    let client = server.client().await;
    let _: String = redis(&client, "SET worker:control:t:w1 drain EX 600").await;
    let worker = WorkerProcess::start(&server.url(), "w1", FAST);
    worker.until_state(&client, "DRAINING").await;
    let _: u64 = redis(&client, "PEXPIRE worker:control:t:w1 1").await;
    publish(&client, "a", "t.echo", json!([])).await;
    assert!(result(&client, "a").await.ok);
    worker.until_state(&client, "IDLE").await;
}

#[tokio::test]
async fn a_job_longer_than_its_claim_stays_with_its_worker() {
    let server = RedisServer::start();
    let client = server.client().await;
    let settings = "[worker_types.t]\nworker = { heartbeat_seconds = 1 }\njobs = { claim_seconds = 1 }\n";
    let first = WorkerProcess::start_with(&server.url(), "w1", settings);
    first.until_state(&client, "IDLE").await;
    publish(&client, "long", "t.sleep", json!([4])).await;
    first.until_state(&client, "BUSY").await;
    let second = WorkerProcess::start_with(&server.url(), "w2", settings);
    second.until_state(&client, "IDLE").await;
    assert!(result(&client, "long").await.ok);
    first.until_state(&client, "IDLE").await;
    first.until_field(&client, "jobs_processed", "1").await;
    second.until_field(&client, "jobs_processed", "0").await;
}

#[tokio::test]
async fn a_job_that_takes_too_long_fails_and_harms_no_other() {
    let server = RedisServer::start();
    let client = server.client().await;
    let settings =
        "[worker_types.t]\nworker = { concurrency = 2, job_timeout_seconds = 2 }\njobs = { max_attempts = 1 }\n";
    let _worker = WorkerProcess::start_with(&server.url(), "w1", settings);
    publish(&client, "slow", "t.sleep", json!([1000])).await;
    publish(&client, "other", "t.sleep", json!([0.2])).await;
    assert!(result(&client, "other").await.ok);
    let error = error(&client, "slow").await;
    assert!(error.contains("longer than the 2 s"), "{error}");
    assert_eq!(client.xlen::<u64, _>("t:jobs:dead").await.unwrap(), 1, "it used up its one attempt");
    publish(&client, "after", "t.echo", json!([])).await;
    assert!(result(&client, "after").await.ok);
}

#[tokio::test]
async fn each_worker_shows_its_own_metrics() {
    let server = RedisServer::start();
    let client = server.client().await;
    let worker = WorkerProcess::start(&server.url(), "w1", "metrics_listen = \"127.0.0.1:0\"");
    for id in ["a", "b"] {
        publish(&client, id, "t.echo", json!([])).await;
        assert!(result(&client, id).await.ok);
    }
    publish(&client, "c", "t.made-up-by-anyone", json!([])).await;
    assert!(!result(&client, "c").await.ok);
    publish(&client, "d", "t.sleep", json!([1000])).await;
    worker.until_state(&client, "BUSY").await;
    let address = worker.heartbeat(&client).await["metrics"].clone();
    let http = HttpClient::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let response = http.get(format!("http://{address}/metrics").parse().unwrap()).await.unwrap();
    let text = String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().into()).unwrap();
    for line in [
        r#"swarm_jobs_total{worker_type="t",method="echo",outcome="done"} 2"#,
        r#"swarm_jobs_total{worker_type="t",method="other",outcome="failed"} 1"#,
        r#"swarm_job_seconds_count{worker_type="t",method="echo"} 2"#,
        r#"swarm_jobs_in_progress{worker_type="t"} 1"#,
        r#"swarm_sessions_open{worker_type="t"} 0"#,
    ] {
        assert!(text.lines().any(|found| found == line), "no {line} in:\n{text}");
    }
    assert!(!text.contains("made-up"), "anyone can publish any name");
}

/// Does what the job's method asks for.
const PROGRAM: &str = r#"
case "$SWARM_JOB_METHOD" in
  input) cat ;;
  environment) printf '["%s", "%s", "%s"]' "$REDIS_URL" "$GREETING" "$SWARM_JOB_ID" ;;
  nothing) ;;
  words) echo all done ;;
  fails) echo first >&2; echo no such page >&2; exit 3 ;;
  again) echo x >> attempts; [ "$(wc -l < attempts)" -ge 2 ] || exit 75; echo '"at last"' ;;
  floods) yes ;;
  whispers) yes >&2 ;;
  leaves-child) sleep 1000 & echo 1 ;;
  hangs) sleep 1000 & sleep 1000 ;;
esac
"#;

async fn exec_worker(server: &RedisServer) -> (Client, WorkerProcess) {
    let settings = format!(
        "[worker_types.t.worker]\nexec = [\"sh\", \"-c\", {}]\nexec_environment = {{ GREETING = \"hello\" }}\n\
         job_timeout_seconds = 2\n[worker_types.t.jobs]\nmax_attempts = 2\nretry_backoff_ms = 10\n",
        Json::from(PROGRAM)
    );
    let client = server.client().await;
    let worker = WorkerProcess::start_with(&server.url(), "w1", &settings);
    worker.until_state(&client, "IDLE").await;
    (client, worker)
}

/// What runs for a job, by the variable that its program was started with.
fn processes_of(job: &str) -> Vec<(u32, String)> {
    with_variable("SWARM_JOB_ID", job)
}

#[tokio::test]
async fn a_program_gets_the_job_and_answers_with_json() {
    let server = RedisServer::start();
    let (client, _worker) = exec_worker(&server).await;
    publish(&client, "exec-input", "t.input", json!([1, "two"])).await;
    let value = result(&client, "exec-input").await.value.unwrap();
    assert_eq!((&value["id"], &value["type"]), (&json!("exec-input"), &json!("t.input")));
    assert_eq!(value["args"], json!([1, "two"]));
    publish(&client, "exec-environment", "t.environment", json!([])).await;
    assert_eq!(result(&client, "exec-environment").await.value, Some(json!(["", "hello", "exec-environment"])));
    publish(&client, "exec-nothing", "t.nothing", json!([])).await;
    assert!(result(&client, "exec-nothing").await.ok);
    publish(&client, "exec-echo", "t.echo", json!(["by the worker"])).await;
    assert_eq!(result(&client, "exec-echo").await.value, Some(json!(["by the worker"])));
    publish(&client, "exec-again", "t.again", json!([])).await;
    assert_eq!(result(&client, "exec-again").await.value, Some(json!("at last")));
}

/// Numbers that no 64-bit integer and no double can hold, from `swarm publish` to the program and back, also retried.
#[tokio::test]
async fn large_numbers_keep_their_digits_all_the_way() {
    const NUMBERS: &str = "[340282366920938463463374607431768211455,18446744073709551616,-9223372036854775809,\
                           1e400,0.12345678901234567890123]";
    let server = RedisServer::start();
    let settings = "[worker_types.t.worker]\nexec = [\"sh\", \"-c\", '[ $SWARM_JOB_METHOD != again ] || \
         { echo x >> attempts; [ $(wc -l < attempts) -ge 2 ]; } || exit 75; cat']\n\
         [worker_types.t.jobs]\nretry_backoff_ms = 10\n";
    let client = server.client().await;
    let worker = WorkerProcess::start_with(&server.url(), "w1", settings);
    worker.until_state(&client, "IDLE").await;
    for method in ["input", "again", "echo"] {
        let published = swarm(worker.directory())
            .args(["publish", &format!("t.{method}"), NUMBERS, "--kwargs", &format!("{{\"all\":{NUMBERS}}}")])
            .args(["--wait", "--timeout", "60"])
            .output()
            .unwrap();
        let said = String::from_utf8(published.stdout).unwrap();
        assert!(published.status.success(), "{said}{}", String::from_utf8_lossy(&published.stderr));
        let times = if method == "echo" { 1 } else { 2 };
        assert_eq!(said.matches(NUMBERS).count(), times, "{method}: {said}");
    }
}

#[tokio::test]
async fn a_program_that_fails_says_why() {
    let server = RedisServer::start();
    let (client, _worker) = exec_worker(&server).await;
    for (method, says) in [
        ("words", "must print one JSON value to stdout and nothing else"),
        ("fails", "`sh` ended with exit code 3: first\nno such page"),
        ("floods", "printed more than 8388608 bytes"),
    ] {
        publish(&client, method, &format!("t.{method}"), json!([])).await;
        let error = error(&client, method).await;
        assert!(error.contains(says), "{method}: {error}");
    }
}

#[tokio::test]
async fn a_program_is_killed_with_its_children() {
    let server = RedisServer::start();
    let (client, worker) = exec_worker(&server).await;
    publish(&client, "exec-leaves-child", "t.leaves-child", json!([])).await;
    assert_eq!(result(&client, "exec-leaves-child").await.value, Some(json!(1)));
    let gone = async || processes_of("exec-leaves-child").is_empty();
    assert!(eventually(DEADLINE, gone).await, "{:?}", processes_of("exec-leaves-child"));

    for method in ["hangs", "whispers"] {
        let id = format!("exec-{method}");
        publish(&client, &id, &format!("t.{method}"), json!([])).await;
        assert!(eventually(DEADLINE, async || !processes_of(&id).is_empty()).await, "{}", worker.log());
        let error = error(&client, &id).await;
        assert!(error.contains("longer than the 2 s"), "{error}");
        assert!(eventually(DEADLINE, async || processes_of(&id).is_empty()).await, "{:?}", processes_of(&id));
    }
}

#[tokio::test]
async fn the_limit_of_open_files_is_raised_at_the_start() {
    let server = RedisServer::start();
    let client = server.client().await;
    let directory = tempfile::tempdir().unwrap();
    let mut worker = std::process::Command::new("sh")
        .args(["-c", "ulimit -Sn 300 && exec \"$0\" worker --type t --id w1 --redis-url \"$1\""])
        .args([env!("CARGO_BIN_EXE_swarm"), &server.url()])
        .current_dir(directory.path())
        .spawn()
        .unwrap();
    let lives = async || client.exists::<u64, _>("worker:heartbeat:t:w1").await.unwrap() == 1;
    let announced = eventually(DEADLINE, lives).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", worker.id())).unwrap();
    worker.kill().unwrap();
    worker.wait().unwrap();
    let row = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let numbers: Vec<u64> = row.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert!(announced && numbers[0] > 300 && numbers[0] == numbers[1].min(65_536), "{row}");
}
