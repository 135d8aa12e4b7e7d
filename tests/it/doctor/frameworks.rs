//! Queues of job frameworks: what the doctor says of a name that nothing has, and of jobs that nobody moves.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{Report, alone, ask_about, until_told};
use crate::support::{
    autoscaler::{Autoscaler, FAST_SWEEP},
    command::redis,
    redis::RedisServer,
};

fn of(framework: &str, queue: &str) -> String {
    format!(
        "[worker_types.mail]\nframework = \"{framework}\"\nqueues = [\"{queue}\"]\n\
         process = {{ command = [\"sh\", \"-c\", \"$SWARM_WORKER_ID\"] }}\n"
    )
}

#[tokio::test]
async fn a_queue_that_was_never_used_is_named_with_similar_keys() {
    let server = RedisServer::start();
    let client = server.client().await;
    for command in ["RPUSH staging:rq:queue:mail a", "RPUSH rq:queue:mail a", "MOVE rq:queue:mail 3"] {
        let _: fred::types::Value = redis(&client, command).await;
    }
    let never = "queue `mail` of `mail` has never been used";
    let report = ask_about(&alone(&server, &of("rq", "mail")));
    let similar = ["`staging:rq:queue:mail`", "`rq:queue:mail` in database 3", "`key_prefix`"];
    report.has("queues", "warning", &[&[never, "rq has nothing at `rq:queue:mail`"][..], &similar].concat());
    // A queue that has been emptied was used.
    let _: u64 = redis(&client, "SADD rq:queues rq:queue:mail").await;
    let report = ask_about(&alone(&server, &of("rq", "mail")));
    assert!(!report.json.to_string().contains("never been used"), "{:#}", report.json);
    let report = ask_about(&alone(&server, &of("asynq", "orders")));
    report.has("queues", "warning", &["queue `orders` of `mail` has never been used", "in another redis"]);
    // Nothing tells that an empty queue of Dramatiq was used.
    let report = ask_about(&alone(&server, &of("dramatiq", "orders")));
    assert!(!report.json.to_string().contains("never been used"), "{:#}", report.json);
}

#[tokio::test]
async fn due_jobs_that_no_process_moves_are_named_with_the_cure() {
    let server = RedisServer::start();
    let client = server.client().await;
    let _: u64 = redis(&client, "ZADD rq:scheduled:mail 1700000000 a 4000000000 b").await;
    let _: u64 = redis(&client, "ZADD resque:delayed_queue_schedule 1700000000 1700000000").await;
    let cures = [("rq", "--with-scheduler"), ("resque", "rake resque:scheduler")];
    for (framework, cure) in cures {
        let report = ask_about(&alone(&server, &of(framework, "mail")));
        report.has("queues", "warning", &["due for a minute, and no process moves", "queue `mail`", cure]);
    }
    for lock in ["rq:scheduler-lock:mail", "resque:resque:resque_scheduler_master_lock"] {
        let _: String = redis(&client, &format!("SET {lock} host")).await;
    }
    for (framework, _) in cures {
        let report = ask_about(&alone(&server, &of(framework, "mail")));
        assert!(!report.json.to_string().contains("no process moves"), "{:#}", report.json);
    }
}

