//! Progress of jobs: from programs and handlers, through Redis, to whoever waits or asks.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::Arc,
    time::Duration,
};

use fred::prelude::*;
use secrecy::SecretString;
use serde_json::{Map, Value as Json, json};
use swarm::{
    CancellationToken, Handler, Job, JobContext, JobError, Progress, Worker, WorkerConfig, async_trait,
    broker::{Consumer, JobPolicy},
    connection::RedisTarget,
    model::Timestamp,
};
use tempfile::TempDir;
use tokio::sync::Notify;

use crate::support::{
    autoscaler::swarm,
    client::patient_client,
    command::{add_job, answers, redis},
    log::Log,
    redis::RedisServer,
    wait::{DEADLINE, eventually},
    worker::WorkerProcess,
};

/// A program that reports its progress, and waits between two reports and before its end for a file each.
pub(crate) struct Steps(TempDir);

impl Steps {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// The settings of a worker type `t` whose program does so. Its method `fails` fails after the first report.
    pub(crate) fn settings(&self) -> String {
        let directory = self.0.path().display();
        // Without the directory, because the test is over, nobody waits for it.
        let program = format!(
            "step() {{ until [ -e {directory}/$1 ] || [ ! -e {directory} ]; do sleep 0.05; done; }}\n\
             echo noise >&2\n\
             echo 'swarm:progress 40% page 2 of 5 for hunter22' >&2\n\
             [ $SWARM_JOB_METHOD != fails ] || exit 3\n\
             step 1\n\
             echo 'swarm:progress 80%' >&2\n\
             step 2\n\
             echo '\"done\"'\n"
        );
        format!(
            "[worker_types.t.worker]\nheartbeat_seconds = 1\nconcurrency = 4\nexec = [\"sh\", \"-c\", {}]\n\
             [worker_types.t.jobs]\nmasked_arguments = [\"0\"]\n",
            Json::from(program)
        )
    }

    /// Lets all programs pass this step.
    pub(crate) fn pass(&self, step: u8) {
        fs::write(self.0.path().join(step.to_string()), "").unwrap();
    }
}

/// `swarm` with these arguments and a configuration that knows the type.
fn command(directory: &Path, redis_url: &str, arguments: &[&str]) -> Command {
    let file = directory.join("client.toml");
    fs::write(&file, format!("redis_url = \"{redis_url}\"\n[worker_types.t]\n")).unwrap();
    let mut command = swarm(directory);
    command.args(arguments).arg("--config").arg(file);
    command
}

fn publisher(directory: &Path, redis_url: &str, more: &[&str]) -> (Child, Log) {
    let arguments = [&["publish", "t.work", "hunter22", "--wait", "--timeout", "600"], more].concat();
    let mut publish = command(directory, redis_url, &arguments);
    let mut publish = publish.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let log = Log::capture(publish.stderr.take().unwrap());
    (publish, log)
}

async fn until_said(log: &Log, text: &str, worker: &WorkerProcess) {
    let said = eventually(DEADLINE, async || log.text().contains(text)).await;
    assert!(said, "nobody said {text:?}:\n{}\nthe worker:\n{}", log.tail(), worker.log());
}

async fn keys(client: &Client) -> Vec<String> {
    redis(client, "KEYS t:jobs:progress:*").await
}

