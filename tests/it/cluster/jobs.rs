//! Jobs on a cluster: published, done, answered, delayed, tried again, given up; sessions; a failover meanwhile.

use std::time::Duration;

use secrecy::SecretString;
use swarm::{
    broker::{Consumer, JobPolicy, Route, SessionClaims},
    connection::RedisTarget,
    model::{WorkerId, WorkerType},
};

use super::{run, run_with, said};
use crate::{
    progress::Steps,
    support::{
        autoscaler::{Autoscaler, FAST_SWEEP, real_pool},
        cluster::Cluster,
        command::{add_job, add_sleep, answers, redis},
        wait::{DEADLINE, eventually},
        worker::WorkerProcess,
    },
};

#[tokio::test]
async fn a_job_goes_through_publisher_scaler_worker_and_back_on_every_primary() {
    let cluster = Cluster::start();
    cluster.until_well().await;
    let types = cluster.types().await;
    let pools: String = types.iter().map(|name| real_pool(name, "min_workers = 0, cooldown_seconds = 0")).collect();
    // Acknowledgements notify nobody (docs/redis.md): without a sweep, a pool may become idle without an evaluation.
    let scaler = Autoscaler::start(&cluster.url(), &format!("{FAST_SWEEP}{pools}")).await;
    scaler.until_ready().await;
    let config = scaler.directory().join("swarm.toml").display().to_string();
    let run = |arguments: &[&str]| run(&cluster.url(), &[arguments, &["--config", &config]].concat());
    for name in &types {
        let job = format!("{name}.echo");
        let echo = run(&["publish", &job, "hello", "--wait", "--timeout", "60"]);
        assert!(echo.status.success() && said(&echo).contains("hello"), "{}\n{}", said(&echo), scaler.log());
        let many = run(&["publish", &job, "again", "--count", "30", "--wait", "--timeout", "60"]);
        assert!(many.status.success() && said(&many).matches("again").count() == 30, "{}", said(&many));
        let late = run(&["publish", &job, "late", "--delay", "1", "--wait", "--timeout", "60"]);
        assert!(late.status.success() && said(&late).contains("late"), "{}", said(&late));
        let once = ["publish", &job, "once", "--key", "k{1}", "--wait", "--timeout", "60"];
        assert!(said(&run(&once)).contains("once"));
        assert!(said(&run(&once)).contains("once"), "the same answer to the same key");
    }
    // The pool goes to sleep again: the way down needs heartbeats on other nodes than the queues.
    for name in &types {
        scaler.until_workers(name, 0).await;
    }
    for arguments in
        [&["events"][..], &["pause", &types[0]], &["resume", &types[0]], &["scale", &format!("{}=1", types[0])]]
    {
        let output = run(arguments);
        assert!(output.status.success(), "swarm {arguments:?}: {}", said(&output));
    }
    scaler.until_workers(&types[0], 1).await;
}

#[tokio::test]
async fn a_job_that_fails_becomes_a_dead_letter_and_can_be_put_back() {
    let cluster = Cluster::start();
    cluster.until_well().await;
    let settings = "[worker_types.t.worker]\nheartbeat_seconds = 1\nhandler = \"exec\"\nexec = [\"sh\", \"-c\", \"exit 75\"]\n[worker_types.t.jobs]\nmax_attempts = 2\nretry_backoff_ms = 50\n";
    let worker = WorkerProcess::start_with(&cluster.url(), "w1", settings);
    let client = cluster.client().await;
    worker.until_state(&client, "IDLE").await;
    let job = r#"{"id":"bad","type":"t.fail","args":[],"kwargs":{},"reply_to":"result:bad"}"#;
    let _: String = redis(&client, &format!("XADD t:jobs * json {job}")).await;
    let _: String = redis(&client, "XADD t:jobs * json nonsense").await;
    let buried = async || {
        let dead: u64 = redis(&client, "XLEN {t:jobs}:dead").await;
        dead >= 1 && answers(&client, "bad").await.len() == 1
    };
    assert!(eventually(DEADLINE, buried).await, "{}", worker.log());
    let list = run_with(&cluster.url(), settings, &["dead", "list"]);
    assert!(list.status.success() && said(&list).contains("malformed"), "{}", said(&list));
    let retried = run_with(&cluster.url(), settings, &["dead", "retry", "bad"]);
    assert!(retried.status.success(), "{}", said(&retried));
    let answered_again = async || answers(&client, "bad").await.len() == 2;
    assert!(eventually(DEADLINE, answered_again).await, "{}", worker.log());
}

