//! Worker types with several queues: what is added up and what is not, each signal source for each kind of queue,
//! queues that come and go, queues that can't be read. The sweep is a day away unless it is the one being tested.

mod found;
mod reload;
mod searches;

use std::sync::Arc;

use fred::prelude::Client;
use swarm::model::snapshot::TypeSnapshot;

use crate::support::{
    autoscaler::{Autoscaler, KEYSPACE, NO_SWEEP, SLEEPER, TRACKING, swarm},
    command::{add_jobs, records, redis},
    redis::RedisServer,
};

const CHANNEL: &str = "[signals]\nkeyspace = \"off\"\ntracking = \"off\"\n";
/// One worker for each five jobs, at once in both directions.
const SCALING: &str = "min_workers = 0, strategy = \"backlog\", jobs_per_worker = 5, cooldown_seconds = 0, stabilization_window_seconds = 0";

/// The TOML of a worker type whose workers do nothing, with further queues and `key = value` lines of its table.
fn pool(name: &str, extra: &[&str], more: &str) -> String {
    format!(
        "[worker_types.{name}]\nextra_queues = {extra:?}\n{more}\nscaling = {{ {SCALING} }}\n\
         worker = {{ heartbeats = false }}\nprocess = {{ command = [\"sh\", \"-c\", \"{SLEEPER}\"] }}\n"
    )
}

async fn start(server: &RedisServer, signals: &str, pools: &str) -> (Client, Autoscaler) {
    let client = server.client().await;
    let scaler = Autoscaler::start(&server.url(), &format!("{NO_SWEEP}{signals}{pools}")).await;
    scaler.until_ready().await;
    (client, scaler)
}

/// What led to the first change of a worker type.
async fn trigger(client: &Client, scaler: &Autoscaler, worker_type: &str) -> String {
    scaler.until("the change is recorded", async || !records(client, worker_type).await.is_empty()).await;
    records(client, worker_type).await[0]["trigger"].clone()
}

/// Waits until a worker type was looked at and something holds of it.
async fn until_seen(scaler: &Autoscaler, what: &str, holds: impl Fn(&TypeSnapshot) -> bool) -> Arc<TypeSnapshot> {
    let mut seen = None;
    scaler
        .until(what, async || {
            let of = scaler.of("test").await;
            let is_so = holds(&of);
            seen = Some(of);
            is_so
        })
        .await;
    seen.expect("it was seen just now")
}

/// The queues that are shown, with their unfinished jobs as far as they are known.
fn shown(of: &TypeSnapshot) -> Vec<(String, Option<u64>)> {
    let queues = of.queues.as_ref().expect("it has several");
    queues.shown.iter().map(|one| (one.queue.to_string(), one.demand.depth().known().copied())).collect()
}

fn told(scaler: &Autoscaler, arguments: &[&str]) -> String {
    let url = scaler.url();
    let output = swarm(scaler.directory()).args(arguments).args(["--url", &url]).output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test]
async fn workers_are_scaled_by_the_sum_of_all_queues() {
    let server = RedisServer::start();
    let (client, scaler) = start(&server, "", &pool("test", &["urgent:jobs"], "")).await;
    add_jobs(&client, "test:jobs", 11).await;
    add_jobs(&client, "urgent:jobs", 19).await;
    scaler.until_workers("test", 6).await;
    scaler.until_quiet().await;
    let of = scaler.of("test").await;
    assert_eq!(of.demand.depth().known(), Some(&30));
    assert_eq!(shown(&of), [("test:jobs".to_owned(), Some(11)), ("urgent:jobs".to_owned(), Some(19))]);
    let why = told(&scaler, &["why", "test"]);
    assert!(why.contains("30 = test:jobs 11 + urgent:jobs 19 (sum)"), "{why}");
    let status = told(&scaler, &["status"]);
    assert!(status.contains("urgent:jobs   19        0"), "{status}");
}

#[tokio::test]
async fn workers_are_scaled_by_the_longest_queue() {
    let server = RedisServer::start();
    let (client, scaler) = start(&server, "", &pool("test", &["urgent:jobs"], "combine = \"max\"")).await;
    add_jobs(&client, "test:jobs", 11).await;
    add_jobs(&client, "urgent:jobs", 19).await;
    scaler.until_workers("test", 4).await;
    scaler.until_quiet().await;
    let of = scaler.of("test").await;
    assert_eq!((of.desired, of.demand.depth().known()), (4, Some(&30)), "what waits is what waits");
    assert!(of.reasons.iter().any(|reason| reason == "urgent:jobs is the longest of 2 queues with 19"), "{of:?}");
    let why = told(&scaler, &["why", "test"]);
    assert!(why.contains("19 = max of test:jobs 11, urgent:jobs 19"), "{why}");
}

/// A job on the extra queue, none on the own one.
async fn an_extra_queue_alone_wakes_a_pool(signals: &str, source: &str) {
    let server = RedisServer::start();
    let (client, scaler) = start(&server, signals, &pool("test", &["urgent:jobs"], "")).await;
    add_jobs(&client, "urgent:jobs", 1).await;
    if source == "channel" {
        let _: u64 = redis(&client, "PUBLISH jobs:published urgent:jobs").await;
    }
    scaler.until_workers("test", 1).await;
    assert_eq!(trigger(&client, &scaler, "test").await, source);
}

