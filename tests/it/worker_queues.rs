//! One worker type with several queues, on a real server: all of them are served, in turn, by the same workers,
//! whatever becomes of a job, and whatever queues come and go.

mod patterns;
mod reading;

use std::{
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use fred::prelude::*;
use rustix::process::Signal;
use serde_json::{Value as Json, json};
use swarm::connection::RedisTarget;

use crate::support::{
    autoscaler::swarm,
    cluster::Cluster,
    command::{answers, pending, redis, waiting_and_pending},
    redis::RedisServer,
    wait::{DEADLINE, eventually},
    worker::WorkerProcess,
};

/// Worker type `t` with three queues that are named, and a pattern; nothing is looked for but at the start.
const SETTINGS: &str = "[scaler]\nsweep_interval_seconds = 86400\n\
    [worker_types.t]\nextra_queues = [\"urgent\", \"slow\", \"tenant-*:jobs\"]\n\
    [worker_types.t.worker]\nheartbeat_seconds = 1\n";
const NAMED: [&str; 3] = ["t:jobs", "urgent", "slow"];

/// [`SETTINGS`] of a worker whose jobs, but for the common methods, run until [`let_go`] and then end so. They end with
/// the worker's directory, too.
fn held(end: &str) -> String {
    let script = format!("while [ -e swarm.toml ] && ! [ -e go ]; do sleep 0.05; done; {end}");
    format!("{SETTINGS}handler = \"exec\"\nexec = [\"sh\", \"-c\", \"{script}\"]\n")
}

/// Lets the jobs of a worker end.
fn let_go(worker: &WorkerProcess) {
    std::fs::write(worker.directory().join("go"), "").unwrap();
}

fn target(server: &RedisServer) -> RedisTarget {
    RedisTarget::new(&server.url().into(), Duration::from_secs(5)).unwrap()
}

/// Puts a job on a queue and tells nobody.
async fn put(client: &Client, queue: &str, id: &str, job_type: &str, args: Json) {
    let job = json!({"id": id, "type": job_type, "args": args, "reply_to": format!("result:{id}")});
    let _: String = client.xadd(queue, false, None, "*", ("json", job.to_string())).await.unwrap();
}

/// Puts a job on a queue and says so.
async fn publish(client: &Client, queue: &str, id: &str, job_type: &str, args: Json) {
    put(client, queue, id, job_type, args).await;
    let _: u64 = redis(client, &format!("PUBLISH jobs:published {queue}")).await;
}

async fn until_answered(client: &Client, worker: &WorkerProcess, id: &str, times: usize) -> Vec<Json> {
    let mut found = Vec::new();
    let answered = eventually(DEADLINE, async || {
        found = answers(client, id).await;
        found.len() >= times
    });
    assert!(answered.await, "{id} has {} of {times} answers; the worker says:\n{}", found.len(), worker.log());
    found
}

/// `swarm` as somebody types it beside that configuration.
fn command(server: &RedisServer, directory: &Path, words: &[&str]) -> Command {
    std::fs::write(directory.join("swarm.toml"), SETTINGS).unwrap();
    let mut command = swarm(directory);
    command.args(words).env("REDIS_URL", server.url());
    command
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test]
async fn a_job_of_any_queue_whose_worker_was_killed_is_done_by_another() {
    let server = RedisServer::start();
    let client = server.client().await;
    // More than are looked at each time, whatever is pending there.
    let tenants: Vec<String> = (0..20).map(|number| format!("tenant-{number}:jobs")).collect();
    for tenant in &tenants {
        put(&client, tenant, tenant, "t.echo", json!([])).await;
    }
    let start = |id: &str| WorkerProcess::start_with(&server.url(), id, &held("exit 0"));
    let mut victim = start("w1");
    for tenant in &tenants {
        until_answered(&client, &victim, tenant, 1).await;
    }
    for (queue, id) in [("slow", "a"), (tenants[17].as_str(), "b")] {
        publish(&client, queue, id, "t.work", json!([])).await;
        let taken = async || pending(&client, queue, "t").await.iter().any(|(worker, _)| worker == "w1");
        assert!(eventually(DEADLINE, taken).await, "{}", victim.log());
        victim.kill();
        let other = start(&format!("other-{id}"));
        let_go(&other);
        assert_eq!(until_answered(&client, &other, id, 1).await.len(), 1);
        assert!(eventually(DEADLINE, async || pending(&client, queue, "t").await.is_empty()).await);
        victim = start("w1");
        victim.until_state(&client, "IDLE").await;
    }
}

#[tokio::test]
async fn a_job_that_fails_is_tried_again_and_buried_beside_its_own_queue() {
    let server = RedisServer::start();
    let client = server.client().await;
    let settings = format!(
        "{SETTINGS}handler = \"exec\"\nexec = [\"sh\", \"-c\", \"exit 75\"]\n\
         [worker_types.t.jobs]\nmax_attempts = 2\nretry_backoff_ms = 50\n"
    );
    let worker = WorkerProcess::start_with(&server.url(), "w1", &settings);
    worker.until_state(&client, "IDLE").await;
    publish(&client, "urgent", "a", "t.fail", json!([])).await;
    publish(&client, "tenant-1:jobs", "b", "t.fail", json!([])).await;
    for id in ["a", "b"] {
        assert_eq!(until_answered(&client, &worker, id, 1).await[0]["ok"], json!(false));
    }
    let directory = tempfile::tempdir().unwrap();
    let dead = |words: &[&str]| command(&server, directory.path(), &[&["dead"], words].concat()).output().unwrap();
    let lines = said(&dead(&["list", "--json"]));
    let mut letters: Vec<Json> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    letters.sort_by_key(|letter| letter["id"].to_string());
    let seen: Vec<_> =
        letters.iter().map(|of| (of["id"].as_str(), of["stream"].as_str(), of["attempts"].as_u64())).collect();
    assert_eq!(seen, [(Some("a"), Some("urgent"), Some(2)), (Some("b"), Some("tenant-1:jobs"), Some(2))]);

    let retried = dead(&["retry", "--all"]);
    assert!(retried.status.success() && said(&retried) == "put back: 2\n", "{}", said(&retried));
    for (id, queue) in [("a", "urgent"), ("b", "tenant-1:jobs")] {
        until_answered(&client, &worker, id, 2).await;
        // Once from us, once put back after it had failed, and that again for what `swarm dead` has put back.
        assert_eq!(client.xlen::<u64, _>(queue).await.unwrap(), 4, "{queue}");
        assert_eq!(client.xlen::<u64, _>(format!("{queue}:dead")).await.unwrap(), 1);
    }
    let dropped = dead(&["drop", "--all"]);
    assert!(said(&dropped) == "dropped: 2\n" && said(&dead(&["list"])) == "no dead letters\n", "{}", said(&dropped));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_published_on_the_queue_that_is_named() {
    let server = RedisServer::start();
    let client = server.client().await;
    let directory = tempfile::tempdir().unwrap();
    let swarm = |words: &[&str]| command(&server, directory.path(), words).output().unwrap();

    let nobody = swarm(&["publish", "t.echo", "--queue", "nobodys", "--json"]);
    assert!(nobody.status.success(), "{}", said(&nobody));
    let warned = String::from_utf8_lossy(&nobody.stderr).into_owned();
    assert!(warned.contains("no configured worker type reads `nobodys`"), "{warned}");
    let shown: Json = serde_json::from_slice(&nobody.stdout).unwrap();
    assert_eq!((&shown["stream"], client.xlen::<u64, _>("nobodys").await.unwrap()), (&json!("nobodys"), 1));

    let early = swarm(&["publish", "t.echo", "--queue", "slow"]);
    assert_eq!(said(&early), "published 1 job to slow\n");
    let _: String = redis(&client, "XGROUP CREATE slow t 0").await;
    let waits = swarm(&["publish", "t.echo", "--queue", "slow", "--wait", "--timeout", "0.2"]);
    assert!(!waits.status.success() && said(&waits).contains("1 are ahead of it"), "{}", said(&waits));
    assert!(said(&waits).contains("2 jobs on `slow` wait"), "{}", said(&waits));
    assert!(said(&waits).contains("no worker of type `t` is running"), "{}", said(&waits));

    let worker = WorkerProcess::start_with(&server.url(), "w1", SETTINGS);
    worker.until_state(&client, "IDLE").await;
    let began = std::time::Instant::now();
    let delayed = swarm(&["publish", "t.echo", "7", "--queue", "urgent", "--delay", "1", "--wait"]);
    assert_eq!(said(&delayed), "[7]\n", "{}", worker.log());
    assert!(began.elapsed() >= Duration::from_secs(1));
    let own = swarm(&["publish", "t.echo", "8", "--wait"]);
    assert_eq!((said(&own).as_str(), client.xlen::<u64, _>("t:jobs").await.unwrap()), ("[8]\n", 1));
}

#[tokio::test]
async fn a_worker_that_leaves_leaves_every_queue_behind_in_order() {
    let server = RedisServer::start();
    let client = server.client().await;
    put(&client, "tenant-1:jobs", "a", "t.echo", json!([])).await;
    let mut worker = WorkerProcess::start_with(&server.url(), "w1", &held("exit 0"));
    until_answered(&client, &worker, "a", 1).await;
    publish(&client, "slow", "b", "t.work", json!([])).await;
    worker.until_state(&client, "BUSY").await;
    worker.signal(Signal::TERM);
    worker.until_state(&client, "DRAINING").await;
    publish(&client, "urgent", "late", "t.echo", json!([])).await;
    let_go(&worker);
    assert!(worker.exit().await.success(), "{}", worker.log());
    assert_eq!(answers(&client, "b").await.len(), 1, "what it had in hand it has finished");
    assert_eq!(answers(&client, "late").await.len(), 0);
    for queue in NAMED.into_iter().chain(["tenant-1:jobs"]) {
        let consumers: Vec<fred::types::Value> = redis(&client, &format!("XINFO CONSUMERS {queue} t")).await;
        assert!(consumers.is_empty(), "{queue}: {consumers:?}");
    }
}

#[tokio::test]
async fn two_thousand_jobs_on_three_queues_outlive_a_worker() {
    const JOBS: usize = 2_000;
    let server = RedisServer::start();
    let client = server.client().await;
    let settings = format!("{SETTINGS}concurrency = 4\n");
    let start = |id: &str| WorkerProcess::start_with(&server.url(), id, &settings);
    let mut workers = ["w1", "w2", "w3", "w4"].map(start);
    for number in 0..JOBS {
        put(&client, NAMED[number % 3], &number.to_string(), "t.sleep", json!([0.01])).await;
    }
    let half_done = async || client.exists::<u64, _>(format!("result:{}", JOBS / 2)).await.unwrap() == 1;
    assert!(eventually(DEADLINE, half_done).await, "{}", workers[0].log());
    workers[0].kill();
    let all_settled = async || {
        let mut open = 0;
        for queue in NAMED {
            let Some((waiting, pending)) = waiting_and_pending(&client, queue).await else { return false };
            open += waiting + pending;
        }
        open == 0
    };
    assert!(eventually(DEADLINE, all_settled).await, "{}", workers[1].log());
    for number in 0..JOBS {
        assert!(!answers(&client, &number.to_string()).await.is_empty(), "{number} was lost");
    }
    for queue in NAMED {
        assert_eq!(client.xlen::<u64, _>(format!("{queue}:dead")).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn queues_on_several_nodes_of_a_cluster_are_served_too() {
    let cluster = Cluster::start();
    cluster.until_well().await;
    let client = cluster.client().await;
    let [a, b, c] = cluster.types().await.map(|name| format!("{name}:jobs"));
    let settings = format!(
        "[worker_types.t]\njob_queue = \"{a}\"\nextra_queues = [\"{b}\", \"{c}\", \"tenant-*:jobs\"]\n\
         [worker_types.t.worker]\nheartbeat_seconds = 1\n"
    );
    put(&client, "tenant-1:jobs", "early", "t.echo", json!([])).await;
    let mut worker = WorkerProcess::start_with(&cluster.url(), "w1", &settings);
    worker.until_state(&client, "IDLE").await;
    until_answered(&client, &worker, "early", 1).await;
    for round in 0..3 {
        for queue in [&a, &b, &c] {
            put(&client, queue, &format!("{round}-{queue}"), "t.echo", json!([])).await;
        }
        for queue in [&a, &b, &c] {
            until_answered(&client, &worker, &format!("{round}-{queue}"), 1).await;
        }
    }
    publish(&client, "tenant-2:jobs", "new", "t.echo", json!([])).await;
    until_answered(&client, &worker, "new", 1).await;
    worker.signal(Signal::TERM);
    assert!(worker.exit().await.success(), "{}", worker.log());
}
