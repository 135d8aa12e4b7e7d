//! The traps of streams on a real server: what is reported as depth, and what the scaler makes of it. Preconditions are
//! asserted too, so that a server that behaves otherwise is noticed.

use std::collections::HashMap;

use fred::{prelude::Client, types::Value};
use swarm::model::Source;

use crate::support::{
    autoscaler::{Autoscaler, FAST_SWEEP, NO_SWEEP, SLEEPER, pool},
    command::{add_jobs, records, redis, work_off},
    redis::RedisServer,
};

/// One worker for each five jobs, let go as soon as they are done.
const HASTY: &str = "min_workers = 0, scale_up_threshold = 5, cooldown_seconds = 0";

async fn start(server: &RedisServer) -> Autoscaler {
    let settings = format!("{FAST_SWEEP}{}", pool("test", HASTY, SLEEPER));
    let scaler = Autoscaler::start(&server.url(), &settings).await;
    scaler.until("it is ready", async || scaler.readyz().await.0).await;
    scaler
}

/// Waits until the scaler sees `lag` waiting jobs of a worker type, and `pending` delivered and unfinished ones.
async fn until_demand(scaler: &Autoscaler, worker_type: &str, lag: u64, pending: u64) {
    scaler
        .until(&format!("{lag} waiting and {pending} pending for {worker_type}"), async || {
            let demand = scaler.of(worker_type).await.demand.clone();
            demand.lag.known() == Some(&lag) && demand.pending.known() == Some(&pending)
        })
        .await;
}

/// What XINFO GROUPS says of the only group: `None` for nil.
async fn reported_lag(client: &Client, stream: &str) -> Option<u64> {
    let groups: Vec<HashMap<String, Value>> = redis(client, &format!("XINFO GROUPS {stream}")).await;
    assert_eq!(groups.len(), 1);
    groups[0]["lag"].as_u64()
}

async fn make_group(client: &Client, stream: &str, group: &str) {
    let _: String = redis(client, &format!("XGROUP CREATE {stream} {group} 0 MKSTREAM")).await;
}

#[tokio::test]
async fn entries_trimmed_unread_are_no_demand() {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaler = start(&server).await;
    make_group(&client, "test:jobs", "test").await;
    add_jobs(&client, "test:jobs", 5).await;
    let _: Value = redis(&client, "XREADGROUP GROUP test someone COUNT 2 NOACK STREAMS test:jobs >").await;
    until_demand(&scaler, "test", 3, 0).await;
    scaler.until_workers("test", 1).await;

    let _: u64 = redis(&client, "XTRIM test:jobs MAXLEN 0").await;
    assert_eq!(reported_lag(&client, "test:jobs").await, Some(3), "redis goes on reporting what is gone");
    until_demand(&scaler, "test", 0, 0).await;
    scaler.until_workers("test", 0).await;

    add_jobs(&client, "test:jobs", 1).await;
    scaler.until_workers("test", 1).await;
    until_demand(&scaler, "test", 1, 0).await;
}

#[tokio::test]
async fn a_lag_that_redis_cannot_tell_is_counted() {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaler = start(&server).await;
    make_group(&client, "test:jobs", "test").await;
    let ids = add_jobs(&client, "test:jobs", 10).await;
    let _: Value = redis(&client, "XREADGROUP GROUP test someone COUNT 2 STREAMS test:jobs >").await;
    let _: u64 = redis(&client, &format!("XDEL test:jobs {}", ids[5])).await;
    assert_eq!(reported_lag(&client, "test:jobs").await, None);
    until_demand(&scaler, "test", 7, 2).await;
    scaler.until_workers("test", 2).await;
}

#[tokio::test]
async fn a_stream_deleted_and_made_again_starts_anew() {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaler = start(&server).await;
    make_group(&client, "test:jobs", "test").await;
    add_jobs(&client, "test:jobs", 10).await;
    scaler.until_workers("test", 2).await;

    let _: u64 = redis(&client, "DEL test:jobs").await;
    until_demand(&scaler, "test", 0, 0).await;
    scaler.until_workers("test", 0).await;

    add_jobs(&client, "test:jobs", 4).await;
    until_demand(&scaler, "test", 4, 0).await;
    scaler.until_workers("test", 1).await;
}

#[tokio::test]
async fn a_group_that_is_missing_or_destroyed_makes_every_entry_demand() {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaler = start(&server).await;
    add_jobs(&client, "test:jobs", 7).await;
    until_demand(&scaler, "test", 7, 0).await;
    scaler.until_workers("test", 2).await;

    make_group(&client, "test:jobs", "test").await;
    work_off(&client, "test:jobs", "test").await;
    until_demand(&scaler, "test", 0, 0).await;
    scaler.until_workers("test", 0).await;

    let _: u64 = redis(&client, "XGROUP DESTROY test:jobs test").await;
    until_demand(&scaler, "test", 7, 0).await;
    scaler.until_workers("test", 2).await;
}

