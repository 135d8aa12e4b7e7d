//! `swarm doctor` on real servers and with the real autoscaler: each kind of finding that can be brought about.

mod budget;
mod frameworks;
mod places;

use std::{fs, path::Path, process::Output};

use fred::prelude::Client;
use serde_json::Value;

use crate::support::{
    autoscaler::{Autoscaler, FAST_SWEEP, SLEEPER, pool, real_pool, swarm},
    command::{add_jobs, redis},
    needs::repository,
    redis::RedisServer,
    wait::{DEADLINE, eventually},
};

const SCALING: &str = "max_workers = 2, scale_up_threshold = 1, cooldown_seconds = 0";

/// What it found.
struct Report {
    code: Option<i32>,
    json: Value,
}

impl Report {
    fn of(output: &Output) -> Self {
        let json = serde_json::from_slice(&output.stdout);
        let told = || String::from_utf8_lossy(&output.stderr).into_owned();
        Self { code: output.status.code(), json: json.unwrap_or_else(|error| panic!("{error}: {}", told())) }
    }

    /// The findings of an area and level, with their cures.
    fn found(&self, area: &str, level: &str) -> Vec<String> {
        let all = self.json["findings"].as_array().expect("findings are a list").iter();
        let wanted = all.filter(|finding| finding["area"] == area && finding["level"] == level);
        let words = |finding: &Value| {
            format!("{} -> {}", finding["found"].as_str().unwrap(), finding["cure"].as_str().unwrap_or("nothing"))
        };
        wanted.map(words).collect()
    }

    /// Whether such a finding has all of these parts.
    #[track_caller]
    fn has(&self, area: &str, level: &str, parts: &[&str]) {
        let found = self.found(area, level);
        let fits = |text: &&String| parts.iter().all(|part| text.contains(part));
        assert!(found.iter().any(|text| fits(&text)), "no {level} of {area} with {parts:?} in\n{:#}", self.json);
    }
}

/// Asks the doctor about a file in a directory.
fn ask_in(directory: &Path, words: &[&str]) -> Report {
    let file = directory.join("swarm.toml");
    let mut command = swarm(directory);
    Report::of(&command.args(["doctor", "--json", "--config"]).arg(file).args(words).output().unwrap())
}

/// Asks the doctor about a running autoscaler, with its own configuration.
fn ask(scaler: &Autoscaler) -> Report {
    ask_in(scaler.directory(), &["--url", &scaler.url()])
}

/// Asks the doctor about a running autoscaler until the report is as wanted; returns that one.
async fn until_told(scaler: &Autoscaler, what: &str, wanted: impl Fn(&Report) -> bool) -> Report {
    let mut report = ask(scaler);
    let told = eventually(DEADLINE, async || {
        let is_wanted = wanted(&report);
        if !is_wanted {
            report = ask(scaler);
        }
        is_wanted
    });
    assert!(told.await, "not within {DEADLINE:?}: {what}\n{:#}", report.json);
    report
}

/// Asks the doctor about settings without an autoscaler.
fn ask_about(settings: &str) -> Report {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("swarm.toml"), settings).unwrap();
    ask_in(directory.path(), &[])
}

fn alone(server: &RedisServer, more: &str) -> String {
    format!("redis_url = \"{}\"\n[http]\nlisten = \"\"\n{more}", server.url())
}