/// A worker, a publisher and an operator whose Redis users have the rights of `docs/protocol.md`, and no more.
#[tokio::test]
async fn the_progress_of_a_program_is_shown_to_who_waits_and_who_asks() {
    let server = RedisServer::start();
    let client = server.client().await;
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/protocol.md")).unwrap();
    for rule in page.lines().filter(|line| line.contains("ACL SETUSER")) {
        let _: String = redis(&client, &rule.replace("browser", "t")).await;
    }
    let url = |user: &str| format!("redis://{user}:secret@127.0.0.1:{}/0", server.port());
    let steps = Steps::new();
    let worker = WorkerProcess::start_with(&url("worker"), "w1", &steps.settings());
    worker.until_state(&client, "IDLE").await;
    let directory = worker.directory();
    let (publish, log) = publisher(directory, &url("producer"), &[]);
    let first = "progress: 40 %: page 2 of 5 for ***";
    until_said(&log, first, &worker).await;
    let entries: Vec<(String, std::collections::HashMap<String, String>)> = redis(&client, "XRANGE t:jobs - +").await;
    let id = serde_json::from_str::<Json>(&entries[0].1["json"]).unwrap()["id"].as_str().unwrap().to_owned();
    assert_eq!(keys(&client).await, [format!("t:jobs:progress:{id}")]);
    let ttl: i64 = redis(&client, &format!("PTTL t:jobs:progress:{id}")).await;
    assert!(ttl > 0, "it expires");

    let (silent, silent_log) = publisher(directory, &url("producer"), &["--json"]);
    assert!(eventually(DEADLINE, async || keys(&client).await.len() == 2).await, "{}", worker.log());
    let told = command(directory, &url("operator"), &["job", &id]).output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("  progress      40 %: page 2 of 5 for ***, "), "{told}");
    let told = command(directory, &url("operator"), &["job", &id, "--json"]).output().unwrap();
    let report: Json = serde_json::from_slice(&told.stdout).unwrap();
    let progress = &report["progress"];
    assert_eq!((&progress["worker"], &progress["fraction"]), (&json!("w1"), &json!(0.4)), "{report}");
    assert_eq!(progress["text"], json!("page 2 of 5 for ***"));

    steps.pass(1);
    until_said(&log, "progress: 80 %", &worker).await;
    steps.pass(2);
    for publish in [publish, silent] {
        let Output { status, stdout, .. } = publish.wait_with_output().unwrap();
        let answer = String::from_utf8(stdout).unwrap();
        assert!(status.success() && answer.contains("\"done\""), "{answer}\n{}", worker.log());
    }
    let text = log.text();
    let shown: Vec<&str> = text.lines().filter(|line| line.contains("progress")).collect();
    assert_eq!(shown, [first, "progress: 80 %"]);
    assert!(!silent_log.text().contains("progress"), "{}", silent_log.text());
    assert!(eventually(DEADLINE, async || keys(&client).await.is_empty()).await, "{}", worker.log());
}

#[tokio::test]
async fn the_error_of_a_program_leaves_its_progress_out() {
    let server = RedisServer::start();
    let client = server.client().await;
    let worker = WorkerProcess::start_with(&server.url(), "w1", &Steps::new().settings());
    add_job(&client, "t", "fails", "bad").await;
    let answered = async || answers(&client, "bad").await.len() == 1;
    assert!(eventually(DEADLINE, answered).await, "{}", worker.log());
    let error = answers(&client, "bad").await[0]["error"].as_str().unwrap().to_owned();
    assert_eq!(error, "`sh` ended with exit code 3: noise");
    assert!(eventually(DEADLINE, async || keys(&client).await.is_empty()).await, "{}", worker.log());
}

/// While Redis refuses writes, the job runs on; afterwards the newest progress is there.
#[tokio::test]
async fn a_redis_that_refuses_writes_neither_fails_nor_delays_the_job() {
    let server = RedisServer::start();
    let client = server.client().await;
    let steps = Steps::new();
    let worker = WorkerProcess::start_with(&server.url(), "w1", &steps.settings());
    add_job(&client, "t", "work", "job").await;
    assert!(eventually(DEADLINE, async || !keys(&client).await.is_empty()).await, "{}", worker.log());
    let _: String = redis(&client, "CONFIG SET min-replicas-to-write 1").await;
    steps.pass(1);
    let refused = async || worker.log().contains("progress of jobs can't be written");
    assert!(eventually(DEADLINE, refused).await, "{}", worker.log());
    let _: String = redis(&client, "CONFIG SET min-replicas-to-write 0").await;
    let fraction = async || redis::<Option<String>>(&client, "HGET t:jobs:progress:job fraction").await;
    let is_newest = async || fraction().await.as_deref() == Some("0.8");
    assert!(eventually(DEADLINE, is_newest).await, "{:?}\n{}", fraction().await, worker.log());
    steps.pass(2);
    assert!(eventually(DEADLINE, async || answers(&client, "job").await.len() == 1).await, "{}", worker.log());
    assert_eq!(answers(&client, "job").await[0]["value"], json!("done"));
    assert!(eventually(DEADLINE, async || keys(&client).await.is_empty()).await, "{}", worker.log());
}

