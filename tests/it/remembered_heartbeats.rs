//! A look at a busy queue doesn't read the heartbeats of idle workers again, and nobody is let go by a heartbeat that
//! was not read at that look. The workers sleep; the tests write their heartbeats.

use fred::{interfaces::PubsubInterface, prelude::Client};
use swarm::model::{WorkerId, WorkerState, WorkerType, keys};

use crate::support::{
    autoscaler::{Autoscaler, KEYSPACE, NO_SWEEP},
    command::{add_jobs, calls, redis},
    redis::RedisServer,
};

/// Settings whose heartbeats are valid for longer than any test takes, and in which only jobs wake the scaler.
fn settings(scaling: &str) -> String {
    format!(
        "{NO_SWEEP}{KEYSPACE}[worker_types.test]\nscaling = {{ start_grace_seconds = 600, {scaling} }}\n\
         worker = {{ heartbeat_seconds = 600 }}\n\
         process = {{ command = [\"sleep\", \"1000\"] }}\n"
    )
}

async fn write_heartbeat(client: &Client, id: &WorkerId, state: WorkerState, sessions: u32) {
    let key = keys::heartbeat(&WorkerType::new("test"), id);
    let state = state.as_str();
    let _: u32 =
        redis(client, &format!("HSET {key} {} {state} {} {sessions}", keys::STATE_FIELD, keys::SESSIONS_FIELD)).await;
}

/// Returns the workers, after it has written that all of them are idle and the scaler has read that.
async fn idle_workers(client: &Client, scaler: &Autoscaler, count: u32) -> Vec<WorkerId> {
    scaler.until_workers("test", count).await;
    let workers: Vec<_> = scaler.of("test").await.workers.iter().map(|worker| worker.id.clone()).collect();
    for id in &workers {
        write_heartbeat(client, id, WorkerState::Idle, 0).await;
    }
    let _: u64 = redis(client, "PUBLISH worker:events test").await;
    scaler
        .until("all are ready", async || scaler.of("test").await.pool.known().is_some_and(|pool| pool.ready == count))
        .await;
    scaler.until_ready().await;
    workers
}

/// Adds a job, and waits until the scaler has looked because of it.
async fn look(client: &Client, scaler: &Autoscaler) {
    let before = scaler.of("test").await.evaluations;
    add_jobs(client, "test:jobs", 1).await;
    scaler.until("it has looked", async || scaler.of("test").await.evaluations > before).await;
}

/// Returns how often the server has executed HMGET, which reads one heartbeat.
async fn readings(client: &Client) -> u64 {
    calls(client, "hmget").await
}

#[tokio::test]
async fn looks_at_a_busy_queue_do_not_read_the_heartbeats_of_idle_workers_again() {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaler = Autoscaler::start(&server.url(), &settings("min_workers = 30, max_workers = 30")).await;
    let workers = idle_workers(&client, &scaler, 30).await;

    let before = readings(&client).await;
    for _ in 0..20 {
        look(&client, &scaler).await;
    }
    let read = readings(&client).await - before;
    assert!(read < 300, "{read} heartbeats in 20 looks at 30 workers");

    scaler.until_quiet().await;
    let before = readings(&client).await;
    let _: u64 =
        client.publish("worker:events", keys::worker_event(&WorkerType::new("test"), &workers[7])).await.unwrap();
    scaler.until("its heartbeat is read", async || readings(&client).await > before).await;
    scaler.until_quiet().await;
    let read = readings(&client).await - before;
    assert!(read < 30, "{read} heartbeats after news of one worker");

    let before = readings(&client).await;
    let _: u64 = redis(&client, "PUBLISH worker:events test").await;
    scaler.until("all are read by news of workers", async || readings(&client).await - before >= 30).await;
}

#[tokio::test]
async fn the_existence_of_many_heartbeats_is_one_question() {
    let server = RedisServer::start();
    let client = server.client().await;
    let settings =
        settings("min_workers = 30, max_workers = 30").replace("heartbeat_seconds = 600", "heartbeat_seconds = 1");
    let scaler = Autoscaler::start(&server.url(), &settings).await;
    idle_workers(&client, &scaler, 30).await;
    let asked = async || {
        look(&client, &scaler).await;
        calls(&client, "exists").await > 0
    };
    scaler.until("their existence is asked", asked).await;
    let questions = calls(&client, "exists").await;
    assert!(questions < 30, "{questions} EXISTS for 30 workers");
}

#[tokio::test]
async fn a_worker_that_became_busy_right_before_a_scale_in_is_not_let_go() {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaling = "min_workers = 0, max_workers = 3, scale_up_threshold = 1, scale_down_threshold = 0, \
                   cooldown_seconds = 0";
    let scaler = Autoscaler::start(&server.url(), &settings(scaling)).await;
    scaler.until_ready().await;
    add_jobs(&client, "test:jobs", 3).await;
    let workers = idle_workers(&client, &scaler, 3).await;
    look(&client, &scaler).await;

    // It holds a session, of which neither a signal tells nor the queue.
    write_heartbeat(&client, &workers[1], WorkerState::Busy, 1).await;
    let _: u64 = redis(&client, "XTRIM test:jobs MAXLEN 0").await;
    scaler.until_workers("test", 1).await;
    let left = scaler.of("test").await;
    let left: Vec<_> = left.workers.iter().filter(|worker| !worker.draining).map(|worker| &worker.id).collect();
    assert_eq!(left, [&workers[1]], "{}", scaler.log());
    scaler.until("the others have left", async || scaler.of("test").await.workers.len() == 1).await;
    look(&client, &scaler).await;
    assert_eq!(scaler.of("test").await.workers[0].id, workers[1]);
}
