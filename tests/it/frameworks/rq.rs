//! RQ with real workers.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use swarm::model::Reading;

use super::bed::{Packages, Producer, assert_each_once, marks, server, settings, until_empty, until_ended};
use crate::support::{
    autoscaler::{Autoscaler, FAST_SWEEP, NO_SWEEP},
    command::redis as command,
};

/// A worker as the user's guide starts it, on queue `mail`.
const WORKER: &str = "rq worker --url $BROKER --name $SWARM_WORKER_ID --with-scheduler mail";

const FRAMEWORK: &str = "framework = \"rq\"\nqueues = [\"mail\"]\n";

fn of_mail(packages: Packages, scaling: &str, broker: &str) -> String {
    settings(packages, "mail", scaling, FRAMEWORK, &packages.command(WORKER), broker)
}

#[cfg_attr(without_frameworks, ignore = "the frameworks can't be installed here")]
#[tokio::test]
async fn one_job_of_each_kind_starts_a_worker_from_zero_and_the_pool_empties_again() {
    one_job_of_each_kind(Packages::Python).await;
}

#[cfg_attr(without_frameworks_redis_5, ignore = "this version can't be installed here")]
#[tokio::test]
async fn one_job_of_each_kind_starts_a_worker_of_rq_3_from_zero_and_the_pool_empties_again() {
    one_job_of_each_kind(Packages::PythonRedis5).await;
}

async fn one_job_of_each_kind(packages: Packages) {
    let redis = server();
    let mut producer = Producer::start_with(packages, &["rq_producer.py"], &redis.url());
    let scaling = "min_workers = 0, max_workers = 2, cooldown_seconds = 1";
    let scaler =
        Autoscaler::start(&redis.url(), &format!("{NO_SWEEP}{}", of_mail(packages, scaling, &redis.url()))).await;
    scaler.until_ready().await;
    for (number, job) in ["plain mail a 0.1", "front mail b 0.1", "scheduled mail c 0.1 3"].iter().enumerate() {
        until_empty(&scaler).await;
        producer.enqueue(job);
        if job.starts_with("scheduled") {
            scaler
                .until("the job is seen and not due", async || {
                    scaler
                        .of("mail")
                        .await
                        .work
                        .as_deref()
                        .is_some_and(|work| work.later == 1 && work.next_due.is_some())
                })
                .await;
            assert!(scaler.of("mail").await.pool.known().is_some_and(|pool| pool.current() == 0), "nothing is due yet");
        }
        until_ended(&scaler, number + 1).await;
    }
    until_empty(&scaler).await;
    assert_each_once(&scaler, 3);
    let demand = scaler.of("mail").await.demand.clone();
    assert_eq!(demand.depth(), Reading::Known(0));
}

/// A job comes in the moment in which its only worker is asked to leave. The drain timeout is far shorter than the
/// job: a kill would end it. About a millisecond after its signal, an idle worker of RQ drops a job that it has just
/// been handed, which nothing outside of RQ can prevent (docs/frameworks.md); such a job never begins, and stays in
/// the list that the test looks at. How many that are depends on the machine, so it proves nothing. The scheduler of
/// the worker is asked to leave first, which makes them few; that order has a test of its own in
/// `process_backend/scaling.rs`.
#[cfg_attr(without_frameworks, ignore = "the frameworks can't be installed here")]
#[tokio::test]
async fn a_job_taken_in_the_moment_of_a_stop_is_finished_or_kept_by_rq() {
    const ROUNDS: usize = 6;
    const HELD: Duration = Duration::from_secs(4);
    const INTERMEDIATE: &str = "rq:queue:mail:intermediate";
    let redis = server();
    let client = redis.client().await;
    let mut producer = Producer::start("rq_producer.py", &redis.url());
    let scaling = "min_workers = 0, max_workers = 2, cooldown_seconds = 1, drain_timeout_seconds = 1";
    let scaler =
        Autoscaler::start(&redis.url(), &format!("{FAST_SWEEP}{}", of_mail(Packages::Python, scaling, &redis.url())))
            .await;
    scaler.until_ready().await;
    let mut dropped = HashSet::new();
    for round in 0..ROUNDS {
        producer.enqueue(&format!("plain mail a{round} 0.05"));
        // Or has left already, on a busy machine: then the next job starts another one.
        scaler
            .until("its worker is asked to leave", async || {
                let begun = marks(&scaler).contains_key(&format!("a{round}"));
                let of = scaler.of("mail").await;
                begun && (of.workers.is_empty() || of.workers.iter().any(|worker| worker.draining))
            })
            .await;
        let late = format!("b{round}");
        producer.enqueue(&format!("plain mail {late} 2.5"));
        let (mut is_dropped, mut held_since) = (false, None::<Instant>);
        scaler
            .until("the job has ended or was dropped", async || {
                let has_begun = marks(&scaler).contains_key(&late);
                let has_ended = marks(&scaler).get(&late).is_some_and(|(_, ended)| *ended > 0);
                let is_leaving = scaler.of("mail").await.workers.iter().any(|worker| worker.draining);
                let held: u64 = command(&client, &format!("LLEN {INTERMEDIATE}")).await;
                // One that a worker is about to begin is held for some milliseconds.
                let is_held = !has_begun && !is_leaving && held > 0;
                held_since = is_held.then(|| held_since.unwrap_or_else(Instant::now));
                is_dropped = held_since.is_some_and(|since| since.elapsed() > HELD);
                has_ended || is_dropped
            })
            .await;
        if is_dropped {
            dropped.insert(late);
            let _: u64 = command(&client, &format!("DEL {INTERMEDIATE}")).await;
        }
        until_empty(&scaler).await;
    }
    let marks = marks(&scaler);
    let jobs = (0..ROUNDS).flat_map(|round| [format!("a{round}"), format!("b{round}")]);
    let lost: Vec<_> = jobs.filter(|job| !marks.contains_key(job) && !dropped.contains(job)).collect();
    assert!(lost.is_empty(), "neither begun nor kept: {lost:?}\n{}", scaler.log());
    assert_each_once(&scaler, marks.len());
}

