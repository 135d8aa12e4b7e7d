//! `swarm pause`, `resume` and `scale`, on a running autoscaler and over its restart.

use std::process::Output;

use fred::prelude::Client;
use swarm::model::control::Mode;

use crate::support::{
    autoscaler::{Autoscaler, NO_SWEEP, PATIENT, SLEEPER, pool, swarm},
    command::{ScalingRecord, add_jobs, records, redis},
    redis::RedisServer,
};

/// No cooldown, so that what holds is the control and nothing else.
const SCALING: &str = "max_workers = 8, scale_up_threshold = 1, cooldown_seconds = 0";

fn settings() -> String {
    of(SCALING)
}

fn of(scaling: &str) -> String {
    format!("{NO_SWEEP}{PATIENT}{}", pool("test", scaling, SLEEPER))
}

/// Runs `swarm` with the autoscaler's own configuration.
fn order(scaler: &Autoscaler, words: &[&str]) -> Output {
    let file = scaler.directory().join("swarm.toml");
    let output = swarm(scaler.directory()).env("USER", "ann").args(words).arg("--config").arg(file).output();
    output.expect("the binary was built for this test")
}

#[track_caller]
fn obeyed(scaler: &Autoscaler, words: &[&str]) -> String {
    let output = order(scaler, words);
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("it prints text")
}

async fn until_mode(scaler: &Autoscaler, mode: Option<Mode>) {
    scaler
        .until(&format!("its control is {mode:?}"), async || {
            scaler.of("test").await.control.as_ref().map(|control| control.mode) == mode
        })
        .await;
}

/// What was said, and what was done, in order.
async fn decisions(client: &Client) -> Vec<String> {
    records(client, "test").await.iter().map(|record: &ScalingRecord| record["decision"].clone()).collect()
}

#[tokio::test]
async fn a_paused_type_is_left_alone_over_a_restart_until_it_is_resumed() {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaler = Autoscaler::start(&server.url(), &settings()).await;
    scaler.until_ready().await;
    assert_eq!(obeyed(&scaler, &["pause", "test", "--reason", "the site is down"]), "test: paused\n");
    until_mode(&scaler, Some(Mode::Paused)).await;
    add_jobs(&client, "test:jobs", 2).await;
    scaler.until("it has seen the jobs", async || scaler.of("test").await.demand.lag.known() == Some(&2)).await;
    scaler.until_workers("test", 0).await;

    let scaler = scaler.restart(&server.url(), &settings()).await;
    scaler.until("it has seen the jobs", async || scaler.of("test").await.demand.lag.known() == Some(&2)).await;
    let of = scaler.of("test").await;
    assert_eq!(of.control.as_ref().map(|control| control.why.as_str()), Some("the site is down"));
    assert!(of.reasons[0].contains("paused by ann@"), "{:?}", of.reasons);
    scaler.until_workers("test", 0).await;
    assert_eq!(decisions(&client).await, ["paused"], "nothing was done");

    assert_eq!(obeyed(&scaler, &["resume", "test"]), "test: resumed\n");
    scaler.until_workers("test", 2).await;
    scaler.until("it is recorded", async || records(&client, "test").await.len() == 3).await;
    assert_eq!(decisions(&client).await, ["paused", "resumed", "scale_up"]);
    let records = records(&client, "test").await;
    assert!(records[0]["by"].starts_with("ann@") && records[0]["why"] == "the site is down", "{records:?}");
    assert_eq!(obeyed(&scaler, &["resume", "test"]), "test is neither paused nor pinned\n");
}

#[tokio::test]
async fn a_pause_of_one_direction_holds_that_one_alone() {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaler = Autoscaler::start(&server.url(), &settings()).await;
    scaler.until_ready().await;
    assert_eq!(obeyed(&scaler, &["pause", "test", "--out"]), "test: paused for scaling out\n");
    until_mode(&scaler, Some(Mode::PausedOut)).await;
    add_jobs(&client, "test:jobs", 2).await;
    scaler
        .until("it holds", async || scaler.of("test").await.reasons.join(", ").contains("scaling out paused by ann@"))
        .await;
    scaler.until_workers("test", 0).await;

    assert_eq!(obeyed(&scaler, &["pause", "test", "--in"]), "test: paused for scaling in\n");
    scaler.until_workers("test", 2).await;
    scaler.until("it is recorded", async || records(&client, "test").await.len() == 3).await;
    assert_eq!(decisions(&client).await, ["paused_out", "paused_in", "scale_up"]);
}