#[tokio::test]
async fn where_all_is_well_it_says_so() {
    let server = RedisServer::start();
    let settings = format!("{FAST_SWEEP}{}", real_pool("test", "min_workers = 1"));
    let scaler = Autoscaler::start(&server.url(), &settings).await;
    scaler.until_ready().await;
    scaler.until_workers("test", 1).await;
    // Its sign of life is written every two seconds.
    let all_is_well = |report: &Report| report.code == Some(0) && report.json["warnings"] == 0;
    let report = until_told(&scaler, "all is well", all_is_well).await;
    assert_eq!(
        (&report.json["ok"], &report.json["problems"], &report.json["warnings"]),
        (&true.into(), &0.into(), &0.into())
    );
    report.has("redis", "ok", &["redis ", "answers, master, standalone"]);
    report.has("signals", "ok", &["a job is noticed when it comes"]);
    report.has("rights", "ok", &["user `default` has all"]);
    report.has("autoscaler", "ok", &["leads"]);
    report.has("backend", "ok", &["`swarm` can be run"]);
    report.has("queues", "ok", &["1 queue can be read"]);
    report.has("workers", "ok", &["1 worker, all healthy"]);
    report.has("scaling", "ok", &["1 worker type, none held back"]);

    let file = scaler.directory().join("swarm.toml");
    let told =
        swarm(scaler.directory()).args(["doctor", "--url", &scaler.url(), "--config"]).arg(file).output().unwrap();
    let text = String::from_utf8(told.stdout).unwrap();
    assert!(text.contains("\nredis\n  ok       redis ") && text.contains("problems: 0, warnings: 0"), "{text}");
}

#[tokio::test]
async fn without_an_autoscaler_or_redis_the_cause_is_told() {
    let mut server = RedisServer::start();
    let settings = alone(&server, &pool("test", SCALING, SLEEPER));
    let report = ask_about(&settings);
    assert_eq!(report.code, Some(1));
    report.has("autoscaler", "problem", &["none runs on this redis", "start `swarm autoscaler`"]);
    report.has("autoscaler", "problem", &["no autoscaler leads"]);
    report.has("autoscaler", "warning", &["turns the HTTP server off", "--url"]);
    server.kill();
    let report = ask_about(&settings);
    report.has("redis", "problem", &["can't connect to redis at 127.0.0.1:", "check that it runs there"]);
    assert_eq!(report.code, Some(1));

    let server = RedisServer::start_with(&["--requirepass", "secret"]);
    let report =
        ask_about(&format!("redis_url = \"redis://:wrong@127.0.0.1:{}\"\n[worker_types.test]\n", server.port()));
    report.has("redis", "problem", &["refused the user or password"]);
    assert!(!report.json.to_string().contains("wrong@"), "{}", report.json);
}

#[tokio::test]
async fn a_configuration_that_is_wrong_is_the_finding() {
    let report =
        ask_about("redis_url = \"redis://localhost\"\n[scaler]\ndebounce = 5\n[worker_types.a]\nkind = \"heap\"\n");
    assert_eq!((report.code, report.found("configuration", "problem").len()), (Some(1), 2));
    report.has("configuration", "problem", &["swarm.toml:3", "debounce_ms"]);
}

async fn at_queues(client: &Client) {
    let _: u64 = redis(client, "LPUSH list:jobs x").await;
    add_jobs(client, "other:jobs", 3).await;
    let _: String = redis(client, "XGROUP CREATE other:jobs elsewhere 0").await;
    add_jobs(client, "held:jobs", 2).await;
    let _: String = redis(client, "XGROUP CREATE held:jobs held 0").await;
    let _: fred::types::Value = redis(client, "XREADGROUP GROUP held somebody COUNT 2 STREAMS held:jobs >").await;
    let _: String = redis(client, "XADD held:jobs:dead * dead_reason failed").await;
}

#[tokio::test]
async fn queues_of_the_wrong_kind_without_a_group_or_with_stuck_and_dead_jobs_are_found() {
    let server = RedisServer::start();
    let client = server.client().await;
    at_queues(&client).await;
    let types = ["list", "other", "held", "fine"].map(|name| format!("[worker_types.{name}]\n")).concat();
    let report = ask_about(&alone(&server, &types));
    report.has("queues", "problem", &["`list:jobs` of `list` is not a stream", "set `kind`"]);
    report.has("queues", "warning", &["`other:jobs` has entries (3)", "as group `other`", "it is read as elsewhere"]);
    report.has("queues", "warning", &["2 jobs of `held:jobs` held by 1 worker gone since"]);
    report.has("queues", "warning", &["1 job of `held:jobs` given up", "swarm dead list --stream held:jobs"]);
    let found = [report.found("queues", "problem"), report.found("queues", "warning")].concat();
    assert!(found.len() == 4 && !found.concat().contains("fine"), "{found:?}");
}

