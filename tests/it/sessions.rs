//! Sessions on a real `redis-server`: jobs go to the worker that holds their session, and are told when it died. The
//! handler keeps a counter for each session.

mod halts;
mod max_jobs;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use fred::prelude::*;
use secrecy::SecretString;
use serde_json::{Value as Json, json};
use swarm::{
    broker::{Job, JobPolicy, JobResult, session_of},
    config::WorkerTypeSettings,
    connection::RedisTarget,
    model::{QueuePattern, Queues, WorkerId, WorkerType},
    worker::{self, Handler, JobError, Sessions, WorkerConfig, WorkerError, WorkerReport, handlers::Context},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{
    autoscaler::Autoscaler,
    client::patient_client,
    command::{pending, redis},
    redis::RedisServer,
    wait::{DEADLINE, eventually},
};

const QUEUE: &str = "t:jobs";
/// As an interval of heartbeats: none expires, however long a test or the machine halts.
const LONG: Duration = Duration::from_secs(600);
/// For tests in which a worker dies or loses a session, which heartbeats show.
const SHORT: Duration = Duration::from_millis(300);

/// `open`, `next` (counts), `hold SECONDS` (counts, takes that long) and `close`, each in the job's session. A job
/// without one may `open NAME`.
struct Counters {
    context: Context,
    counts: Mutex<HashMap<String, u64>>,
}

impl Counters {
    fn sessions(&self) -> &Sessions {
        &self.context.sessions
    }

    fn count(&self, session: &str) -> Result<Json, JobError> {
        let mut counts = self.counts.lock().unwrap();
        let count = counts.get_mut(session).ok_or_else(|| JobError::Failed(format!("`{session}` is not open")))?;
        *count += 1;
        Ok(json!({"by": self.context.worker_id, "count": *count}))
    }
}

#[async_trait]
impl Handler for Counters {
    async fn handle(&self, method: &str, job: &Job) -> Result<Json, JobError> {
        let session = session_of(job).or_else(|| job.args.first()?.as_str());
        let session = session.ok_or_else(|| JobError::arguments(job, "names no session"))?;
        match method {
            "open" => {
                self.sessions().open(session).await?;
                self.counts.lock().unwrap().insert(session.to_owned(), 0);
                Ok(json!({"by": self.context.worker_id}))
            }
            "hold" => {
                let value = self.count(session);
                tokio::time::sleep(Duration::from_secs_f64(job.args[0].as_f64().unwrap())).await;
                value
            }
            "close" => {
                self.sessions().close(session).await;
                Ok(json!(self.counts.lock().unwrap().remove(session)))
            }
            _ => self.count(session),
        }
    }

    fn methods(&self) -> Option<&'static [&'static str]> {
        Some(&["open", "next", "hold", "close"])
    }

    fn keeps_sessions(&self) -> bool {
        true
    }

    async fn session_ended(&self, name: &str) {
        self.counts.lock().unwrap().remove(name);
    }
}

struct Worker {
    stop: CancellationToken,
    task: JoinHandle<Result<WorkerReport, WorkerError>>,
}

impl Worker {
    fn start(server: &RedisServer, id: &str) -> Self {
        Self::start_with(server, id, LONG, LONG)
    }

    fn start_with(server: &RedisServer, id: &str, heartbeat_interval: Duration, session_idle: Duration) -> Self {
        Self::start_on(server, id, Queues::one(QUEUE), heartbeat_interval, session_idle)
    }

    fn start_on(
        server: &RedisServer,
        id: &str,
        queues: Queues,
        heartbeat_interval: Duration,
        session_idle: Duration,
    ) -> Self {
        let (url, timeout) = (server.url(), Duration::from_millis(500));
        Self::start_at(url, timeout, id, queues, heartbeat_interval, session_idle)
    }

    /// Starts a worker that takes at most `max_jobs` jobs.
    fn start_for(server: &RedisServer, id: &str, max_jobs: usize, heartbeat_interval: Duration) -> Self {
        let config = config(id, Queues::one(QUEUE), heartbeat_interval, LONG);
        Self::run(server.url(), LONG, WorkerConfig { max_jobs: Some(max_jobs), ..config })
    }

    fn start_at(
        redis_url: String,
        timeout: Duration,
        id: &str,
        queues: Queues,
        heartbeat_interval: Duration,
        session_idle: Duration,
    ) -> Self {
        Self::run(redis_url, timeout, config(id, queues, heartbeat_interval, session_idle))
    }