#[tokio::test]
async fn what_is_only_observed_is_decided_and_told_and_not_done() {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaler = Autoscaler::start(&server.url(), &settings()).await;
    scaler.until_ready().await;
    obeyed(&scaler, &["pause", "test", "--observe"]);
    until_mode(&scaler, Some(Mode::Observe)).await;
    assert!((scaler.metric("swarm_workers_paused{worker_type=\"test\"}").await - 1.0).abs() < f64::EPSILON);
    add_jobs(&client, "test:jobs", 3).await;
    scaler.until("it would scale", async || scaler.of("test").await.desired == 3).await;
    scaler.until_workers("test", 0).await;
    assert_eq!(decisions(&client).await, ["observe"]);
    scaler.until_logged("scale up 0 → 3: depth 3 ≥ 1 wants 3, only observed, as ann@").await;
}

#[tokio::test]
async fn a_pin_holds_for_its_time_and_ends_by_itself() {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaler = Autoscaler::start(&server.url(), &settings()).await;
    scaler.until_ready().await;
    // What is looked at while it is pinned may take any time; the pin that ends is another one.
    assert_eq!(obeyed(&scaler, &["scale", "test=4", "--for", "10m"]), "test: pinned at 4 for 600 s\n");
    scaler.until_workers("test", 4).await;
    assert!((scaler.metric("swarm_workers_pinned{worker_type=\"test\"}").await - 4.0).abs() < f64::EPSILON);
    scaler.until("it is recorded", async || records(&client, "test").await.len() == 2).await;
    assert_eq!(obeyed(&scaler, &["scale", "test=4", "--for", "3s"]), "test: pinned at 4 for 3 s\n");
    // Nothing else wakes it: it looks again when the pin is over, and nobody is needed.
    scaler.until_workers("test", 0).await;
    until_mode(&scaler, None).await;
    scaler.until("it is recorded", async || records(&client, "test").await.len() == 4).await;
    assert_eq!(decisions(&client).await, ["pinned", "scale_up", "pinned", "scale_down"]);
    let left: u64 = redis(&client, "EXISTS scaler:override:test").await;
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_number_set_once_leaves_the_rules_in_force() {
    let server = RedisServer::start();
    let client = server.client().await;
    let cooling = SCALING.replace("cooldown_seconds = 0", "cooldown_seconds = 3600");
    let scaler = Autoscaler::start(&server.url(), &of(&cooling)).await;
    scaler.until_ready().await;
    obeyed(&scaler, &["scale", "test=2"]);
    scaler.until_workers("test", 2).await;
    until_mode(&scaler, None).await;
    scaler.until("the cooldown holds it", async || scaler.of("test").await.reasons[0].contains("cooldown")).await;
    add_jobs(&client, "test:jobs", 5).await;
    scaler.until_workers("test", 5).await;
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_the_cure() {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaler = Autoscaler::start(&server.url(), &settings()).await;
    for (words, told) in [
        (vec!["scale", "test=9"], "9 is outside of what `test` may have, 0 to 8; change min_workers or max_workers"),
        (vec!["scale", "nobody=1"], "no worker type `nobody` in the configuration; there are: test"),
        (vec!["pause", "nobody"], "there are: test"),
        (vec!["pause", "test", "--for", "soon"], "expected a whole number and s, m, h or d, such as 10m"),
    ] {
        let output = order(&scaler, &words);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(told), "{words:?}: {error}");
    }
    let said: u64 = redis(&client, "EXISTS scaler:override:test scaling:events").await;
    assert_eq!(said, 0);
}