/// The rights that `docs/redis.md` gives an autoscaler, as one command, for the queues of the test.
fn documented_rights() -> String {
    let text = fs::read_to_string(repository("docs/redis.md")).unwrap();
    let list = text.split("ACL SETUSER scaler").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let list = list.split_whitespace().collect::<Vec<_>>().join(" ");
    format!("ACL SETUSER scaler {}", list.replace("browser:jobs", "test:jobs").replace(">PASSWORD", ">secret"))
}

#[tokio::test]
async fn the_documented_rights_are_enough_and_each_missing_one_is_named_with_its_rule() {
    let server = RedisServer::start();
    let client = server.client().await;
    let _: String = redis(&client, &documented_rights()).await;
    let url = format!("redis://scaler:secret@127.0.0.1:{}", server.port());
    let settings = format!("redis_url = \"{url}\"\n[http]\nlisten = \"\"\n[worker_types.test]\n");
    let report = ask_about(&settings);
    report.has("rights", "ok", &["user `scaler` has all"]);
    report.has("signals", "ok", &["keyspace is unavailable, other sources work", "CONFIG GET"]);
    report.has("signals", "ok", &["tracking: the server announces"]);
    assert_eq!(report.found("rights", "problem"), [""; 0]);

    let _: String =
        redis(&client, "ACL SETUSER scaler -xpending -zcard -xrevrange resetchannels &jobs:published").await;
    let report = ask_about(&settings);
    report.has(
        "rights",
        "problem",
        &["no right to `xpending` on `test:jobs`", "ACL SETUSER scaler +xpending ~test:jobs"],
    );
    report.has("rights", "problem", &["`subscribe` on `worker:events`", "&worker:events"]);
    report.has("rights", "warning", &["delayed jobs are left to the workers", "`zcard` on `test:jobs:delayed`"]);
    report.has("rights", "warning", &["the history is not shown", "`xrevrange` on `scaling:events`"]);
    let changed: u64 = redis(&client, "DBSIZE").await;
    assert_eq!(changed, 0, "looking has changed something");

    let token = settings.replace("listen = \"\"", "listen = \"127.0.0.1:1\"\ntoken = \"0123456789abcdef\"");
    ask_about(&token).has("rights", "problem", &["orders over http fail: no right to `multi`"]);
}

#[tokio::test]
async fn a_full_redis_is_the_finding_and_nobody_is_called_gone() {
    let server = RedisServer::start();
    let client = server.client().await;
    let settings = alone(&server, &format!("[worker_types.test]\nscaling = {{ {SCALING} }}\n"));
    let _: String = redis(&client, "XADD test:jobs * json {}").await;
    let _: String = redis(&client, "XGROUP CREATE test:jobs test 0").await;
    let _: fred::types::Value = redis(&client, "XREADGROUP GROUP test w-1 STREAMS test:jobs >").await;
    let before = ask_about(&settings);
    before.has("autoscaler", "problem", &["none runs on this redis"]);
    let _: String = redis(&client, "CONFIG SET maxmemory 1").await;
    let full = ask_about(&settings);
    full.has("redis", "problem", &["redis is full", "maxmemory"]);
    full.has("redis", "warning", &["% of maxmemory are used", "of 1 B"]);
    full.has("autoscaler", "warning", &["whether an autoscaler runs can't be told", "redis refuses writes (OOM)"]);
    full.has("queues", "warning", &["held by 1 worker without a heartbeat", "redis refuses writes"]);
    assert!(!full.json.to_string().contains("none runs"), "{:#}", full.json);
    assert!(!full.json.to_string().contains("gone since"), "{:#}", full.json);
    let _: String = redis(&client, "CONFIG SET maxmemory 1gb").await;
    let _: String = redis(&client, "CONFIG SET maxmemory-policy allkeys-lru").await;
    ask_about(&settings).has("redis", "warning", &["maxmemory-policy is allkeys-lru", "noeviction"]);
}

