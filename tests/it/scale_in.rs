//! Letting go of real workers: idle ones after the cooldown, busy ones never.

use swarm::model::WorkerId;

use crate::support::{
    autoscaler::{Autoscaler, FAST_SWEEP, gated_pool},
    command::{add_job, add_sleep, answers, records},
    gate::Gate,
    redis::RedisServer,
};

/// The busy workers as the scaler sees them.
async fn busy(scaler: &Autoscaler) -> Vec<WorkerId> {
    let of_test = scaler.of("test").await;
    of_test.workers.iter().filter(|worker| worker.busy).map(|worker| worker.id.clone()).collect()
}

#[tokio::test]
async fn workers_that_are_all_idle_go_down_to_min() {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaling = "min_workers = 1, max_workers = 3, scale_up_threshold = 2, cooldown_seconds = 1";
    let gate = Gate::new();
    let pool = gated_pool("test", scaling, &gate);
    let scaler = Autoscaler::start(&server.url(), &format!("{FAST_SWEEP}{pool}")).await;
    scaler.until_workers("test", 1).await;
    for number in 0..6 {
        add_job(&client, "test", "wait", &format!("job-{number}")).await;
    }
    scaler.until_workers("test", 3).await;
    gate.open();
    for number in 0..6 {
        scaler.until("each job answers", async || answers(&client, &format!("job-{number}")).await.len() == 1).await;
    }
    scaler.until_workers("test", 1).await;
    scaler.until("it is recorded", async || records(&client, "test").await.last().is_some_and(to_one)).await;
    let exits = scaler.metric("swarm_worker_exits_total{worker_type=\"test\",success=\"false\"}").await;
    assert!(exits < 1.0, "{exits} workers failed");
}

fn to_one(record: &crate::support::command::ScalingRecord) -> bool {
    record["decision"] == "scale_down" && record["to_count"] == "1"
}

#[tokio::test]
async fn a_busy_worker_outlives_every_scale_in() {
    let server = RedisServer::start();
    let client = server.client().await;
    // Let go at a depth of 1: while the long job runs, the settings want nobody.
    let scaling = "min_workers = 0, max_workers = 3, scale_up_threshold = 2, scale_down_threshold = 1, \
        activation_threshold = 2, cooldown_seconds = 0";
    let gate = Gate::new();
    let pool = gated_pool("test", scaling, &gate);
    let scaler = Autoscaler::start(&server.url(), &format!("{FAST_SWEEP}{pool}")).await;
    scaler.until("it is ready", async || scaler.readyz().await.0).await;
    add_job(&client, "test", "wait", "long").await;
    for number in 0..5 {
        add_sleep(&client, "test", &format!("short-{number}"), 0.2).await;
    }
    scaler.until_workers("test", 3).await;

    scaler
        .until("the idle ones are let go", async || busy(&scaler).await.len() == 1 && workers(&scaler).await == 1)
        .await;
    assert_eq!(answers(&client, "long").await, [serde_json::Value::Null; 0], "it is at work");
    let at_work = busy(&scaler).await;
    scaler
        .until("the veto is told", async || scaler.of("test").await.reasons[0].contains("the only worker is busy"))
        .await;
    gate.open();
    scaler.until("the long job answers", async || answers(&client, "long").await.len() == 1).await;
    let answer = &answers(&client, "long").await[0];
    assert_eq!((&answer["ok"], &answer["value"]), (&true.into(), &1.into()), "{answer}");
    assert!(!scaler.log().lines().any(|line| line.contains("SIGKILL") && line.contains(at_work[0].as_str())));

    scaler.until_workers("test", 0).await;
    assert_eq!(answers(&client, "long").await.len(), 1, "it was done once");
}

async fn workers(scaler: &Autoscaler) -> u32 {
    scaler.of("test").await.pool.known().map_or(0, swarm::model::PoolCounts::current)
}
