//! Nothing is lost: workers and Redis are killed while they work, and every published job is done, and done twice only
//! where a worker died.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use fred::{prelude::*, types::CustomCommand};
use secrecy::SecretString;
use serde_json::{Map, Value as Json, json};
use swarm::{
    broker::{Job, JobPolicy, Publisher},
    config::{BrokerSettings, JobSettings},
    connection::RedisTarget,
    model::{Queues, WorkerId, WorkerType},
    worker::{Handler, JobError, WorkerConfig, WorkerError, WorkerReport, run},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{
    command::waiting_and_pending,
    redis::RedisServer,
    wait::{DEADLINE, eventually},
    worker::WorkerProcess,
};

const QUEUE: &str = "t:jobs";
const JOBS: usize = 10_000;
const WORKERS: usize = 8;
/// Interval of heartbeats and time-out of commands: heartbeats live three times as long, also on a machine that halts.
const SECOND: Duration = Duration::from_secs(1);
/// Attempts enough that no job is given up for the many workers that die.
const ATTEMPTS: u32 = 20;

/// Writes down in Redis who did which job: one list for each job.
struct Recorder {
    worker: String,
    client: Client,
}

#[async_trait]
impl Handler for Recorder {
    async fn handle(&self, _method: &str, job: &Job) -> Result<Json, JobError> {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let record = CustomCommand::new_static("RPUSH", None, false);
        let done: Result<u64, _> =
            self.client.custom(record, vec![format!("done:{}", job.args[0]), self.worker.clone()]).await;
        done.map(|_| Json::Null).map_err(|error| JobError::Transient(error.to_string()))
    }
}

struct Worker {
    stop: CancellationToken,
    task: JoinHandle<Result<WorkerReport, WorkerError>>,
    id: String,
}

fn target(server: &RedisServer, timeout: Duration) -> RedisTarget {
    RedisTarget::new(&SecretString::from(server.url()), timeout).unwrap()
}

fn start(server: &RedisServer, client: &Client, number: usize) -> Worker {
    let id = format!("w{number}");
    let config = WorkerConfig {
        worker_type: WorkerType::new("t"),
        id: WorkerId::new(id.as_str()),
        queues: Queues::one(QUEUE),
        group: "t".to_owned(),
        concurrency: 4,
        max_jobs: None,
        heartbeat_interval: SECOND,
        drain_timeout: Duration::from_secs(20),
        job_timeout: None,
        session_idle: Duration::from_secs(60),
        sweep_interval: Duration::from_secs(30),
        metrics: None,
        policy: JobPolicy {
            jobs: JobSettings { max_attempts: ATTEMPTS, ..JobSettings::default() },
            ..JobPolicy::default()
        },
    };
    let stop = CancellationToken::new();
    let recorder = Recorder { worker: id.clone(), client: client.clone() };
    let task = tokio::spawn(run(config, target(server, SECOND), Arc::new(recorder), stop.clone()));
    Worker { stop, task, id }
}

async fn nothing_unfinished(client: &Client) -> bool {
    waiting_and_pending(client, QUEUE).await == Some((0, 0))
}

/// Who did each job, by its number.
async fn doers(client: &Client, jobs: usize) -> Vec<Vec<String>> {
    let pipeline = client.pipeline();
    for number in 0..jobs {
        let () = pipeline.lrange(format!("done:{number}"), 0, -1).await.unwrap();
    }
    pipeline.all().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stdout, reason = "how many were done twice is what one runs this for")]
async fn ten_thousand_jobs_are_done_while_a_worker_dies_each_second() {
    let server = RedisServer::start();
    let client = server.client().await;
    let mut workers: Vec<Worker> = (0..WORKERS).map(|number| start(&server, &client, number)).collect();
    let connection = target(&server, DEADLINE).connect().await.unwrap();
    let mut publisher = Publisher::new(connection, "", BrokerSettings::default());
    let jobs: Vec<Job> = (0..JOBS).map(|n| Job::new("t.record", vec![json!(n)], Map::new())).collect();
    publisher.publish(QUEUE, &jobs).await.unwrap();

    let (mut dead, mut ticks) = (BTreeSet::new(), tokio::time::interval(SECOND));
    ticks.tick().await;
    let all_begun = async {
        while waiting_and_pending(&client, QUEUE).await.is_none_or(|(waiting, _)| waiting > 0) {
            ticks.tick().await;
            let number = WORKERS + dead.len();
            let victim = std::mem::replace(&mut workers[number % WORKERS], start(&server, &client, number));
            victim.task.abort();
            let _ = victim.task.await;
            dead.insert(victim.id);
        }
    };
    tokio::time::timeout(DEADLINE, all_begun).await.expect("all jobs are begun in time");
    assert!(eventually(DEADLINE, async || nothing_unfinished(&client).await).await, "all jobs are done in time");

    let doers = doers(&client, JOBS).await;
    let never: Vec<_> = doers.iter().enumerate().filter(|(_, by)| by.is_empty()).map(|(number, _)| number).collect();
    assert_eq!(never, Vec::<usize>::new(), "never done, and {} workers died", dead.len());
    assert_eq!(client.xlen::<u64, _>("t:jobs:dead").await.unwrap(), 0);
    let twice: Vec<_> = doers.iter().filter(|by| by.len() > 1).collect();
    for by in &twice {
        let (_, before) = by.split_last().expect("it has two");
        assert!(before.iter().all(|worker| dead.contains(worker)), "done twice, and the first one lives: {by:?}");
    }
    assert!(twice.len() <= 4 * dead.len(), "{} done twice, with 4 in hand of each of {}", twice.len(), dead.len());
    assert!(!dead.is_empty(), "nobody died: the jobs were done too fast for this test");
    println!("{JOBS} jobs, {} workers died, {} jobs were done twice", dead.len(), twice.len());
    for worker in workers {
        worker.stop.cancel();
        worker.task.await.unwrap().unwrap();
    }
}

