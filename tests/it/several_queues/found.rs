//! Queues found by patterns: at the start, in mid-run by each way to hear of them, and gone again.

use super::*;
use crate::{
    servers::{OF_THIS_MACHINE, Tested, on_servers},
    support::{autoscaler::FAST_SWEEP, cluster::Cluster},
};

pub(super) const NOTHING: &str = "[signals]\nkeyspace = \"off\"\nchannel = \"\"\ntracking = \"off\"\n";

#[tokio::test]
async fn what_is_there_at_the_start_is_found() {
    let server = RedisServer::start();
    let client = server.client().await;
    for tenant in 0..40 {
        add_jobs(&client, &format!("tenant-{tenant}:jobs"), 1).await;
    }
    // Neither of these is a queue.
    let _: String = redis(&client, "SET tenant-text:jobs x").await;
    add_jobs(&client, "tenant-1:jobs:dead", 9).await;
    let (_, scaler) = start(&server, KEYSPACE, &pool("test", &["tenant-*"], "")).await;
    scaler.until_workers("test", 8).await;
    let of = scaler.of("test").await;
    let queues = of.queues.as_ref().expect("it has several");
    assert_eq!((queues.count, queues.unfinished, queues.shown.len()), (41, Some(40), 21), "{queues:?}");
    let status = told(&scaler, &["status"]);
    assert!(status.contains("and 20 more") && status.contains("test:jobs and 40 more"), "{status}");
    let why = told(&scaler, &["why", "test"]);
    assert!(why.contains("40 = test:jobs 0 + tenant-0:jobs 1 + ") && why.contains(" + 33 others 33 (sum)"), "{why}");
}

/// A queue that nobody knew when the scaler started.
async fn a_new_queue_wakes_a_pool(tested: &Tested, signals: &str, source: &str) {
    let server = tested.start(&[]);
    let (client, scaler) = start(&server, signals, &pool("test", &["tenant-*:jobs"], "")).await;
    add_jobs(&client, "tenant-a:jobs", 1).await;
    if source == "channel" {
        let _: u64 = redis(&client, "PUBLISH jobs:published tenant-a:jobs").await;
    }
    scaler.until_workers("test", 1).await;
    assert_eq!(trigger(&client, &scaler, "test").await, source);
    let of = scaler.of("test").await;
    assert_eq!(shown(&of), [("test:jobs".to_owned(), Some(0)), ("tenant-a:jobs".to_owned(), Some(1))]);
    // From now on it is one of its queues.
    add_jobs(&client, "tenant-a:jobs", 9).await;
    if source == "channel" {
        let _: u64 = redis(&client, "PUBLISH jobs:published tenant-a:jobs").await;
    }
    scaler.until_workers("test", 2).await;
}

on_servers! {
    [installed, valkey_8, redis_8, redis_6_2],
    [
        a_notification_tells_of_a_new_queue,
        the_sweep_alone_finds_a_new_queue_and_misses_one_that_is_gone,
    ]
}

async fn a_notification_tells_of_a_new_queue(tested: &Tested) {
    a_new_queue_wakes_a_pool(tested, KEYSPACE, "keyspace").await;
}

#[tokio::test]
async fn a_message_tells_of_a_new_queue() {
    a_new_queue_wakes_a_pool(&OF_THIS_MACHINE, CHANNEL, "channel").await;
}

async fn the_sweep_alone_finds_a_new_queue_and_misses_one_that_is_gone(tested: &Tested) {
    let server = tested.start(&[]);
    let client = server.client().await;
    let settings = format!("{FAST_SWEEP}{NOTHING}{}", pool("test", &["tenant-*:jobs"], ""));
    let scaler = Autoscaler::start(&server.url(), &settings).await;
    until_seen(&scaler, "it was looked for queues", |of| of.demand.depth().known() == Some(&0)).await;
    add_jobs(&client, "tenant-a:jobs", 7).await;
    scaler.until_workers("test", 2).await;
    assert_eq!(trigger(&client, &scaler, "test").await, "sweep");
    let _: u64 = redis(&client, "DEL tenant-a:jobs").await;
    scaler.until_workers("test", 0).await;
    until_seen(&scaler, "it is forgotten", |of| shown(of) == [("test:jobs".to_owned(), Some(0))]).await;
}

/// More keys than one SCAN looks at, most of which are none of ours.
#[tokio::test]
async fn queues_among_many_keys_are_found() {
    let server = RedisServer::start();
    let client = server.client().await;
    let script = "for i=1,20000 do redis.call('SET','key:'..i,'x') end";
    let eval = fred::types::CustomCommand::new_static("EVAL", fred::types::ClusterHash::Random, false);
    let _: fred::types::Value =
        fred::prelude::ClientLike::custom(&client, eval, vec![script, "0"]).await.expect("it runs");
    add_jobs(&client, "tenant-a:jobs", 3).await;
    add_jobs(&client, "tenant-b:jobs", 4).await;
    let (_, scaler) = start(&server, KEYSPACE, &pool("test", &["tenant-*:jobs"], "")).await;
    scaler.until_workers("test", 2).await;
}

/// A key that turns out to be of another type is none of its queues, and hides nothing.
#[tokio::test]
async fn a_key_of_another_type_is_no_queue() {
    let server = RedisServer::start();
    let (client, scaler) = start(&server, CHANNEL, &pool("test", &["tenant-*:jobs"], "")).await;
    let _: i64 = redis(&client, "LPUSH tenant-a:jobs x").await;
    let before = scaler.of("test").await.evaluations;
    let _: u64 = redis(&client, "PUBLISH jobs:published tenant-a:jobs").await;
    let of = until_seen(&scaler, "it has looked", |of| of.evaluations > before).await;
    assert_eq!((shown(&of), of.demand.depth().known()), (vec![("test:jobs".to_owned(), Some(0))], Some(&0)));
    let _: u64 = redis(&client, "DEL tenant-a:jobs").await;
    add_jobs(&client, "tenant-a:jobs", 1).await;
    let _: u64 = redis(&client, "PUBLISH jobs:published tenant-a:jobs").await;
    scaler.until_workers("test", 1).await;
}

