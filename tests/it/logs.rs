//! Logs as JSON: one object a line, for a collector of logs.

use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    autoscaler::{Autoscaler, SLEEPER, pool, swarm},
    log::Log,
    processes::{KillOnDrop, kill},
    redis::RedisServer,
    wait::{DEADLINE, eventually},
};

/// Runs `swarm` until it has logged `told`, then stops it; all that it logged.
async fn logged(arguments: &[&str], environment: &[(&str, &str)], told: &str) -> Vec<Value> {
    let directory = tempfile::tempdir().unwrap();
    let mut command = swarm(directory.path());
    command.args(arguments).envs(environment.iter().copied());
    let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut process = KillOnDrop(process);
    let log = Log::capture(process.stderr.take().unwrap());
    let found = eventually(DEADLINE, async || log.text().contains(told)).await;
    kill(process.id(), Signal::TERM);
    let ended = eventually(DEADLINE, async || matches!(process.try_wait(), Ok(Some(_)))).await;
    assert!(found && ended, "{}", log.text());
    let text = log.text();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))).collect()
}

fn with<'a>(lines: &'a [Value], message: &str) -> &'a Value {
    lines.iter().find(|line| line["message"] == message).unwrap_or_else(|| panic!("no `{message}` in {lines:?}"))
}

#[tokio::test]
async fn the_first_lines_say_which_redis_it_is_and_who_named_it() {
    let server = RedisServer::start();
    let scaler = Autoscaler::start(&server.url(), &pool("test", "max_workers = 1", SLEEPER)).await;
    let log = scaler.log();
    let line = log.lines().find(|line| line.contains("redis selected")).expect("it says so");
    let address = server.url().trim_start_matches("redis://").to_owned();
    assert!(line.contains(&format!("redis=\"{address}\"")) && line.contains("swarm.toml:"), "{line}");
    assert!(!line.contains("overrides"), "{line}");

    let settings = pool("test", "max_workers = 1", SLEEPER);
    let (in_file, url) = ("redis://:hunter2@127.0.0.1:1/3", server.url());
    let scaler = Autoscaler::start_in_environment(in_file, &settings, &[("REDIS_URL", &url)]).await;
    let log = scaler.log();
    let line = log.lines().find(|line| line.contains("redis selected")).expect("it says so");
    assert!(line.contains("set_by=\"REDIS_URL\"") && line.contains("swarm.toml:1"), "{line}");
    assert!(!log.contains("hunter2"), "a password is never logged");
}

#[tokio::test]
async fn an_autoscaler_logs_json_by_flag() {
    let server = RedisServer::start();
    let url = server.url();
    let environment = [("REDIS_URL", url.as_str()), ("METRICS_PORT", "0"), ("BROWSER_MIN_WORKERS", "0")];
    let lines = logged(&["autoscaler", "--log-format", "json", "--dry-run"], &environment, "autoscaler started").await;
    let started = with(&lines, "autoscaler started");
    assert_eq!((&started["level"], &started["dry_run"]), (&Value::from("INFO"), &Value::from(true)));
    assert!(started["timestamp"].as_str().is_some_and(|at| at.ends_with('Z')), "{started}");
    assert!(started["target"].as_str().is_some_and(|target| target.starts_with("swarm::")), "{started}");
}

#[tokio::test]
async fn a_worker_logs_json_by_variable() {
    let server = RedisServer::start();
    let url = server.url();
    let environment = [("REDIS_URL", url.as_str()), ("SWARM_LOG_FORMAT", "json")];
    let lines = logged(&["worker", "--type", "t", "--id", "w1"], &environment, "worker ready").await;
    let ready = with(&lines, "worker ready");
    assert_eq!((&ready["id"], &ready["worker_type"]), (&Value::from("w1"), &Value::from("t")));
}
