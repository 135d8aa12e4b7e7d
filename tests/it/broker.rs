//! Broker and worker on a real `redis-server`, with `fred` as producer and witness.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use fred::{prelude::*, types::CustomCommand};
use secrecy::SecretString;
use serde_json::{Map, Value as Json, json};
use swarm::{
    broker::{
        Consumer, DeadLetters, Failed, Job, JobPolicy, JobResult, Place, Published, Publisher, Retry, Routes, Subject,
        explain, wait_for_any, wait_shared,
    },
    config::{BrokerSettings, JobSettings, Settings, WorkerTypeSettings},
    connection::RedisTarget,
    model::{
        Queues, WorkerId, WorkerType,
        dead_letter::{DeadFilter, DeadLetterOutcome},
    },
    worker::{Handler, JobError, WorkerConfig, WorkerError, WorkerReport, handlers::BuiltIn, run},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{
    redis::RedisServer,
    wait::{DEADLINE, eventually},
};

const QUEUE: &str = "t:jobs";
const GROUP: &str = "t";

/// `TYPE.panic` panics, `TYPE.wait` ends at the gate, with its arguments; anything else as usual.
struct Tested {
    gate: CancellationToken,
}

#[async_trait]
impl Handler for Tested {
    async fn handle(&self, method: &str, job: &Job) -> Result<Json, JobError> {
        assert!(method != "panic", "as asked");
        if method == "wait" {
            self.gate.cancelled().await;
            return Ok(job.args.clone().into());
        }
        BuiltIn.handle(method, job).await
    }
}

/// A stream entry's fields, which need not be text.
type Fields = HashMap<Vec<u8>, Vec<u8>>;

struct Worker {
    stop: CancellationToken,
    gate: CancellationToken,
    task: JoinHandle<Result<WorkerReport, WorkerError>>,
}

impl Worker {
    fn start(server: &RedisServer, id: &str, concurrency: usize) -> Self {
        Self::start_at(impatient_target(server), Self::config(id, concurrency))
    }

    fn config(id: &str, concurrency: usize) -> WorkerConfig {
        WorkerConfig {
            worker_type: WorkerType::new("t"),
            id: WorkerId::new(id),
            queues: Queues::one(QUEUE),
            group: GROUP.to_owned(),
            concurrency,
            max_jobs: None,
            heartbeat_interval: Duration::from_millis(300),
            drain_timeout: Duration::from_secs(10),
            job_timeout: None,
            session_idle: Duration::from_secs(60),
            sweep_interval: Duration::from_secs(30),
            metrics: None,
            policy: JobPolicy {
                jobs: JobSettings { retry_backoff_ms: 50, ..JobSettings::default() },
                ..JobPolicy::default()
            },
        }
    }

    fn start_at(target: RedisTarget, config: WorkerConfig) -> Self {
        let (stop, gate) = (CancellationToken::new(), CancellationToken::new());
        let handler = Tested { gate: gate.clone() };
        let task = tokio::spawn(run(config, target, Arc::new(handler), stop.clone()));
        Self { stop, gate, task }
    }

    /// Lets the jobs end that wait, those that are still to come too.
    fn open_gate(&self) {
        self.gate.cancel();
    }

    /// As SIGKILL: nothing is said, nothing is finished.
    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    async fn leave(self) -> WorkerReport {
        self.stop.cancel();
        let report = tokio::time::timeout(DEADLINE, self.task).await.expect("a worker leaves in time");
        report.unwrap().unwrap()
    }
}

/// For the connections of the test, which asks once.
fn target(server: &RedisServer) -> RedisTarget {
    RedisTarget::new(&SecretString::from(server.url()), DEADLINE).unwrap()
}

/// For workers, which ask again.
fn impatient_target(server: &RedisServer) -> RedisTarget {
    RedisTarget::new(&SecretString::from(server.url()), Duration::from_millis(500)).unwrap()
}

/// Publishes as a program in another language would; answers the key of the result.
async fn publish(client: &Client, id: &str, job_type: &str, args: Json) -> String {
    let reply_to = format!("result:{id}");
    let job = json!({"id": id, "type": job_type, "args": args, "kwargs": {}, "reply_to": reply_to, "created_ts": 1.5});
    let _: String = client.xadd(QUEUE, false, None, "*", ("json", job.to_string())).await.unwrap();
    reply_to
}

async fn result(client: &Client, key: &str) -> JobResult {
    let popped: Option<(String, String)> = client.blpop(key, DEADLINE.as_secs_f64()).await.unwrap();
    let (_, json) = popped.unwrap_or_else(|| panic!("no result in {key} within {DEADLINE:?}"));
    serde_json::from_str(&json).unwrap()
}

async fn custom<R: FromValue>(client: &Client, words: &[&str]) -> R {
    let (command, args) = words.split_first().expect("a command has a name");
    client.custom(CustomCommand::new((*command).to_owned(), None, false), args.to_vec()).await.unwrap()
}

async fn pending(client: &Client) -> u64 {
    let groups: Vec<HashMap<String, Value>> = client.xinfo_groups(QUEUE).await.unwrap();
    groups.iter().find_map(|group| group["pending"].as_u64()).unwrap_or(0)
}

async fn state(client: &Client, id: &str) -> Option<String> {
    client.hget(format!("worker:heartbeat:t:{id}"), "state").await.unwrap()
}

async fn is_in_state(client: &Client, id: &str, wanted: &str) -> bool {
    eventually(DEADLINE, async || state(client, id).await.as_deref() == Some(wanted)).await
}

#[tokio::test]
async fn a_job_published_before_anyone_listened_is_done_answered_and_acknowledged() {
    let server = RedisServer::start();
    let client = server.client().await;
    let key = publish(&client, "a", "t.echo", json!([1, "two", {"three": 3}])).await;
    let worker = Worker::start(&server, "w1", 1);
    assert_eq!(result(&client, &key).await, JobResult::new("a", Ok(json!([1, "two", {"three": 3}]))));
    assert_eq!(pending(&client).await, 0);
    let failed = publish(&client, "b", "t.fly", json!([])).await;
    assert!(result(&client, &failed).await.error.unwrap().contains("knows echo, sleep"));
    assert_eq!(worker.leave().await, WorkerReport { processed: 2, failed: 1, abandoned: 0 });
}

#[tokio::test]
async fn publishing_writes_the_wire_format_and_names_the_stream_on_the_channel() {
    let server = RedisServer::start();
    let (client, listener) = (server.client().await, server.client().await);
    let mut messages = listener.message_rx();
    listener.subscribe("jobs:published").await.unwrap();
    let mut publisher =
        Publisher::new(target(&server).connect().await.unwrap(), "jobs:published", BrokerSettings::default());
    let jobs: Vec<Job> = (0..1_201).map(|n| Job::new("t.echo", vec![json!(n)], Map::new()).with_reply()).collect();
    let entries = publisher.publish(QUEUE, &jobs).await.unwrap();
    assert_eq!(entries.len(), jobs.len());
    let message = tokio::time::timeout(DEADLINE, messages.recv()).await.unwrap().unwrap();
    assert_eq!(message.value.as_string().unwrap(), QUEUE);
    let stored: Vec<(String, HashMap<String, String>)> = client.xrange_values(QUEUE, "-", "+", None).await.unwrap();
    assert_eq!(stored.len(), jobs.len());
    for ((entry, fields), (job, id)) in stored.iter().zip(jobs.iter().zip(&entries)) {
        assert_eq!((&Published::Entry { entry: entry.clone() }, fields.len()), (id, 1));
        let wire: Json = serde_json::from_str(&fields["json"]).unwrap();
        assert_eq!(wire["id"], json!(job.id));
        assert_eq!(wire["reply_to"], json!(format!("result:{}", job.id)));
    }
}

#[tokio::test]
async fn the_job_of_a_worker_that_died_is_done_by_another_and_its_consumer_removed() {
    let server = RedisServer::start();
    let client = server.client().await;
    let first = Worker::start(&server, "w1", 1);
    assert!(is_in_state(&client, "w1", "IDLE").await);
    let key = publish(&client, "a", "t.wait", json!(["a"])).await;
    assert!(is_in_state(&client, "w1", "BUSY").await);
    first.kill().await;
    let second = Worker::start(&server, "w2", 1);
    second.open_gate();
    assert_eq!(result(&client, &key).await.value, Some(json!(["a"])));
    assert!(eventually(DEADLINE, async || pending(&client).await == 0).await);
    let only_second = async || {
        let consumers: Vec<HashMap<String, Value>> = client.xinfo_consumers(QUEUE, GROUP).await.unwrap();
        consumers.len() == 1 && consumers[0]["name"].as_str().as_deref() == Some("w2")
    };
    assert!(eventually(DEADLINE, only_second).await);
    assert_eq!(second.leave().await.processed, 1);
}

#[tokio::test]
async fn jobs_of_a_living_worker_are_left_alone() {
    let server = RedisServer::start();
    let client = server.client().await;
    let first = Worker::start(&server, "w1", 1);
    assert!(is_in_state(&client, "w1", "IDLE").await);
    // Longer than the time after which a silent worker counts as gone.
    let key = publish(&client, "a", "t.sleep", json!([2.5])).await;
    assert!(is_in_state(&client, "w1", "BUSY").await);
    let second = Worker::start(&server, "w2", 1);
    assert!(result(&client, &key).await.ok);
    assert_eq!((second.leave().await.processed, first.leave().await.processed), (0, 1));
}

#[tokio::test]
async fn a_worker_that_comes_back_under_its_name_takes_up_its_own_jobs() {
    let server = RedisServer::start();
    let client = server.client().await;
    let first = Worker::start(&server, "w1", 2);
    let keys = [publish(&client, "a", "t.wait", json!([])).await, publish(&client, "b", "t.wait", json!([])).await];
    assert!(
        eventually(DEADLINE, async || client.exists::<u64, _>(QUEUE).await.unwrap() == 1 && {
            is_in_state(&client, "w1", "BUSY").await && pending(&client).await == 2
        })
        .await
    );
    first.kill().await;
    let again = Worker::start(&server, "w1", 2);
    again.open_gate();
    for key in keys {
        assert!(result(&client, &key).await.ok);
    }
    assert_eq!(again.leave().await.processed, 2);
}

#[tokio::test]
async fn entries_that_are_no_jobs_go_to_the_dead_letters_and_stop_nobody() {
    let server = RedisServer::start();
    let client = server.client().await;
    let victim: String = client.xadd("victim:jobs", false, None, "*", ("json", "{}")).await.unwrap();
    for json in ["not json", "{}", r#"{"id":"x","type":"t.echo","reply_to":"victim:jobs"}"#] {
        let _: String = client.xadd(QUEUE, false, None, "*", ("json", json)).await.unwrap();
    }
    let _: String = client.xadd(QUEUE, false, None, "*", (&b"\xff\xfe"[..], &b"\xff"[..])).await.unwrap();
    let key = publish(&client, "a", "t.echo", json!(["after"])).await;
    let worker = Worker::start(&server, "w1", 1);
    assert_eq!(result(&client, &key).await.value, Some(json!(["after"])));
    assert_eq!(pending(&client).await, 0);
    let dead: Vec<(String, Fields)> = client.xrange_values("t:jobs:dead", "-", "+", None).await.unwrap();
    let reasons: Vec<_> =
        dead.iter().map(|(_, fields)| String::from_utf8_lossy(&fields[&b"dead_error"[..]]).into_owned()).collect();
    assert_eq!(reasons.len(), 4, "{reasons:?}");
    assert_eq!(dead[0].1[&b"json"[..]], b"not json");
    assert!(reasons[1].contains("missing field `id`") && reasons[2].contains("reply_to"), "{reasons:?}");
    assert!(reasons[3].contains("no field `json`"), "{reasons:?}");
    assert_eq!(client.ttl::<i64, _>("victim:jobs").await.unwrap(), -1, "{victim} must not expire");
    worker.leave().await;
}

#[tokio::test]
async fn a_result_that_cant_be_delivered_holds_nothing_up() {
    let server = RedisServer::start();
    let client = server.client().await;
    client.set::<(), _, _>("result:a", "in the way", None, None, false).await.unwrap();
    publish(&client, "a", "t.echo", json!([])).await;
    let key = publish(&client, "b", "t.echo", json!([])).await;
    let worker = Worker::start(&server, "w1", 1);
    assert!(result(&client, &key).await.ok);
    assert_eq!(pending(&client).await, 0);
    assert_eq!(worker.leave().await.processed, 2);
}

#[tokio::test]
async fn a_group_destroyed_or_a_stream_deleted_in_mid_run_is_made_again() {
    let server = RedisServer::start();
    let client = server.client().await;
    let worker = Worker::start(&server, "w1", 1);
    let key = publish(&client, "a", "t.echo", json!([])).await;
    assert!(result(&client, &key).await.ok);
    custom::<u64>(&client, &["XGROUP", "DESTROY", QUEUE, GROUP]).await;
    let key = publish(&client, "b", "t.echo", json!([])).await;
    assert!(result(&client, &key).await.ok);
    client.del::<(), _>(QUEUE).await.unwrap();
    let key = publish(&client, "c", "t.echo", json!([])).await;
    assert!(result(&client, &key).await.ok);
    worker.leave().await;
}

#[tokio::test]
async fn a_panic_fails_that_job_only() {
    let server = RedisServer::start();
    let client = server.client().await;
    let worker = Worker::start(&server, "w1", 2);
    let slow = publish(&client, "slow", "t.sleep", json!([0.3])).await;
    let panics = publish(&client, "panics", "t.panic", json!([])).await;
    let error = result(&client, &panics).await.error.unwrap();
    assert!(error.contains("panicked") && error.contains("as asked"), "{error}");
    assert!(result(&client, &slow).await.ok);
    assert_eq!(worker.leave().await, WorkerReport { processed: 2, failed: 1, abandoned: 0 });
}

#[tokio::test]
async fn asked_to_leave_it_finishes_its_job_takes_no_other_and_vanishes() {
    let server = RedisServer::start();
    let (client, listener) = (server.client().await, server.client().await);
    let mut events = listener.message_rx();
    listener.subscribe("worker:events").await.unwrap();
    let worker = Worker::start(&server, "w1", 1);
    let key = publish(&client, "a", "t.wait", json!([])).await;
    assert!(is_in_state(&client, "w1", "BUSY").await);
    worker.stop.cancel();
    assert!(is_in_state(&client, "w1", "DRAINING").await);
    publish(&client, "b", "t.echo", json!([])).await;
    worker.open_gate();
    assert_eq!(worker.leave().await, WorkerReport { processed: 1, failed: 0, abandoned: 0 });
    assert!(result(&client, &key).await.ok);
    assert_eq!(state(&client, "w1").await, None);
    assert!(client.xinfo_consumers::<Vec<Value>, _, _>(QUEUE, GROUP).await.unwrap().is_empty());
    assert!(!client.exists::<bool, _>("result:b").await.unwrap());
    for _ in ["ready", "left"] {
        let event = tokio::time::timeout(DEADLINE, events.recv()).await.unwrap().unwrap();
        assert_eq!(event.value.as_string().unwrap(), "t w1");
    }
    let said: Vec<(String, HashMap<String, String>)> =
        client.xrange_values("worker:status", "-", "+", None).await.unwrap();
    assert_eq!(said.last().unwrap().1["state"], "SHUTDOWN");
}

#[tokio::test]
async fn an_idle_worker_leaves_without_waiting_for_its_read_to_end() {
    let server = RedisServer::start();
    let client = server.client().await;
    // Heartbeats so rare that a read waits for its longest time, which is 7 s.
    let config = WorkerConfig { heartbeat_interval: Duration::from_secs(600), ..Worker::config("w1", 1) };
    let worker = Worker::start_at(impatient_target(&server), config);
    let key = publish(&client, "a", "t.echo", json!([])).await;
    assert!(result(&client, &key).await.ok);
    assert!(is_in_state(&client, "w1", "IDLE").await);
    let blocked = async || custom::<String>(&client, &["INFO", "clients"]).await.contains("blocked_clients:1");
    assert!(eventually(DEADLINE, blocked).await);
    let asked = std::time::Instant::now();
    worker.leave().await;
    assert!(asked.elapsed() < Duration::from_secs(6), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn a_frozen_redis_loses_no_job_and_a_restarted_one_is_served_again() {
    let mut server = RedisServer::start();
    let client = server.client().await;
    let worker = Worker::start(&server, "w1", 1);
    let key = publish(&client, "a", "t.wait", json!([])).await;
    assert!(is_in_state(&client, "w1", "BUSY").await);
    server.stop();
    worker.open_gate();
    // The job ends and its acknowledgement times out a few times meanwhile.
    tokio::time::sleep(Duration::from_secs(2)).await;
    server.cont();
    assert!(result(&client, &key).await.ok);
    assert!(eventually(DEADLINE, async || pending(&client).await == 0).await);
    server.restart();
    let client = server.client().await;
    let key = publish(&client, "b", "t.echo", json!([])).await;
    assert!(result(&client, &key).await.ok);
    assert!(is_in_state(&client, "w1", "IDLE").await);
    worker.leave().await;
}

#[tokio::test]
async fn each_of_many_jobs_is_done_once_by_several_workers() {
    let server = RedisServer::start();
    let client = server.client().await;
    let workers: Vec<_> = ["w1", "w2", "w3"].map(|id| Worker::start(&server, id, 4)).into();
    let mut publisher = Publisher::new(target(&server).connect().await.unwrap(), "", BrokerSettings::default());
    let jobs: Vec<Job> = (0..600).map(|n| Job::new("t.echo", vec![json!(n)], Map::new()).with_reply()).collect();
    publisher.publish(QUEUE, &jobs).await.unwrap();
    for (n, job) in jobs.iter().enumerate() {
        let key = job.reply_to.as_deref().unwrap();
        assert_eq!(result(&client, key).await.value, Some(json!([n])));
    }
    let mut processed = 0;
    for worker in workers {
        processed += worker.leave().await.processed;
    }
    assert_eq!(processed, 600);
}

#[tokio::test]
async fn the_documented_rights_are_enough() {
    let server = RedisServer::start();
    let client = server.client().await;
    let protocol = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/protocol.md")).unwrap();
    for rule in protocol.lines().filter(|line| line.contains("ACL SETUSER")) {
        let rule = rule.replace("browser", "t");
        let words: Vec<&str> = rule.split_whitespace().collect();
        custom::<()>(&client, &words).await;
    }
    let target_of = |user: &str, timeout: Duration| {
        let url = format!("redis://{user}:secret@127.0.0.1:{}/0", server.port());
        RedisTarget::new(&SecretString::from(url), timeout).unwrap()
    };
    let as_user = |user: &str| target_of(user, DEADLINE);
    let worker = Worker::start_at(target_of("worker", Duration::from_millis(500)), Worker::config("w1", 1));
    assert!(is_in_state(&client, "w1", "IDLE").await);
    let mut publisher =
        Publisher::new(as_user("producer").connect().await.unwrap(), "jobs:published", BrokerSettings::default());
    let job = |number: u32| Job::new("t.echo", vec![json!(number)], Map::new()).with_reply();
    let (plain, keyed, soon) =
        (job(1), job(2).with_idempotency_key("k"), job(3).with_delay(Duration::from_millis(500)));
    let keys: Vec<String> = [&plain, &keyed, &soon].map(|job| job.reply_to.clone().unwrap()).into();
    publisher.publish(QUEUE, &[plain, keyed, soon]).await.unwrap();
    let mut waiter = as_user("producer").connect_without_timeout().await.unwrap();
    assert!(wait_shared(&mut waiter, &keys[1], DEADLINE).await.unwrap().expect("a result").ok);
    for _ in &keys {
        assert!(wait_for_any(&mut waiter, &keys, DEADLINE).await.unwrap().expect("a result").1.ok);
    }
    // Ends in every other way, each by a script.
    let failing = Job { deadline_ts: Some(1.0), ..job(4) };
    publisher.publish(QUEUE, std::slice::from_ref(&failing)).await.unwrap();
    assert!(!wait_for_any(&mut waiter, &[failing.reply_to.unwrap()], DEADLINE).await.unwrap().expect("a result").1.ok);
    let mut operator = as_user("operator").connect().await.unwrap();
    let letters = DeadLetters::of(QUEUE, 1 << 20);
    let dead = letters.entries(&mut operator, &DeadFilter::default(), 10).await.unwrap();
    assert!(matches!(
        letters.retry(&mut operator, &dead[0], "jobs:published").await.unwrap(),
        DeadLetterOutcome::Retried { .. }
    ));
    assert_eq!(letters.remove(&mut operator, &dead[0].letter).await.unwrap(), DeadLetterOutcome::Gone);
    let consumer = Consumer {
        stream: QUEUE.to_owned(),
        group: GROUP.to_owned(),
        name: "by-hand".to_owned(),
        policy: JobPolicy {
            jobs: JobSettings { retry_backoff_ms: 50, ..JobSettings::default() },
            ..JobPolicy::default()
        },
    };
    worker.leave().await;
    publisher.publish(QUEUE, &[job(5)]).await.unwrap();
    let mut by_hand = as_user("worker").connect_without_timeout().await.unwrap();
    let delivery = consumer.read(&mut by_hand, 1, DEADLINE).await.unwrap().pop().expect("a job");
    consumer.extend(&mut by_hand, &[(&delivery.entry, delivery.number)]).await.unwrap();
    consumer.trim(&mut by_hand).await.unwrap();
    let failed = consumer.fail(&mut by_hand, &delivery, "again", Retry::After(DEADLINE)).await.unwrap();
    assert!(matches!(failed, Failed::Retried { .. }));
    let mut settings = Settings::default();
    settings.worker_types.insert("t".to_owned(), WorkerTypeSettings::default());
    let place = Place::of(&settings, &Routes::new(&settings, "jobs".to_owned()), "t.echo", QUEUE);
    let subject = Subject { id: "x".to_owned(), entry: Some(delivery.entry), due: None };
    let why = explain(&mut as_user("producer").connect().await.unwrap(), &place, &subject).await;
    assert!(why.contains("no autoscaler is running") && !why.contains("can't look"), "{why}");
    let refused: Vec<HashMap<String, Value>> = custom(&client, &["ACL", "LOG"]).await;
    let refused: Vec<_> = refused.iter().map(|entry| (&entry["username"], &entry["object"])).collect();
    assert!(refused.is_empty(), "{refused:?}");
}
