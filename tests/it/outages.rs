//! Redis gone, frozen, restarted, reconfigured, or closing connections: the pool is held, never lowered, and the first
//! job afterwards wakes it again.

use fred::{prelude::Client, types::Value};
use rustix::process::Signal;

use crate::support::{
    autoscaler::{ALONE, Autoscaler, FAST_SWEEP, KEYSPACE, NO_SWEEP, SLEEPER, TRACKING, pool},
    command::{add_jobs, records, redis},
    processes::kill,
    redis::RedisServer,
};

/// One worker for each five jobs; nobody is let go while a test lasts.
const STEADY: &str = "min_workers = 0, scale_up_threshold = 5, cooldown_seconds = 3600";
/// The same, but let go as soon as that is allowed.
const HASTY: &str = "min_workers = 0, scale_up_threshold = 5, cooldown_seconds = 0";

async fn start(server: &RedisServer, sweep: &str, scaling: &str) -> Autoscaler {
    let scaler = Autoscaler::start(&server.url(), &format!("{sweep}{}", pool("test", scaling, SLEEPER))).await;
    scaler.until_ready().await;
    scaler
}

async fn until_not_ready(scaler: &Autoscaler) {
    scaler.until("it says that redis is gone", async || scaler.readyz().await.1.contains("redis at 127.0.0.1")).await;
    assert!(!scaler.readyz().await.0);
}

/// The depth is unknown, and that holds the pool.
async fn until_held(scaler: &Autoscaler) {
    scaler
        .until("the pool is held because the depth is unknown", async || {
            scaler.of("test").await.reasons[0].contains("nobody is let go")
        })
        .await;
}

async fn newest_trigger(client: &Client) -> String {
    records(client, "test").await.pop().expect("there is a record")["trigger"].clone()
}

#[tokio::test]
async fn a_restarted_redis_is_found_again_and_wakes_the_pool() {
    let mut server = RedisServer::start();
    let scaler = start(&server, NO_SWEEP, STEADY).await;
    add_jobs(&server.client().await, "test:jobs", 1).await;
    scaler.until_workers("test", 1).await;

    server.restart();
    let client = server.client().await;
    scaler.until("both connections are back", async || clients(&client).await.len() >= 2).await;
    scaler.until_ready().await;
    scaler.until_workers("test", 1).await;
    add_jobs(&client, "test:jobs", 10).await;
    scaler.until_workers("test", 2).await;
}

#[tokio::test]
async fn a_frozen_redis_holds_the_pool_until_it_answers_again() {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaler = start(&server, FAST_SWEEP, HASTY).await;
    add_jobs(&client, "test:jobs", 10).await;
    scaler.until_workers("test", 2).await;

    server.stop();
    until_not_ready(&scaler).await;
    until_held(&scaler).await;
    scaler.until_evaluated("test", 3).await;
    scaler.until_workers("test", 2).await;
    assert!(!scaler.log().contains("scale down"), "{}", scaler.log());

    server.cont();
    scaler.until_ready().await;
    add_jobs(&client, "test:jobs", 10).await;
    scaler.until_workers("test", 4).await;
}

#[tokio::test]
async fn what_is_done_while_redis_is_frozen_is_recorded_once_afterwards() {
    let server = RedisServer::start();
    let client = server.client().await;
    let noting = "echo $$ >> $SWARM_TEST_DIR/pids; exec sleep 1000";
    let settings = format!("{NO_SWEEP}{ALONE}{}", pool("test", "min_workers = 1", noting));
    let scaler = Autoscaler::start(&server.url(), &settings).await;
    scaler.until_ready().await;
    scaler.until("the first start is recorded", async || records(&client, "test").await.len() == 1).await;
    scaler.until("the worker has noted itself", async || scaler.lines("pids").len() == 1).await;

    server.stop();
    kill(scaler.lines("pids")[0].parse().expect("a process id"), Signal::KILL);
    scaler.until("the worker is replaced all the same", async || scaler.lines("pids").len() == 2).await;
    // By then the record's write has timed out, although the server will carry it out as soon as it goes on.
    until_not_ready(&scaler).await;

    server.cont();
    scaler.until("the second start is recorded", async || records(&client, "test").await.len() >= 2).await;
    scaler.until_ready().await;
    let records = records(&client, "test").await;
    assert_eq!(records.len(), 2, "{records:?}");
}

#[tokio::test]
async fn nobody_is_let_go_while_redis_is_gone() {
    let mut server = RedisServer::start();
    let client = server.client().await;
    let scaler = start(&server, FAST_SWEEP, HASTY).await;
    add_jobs(&client, "test:jobs", 15).await;
    scaler.until_workers("test", 3).await;

    server.kill();
    until_not_ready(&scaler).await;
    until_held(&scaler).await;
    scaler.until_evaluated("test", 3).await;
    scaler.until_workers("test", 3).await;
    assert!(!scaler.log().contains("scale down"), "{}", scaler.log());

    // It comes back empty: now the depth is known to be 0.
    server.restart();
    scaler.until_workers("test", 0).await;
}

