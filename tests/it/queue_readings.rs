//! What readings of queues say where Redis' own numbers mislead, and what they cost, with the real binary on a real
//! server.

use fred::{
    prelude::{Client, ClientLike},
    types::{ClusterHash, CustomCommand, Value},
};
use swarm::model::{Reading, snapshot::TypeSnapshot};

use crate::support::{
    autoscaler::{ALONE, Autoscaler, FAST_SWEEP, SLEEPER, pool},
    command::{add_jobs, calls, redis},
    redis::RedisServer,
};

/// One worker for each five jobs, let go as soon as they are done.
const HASTY: &str = "min_workers = 0, scale_up_threshold = 5, cooldown_seconds = 0";

async fn until_seen(scaler: &Autoscaler, what: &str, is_so: impl Fn(&TypeSnapshot) -> bool) {
    scaler.until(what, async || is_so(&*scaler.of("test").await)).await;
}

async fn until_lag(scaler: &Autoscaler, lag: u64) {
    until_seen(scaler, &format!("a lag of {lag}"), |of| of.demand.lag == Reading::Known(lag)).await;
}

/// Phantom lag, and then the counter is repaired as the documentation of Redis says.
#[tokio::test]
async fn jobs_that_wait_after_a_repaired_counter_are_seen() {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaler = Autoscaler::start(&server.url(), &format!("{FAST_SWEEP}{}", pool("test", HASTY, SLEEPER))).await;
    scaler.until_ready().await;
    for id in 1..=5 {
        let _: String = redis(&client, &format!("XADD test:jobs {id}-0 json {{}}")).await;
    }
    let _: String = redis(&client, "XGROUP CREATE test:jobs test 0").await;
    let _: Value = redis(&client, "XREADGROUP GROUP test c COUNT 1 STREAMS test:jobs >").await;
    let _: u64 = redis(&client, "XACK test:jobs test 1-0").await;
    let _: u64 = redis(&client, "XTRIM test:jobs MAXLEN 1").await;
    until_lag(&scaler, 1).await;
    let _: Value = redis(&client, "XREADGROUP GROUP test c COUNT 9 STREAMS test:jobs >").await;
    let _: u64 = redis(&client, "XACK test:jobs test 5-0").await;
    scaler.until_workers("test", 0).await;

    // At once, so that no reading falls between.
    let script = "redis.call('XGROUP', 'SETID', KEYS[1], 'test', '5-0', 'ENTRIESREAD', 5)
        for _ = 1, 3 do redis.call('XADD', KEYS[1], '*', 'json', '{}') end";
    let eval = CustomCommand::new_static("EVAL", ClusterHash::FirstKey, false);
    let _: Value = client.custom(eval, vec![script, "1", "test:jobs"]).await.expect("the script runs");
    until_lag(&scaler, 3).await;
    scaler.until_workers("test", 1).await;
}

#[tokio::test]
async fn a_job_behind_a_finished_entry_has_an_age() {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaler = Autoscaler::start(&server.url(), &format!("{FAST_SWEEP}{}", pool("test", HASTY, SLEEPER))).await;
    scaler.until_ready().await;
    let _: String = redis(&client, "XGROUP CREATE test:jobs test 0 MKSTREAM").await;
    let ids = add_jobs(&client, "test:jobs", 3).await;
    let _: Value = redis(&client, "XREADGROUP GROUP test c COUNT 1 STREAMS test:jobs >").await;
    let _: u64 = redis(&client, &format!("XACK test:jobs test {}", ids[0])).await;
    let published: u64 = ids[1].split('-').next().and_then(|ms| ms.parse().ok()).expect("an id is a time");
    until_lag(&scaler, 2).await;
    until_seen(&scaler, "the age of the second job", |of| {
        of.demand.oldest.known().copied().flatten().is_some_and(|oldest| oldest.0 == published)
    })
    .await;
    let age = scaler.metric("swarm_queue_oldest_age_seconds{worker_type=\"test\"}").await;
    assert!(age.is_finite() && age >= 0.0, "{age}");
}

#[tokio::test]
async fn ids_that_are_not_times_make_the_age_unknown_and_are_warned_of_once() {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaler = Autoscaler::start(&server.url(), &format!("{FAST_SWEEP}{}", pool("test", HASTY, SLEEPER))).await;
    scaler.until_ready().await;
    let _: String = redis(&client, "XADD test:jobs 7-1 json {}").await;
    until_lag(&scaler, 1).await;
    scaler.until_logged("are not times").await;
    scaler.until_evaluated("test", 3).await;
    assert!(scaler.of("test").await.demand.oldest.why_not().is_some_and(|why| why.contains("not times")));
    assert_eq!(scaler.log().matches("entry ids of the stream are not times").count(), 1);
}