const REAL: &str =
    "[worker_types.t]\nworker = { heartbeat_seconds = 1, concurrency = 4 }\njobs = { max_attempts = 20 }\n";

/// Publishes jobs whose results somebody waits for.
async fn publish_sleeps(client: &Client, numbers: Range<usize>) {
    let pipeline = client.pipeline();
    for number in numbers {
        let job = json!({"id": number.to_string(), "type": "t.sleep", "args": [0.05], "reply_to": format!("result:{number}")});
        let () = pipeline.xadd(QUEUE, false, None, "*", ("json", job.to_string())).await.unwrap();
    }
    let _: Vec<String> = pipeline.all().await.unwrap();
}

/// Waits until a worker is at work, however slowly it starts: publishes more jobs before the others have done all.
/// Returns how many were published so far, after `published`.
async fn until_busy(client: &Client, worker: &WorkerProcess, mut published: usize) -> usize {
    let busy = async || {
        if waiting_and_pending(client, QUEUE).await.is_some_and(|(waiting, _)| waiting < 100) {
            publish_sleeps(client, published..published + 100).await;
            published += 100;
        }
        worker.heartbeat(client).await.get("state").is_some_and(|state| state == "BUSY")
    };
    assert!(eventually(DEADLINE, busy).await, "it is never busy; its log:\n{}", worker.log());
    published
}

/// How many jobs have how many answers.
async fn answered(client: &Client, count: usize) -> BTreeMap<u64, usize> {
    let pipeline = client.pipeline();
    for number in 0..count {
        let () = pipeline.llen(format!("result:{number}")).await.unwrap();
    }
    let lengths: Vec<u64> = pipeline.all().await.unwrap();
    lengths.into_iter().fold(BTreeMap::new(), |mut counts, length| {
        *counts.entry(length).or_default() += 1;
        counts
    })
}

#[tokio::test]
async fn a_worker_killed_at_work_loses_no_job() {
    let server = RedisServer::start();
    let client = server.client().await;
    let mut published = 600;
    publish_sleeps(&client, 0..published).await;
    let _first = WorkerProcess::start_with(&server.url(), "w1", REAL);
    for round in 0..3 {
        let mut victim = WorkerProcess::start_with(&server.url(), &format!("victim-{round}"), REAL);
        published = until_busy(&client, &victim, published).await;
        victim.kill();
    }
    let done = eventually(DEADLINE, async || nothing_unfinished(&client).await).await;
    assert!(done, "waiting and pending: {:?}", waiting_and_pending(&client, QUEUE).await);
    let answered = answered(&client, published).await;
    assert!(!answered.contains_key(&0), "answers of each job: {answered:?}");
    assert_eq!(client.xlen::<u64, _>("t:jobs:dead").await.unwrap(), 0);
}

#[tokio::test]
async fn redis_killed_at_work_and_started_again_loses_no_job() {
    const COUNT: usize = 300;
    let mut server = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let mut client = server.client().await;
    publish_sleeps(&client, 0..COUNT).await;
    let workers = ["w1", "w2"].map(|id| WorkerProcess::start_with(&server.url(), id, REAL));
    for round in 1..=3 {
        let some_done = async || {
            let left: usize = answered(&client, COUNT).await.get(&0).copied().unwrap_or(0);
            left <= COUNT - round * COUNT / 6
        };
        assert!(eventually(DEADLINE, some_done).await, "{}", workers[0].log());
        server.restart();
        client = server.client().await;
    }
    assert!(eventually(DEADLINE, async || nothing_unfinished(&client).await).await, "{}", workers[0].log());
    let answered = answered(&client, COUNT).await;
    assert!(!answered.contains_key(&0), "answers of each job: {answered:?}");
    assert_eq!(client.xlen::<u64, _>("t:jobs:dead").await.unwrap(), 0);
    for worker in &workers {
        worker.until_state(&client, "IDLE").await;
    }
}