    fn run(redis_url: String, timeout: Duration, config: WorkerConfig) -> Self {
        let target = RedisTarget::new(&SecretString::from(redis_url), timeout).unwrap();
        let worker = worker::Worker::new(config, target);
        let context = worker.context(Arc::new(WorkerTypeSettings::default()));
        let stop = CancellationToken::new();
        let handler = Counters { context, counts: Mutex::default() };
        let task = tokio::spawn(worker.run(Arc::new(handler), stop.clone()));
        Self { stop, task }
    }

    /// As SIGKILL: nothing is said, its connections are closed.
    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    async fn leave(self) -> WorkerReport {
        self.stop.cancel();
        tokio::time::timeout(DEADLINE, self.task).await.expect("a worker leaves in time").unwrap().unwrap()
    }
}

fn config(id: &str, queues: Queues, heartbeat_interval: Duration, session_idle: Duration) -> WorkerConfig {
    WorkerConfig {
        worker_type: WorkerType::new("t"),
        id: WorkerId::new(id),
        queues,
        group: "t".to_owned(),
        concurrency: 1,
        max_jobs: None,
        heartbeat_interval,
        drain_timeout: Duration::from_secs(20),
        job_timeout: None,
        session_idle,
        sweep_interval: Duration::from_secs(30),
        metrics: None,
        policy: JobPolicy::default(),
    }
}

/// Waits until `workers` workers wait for jobs in the server.
async fn until_waiting(client: &Client, workers: u64) {
    let waiting = async || {
        let info: String = redis(client, "INFO clients").await;
        info.lines().any(|line| line == format!("blocked_clients:{workers}"))
    };
    assert!(eventually(DEADLINE, waiting).await, "never {workers} workers wait for jobs");
}

async fn publish(client: &Client, id: &str, job_type: &str, session: &str, args: Json) {
    publish_on(client, QUEUE, id, job_type, session, args).await;
}

async fn publish_on(client: &Client, queue: &str, id: &str, job_type: &str, session: &str, args: Json) {
    let session = Some(session).filter(|session| !session.is_empty());
    let job = json!({"id": id, "type": job_type, "args": args, "session": session, "reply_to": format!("result:{id}")});
    let _: String = client.xadd(queue, false, None, "*", ("json", job.to_string())).await.unwrap();
}

async fn result(client: &Client, id: &str) -> JobResult {
    let popped: Option<(String, String)> = client.blpop(format!("result:{id}"), DEADLINE.as_secs_f64()).await.unwrap();
    let (_, json) = popped.unwrap_or_else(|| panic!("no result of {id} within {DEADLINE:?}"));
    serde_json::from_str(&json).unwrap()
}

async fn call(client: &Client, id: &str, job_type: &str, session: &str) -> JobResult {
    publish(client, id, job_type, session, json!([])).await;
    result(client, id).await
}

async fn open(client: &Client, session: &str) -> String {
    let opened = call(client, &format!("open-{session}"), "t.open", session).await;
    opened.value.unwrap_or_else(|| panic!("not opened: {:?}", opened.error))["by"].as_str().unwrap().to_owned()
}

async fn until_heartbeat(client: &Client, id: &str, field: &str, wanted: &str) {
    let key = format!("worker:heartbeat:t:{id}");
    let is = async || client.hget::<Option<String>, _, _>(&key, field).await.unwrap().as_deref() == Some(wanted);
    assert!(eventually(DEADLINE, is).await, "{id}: {field} is never {wanted}");
}

async fn nothing_pending(client: &Client) {
    let none = async || pending(client, QUEUE, "t").await.is_empty();
    assert!(eventually(DEADLINE, none).await);
}

#[tokio::test]
async fn follow_ups_go_to_the_holder_whoever_takes_them() {
    let server = RedisServer::start();
    let client = server.client().await;
    let workers: Vec<_> = ["w1", "w2", "w3"].map(|id| Worker::start(&server, id)).into();
    for id in ["w1", "w2", "w3"] {
        until_heartbeat(&client, id, "state", "IDLE").await;
    }
    let holder = open(&client, "chan").await;
    until_heartbeat(&client, &holder, "state", "WAITING").await;
    until_heartbeat(&client, &holder, "sessions", "1").await;
    for count in 1..=30 {
        let answer = call(&client, &format!("next-{count}"), "t.next", "chan").await;
        assert_eq!(answer.value, Some(json!({"by": holder, "count": count})), "{:?}", answer.error);
    }
    // All at once: each is done exactly once, one after the other, by the holder.
    for number in 0..200 {
        publish(&client, &format!("burst-{number}"), "t.next", "chan", json!([])).await;
    }
    let mut counts = BTreeSet::new();
    for number in 0..200 {
        let value = result(&client, &format!("burst-{number}")).await.value.unwrap();
        assert_eq!(value["by"], json!(holder));
        assert!(counts.insert(value["count"].as_u64().unwrap()));
    }
    assert_eq!(counts, (31..=230).collect());
    assert!(call(&client, "close", "t.close", "chan").await.ok);
    until_heartbeat(&client, &holder, "state", "IDLE").await;
    let after = call(&client, "after", "t.next", "chan").await;
    assert!(after.error.unwrap().contains("`chan` is not open"));
    nothing_pending(&client).await;
    for worker in workers {
        worker.leave().await;
    }
}

