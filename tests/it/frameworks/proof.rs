//! 2,000 jobs in bursts while the pool goes from 0 to N and back every few seconds: none is lost, none is done twice,
//! and no worker is stopped in the middle of one, by the jobs' own marks. Minutes long: `make frameworks` runs it.

use super::bed::{Packages, Producer, marks, server, settings, until_empty};
use crate::support::{
    autoscaler::{Autoscaler, FAST_SWEEP},
    command::redis as command,
    redis::RedisServer,
};

const BURSTS: usize = 40;
const JOBS: usize = 50;

/// Runs the bursts. Every second one begins while workers are leaving. `dropped` counts jobs that the framework itself
/// has put aside.
#[expect(clippy::print_stdout, reason = "the numbers are what it is run for")]
async fn run(
    redis: &RedisServer,
    mut producer: Producer,
    (framework, worker): (&str, &str),
    dropped: &impl AsyncFn() -> usize,
) {
    let broker = redis.url_db(0);
    let of = format!("framework = \"{framework}\"\nqueues = [\"mail\"]\n");
    let scaling = "min_workers = 0, max_workers = 3, cooldown_seconds = 1, scale_up_threshold = 10, \
                   drain_timeout_seconds = 1";
    let settings = settings(Packages::Python, "mail", scaling, &of, &Packages::Python.command(worker), &broker);
    let scaler = Autoscaler::start(&redis.url(), &format!("{FAST_SWEEP}{settings}")).await;
    scaler.until_ready().await;
    let mut to_zero = 0;
    for burst in 0..BURSTS {
        for job in 0..JOBS {
            producer.enqueue(&format!("plain mail j{burst}-{job} {}", if job % 10 == 0 { 0.5 } else { 0.01 }));
        }
        let expected = (burst + 1) * JOBS;
        scaler
            .until("the jobs of a burst have ended", async || {
                let ended = marks(&scaler).values().filter(|(_, ended)| *ended > 0).count();
                ended + dropped().await >= expected
            })
            .await;
        if burst % 2 == 0 {
            until_empty(&scaler).await;
            to_zero += 1;
        } else {
            scaler
                .until("workers are leaving", async || {
                    let of = scaler.of("mail").await;
                    of.workers.is_empty() || of.workers.iter().any(|worker| worker.draining)
                })
                .await;
        }
    }
    until_empty(&scaler).await;
    let (marks, dropped) = (marks(&scaler), dropped().await);
    let twice = marks.values().filter(|(begun, _)| *begun > 1).count();
    let unfinished = marks.values().filter(|(_, ended)| *ended == 0).count();
    println!(
        "{framework}: {} jobs done, {twice} twice, {unfinished} stopped in the middle, {dropped} dropped by the \
         framework itself; the pool was empty at least {to_zero} times",
        marks.len()
    );
    assert_eq!((twice, unfinished), (0, 0), "{}", scaler.log());
    assert_eq!(marks.len() + dropped, BURSTS * JOBS, "{}", scaler.log());
}

#[ignore = "minutes long: make frameworks"]
#[tokio::test]
async fn rq_does_2000_jobs_once_while_its_pool_comes_and_goes() {
    let redis = server();
    let client = redis.client().await;
    let producer = Producer::start("rq_producer.py", &redis.url());
    let worker = "rq worker --url $BROKER --name $SWARM_WORKER_ID --with-scheduler mail";
    // An idle worker of RQ can drop a job in the moment of its signal: docs/frameworks.md.
    let dropped = async || {
        let held: u64 = command(&client, "LLEN rq:queue:mail:intermediate").await;
        usize::try_from(held).unwrap()
    };
    run(&redis, producer, ("rq", worker), &dropped).await;
}

#[ignore = "minutes long: make frameworks"]
#[tokio::test]
async fn celery_does_2000_tasks_once_while_its_pool_comes_and_goes() {
    let redis = server();
    let producer = Producer::start("celery_producer.py", &redis.url_db(0));
    let worker = "celery -A celery_app worker -n $SWARM_WORKER_ID@%h -Q mail -c 2 --loglevel WARNING";
    run(&redis, producer, ("celery", worker), &async || 0).await;
}
