//! A real Prometheus scrapes the real autoscaler while it works: everything that is shown has data.

use serde_json::Value;

use super::{RELUCTANT, crashing, dashboards::Dashboard, dashboards::with_everything_selected, publish, unstartable};
use crate::support::{
    autoscaler::{Autoscaler, FAST_SWEEP, pool, real_pool},
    command::{add_jobs, redis, work_off},
    prometheus::Prometheus,
    redis::RedisServer,
    wait::{DEADLINE, eventually},
};

/// Workers that do jobs, some that leave slowly, some that never get ready, that crash, that can't be started.
fn pools() -> String {
    let silent = "[worker_types.silent]\nscaling = { min_workers = 1, start_grace_seconds = 3 }\n\
                  process = { command = [\"sleep\", \"1000\"] }\n";
    let hasty = "scale_up_threshold = 2, cooldown_seconds = 0, max_workers = 3";
    [
        real_pool("browser", hasty),
        pool("leaving", "cooldown_seconds = 0, max_workers = 1", RELUCTANT),
        silent.to_owned(),
        crashing("crashing"),
        unstartable("absent"),
    ]
    .concat()
}

/// Jobs for everyone: some are done, some can't be.
async fn load(scaler: &Autoscaler, server: &RedisServer) {
    let client = server.client().await;
    add_jobs(&client, "absent:jobs", 3).await;
    add_jobs(&client, "leaving:jobs", 1).await;
    let _: String = redis(&client, "XGROUP CREATE leaving:jobs leaving 0").await;
    scaler.until_workers("leaving", 1).await;
    work_off(&client, "leaving:jobs", "leaving").await;
    let url = ["--redis-url", &server.url()].map(str::to_owned);
    let url: Vec<&str> = url.iter().map(String::as_str).collect();
    for _ in 0..3 {
        publish(scaler.directory(), &[&["browser.sleep", "1", "--count", "6"], &url[..]].concat()).await;
        scaler
            .until("the jobs are done", async || {
                let demand = &scaler.of("browser").await.demand;
                demand.lag.known() == Some(&0) && demand.pending.known() == Some(&0)
            })
            .await;
    }
}

/// Waits until an expression gives something; a failure shows what is there instead.
async fn has_data(prometheus: &Prometheus, what: &str, expression: &str) {
    if eventually(DEADLINE, async || !prometheus.query(expression).await.is_empty()).await {
        return;
    }
    panic!("{what}: no data for {expression}\n{}", prometheus.log());
}

#[cfg_attr(without_prometheus, ignore = "there is no Prometheus")]
#[tokio::test]
async fn every_panel_and_every_rule_has_data() {
    let server = RedisServer::start();
    let scaler = Autoscaler::start(&server.url(), &format!("{FAST_SWEEP}{}", pools())).await;
    let prometheus = Prometheus::start(scaler.url().trim_start_matches("http://")).await;
    load(&scaler, &server).await;

    for dashboard in Dashboard::all() {
        for (title, expression) in dashboard.queries() {
            has_data(&prometheus, &title, &with_everything_selected(&expression)).await;
        }
    }
    for rule in prometheus.rules().await {
        assert_eq!(rule["health"], "ok", "{rule}");
        if rule["type"] == "recording" {
            has_data(&prometheus, "recording rule", rule["name"].as_str().unwrap()).await;
        }
    }
    let both: Vec<Value> = prometheus.query("swarm_build_info and on (instance) swarm_workers_max").await;
    assert!(!both.is_empty(), "the dashboards' variables have no values");
}
