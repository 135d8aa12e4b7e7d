//! What the frameworks tell about the times of their jobs: what `latency` learns from BullMQ, Bull and asynq, and what
//! `swarm record` finds on the queues of RQ, BullMQ and Bull.

use std::{collections::BTreeMap, fs, time::Duration};

use swarm::model::Timestamp;

use super::bed::{Packages, Producer, server, settings, until_ended};
use crate::support::{
    autoscaler::{Autoscaler, NO_SWEEP, swarm},
    command::redis as command,
    recorder::{Recorder, rows},
    redis::RedisServer,
    wait::{DEADLINE, eventually},
};

/// Jobs of a burst, which one worker does.
const JOBS: usize = 6;
/// Least time of each, a little less than it sleeps: times are rounded.
const LEAST: Duration = Duration::from_millis(290);

/// Has [`JOBS`] done by one worker that stays.
async fn with_jobs_done(
    redis: &RedisServer,
    packages: Packages,
    framework: &str,
    producer: &[&str],
    worker: &str,
) -> Autoscaler {
    let broker = redis.url_db(0);
    let mut producer = Producer::start_with(packages, producer, &broker);
    let scaling = "strategy = \"latency\", min_workers = 1, max_workers = 1";
    let settings = settings(packages, "mail", scaling, framework, &packages.command(worker), &broker);
    let scaler = Autoscaler::start(&redis.url(), &format!("{NO_SWEEP}{settings}")).await;
    scaler.until_ready().await;
    for job in 0..JOBS {
        producer.enqueue(&format!("plain mail {job} 0.3"));
    }
    until_ended(&scaler, JOBS).await;
    scaler
}

async fn until_learned(scaler: &Autoscaler) {
    let learned = async || scaler.of("mail").await.reasons.iter().any(|reason| reason.contains(" s a job, "));
    scaler.until("it is known how long a job takes", learned).await;
}

/// Records all jobs that are still there, with the rights of the documentation.
async fn assert_recorded(redis: &RedisServer, scaler: &Autoscaler, keys: &str) {
    let client = redis.client().await;
    let rights = format!(
        "ACL SETUSER recorder on >secret resetchannels -@all %R~{keys} +lrange +zrevrange +hmget +time +hello \
         +client|setname"
    );
    let _: String = command(&client, &rights).await;
    let url = format!("redis://recorder:secret@127.0.0.1:{}/0", redis.port());
    // A framework may write that a job has ended after the job's own mark.
    let all_are_timed = async || {
        let words = ["record", "--redis-url", &url, "--output", "trace.csv"];
        let output = swarm(scaler.directory()).args(words).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{told}");
        let found = rows(scaler.directory(), "mail");
        found.len() == JOBS && found.iter().all(|row| row.service.is_some_and(|service| service >= LEAST))
    };
    assert!(eventually(DEADLINE, all_are_timed).await, "{:?}", rows(scaler.directory(), "mail"));
}

async fn of_node(framework: &str, package: &str) {
    let redis = server();
    let framework = format!("framework = \"{framework}\"\nqueues = [\"mail\"]\n");
    let (producer, worker) = (["node_producer.js", package], format!("node_worker.js {package}"));
    let scaler = with_jobs_done(&redis, Packages::Node, &framework, &producer, &worker).await;
    until_learned(&scaler).await;
    assert_recorded(&redis, &scaler, "bull:mail:*").await;
}

#[cfg_attr(without_frameworks_node, ignore = "BullMQ can't be installed here")]
#[tokio::test]
async fn bullmq_5_tells_how_long_its_jobs_take() {
    of_node("bullmq", "bullmq5").await;
}

#[cfg_attr(without_frameworks_node, ignore = "BullMQ can't be installed here")]
#[tokio::test]
async fn bullmq_6_tells_how_long_its_jobs_take() {
    of_node("bullmq", "bullmq6").await;
}

#[cfg_attr(without_frameworks_node, ignore = "Bull can't be installed here")]
#[tokio::test]
async fn bull_tells_how_long_its_jobs_take() {
    of_node("bull", "bull").await;
}

