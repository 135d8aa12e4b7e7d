//! The dead and the unheard, on the real binary with real workers and a real `redis-server`: no outage costs a worker,
//! workers that are dead are replaced at once, and workers that are frozen in the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fred::prelude::Client;
use rustix::process::Signal;
use tokio::time::sleep;

use crate::support::{
    autoscaler::{Autoscaler, FAST_SWEEP, real_pool},
    command::{add_sleep, records, redis},
    processes::{kill, variable_of},
    redis::RedisServer,
};

/// Longer than the heartbeat's lapse (3 s), the start grace (5 s) and what is allowed for a reconnect (10 s) together.
const LONG: Duration = Duration::from_secs(20);
/// One worker for each job, and nobody let go.
const EACH: &str = "min_workers = 0, max_workers = 12, strategy = \"backlog\", jobs_per_worker = 1, \
                    start_grace_seconds = 5, cooldown_seconds = 3600, drain_timeout_seconds = 5";

/// The process of each worker, by the worker's name.
fn workers(scaler: &Autoscaler) -> BTreeMap<String, u32> {
    let named = scaler.processes().into_iter().map(|(id, _)| (variable_of(id, "SWARM_WORKER_ID"), id));
    named.filter(|(name, _)| !name.is_empty()).collect()
}

async fn until_busy(scaler: &Autoscaler, count: u32) {
    scaler
        .until(&format!("{count} busy workers"), async || {
            scaler.of("test").await.pool.known().is_some_and(|pool| (pool.ready, pool.busy) == (count, count))
        })
        .await;
}

/// A pool of `count` workers, each with a job that lasts longer than any test.
async fn at_work(server: &RedisServer, client: &Client, settings: &str, count: u32) -> Autoscaler {
    let scaler = Autoscaler::start(&server.url(), settings).await;
    for number in 0..count {
        add_sleep(client, "test", &format!("job-{number}"), 600.0).await;
    }
    until_busy(&scaler, count).await;
    scaler
}

#[tokio::test]
async fn busy_workers_outlive_a_redis_that_is_killed_and_started_again() {
    let mut server = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let client = server.client().await;
    let scaler = at_work(&server, &client, &format!("{FAST_SWEEP}{}", real_pool("test", EACH)), 4).await;
    let (before, records_before) = (workers(&scaler), records(&client, "test").await.len());

    server.kill();
    sleep(LONG).await;
    server.start_again();
    let client = server.client().await;
    until_busy(&scaler, 4).await;
    sleep(LONG).await;
    assert_eq!(workers(&scaler), before, "{}", scaler.log());
    let records = records(&client, "test").await;
    assert_eq!(records.len(), records_before, "{records:?}");
}

/// A Redis that answers and refuses writes, for as long as it does.
async fn a_redis_that_refuses_writes_costs_no_worker(refuse: &str, accept: &str) {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaler = at_work(&server, &client, &format!("{FAST_SWEEP}{}", real_pool("test", EACH)), 3).await;
    let before = workers(&scaler);

    let _: String = redis(&client, refuse).await;
    scaler.until_logged("redis refuses writes").await;
    scaler.until("it is not ready", async || scaler.readyz().await.1.contains("redis refuses writes")).await;
    assert!(scaler.status().await.redis_refuses_writes.is_some());
    sleep(LONG).await;
    assert_eq!(workers(&scaler), before, "{}", scaler.log());

    let _: String = redis(&client, accept).await;
    scaler.until_logged("redis accepts writes again").await;
    until_busy(&scaler, 3).await;
    assert_eq!(workers(&scaler), before, "{}", scaler.log());
    assert_eq!(scaler.log().matches("redis refuses writes").count(), 1, "one line for an outage");
}

#[tokio::test]
async fn a_full_redis_costs_no_worker() {
    a_redis_that_refuses_writes_costs_no_worker("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0").await;
}

#[tokio::test]
async fn a_redis_without_its_replicas_costs_no_worker() {
    let (refuse, accept) = ("CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0");
    a_redis_that_refuses_writes_costs_no_worker(refuse, accept).await;
}

#[tokio::test]
async fn workers_killed_all_at_once_are_replaced_at_once() {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaler = at_work(&server, &client, &format!("{FAST_SWEEP}{}", real_pool("test", EACH)), 12).await;
    let before = workers(&scaler);
    for process in before.values() {
        kill(*process, Signal::KILL);
    }
    scaler
        .until("12 others are there", async || {
            let now = workers(&scaler);
            now.len() == 12 && now.keys().all(|name| !before.contains_key(name))
        })
        .await;
    assert!(!scaler.of("test").await.reasons.join("\n").contains("next try in"), "nothing is held back");
}