#[tokio::test]
async fn a_redis_that_comes_later_is_found_and_the_min_of_a_lone_scaler_does_not_wait_for_it() {
    let mut server = RedisServer::start();
    server.kill();
    let scaling = "min_workers = 1, scale_up_threshold = 5";
    let settings = format!("{NO_SWEEP}{ALONE}{}", pool("test", scaling, SLEEPER));
    let scaler = Autoscaler::start(&server.url(), &settings).await;
    until_not_ready(&scaler).await;
    scaler.until_workers("test", 1).await;

    server.restart();
    let client = server.client().await;
    scaler.until_ready().await;
    add_jobs(&client, "test:jobs", 10).await;
    scaler.until_workers("test", 2).await;
    scaler.until("what happened without redis is recorded", async || records(&client, "test").await.len() == 2).await;
    assert_eq!(records(&client, "test").await[0]["to_count"], "1");
}

#[tokio::test]
async fn a_refused_password_is_told_and_never_shown() {
    let server = RedisServer::start_with(&["--requirepass", "right"]);
    let settings = format!("{NO_SWEEP}{}", pool("test", STEADY, SLEEPER));
    for user in ["", ":hunter2@"] {
        let scaler = Autoscaler::start(&server.url().replace("//", &format!("//{user}")), &settings).await;
        scaler
            .until("it says what is wrong", async || {
                let (ready, why) = scaler.readyz().await;
                !ready && why.contains("refused the user or password")
            })
            .await;
        let shown = format!("{}{}{:?}", scaler.log(), scaler.readyz().await.1, scaler.status().await);
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[tokio::test]
async fn notifications_that_are_turned_off_are_turned_on_again() {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaler = start(&server, NO_SWEEP, STEADY).await;
    let set = fred::types::CustomCommand::new_static("CONFIG", fred::types::ClusterHash::FirstKey, false);
    let off = vec!["SET", "notify-keyspace-events", ""];
    let _: String = fred::prelude::ClientLike::custom(&client, set, off).await.expect("CONFIG is allowed");

    scaler
        .until("the flags are back", async || {
            let flags: Vec<String> = redis(&client, "CONFIG GET notify-keyspace-events").await;
            flags[1].contains('K') && flags[1].contains('t')
        })
        .await;
    scaler.until_ready().await;
    add_jobs(&client, "test:jobs", 1).await;
    scaler.until_workers("test", 1).await;
    scaler.until("it is recorded", async || !records(&client, "test").await.is_empty()).await;
    assert_eq!(newest_trigger(&client).await, "keyspace");
}

#[tokio::test]
async fn a_subscription_that_is_killed_comes_back() {
    killed_connections_come_back("pubsub", KEYSPACE, "keyspace").await;
}

#[tokio::test]
async fn a_probe_connection_that_is_killed_comes_back() {
    killed_connections_come_back("normal", KEYSPACE, "keyspace").await;
}

#[tokio::test]
async fn invalidations_are_armed_again_on_a_new_connection() {
    killed_connections_come_back("normal", TRACKING, "tracking").await;
}

#[tokio::test]
async fn invalidations_go_on_after_everything_was_flushed() {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaler = start(&server, &format!("{NO_SWEEP}{TRACKING}"), HASTY).await;
    add_jobs(&client, "test:jobs", 10).await;
    scaler.until_workers("test", 2).await;
    let _: String = redis(&client, "FLUSHALL").await;
    scaler.until_workers("test", 0).await;
    scaler.until_quiet().await;
    add_jobs(&client, "test:jobs", 1).await;
    scaler.until_workers("test", 1).await;
}

async fn killed_connections_come_back(kind: &str, signals: &str, source: &str) {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaler = start(&server, &format!("{NO_SWEEP}{signals}"), STEADY).await;
    // Connections that are used at each sweep only come back with the next one, so their number proves nothing.
    let returns = if kind == "pubsub" { "signal source is up" } else { "redis answers" };
    let returned = || scaler.log().matches(returns).count();
    let before = returned();
    let killed: u64 = redis(&client, &format!("CLIENT KILL TYPE {kind}")).await;
    assert!(killed > 0, "no connection of type {kind}");

    scaler.until("the connection is back", async || returned() > before).await;
    scaler.until_ready().await;
    add_jobs(&client, "test:jobs", 1).await;
    scaler.until_workers("test", 1).await;
    scaler.until("it is recorded", async || !records(&client, "test").await.is_empty()).await;
    assert_eq!(newest_trigger(&client).await, source);
}

/// The ids of the server's connections, the asking one left out.
async fn clients(client: &Client) -> Vec<String> {
    let own: u64 = redis(client, "CLIENT ID").await;
    let list: Value = redis(client, "CLIENT LIST").await;
    let list = list.into_string().expect("CLIENT LIST is text");
    let ids = list.lines().filter_map(|line| line.split_whitespace().next()?.strip_prefix("id="));
    ids.filter(|id| *id != own.to_string()).map(str::to_owned).collect()
}
