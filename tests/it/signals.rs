//! What wakes the scaler: each signal source alone, what happens where the server refuses one, and the sweep when all
//! are lost. The sweep is a day away unless it is the one being tested.

use fred::prelude::Client;
use swarm::model::{Source, snapshot::SourceState};

use crate::support::{
    autoscaler::{Autoscaler, FAST_SWEEP, KEYSPACE, NO_SWEEP, SLEEPER, TRACKING, pool},
    command::{add_jobs, records, redis},
    link::Link,
    redis::RedisServer,
};

const CHANNEL: &str = "[signals]\nkeyspace = \"off\"\ntracking = \"off\"\n";
const NOTHING: &str = "[signals]\nkeyspace = \"off\"\nchannel = \"\"\ntracking = \"off\"\n";

/// A pool that sleeps, and is to be woken by one job although `scale_up_threshold` is 5.
fn sleeping_pool() -> String {
    pool("test", "min_workers = 0, scale_up_threshold = 5", SLEEPER)
}

async fn start(redis_url: &str, sweep: &str, signals: &str) -> Autoscaler {
    Autoscaler::start(redis_url, &format!("{sweep}{signals}{}", sleeping_pool())).await
}

/// The sources that led to the only change so far, from 0 to 1.
async fn trigger_of_wake(client: &Client, scaler: &Autoscaler) -> String {
    scaler.until_workers("test", 1).await;
    scaler.until("the change is recorded", async || !records(client, "test").await.is_empty()).await;
    let records = records(client, "test").await;
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!((records[0]["from_count"].as_str(), records[0]["to_count"].as_str()), ("0", "1"));
    records[0]["trigger"].clone()
}

#[tokio::test]
async fn a_keyspace_notification_alone_wakes_a_pool() {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaler = start(&server.url(), NO_SWEEP, KEYSPACE).await;
    scaler.until_ready().await;
    add_jobs(&client, "test:jobs", 1).await;
    assert_eq!(trigger_of_wake(&client, &scaler).await, "keyspace");
}

#[tokio::test]
async fn an_invalidation_alone_wakes_a_pool() {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaler = start(&server.url(), NO_SWEEP, TRACKING).await;
    scaler.until_ready().await;
    add_jobs(&client, "test:jobs", 1).await;
    assert_eq!(trigger_of_wake(&client, &scaler).await, "tracking");
    let flags: Vec<String> = redis(&client, "CONFIG GET notify-keyspace-events").await;
    assert_eq!(flags[1], "", "the server's setting is left alone");
}

#[tokio::test]
async fn a_message_on_the_channel_alone_wakes_a_pool() {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaler = start(&server.url(), NO_SWEEP, CHANNEL).await;
    scaler.until_ready().await;
    add_jobs(&client, "test:jobs", 1).await;
    let heard: u64 = redis(&client, "PUBLISH jobs:published test:jobs").await;
    assert_eq!(heard, 1);
    assert_eq!(trigger_of_wake(&client, &scaler).await, "channel");
}

#[tokio::test]
async fn no_source_is_up_before_all_are_subscribed() {
    let server = RedisServer::start();
    let link = Link::to(&server).await;
    // The last channel that is subscribed to.
    link.hold_at("worker:events");
    let scaler = start(&link.url(), NO_SWEEP, "[signals]\nkeyspace = \"on\"\n").await;
    link.until_held().await;
    let sources = scaler.status().await.sources;
    assert!(sources.iter().all(|source| source.state != SourceState::Up), "{sources:?}");
    link.release();
    scaler.until_source(Source::Keyspace, "up").await;
    scaler.until_source(Source::Channel, "up").await;
}

#[tokio::test]
async fn without_any_signal_the_sweep_finds_the_job() {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaler = start(&server.url(), FAST_SWEEP, NOTHING).await;
    scaler.until_quiet().await;
    let (ready, why) = scaler.readyz().await;
    assert!(!ready && why.contains("no signal source is up"), "{why}");
    add_jobs(&client, "test:jobs", 1).await;
    assert_eq!(trigger_of_wake(&client, &scaler).await, "sweep");
}

/// A scaler with default signals on a server that refuses CONFIG: it falls back, says why, and reacts.
async fn falls_back_to_tracking(server: &RedisServer, redis_url: &str) {
    let client = server.client().await;
    let scaler = start(redis_url, NO_SWEEP, "").await;
    scaler.until_source(Source::Tracking, "up").await;
    scaler.until_ready().await;
    let sources = scaler.status().await.sources;
    let keyspace = sources.iter().find(|one| one.source == Source::Keyspace).expect("it is shown");
    assert!(keyspace.detail.contains("CONFIG") && keyspace.detail.contains("invalidations"), "{keyspace:?}");
    assert!(scaler.readyz().await.1.contains("invalidations"), "told where operators look");
    add_jobs(&client, "test:jobs", 1).await;
    assert_eq!(trigger_of_wake(&client, &scaler).await, "tracking");
}

#[tokio::test]
async fn a_user_without_config_gets_tracking() {
    let server = RedisServer::start();
    let client = server.client().await;
    let _: String = redis(&client, "ACL SETUSER plain on >secret ~* &* +@all -config").await;
    falls_back_to_tracking(&server, &server.url().replace("//", "//plain:secret@")).await;
}

#[tokio::test]
async fn a_server_without_config_gets_tracking() {
    let server = RedisServer::start_with(&["--rename-command", "CONFIG", ""]);
    falls_back_to_tracking(&server, &server.url()).await;
}

#[tokio::test]
async fn flags_of_the_server_are_added_to_and_never_removed() {
    let server = RedisServer::start_with(&["--notify-keyspace-events", "Ex"]);
    let client = server.client().await;
    let scaler = start(&server.url(), NO_SWEEP, "").await;
    scaler.until_source(Source::Keyspace, "up").await;
    let flags: Vec<String> = redis(&client, "CONFIG GET notify-keyspace-events").await;
    assert!("ExKt".chars().all(|flag| flags[1].contains(flag)), "{flags:?}");
    scaler.until_logged("extended to").await;
    let told = scaler.log().lines().filter(|line| line.contains("extended to")).count();
    assert_eq!(told, 1, "one log line says so:\n{}", scaler.log());
}

#[tokio::test]
async fn each_scaler_hears_its_own_database() {
    let server = RedisServer::start();
    let (zero, one) = (server.client().await, server.client_db(1).await);
    let scaler_zero = start(&server.url(), NO_SWEEP, KEYSPACE).await;
    let scaler_one = start(&server.url_db(1), NO_SWEEP, KEYSPACE).await;
    scaler_zero.until_ready().await;
    scaler_one.until_ready().await;

    add_jobs(&one, "test:jobs", 1).await;
    assert_eq!(trigger_of_wake(&one, &scaler_one).await, "keyspace");
    add_jobs(&zero, "test:jobs", 1).await;
    assert_eq!(trigger_of_wake(&zero, &scaler_zero).await, "keyspace");
    let heard = scaler_zero.metric("swarm_signals_total{source=\"keyspace\"}").await;
    assert!((heard - 1.0).abs() < f64::EPSILON, "database 0 heard {heard} notifications, one of them its own");
}