#[tokio::test]
async fn a_running_autoscaler_says_that_redis_refuses_writes_until_it_takes_them() {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaler = Autoscaler::start(&server.url(), &pool("test", SCALING, SLEEPER)).await;
    scaler.until_ready().await;
    let _: String = redis(&client, "CONFIG SET maxmemory 1").await;
    scaler.until("it is refused", async || scaler.status().await.redis_refuses_writes.is_some()).await;
    let (ready, body) = scaler.readyz().await;
    assert!(!ready && body.contains("redis refuses writes: OOM"), "{body}");
    assert!((scaler.metric("swarm_redis_writes_refused").await - 1.0).abs() < f64::EPSILON);
    let report = ask(&scaler);
    report.has("autoscaler", "problem", &["redis refuses its writes: OOM"]);
    let shown = swarm(scaler.directory()).args(["status", "--url", &scaler.url()]).output().unwrap();
    assert!(String::from_utf8_lossy(&shown.stdout).contains("redis    REFUSES WRITES: OOM"), "{shown:?}");
    let _: String = redis(&client, "CONFIG SET maxmemory 0").await;
    scaler.until("it is taken", async || scaler.status().await.redis_refuses_writes.is_none()).await;
    scaler.until_ready().await;
    assert!(scaler.metric("swarm_redis_writes_refused").await.abs() < f64::EPSILON);
}

#[tokio::test]
async fn a_redis_without_its_replicas_refuses_writes_and_the_cure_is_named() {
    let server = RedisServer::start();
    let client = server.client().await;
    let settings = alone(&server, "[worker_types.test]\n");
    let _: String = redis(&client, "CONFIG SET min-replicas-to-write 1").await;
    ask_about(&settings).has("redis", "problem", &["too few replicas", "min-replicas-to-write"]);
}

#[tokio::test]
async fn a_group_that_nobody_reads_is_named_with_what_it_pins_and_the_cure() {
    let server = RedisServer::start();
    let client = server.client().await;
    let settings = alone(&server, "[worker_types.test]\n");
    for command in ["XGROUP CREATE test:jobs debug-7f3a 0 MKSTREAM", "XGROUP CREATE test:jobs test 0"] {
        let _: String = redis(&client, command).await;
    }
    add_jobs(&client, "test:jobs", 40).await;
    let _: fred::types::Value = redis(&client, "XREADGROUP GROUP test w-1 COUNT 30 NOACK STREAMS test:jobs >").await;
    let parts = ["group `debug-7f3a` of `test:jobs`", "no consumer", "lags by 40 entries", "30 entries that are done"];
    let report = ask_about(&settings);
    report.has("queues", "warning", &[&parts[..], &["XGROUP DESTROY test:jobs debug-7f3a", "about "]].concat());
    // One that reads is let be, however far behind it is.
    let _: fred::types::Value = redis(&client, "XREADGROUP GROUP debug-7f3a c COUNT 1 STREAMS test:jobs >").await;
    let found = ask_about(&settings).found("queues", "warning").join("\n");
    assert!(!found.contains("debug-7f3a"), "{found}");
}

#[tokio::test]
async fn every_named_queue_is_looked_at_and_what_patterns_find_is_counted() {
    let server = RedisServer::start();
    let client = server.client().await;
    let _: u64 = redis(&client, "LPUSH urgent:jobs x").await;
    for tenant in 0..3 {
        add_jobs(&client, &format!("tenant-{tenant}:jobs"), 1).await;
    }
    let queues = "[worker_types.test]\nextra_queues = [\"urgent:jobs\", \"tenant-*:jobs\"]\n";
    let report = ask_about(&alone(&server, queues));
    report.has("queues", "problem", &["`urgent:jobs` of `test` is not a stream"]);
    report.has("queues", "ok", &["the pattern `tenant-*:jobs` of `test` finds 3 queues"]);

    // Channel patterns are granted letter by letter.
    let more = " ~urgent:jobs ~urgent:jobs:delayed %R~urgent:jobs:dead ~tenant-*:jobs";
    let _: String = redis(&client, &format!("{}{more}", documented_rights())).await;
    let url = format!("redis://scaler:secret@127.0.0.1:{}", server.port());
    let settings = format!("redis_url = \"{url}\"\n[http]\nlisten = \"\"\n{queues}");
    let pattern = "&__keyspace@0__:tenant-*:jobs";
    ask_about(&settings).has("rights", "warning", &["`psubscribe`", "ACL SETUSER scaler +psubscribe", pattern]);
    let _: String = redis(&client, &format!("ACL SETUSER scaler {pattern}")).await;
    ask_about(&settings).has("rights", "ok", &["user `scaler` has all"]);
    let _: String = redis(&client, "ACL SETUSER scaler -scan").await;
    let report = ask_about(&settings);
    report.has("rights", "problem", &["no right to `scan`", "+scan"]);
    report.has("queues", "problem", &["`tenant-*:jobs` of `test` can't be searched for", "+scan"]);
}

