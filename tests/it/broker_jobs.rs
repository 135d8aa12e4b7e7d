//! What becomes of jobs: tried again, given up, put back, trimmed. On every server that swarm is said to work with; two
//! of the steps are Lua, and replies differ.

use std::{collections::HashSet, time::Duration};

use fred::prelude::*;
use secrecy::SecretString;
use serde_json::{Map, json};
use swarm::connection::Connection;
use swarm::{
    broker::{
        Begun, Consumer, DeadEntry, DeadLetters, Delivery, Failed, Job, JobPolicy, JobResult, Publisher, Refusal, Retry,
    },
    config::{BrokerSettings, JobSettings},
    connection::RedisTarget,
    model::{
        WorkerType,
        dead_letter::{DeadFilter, DeadLetter, DeadLetterOutcome},
    },
};

use crate::{
    servers::{Tested, on_servers},
    support::{command::redis as command, redis::RedisServer, wait::DEADLINE},
};

const QUEUE: &str = "t:jobs";
/// Long enough to be told from "just now", short enough to wait for.
const LAPSE: Duration = Duration::from_millis(50);
const LIMIT: usize = 1 << 20;

on_servers! {
    [installed, valkey_8, redis_6_2],
    [
        a_job_that_fails_is_tried_again_and_then_a_dead_letter,
        a_job_that_cant_be_done_is_answered_at_once_and_kept_if_nobody_waits,
        a_job_that_kills_its_workers_is_given_up,
        what_was_lost_on_the_way_was_no_attempt,
        a_worker_that_lost_its_claim_settles_nothing,
        claims_of_the_living_run_out_only_if_they_say_so,
        an_expired_job_is_never_begun,
        dead_letters_are_put_back_once_and_dropped,
        only_what_every_group_has_finished_is_trimmed,
        with_two_groups_only_the_one_that_failed_tries_again,
        hostile_entries_go_to_the_dead_letters,
        a_result_that_is_too_large_is_an_error,
    ]
}

/// One consumer with connections of its own.
struct Member {
    consumer: Consumer,
    connection: Connection,
}

fn target(server: &RedisServer) -> RedisTarget {
    RedisTarget::new(&SecretString::from(server.url()), DEADLINE).unwrap()
}

fn policy() -> JobPolicy {
    let jobs = JobSettings { max_attempts: 3, retry_backoff_ms: 0, ..JobSettings::default() };
    JobPolicy { jobs, ..JobPolicy::default() }
}

impl Member {
    async fn join(server: &RedisServer, name: &str) -> Self {
        Self::join_group(server, "t", name).await
    }

    async fn join_group(server: &RedisServer, group: &str, name: &str) -> Self {
        let (stream, group, name) = (QUEUE.to_owned(), group.to_owned(), name.to_owned());
        let consumer = Consumer { stream, group, name, policy: policy() };
        let mut connection = target(server).connect_without_timeout().await.unwrap();
        consumer.ensure_group(&mut connection).await.unwrap();
        Self { consumer, connection }
    }

    async fn read(&mut self, count: usize) -> Vec<Delivery> {
        self.consumer.read(&mut self.connection, count, Duration::from_millis(1)).await.unwrap()
    }

    async fn one(&mut self) -> Delivery {
        let mut read = self.read(1).await;
        read.pop().expect("there is a job")
    }

    async fn fail(&mut self, delivery: &Delivery, error: &str, retry: Retry) -> Failed {
        self.consumer.fail(&mut self.connection, delivery, error, retry).await.unwrap()
    }

    async fn refuse(&mut self, delivery: &Delivery) -> Refusal {
        let refusal = delivery.job.clone().expect_err("it must not be done");
        self.consumer.refuse(&mut self.connection, delivery, &refusal).await.unwrap();
        refusal
    }

    async fn complete(&mut self, delivery: &Delivery, result: &JobResult) {
        self.consumer.complete(&mut self.connection, &[(delivery, result)]).await.unwrap();
    }

    /// Waits for jobs of others to have been idle long enough, and takes them.
    async fn take_over(&mut self) -> Vec<Delivery> {
        tokio::time::sleep(LAPSE * 2).await;
        let worker_type = WorkerType::new("t");
        let (consumer, connection) = (&self.consumer, &mut self.connection);
        let taken = consumer.recover_from_gone(connection, &worker_type, 100, LAPSE, None, || true).await;
        taken.unwrap().deliveries
    }

    async fn move_due(&mut self) -> u64 {
        self.consumer.move_due(&mut self.connection).await.unwrap().moved
    }