/// One worker dies after the other, each long after it was ready: none of these deaths is a failed start, however many
/// there are.
#[tokio::test]
async fn a_trickle_of_deaths_costs_no_strength() {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaling = EACH.replace("min_workers = 0, max_workers = 12", "min_workers = 2, max_workers = 8");
    let scaling = scaling.replace("start_grace_seconds = 5", "start_grace_seconds = 1");
    let settings = format!("{FAST_SWEEP}{}", real_pool("test", &scaling));
    let scaler = at_work(&server, &client, &settings, 8).await;
    // Waiting jobs, so that whoever is there is needed while the jobs of the dead are not given out again.
    for number in 0..30 {
        add_sleep(&client, "test", &format!("waiting-{number}"), 600.0).await;
    }
    for _ in 0..3 {
        // Longer than the grace that makes a death a failed start.
        sleep(Duration::from_secs(2)).await;
        for (victim, process) in workers(&scaler) {
            kill(process, Signal::KILL);
            scaler
                .until(&format!("8 are ready without {victim}"), async || {
                    let of_test = scaler.of("test").await;
                    let is_gone = of_test.workers.iter().all(|one| one.id.as_str() != victim);
                    is_gone && of_test.pool.known().is_some_and(|pool| pool.ready == 8)
                })
                .await;
            let reasons = scaler.of("test").await.reasons.join("\n");
            assert!(!reasons.contains("next try in"), "nothing is held back: {reasons}");
        }
    }
}

#[tokio::test]
async fn a_worker_told_to_drain_by_hand_is_replaced_once() {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaling = EACH.replace("drain_timeout_seconds = 5", "drain_timeout_seconds = 300");
    let scaler = at_work(&server, &client, &format!("{FAST_SWEEP}{}", real_pool("test", &scaling)), 1).await;
    let by_hand = workers(&scaler);
    for process in by_hand.values() {
        kill(*process, Signal::TERM);
    }
    scaler
        .until("it drains", async || scaler.of("test").await.pool.known().is_some_and(|pool| pool.draining == 1))
        .await;
    scaler.until("another worker is there", async || workers(&scaler).len() == 2).await;
    scaler
        .until("it is ready", async || {
            scaler.of("test").await.pool.known().is_some_and(|pool| (pool.ready, pool.draining) == (1, 1))
        })
        .await;
    scaler.until_evaluated("test", 3).await;
    assert_eq!(workers(&scaler).len(), 2);
    let records = records(&client, "test").await;
    assert_eq!(records.len(), 2, "one for each worker: {records:?}");
    // It would finish its job first.
    for process in by_hand.values() {
        kill(*process, Signal::KILL);
    }
}

#[tokio::test]
async fn a_frozen_worker_is_replaced_when_its_silence_counts() {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaling = "min_workers = 0, max_workers = 1, start_grace_seconds = 5, drain_timeout_seconds = 1";
    let pool = real_pool("test", scaling);
    let settings = format!("{FAST_SWEEP}{pool}[worker_types.test.jobs]\nclaim_seconds = 5\n");
    let scaler = at_work(&server, &client, &settings, 1).await;
    let frozen = workers(&scaler);
    for process in frozen.values() {
        kill(*process, Signal::STOP);
    }
    scaler
        .until("it is not heard", async || {
            scaler.of("test").await.workers.iter().any(|worker| serde_json::json!(worker.status) == "unheard")
        })
        .await;
    assert_eq!(workers(&scaler), frozen, "its silence does not count yet");
    scaler
        .until("another is in its place", async || {
            let now = workers(&scaler);
            now.len() == 1 && now != frozen
        })
        .await;
}

#[tokio::test]
async fn cut_connections_add_no_spare_workers() {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaling = "min_workers = 3, max_workers = 10, spare = 2, cooldown_seconds = 3600";
    let scaler = Autoscaler::start(&server.url(), &format!("{FAST_SWEEP}{}", real_pool("test", scaling))).await;
    scaler
        .until("all are idle", async || {
            scaler.of("test").await.pool.known().is_some_and(|pool| (pool.ready, pool.busy) == (3, 0))
        })
        .await;
    for _ in 0..4 {
        let _: u64 = redis(&client, "CLIENT KILL TYPE normal SKIPME yes").await;
        let _: u64 = redis(&client, "CLIENT KILL TYPE pubsub SKIPME yes").await;
        scaler.until_evaluated("test", 3).await;
    }
    scaler.until_ready().await;
    assert_eq!(workers(&scaler).len(), 3, "{}", scaler.log());
    assert_eq!(records(&client, "test").await.len(), 1);
}

#[tokio::test]
async fn a_command_that_neither_gets_ready_nor_leaves_meets_a_ceiling() {
    let server = RedisServer::start();
    let script = "trap '' TERM; while :; do sleep 0.1; done";
    let settings = format!(
        "{FAST_SWEEP}[worker_types.test]\nscaling = {{ min_workers = 2, max_workers = 2, start_grace_seconds = 3, \
         drain_timeout_seconds = 20 }}\nprocess = {{ command = [\"sh\", \"-c\", {}] }}\n",
        serde_json::json!(script)
    );
    let scaler = Autoscaler::start(&server.url(), &settings).await;
    let mut most = 0;
    scaler
        .until("several rounds have failed", async || {
            let names: BTreeSet<String> = workers(&scaler).into_keys().collect();
            most = most.max(names.len());
            scaler.of("test").await.start_failures.as_ref().is_some_and(|failures| failures.count >= 3)
        })
        .await;
    for _ in 0..100 {
        most = most.max(workers(&scaler).len());
        sleep(Duration::from_millis(100)).await;
    }
    assert!(most <= 4, "never more than twice max_workers: {most}");
    scaler.until_logged("worker:heartbeat:test:").await;
    assert!(scaler.log().contains("heartbeats = false"), "{}", scaler.log());
}
