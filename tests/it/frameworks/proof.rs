//! 2,000 jobs in bursts while the pool goes from 0 to N and back every few seconds: none is lost, none is done twice,
//! and no worker is stopped in the middle of one, by the jobs' own marks. Minutes long: `make frameworks` runs it.

use std::{
    cell::{Cell, RefCell},
    time::{Duration, Instant},
};

use fred::prelude::Client;

use super::{
    bed::{Packages, marks, server},
    programs::{ARQ, ASYNQ, BULL, BULLMQ_5, BULLMQ_6, DRAMATIQ, HUEY, Program, TASKIQ},
};
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
async fn run(redis: &RedisServer, program: &Program, dropped: &impl AsyncFn() -> usize) {
    let broker = redis.url_db(0);
    let mut producer = program.start_producer(&broker);
    let scaling = "min_workers = 0, max_workers = 3, cooldown_seconds = 1, scale_up_threshold = 10";
    let settings = program.settings(scaling, &broker);
    let scaler = Autoscaler::start(&redis.url(), &format!("{FAST_SWEEP}{settings}")).await;
    scaler.until_ready().await;
    let until_empty = async || {
        let is_empty = async || {
            dropped().await;
            scaler.of("mail").await.workers.is_empty()
        };
        scaler.until("every worker has ended", is_empty).await;
    };
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
            until_empty().await;
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
    until_empty().await;
    let (marks, dropped) = (marks(&scaler), dropped().await);
    let twice = marks.values().filter(|(begun, _)| *begun > 1).count();
    let unfinished = marks.values().filter(|(_, ended)| *ended == 0).count();
    println!(
        "{}: {} jobs done, {twice} twice, {unfinished} stopped in the middle, {dropped} dropped by the \
         framework itself; the pool was empty at least {to_zero} times",
        program.name,
        marks.len()
    );
    assert_eq!((twice, unfinished), (0, 0), "{}", scaler.log());
    assert_eq!(marks.len() + dropped, BURSTS * JOBS, "{}", scaler.log());
}

const RQ: Program = Program {
    name: "RQ",
    framework: "framework = \"rq\"\nqueues = [\"mail\"]\n",
    packages: Packages::Python,
    producer: &["rq_producer.py"],
    worker: "rq worker --url $BROKER --name $SWARM_WORKER_ID --with-scheduler mail",
    drain_timeout: 1,
    kinds: &[],
};

const CELERY: Program = Program {
    name: "Celery",
    framework: "framework = \"celery\"\nqueues = [\"mail\"]\n",
    producer: &["celery_producer.py"],
    worker: "celery -A celery_app worker -n $SWARM_WORKER_ID@%h -Q mail -c 2 --loglevel WARNING",
    ..RQ
};

/// Jobs that idle workers of RQ have dropped in the moment of their signal: docs/frameworks.md. Until RQ's maintenance
/// finds them, after ten minutes, RQ names nobody idle.
#[derive(Default)]
struct Dropped {
    found: Cell<usize>,
    /// A job on its way to a worker, and since when.
    held: RefCell<Option<(String, Instant)>>,
}

impl Dropped {
    /// Removes a job that no worker has begun for long, as that maintenance does. Returns how many there were.
    async fn put_aside(&self, client: &Client) -> usize {
        const LONG: Duration = Duration::from_secs(20);
        const KEY: &str = "rq:queue:mail:intermediate";
        let job: Option<String> = command(client, &format!("LINDEX {KEY} 0")).await;
        let since = self.held.borrow().as_ref().filter(|(held, _)| Some(held) == job.as_ref()).map(|(_, since)| *since);
        if let Some(job) = job.as_ref().filter(|_| since.is_some_and(|since| since.elapsed() > LONG)) {
            let removed: usize = command(client, &format!("LREM {KEY} 0 {job}")).await;
            self.found.set(self.found.get() + removed);
        }
        *self.held.borrow_mut() = job.map(|job| (job, since.unwrap_or_else(Instant::now)));
        self.found.get()
    }
}

/// Runs the bursts of a framework that drops nothing by itself.
async fn does_each_job_once(program: &Program) {
    run(&server(), program, &async || 0).await;
}

#[ignore = "minutes long: make frameworks"]
#[tokio::test]
async fn rq_does_2000_jobs_once_while_its_pool_comes_and_goes() {
    let redis = server();
    let client = redis.client().await;
    let dropped = Dropped::default();
    run(&redis, &RQ, &async || dropped.put_aside(&client).await).await;
}

#[ignore = "minutes long: make frameworks"]
#[tokio::test]
async fn celery_does_2000_jobs_once_while_its_pool_comes_and_goes() {
    does_each_job_once(&CELERY).await;
}

#[ignore = "minutes long: make frameworks"]
#[tokio::test]
async fn dramatiq_does_2000_jobs_once_while_its_pool_comes_and_goes() {
    does_each_job_once(&DRAMATIQ).await;
}

#[ignore = "minutes long: make frameworks"]
#[tokio::test]
async fn huey_does_2000_jobs_once_while_its_pool_comes_and_goes() {
    does_each_job_once(&HUEY).await;
}

#[ignore = "minutes long: make frameworks"]
#[tokio::test]
async fn taskiq_does_2000_jobs_once_while_its_pool_comes_and_goes() {
    does_each_job_once(&TASKIQ).await;
}

#[ignore = "minutes long: make frameworks"]
#[tokio::test]
async fn arq_does_2000_jobs_once_while_its_pool_comes_and_goes() {
    does_each_job_once(&ARQ).await;
}

#[ignore = "minutes long: make frameworks"]
#[tokio::test]
async fn asynq_does_2000_jobs_once_while_its_pool_comes_and_goes() {
    does_each_job_once(&ASYNQ).await;
}

#[ignore = "minutes long: make frameworks"]
#[tokio::test]
async fn bullmq_5_does_2000_jobs_once_while_its_pool_comes_and_goes() {
    does_each_job_once(&BULLMQ_5).await;
}

#[ignore = "minutes long: make frameworks"]
#[tokio::test]
async fn bullmq_6_does_2000_jobs_once_while_its_pool_comes_and_goes() {
    does_each_job_once(&BULLMQ_6).await;
}

#[ignore = "minutes long: make frameworks"]
#[tokio::test]
async fn bull_does_2000_jobs_once_while_its_pool_comes_and_goes() {
    does_each_job_once(&BULL).await;
}
