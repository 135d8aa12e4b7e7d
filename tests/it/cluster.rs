//! `redis+cluster://` on a real cluster: three primaries, queues on each of them.

mod jobs;
mod topology;

use std::process::Output;

use fred::prelude::Client;

use crate::support::{
    autoscaler::{Autoscaler, KEYSPACE, NO_SWEEP, SLEEPER, TRACKING, pool, swarm},
    cluster::Cluster,
    command::{add_jobs, records, redis},
};

const CHANNEL: &str = "[signals]\nkeyspace = \"off\"\ntracking = \"off\"\n";
/// One worker for each five jobs, the first for one.
const SCALING: &str = "min_workers = 0, scale_up_threshold = 5, cooldown_seconds = 0";

/// A scaler of three worker types whose queues lie on different primaries.
async fn start(cluster: &Cluster, signals: &str) -> (Autoscaler, [String; 3]) {
    cluster.until_well().await;
    let types = cluster.types().await;
    let pools: String = types.iter().map(|name| pool(name, SCALING, SLEEPER)).collect();
    let scaler = Autoscaler::start(&cluster.url(), &format!("{NO_SWEEP}{signals}{pools}")).await;
    scaler.until_ready().await;
    (scaler, types)
}

async fn until_recorded(scaler: &Autoscaler, client: &Client, worker_type: &str) -> String {
    scaler.until("the change is recorded", async || !records(client, worker_type).await.is_empty()).await;
    records(client, worker_type).await[0]["trigger"].clone()
}

fn run(url: &str, arguments: &[&str]) -> Output {
    run_with(url, "", arguments)
}

/// With a configuration.
fn run_with(url: &str, settings: &str, arguments: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("swarm.toml"), settings).unwrap();
    swarm(directory.path()).args(arguments).env("REDIS_URL", url).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test]
async fn keyspace_notifications_of_each_primary_wake_their_pools() {
    let cluster = Cluster::start();
    let client = cluster.client().await;
    let (scaler, types) = start(&cluster, KEYSPACE).await;
    for name in &types {
        add_jobs(&client, &format!("{name}:jobs"), 1).await;
        scaler.until_workers(name, 1).await;
        assert_eq!(until_recorded(&scaler, &client, name).await, "keyspace");
    }
}

#[tokio::test]
async fn invalidations_of_each_primary_wake_their_pools() {
    let cluster = Cluster::start();
    let client = cluster.client().await;
    let (scaler, types) = start(&cluster, TRACKING).await;
    for name in &types {
        add_jobs(&client, &format!("{name}:jobs"), 1).await;
        scaler.until_workers(name, 1).await;
        assert_eq!(until_recorded(&scaler, &client, name).await, "tracking");
    }
}

/// Lists on each primary start workers and, where an empty list is idleness, let them go again.
async fn lists_wake_their_pools(signals: &str, source: &str) {
    let cluster = Cluster::start();
    let client = cluster.client().await;
    cluster.until_well().await;
    let types = cluster.types().await;
    let of_list = |name: &String| {
        let of_list = "kind = \"list\"\nworker = { heartbeats = false, idle = \"empty_queue\" }";
        pool(name, SCALING, SLEEPER).replace("worker = { heartbeats = false }", of_list)
    };
    let pools: String = types.iter().map(of_list).collect();
    let scaler = Autoscaler::start(&cluster.url(), &format!("{NO_SWEEP}{signals}{pools}")).await;
    scaler.until_ready().await;
    for name in &types {
        let _: u64 = redis(&client, &format!("RPUSH {name}:jobs one two three")).await;
        scaler.until_workers(name, 1).await;
        assert_eq!(until_recorded(&scaler, &client, name).await, source);
        assert_eq!(depth(&scaler, name).await, Some(3));
    }
    for name in &types {
        let _: Vec<String> = redis(&client, &format!("LPOP {name}:jobs 3")).await;
        scaler.until_workers(name, 0).await;
    }
}

#[tokio::test]
async fn keyspace_notifications_of_lists_on_each_primary_wake_their_pools() {
    lists_wake_their_pools(KEYSPACE, "keyspace").await;
}

#[tokio::test]
async fn invalidations_of_lists_on_each_primary_wake_their_pools() {
    lists_wake_their_pools(TRACKING, "tracking").await;
}

#[tokio::test]
async fn a_message_on_the_channel_to_any_node_wakes_a_pool() {
    let cluster = Cluster::start();
    let client = cluster.client().await;
    let (scaler, types) = start(&cluster, CHANNEL).await;
    for (name, node) in types.iter().zip([1, 2, 0]) {
        add_jobs(&client, &format!("{name}:jobs"), 1).await;
        let _: u64 = redis(&cluster.nodes[node].client().await, &format!("PUBLISH jobs:published {name}:jobs")).await;
        scaler.until_workers(name, 1).await;
        assert_eq!(until_recorded(&scaler, &client, name).await, "channel");
    }
}

#[tokio::test]
async fn a_flood_on_one_primary_is_counted_to_the_last_job() {
    let cluster = Cluster::start();
    let client = cluster.client().await;
    let (scaler, types) = start(&cluster, KEYSPACE).await;
    let queue = format!("{}:jobs", types[2]);
    add_jobs(&client, &queue, 20_000).await;
    scaler.until_workers(&types[2], 10).await;
    scaler.until("all are counted", async || depth(&scaler, &types[2]).await == Some(20_000)).await;
}

#[tokio::test]
async fn what_is_no_cluster_is_told_so() {
    let server = crate::support::redis::RedisServer::start();
    let output = run(&format!("redis+cluster://127.0.0.1:{}", server.port()), &["publish", "browser.echo", "hi"]);
    assert!(!output.status.success() && said(&output).contains("cluster mode"), "{}", said(&output));
    let output = run(&format!("redis+cluster://127.0.0.1:{}/3", server.port()), &["publish", "browser.echo", "hi"]);
    assert!(said(&output).contains("database 0 and no other"), "{}", said(&output));
}

/// Unfinished jobs as the scaler sees them; `None` while it can't.
async fn depth(scaler: &Autoscaler, worker_type: &str) -> Option<u64> {
    scaler.of(worker_type).await.demand.depth().known().copied()
}