/// RQ asks an idle worker to leave by an exception in its signal handler. Python drops it while a log line is written:
/// about one signal in forty that arrives together with a job. The worker goes on as if nothing had been asked.
#[cfg_attr(without_frameworks, ignore = "the frameworks can't be installed here")]
#[tokio::test]
async fn a_worker_that_lost_its_stop_signal_is_asked_again_when_it_is_idle() {
    let redis = server();
    let client = redis.client().await;
    let mut producer = Producer::start("rq_producer.py", &redis.url());
    let scaling = "min_workers = 0, max_workers = 2, cooldown_seconds = 1";
    let deaf = Packages::Python.command(&WORKER.replace("--with-scheduler", "--worker-class rq_deaf.DeafWorker"));
    let settings = settings(Packages::Python, "mail", scaling, FRAMEWORK, &deaf, &redis.url());
    let scaler = Autoscaler::start(&redis.url(), &format!("{FAST_SWEEP}{settings}")).await;
    scaler.until_ready().await;
    producer.enqueue("plain mail a 0.1");
    until_ended(&scaler, 1).await;
    until_empty(&scaler).await;
    assert!(scaler.log().contains("asking it again"), "{}", scaler.log());
    let registered: Vec<String> = command(&client, "SMEMBERS rq:workers").await;
    assert_eq!(registered, [""; 0], "it left in its own way");
    assert_each_once(&scaler, 1);
}

#[cfg_attr(without_frameworks, ignore = "the frameworks can't be installed here")]
#[tokio::test]
async fn bursts_scale_to_zero_and_back_and_every_job_is_done_once() {
    bursts(Packages::Python).await;
}

#[cfg_attr(without_frameworks_redis_5, ignore = "this version can't be installed here")]
#[tokio::test]
async fn bursts_of_rq_3_scale_to_zero_and_back_and_every_job_is_done_once() {
    bursts(Packages::PythonRedis5).await;
}

async fn bursts(packages: Packages) {
    const BURSTS: usize = 3;
    const JOBS: usize = 20;
    let redis = server();
    let mut producer = Producer::start_with(packages, &["rq_producer.py"], &redis.url());
    let scaling = "min_workers = 0, max_workers = 3, cooldown_seconds = 1, scale_up_threshold = 2, \
                   drain_timeout_seconds = 1";
    let scaler =
        Autoscaler::start(&redis.url(), &format!("{FAST_SWEEP}{}", of_mail(packages, scaling, &redis.url()))).await;
    scaler.until_ready().await;
    for burst in 0..BURSTS {
        for job in 0..JOBS {
            producer.enqueue(&format!("plain mail j{burst}-{job} 0.1"));
        }
        until_ended(&scaler, JOBS * (burst + 1)).await;
        until_empty(&scaler).await;
    }
    assert_each_once(&scaler, BURSTS * JOBS);
}
