//! Many jobs at once: few writes, the right count, and back down when they are done.

use std::time::Instant;

use crate::support::{
    autoscaler::{Autoscaler, KEYSPACE, NO_SWEEP, SLEEPER, TRACKING, pool},
    command::{add_jobs, records, redis, work_off},
    redis::RedisServer,
};

const DEBOUNCE_MS: u128 = 300;

#[tokio::test]
async fn a_burst_costs_one_write_a_window_and_goes_back_to_min_when_it_is_done() {
    let server = RedisServer::start();
    let client = server.client().await;
    let settings = format!(
        "[scaler]\nsweep_interval_seconds = 1\ndebounce_ms = {DEBOUNCE_MS}\n{}",
        pool("test", "min_workers = 2, max_workers = 10, scale_up_threshold = 125, cooldown_seconds = 2", SLEEPER)
    );
    let scaler = Autoscaler::start(&server.url(), &settings).await;
    scaler.until_workers("test", 2).await;
    scaler.until("the repair to min is recorded", async || records(&client, "test").await.len() == 1).await;
    let _: String = redis(&client, "XGROUP CREATE test:jobs test 0 MKSTREAM").await;

    let began = Instant::now();
    // Ten pipelines, so that the backlog is seen while it grows.
    for _ in 0..10 {
        add_jobs(&client, "test:jobs", 100).await;
    }
    scaler.until_workers("test", 8).await;
    let windows = began.elapsed().as_millis() / DEBOUNCE_MS + 1;
    let ups = records(&client, "test").await.split_off(1);
    assert!(ups.len() as u128 <= windows, "{} writes in {windows} windows: {ups:?}", ups.len());

    work_off(&client, "test:jobs", "test").await;
    scaler.until_workers("test", 2).await;
    scaler
        .until("the way down is recorded", async || {
            let last = records(&client, "test").await.pop().expect("there are records");
            last["decision"] == "scale_down" && last["to_count"] == "2"
        })
        .await;
    let records = records(&client, "test").await;
    assert!(records.iter().all(|record| record["outcome"] == "done"), "{records:?}");
    let times: Vec<u64> = records.iter().map(|record| record["timestamp"].parse().expect("milliseconds")).collect();
    let [.., before, down] = times[..] else { panic!("up and down: {records:?}") };
    assert!(down - before >= 2_000, "let go {} ms after the last change, sooner than the cooldown", down - before);
}

#[tokio::test]
async fn after_a_flood_of_notifications_one_job_still_wakes_the_pool() {
    one_job_after_a_flood(KEYSPACE, "keyspace").await;
}

#[tokio::test]
async fn after_a_flood_of_invalidations_one_job_still_wakes_the_pool() {
    one_job_after_a_flood(TRACKING, "tracking").await;
}

/// With muted notifications, or an invalidation not armed again, the last job would wait for the sweep, for a day.
async fn one_job_after_a_flood(signals: &str, source: &str) {
    const JOBS: usize = 20_000;
    let server = RedisServer::start();
    let client = server.client().await;
    let scaling = "min_workers = 0, scale_up_threshold = 10000, cooldown_seconds = 0";
    let settings = format!("{NO_SWEEP}{signals}{}", pool("test", scaling, SLEEPER));
    let scaler = Autoscaler::start(&server.url(), &settings).await;
    scaler.until_ready().await;
    for _ in 0..JOBS / 1_000 {
        add_jobs(&client, "test:jobs", 1_000).await;
    }
    scaler.until_workers("test", 2).await;
    let evaluations = scaler.of("test").await.evaluations;
    assert!(evaluations < JOBS as u64 / 20, "{evaluations} evaluations of {JOBS} jobs");

    let _: u64 = redis(&client, "XTRIM test:jobs MAXLEN 0").await;
    scaler.until_workers("test", 0).await;
    scaler.until_quiet().await;
    let before = records(&client, "test").await.len();
    add_jobs(&client, "test:jobs", 1).await;
    scaler.until_workers("test", 1).await;
    scaler.until("the wake is recorded", async || records(&client, "test").await.len() > before).await;
    assert_eq!(records(&client, "test").await[before]["trigger"], source);
}