#[tokio::test]
async fn follow_ups_go_to_the_holder_whichever_queue_they_come_by() {
    let server = RedisServer::start();
    let client = server.client().await;
    let queues = Queues {
        own: QUEUE.to_owned(),
        others: vec!["urgent".to_owned()],
        patterns: vec![QueuePattern::parse("tenant-*").unwrap()],
    };
    let start = |id: &str| Worker::start_on(&server, id, queues.clone(), LONG, LONG);
    let workers: Vec<_> = ["w1", "w2"].map(start).into();
    for id in ["w1", "w2"] {
        until_heartbeat(&client, id, "state", "IDLE").await;
    }
    let holder = open(&client, "chan").await;
    // With its slot taken the holder reads no queue: the other one hands the jobs over.
    publish(&client, "long", "t.hold", "chan", json!([3])).await;
    until_heartbeat(&client, &holder, "jobs_in_progress", "1").await;
    let _: u64 = redis(&client, "PUBLISH jobs:published tenant-1").await;
    for (number, queue) in ["urgent", "tenant-1", QUEUE, "urgent"].into_iter().enumerate() {
        publish_on(&client, queue, &format!("next-{number}"), "t.next", "chan", json!([])).await;
        let _: u64 = redis(&client, &format!("PUBLISH jobs:published {queue}")).await;
    }
    for number in 0..4 {
        let answer = result(&client, &format!("next-{number}")).await;
        assert_eq!(answer.value.as_ref().map(|value| &value["by"]), Some(&json!(holder)), "{answer:?}");
    }
    for queue in ["urgent", "tenant-1", QUEUE] {
        let none = async || pending(&client, queue, "t").await.is_empty();
        assert!(eventually(DEADLINE, none).await, "{queue}");
    }
    publish_on(&client, "tenant-1", "close", "t.close", "chan", json!([])).await;
    assert!(result(&client, "close").await.ok);
    for worker in workers {
        worker.leave().await;
    }
}

#[tokio::test]
async fn two_that_open_one_session_at_once_get_one_session() {
    let server = RedisServer::start();
    let client = server.client().await;
    let _workers: Vec<_> = ["w1", "w2", "w3", "w4"].map(|id| Worker::start(&server, id)).into();
    for round in 0..20 {
        let ids: Vec<String> = (0..4).map(|n| format!("open-{round}-{n}")).collect();
        let session = format!("s{round}");
        for id in &ids {
            publish(&client, id, "t.open", &session, json!([])).await;
        }
        let mut holders = BTreeSet::new();
        for id in &ids {
            let answer = result(&client, id).await;
            holders.insert(answer.value.unwrap_or_else(|| panic!("{:?}", answer.error))["by"].to_string());
        }
        assert_eq!(holders.len(), 1, "round {round}");
    }
}

/// With this many sessions and this interval the worker renews claims nearly all the time.
#[tokio::test]
async fn a_session_that_is_closed_while_claims_are_renewed_is_closed() {
    let server = RedisServer::start();
    let client = server.client().await;
    let _worker = Worker::start_with(&server, "w", Duration::from_millis(20), LONG);
    for number in 0..50 {
        open(&client, &format!("kept-{number}")).await;
    }
    for round in 0..200 {
        for method in ["open", "close"] {
            let answer = call(&client, &format!("{method}-{round}"), &format!("t.{method}"), "chan").await;
            assert!(answer.ok, "{method} in round {round}: {:?}", answer.error);
        }
    }
}

#[tokio::test]
async fn a_busy_holder_still_serves_its_sessions() {
    let server = RedisServer::start();
    let client = server.client().await;
    let _holder = Worker::start(&server, "holder");
    assert_eq!(open(&client, "chan").await, "holder");
    // No session, and longer than this test: it takes the holder's only slot.
    publish(&client, "common", "t.sleep", "", json!([1000])).await;
    until_heartbeat(&client, "holder", "state", "BUSY").await;
    let _other = Worker::start(&server, "other");
    let answer = call(&client, "next", "t.next", "chan").await;
    assert_eq!(answer.value, Some(json!({"by": "holder", "count": 1})), "{:?}", answer.error);
}

