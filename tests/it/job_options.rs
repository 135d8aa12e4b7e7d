//! Options of one job, from `swarm publish` to the real worker: attempts, the time limit, how long the result is kept,
//! and the last error while somebody still waits.

use std::process::{Command, Output};

use fred::prelude::*;
use serde_json::Value as Json;

use crate::support::{
    autoscaler::swarm,
    command::redis,
    redis::RedisServer,
    wait::{DEADLINE, eventually},
    worker::WorkerProcess,
};

/// A worker whose program always asks for another attempt, and retries after `backoff_ms`.
async fn failing_worker(server: &RedisServer, backoff_ms: u32) -> (Client, WorkerProcess) {
    let settings = format!(
        "[worker_types.t.worker]\nexec = [\"sh\", \"-c\", \"exit 75\"]\n\
         [worker_types.t.jobs]\nretry_backoff_ms = {backoff_ms}\n"
    );
    let client = server.client().await;
    let worker = WorkerProcess::start_with(&server.url(), "w1", &settings);
    worker.until_state(&client, "IDLE").await;
    (client, worker)
}

fn publish(worker: &WorkerProcess, arguments: &[&str]) -> Output {
    let mut command: Command = swarm(worker.directory());
    command.arg("publish").args(arguments).output().unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_job_has_the_attempts_that_it_asks_for() {
    let server = RedisServer::start();
    let (client, worker) = failing_worker(&server, 10).await;
    for options in [&["t.work"][..], &["t.work", "--attempts", "2"], &["t.work", "--attempts", "7"]] {
        assert!(publish(&worker, options).status.success());
    }
    let buried = async || client.xlen::<u64, _>("t:jobs:dead").await.unwrap() == 3;
    assert!(eventually(DEADLINE, buried).await, "{}", worker.log());
    let listed = swarm(worker.directory()).args(["dead", "list", "--json"]).output().unwrap();
    let letters = listed.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let mut attempts: Vec<u64> =
        letters.map(|line| serde_json::from_slice::<Json>(line).unwrap()["attempts"].as_u64().unwrap()).collect();
    attempts.sort_unstable();
    assert_eq!(attempts, [2, 5, 7], "{}", worker.log());
}

#[tokio::test]
async fn a_job_has_the_time_limit_that_it_asks_for() {
    let server = RedisServer::start();
    let (_client, worker) = failing_worker(&server, 10).await;
    let limited = ["t.sleep", "1000", "--job-timeout", "0.5", "--attempts", "1", "--wait", "--timeout", "60"];
    let output = publish(&worker, &limited);
    assert!(!output.status.success() && errors(&output).contains("longer than the 0.5 s"), "{}", errors(&output));
}

#[tokio::test]
async fn a_result_is_kept_for_as_long_as_its_job_asks_for() {
    let server = RedisServer::start();
    let (client, worker) = failing_worker(&server, 10).await;
    let output = publish(&worker, &["t.echo", "hello", "--result-ttl", "60", "--json"]);
    let published: Json = serde_json::from_slice(&output.stdout).unwrap();
    let ttl = format!("PTTL result:{}", published["id"].as_str().unwrap());
    let kept = async || redis::<i64>(&client, &ttl).await > 0;
    assert!(eventually(DEADLINE, kept).await, "{}", worker.log());
    assert!(redis::<i64>(&client, &ttl).await <= 60_000);

    // An error is kept for as long as a value.
    let output = publish(&worker, &["t.work", "--attempts", "1", "--result-ttl", "60", "--json"]);
    let published: Json = serde_json::from_slice(&output.stdout).unwrap();
    let ttl = format!("PTTL result:{}", published["id"].as_str().unwrap());
    let kept = async || redis::<i64>(&client, &ttl).await > 0;
    assert!(eventually(DEADLINE, kept).await, "{}", worker.log());
    assert!(redis::<i64>(&client, &ttl).await <= 60_000);
}

#[tokio::test]
async fn the_last_error_arrives_while_somebody_waits() {
    let server = RedisServer::start();
    let (client, worker) = failing_worker(&server, 60_000).await;
    for options in
        [&["t.work", "--wait", "--timeout", "25"][..], &["t.work", "--deadline", "25", "--wait", "--timeout", "60"]]
    {
        let output = publish(&worker, options);
        let errors = errors(&output);
        assert!(errors.contains("asked to be tried again") && !errors.contains("did not answer"), "{errors}");
    }
    assert_eq!(client.xlen::<u64, _>("t:jobs:dead").await.unwrap(), 2);
    assert!(publish(&worker, &["t.work"]).status.success());
    let retried = async || client.zcard::<u64, _>("t:jobs:delayed").await.unwrap() == 1;
    assert!(eventually(DEADLINE, retried).await, "nobody waits for it: {}", worker.log());
}

#[tokio::test]
async fn options_out_of_range_are_refused() {
    let server = RedisServer::start();
    let (_client, worker) = failing_worker(&server, 10).await;
    for options in [["--attempts", "0"], ["--attempts", "1001"], ["--job-timeout", "0"], ["--result-ttl", "604801"]] {
        let output = publish(&worker, &["t.echo", options[0], options[1]]);
        assert!(!output.status.success() && errors(&output).contains(options[0]), "{}", errors(&output));
    }
}
