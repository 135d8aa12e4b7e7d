//! Where Redis is more than one server: sentinels, and a cluster, there also as a user with no more than the
//! documented rights.

use super::{Report, ask, ask_about, documented_rights, until_told};
use crate::support::{
    autoscaler::{Autoscaler, FAST_SWEEP, NO_SWEEP, SLEEPER, pool, real_pool},
    cluster::Cluster,
    command::{add_jobs, records, redis},
    redis::client_at,
    sentinel::Sentinels,
};

/// Scales up for a signal and down as soon as that is allowed.
const HASTY: &str = "min_workers = 0, scale_up_threshold = 5, cooldown_seconds = 0";

async fn until_well(scaler: &Autoscaler) -> Report {
    until_told(scaler, "all is well", |report| report.code == Some(0)).await
}

#[tokio::test]
async fn behind_sentinels_all_is_looked_at_on_the_primary() {
    let servers = Sentinels::start().await;
    let settings = format!("{FAST_SWEEP}{}", real_pool("test", "min_workers = 1"));
    let scaler = Autoscaler::start(&servers.url(), &settings).await;
    scaler.until_workers("test", 1).await;
    let report = until_well(&scaler).await;
    report.has("redis", "ok", &["`mymaster`/0 of the sentinels", "answers, master"]);
    report.has("queues", "ok", &["1 queue can be read"]);

    let wrong = servers.url().replace("mymaster", "other");
    let report = ask_about(&format!("redis_url = \"{wrong}\"\n[http]\nlisten = \"\"\n[worker_types.test]\n"));
    report.has("redis", "problem", &["watches no `other`"]);
}

/// On the sentinels, what `docs/redis.md` says is needed there; `client|setinfo` came after Redis 7.0.
const ASKER: &str = "user asker on >asking resetchannels -@all +hello +auth +sentinel|get-master-addr-by-name";

#[tokio::test]
async fn the_documented_rights_are_enough_on_sentinels_and_the_primary() {
    let mut servers = Sentinels::start_with(&[], ASKER).await;
    for server in &servers.servers {
        let _: String = redis(&server.client().await, &documented_rights()).await;
    }
    let url = servers.url().replace("//", "//scaler:secret@");
    let url = format!("{url}?sentinel_username=asker&sentinel_password=asking");
    let scaler = Autoscaler::start(&url, &format!("{NO_SWEEP}{}", pool("test", HASTY, SLEEPER))).await;
    scaler.until_ready().await;
    add_jobs(&servers.client().await, "test:jobs", 6).await;
    scaler.until_workers("test", 2).await;
    until_well(&scaler).await.has("rights", "ok", &["user `scaler` has all"]);

    let _: u64 = redis(&servers.client().await, "WAIT 2 10000").await;
    servers.fail_over().await;
    scaler.until_ready().await;
    add_jobs(&servers.client().await, "test:jobs", 5).await;
    scaler.until_workers("test", 3).await;
}

#[tokio::test]
async fn of_a_cluster_every_primary_is_looked_at() {
    let mut cluster = Cluster::start();
    cluster.until_well().await;
    let types = cluster.types().await;
    let pools = types.each_ref().map(|name| pool(name, HASTY, SLEEPER)).concat();
    let scaler = Autoscaler::start(&cluster.url(), &format!("{FAST_SWEEP}{pools}")).await;
    scaler.until_ready().await;
    let report = until_well(&scaler).await;
    report.has("redis", "ok", &["the cluster has 3 primaries"]);
    report.has("redis", "ok", &["answers, master, cluster"]);
    report.has("queues", "ok", &["3 queues can be read"]);
    // The memory that each uses differs.
    let same = report.found("redis", "ok").into_iter().filter(|found| !found.contains(" of memory are used"));
    assert_eq!(same.count(), 3, "what they all say is said once");

    // The last of them: the URL names the other two.
    cluster.nodes[2].kill();
    let is_away = |report: &Report| report.found("redis", "problem").concat().contains("can't be reached");
    let report = until_told(&scaler, "a primary is away", is_away).await;
    let port = cluster.nodes[2].port().to_string();
    report.has("redis", "problem", &["a primary can't be reached", &port, "the pools whose queues it has are held"]);
}

/// What `docs/redis.md` adds for the nodes of a cluster.
fn documented_rights_of_a_cluster() -> String {
    format!("{} ~{{test:jobs}}:* &scaler:leader* +cluster|slots +asking", documented_rights())
}

#[tokio::test]
async fn the_documented_rights_are_enough_on_the_nodes_of_a_cluster() {
    let cluster = Cluster::start();
    cluster.until_well().await;
    for node in &cluster.nodes {
        let _: String = redis(&client_at(node.port()).await, &documented_rights_of_a_cluster()).await;
    }
    let url = cluster.url().replace("//", "//scaler:secret@");
    let scaler = Autoscaler::start(&url, &format!("{NO_SWEEP}{}", pool("test", HASTY, SLEEPER))).await;
    scaler.until_ready().await;
    let client = cluster.client().await;
    add_jobs(&client, "test:jobs", 6).await;
    scaler.until_workers("test", 2).await;
    let _: u64 = redis(&client, "DEL test:jobs").await;
    scaler.until_workers("test", 0).await;
    let recorded = async || records(&client, "test").await.len() >= 2;
    scaler.until("both ways are recorded", recorded).await;
    let log = scaler.log();
    let refused: Vec<&str> =
        log.lines().filter(|line| line.contains("NOPERM") || line.contains("no permission")).collect();
    assert!(refused.iter().all(|line| line.contains("CONFIG")), "only the optional right is missing: {refused:#?}");

    let report = until_well(&scaler).await;
    report.has("rights", "ok", &["user `scaler` has all"]);
    for node in &cluster.nodes {
        let _: String = redis(&client_at(node.port()).await, "ACL SETUSER scaler -xpending").await;
    }
    ask(&scaler).has("rights", "problem", &["`xpending` on `test:jobs`", "ACL SETUSER scaler +xpending"]);
}