#[tokio::test]
async fn jobs_of_a_dead_holder_are_told_that_the_session_is_lost() {
    let server = RedisServer::start();
    let client = server.client().await;
    let holder = Worker::start_with(&server, "holder", SHORT, LONG);
    assert_eq!(open(&client, "chan").await, "holder");
    let other = Worker::start_with(&server, "other", SHORT, LONG);
    until_heartbeat(&client, "other", "state", "IDLE").await;
    // One in progress, three that wait for it at the holder.
    publish(&client, "held", "t.hold", "chan", json!([1000])).await;
    until_heartbeat(&client, "holder", "state", "BUSY").await;
    for id in ["wait-1", "wait-2", "wait-3"] {
        publish(&client, id, "t.next", "chan", json!([])).await;
    }
    let with_holder = async || {
        let pending = pending(&client, QUEUE, "t").await;
        pending.len() == 4 && pending.iter().all(|(consumer, _)| consumer == "holder")
    };
    assert!(eventually(DEADLINE, with_holder).await);
    holder.kill().await;
    for id in ["held", "wait-1", "wait-2", "wait-3"] {
        let error = result(&client, id).await.error.unwrap();
        assert!(error.starts_with("session lost: worker `holder`"), "{id}: {error}");
    }
    assert_eq!(open(&client, "chan").await, "other", "it can be opened again");
    assert_eq!(call(&client, "next", "t.next", "chan").await.value, Some(json!({"by": "other", "count": 1})));
    nothing_pending(&client).await;
    assert!(call(&client, "close", "t.close", "chan").await.ok);
    other.leave().await;
}

#[tokio::test]
async fn the_next_job_is_told_at_once_long_before_the_heartbeat_runs_out() {
    let server = RedisServer::start();
    let client = server.client().await;
    let rare = Duration::from_secs(600);
    let holder = Worker::start_with(&server, "holder", rare, LONG);
    assert_eq!(open(&client, "chan").await, "holder");
    let _other = Worker::start_with(&server, "other", rare, LONG);
    until_heartbeat(&client, "other", "state", "IDLE").await;
    // Until the server has noticed that a connection is closed, it may deliver a job to it.
    until_waiting(&client, 2).await;
    holder.kill().await;
    until_waiting(&client, 1).await;
    let error = call(&client, "next", "t.next", "chan").await.error.unwrap();
    assert!(error.starts_with("session lost: worker `holder`"), "{error}");
    assert!(client.exists::<bool, _>("worker:heartbeat:t:holder").await.unwrap(), "that would have told it too");
}

#[tokio::test]
async fn a_session_that_nothing_is_asked_of_idles_out() {
    let server = RedisServer::start();
    let client = server.client().await;
    // All are there when the worker begins: between two jobs the session is idle for no longer than the worker takes.
    publish(&client, "open", "t.open", "chan", json!([])).await;
    // A job longer than the time after which it idles out keeps it open.
    publish(&client, "held", "t.hold", "chan", json!([2.5])).await;
    publish(&client, "next", "t.next", "chan", json!([])).await;
    let _worker = Worker::start_with(&server, "w1", SHORT, Duration::from_millis(1_500));
    assert!(result(&client, "open").await.ok);
    assert_eq!(result(&client, "held").await.value, Some(json!({"by": "w1", "count": 1})));
    assert_eq!(result(&client, "next").await.value, Some(json!({"by": "w1", "count": 2})));
    until_heartbeat(&client, "w1", "sessions", "0").await;
    until_heartbeat(&client, "w1", "state", "IDLE").await;
    assert!(!client.exists::<bool, _>("session:t:chan").await.unwrap());
    let error = call(&client, "late", "t.next", "chan").await.error.unwrap();
    assert!(error.contains("`chan` is not open"), "{error}");
}

#[tokio::test]
async fn a_worker_that_leaves_serves_its_sessions_until_they_are_closed() {
    let server = RedisServer::start();
    let client = server.client().await;
    let holder = Worker::start(&server, "holder");
    assert_eq!(open(&client, "chan").await, "holder");
    let other = Worker::start(&server, "other");
    until_heartbeat(&client, "other", "state", "IDLE").await;
    holder.stop.cancel();
    until_heartbeat(&client, "holder", "state", "DRAINING").await;
    let answer = call(&client, "next", "t.next", "chan").await;
    assert_eq!(answer.value, Some(json!({"by": "holder", "count": 1})), "{:?}", answer.error);
    assert!(call(&client, "close", "t.close", "chan").await.ok);
    assert_eq!(holder.leave().await.abandoned, 0);
    nothing_pending(&client).await;
    other.leave().await;
}