#[tokio::test]
async fn what_does_not_wake_the_autoscaler_is_told() {
    let server = RedisServer::start();
    let types = pool("test", SCALING, SLEEPER);
    let off = "[signals]\nkeyspace = \"off\"\nchannel = \"\"\ntracking = \"off\"\n";
    let report = ask_about(&alone(&server, &format!("{off}{types}")));
    report.has("signals", "problem", &["nothing wakes the autoscaler but the sweep"]);
    let channel = "[signals]\nkeyspace = \"off\"\ntracking = \"off\"\n";
    let report = ask_about(&alone(&server, &format!("{channel}{types}")));
    report.has("signals", "warning", &["only messages on `jobs:published`"]);
    // A server that lets nobody ask for its settings.
    let strict = RedisServer::start_with(&["--rename-command", "CONFIG", ""]);
    let report = ask_about(&alone(&strict, &format!("[signals]\nkeyspace = \"on\"\n{types}")));
    report.has("signals", "problem", &["CONFIG GET notify-keyspace-events", "`signals.keyspace = \"on\"` insists"]);
}

#[tokio::test]
async fn a_program_that_is_not_there_is_found_before_it_is_needed() {
    let server = RedisServer::start();
    let command = "[worker_types.test.process]\ncommand = [\"no-such-program\"]\n";
    let report = ask_about(&alone(&server, command));
    report.has("backend", "problem", &["program `no-such-program`", "was not found; install it"]);
    let docker = format!("redis_url = \"{}\"\norchestrator = \"docker\"\n[worker_types.test]\n", server.url());
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("swarm.toml"), docker).unwrap();
    let mut doctor = swarm(directory.path());
    doctor.env("DOCKER_HOST", "unix:///not/there.sock").args(["doctor", "--json"]);
    Report::of(&doctor.output().unwrap()).has("backend", "problem", &["docker engine", "start the engine"]);
    let mut doctor = swarm(directory.path());
    doctor.env("DOCKER_HOST", "ssh://there").args(["doctor", "--json"]);
    Report::of(&doctor.output().unwrap()).has("backend", "problem", &["DOCKER_HOST=\"ssh://there\" names no engine"]);
}

#[tokio::test]
async fn what_people_said_and_what_holds_a_pool_is_told() {
    let server = RedisServer::start();
    let client = server.client().await;
    let slow = real_pool("slow", "min_workers = 1, start_grace_seconds = 1")
        .replace("worker = {", "process = { command = [\"sleep\", \"1000\"] }\nworker = {");
    let types = format!(
        "{}{}{slow}{}",
        pool("paused", SCALING, SLEEPER),
        pool("crashing", "min_workers = 1", "exit 3"),
        pool("none", "max_workers = 0", SLEEPER)
    );
    let scaler = Autoscaler::start(&server.url(), &format!("{FAST_SWEEP}{types}")).await;
    scaler.until_ready().await;
    let file = scaler.directory().join("swarm.toml");
    let paused = swarm(scaler.directory()).env("USER", "ann").args(["pause", "paused", "--config"]).arg(file).output();
    assert!(paused.unwrap().status.success());
    let _: u64 = redis(&client, "HSET worker:heartbeat:nobody:x state ERROR").await;
    let report = until_told(&scaler, "what holds the pools", |report| {
        let found = |area, level, name: &str| report.found(area, level).iter().any(|text| text.contains(name));
        found("scaling", "warning", "`paused`")
            && found("workers", "problem", "`crashing`")
            && found("workers", "problem", "`slow`")
    })
    .await;
    report.has("scaling", "warning", &["`paused` is paused by ann@", "`swarm resume paused` ends it"]);
    report.has("scaling", "warning", &["`none` gets no worker: its maximum is 0"]);
    report.has("workers", "problem", &["`crashing`", "exit code 3"]);
    report.has("workers", "problem", &["`slow`", "not ready within start_grace_seconds", "heartbeats = false"]);
    assert_eq!(report.code, Some(1));

    // Without http it tells what Redis knows.
    let report = ask_in(scaler.directory(), &["--url", "http://127.0.0.1:1"]);
    report.has("scaling", "warning", &["`paused` is paused by ann@"]);
    report.has("autoscaler", "warning", &["no autoscaler is running at http://127.0.0.1:1"]);
}