#[tokio::test]
async fn fetched_tasks_near_the_visibility_timeout_are_named_with_what_happens_then() {
    let server = RedisServer::start();
    let client = server.client().await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let fetched = async |tag: &str, queue: &str, seconds: u64| {
        let message = format!(
            "[{{\"headers\":{{}},\"properties\":{{\"delivery_info\":{{\"routing_key\":\"{queue}\"}}}}}},\"\",\"{queue}\"]"
        );
        let _: u64 = redis(&client, &format!("HSET unacked {tag} {message}")).await;
        let _: u64 = redis(&client, &format!("ZADD unacked_index {}.5 {tag}", now - seconds)).await;
    };
    let celery = of("celery", "mail");
    fetched("young", "mail", 2_000).await;
    fetched("other", "news", 3_500).await;
    let held = "has not acknowledged";
    let report = ask_about(&alone(&server, &celery));
    assert!(!report.json.to_string().contains(held), "{:#}", report.json);
    fetched("old", "mail", 3_000).await;
    let report = ask_about(&alone(&server, &celery));
    let parts = ["`mail` has 1 job that", "a second time 3600 s after", "while the first worker still has it"];
    report.has("queues", "warning", &[&parts[..], &["visibility_timeout", "acks_late", "ETA"]].concat());
    // The application has another timeout.
    let shorter = format!("{celery}celery = {{ visibility_timeout_seconds = 600 }}\n");
    let report = ask_about(&alone(&server, &shorter));
    report.has("queues", "warning", &["`mail` has 2 jobs that", "a second time 600 s after"]);
}

/// Workers that signed in under other names, or not at all, are never let go: nobody knows whether they are idle.
#[tokio::test]
async fn workers_that_the_framework_does_not_know_are_named_until_it_does() {
    let server = RedisServer::start();
    let client = server.client().await;
    let _: u64 = redis(&client, "SADD rq:queues rq:queue:mail").await;
    let nameless = of("rq", "mail").replace("$SWARM_WORKER_ID", ": $SWARM_WORKER_ID; exec sleep 1000");
    let scaling = "scaling = { min_workers = 2, start_grace_seconds = 1 }";
    let scaler = Autoscaler::start(&server.url(), &format!("{FAST_SWEEP}{nameless}{scaling}\n")).await;
    scaler.until_workers("mail", 2).await;
    let unknown = |report: &Report| report.found("workers", "warning").join("\n");
    let report = until_told(&scaler, "both are named", |report| unknown(report).contains("2 workers")).await;
    report.has("workers", "warning", &["2 workers of `mail` unknown to rq", "--name and $SWARM_WORKER_ID"]);

    for worker in &scaler.of("mail").await.workers {
        let key = format!("rq:worker:{}", worker.id);
        let _: u64 = redis(&client, &format!("HSET {key} state idle birth 2020-01-01T00:00:00.000000Z")).await;
        let _: u64 = redis(&client, &format!("SADD rq:workers:mail {key}")).await;
    }
    until_told(&scaler, "nobody is named any more", |report| unknown(report).is_empty()).await;
}

#[tokio::test]
async fn a_server_of_its_own_is_checked_by_itself() {
    let (a, mut b) = (RedisServer::start(), RedisServer::start());
    let client = b.client().await;
    let rules = "resetchannels -@all +ping +hello +client +multi +exec +time +exists +llen %R~rq:queue:* +config|get";
    let _: String = redis(&client, &format!("ACL SETUSER reader on >secret {rules}")).await;
    let own = format!("redis_url = \"redis://reader:secret@127.0.0.1:{}/0\"\nframework", b.port());
    let settings = alone(&a, &of("rq", "mail").replace("framework", &own));
    let server = format!("127.0.0.1:{}/0: ", b.port());
    let report = ask_about(&settings);
    report.has("redis", "ok", &[&format!("{server}it answers")]);
    report.has("signals", "ok", &[&server, "keyspace is unavailable", "which needs", "set it on that server"]);
    report.has("signals", "ok", &[&server, "a job is noticed when it comes"]);
    report.has("rights", "problem", &[&server, "no right to", "zcard", "ACL SETUSER reader"]);
    assert!(!report.json.to_string().contains("secret"), "{:#}", report.json);
    let _: String = redis(&client, "ACL SETUSER reader ~* &* +@all").await;
    let report = ask_about(&settings);
    report.has("rights", "ok", &[&server, "user `reader` has all"]);
    report.has("queues", "warning", &[&server, "queue `mail` of `mail` has never been used"]);
    b.kill();
    let report = ask_about(&settings);
    report.has("redis", "problem", &["can't connect to redis at 127.0.0.1:", "worker types mail names it"]);
    report.has("redis", "ok", &["answers, master"]);
}
