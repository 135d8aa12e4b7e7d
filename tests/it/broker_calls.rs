//! Calls: publish once, wait for exactly one's own result, and learn why nobody answers.

use std::time::Duration;

use fred::prelude::Client as Fred;
use futures_util::future::join_all;
use secrecy::SecretString;
use serde_json::{Map, Value, json};
use swarm::{
    broker::{
        CallError, Client, Consumer, Delivery, EnvelopeError, Job, JobPolicy, JobResult, Outlook, PublishError,
        Published, Publisher, Retry, ScalerWord, SessionState,
    },
    config::BrokerSettings,
    connection::RedisTarget,
    model::{WorkerId, WorkerType},
};

use crate::support::{
    autoscaler::{Autoscaler, NO_SWEEP},
    client::patient_client,
    command::redis as command,
    redis::RedisServer,
    wait::{DEADLINE, eventually},
};

const SHORT: Duration = Duration::from_millis(200);
const QUEUE: &str = "test:jobs";

fn target(server: &RedisServer) -> RedisTarget {
    RedisTarget::new(&SecretString::from(server.url()), DEADLINE).unwrap()
}

fn client(server: &RedisServer) -> Client {
    patient_client(&server.url(), "test")
}

fn job(argument: &str) -> Job {
    Job::new("test.echo", vec![json!(argument)], Map::new())
}

fn consumer(name: &str) -> Consumer {
    let (stream, group, name) = (QUEUE.to_owned(), "test".to_owned(), name.to_owned());
    Consumer { stream, group, name, policy: JobPolicy::default() }
}

/// Takes `count` jobs as `name`.
async fn take(server: &RedisServer, name: &str, count: usize) -> Vec<Delivery> {
    let mut connection = target(server).connect_without_timeout().await.unwrap();
    consumer(name).ensure_group(&mut connection).await.unwrap();
    let mut taken = Vec::new();
    while taken.len() < count {
        let read = consumer(name).read(&mut connection, count - taken.len(), DEADLINE).await.unwrap();
        assert!(!read.is_empty(), "no job within {DEADLINE:?}");
        taken.extend(read);
    }
    taken
}

/// Answers `count` jobs with their first argument.
async fn work(server: &RedisServer, count: usize) {
    let taken = take(server, "w1", count).await;
    // Connected only now: a server that closes idle connections had time to.
    let mut connection = target(server).connect().await.unwrap();
    for delivery in taken {
        let job = delivery.job.as_ref().unwrap();
        let result = JobResult::new(&job.id, Ok(job.args[0].clone()));
        consumer("w1").complete(&mut connection, &[(&delivery, &result)]).await.unwrap();
    }
}

async fn length(client: &Fred) -> u64 {
    command(client, &format!("XLEN {QUEUE}")).await
}