#[tokio::test]
async fn only_the_worker_that_holds_the_job_writes_and_removes_its_progress() {
    let server = RedisServer::start();
    let client = server.client().await;
    let target = RedisTarget::new(&SecretString::from(server.url()), DEADLINE).unwrap();
    let mut connection = target.connect().await.unwrap();
    let consumer = |name: &str| Consumer {
        stream: "t:jobs".to_owned(),
        group: "t".to_owned(),
        name: name.to_owned(),
        policy: JobPolicy::default(),
    };
    let (old, new) = (consumer("w1"), consumer("w2"));
    old.ensure_group(&mut connection).await.unwrap();
    add_job(&client, "t", "work", "job").await;
    let entry = old.read(&mut connection, 1, Duration::from_millis(1)).await.unwrap().remove(0).entry;
    let progress = (&Progress::new("half"), Timestamp(5));
    assert!(old.report_progress(&mut connection, "job", (&entry, 1), progress).await.unwrap());
    let _: fred::types::Value = redis(&client, &format!("XCLAIM t:jobs t w2 0 {entry}")).await;
    assert!(!old.report_progress(&mut connection, "job", (&entry, 1), progress).await.unwrap());
    assert!(!new.report_progress(&mut connection, "job", (&entry, 1), progress).await.unwrap(), "a former claim");
    assert!(new.report_progress(&mut connection, "job", (&entry, 2), progress).await.unwrap());
    old.end_progress(&mut connection, "job").await.unwrap();
    let worker: Option<String> = redis(&client, "HGET t:jobs:progress:job worker").await;
    assert_eq!(worker.as_deref(), Some("w2"));
    new.end_progress(&mut connection, "job").await.unwrap();
    assert!(keys(&client).await.is_empty());
}

/// Reports from another thread, and ends when it is told to.
struct Reporting(Arc<Notify>);

#[async_trait]
impl Handler for Reporting {
    async fn handle(&self, _method: &str, _job: &Job) -> Result<Json, JobError> {
        let context = JobContext::current();
        let progress = Progress::new("half way").with_fraction(0.5);
        std::thread::spawn(move || context.progress(progress)).join().unwrap();
        self.0.notified().await;
        Ok(json!("done"))
    }
}

#[tokio::test]
async fn a_handler_in_rust_reports_and_a_caller_reads_it() {
    let server = RedisServer::start();
    let worker = Worker::open(&server.url(), WorkerConfig::builder("t").id("w1").build().unwrap()).unwrap();
    let (done, stop) = (Arc::new(Notify::new()), CancellationToken::new());
    let running = tokio::spawn(worker.run(Arc::new(Reporting(done.clone())), stop.clone()));
    let caller = patient_client(&server.url(), "t");
    let mut call = caller.begin(Job::new("t.work", Vec::new(), Map::new())).await.unwrap();
    let mut reported = None;
    let shown = eventually(DEADLINE, async || {
        reported = call.progress().await.unwrap();
        reported.is_some()
    });
    assert!(shown.await, "nothing is reported");
    let reported = reported.unwrap();
    assert_eq!((reported.worker.as_str(), reported.progress.to_string().as_str()), ("w1", "50 %: half way"));
    done.notify_one();
    assert_eq!(call.wait(DEADLINE).await.unwrap(), Some(json!("done")));
    let over = async || call.progress().await.unwrap().is_none();
    assert!(eventually(DEADLINE, over).await, "the progress of a job that has ended is still there");
    stop.cancel();
    running.await.unwrap().unwrap();
}