    async fn dead(&mut self) -> Vec<DeadLetter> {
        let letters = DeadLetters::of(QUEUE, LIMIT);
        letters.list(&mut self.connection, &DeadFilter::default(), 1_000).await.unwrap()
    }

    async fn dead_entries(&mut self) -> Vec<DeadEntry> {
        let letters = DeadLetters::of(QUEUE, LIMIT);
        letters.entries(&mut self.connection, &DeadFilter::default(), 1_000).await.unwrap()
    }
}

fn job(id: &str) -> Job {
    Job { id: id.to_owned(), ..Job::new("t.echo", vec![json!(id)], Map::new()) }
}

async fn publish(server: &RedisServer, jobs: &[Job]) {
    let connection = target(server).connect().await.unwrap();
    let mut publisher = Publisher::new(connection, "jobs:published", BrokerSettings::default());
    publisher.publish(QUEUE, jobs).await.unwrap();
}

async fn answers(client: &Client, id: &str) -> Vec<JobResult> {
    let answers: Vec<String> = command(client, &format!("LRANGE result:{id} 0 -1")).await;
    answers.iter().map(|answer| serde_json::from_str(answer).unwrap()).collect()
}

async fn pending(client: &Client, group: &str) -> u64 {
    let summary: Vec<fred::types::Value> = command(client, &format!("XPENDING {QUEUE} {group}")).await;
    summary[0].as_u64().unwrap()
}

async fn a_job_that_fails_is_tried_again_and_then_a_dead_letter(tested: &Tested) {
    let server = tested.start(&[]);
    let client = server.client().await;
    let mut worker = Member::join(&server, "w1").await;
    let mut sent = job("a").with_reply();
    sent.extra.insert("trace".to_owned(), json!({"span": 7}));
    publish(&server, &[sent]).await;
    for attempts in 1..=3 {
        let delivery = worker.one().await;
        assert_eq!(delivery.attempts, attempts);
        assert_eq!(delivery.job.as_ref().unwrap().extra["trace"], json!({"span": 7}));
        let failed = worker.fail(&delivery, &format!("error {attempts}"), Retry::Backoff).await;
        assert_eq!(pending(&client, "t").await, 0);
        if attempts < 3 {
            assert!(matches!(failed, Failed::Retried { .. }), "{failed:?}");
            assert!(answers(&client, "a").await.is_empty(), "nobody is told before the last attempt");
            assert_eq!(worker.move_due().await, 1);
        } else {
            assert_eq!(failed, Failed::Dead);
        }
    }
    assert_eq!(answers(&client, "a").await, [JobResult::new("a", Err("error 3".to_owned()))]);
    let dead = worker.dead().await;
    assert_eq!(dead.len(), 1);
    let letter = &dead[0];
    assert_eq!((letter.id.as_deref(), letter.reason.as_str()), (Some("a"), "failed"));
    assert_eq!((letter.error.as_str(), letter.attempts, letter.group.as_str()), ("error 3", 3, "t"));
    assert!(worker.read(1).await.is_empty());
}

async fn a_job_that_cant_be_done_is_answered_at_once_and_kept_if_nobody_waits(tested: &Tested) {
    let server = tested.start(&[]);
    let client = server.client().await;
    let mut worker = Member::join(&server, "w1").await;
    publish(&server, &[job("waited").with_reply(), job("alone")]).await;
    let deliveries = worker.read(2).await;
    assert_eq!(worker.fail(&deliveries[0], "no such method", Retry::Never).await, Failed::Answered);
    assert_eq!(worker.fail(&deliveries[1], "no such method", Retry::Never).await, Failed::Dead);
    assert_eq!(answers(&client, "waited").await[0].error.as_deref(), Some("no such method"));
    let dead = worker.dead().await;
    assert_eq!((dead.len(), dead[0].id.as_deref()), (1, Some("alone")));
    assert_eq!(pending(&client, "t").await, 0);
}

async fn a_job_that_kills_its_workers_is_given_up(tested: &Tested) {
    let server = tested.start(&[]);
    let client = server.client().await;
    Member::join(&server, "w1").await;
    publish(&server, &[job("a").with_reply()]).await;
    assert_eq!(Member::join(&server, "w1").await.one().await.attempts, 1);
    for (name, attempts) in [("w2", 1), ("w3", 2), ("w4", 3)] {
        let taken = Member::join(&server, name).await.take_over().await;
        assert_eq!((taken.len(), taken[0].attempts, taken[0].interruptions), (1, attempts, 1));
        assert!(taken[0].job.is_ok() && taken[0].is_suspect());
    }
    let mut last = Member::join(&server, "w5").await;
    let taken = last.take_over().await;
    assert_eq!(last.refuse(&taken[0]).await, Refusal::AttemptsExhausted { attempts: 3 });
    let dead = last.dead().await;
    assert_eq!((dead[0].reason.as_str(), dead[0].attempts, dead[0].interruptions), ("attempts_exhausted", 3, 1));
    assert!(answers(&client, "a").await[0].error.as_ref().unwrap().contains("3 attempts"));
    assert_eq!(pending(&client, "t").await, 0);
}

