//! Workers that leave after a number of jobs (`max_jobs`): the real `swarm worker`, alone and under the autoscaler.

use fred::prelude::*;
use rustix::process::Signal;

use crate::support::{
    autoscaler::{Autoscaler, FAST_SWEEP, gated_pool},
    command::{add_job, add_sleep, answers, pending, redis, waiting_and_pending},
    gate::Gate,
    redis::RedisServer,
    wait::{DEADLINE, eventually},
    worker::WorkerProcess,
};

const QUEUE: &str = "t:jobs";

/// Publishes jobs `0` to `count - 1` of a method.
async fn publish(client: &Client, method: &str, count: usize) {
    for number in 0..count {
        add_job(client, "t", method, &number.to_string()).await;
    }
}

/// Returns how many of those jobs are answered.
async fn answered(client: &Client, count: usize) -> usize {
    let mut all = 0;
    for number in 0..count {
        all += answers(client, &number.to_string()).await.len();
    }
    all
}

#[tokio::test]
async fn it_takes_so_many_jobs_finishes_them_and_leaves_in_order() {
    let server = RedisServer::start();
    let client = server.client().await;
    publish(&client, "echo", 10).await;
    let mut worker = WorkerProcess::start(&server.url(), "w1", "concurrency = 2\nmax_jobs = 3");
    assert!(worker.exit().await.success(), "{}", worker.log());
    assert_eq!(answered(&client, 10).await, 3);
    assert_eq!(waiting_and_pending(&client, QUEUE).await, Some((7, 0)));
    assert!(worker.heartbeat(&client).await.is_empty());
    assert!(worker.log().contains("last job finished: leaving"), "{}", worker.log());
}

#[tokio::test]
async fn it_never_holds_more_jobs_than_it_may_still_take() {
    let server = RedisServer::start();
    let client = server.client().await;
    let gate = Gate::new();
    publish(&client, "wait", 5).await;
    let settings = format!("heartbeat_seconds = 1\nconcurrency = 4\nmax_jobs = 2\n{}", gate.exec());
    let mut worker = WorkerProcess::start(&server.url(), "w1", &settings);
    worker.until_field(&client, "jobs_in_progress", "2").await;
    // Two jobs occupy all of its slots, so that it is busy and not on its way out.
    worker.until_state(&client, "BUSY").await;
    assert_eq!(worker.heartbeat(&client).await["concurrency"], "2");
    assert_eq!(waiting_and_pending(&client, QUEUE).await, Some((3, 2)));
    gate.open();
    assert!(worker.exit().await.success(), "{}", worker.log());
    assert_eq!(answered(&client, 5).await, 2);
}

#[tokio::test]
async fn it_drains_once_a_slot_stays_free_and_a_signal_still_limits_the_rest() {
    let server = RedisServer::start();
    let client = server.client().await;
    let gate = Gate::new();
    let settings = format!(
        "[worker_types.t.worker]\nheartbeat_seconds = 1\nconcurrency = 2\nmax_jobs = 2\n{}\n\
         [worker_types.t.scaling]\ndrain_timeout_seconds = 1\n",
        gate.exec()
    );
    add_job(&client, "t", "wait", "long").await;
    add_job(&client, "t", "echo", "short").await;
    add_job(&client, "t", "echo", "later").await;
    let mut worker = WorkerProcess::start_with(&server.url(), "w1", &settings);
    worker.until_state(&client, "DRAINING").await;
    worker.until_field(&client, "jobs_in_progress", "1").await;
    assert_eq!(waiting_and_pending(&client, QUEUE).await, Some((1, 1)), "`later` is for others");
    worker.signal(Signal::TERM);
    assert!(!worker.exit().await.success(), "the drain timeout has ended its job");
    assert!(pending(&client, QUEUE, "t").await.is_empty(), "the job is given back");
}

#[tokio::test]
async fn its_last_job_may_take_longer_than_a_drain() {
    let server = RedisServer::start();
    let client = server.client().await;
    let settings = "[worker_types.t]\nworker = { max_jobs = 1 }\nscaling = { drain_timeout_seconds = 1 }\n";
    add_sleep(&client, "t", "long", 3.0).await;
    let mut worker = WorkerProcess::start_with(&server.url(), "w1", settings);
    assert!(worker.exit().await.success(), "{}", worker.log());
    assert_eq!(answers(&client, "long").await[0]["ok"], true);
}