async fn of_rq(packages: Packages) {
    let redis = server();
    let framework = "framework = \"rq\"\nqueues = [\"mail\"]\n";
    let worker = "rq worker --url $BROKER --name $SWARM_WORKER_ID mail";
    let scaler = with_jobs_done(&redis, packages, framework, &["rq_producer.py"], worker).await;
    assert_recorded(&redis, &scaler, "rq:*").await;
}

#[cfg_attr(without_frameworks, ignore = "the frameworks can't be installed here")]
#[tokio::test]
async fn rq_2_tells_how_long_its_jobs_take() {
    of_rq(Packages::Python).await;
}

#[cfg_attr(without_frameworks_redis_5, ignore = "this version can't be installed here")]
#[tokio::test]
async fn rq_3_tells_how_long_its_jobs_take() {
    of_rq(Packages::PythonRedis5).await;
}

#[cfg_attr(without_frameworks_go, ignore = "asynq can't be compiled here")]
#[tokio::test]
async fn asynq_tells_how_many_jobs_have_ended() {
    let redis = server();
    let framework = "framework = \"asynq\"\nqueues = [\"mail\"]\n";
    let producer = ["asynq_app", "producer"];
    let scaler = with_jobs_done(&redis, Packages::Go, framework, &producer, "asynq_app worker").await;
    until_learned(&scaler).await;
    let output = swarm(scaler.directory()).args(["record", "--type", "mail"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && told.contains("the queue of `mail` (asynq) keeps no times"), "{told}");
}

/// Adds a job of BullMQ, in the state that a worker leaves it.
async fn add_ended(client: &fred::prelude::Client, id: u32, timestamp: u64) {
    let (began, ended) = (timestamp + 100, timestamp + 350);
    let fields = format!("timestamp {timestamp} opts {{}} processedOn {began} finishedOn {ended}");
    let _: u64 = command(client, &format!("HSET bull:mail:{id} {fields}")).await;
    let _: u64 = command(client, &format!("ZADD bull:mail:completed {ended} {id}")).await;
}

#[tokio::test]
async fn a_recorder_of_frameworks_sees_what_comes_ends_and_is_deleted() {
    let first = Timestamp::wall().0;
    let server = RedisServer::start();
    let client = server.client().await;
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(Packages::Node, "mail", "", "framework = \"bullmq\"\nqueues = [\"mail\"]\n", "true", "");
    fs::write(directory.path().join("swarm.toml"), settings).unwrap();
    add_ended(&client, 1, first).await;
    let recorder = Recorder::start(directory.path(), &["--redis-url", &server.url(), "--since", "1h"]);
    let until = async |count: usize| {
        let all_are_written = eventually(DEADLINE, async || rows(directory.path(), "mail").len() == count).await;
        assert!(all_are_written, "{count} jobs are recorded: {:?}", rows(directory.path(), "mail"));
    };
    until(1).await;
    let _: u64 = command(&client, &format!("HSET bull:mail:2 timestamp {} opts {{}}", first + 2)).await;
    let _: u64 = command(&client, "LPUSH bull:mail:wait 2").await;
    // Each of these rows is of an observation that began after the one before: job 2 has been seen then.
    for id in [3, 4] {
        add_ended(&client, id, first + u64::from(id)).await;
        until(id as usize - 1).await;
    }
    let _: u64 = command(&client, "LREM bull:mail:wait 0 2").await;
    let _: u64 = command(&client, "DEL bull:mail:2").await;
    until(4).await;
    let _: u64 = command(&client, &format!("HSET bull:mail:5 timestamp {} opts {{}}", first + 5)).await;
    let _: u64 = command(&client, "LPUSH bull:mail:wait 5").await;
    for id in [6, 7] {
        add_ended(&client, id, first + u64::from(id)).await;
        until(id as usize - 1).await;
    }
    let rows = recorder.stop(directory.path(), "mail").await;
    let services: BTreeMap<u64, Option<Duration>> =
        rows.iter().map(|row| (row.arrival_us / 1_000 - first, row.service)).collect();
    let (timed, untimed) = (Some(Duration::from_millis(250)), None);
    let expected = [(0, timed), (2, untimed), (3, timed), (4, timed), (5, untimed), (6, timed), (7, timed)];
    assert_eq!(services, BTreeMap::from(expected));
    assert_eq!(rows.len(), expected.len(), "each once");
}