#[tokio::test]
async fn a_notification_of_an_extra_queue_wakes_a_pool() {
    an_extra_queue_alone_wakes_a_pool(KEYSPACE, "keyspace").await;
}

#[tokio::test]
async fn an_invalidation_of_an_extra_queue_wakes_a_pool() {
    an_extra_queue_alone_wakes_a_pool(TRACKING, "tracking").await;
}

#[tokio::test]
async fn a_message_that_names_an_extra_queue_wakes_a_pool() {
    an_extra_queue_alone_wakes_a_pool(CHANNEL, "channel").await;
}

#[tokio::test]
async fn a_queue_that_cannot_be_read_lets_nobody_go_and_is_named_and_the_others_still_raise() {
    let server = RedisServer::start();
    let (client, scaler) = start(&server, KEYSPACE, &pool("test", &["urgent:jobs"], "")).await;
    add_jobs(&client, "test:jobs", 10).await;
    scaler.until_workers("test", 2).await;
    let _: i64 = redis(&client, "LPUSH urgent:jobs not-a-stream").await;
    let _: u64 = redis(&client, "XTRIM test:jobs MAXLEN 0").await;
    until_seen(&scaler, "it sees both", |of| {
        shown(of) == [("test:jobs".into(), Some(0)), ("urgent:jobs".into(), None)]
    })
    .await;
    scaler.until_quiet().await;
    assert_eq!(scaler.of("test").await.desired, 2, "what can't be read may hold jobs");
    let why = told(&scaler, &["why", "test"]);
    assert!(why.contains("`urgent:jobs` holds another type") && why.contains("nobody is let go"), "{why}");
    assert!(why.contains("at least 0 = test:jobs 0 + urgent:jobs ?"), "{why}");

    add_jobs(&client, "test:jobs", 15).await;
    scaler.until_workers("test", 3).await;
    let _: u64 = redis(&client, "DEL urgent:jobs").await;
    let _: u64 = redis(&client, "XTRIM test:jobs MAXLEN 0").await;
    scaler.until_workers("test", 0).await;
}

#[tokio::test]
async fn two_worker_types_read_one_queue_each_as_its_own_group() {
    let server = RedisServer::start();
    let pools = pool("one", &["shared:jobs"], "") + &pool("two", &["shared:jobs"], "");
    let (client, scaler) = start(&server, KEYSPACE, &pools).await;
    let _: String = redis(&client, "XGROUP CREATE shared:jobs one $ MKSTREAM").await;
    add_jobs(&client, "shared:jobs", 10).await;
    scaler.until_workers("one", 2).await;
    scaler.until_workers("two", 2).await;
    let read = "XREADGROUP GROUP one by-hand COUNT 100 STREAMS shared:jobs >";
    let _: fred::types::Value = redis(&client, read).await;
    let ids: Vec<(String, String, u64, u64)> = redis(&client, "XPENDING shared:jobs one - + 100").await;
    for (id, ..) in ids {
        let _: u64 = redis(&client, &format!("XACK shared:jobs one {id}")).await;
    }
    // Nothing tells of an acknowledgement.
    add_jobs(&client, "one:jobs", 1).await;
    scaler.until_workers("one", 1).await;
    assert_eq!(scaler.of("two").await.demand.depth().known(), Some(&10), "they are unfinished in its group");
}

#[tokio::test]
async fn after_a_flood_of_a_shared_queue_every_queue_of_all_who_share_it_still_wakes_its_pool() {
    after_a_flood("shared:jobs").await;
}

#[tokio::test]
async fn after_a_flood_of_a_found_queue_every_queue_of_all_who_share_it_still_wakes_its_pool() {
    after_a_flood("t-2").await;
}

/// With muted notifications that are not all listened to again, the last jobs would wait for the sweep, for a day.
async fn after_a_flood(queue: &str) {
    const JOBS: usize = 20_000;
    let server = RedisServer::start();
    let many = "jobs_per_worker = 10000";
    let pools = [
        pool("test", &["shared:jobs", "more:jobs", "t-*"], "group = \"g\""),
        pool("other", &["shared:jobs", "others:jobs", "t-*"], ""),
    ];
    let pools = pools.concat().replace("jobs_per_worker = 5", many);
    let (client, scaler) = start(&server, KEYSPACE, &pools).await;
    for _ in 0..JOBS / 1_000 {
        add_jobs(&client, queue, 1_000).await;
    }
    scaler.until_workers("test", 2).await;
    scaler.until_workers("other", 2).await;
    for name in ["test", "other"] {
        let evaluations = scaler.of(name).await.evaluations;
        assert!(evaluations < JOBS as u64 / 20, "{evaluations} evaluations of {JOBS} jobs");
    }
    let _: u64 = redis(&client, &format!("XTRIM {queue} MAXLEN 0")).await;
    for name in ["test", "other"] {
        scaler.until_workers(name, 0).await;
    }
    for (queue, name) in [("others:jobs", "other"), ("more:jobs", "test"), ("t-1", "test"), ("test:jobs", "test")] {
        scaler.until_quiet().await;
        add_jobs(&client, queue, 1).await;
        scaler.until_workers(name, 1).await;
        let _: u64 = redis(&client, &format!("XTRIM {queue} MAXLEN 0")).await;
        scaler.until_workers(name, 0).await;
    }
}