#[tokio::test]
async fn lists_are_found_too() {
    let server = RedisServer::start();
    let pool = pool("test", &["tenant-*"], "kind = \"list\"")
        .replace("heartbeats = false", "heartbeats = false, idle = \"empty_queue\"");
    let (client, scaler) = start(&server, KEYSPACE, &pool).await;
    let _: String = redis(&client, "XADD tenant-stream * json {}").await;
    let _: u64 = redis(&client, "LPUSH tenant-list a b c d e f").await;
    scaler.until_workers("test", 2).await;
    assert_eq!(
        shown(&*scaler.of("test").await),
        [("test:jobs".to_owned(), Some(0)), ("tenant-list".to_owned(), Some(6))]
    );
}

/// One that may hold jobs and can't be looked for lets nobody go.
#[tokio::test]
async fn without_the_right_to_search_nobody_is_let_go_and_it_says_so() {
    let server = RedisServer::start();
    let client = server.client().await;
    let _: String = redis(&client, "ACL SETUSER plain on >secret ~* &* +@all -scan").await;
    let url = server.url().replace("//", "//plain:secret@");
    let settings = format!("{NO_SWEEP}{KEYSPACE}{}", pool("test", &["tenant-*:jobs"], ""));
    let scaler = Autoscaler::start(&url, &settings).await;
    scaler.until_ready().await;
    add_jobs(&client, "tenant-a:jobs", 6).await;
    scaler.until_workers("test", 2).await;
    let _: u64 = redis(&client, "XTRIM tenant-a:jobs MAXLEN 0").await;
    let is_seen = |of: &TypeSnapshot| shown(of).iter().all(|(_, depth)| *depth == Some(0));
    until_seen(&scaler, "it is seen that they are gone", is_seen).await;
    scaler.until_quiet().await;
    let of = scaler.of("test").await;
    assert_eq!(of.desired, 2, "{of:?}");
    let why = told(&scaler, &["why", "test"]);
    assert!(why.contains("`tenant-*:jobs` can't be searched for") && why.contains("+scan"), "{why}");
}

#[tokio::test]
async fn the_first_of_two_that_would_take_the_same_jobs_has_a_queue() {
    let server = RedisServer::start();
    let pools = pool("one", &["tenant-*"], "group = \"g\"") + &pool("two", &["*-a"], "group = \"g\"");
    let (client, scaler) = start(&server, KEYSPACE, &pools).await;
    add_jobs(&client, "tenant-a", 1).await;
    scaler.until_workers("one", 1).await;
    scaler.until_logged("it is left to that one").await;
    scaler.until_quiet().await;
    assert_eq!(scaler.of("two").await.desired, 0);
}

#[tokio::test]
async fn of_a_cluster_queues_on_every_primary_are_found_and_heard() {
    let cluster = Cluster::start();
    cluster.until_well().await;
    let client = cluster.client().await;
    let [one, two, three] = cluster.types().await.map(|name| format!("tenant-{{{name}}}"));
    add_jobs(&client, &one, 5).await;
    let settings = format!("{NO_SWEEP}{KEYSPACE}{}", pool("test", &["tenant-*", "named:jobs"], ""));
    let scaler = Autoscaler::start(&cluster.url(), &settings).await;
    scaler.until_ready().await;
    scaler.until_workers("test", 1).await;
    for (queue, workers) in [(two.as_str(), 2), (three.as_str(), 3), ("named:jobs", 4)] {
        add_jobs(&client, queue, 5).await;
        scaler.until_workers("test", workers).await;
    }
}

/// Calls of XINFO so far.
async fn readings(client: &Client) -> u64 {
    let stats: String = redis(client, "INFO commandstats").await;
    let calls = stats.lines().filter(|line| line.starts_with("cmdstat_xinfo|stream:"));
    let calls = calls.filter_map(|line| line.split_once("calls=")?.1.split(',').next()?.parse::<u64>().ok());
    calls.sum()
}

/// An evaluation costs what changed, not what exists.
#[tokio::test]
async fn a_job_in_one_of_many_queues_has_only_that_one_read() {
    for signals in [KEYSPACE, TRACKING] {
        let server = RedisServer::start();
        let client = server.client().await;
        for number in 0..300 {
            let key = format!("tenant-{number}:jobs");
            add_jobs(&client, &key, 1).await;
            let _: u64 = redis(&client, &format!("XTRIM {key} MAXLEN 0")).await;
        }
        let (_, scaler) = start(&server, signals, &pool("test", &["tenant-*:jobs"], "")).await;
        until_seen(&scaler, "all are empty", |of| of.demand.depth().known() == Some(&0)).await;
        scaler.until_quiet().await;
        let before = readings(&client).await;
        add_jobs(&client, "tenant-7:jobs", 1).await;
        scaler.until_workers("test", 1).await;
        scaler.until_quiet().await;
        let read = readings(&client).await - before;
        assert!(read <= 30, "{signals}: {read} queues were read for one job");

        let _: u64 = redis(&client, "XTRIM tenant-7:jobs MAXLEN 0").await;
        scaler.until_workers("test", 0).await;
        add_jobs(&client, "tenant-8:jobs", 6).await;
        scaler.until_workers("test", 2).await;
    }
}