#[tokio::test]
async fn a_job_counts_whatever_becomes_of_it() {
    let server = RedisServer::start();
    let client = server.client().await;
    let settings = "[worker_types.t]\nworker = { max_jobs = 2, exec = [\"sh\", \"-c\", \"exit 75\"] }\n\
                    jobs = { retry_backoff_ms = 600000 }\n";
    let _: String = redis(&client, &format!("XADD {QUEUE} * json not-a-job")).await;
    publish(&client, "fail", 2).await;
    let mut worker = WorkerProcess::start_with(&server.url(), "w1", settings);
    assert!(worker.exit().await.success(), "{}", worker.log());
    assert_eq!(client.zcard::<u64, _>("t:jobs:delayed").await.unwrap(), 1, "one job waits for its retry");
    assert_eq!(waiting_and_pending(&client, QUEUE).await, Some((1, 0)));
}

#[tokio::test]
async fn of_several_queues_it_takes_no_more_together() {
    let server = RedisServer::start();
    let client = server.client().await;
    let settings =
        "[worker_types.t]\nextra_queues = [\"urgent\", \"slow\"]\nworker = { concurrency = 4, max_jobs = 2 }\n";
    let queues = [QUEUE, "urgent", "slow"];
    for queue in queues {
        for number in 0..2 {
            let job = format!(r#"{{"id":"{queue}-{number}","type":"t.echo","reply_to":"result:{queue}-{number}"}}"#);
            let _: String = redis(&client, &format!("XADD {queue} * json {job}")).await;
        }
    }
    let mut worker = WorkerProcess::start_with(&server.url(), "w1", settings);
    assert!(worker.exit().await.success(), "{}", worker.log());
    let (mut done, mut held) = (0, 0);
    for queue in queues {
        for number in 0..2 {
            done += answers(&client, &format!("{queue}-{number}")).await.len();
        }
        held += pending(&client, queue, "t").await.len();
    }
    assert_eq!((done, held), (2, 0));
}

#[tokio::test]
async fn the_flag_comes_before_the_setting_and_zero_is_refused() {
    let server = RedisServer::start();
    let client = server.client().await;
    publish(&client, "echo", 3).await;
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("swarm.toml"), "[worker_types.t.worker]\nmax_jobs = 3\n").unwrap();
    let run = |jobs: &str| {
        let mut worker = std::process::Command::new(env!("CARGO_BIN_EXE_swarm"));
        worker.args(["worker", "--type", "t", "--redis-url", &server.url(), "--max-jobs", jobs]);
        worker.current_dir(directory.path()).output().unwrap()
    };
    assert!(run("1").status.success());
    assert_eq!(answered(&client, 3).await, 1);
    let refused = run("0");
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("--max-jobs"));
}

#[tokio::test]
async fn under_the_autoscaler_each_job_has_a_worker_and_none_counts_as_a_failed_start() {
    let server = RedisServer::start();
    let client = server.client().await;
    let gate = Gate::new();
    let scaling = "strategy = \"backlog\", jobs_per_worker = 1, max_workers = 4, start_grace_seconds = 600";
    let pool = gated_pool("t", scaling, &gate).replace("heartbeat_seconds", "max_jobs = 1, heartbeat_seconds");
    let scaler = Autoscaler::start(&server.url(), &format!("{FAST_SWEEP}{pool}")).await;
    publish(&client, "wait", 2).await;
    let both_busy = async || scaler.of("t").await.workers.iter().filter(|worker| worker.busy).count() == 2;
    scaler.until("both jobs run", both_busy).await;
    scaler.until_evaluated("t", 3).await;
    assert_eq!(scaler.of("t").await.workers.len(), 2, "nobody is started for jobs that run");
    gate.open();
    let all = async || answered(&client, 2).await == 2;
    assert!(eventually(DEADLINE, all).await, "{}", scaler.log());
    scaler.until("they have left", async || scaler.of("t").await.workers.is_empty()).await;
    let exits = scaler.metric("swarm_worker_exits_total{worker_type=\"t\",success=\"true\"}").await;
    assert!(exits > 1.5, "{exits} exits\n{}", scaler.log());
    assert_eq!(scaler.of("t").await.start_failures, None);
    add_job(&client, "t", "wait", "later").await;
    scaler.until("the next job has a worker", async || answers(&client, "later").await.len() == 1).await;
}
