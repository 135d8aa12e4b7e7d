//! `swarm dead` and the ways to publish, as people use them.

use std::{path::Path, process::Stdio, time::Duration};

use fred::prelude::Client;
use serde_json::{Value, json};

use crate::support::{
    autoscaler::{Autoscaler, FAST_SWEEP, SLEEPER, pool, swarm},
    command::redis as command,
    redis::RedisServer,
    wait::{DEADLINE, eventually},
    worker::WorkerProcess,
};

/// What the command writes to its standard output, and whether it succeeded.
fn run(server: &RedisServer, directory: &Path, words: &[&str]) -> (bool, String) {
    let mut swarm = swarm(directory);
    swarm.args(words).env("REDIS_URL", server.url()).env("CUSTOM_WORKER_TYPES", "t").stdin(Stdio::null());
    let output = swarm.output().unwrap();
    let both = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(both).unwrap())
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
}

/// Two dead jobs and one entry that is none.
async fn bury_some(client: &Client) {
    for (id, job_type) in [("a", "t.echo"), ("b", "t.sleep")] {
        let job = json!({"id": id, "type": job_type, "attempt": 2}).to_string();
        let fields = "dead_reason failed dead_error no-such-page dead_entry 5-0 dead_group t dead_attempts 3";
        let _: String = command(client, &format!("XADD t:jobs:dead * json {job} {fields}")).await;
    }
    let fields = "dead_reason malformed dead_error no-job dead_entry 6-0 dead_group t dead_attempts 0";
    let _: String = command(client, &format!("XADD t:jobs:dead * json nonsense {fields}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_shown_put_back_and_dropped() {
    let server = RedisServer::start();
    let client = server.client().await;
    let directory = tempfile::tempdir().unwrap();
    let dead = |words: &[&str]| run(&server, directory.path(), &[&["dead"], words].concat());
    assert_eq!(dead(&["list"]), (true, "no dead letters\n".to_owned()));
    bury_some(&client).await;
    let config = directory.path().join("elsewhere.toml");
    std::fs::write(&config, "[worker_types.t]\n").unwrap();
    let config = config.to_str().unwrap();
    for words in [["--config", config, "list"], ["list", "--config", config]] {
        let (ok, table) = dead(&words);
        assert!(ok && table.contains("t.echo"), "{words:?}: {table}");
    }
    let (ok, told) = dead(&["list", "--redis-url", "redis://127.0.0.1:1/0"]);
    assert!(!ok && told.contains("127.0.0.1:1"), "{told}");

    let (_, table) = dead(&["list"]);
    for word in ["LAST ERROR", "t:jobs", "t.echo", "no-such-page", "malformed"] {
        assert!(table.contains(word), "`{word}` is missing in\n{table}");
    }
    let listed = json_lines(&dead(&["list", "--type", "t.echo", "--json"]).1);
    assert_eq!((listed.len(), &listed[0]["id"], &listed[0]["attempts"]), (1, &json!("a"), &json!(3)));
    assert_eq!(json_lines(&dead(&["list", "--type", "t", "--json"]).1).len(), 2);

    let (ok, told) = dead(&["retry"]);
    assert!(!ok && told.contains("--all"), "{told}");
    let (ok, told) = dead(&["retry", "nobody"]);
    assert!(!ok && told.contains("no such dead letter"), "{told}");
    assert_eq!(dead(&["retry", "a"]), (true, "put back: 1\n".to_owned()));
    let jobs: Vec<(String, Vec<String>)> = command(&client, "XRANGE t:jobs - +").await;
    let job: Value = serde_json::from_str(&jobs[0].1[1]).unwrap();
    assert_eq!((jobs.len(), &job["id"], job.get("attempt")), (1, &json!("a"), None));

    let (ok, told) = dead(&["retry", "--all", "--json"]);
    let outcomes: Vec<Value> = json_lines(&told).into_iter().map(|line| line["outcome"].clone()).collect();
    assert_eq!((ok, outcomes), (false, vec![json!("retried"), json!("no_job")]));
    assert_eq!(dead(&["drop", "--stream", "t:jobs", "--all"]), (true, "dropped: 1\n".to_owned()));
    assert_eq!(command::<u64>(&client, "XLEN t:jobs:dead").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_published_once_or_later() {
    let server = RedisServer::start();
    let client = server.client().await;
    let directory = tempfile::tempdir().unwrap();
    let publish =
        |words: &[&str]| run(&server, directory.path(), &[&["publish", "t.echo", "x", "--json"], words].concat());
    let first = json_lines(&publish(&["--key", "order-1"]).1).remove(0);
    let second = json_lines(&publish(&["--key", "order-1"]).1).remove(0);
    assert!(first["entry"].is_string(), "{first}");
    assert_eq!(second["duplicate_of"], first["id"]);
    let delayed = json_lines(&publish(&["--delay", "60", "--deadline", "90", "--session", "s"]).1).remove(0);
    assert!(delayed["due"].is_u64(), "{delayed}");
    let aside: Vec<String> = command(&client, "ZRANGE t:jobs:delayed 0 -1").await;
    let job: Value = serde_json::from_str(&aside[0]).unwrap();
    let between = job["deadline_ts"].as_f64().unwrap() - job["not_before_ts"].as_f64().unwrap();
    assert!((between - 30.0).abs() < 1.0 && job["session"] == "s", "{job}");
    assert_eq!(command::<u64>(&client, "XLEN t:jobs").await, 1);

    let began = std::time::Instant::now();
    let (ok, told) = publish(&["--delay", "60", "--wait", "--timeout", "0.2"]);
    assert!(!ok && told.contains("the job is delayed: it is due in") && told.contains("no autoscaler"), "{told}");
    assert!(began.elapsed() >= Duration::from_millis(200));
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_read_in_pages() {
    let server = RedisServer::start();
    let client = server.client().await;
    let directory = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        bury_some(&client).await;
    }
    let mut seen = Vec::new();
    let mut after = Vec::new();
    loop {
        let words = [&["dead", "list", "--json", "--limit", "4"][..], &after].concat();
        let page = json_lines(&run(&server, directory.path(), &words).1);
        let Some(last) = page.last() else { break };
        after = vec!["--after", String::leak(last["entry"].as_str().unwrap().to_owned())];
        seen.extend(page);
    }
    let entries: std::collections::BTreeSet<String> = seen.iter().map(|letter| letter["entry"].to_string()).collect();
    assert_eq!((seen.len(), entries.len()), (6, 6));
    let (ok, told) = run(&server, directory.path(), &["dead", "list", "--after", "x"]);
    assert!(!ok && told.contains("1763896658250-0"), "{told}");
}

/// By default nothing is dropped; a number and an age each drop the oldest ones, which is counted and said.
#[tokio::test]
async fn dead_letters_beyond_the_limits_are_dropped_and_that_is_said() {
    for (limit, left) in [("", 6_u64), ("dead_letters_max = 4", 4), ("dead_letters_max_age_seconds = 3600", 3)] {
        let server = RedisServer::start();
        let client = server.client().await;
        for id in ["1-0", "2-0", "3-0"] {
            let _: String = command(&client, &format!("XADD t:jobs:dead {id} json nonsense")).await;
        }
        bury_some(&client).await;
        let settings = format!("[broker]\n{limit}\n[worker_types.t.worker]\nheartbeat_seconds = 1\n");
        let worker = WorkerProcess::start_with(&server.url(), "w1", &settings);
        let length = async || command::<u64>(&client, "XLEN t:jobs:dead").await;
        if limit.is_empty() {
            // Trimmed a few times: a heartbeat later than the first one shows that time passed.
            let later = async || {
                let heartbeat = worker.heartbeat(&client).await;
                heartbeat.get("uptime_seconds").is_some_and(|up| up.parse::<f64>().unwrap() >= 3.0)
            };
            assert!(eventually(DEADLINE, later).await, "{}", worker.log());
            assert_eq!(length().await, left);
        } else {
            assert!(eventually(DEADLINE, async || length().await == left).await, "{limit}: {}", worker.log());
            let said = async || worker.log().contains("dead letters dropped");
            assert!(eventually(DEADLINE, said).await, "{limit}: {}", worker.log());
        }
    }
}

/// Each worker type's dead letters are counted, those of queues found by patterns too. What can't be counted is absent.
#[tokio::test]
async fn the_autoscaler_shows_how_many_dead_letters_there_are() {
    let server = RedisServer::start();
    let client = server.client().await;
    bury_some(&client).await;
    let _: String = command(&client, "XADD tenant-a:jobs:dead * json nonsense").await;
    let pools = ["t", "broken"].map(|name| pool(name, "max_workers = 0", SLEEPER));
    let settings = format!("{FAST_SWEEP}{}extra_queues = [\"tenant-*:jobs\"]\n{}", pools[0], pools[1]);
    let scaler = Autoscaler::start(&server.url(), &settings).await;
    let until = async |worker_type: &str, number: Option<f64>| {
        let series = format!("swarm_dead_letters{{worker_type=\"{worker_type}\"}}");
        let is = async || scaler.sample(&series).await == number;
        scaler.until(&format!("{worker_type} has {number:?} dead letters"), is).await;
    };
    until("t", Some(4.0)).await;
    until("broken", Some(0.0)).await;
    let _: u64 = command(&client, "DEL t:jobs:dead").await;
    until("t", Some(1.0)).await;
    let _: String = command(&client, "SET broken:jobs:dead x").await;
    until("broken", None).await;
    until("t", Some(1.0)).await;
    let _: u64 = command(&client, "DEL broken:jobs:dead").await;
    until("broken", Some(0.0)).await;
}

/// A program that prints the job it got: its error has no masked argument, wherever it is read. A retry has them.
#[tokio::test]
async fn masked_arguments_are_in_no_error() {
    let server = RedisServer::start();
    let client = server.client().await;
    let settings = "[worker_types.t]\nworker = { heartbeat_seconds = 1, exec = [\"sh\", \"-c\", \"cat >&2; exit 3\"] }\n\
                    jobs = { masked_arguments = [\"password\", \"1\"] }\n";
    let worker = WorkerProcess::start_with(&server.url(), "w1", settings);
    let run = |words: &[&str]| run(&server, worker.directory(), words);
    let arguments = ["t.work", "shown-1", "hidden-1", "--kwargs", r#"{"password":"hidden-2","user":"shown-2"}"#];
    let published = json_lines(&run(&[&["publish", "--json"], &arguments[..]].concat()).1).remove(0);
    let id = published["id"].as_str().unwrap();
    let buried = async || command::<u64>(&client, "XLEN t:jobs:dead").await == 1;
    assert!(eventually(DEADLINE, buried).await, "{}", worker.log());
    let logged = async || worker.log().contains("job buried");
    assert!(eventually(DEADLINE, logged).await, "{}", worker.log());

    let (_, answered) = run(&[&["publish", "--wait", "--timeout", "60"], &arguments[..]].concat());
    let seen =
        [worker.log(), run(&["job", id]).1, run(&["dead", "list"]).1, run(&["dead", "list", "--json"]).1, answered];
    for text in seen {
        assert!(text.contains("***") && !text.contains("hidden-"), "{text}");
        assert!(text.contains("shown-1") && text.contains("shown-2"), "{text}");
    }
    let kept: Vec<(String, std::collections::HashMap<String, String>)> =
        command(&client, "XRANGE t:jobs:dead - +").await;
    let job: Value = serde_json::from_str(&kept[0].1["json"]).unwrap();
    assert_eq!((&job["args"], &job["kwargs"]["password"]), (&json!(["shown-1", "hidden-1"]), &json!("hidden-2")));
}
