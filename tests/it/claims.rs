//! Who a job belongs to: a worker that lives keeps its jobs through any outage of Redis, and whatever a group holds
//! besides, jobs are taken at once. On the real binary and a real `redis-server`.

use std::{collections::HashMap, fs, path::PathBuf, time::Duration};

use fred::{
    interfaces::{ClientLike, ListInterface, StreamsInterface},
    prelude::Client,
    types::{ClusterHash, CustomCommand, Value},
};
use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::support::{
    command::{answers, pending, redis, waiting_and_pending},
    processes::with_variable,
    redis::RedisServer,
    wait::{DEADLINE, eventually},
    worker::WorkerProcess,
};

/// Longer than the lapse of a worker whose heartbeat interval is a second.
const OUTAGE: Duration = Duration::from_secs(6);

/// A program for jobs that says in a file that it has begun, and ends when another file is there.
struct Program {
    directory: TempDir,
}

impl Program {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Settings of workers that run it, one job at a time.
    fn settings(&self, more: &str) -> String {
        let (begun, end) = (self.file("begun"), self.file("end"));
        let script = format!(
            "echo $SWARM_WORKER_ID >> {}; while [ ! -e {} ]; do sleep 0.05; done; echo 1",
            begun.display(),
            end.display()
        );
        format!(
            "[worker_types.t.worker]\nheartbeat_seconds = 1\nhandler = \"exec\"\nexec = [\"sh\", \"-c\", {}]\n{more}",
            json!(script)
        )
    }

