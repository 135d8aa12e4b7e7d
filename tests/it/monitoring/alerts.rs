//! Each alert fires on its fault, with a real Prometheus and a real autoscaler; the times in the rules are shortened.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{crashing, files::alerts, unstartable};
use crate::support::{
    autoscaler::{Autoscaler, FAST_SWEEP, SLEEPER, pool},
    command::{add_jobs, redis},
    prometheus::Prometheus,
    redis::{Port, RedisServer},
    wait::{DEADLINE, eventually},
};

// Their faults shut out the others, or need a worker that is scraped: they have tests of their own.
const SIGNALS_MISSED: &str = "SwarmSignalsMissed";
const NO_LEADER: &str = "SwarmNoLeader";
const DEAD_LETTERS: &str = "SwarmDeadLetters";
const WRITES_REFUSED: &str = "SwarmRedisRefusesWrites";
/// Worker types whose jobs no signal tells of.
const DRIFTING: [&str; 5] = ["drift1", "drift2", "drift3", "drift4", "drift5"];

/// Keyspace notifications are insisted on, and the server can't be told to send them.
const INSISTING: &str = "[signals]\nkeyspace = \"on\"\nchannel = \"\"\ntracking = \"off\"\n";
/// The sweep is all there is.
const NO_SIGNALS: &str = "[signals]\nkeyspace = \"off\"\nchannel = \"\"\ntracking = \"off\"\n";

fn pools() -> String {
    let full = pool("full", "max_workers = 1", SLEEPER);
    let unreadable = pool("unreadable", "max_workers = 1", SLEEPER);
    [full, crashing("crashing"), unstartable("absent"), unstartable("gone"), unreadable].concat()
}

/// Waits until an alert fires with these labels.
async fn fires(prometheus: &Prometheus, alert: &str, labels: &[(&str, &str)]) {
    let is_it = |found: &Value| found["alertname"] == alert && labels.iter().all(|(name, value)| found[name] == *value);
    let fired = eventually(DEADLINE, async || prometheus.firing().await.iter().any(is_it)).await;
    assert!(fired, "{alert} {labels:?} does not fire; firing: {:#?}", prometheus.firing().await);
}

/// An autoscaler with these settings, and a Prometheus that has scraped it.
async fn start(server: &RedisServer, settings: &str) -> (Autoscaler, Prometheus) {
    let scaler = Autoscaler::start(&server.url(), &format!("{FAST_SWEEP}{settings}")).await;
    let prometheus = Prometheus::start(scaler.url().trim_start_matches("http://")).await;
    let scraped = async || !prometheus.query("swarm_sweep_drift_total").await.is_empty();
    assert!(eventually(DEADLINE, scraped).await, "nothing is scraped:\n{}", prometheus.log());
    (scaler, prometheus)
}

#[cfg_attr(without_prometheus, ignore = "there is no Prometheus")]
#[tokio::test]
async fn every_alert_fires_on_its_fault() {
    let mut server = RedisServer::start_with(&["--rename-command", "CONFIG", ""]);
    let client = server.client().await;
    let (scaler, prometheus) = start(&server, &format!("{INSISTING}{}", pools())).await;
    let _: String = redis(&client, "SET unreadable:jobs text").await;
    let _: String = redis(&client, "SET scaling:events text").await;
    add_jobs(&client, "full:jobs", 20).await;
    add_jobs(&client, "absent:jobs", 1).await;
    let failed = async || !prometheus.query("swarm_backend_errors_total").await.is_empty();
    assert!(eventually(DEADLINE, failed).await, "no error of the backend is scraped:\n{}", prometheus.log());
    // An error that stays is tried again after a minute: this is one more.
    add_jobs(&client, "gone:jobs", 1).await;
    let mut fired = BTreeSet::from([SIGNALS_MISSED, NO_LEADER, DEAD_LETTERS, WRITES_REFUSED].map(str::to_owned));
    for (alert, labels) in [
        ("SwarmQueueStuck", &[("worker_type", "absent")][..]),
        ("SwarmPoolAtMax", &[("worker_type", "full")]),
        ("SwarmJobsWaitLong", &[("worker_type", "full")]),
        ("SwarmBackendFailing", &[("backend", "process"), ("call", "scale")]),
        ("SwarmSourceDown", &[("source", "keyspace")]),
        ("SwarmUnreadable", &[("worker_type", "unreadable")]),
        ("SwarmCrashLoop", &[("worker_type", "crashing")]),
        ("SwarmHistoryFailing", &[]),
    ] {
        fires(&prometheus, alert, labels).await;
        fired.insert(alert.to_owned());
    }
    scaler.reload(&server.url(), "worker_types = 7").await;
    fires(&prometheus, "SwarmConfigRefused", &[]).await;
    fired.insert("SwarmConfigRefused".to_owned());
    server.kill();
    fires(&prometheus, "SwarmRedisDown", &[]).await;
    drop(scaler);
    fires(&prometheus, "SwarmDown", &[]).await;
    fired.extend(["SwarmRedisDown", "SwarmDown"].map(str::to_owned));
    assert_eq!(fired, alerts(), "an alert has no fault here");
}

#[cfg_attr(without_prometheus, ignore = "there is no Prometheus")]
#[tokio::test]
async fn an_alert_fires_when_only_the_sweep_finds_jobs() {
    let server = RedisServer::start();
    let client = server.client().await;
    let pools = DRIFTING.map(|name| pool(name, "max_workers = 1", SLEEPER)).concat();
    let (_scaler, prometheus) = start(&server, &format!("{NO_SIGNALS}{pools}")).await;
    for worker_type in DRIFTING {
        add_jobs(&client, &format!("{worker_type}:jobs"), 1).await;
    }
    fires(&prometheus, SIGNALS_MISSED, &[]).await;
}

#[cfg_attr(without_prometheus, ignore = "there is no Prometheus")]
#[tokio::test]
async fn an_alert_fires_when_redis_refuses_writes() {
    let server = RedisServer::start();
    let client = server.client().await;
    let (_scaler, prometheus) = start(&server, &pool("full", "max_workers = 1", SLEEPER)).await;
    let _: String = redis(&client, "CONFIG SET maxmemory 1").await;
    fires(&prometheus, WRITES_REFUSED, &[]).await;
}

#[cfg_attr(without_prometheus, ignore = "there is no Prometheus")]
#[tokio::test]
async fn an_alert_fires_when_nobody_leads() {
    let server = RedisServer::start();
    let observer = "dry_run = true\n";
    let (_scaler, prometheus) =
        start(&server, &format!("{observer}{}", pool("watched", "max_workers = 1", SLEEPER))).await;
    fires(&prometheus, NO_LEADER, &[]).await;
}

#[cfg_attr(without_prometheus, ignore = "there is no Prometheus")]
#[tokio::test]
async fn an_alert_fires_when_jobs_become_dead_letters() {
    let server = RedisServer::start();
    let client = server.client().await;
    let port = Port::free();
    let metrics = port.address();
    let worker = format!("heartbeat_seconds = 1, metrics_listen = \"{metrics}\"");
    let settings =
        format!("{FAST_SWEEP}[worker_types.graves]\nscaling = {{ max_workers = 1 }}\nworker = {{ {worker} }}\n");
    let scaler = Autoscaler::start(&server.url(), &settings).await;
    let prometheus = Prometheus::start_with(scaler.url().trim_start_matches("http://"), &metrics).await;
    let _: String = redis(&client, "XADD graves:jobs * json nonsense").await;
    fires(&prometheus, DEAD_LETTERS, &[("reason", "malformed")]).await;
}
