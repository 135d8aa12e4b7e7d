//! The budget of all worker types, with the real binary. There is no sweep: each place that becomes free wakes the pool
//! that gets it.

use std::{collections::BTreeMap, path::Path};

use swarm::model::snapshot::ReloadOutcome;

use crate::support::{
    autoscaler::{Autoscaler, NO_SWEEP, SLEEPER, pool, real_pool, swarm},
    command::{ScalingRecord, add_jobs, add_sleep, pending, records, redis},
    redis::RedisServer,
};

const SCALING: &str = "max_workers = 5, scale_up_threshold = 1, cooldown_seconds = 0";

fn settings(total: u32, pools: &[&str]) -> String {
    format!("{NO_SWEEP}max_total_workers = {total}\n{}", pools.concat())
}

/// Runs a command with the configuration of the autoscaler, and returns its output.
fn run(scaler: &Autoscaler, arguments: &[&str]) -> String {
    let file = scaler.directory().join("swarm.toml");
    let output = swarm(scaler.directory()).args(arguments).arg("--config").arg(file).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What each change reached fits beside what the other worker types had then.
fn assert_within(total: u64, mut records: Vec<ScalingRecord>) {
    let number = |record: &ScalingRecord, key: &str| record[key].parse::<u64>().expect("a number");
    // At the same millisecond, the places became free first.
    records.sort_by_key(|record| (number(record, "timestamp"), record["decision"] == "scale_up"));
    let mut held = BTreeMap::new();
    for record in &records {
        held.insert(record["worker_type"].clone(), number(record, "to_count"));
        assert!(held.values().sum::<u64>() <= total, "{records:?}");
    }
}

#[tokio::test]
async fn a_higher_priority_gets_the_places_of_idle_workers_and_gives_them_back() {
    let server = RedisServer::start();
    let client = server.client().await;
    let (high, low) = (pool("high", &format!("{SCALING}, priority = 1"), SLEEPER), pool("low", SCALING, SLEEPER));
    let scaler = Autoscaler::start(&server.url(), &settings(3, &[&high, &low])).await;
    scaler.until_ready().await;
    add_jobs(&client, "low:jobs", 9).await;
    scaler.until_workers("low", 3).await;
    let why = run(&scaler, &["why", "low", "--url", &scaler.url()]);
    assert!(why.contains("at most 3 (max_total_workers 3; other worker types have 0)"), "{why}");

    // These workers are idle, so they make room, and no more than that.
    add_jobs(&client, "high:jobs", 2).await;
    scaler.until_workers("high", 2).await;
    scaler.until_workers("low", 1).await;
    let why = run(&scaler, &["why", "low", "--url", &scaler.url()]);
    assert!(why.contains("at most 1 (max_total_workers 3; other worker types have "), "{why}");
    let status = run(&scaler, &["status", "--url", &scaler.url()]);
    assert!(status.contains("budget   3 of 3 workers; holds back low"), "{status}");
    assert!((scaler.metric(r#"swarm_workers_allowed{worker_type="low"}"#).await - 1.0).abs() < 0.1);
    assert!((scaler.metric("swarm_workers_budget").await - 3.0).abs() < 0.1);

    let _: u64 = redis(&client, "XTRIM high:jobs MAXLEN 0").await;
    scaler.until_workers("high", 0).await;
    scaler.until_workers("low", 3).await;
    scaler
        .until("both are recorded", async || {
            let (low, high) = (records(&client, "low").await, records(&client, "high").await);
            low.last().is_some_and(|record| record["to_count"] == "3")
                && high.last().is_some_and(|record| record["to_count"] == "0")
        })
        .await;
    let mut all = records(&client, "low").await;
    let woken = |record: &ScalingRecord| record["decision"] == "scale_up" && record["trigger"].contains("budget");
    assert!(all.iter().any(woken), "the free places woke it: {all:?}");
    all.extend(records(&client, "high").await);
    assert_within(3, all);
}

#[tokio::test]
async fn equal_priorities_share_and_a_reload_of_the_budget_takes_effect() {
    let server = RedisServer::start();
    let client = server.client().await;
    let pools = [pool("a", SCALING, SLEEPER), pool("b", SCALING, SLEEPER)];
    let of = |total: u32| settings(total, &[&pools[0], &pools[1]]);
    let scaler = Autoscaler::start(&server.url(), &of(4)).await;
    scaler.until_ready().await;
    add_jobs(&client, "a:jobs", 9).await;
    scaler.until_workers("a", 4).await;
    add_jobs(&client, "b:jobs", 9).await;
    scaler.until_workers("b", 2).await;
    scaler.until_workers("a", 2).await;

    let reload = scaler.reload(&server.url(), &of(6)).await;
    assert_eq!((reload.outcome, reload.changes.as_str()), (ReloadOutcome::Applied, "scaler.max_total_workers 4 → 6"));
    scaler.until_workers("a", 3).await;
    scaler.until_workers("b", 3).await;
    scaler.reload(&server.url(), &of(2)).await;
    scaler.until_workers("a", 1).await;
    scaler.until_workers("b", 1).await;
    let without = format!("{NO_SWEEP}{}", pools.concat());
    scaler.reload(&server.url(), &without).await;
    scaler.until_workers("a", 5).await;
    scaler.until_workers("b", 5).await;
    assert!(scaler.metric("swarm_workers_budget").await.is_nan());
}

#[tokio::test]
async fn a_busy_worker_stays_whoever_waits_and_its_place_goes_on_when_it_is_idle() {
    let server = RedisServer::start();
    let client = server.client().await;
    let (high, low) = (pool("high", &format!("{SCALING}, priority = 9"), SLEEPER), real_pool("low", SCALING));
    let scaler = Autoscaler::start(&server.url(), &settings(2, &[&high, &low])).await;
    scaler.until_ready().await;
    for job in ["one", "two"] {
        add_sleep(&client, "low", job, 600.0).await;
    }
    let busy = async || scaler.of("low").await.pool.known().map_or(0, |pool| pool.busy);
    scaler.until("both are busy", async || busy().await == 2).await;
    add_jobs(&client, "high:jobs", 2).await;
    let is_told = async |worker_type: &str, part: &str| {
        scaler.of(worker_type).await.reasons.iter().any(|reason| reason.contains(part))
    };
    scaler.until("high waits", async || is_told("high", "at most 0 (max_total_workers 2").await).await;
    scaler
        .until("low keeps its busy workers", async || {
            is_told("low", "at most 0 (max_total_workers 2").await && is_told("low", "all 2 workers are busy").await
        })
        .await;
    assert_eq!(records(&client, "low").await.last().unwrap()["to_count"], "2", "nobody was let go");
    assert_eq!(pending(&client, "low:jobs", "low").await.len(), 2);

    let told = run(&scaler, &["cancel", "one", "--timeout", "60"]);
    assert!(told.contains("is stopped"), "{told}");
    scaler.until_workers("high", 1).await;
    scaler.until_workers("low", 1).await;
    assert_eq!((busy().await, pending(&client, "low:jobs", "low").await.len()), (1, 1), "the other one works on");
    run(&scaler, &["cancel", "two", "--timeout", "60"]);
    scaler.until_workers("high", 2).await;
    let seconds = r#"swarm_worker_seconds_total{worker_type="high"}"#;
    assert!(scaler.metric(seconds).await > 0.0);
}

fn check(directory: &Path, total: u32) -> (bool, String) {
    let file = directory.join("swarm.toml");
    let minimum = |name: &str| format!("[worker_types.{name}.scaling]\nmin_workers = 2\n");
    let text = format!("[scaler]\nmax_total_workers = {total}\n{}{}", minimum("a"), minimum("b"));
    std::fs::write(&file, text).expect("the directory is ours");
    let output = swarm(directory).args(["config", "check", "--config"]).arg(&file).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

#[test]
fn a_budget_below_the_minimums_is_a_configuration_error() {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let (ok, text) = check(directory.path(), 3);
    assert!(!ok && text.contains("max_total_workers = 3 is less than the sum of min_workers"), "{text}");
    assert!(text.contains(":2"), "names the line: {text}");
    let (ok, text) = check(directory.path(), 4);
    assert!(ok, "{text}");
}