/// Nobody can tell whether a worker took the last job of a list, unless the workers say so or may be stopped.
#[tokio::test]
async fn an_emptied_list_lets_nobody_go_unless_its_workers_may_be_stopped() {
    let server = RedisServer::start();
    let client = server.client().await;
    let list = |name: &str, worker: &str| {
        let pool = pool(name, HASTY, SLEEPER).replace("heartbeats = false", worker);
        pool.replace("scaling =", "kind = \"list\"\nscaling =")
    };
    let careful = list("test", "heartbeats = false");
    let hasty = list("hasty", "heartbeats = false, idle = \"empty_queue\"");
    let scaler = Autoscaler::start(&server.url(), &format!("{FAST_SWEEP}{careful}{hasty}")).await;
    scaler.until_ready().await;
    for queue in ["test:jobs", "hasty:jobs"] {
        let _: u64 = redis(&client, &format!("RPUSH {queue} a b c d e f")).await;
    }
    scaler.until_workers("test", 2).await;
    scaler.until_workers("hasty", 2).await;
    for queue in ["test:jobs", "hasty:jobs"] {
        let _: Vec<String> = redis(&client, &format!("LPOP {queue} 6")).await;
    }
    scaler.until_workers("hasty", 0).await;
    until_lag(&scaler, 0).await;
    scaler.until_evaluated("test", 3).await;
    let of = scaler.of("test").await;
    assert_eq!(of.pool.known().map(swarm::model::PoolCounts::current), Some(2), "{:?}", of.reasons);
    assert!(of.reasons.iter().any(|reason| reason.contains("worker.idle")), "{:?}", of.reasons);
}

/// Bytes that the server has sent.
async fn sent(client: &Client) -> u64 {
    let stats: String = redis(client, "INFO stats").await;
    let bytes = stats.lines().find_map(|line| line.strip_prefix("total_net_output_bytes:"));
    bytes.and_then(|bytes| bytes.trim().parse().ok()).expect("the server counts bytes")
}

const LARGE: usize = 900 * 1024;
const ENTRIES: u64 = 40;

/// Large jobs, one of which was deleted before it was delivered, so that Redis can't tell the lag.
async fn add_large_jobs(client: &Client) {
    let _: String = redis(client, "XGROUP CREATE test:jobs test 0 MKSTREAM").await;
    let payload = "x".repeat(LARGE);
    let mut ids: Vec<String> = Vec::new();
    for _ in 0..ENTRIES {
        let add = CustomCommand::new_static("XADD", ClusterHash::FirstKey, false);
        ids.push(client.custom(add, vec!["test:jobs", "*", "json", &payload]).await.expect("it is added"));
    }
    let _: Value = redis(client, "XREADGROUP GROUP test c COUNT 1 STREAMS test:jobs >").await;
    let _: u64 = redis(client, &format!("XDEL test:jobs {}", ids[20])).await;
}

/// Looks at large jobs, and returns how many bytes each look costs; the other worker type goes on as always.
async fn bytes_a_look(url: &str, client: &Client) -> u64 {
    add_large_jobs(client).await;
    let settings = format!("{FAST_SWEEP}{ALONE}{}{}", pool("test", HASTY, SLEEPER), pool("other", HASTY, SLEEPER));
    let scaler = Autoscaler::start(url, &settings).await;
    scaler.until_ready().await;
    until_seen(&scaler, "the jobs", |of| of.demand.lag.known().is_some_and(|lag| *lag >= ENTRIES - 2)).await;
    let (before, looks) = (sent(client).await, scaler.of("test").await.evaluations);
    scaler.until_evaluated("test", 4).await;
    add_jobs(client, "other:jobs", 1).await;
    scaler.until_workers("other", 1).await;
    let looks = scaler.of("test").await.evaluations - looks;
    (sent(client).await - before) / looks
}

/// Redis does not tell the lag of this queue, because one of its waiting jobs is deleted.
#[tokio::test]
async fn jobs_that_were_counted_are_not_counted_again() {
    let server = RedisServer::start();
    let client = server.client().await;
    let settings = pool("test", "min_workers = 0, max_workers = 0", SLEEPER);
    let scaler = Autoscaler::start(&server.url(), &format!("{FAST_SWEEP}{settings}")).await;
    scaler.until_ready().await;
    let _: String = redis(&client, "XGROUP CREATE test:jobs test 0 MKSTREAM").await;
    let ids = add_jobs(&client, "test:jobs", 20).await;
    let _: Value = redis(&client, "XREADGROUP GROUP test c COUNT 2 STREAMS test:jobs >").await;
    let _: u64 = redis(&client, &format!("XDEL test:jobs {}", ids[15])).await;
    until_lag(&scaler, 17).await;
    scaler.until_evaluated("test", 2).await;

    let counts = calls(&client, "xrange").await;
    scaler.until_evaluated("test", 5).await;
    assert_eq!(calls(&client, "xrange").await, counts, "nothing has changed");
    add_jobs(&client, "test:jobs", 2).await;
    until_lag(&scaler, 19).await;
    let _: u64 = redis(&client, &format!("XDEL test:jobs {}", ids[5])).await;
    until_lag(&scaler, 18).await;
    let _: Value = redis(&client, "XREADGROUP GROUP test c COUNT 1 STREAMS test:jobs >").await;
    until_lag(&scaler, 17).await;
}

#[tokio::test]
async fn no_payload_of_large_jobs_is_read() {
    let server = RedisServer::start();
    let client = server.client().await;
    let bytes = bytes_a_look(&server.url(), &client).await;
    assert!(bytes < LARGE as u64 / 4, "{bytes} bytes a look");
}

#[tokio::test]
async fn without_the_right_to_run_scripts_few_payloads_are_read() {
    let server = RedisServer::start();
    let client = server.client().await;
    let _: String = redis(&client, "ACL SETUSER plain on >secret ~* &* +@all -eval -eval_ro").await;
    let bytes = bytes_a_look(&server.url().replace("//", "//plain:secret@"), &client).await;
    assert!(bytes < 4 * LARGE as u64, "{bytes} bytes a look");
}