async fn what_was_lost_on_the_way_was_no_attempt(tested: &Tested) {
    let server = tested.start(&[]);
    let mut worker = Member::join(&server, "w1").await;
    publish(&server, &[job("a")]).await;
    worker.one().await;
    for (begun, number) in [(Begun::Never, 1), (Begun::Never, 1), (Begun::Maybe, 2), (Begun::Never, 2)] {
        let Member { consumer, connection } = &mut worker;
        let own = consumer.recover_own(connection, &HashSet::new(), 10, begun).await.unwrap();
        assert_eq!((own.len(), own[0].number, own[0].attempts), (1, number, 1));
    }
}

async fn a_worker_that_lost_its_claim_settles_nothing(tested: &Tested) {
    let server = tested.start(&[]);
    let client = server.client().await;
    let (mut slow, mut quick) = (Member::join(&server, "slow").await, Member::join(&server, "quick").await);
    publish(&server, &[job("a").with_reply()]).await;
    let lost = slow.one().await;
    let taken = quick.take_over().await;
    let entry = lost.entry.as_str();
    assert!(slow.consumer.extend(&mut slow.connection, &[(entry, lost.number)]).await.unwrap().is_empty());
    assert_eq!(slow.fail(&lost, "too late", Retry::Backoff).await, Failed::TakenOver);
    let too_late = JobResult::new("a", Ok(json!("too late")));
    let refused = slow.consumer.complete(&mut slow.connection, &[(&lost, &too_late)]).await.unwrap();
    assert_eq!(refused, [entry], "who lost its claim can't complete the job");
    assert!(!slow.consumer.give_back(&mut slow.connection, &lost).await.unwrap());
    // The same worker by name, in an earlier life.
    let mut earlier = taken[0].clone();
    earlier.number = lost.number;
    let refused = quick.consumer.complete(&mut quick.connection, &[(&earlier, &too_late)]).await.unwrap();
    assert_eq!(refused, [entry], "the number of the delivery is part of the token");
    let mut hopeless = lost.clone();
    hopeless.attempts = 3;
    assert_eq!(slow.fail(&hopeless, "too late", Retry::Backoff).await, Failed::TakenOver);
    assert!(answers(&client, "a").await.is_empty() && slow.dead().await.is_empty());
    assert_eq!((slow.move_due().await, pending(&client, "t").await), (0, 1));
    assert_eq!(quick.consumer.extend(&mut quick.connection, &[(entry, taken[0].number)]).await.unwrap(), [entry]);
    let done = JobResult::new("a", Ok(json!("in time")));
    quick.complete(&taken[0], &done).await;
    assert_eq!(answers(&client, "a").await, [done]);
}

async fn claims_of_the_living_run_out_only_if_they_say_so(tested: &Tested) {
    let server = tested.start(&[]);
    let client = server.client().await;
    let (mut holder, mut other) = (Member::join(&server, "holder").await, Member::join(&server, "other").await);
    publish(&server, &[job("a")]).await;
    let held = holder.one().await;
    let entry = held.entry.as_str();
    // As after that number of seconds without a renewal, whatever time the test takes.
    let neglect = async |seconds: u32| {
        let claim = format!("XCLAIM {QUEUE} t holder 0 {entry} IDLE {seconds}000 JUSTID");
        let _: Vec<String> = command(&client, &claim).await;
    };
    let _: u64 = command(&client, "HSET worker:heartbeat:t:holder worker_id holder state BUSY").await;
    neglect(3_000).await;
    assert!(other.take_over().await.is_empty(), "a living worker's claim does not run out");
    let _: u64 = command(&client, "HSET worker:heartbeat:t:holder claim_seconds 1000").await;
    neglect(500).await;
    assert!(other.take_over().await.is_empty(), "nor before the time that it says");
    neglect(3_000).await;
    assert_eq!(holder.consumer.extend(&mut holder.connection, &[(entry, held.number)]).await.unwrap(), [entry]);
    assert!(other.take_over().await.is_empty(), "it was renewed");
    neglect(3_000).await;
    let taken = other.take_over().await;
    assert_eq!((taken.len(), taken[0].number), (1, 2), "a renewal is not a delivery");
}