/// Why a call of `job` is not answered.
async fn why(client: &Client, job: Job) -> String {
    match client.call(job, SHORT).await {
        Err(CallError::NoAnswer { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

/// Why a call of `job` is not answered after this has happened to it.
async fn why_after(client: &Client, job: Job, happens: impl Future<Output = ()>) -> String {
    let mut call = client.begin(job).await.unwrap();
    happens.await;
    assert_eq!(call.wait(SHORT).await.unwrap(), None);
    call.why().await
}

#[tokio::test]
async fn each_of_many_calls_gets_its_own_result() {
    let server = RedisServer::start();
    let client = client(&server);
    let calls = (0..100).map(|n| {
        let client = client.clone();
        async move {
            let value = client.call(job(&n.to_string()), DEADLINE).await.unwrap();
            assert_eq!(value, json!(n.to_string()));
        }
    });
    tokio::join!(join_all(calls), work(&server, 100));
    let left: Vec<String> = command(&server.client().await, "KEYS result:*").await;
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_call_says_that_the_job_failed() {
    let server = RedisServer::start();
    let (client, fails) = (client(&server), async {
        let delivery = take(&server, "w1", 1).await.remove(0);
        let mut connection = target(&server).connect().await.unwrap();
        consumer("w1").fail(&mut connection, &delivery, "no such page", Retry::Never).await.unwrap();
    });
    let (answer, ()) = tokio::join!(client.call(job("a"), DEADLINE), fails);
    assert!(matches!(&answer, Err(CallError::Failed { error, .. }) if error == "no such page"), "{answer:?}");
}

#[tokio::test]
async fn publishing_twice_under_one_key_is_one_job_with_one_result_for_all() {
    let server = RedisServer::start();
    let (client, fred) = (client(&server), server.client().await);
    let publishers = (0..20).map(|n| {
        let client = client.clone();
        async move { client.call(job(&n.to_string()).with_idempotency_key("order-1"), DEADLINE).await.unwrap() }
    });
    let (values, ()) = tokio::join!(join_all(publishers), work(&server, 1));
    assert_eq!(length(&fred).await, 1);
    assert!(values.iter().all(|value: &Value| *value == values[0]), "{values:?}");
    // Whoever comes later in the window gets it too.
    let later = client.call(job("later").with_idempotency_key("order-1"), DEADLINE).await.unwrap();
    assert_eq!((later, length(&fred).await), (values[0].clone(), 1));
    let ttl: i64 = command(&fred, &format!("PTTL {QUEUE}:once:order-1")).await;
    assert!(ttl > 3_500_000 && ttl <= 3_600_000, "{ttl}");
    let results: Vec<String> = command(&fred, "KEYS result:*").await;
    let ttl: i64 = command(&fred, &format!("TTL {}", results[0])).await;
    assert!(ttl > 3_500 && ttl <= 3_600, "a result that is looked at still expires: {ttl}");
}

#[tokio::test]
async fn after_its_window_a_key_is_free_again() {
    let server = RedisServer::start();
    let limits = BrokerSettings { idempotency_window_seconds: 1, ..BrokerSettings::default() };
    let mut publisher = Publisher::new(target(&server).connect().await.unwrap(), "", limits);
    let keyed = |id: &str| Job { id: id.to_owned(), ..job("x") }.with_idempotency_key("k");
    let first = publisher.publish(QUEUE, &[keyed("a"), keyed("b")]).await.unwrap();
    assert!(matches!(first[0], Published::Entry { .. }));
    assert_eq!(first[1], Published::Duplicate { of: "a".to_owned() });
    let redis = server.client().await;
    let free = async || command::<u64>(&redis, &format!("EXISTS {QUEUE}:once:k")).await == 0;
    assert!(eventually(DEADLINE, free).await);
    assert!(matches!(publisher.publish(QUEUE, &[keyed("c")]).await.unwrap()[0], Published::Entry { .. }));
}

#[tokio::test]
async fn what_no_worker_would_take_is_refused_when_published() {
    let server = RedisServer::start();
    let limits = BrokerSettings { job_max_bytes: 1_024, ..BrokerSettings::default() };
    let mut publisher = Publisher::new(target(&server).connect().await.unwrap(), "", limits);
    let jobs = [job("fits"), job(&"x".repeat(1_024))];
    let refused = publisher.publish(QUEUE, &jobs).await.unwrap_err();
    let invalid = |error: &PublishError| matches!(error, PublishError::Invalid { id, cause: EnvelopeError::TooLarge { .. } } if *id == jobs[1].id);
    assert!(invalid(&refused), "{refused}");
    assert_eq!(length(&server.client().await).await, 0, "then none is published");
}

#[tokio::test]
async fn nobody_answers_because_nothing_runs() {
    let server = RedisServer::start();
    let why = why(&client(&server), job("a")).await;
    assert!(why.contains("no autoscaler is running") && why.contains("no worker has ever read it"), "{why}");
}

#[tokio::test]
async fn nobody_answers_because_workers_are_busy_or_dead() {
    let server = RedisServer::start();
    let (client, fred) = (client(&server), server.client().await);
    client.publish(&job("busy")).await.unwrap();
    let _: u64 = command(&fred, "HSET worker:heartbeat:test:w1 worker_id w1 state BUSY").await;
    take(&server, "w1", 1).await;
    for argument in ["b", "c"] {
        client.publish(&job(argument)).await.unwrap();
    }
    let why_waiting = why(&client, job("d")).await;
    assert!(why_waiting.contains("2 are ahead of it") && why_waiting.contains("w1 is BUSY"), "{why_waiting}");

    let takes = async |count| drop(take(&server, "w1", count).await);
    let why_held = why_after(&client, job("e"), takes(4)).await;
    assert!(why_held.contains("worker w1 (BUSY) works on the job, attempt 1"), "{why_held}");

    let _: u64 = command(&fred, "DEL worker:heartbeat:test:w1").await;
    let why_dead = why_after(&client, job("f"), takes(1)).await;
    assert!(why_dead.contains("worker w1 died with the job"), "{why_dead}");
}

#[tokio::test]
async fn nobody_answers_because_the_job_is_delayed_or_dead() {
    let server = RedisServer::start();
    let client = client(&server);
    let delayed = why(&client, job("a").with_delay(Duration::from_secs(60))).await;
    assert!(delayed.contains("the job is delayed: it is due in"), "{delayed}");
    let die = async {
        let mut delivery = take(&server, "w1", 1).await.remove(0);
        delivery.attempts = 5;
        // Somebody else takes the answer.
        let mut connection = target(&server).connect().await.unwrap();
        delivery.job.as_mut().unwrap().reply_to = Some("result:elsewhere".to_owned());
        consumer("w1").fail(&mut connection, &delivery, "out of luck", Retry::Backoff).await.unwrap();
    };
    let dead = why_after(&client, job("b"), die).await;
    assert!(dead.contains("dead letter") && dead.contains("after 5 attempts: out of luck"), "{dead}");
}

#[tokio::test]
async fn nobody_answers_because_the_autoscaler_is_held_back() {
    let server = RedisServer::start();
    let client = client(&server);
    let none = "[worker_types.test]\nscaling = { min_workers = 0, max_workers = 0 }\n";
    let mut scaler = Autoscaler::start(&server.url(), &format!("{NO_SWEEP}{none}")).await;
    scaler.until_ready().await;
    client.publish(&job("a")).await.unwrap();
    let told = async || {
        let why = why(&client, job("b")).await;
        why.contains("wants 0 of at most 0 workers") && why.contains("max_workers")
    };
    assert!(eventually(DEADLINE, told).await, "{}", why(&client, job("c")).await);
    scaler.signal(rustix::process::Signal::TERM);
    scaler.exit().await;
    let gone = why(&client, job("d")).await;
    assert!(gone.contains("no autoscaler is running"), "{gone}");
}

/// Servers close connections that are idle for long. Whoever asks something then is not to hear of it.
#[tokio::test]
async fn a_connection_that_was_closed_while_idle_is_replaced() {
    let server = RedisServer::start();
    let (client, fred) = (client(&server), server.client().await);
    let worker_type = WorkerType::new("test");
    let state = async || client.session(&worker_type, "a").await.unwrap();
    assert_eq!(state().await, SessionState::Closed);
    let _: String = command(&fred, "SET session:test:a w1").await;
    let _: u64 = command(&fred, "CLIENT KILL TYPE normal SKIPME yes").await;
    assert_eq!(state().await, SessionState::Open(WorkerId::new("w1")));
    for odd in ["session:test:a*b", "session:test:a[x", "session:other:a"] {
        let _: String = command(&fred, &format!("SET {odd} w1")).await;
    }
    assert_eq!(client.sessions(&worker_type, "a").await.unwrap(), ["a", "a*b", "a[x"]);
    assert_eq!(client.sessions(&worker_type, "a*").await.unwrap(), ["a*b"]);
    let outlook = client.outlook("test.echo").await.unwrap();
    assert_eq!(outlook, Outlook { workers: 0, scaler: ScalerWord::Nobody });
}

/// A server with `timeout` closes connections that are kept for the next call. The next calls get their answers.
#[tokio::test]
async fn calls_after_the_server_has_closed_idle_connections_get_their_answers() {
    let server = RedisServer::start_with(&["--timeout", "1"]);
    let (client, fred) = (client(&server), server.client().await);
    for round in ["first", "second"] {
        let calls = (0..5).map(|n| {
            let client = client.clone();
            async move { client.call(job(&format!("{round} {n}")), DEADLINE).await.unwrap() }
        });
        let (values, ()) = tokio::join!(join_all(calls), work(&server, 5));
        assert_eq!(values.len(), 5);
        let closed = async || {
            let clients: String = command(&fred, "CLIENT LIST TYPE normal").await;
            clients.lines().count() == 1
        };
        assert!(eventually(DEADLINE, closed).await, "the server keeps idle connections open");
    }
}

#[tokio::test]
async fn a_wait_whose_connection_breaks_is_taken_up_again() {
    let server = RedisServer::start();
    let (client, fred) = (client(&server), server.client().await);
    let answered = async {
        let waits = async || {
            let clients: String = command(&fred, "CLIENT LIST TYPE normal").await;
            clients.contains("cmd=blpop")
        };
        assert!(eventually(DEADLINE, waits).await, "nobody waits");
        let _: u64 = command(&fred, "CLIENT KILL TYPE normal SKIPME yes").await;
        work(&server, 1).await;
    };
    let (value, ()) = tokio::join!(client.call(job("a"), DEADLINE), answered);
    assert_eq!(value.unwrap(), json!("a"));
}
