//! What operators see: the dashboards of `config/grafana`, the rules and alerts of `config/prometheus`, and the
//! runbook. The files are checked against each other and against the list of metrics; then a real Prometheus scrapes
//! the real autoscaler, every panel and rule must have data, and every alert must fire on its fault.

mod alerts;
mod dashboards;
mod files;
mod load;
mod operator;

use serde_json::json;

use crate::support::{
    autoscaler::{pool, swarm},
    needs::repository,
};

/// Workers that run and never take a job, slow to leave when they are asked to.
const RELUCTANT: &str = "trap 'sleep 4; exit 0' TERM; while true; do sleep 0.2; done";
/// A worker that crashes at start.
const CRASHES: &str = "exit 1";

/// The TOML of a worker type whose workers can't be started: there is no such program.
fn unstartable(name: &str) -> String {
    format!("[worker_types.{name}]\nprocess = {{ command = [\"no-such-program\"] }}\n")
}

/// The TOML of a worker type of which six workers crash at once, again and again.
fn crashing(name: &str) -> String {
    pool(name, "min_workers = 6", CRASHES)
}

/// The text of a file of this repository.
fn read(path: &str) -> String {
    std::fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Publishes a job as a user would, with the settings of the autoscaler in `directory`.
async fn publish(directory: &std::path::Path, arguments: &[&str]) {
    let mut command = tokio::process::Command::from(swarm(directory));
    let output = command.arg("publish").args(arguments).kill_on_drop(true).output().await.unwrap();
    assert!(output.status.success(), "{}: {}", json!(arguments), String::from_utf8_lossy(&output.stderr));
}