#[tokio::test]
async fn a_job_is_cancelled_wherever_it_is_and_its_publisher_told_once() {
    let cluster = Cluster::start();
    cluster.until_well().await;
    let client = cluster.client().await;
    let configured = "[worker_types.t.worker]\nheartbeat_seconds = 1\n";
    let add = async |id: &str, args: &str| {
        let job = format!(r#"{{"id":"{id}","type":"t.sleep","args":[{args}],"kwargs":{{}},"reply_to":"result:{id}"}}"#);
        let _: String = redis(&client, &format!("XADD t:jobs * json {job}")).await;
    };
    let cancel = |id: &str| said(&run_with(&cluster.url(), configured, &["cancel", id, "--timeout", "60"]));
    add("waits", "0").await;
    let delayed = r#"{"id":"late","type":"t.echo","args":[],"kwargs":{},"reply_to":"result:late"}"#;
    let _: u64 = redis(&client, &format!("ZADD {{t:jobs}}:delayed 9999999999999 {delayed}")).await;
    assert!(cancel("waits").contains("no worker starts it"));
    assert!(cancel("late").contains("is removed"));
    let worker = WorkerProcess::start_with(&cluster.url(), "w1", configured);
    worker.until_state(&client, "IDLE").await;
    add("runs", "1000").await;
    worker.until_state(&client, "BUSY").await;
    let told = said(&run_with(&cluster.url(), configured, &["job", "runs"]));
    assert!(told.contains("running on w1"), "{told}");
    let told = cancel("runs");
    assert!(told.contains("ran on w1 and is stopped"), "{told}\n{}", worker.log());
    let settled = async || redis::<u64>(&client, "EXISTS {t:jobs}:cancelled").await == 0;
    assert!(eventually(DEADLINE, settled).await, "{}", worker.log());
    for id in ["waits", "late", "runs"] {
        let answers = answers(&client, id).await;
        assert!(answers.len() == 1 && answers[0]["error"].to_string().contains("cancelled"), "{id}: {answers:?}");
    }
}

#[tokio::test]
async fn the_progress_of_a_job_is_beside_its_stream_and_ends_with_it() {
    let cluster = Cluster::start();
    cluster.until_well().await;
    let client = cluster.client().await;
    let steps = Steps::new();
    let worker = WorkerProcess::start_with(&cluster.url(), "w1", &steps.settings());
    add_job(&client, "t", "work", "far").await;
    let there = async || redis::<u64>(&client, "EXISTS {t:jobs}:progress:far").await == 1;
    assert!(eventually(DEADLINE, there).await, "{}", worker.log());
    let told = said(&run_with(&cluster.url(), &steps.settings(), &["job", "far"]));
    assert!(told.contains("40 %: page 2 of 5"), "{told}");
    steps.pass(1);
    steps.pass(2);
    assert!(eventually(DEADLINE, async || answers(&client, "far").await.len() == 1).await, "{}", worker.log());
    assert!(eventually(DEADLINE, async || !there().await).await, "{}", worker.log());
}

#[tokio::test]
async fn a_worker_goes_on_after_a_failover_of_its_queue() {
    let mut cluster = Cluster::start_with(1, &[], &[]);
    cluster.until_well().await;
    let worker = WorkerProcess::start(&cluster.url(), "w1", "heartbeat_seconds = 1");
    let client = cluster.client().await;
    worker.until_state(&client, "IDLE").await;
    add_sleep(&client, "t", "long", 4.0).await;
    worker.until_state(&client, "BUSY").await;
    let slot = cluster.slot("t:jobs").await;
    let owner = cluster.owner(slot).await;
    let _: u64 = redis(&cluster.nodes[owner].client().await, "WAIT 1 5000").await;

    cluster.fail_over(slot).await;
    let client = cluster.client().await;
    let answered = async || answers(&client, "long").await.len() == 1;
    assert!(eventually(DEADLINE, answered).await, "{}", worker.log());
    let settled = async || {
        let pending: Vec<fred::types::Value> = redis(&client, "XPENDING t:jobs t").await;
        pending[0].as_u64() == Some(0)
    };
    assert!(eventually(DEADLINE, settled).await, "it is acknowledged, too: {}", worker.log());
    add_sleep(&client, "t", "next", 0.0).await;
    let answered = async || answers(&client, "next").await.len() == 1;
    assert!(eventually(DEADLINE, answered).await, "{}", worker.log());
}

#[tokio::test]
async fn a_job_of_a_session_goes_to_its_holder_and_its_loss_is_told() {
    let cluster = Cluster::start();
    cluster.until_well().await;
    let target = RedisTarget::new(&SecretString::from(cluster.url()), Duration::from_secs(5)).unwrap();
    let mut connection = target.connect().await.unwrap();
    let client = cluster.client().await;
    let browser = WorkerType::new("browser");
    let claims = |id: &str| SessionClaims::new(browser.clone(), WorkerId::new(id), Duration::from_secs(60));
    let consumer = |name: &str| Consumer {
        stream: "browser:jobs".to_owned(),
        group: "browser".to_owned(),
        name: name.to_owned(),
        policy: JobPolicy::default(),
    };
    let (one, two) = (consumer("one"), consumer("two"));
    one.ensure_group(&mut connection).await.unwrap();
    let _: u64 = redis(&client, "HSET worker:heartbeat:browser:one state BUSY").await;

    assert_eq!(claims("one").claim(&mut connection, "chat", || true).await.unwrap(), WorkerId::new("one"));
    assert_eq!(claims("two").claim(&mut connection, "chat", || true).await.unwrap(), WorkerId::new("one"));
    assert!(claims("one").renew(&mut connection, "chat").await.unwrap());
    let entry: String = redis(&client, "XADD browser:jobs * json {}").await;
    assert_eq!(two.read(&mut connection, 1, Duration::from_millis(10)).await.unwrap().len(), 1);
    let route = claims("two").route(&mut connection, &two, (&entry, 1), "chat", |_| true).await.unwrap();
    assert_eq!(route, Route::Forwarded(WorkerId::new("one")));
    let pending: Vec<(String, String, u64, u64)> = redis(&client, "XPENDING browser:jobs browser - + 10").await;
    assert_eq!(pending[0].1, "one", "the entry is the holder's now");

    // Who has handed it over can't do so again, nor settle it.
    let route = claims("two").route(&mut connection, &two, (&entry, 1), "chat", |_| true).await.unwrap();
    assert_eq!(route, Route::ClaimLost);

    let _: u64 = redis(&client, "DEL worker:heartbeat:browser:one").await;
    let route = claims("two").route(&mut connection, &two, (&entry, 1), "chat", |_| true).await.unwrap();
    assert_eq!(route, Route::Lost(WorkerId::new("one")));
    let route = claims("two").route(&mut connection, &two, (&entry, 1), "chat", |_| true).await.unwrap();
    assert_eq!(route, Route::Lost(WorkerId::new("one")), "what was published before is told of it, too");
    assert_eq!(claims("two").claim(&mut connection, "chat", || true).await.unwrap(), WorkerId::new("two"));
    let later: String = redis(&client, "XADD browser:jobs * json {}").await;
    claims("two").release(&mut connection, "chat").await.unwrap();
    assert_eq!(claims("one").route(&mut connection, &one, (&later, 1), "chat", |_| true).await.unwrap(), Route::Here);
}
