//! Jobs that are done and can't be settled, and jobs that are in each other's way: on a real `redis-server`.

use std::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use fred::{prelude::*, types::CustomCommand};
use secrecy::SecretString;
use serde_json::{Map, Value as Json, json};
use swarm::{
    broker::{Job, Publisher},
    config::{BrokerSettings, WorkerTypeSettings},
    connection::RedisTarget,
    model::{WorkerId, WorkerType},
    worker::{Handler, JobError, WorkerConfig, WorkerError, WorkerReport, run},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{
    command::waiting_and_pending,
    redis::RedisServer,
    wait::{DEADLINE, eventually},
};

const QUEUE: &str = "t:jobs";
const SLOTS: usize = 2;

/// Counts what it does. `TYPE.block` blocks its thread until it is let go on.
#[derive(Default)]
struct Counting {
    done: AtomicUsize,
    may_go_on: Mutex<bool>,
    told: Condvar,
}

impl Counting {
    fn let_go_on(&self) {
        *self.may_go_on.lock().unwrap() = true;
        self.told.notify_all();
    }
}

#[async_trait]
impl Handler for Counting {
    async fn handle(&self, method: &str, job: &Job) -> Result<Json, JobError> {
        if method == "block" {
            drop(self.told.wait_while(self.may_go_on.lock().unwrap(), |may| !*may).unwrap());
        }
        self.done.fetch_add(1, Ordering::SeqCst);
        Ok(json!(job.id))
    }
}

fn target(url: &str) -> RedisTarget {
    RedisTarget::new(&SecretString::from(url), Duration::from_secs(5)).unwrap()
}

fn start(
    url: &str,
    concurrency: usize,
    handler: &Arc<Counting>,
    stop: &CancellationToken,
) -> JoinHandle<Result<WorkerReport, WorkerError>> {
    let settings = WorkerTypeSettings::default();
    let config = WorkerConfig {
        concurrency,
        heartbeat_interval: Duration::from_millis(300),
        ..WorkerConfig::new(WorkerType::new("t"), WorkerId::new("w1"), &settings)
    };
    let handler: Arc<dyn Handler> = handler.clone();
    tokio::spawn(run(config, target(url), handler, stop.clone()))
}

async fn custom(client: &Client, words: &[&str]) {
    let (command, args) = words.split_first().expect("a command has a name");
    let command = CustomCommand::new((*command).to_owned(), None, false);
    client.custom::<Value, _>(command, args.to_vec()).await.unwrap();
}

fn jobs(count: usize, method: &str) -> Vec<Job> {
    (0..count).map(|_| Job::new(format!("t.{method}"), Vec::new(), Map::new()).with_reply()).collect()
}

async fn publish(server: &RedisServer, jobs: &[Job]) {
    let connection = target(&server.url()).connect().await.unwrap();
    let mut publisher = Publisher::new(connection, "jobs:published", BrokerSettings::default());
    publisher.publish(QUEUE, jobs).await.unwrap();
}

/// A worker whose Redis `refuses` results does no more jobs than it has slots and as many again, acknowledges none,
/// and tells of each once when Redis takes it `again`.
async fn results_are_refused_for_a_while(url: impl Fn(&RedisServer) -> String, refuse: &[&str], again: &[&str]) {
    let server = RedisServer::start();
    let client = server.client().await;
    custom(&client, &["ACL", "SETUSER", "worker", "on", ">secret", "~*", "&*", "+@all"]).await;
    let jobs = jobs(5 * SLOTS, "count");
    let (handler, stop) = (Arc::new(Counting::default()), CancellationToken::new());
    // At work before anything is refused: a worker without a heartbeat takes no job.
    let worker = start(&url(&server), SLOTS, &handler, &stop);
    assert!(eventually(DEADLINE, async || client.exists::<bool, _>("worker:heartbeat:t:w1").await.unwrap()).await);
    let transaction = client.multi();
    for job in &jobs {
        let (): () = transaction.xadd(QUEUE, false, None, "*", ("json", job.to_json())).await.unwrap();
    }
    let (command, args) = refuse.split_first().expect("a command has a name");
    let command = CustomCommand::new((*command).to_owned(), None, false);
    let (): () = transaction.custom(command, args.to_vec()).await.unwrap();
    let _: Vec<Value> = transaction.exec(true).await.unwrap();

    let (held, waiting) = (2 * SLOTS as u64, 3 * SLOTS as u64);
    let done = || handler.done.load(Ordering::SeqCst);
    // What is delivered is done a moment later.
    let is_stuck = async || waiting_and_pending(&client, QUEUE).await == Some((waiting, held)) && done() == 2 * SLOTS;
    assert!(eventually(DEADLINE, is_stuck).await, "{:?}, {} done", waiting_and_pending(&client, QUEUE).await, done());
    let keys: Vec<String> = jobs.iter().filter_map(|job| job.reply_to.clone()).collect();
    assert_eq!(client.exists::<usize, _>(keys.clone()).await.unwrap(), 0);

    custom(&client, again).await;
    assert!(
        eventually(DEADLINE, async || waiting_and_pending(&client, QUEUE).await == Some((0, 0))).await,
        "all is settled"
    );
    for key in keys {
        assert_eq!(client.llen::<usize, _>(&key).await.unwrap(), 1, "{key}");
        assert!(client.ttl::<i64, _>(&key).await.unwrap() > 0, "{key}");
    }
    stop.cancel();
    let report = worker.await.unwrap().unwrap();
    assert_eq!(report, WorkerReport { processed: 5 * SLOTS as u64, failed: 0, abandoned: 0 });
    assert_eq!(handler.done.load(Ordering::SeqCst), 5 * SLOTS, "each job was done once");
}

#[tokio::test]
async fn no_job_is_acknowledged_whose_result_redis_has_no_memory_for() {
    let (refuse, again) = (["CONFIG", "SET", "maxmemory", "1"], ["CONFIG", "SET", "maxmemory", "0"]);
    results_are_refused_for_a_while(RedisServer::url, &refuse, &again).await;
}

#[tokio::test]
async fn no_job_is_acknowledged_whose_result_the_worker_may_not_write() {
    let url = |server: &RedisServer| format!("redis://worker:secret@127.0.0.1:{}/0", server.port());
    let refuse = ["ACL", "SETUSER", "worker", "resetkeys", "~t:jobs*", "~worker:*"];
    let again = ["ACL", "SETUSER", "worker", "~*"];
    results_are_refused_for_a_while(url, &refuse, &again).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_blocks_its_thread_holds_few_others_up() {
    let server = RedisServer::start();
    let client = server.client().await;
    let mut all = jobs(1, "block");
    all.extend(jobs(99, "count"));
    publish(&server, &all).await;
    let (handler, stop) = (Arc::new(Counting::default()), CancellationToken::new());
    let worker = start(&server.url(), 100, &handler, &stop);
    // All but those that one task begins.
    assert!(eventually(DEADLINE, async || handler.done.load(Ordering::SeqCst) >= 84).await, "{:?}", handler.done);
    handler.let_go_on();
    assert!(eventually(DEADLINE, async || handler.done.load(Ordering::SeqCst) == 100).await);
    assert!(eventually(DEADLINE, async || waiting_and_pending(&client, QUEUE).await == Some((0, 0))).await);
    stop.cancel();
    assert_eq!(worker.await.unwrap().unwrap().processed, 100);
}

#[tokio::test]
async fn of_many_jobs_none_is_published_if_one_is_no_job() {
    let server = RedisServer::start();
    let client = server.client().await;
    let connection = target(&server.url()).connect().await.unwrap();
    let limits = BrokerSettings { job_max_bytes: 1_000, ..BrokerSettings::default() };
    let mut publisher = Publisher::new(connection, "", limits);
    let large = Job::new("t.count", vec![json!("x".repeat(1_000))], Map::new());
    for wrong in [Job { job_type: String::new(), ..large.clone() }, large] {
        let mut all = jobs(1_100, "count");
        all.push(wrong);
        assert!(publisher.publish(QUEUE, &all).await.is_err());
        assert_eq!(client.xlen::<u64, _>(QUEUE).await.unwrap(), 0);
    }
    // One that may be too large by the estimate, and is not.
    let fits = Job::new("t.count", vec![json!("x".repeat(500))], Map::new());
    publisher.publish(QUEUE, &[fits]).await.unwrap();
    assert_eq!(client.xlen::<u64, _>(QUEUE).await.unwrap(), 1);
}
