//! `swarm record` on real streams, and what `swarm simulate` makes of it beside the real autoscaler.

use std::fs;

use serde_json::Value;

use crate::support::{
    autoscaler::{Autoscaler, FAST_SWEEP, real_pool, swarm},
    command::{records, redis},
    recorder::{Recorder, rows},
    redis::RedisServer,
    wait::{DEADLINE, eventually},
};

#[tokio::test]
async fn what_is_on_a_stream_is_recorded_with_the_least_rights_and_nothing_is_changed() {
    let server = RedisServer::start();
    let client = server.client().await;
    let directory = tempfile::tempdir().unwrap();
    for id in ["1700000000000-0", "1700000000000-1", "1700000000250-0"] {
        let _: String = redis(&client, &format!("XADD test:jobs {id} json {{}}")).await;
    }
    let rights = "ACL SETUSER recorder on >secret resetchannels -@all %R~test:jobs %R~none:jobs \
                  +xrange +xinfo|groups +xpending +time +hello +client|setname";
    let _: String = redis(&client, rights).await;
    let settings = "[worker_types.test]\n[worker_types.none]\n[worker_types.old]\nkind = \"list\"\n";
    fs::write(directory.path().join("swarm.toml"), settings).unwrap();
    let url = format!("redis://recorder:secret@127.0.0.1:{}/0", server.port());
    let output = swarm(directory.path()).args(["record", "--redis-url", &url]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    let expected = "arrival_ms,worker_type,service_ms\n\
                    1700000000000,test,\n1700000000000,test,\n1700000000250,test,\n";
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    assert!(told.contains("test: 3 jobs") && told.contains("none: 0 jobs"), "{told}");
    let groups: Vec<Value> = fred_values(&client, "XINFO GROUPS test:jobs").await;
    assert!(groups.is_empty(), "it made no group: {groups:?}");

    let list = swarm(directory.path()).args(["record", "--redis-url", &url, "--type", "old"]).output().unwrap();
    let told = String::from_utf8_lossy(&list.stderr).into_owned();
    assert!(list.status.code() == Some(1) && told.contains("only streams"), "{told}");
    let _: String = redis(&client, "ACL SETUSER recorder -xrange").await;
    let refused = swarm(directory.path()).args(["record", "--redis-url", &url]).output().unwrap();
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && told.contains("docs/redis.md"), "{told}");
}

async fn fred_values(client: &fred::prelude::Client, command: &str) -> Vec<Value> {
    let values: Vec<fred::types::Value> = redis(client, command).await;
    values.into_iter().map(|value| Value::from(format!("{value:?}"))).collect()
}

#[tokio::test]
async fn a_recorder_outlives_a_restart_of_redis() {
    let mut server = RedisServer::start();
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("swarm.toml"), "[worker_types.test]\n").unwrap();
    let recorder = Recorder::start(directory.path(), &["--redis-url", &server.url(), "--since", "1h"]);
    let add = async |server: &RedisServer| {
        let client = server.client().await;
        let _: String = redis(&client, "XADD test:jobs * json {}").await;
        // Done at once, so that it is written at once.
        let _: Option<String> = redis(&client, "XGROUP CREATE test:jobs test 0").await;
        crate::support::command::work_off(&client, "test:jobs", "test").await;
    };
    let written = || rows(directory.path(), "test").len();
    add(&server).await;
    assert!(eventually(DEADLINE, async || written() == 1).await, "the first job is recorded");
    server.restart();
    add(&server).await;
    assert!(eventually(DEADLINE, async || written() == 2).await, "the second job is recorded");
    assert_eq!(recorder.stop(directory.path(), "test").await.len(), 2);
}

/// The most workers wanted between two times at which there was none.
fn peaks(targets: &[u64]) -> Vec<u64> {
    let peaks = targets.split(|target| *target == 0).filter_map(|wanted| wanted.iter().max().copied());
    peaks.collect()
}

#[tokio::test]
async fn a_simulation_of_what_was_recorded_scales_as_the_autoscaler_did() {
    const SCALING: &str = "max_workers = 6, scale_up_threshold = 2, cooldown_seconds = 2";
    let server = RedisServer::start();
    // The end of a job is no signal: the sweep sees that workers are idle.
    let settings = format!("{FAST_SWEEP}{}", real_pool("test", SCALING));
    let scaler = Autoscaler::start(&server.url(), &settings).await;
    scaler.until_ready().await;
    let recorder = Recorder::start(scaler.directory(), &["--since", "1m"]);
    let run = |words: &[&str]| {
        let output = swarm(scaler.directory()).args(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    scaler.until("the recorder records", async || scaler.directory().join("trace.csv").exists()).await;
    // Each burst has all its jobs at once and comes to a pool that sleeps: the second one 3 s after it fell asleep.
    let last_target = async || scaler.of("test").await.last_change.map(|change| change.to);
    run(&["publish", "test.sleep", "1", "--count", "8"]);
    scaler.until("it woke", async || last_target().await > Some(0)).await;
    scaler.until("it sleeps", async || last_target().await == Some(0)).await;
    run(&["publish", "test.sleep", "1.5", "--count", "3", "--delay", "3"]);
    scaler.until("it woke again", async || last_target().await > Some(0)).await;
    scaler.until("it sleeps again", async || last_target().await == Some(0)).await;
    let client = server.client().await;
    let is_told = async || records(&client, "test").await.last().is_some_and(|last| last["to_count"] == "0");
    scaler.until("the last change is in the history", is_told).await;

    let trace = recorder.stop(scaler.directory(), "test").await;
    assert_eq!(trace.len(), 11, "{trace:?}");
    let known: Vec<f64> = trace.iter().filter_map(|row| row.service).map(|took| took.as_secs_f64()).collect();
    // A look that came late on a busy machine may miss some.
    assert!(!known.is_empty() && known.iter().all(|took| (0.8..DEADLINE.as_secs_f64()).contains(took)), "{known:?}");
    let events = run(&["events", "--json", "--count", "1000"]);
    let events = events.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let real: Vec<u64> = events.map(|event| event["to_count"].as_u64().unwrap()).collect();
    let told: Value = serde_json::from_str(&run(&["simulate", "trace.csv", "--json"])).unwrap();
    let changes = told["runs"][0]["changes"].as_array().unwrap();
    let simulated: Vec<u64> = changes.iter().map(|change| change["to"].as_u64().unwrap()).collect();
    assert_eq!(told["runs"][0]["finished"], 11);
    // Eight jobs and then three, at two for each worker.
    assert_eq!(peaks(&simulated), peaks(&real), "real {real:?}, simulated {simulated:?}");
    assert_eq!((simulated.last(), real.last()), (Some(&0), Some(&0)));
    assert_eq!(peaks(&real), [4, 2], "{real:?}");
}