async fn an_expired_job_is_never_begun(tested: &Tested) {
    let server = tested.start(&[]);
    let client = server.client().await;
    let mut worker = Member::join(&server, "w1").await;
    let late = Job { deadline_ts: Some(1_000.0), ..job("late").with_reply() };
    publish(&server, &[late, job("early").with_deadline(Duration::from_secs(60))]).await;
    let deliveries = worker.read(2).await;
    assert!(matches!(worker.refuse(&deliveries[0]).await, Refusal::Expired { .. }));
    assert!(deliveries[1].job.is_ok());
    let dead = worker.dead().await;
    assert_eq!((dead.len(), dead[0].reason.as_str(), dead[0].attempts), (1, "expired", 0));
    assert!(answers(&client, "late").await[0].error.as_ref().unwrap().contains("expired"));
}

async fn dead_letters_are_put_back_once_and_dropped(tested: &Tested) {
    let server = tested.start(&[]);
    let mut worker = Member::join(&server, "w1").await;
    let expired = Job { deadline_ts: Some(1.0), attempt: 2, ..job("a") };
    publish(&server, &[expired, job("b")]).await;
    let deliveries = worker.read(2).await;
    worker.refuse(&deliveries[0]).await;
    worker.fail(&deliveries[1], "broken", Retry::Never).await;
    let dead = worker.dead_entries().await;
    let retries = (0..20).map(|_| {
        let (server, entry) = (&server, &dead[0]);
        async move {
            let mut connection = target(server).connect().await.unwrap();
            DeadLetters::of(QUEUE, LIMIT).retry(&mut connection, entry, "jobs:published").await.unwrap()
        }
    });
    let outcomes = futures_util::future::join_all(retries).await;
    assert_eq!(outcomes.iter().filter(|outcome| matches!(outcome, DeadLetterOutcome::Retried { .. })).count(), 1);
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == DeadLetterOutcome::Gone).count(), 19);
    let again = worker.read(10).await;
    let revived = again[0].job.as_ref().unwrap();
    assert_eq!((again.len(), again[0].attempts, revived.id.as_str()), (1, 1, "a"));
    assert_eq!((revived.deadline_ts, revived.attempt), (None, 0));

    let letters = DeadLetters::of(QUEUE, LIMIT);
    let named =
        |id: &str| DeadFilter { job_type: Some("t".to_owned()), ids: vec![id.to_owned()], ..DeadFilter::default() };
    assert!(letters.list(&mut worker.connection, &named("a"), 10).await.unwrap().is_empty());
    let found = letters.list(&mut worker.connection, &named("b"), 10).await.unwrap();
    assert_eq!(letters.remove(&mut worker.connection, &found[0]).await.unwrap(), DeadLetterOutcome::Dropped);
    assert_eq!(letters.remove(&mut worker.connection, &found[0]).await.unwrap(), DeadLetterOutcome::Gone);
    assert!(worker.dead().await.is_empty());
}

async fn only_what_every_group_has_finished_is_trimmed(tested: &Tested) {
    let server = tested.start(&[]);
    let client = server.client().await;
    let (mut first, mut second) =
        (Member::join_group(&server, "t", "w1").await, Member::join_group(&server, "audit", "a1").await);
    let jobs: Vec<Job> = (0..1_000).map(|n| job(&n.to_string())).collect();
    publish(&server, &jobs).await;
    let done = first.read(1_000).await;
    for delivery in &done {
        let id = delivery.job.as_ref().unwrap().id.clone();
        first.complete(delivery, &JobResult::new(id, Ok(json!(null)))).await;
    }
    let trim = async |member: &mut Member| member.consumer.trim(&mut member.connection).await.unwrap();
    assert_eq!(trim(&mut first).await, 0, "the other group has read nothing");
    let half = second.read(500).await;
    assert_eq!(trim(&mut first).await, 0, "the other group has finished nothing");
    for delivery in half.iter().filter(|delivery| delivery.entry != half[250].entry) {
        second.complete(delivery, &JobResult::new("x", Ok(json!(null)))).await;
    }
    let trimmed = trim(&mut first).await;
    assert!((100..=250).contains(&trimmed), "{trimmed} of the 250 before the oldest unfinished one");
    assert_eq!(trim(&mut first).await, 0);
    let left: Vec<(String, std::collections::HashMap<String, String>)> =
        client.xrange_values(QUEUE, "-", "+", None).await.unwrap();
    let ids: HashSet<&str> = left.iter().map(|(id, _)| id.as_str()).collect();
    assert!(done[250..].iter().all(|delivery| ids.contains(delivery.entry.as_str())), "unfinished ones are there");
    assert_eq!(second.read(1_000).await.len(), 500);

    let mut kept = first.consumer.clone();
    kept.policy.broker.trim = false;
    second.complete(&half[250], &JobResult::new("x", Ok(json!(null)))).await;
    assert_eq!(kept.trim(&mut first.connection).await.unwrap(), 0);
    assert!(trim(&mut first).await > 0);
}