#[tokio::test]
async fn a_worker_whose_session_was_lost_to_others_lets_go_of_it() {
    let server = RedisServer::start();
    let client = server.client().await;
    let _worker = Worker::start_with(&server, "w1", SHORT, LONG);
    open(&client, "chan").await;
    until_heartbeat(&client, "w1", "sessions", "1").await;
    let _: String = redis(&client, "SET session:t:chan somebody-else").await;
    until_heartbeat(&client, "w1", "sessions", "0").await;
    assert_eq!(client.get::<String, _>("session:t:chan").await.unwrap(), "somebody-else");
}

/// A worker as a shell script: idle but for the session that `redis-cli` says it has, gone when asked to leave.
const SESSION_HOLDER: &str = r#"
key="worker:heartbeat:t:$SWARM_WORKER_ID"
trap 'redis-cli -u "$REDIS_URL" DEL "$key" >/dev/null; exit 0' TERM
while :; do
  sessions=$(redis-cli -u "$REDIS_URL" GET sessions)
  [ "$sessions" = 1 ] && state=WAITING || state=IDLE
  redis-cli -u "$REDIS_URL" HSET "$key" state $state sessions "$sessions" worker_id "$SWARM_WORKER_ID" >/dev/null
  redis-cli -u "$REDIS_URL" EXPIRE "$key" 30 >/dev/null
  sleep 0.1
done
"#;

#[tokio::test]
async fn the_scaler_keeps_a_worker_with_an_open_session_and_retires_it_afterwards() {
    let server = RedisServer::start();
    let client = server.client().await;
    let _: String = redis(&client, "SET sessions 1").await;
    let scaling = "min_workers = 0, max_workers = 1, cooldown_seconds = 0";
    let script = Json::from(SESSION_HOLDER);
    let settings = format!(
        "[scaler]\nsweep_interval_seconds = 1\n[worker_types.t]\nscaling = {{ {scaling} }}\n\
         process = {{ command = [\"sh\", \"-c\", {script}] }}\n"
    );
    let scaler = Autoscaler::start(&server.url(), &settings).await;
    let entry: String = redis(&client, "XADD t:jobs * json {}").await;
    scaler.until_workers("t", 1).await;
    scaler
        .until("the worker is ready", async || {
            scaler.of("t").await.pool.known().is_some_and(|pool| pool.ready == 1 && pool.busy == 1)
        })
        .await;
    let _: u64 = redis(&client, &format!("XDEL t:jobs {entry}")).await;
    let _: u64 = redis(&client, "DEL t:jobs").await;
    scaler.until_evaluated("t", 4).await;
    assert_eq!(scaler.of("t").await.pool.known().map(|pool| (pool.busy, pool.draining)), Some((1, 0)));
    let _: String = redis(&client, "SET sessions 0").await;
    scaler.until_workers("t", 0).await;
}

#[tokio::test]
async fn a_cancelled_job_that_waits_for_others_of_its_session_is_told_before_its_turn() {
    let server = RedisServer::start();
    let client = server.client().await;
    let worker = Worker::start(&server, "w1");
    open(&client, "chan").await;
    publish(&client, "holds", "t.hold", "chan", json!([1000])).await;
    until_heartbeat(&client, "w1", "state", "BUSY").await;
    for id in ["next", "last"] {
        publish(&client, id, "t.next", "chan", json!([])).await;
    }
    // Both wait on the worker.
    let taken = async || pending(&client, QUEUE, "t").await.len() == 3;
    assert!(eventually(DEADLINE, taken).await);
    let swarm = patient_client(&server.url(), "t");
    let stopped = |by: &str| swarm::model::job::Cancelled::Stopped { worker: by.to_owned() };
    assert_eq!(swarm.cancel("next", DEADLINE).await.unwrap(), stopped("w1"));
    assert_eq!(result(&client, "next").await.error.as_deref(), Some("cancelled"));
    assert_eq!(swarm.cancel("holds", DEADLINE).await.unwrap(), stopped("w1"));
    assert_eq!(result(&client, "holds").await.error.as_deref(), Some("cancelled"));
    assert_eq!(result(&client, "last").await.value, Some(json!({"by": "w1", "count": 2})));
    nothing_pending(&client).await;
    until_heartbeat(&client, "w1", "jobs_in_progress", "0").await;
    worker.kill().await;
}