#[tokio::test]
async fn a_warning_fails_only_if_it_is_asked_to() {
    let server = RedisServer::start();
    let settings = format!("{FAST_SWEEP}{}", pool("test", SCALING, SLEEPER));
    let scaler = Autoscaler::start(&server.url(), &settings).await;
    scaler.until_ready().await;
    scaler.until("all is well", async || ask(&scaler).code == Some(0)).await;
    let client = server.client().await;
    let _: String = redis(&client, "XADD test:jobs:dead * dead_reason failed").await;
    let report = ask(&scaler);
    assert_eq!((report.code, &report.json["warnings"]), (Some(0), &1.into()));
    let strict = ask_in(scaler.directory(), &["--strict", "--url", &scaler.url()]);
    assert_eq!((strict.code, &strict.json["ok"]), (Some(1), &false.into()));
}

#[tokio::test]
async fn a_dry_run_and_a_standby_are_told_from_a_leader() {
    let server = RedisServer::start();
    let types = pool("test", SCALING, SLEEPER);
    let observer = Autoscaler::start_with(&server.url(), &types, &["--dry-run"]).await;
    let report = ask(&observer);
    report.has("autoscaler", "warning", &["it only decides and changes nothing"]);
    report.has("autoscaler", "problem", &["no autoscaler leads"]);
    let more = format!("{types}{}", pool("more", SCALING, SLEEPER));
    fs::write(observer.directory().join("swarm.toml"), alone(&server, &more)).unwrap();
    ask(&observer).has("autoscaler", "warning", &["it does not know of `more`"]);
}

#[tokio::test]
async fn whether_pages_run_in_chromiums_sandbox_is_told() {
    let server = RedisServer::start();
    let client = server.client().await;
    let told = |settings: &str| ask_about(&alone(&server, settings));
    let types = "[worker_types.browser]\n[worker_types.web]\nworker = { handler = \"browser\" }\n\
                 browser = { no_sandbox = true }\n[worker_types.mail]\n";
    let report = told(types);
    report.has("workers", "ok", &["`browser`: pages will run in Chromium's own sandbox, or not at all"]);
    report.has("workers", "warning", &["`web`: pages will run without", "`no_sandbox = true`", "docs/browser.md"]);
    assert!(!report.found("workers", "ok").join("\n").contains("mail"));

    let _: String = redis(&client, "XGROUP CREATE browser:jobs browser 0 MKSTREAM").await;
    for (worker, sandbox) in [("w1", "1"), ("w2", "1"), ("w3", "0"), ("w4", "")] {
        let _: u64 = redis(&client, &format!("XGROUP CREATECONSUMER browser:jobs browser {worker}")).await;
        let field = if sandbox.is_empty() { "state IDLE".to_owned() } else { format!("sandbox {sandbox}") };
        let _: u64 = redis(&client, &format!("HSET worker:heartbeat:browser:{worker} {field}")).await;
    }
    told(types).has("workers", "warning", &["`browser`: 1 worker run pages without Chromium's own sandbox, 2 with it"]);
    let _: u64 = redis(&client, "DEL worker:heartbeat:browser:w3").await;
    told(types).has("workers", "ok", &["`browser`: 2 workers run pages in Chromium's own sandbox"]);
}