#[tokio::test]
async fn groups_on_one_stream_are_told_apart() {
    let server = RedisServer::start();
    let client = server.client().await;
    let shared = |name: &str| {
        pool(name, HASTY, SLEEPER)
            .replace("scaling =", &format!("job_queue = \"shared\"\ngroup = \"of-{name}\"\nscaling ="))
    };
    let settings = format!("{FAST_SWEEP}{}{}", shared("one"), shared("two"));
    let scaler = Autoscaler::start(&server.url(), &settings).await;
    scaler.until("it is ready", async || scaler.readyz().await.0).await;
    make_group(&client, "shared", "of-one").await;
    make_group(&client, "shared", "of-two").await;
    add_jobs(&client, "shared", 10).await;
    until_demand(&scaler, "one", 10, 0).await;
    until_demand(&scaler, "two", 10, 0).await;

    work_off(&client, "shared", "of-one").await;
    until_demand(&scaler, "one", 0, 0).await;
    scaler.until_workers("one", 0).await;
    until_demand(&scaler, "two", 10, 0).await;
    scaler.until_workers("two", 2).await;
}

#[tokio::test]
async fn a_list_where_a_stream_is_expected_is_an_error_of_that_queue_alone() {
    let server = RedisServer::start();
    let client = server.client().await;
    let list = pool("list", HASTY, SLEEPER)
        .replace("scaling =", "kind = \"list\"\nscaling =")
        .replace("heartbeats = false", "heartbeats = false, idle = \"empty_queue\"");
    let settings = format!("{NO_SWEEP}{}{list}", pool("test", HASTY, SLEEPER));
    let scaler = Autoscaler::start(&server.url(), &settings).await;
    scaler.until_ready().await;

    let _: u64 = redis(&client, "LPUSH test:jobs a-job").await;
    scaler
        .until("the error names the key and the cure", async || {
            let of_test = scaler.of("test").await;
            let why = of_test.demand.lag.why_not().unwrap_or_default();
            why.contains("`test:jobs`") && why.contains("set `kind`") && of_test.reasons[0].contains("set `kind`")
        })
        .await;
    scaler.until_logged("set `kind`").await;
    assert!(scaler.readyz().await.0, "one bad queue does not make the scaler unready");

    let _: u64 = redis(&client, "LPUSH list:jobs a b c d e f").await;
    scaler.until_workers("list", 2).await;
    until_demand(&scaler, "list", 6, 0).await;
    let _: Vec<String> = redis(&client, "LPOP list:jobs 6").await;
    scaler.until_workers("list", 0).await;
    scaler.until_workers("test", 0).await;
}

/// The ACL rule of a user as `docs/redis.md` documents it.
fn documented_rule(user: &str) -> String {
    let page = include_str!("../../docs/redis.md");
    let (_, rule) = page.split_once(&format!("ACL SETUSER {user} ")).expect("the page documents the user");
    let (rule, _) = rule.split_once("\n\n").expect("an empty line ends the rule");
    format!("ACL SETUSER {user} {}", rule.replace(">PASSWORD", ">secret").trim_end_matches('`'))
}

async fn as_least_user(server: &RedisServer, more: &str) -> Autoscaler {
    let client = server.client().await;
    let _: String = redis(&client, &format!("{} {more}", documented_rule("scaler"))).await;
    let settings = format!("{NO_SWEEP}{}", pool("browser", HASTY, SLEEPER));
    Autoscaler::start(&server.url().replace("//", "//scaler:secret@"), &settings).await
}

/// Up by a signal, down by an invalidation or the recheck, recorded and remembered.
async fn scales_and_records(server: &RedisServer, scaler: &Autoscaler, source: &str) {
    let client = server.client().await;
    scaler.until_ready().await;
    make_group(&client, "browser:jobs", "browser").await;
    let ids = add_jobs(&client, "browser:jobs", 6).await;
    scaler.until_workers("browser", 2).await;
    let _: u64 = redis(&client, &format!("XDEL browser:jobs {}", ids[5])).await;
    let _: u64 = redis(&client, "XTRIM browser:jobs MAXLEN 0").await;
    scaler.until_workers("browser", 0).await;
    scaler.until("both ways are recorded", async || records(&client, "browser").await.len() >= 2).await;
    let records = records(&client, "browser").await;
    assert!(records[0]["trigger"].contains(source), "{records:?}");
    let remembered: u64 = redis(&client, "EXISTS scaler:state:browser").await;
    assert_eq!(remembered, 1);
}

#[tokio::test]
async fn the_documented_least_rights_are_enough_without_config() {
    let server = RedisServer::start();
    let scaler = as_least_user(&server, "").await;
    scaler.until_source(Source::Tracking, "up").await;
    scales_and_records(&server, &scaler, "tracking").await;
    let log = scaler.log();
    let refused: Vec<&str> =
        log.lines().filter(|line| line.contains("NOPERM") || line.contains("no permission")).collect();
    assert!(refused.iter().all(|line| line.contains("CONFIG")), "only the optional right is missing: {refused:#?}");
}

#[tokio::test]
async fn the_documented_rights_with_config_give_keyspace_notifications() {
    let server = RedisServer::start();
    let scaler = as_least_user(&server, "+config|get +config|set").await;
    scaler.until_source(Source::Keyspace, "up").await;
    scales_and_records(&server, &scaler, "keyspace").await;
    let log = scaler.log();
    assert!(!log.contains("NOPERM") && !log.contains("no permission"), "{log}");
}