async fn with_two_groups_only_the_one_that_failed_tries_again(tested: &Tested) {
    let server = tested.start(&[]);
    let client = server.client().await;
    let (mut failing, mut other) =
        (Member::join_group(&server, "t", "w1").await, Member::join_group(&server, "audit", "a1").await);
    publish(&server, &[job("a")]).await;
    let delivery = failing.one().await;
    let seen = other.one().await;
    other.complete(&seen, &JobResult::new("a", Ok(json!(null)))).await;
    failing.fail(&delivery, "not yet", Retry::Backoff).await;
    assert_eq!(failing.move_due().await, 1);
    assert!(failing.one().await.job.is_ok());
    let foreign = other.one().await;
    assert_eq!(other.refuse(&foreign).await, Refusal::OtherGroup("t".to_owned()));
    assert_eq!((pending(&client, "audit").await, other.dead().await.len()), (0, 0));
}

async fn hostile_entries_go_to_the_dead_letters(tested: &Tested) {
    let server = tested.start(&[]);
    let client = server.client().await;
    let mut worker = Member::join(&server, "w1").await;
    let deep = format!(r#"{{"id":"a","type":"t.x","x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let large = format!(r#"{{"id":"a","type":"t.x","args":["{}"]}}"#, "x".repeat(LIMIT));
    let long = format!(r#"{{"id":"{}","type":"t.x"}}"#, "x".repeat(1_000));
    let cases: [(&[u8], &str); 9] = [
        (b"not json", "holds no job"),
        (b"", "holds no job"),
        (b"[1]", "holds no job"),
        (br#"{"id":"a"}"#, "missing field `type`"),
        (br#"{"id":"a","type":"t.x","attempt":-1}"#, "holds no job"),
        (b"{\"id\":\"\xff\",\"type\":\"t.x\"}", "holds no job"),
        (deep.as_bytes(), "recursion limit"),
        (large.as_bytes(), "job_max_bytes"),
        (long.as_bytes(), "at most 512"),
    ];
    for (json, _) in cases {
        let _: String = client.xadd(QUEUE, false, None, "*", (&b"json"[..], json)).await.unwrap();
    }
    let many: Vec<(String, String)> = (0..5_000).map(|n| (format!("f{n}"), "v".to_owned())).collect();
    let _: String = client.xadd(QUEUE, false, None, "*", many).await.unwrap();
    publish(&server, &[job("good")]).await;
    let deliveries = worker.read(100).await;
    assert_eq!(deliveries.len(), 11);
    for delivery in &deliveries[..10] {
        worker.refuse(delivery).await;
    }
    assert!(deliveries[10].job.is_ok());
    let dead = worker.dead().await;
    for (letter, (_, says)) in dead.iter().zip(cases) {
        assert!(letter.error.contains(says) && letter.reason == "malformed", "{}: {says}", letter.error);
    }
    assert!(dead[9].error.contains("no field `json`"), "{}", dead[9].error);
    let letters = DeadLetters::of(QUEUE, LIMIT);
    let entry = worker.dead_entries().await.remove(0);
    let put_back = letters.retry(&mut worker.connection, &entry, "").await.unwrap();
    assert_eq!((put_back, pending(&client, "t").await), (DeadLetterOutcome::NoJob, 1));
}

async fn a_result_that_is_too_large_is_an_error(tested: &Tested) {
    let server = tested.start(&[]);
    let client = server.client().await;
    let mut worker = Member::join(&server, "w1").await;
    worker.consumer.policy.broker.result_max_bytes = 2_000;
    publish(&server, &[job("fits").with_reply(), job("large").with_reply()]).await;
    let deliveries = worker.read(2).await;
    let result = |id: &str, bytes| JobResult::new(id, Ok(json!("x".repeat(bytes))));
    let (fits, large) = (result("fits", 1_900), result("large", 2_000));
    let done = [(&deliveries[0], &fits), (&deliveries[1], &large)];
    worker.consumer.complete(&mut worker.connection, &done).await.unwrap();
    assert_eq!(answers(&client, "fits").await, [fits]);
    let error = answers(&client, "large").await.remove(0).error.unwrap();
    assert!(error.contains("result_max_bytes") && error.contains("2000"), "{error}");
    assert_eq!(pending(&client, "t").await, 0);
}