    /// The workers that have begun it, in their order.
    fn begun(&self) -> Vec<String> {
        fs::read_to_string(self.file("begun")).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    fn let_end(&self) {
        fs::write(self.file("end"), "").unwrap();
    }
}

async fn publish(client: &Client, id: &str, job_type: &str) {
    let job = json!({"id": id, "type": job_type, "args": [], "reply_to": format!("result:{id}")});
    let _: String = client.xadd("t:jobs", false, None, "*", ("json", job.to_string())).await.unwrap();
}

async fn answered(client: &Client, id: &str) -> bool {
    client.llen::<u64, _>(format!("result:{id}")).await.unwrap() > 0
}

/// One worker at work and three without, then an outage, then a while in which the others could take the job.
async fn a_running_job_is_begun_once(options: &[&str], outage: impl AsyncFnOnce(&mut RedisServer)) {
    let mut server = RedisServer::start_with(options);
    let program = Program::new();
    let settings = program.settings("");
    let workers: Vec<_> =
        (1..=4).map(|n| WorkerProcess::start_with(&server.url(), &format!("w{n}"), &settings)).collect();
    let client = server.client().await;
    for worker in &workers {
        worker.until_state(&client, "IDLE").await;
    }
    publish(&client, "j", "t.run").await;
    assert!(eventually(DEADLINE, async || program.begun().len() == 1).await);
    outage(&mut server).await;
    let client = server.client().await;
    let holder = &workers[program.begun()[0][1..].parse::<usize>().unwrap() - 1];
    holder.until_state(&client, "BUSY").await;
    // The time in which a survivor takes over the job of a dead worker, and as much again.
    sleep(OUTAGE).await;
    program.let_end();
    assert!(eventually(DEADLINE, async || answered(&client, "j").await).await, "{}", holder.log());
    assert_eq!(program.begun().len(), 1, "begun by {:?}; the log of the first:\n{}", program.begun(), holder.log());
    assert_eq!(answers(&client, "j").await.len(), 1);
}

#[tokio::test]
async fn a_running_job_is_begun_once_across_a_planned_restart_of_redis() {
    a_running_job_is_begun_once(&["--save", "3600 1"], async |server| {
        server.terminate();
        sleep(OUTAGE).await;
        server.start_again();
    })
    .await;
}

#[tokio::test]
async fn a_running_job_is_begun_once_across_a_time_in_which_redis_answers_nobody() {
    a_running_job_is_begun_once(&[], async |server| {
        server.stop();
        sleep(OUTAGE).await;
        server.cont();
    })
    .await;
}

#[tokio::test]
async fn leaked_consumers_of_any_name_hold_up_no_job() {
    const LEAKED: usize = 500_000;
    let server = RedisServer::start();
    let client = server.client().await;
    let _: String = redis(&client, "XGROUP CREATE t:jobs t 0 MKSTREAM").await;
    publish(&client, "left", "t.echo").await;
    // Names are any bytes. This one is gone and has left a job.
    let read = r"return redis.call('XREADGROUP','GROUP','t','\xfa\xff','STREAMS',KEYS[1],'>')";
    let leak = format!("for i=1,{LEAKED} do redis.call('XGROUP','CREATECONSUMER',KEYS[1],'t','pod-'..i) end");
    for script in [read, &leak] {
        let script = script.replace(r"\xfa\xff", "\\250\\255");
        let eval = CustomCommand::new("EVAL", ClusterHash::FirstKey, false);
        let _: Value = client.custom(eval, vec![script.as_str(), "1", "t:jobs"]).await.unwrap();
    }
    let settings = "[worker_types.t.worker]\nheartbeat_seconds = 1\n";
    let worker = WorkerProcess::start_with(&server.url(), "w1", settings);
    worker.until_state(&client, "IDLE").await;
    publish(&client, "first", "t.echo").await;
    assert!(eventually(DEADLINE, async || answered(&client, "first").await).await, "{}", worker.log());
    // Recovery goes on behind it, and reaches the job of the one with that name.
    assert!(eventually(DEADLINE, async || answered(&client, "left").await).await, "{}", worker.log());
    publish(&client, "last", "t.echo").await;
    assert!(eventually(DEADLINE, async || answered(&client, "last").await).await, "{}", worker.log());
    assert!(!worker.log().contains("can't take jobs"), "{}", worker.log());
    let groups: Vec<HashMap<String, Value>> = redis(&client, "XINFO GROUPS t:jobs").await;
    assert!(groups[0]["consumers"].as_u64().unwrap() > LEAKED as u64);
}

async fn set(client: &Client, option: &str, value: &str) {
    let _: String = redis(client, &format!("CONFIG SET {option} {value}")).await;
}

#[tokio::test]
async fn a_full_redis_is_worked_off_by_the_workers_that_run_and_by_new_ones() {
    const JOBS: usize = 50;
    let server = RedisServer::start();
    let client = server.client().await;
    let mut first = WorkerProcess::start(&server.url(), "w1", "heartbeat_seconds = 3");
    first.until_state(&client, "IDLE").await;
    for number in 0..JOBS {
        let job = json!({"id": number.to_string(), "type": "t.sleep", "args": [0.3]});
        let _: String = client.xadd("t:jobs", false, None, "*", ("json", job.to_string())).await.unwrap();
    }
    let left = async || {
        let (waiting, pending) = waiting_and_pending(&client, "t:jobs").await.expect("a worker has made the group");
        waiting + pending
    };
    // A full Redis refuses a new group.
    assert!(eventually(DEADLINE, async || waiting_and_pending(&client, "t:jobs").await.is_some()).await);
    set(&client, "maxmemory", "1").await;
    let before = left().await;
    assert!(before > 30, "{before} are left: Redis was full too late");
    assert!(eventually(DEADLINE, async || left().await <= before - 5).await, "{}", first.log());
    // Its heartbeat can't be written, and is kept: it has longer to live than it had a moment ago.
    let mut before = i64::MAX;
    let kept = async || {
        let ttl: i64 = redis(&client, "PTTL worker:heartbeat:t:w1").await;
        ttl > std::mem::replace(&mut before, ttl)
    };
    assert!(eventually(DEADLINE, kept).await, "{}", first.log());
    first.kill();
    let before = left().await;
    assert!(before > 5, "{before} are left: the first worker was too fast");
    let second = WorkerProcess::start(&server.url(), "w2", "heartbeat_seconds = 1");
    assert!(eventually(DEADLINE, async || left().await < before - 3).await, "{}", second.log());
    assert!(second.heartbeat(&client).await.is_empty());
    set(&client, "maxmemory", "0").await;
    second.until_state(&client, "IDLE").await;
    assert!(eventually(DEADLINE, async || left().await == 0).await, "{}", second.log());
}

#[tokio::test]
async fn a_worker_begins_while_redis_refuses_every_write_and_works_as_soon_as_it_takes_them() {
    let server = RedisServer::start();
    let client = server.client().await;
    let _: String = redis(&client, "XGROUP CREATE t:jobs t 0 MKSTREAM").await;
    publish(&client, "j", "t.echo").await;
    set(&client, "min-replicas-to-write", "1").await;
    let worker = WorkerProcess::start_with(&server.url(), "w1", "[worker_types.t.worker]\nheartbeat_seconds = 1\n");
    let begins = eventually(DEADLINE, async || worker.log().contains("worker ready")).await;
    assert!(begins, "{}", worker.log());
    assert!(worker.heartbeat(&client).await.is_empty());
    set(&client, "min-replicas-to-write", "0").await;
    assert!(eventually(DEADLINE, async || answered(&client, "j").await).await, "{}", worker.log());
    worker.until_state(&client, "IDLE").await;
}

/// Freezes a worker in a read that waits for a job and has only begun.
async fn freeze_waiting(client: &Client, worker: &WorkerProcess) {
    let waits = async || {
        worker.signal(Signal::STOP);
        let clients: String = redis(client, "CLIENT LIST").await;
        let waits = clients.lines().any(|one| one.contains(" flags=b ") && one.contains(" idle=0 "));
        if !waits {
            worker.signal(Signal::CONT);
        }
        waits
    };
    assert!(eventually(DEADLINE, waits).await, "{}", worker.log());
}

/// Two workers of the program, the first frozen with a job; the second does the job meanwhile.
async fn taken_over_from_a_frozen_worker(freeze_first: bool) -> (RedisServer, Program, WorkerProcess, WorkerProcess) {
    let server = RedisServer::start();
    let (client, program) = (server.client().await, Program::new());
    let frozen = WorkerProcess::start_with(&server.url(), "frozen", &program.settings(""));
    frozen.until_state(&client, "IDLE").await;
    // A worker that waits for a job is delivered one, frozen or not.
    if freeze_first {
        freeze_waiting(&client, &frozen).await;
    }
    publish(&client, "j", "t.run").await;
    if freeze_first {
        let delivered = async || pending(&client, "t:jobs", "t").await.iter().any(|(consumer, _)| consumer == "frozen");
        assert!(eventually(DEADLINE, delivered).await, "{}", frozen.log());
    } else {
        // An idle worker may not have made its group yet: only its program says that the job was delivered.
        assert!(eventually(DEADLINE, async || program.begun() == ["frozen"]).await, "{}", frozen.log());
        frozen.signal(Signal::STOP);
    }
    let other = WorkerProcess::start_with(&server.url(), "other", &program.settings(""));
    let taken_over = async || program.begun().last().is_some_and(|worker| worker == "other");
    assert!(eventually(DEADLINE, taken_over).await, "{}", other.log());
    (server, program, frozen, other)
}

#[tokio::test]
async fn a_worker_that_thaws_stops_the_job_that_another_has_taken_over() {
    let (server, program, frozen, _other) = taken_over_from_a_frozen_worker(false).await;
    let client = server.client().await;
    frozen.signal(Signal::CONT);
    // While the other one is still at it: its program is ended and its slot is free.
    frozen.until_state(&client, "IDLE").await;
    let told = async || frozen.log().contains("another worker has taken the job over");
    assert!(eventually(DEADLINE, told).await, "{}", frozen.log());
    let ended = async || programs_of(&program, "frozen") == 0;
    assert!(eventually(DEADLINE, ended).await, "the program of the thawed worker is ended");
    assert!(programs_of(&program, "other") >= 1, "the program of the other worker runs on");
    assert!(!answered(&client, "j").await);
    program.let_end();
    assert!(eventually(DEADLINE, async || answered(&client, "j").await).await);
    assert_eq!((program.begun().len(), answers(&client, "j").await.len()), (2, 1));
    assert!(pending(&client, "t:jobs", "t").await.is_empty());
}

#[tokio::test]
async fn a_worker_that_thaws_does_not_begin_a_job_that_another_has_done() {
    let (server, program, frozen, other) = taken_over_from_a_frozen_worker(true).await;
    let client = server.client().await;
    program.let_end();
    assert!(eventually(DEADLINE, async || answered(&client, "j").await).await, "{}", other.log());
    frozen.signal(Signal::CONT);
    // It reads the job and finds that it is not its own any more, or its read has timed out meanwhile.
    let said = ["another worker has taken the job over", "can't take jobs; trying again"];
    let told = async || said.iter().any(|said| frozen.log().contains(said));
    assert!(eventually(DEADLINE, told).await, "{}", frozen.log());
    frozen.until_state(&client, "IDLE").await;
    assert_eq!(program.begun(), ["other"]);
    assert_eq!(answers(&client, "j").await.len(), 1);
}

/// Running programs of a worker.
fn programs_of(program: &Program, worker: &str) -> usize {
    let begun = program.file("begun").display().to_string();
    let ours = with_variable("SWARM_WORKER_ID", worker);
    ours.iter().filter(|(_, command)| command.contains(&begun)).count()
}

#[tokio::test]
async fn a_drain_that_ends_before_its_job_gives_it_back_without_an_attempt() {
    let server = RedisServer::start();
    let (client, program) = (server.client().await, Program::new());
    let scaling = "[worker_types.t.scaling]\ndrain_timeout_seconds = 1\n[worker_types.t.jobs]\nmax_attempts = 1\n";
    let mut drained = WorkerProcess::start_with(&server.url(), "drained", &program.settings(scaling));
    drained.until_state(&client, "IDLE").await;
    publish(&client, "j", "t.run").await;
    assert!(eventually(DEADLINE, async || program.begun() == ["drained"]).await, "{}", drained.log());
    let other = WorkerProcess::start_with(&server.url(), "other", &program.settings(scaling));
    other.until_state(&client, "IDLE").await;
    drained.signal(Signal::TERM);
    drained.exit().await;
    // With an attempt used it would be a dead letter; with a claim that ran out, no new entry that tells of it.
    let again = async || program.begun() == ["drained", "other"];
    assert!(eventually(DEADLINE, again).await, "{}", drained.log());
    let entries: Vec<(String, HashMap<String, String>)> = redis(&client, "XRANGE t:jobs - +").await;
    let job: serde_json::Value = serde_json::from_str(&entries.last().unwrap().1["json"]).unwrap();
    assert_eq!((&job["interruptions"], job.get("attempt")), (&json!(1), None));
    program.let_end();
    assert!(eventually(DEADLINE, async || answered(&client, "j").await).await, "{}", other.log());
}

#[tokio::test]
async fn a_job_that_kills_its_workers_is_given_up_and_takes_no_neighbour_along() {
    const NEIGHBOURS: usize = 3;
    let server = RedisServer::start();
    let client = server.client().await;
    let log = tempfile::tempdir().unwrap();
    // The job `bad` kills its worker; each of the others takes a while.
    let script = format!(
        "echo $SWARM_JOB_ID >> {}; if [ $SWARM_JOB_ID = bad ]; then sleep 0.3; kill -9 $PPID; fi; sleep 1; echo 1",
        log.path().join("begun").display()
    );
    let settings = format!(
        "[worker_types.t.worker]\nheartbeat_seconds = 1\nconcurrency = 4\nhandler = \"exec\"\n\
         exec = [\"sh\", \"-c\", {}]\n[worker_types.t.jobs]\nmax_attempts = 2\n",
        json!(script)
    );
    publish(&client, "bad", "t.run").await;
    for number in 0..NEIGHBOURS {
        publish(&client, &number.to_string(), "t.run").await;
    }
    let mut worker = WorkerProcess::start_with(&server.url(), "w0", &settings);
    // The first death is an interruption of all of them, two more are attempts of the bad one.
    for number in 1..=3 {
        worker.exit().await;
        worker = WorkerProcess::start_with(&server.url(), &format!("w{number}"), &settings);
    }
    for number in 0..NEIGHBOURS {
        let done = eventually(DEADLINE, async || answered(&client, &number.to_string()).await).await;
        assert!(done, "{number}: {}", worker.log());
        assert_eq!(answers(&client, &number.to_string()).await[0]["ok"], json!(true));
    }
    assert!(eventually(DEADLINE, async || answered(&client, "bad").await).await, "{}", worker.log());
    let dead: Vec<(String, HashMap<String, String>)> = redis(&client, "XRANGE t:jobs:dead - +").await;
    assert_eq!(dead.len(), 1, "{dead:?}");
    let of = |field: &str| dead[0].1[field].as_str();
    assert_eq!((of("dead_reason"), of("dead_attempts")), ("attempts_exhausted", "2"));
}
