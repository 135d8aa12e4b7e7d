//! Dramatiq, Huey, Taskiq, arq, asynq, BullMQ and Bull with real workers, one program each. From zero, a job of each
//! kind starts a worker; the jobs of a burst are done once, by workers that nobody stops in the middle of a job.

use super::bed::{Packages, Producer, assert_each_once, server, settings, until_empty, until_ended};
use crate::support::autoscaler::{Autoscaler, NO_SWEEP};

/// Seconds of the longest job of a burst.
const LONGEST: u32 = 2;

/// A framework, and how its worker is started.
struct Program {
    /// The framework and its queue, in TOML.
    framework: &'static str,
    packages: Packages,
    /// What the producer gets as its argument: a module in `tests/testdata/frameworks`, or a package; in Go, its role.
    module: &'static str,
    /// Program and arguments of the worker; of JavaScript, the script.
    worker: &'static str,
    /// Drain timeout, in seconds. Shorter than the longest job, unless the stop signal follows it.
    drain_timeout: u32,
    /// Kinds of jobs that start a worker from zero.
    kinds: &'static [&'static str],
}

async fn starts_from_zero_and_finishes_every_job(program: &Program) {
    const BURST: usize = 8;
    let Program { framework, packages, module, worker, drain_timeout, kinds } = program;
    let redis = server();
    let broker = redis.url_db(0);
    let producer = match packages {
        Packages::Node => "node_producer.js",
        Packages::Python | Packages::PythonRedis5 => "producer.py",
        Packages::Go => "asynq_app",
    };
    let mut producer = Producer::start_with(*packages, &[producer, module], &broker);
    let scaling = format!(
        "min_workers = 0, max_workers = 2, cooldown_seconds = 1, scale_up_threshold = 4, \
         drain_timeout_seconds = {drain_timeout}"
    );
    let settings = settings(*packages, "mail", &scaling, framework, &packages.command(worker), &broker);
    let scaler = Autoscaler::start(&redis.url(), &format!("{NO_SWEEP}{settings}")).await;
    scaler.until_ready().await;
    for (number, kind) in kinds.iter().enumerate() {
        until_empty(&scaler).await;
        producer.enqueue(&format!("{kind} mail {kind} 0.1 2"));
        until_ended(&scaler, number + 1).await;
    }
    for job in 0..BURST {
        let seconds = if job == 0 { LONGEST.to_string() } else { "0.5".to_owned() };
        producer.enqueue(&format!("plain mail burst-{job} {seconds}"));
    }
    until_ended(&scaler, kinds.len() + BURST).await;
    until_empty(&scaler).await;
    assert_each_once(&scaler, kinds.len() + BURST);
}

#[cfg_attr(without_frameworks, ignore = "the frameworks can't be installed here")]
#[tokio::test]
async fn dramatiq_starts_from_zero_and_finishes_every_job() {
    starts_from_zero_and_finishes_every_job(&Program {
        framework: "framework = \"dramatiq\"\nqueues = [\"mail\"]\n",
        packages: Packages::Python,
        module: "dramatiq_app",
        worker: "dramatiq dramatiq_app --processes 1 --threads 2",
        drain_timeout: 1,
        kinds: &["plain", "delayed"],
    })
    .await;
}

/// SIGINT stops the consumers: SIGTERM would interrupt the jobs.
#[cfg_attr(without_frameworks, ignore = "the frameworks can't be installed here")]
#[tokio::test]
async fn huey_starts_from_zero_and_finishes_every_job() {
    starts_from_zero_and_finishes_every_job(&Program {
        framework: "framework = \"huey\"\nqueues = [\"mail\"]\nlongest_job_seconds = 2\n",
        packages: Packages::Python,
        module: "huey_app",
        worker: "huey_consumer huey_app.huey --workers 2",
        drain_timeout: 1,
        kinds: &["plain", "delayed"],
    })
    .await;
}

#[cfg_attr(without_frameworks, ignore = "the frameworks can't be installed here")]
#[tokio::test]
async fn taskiq_starts_from_zero_and_finishes_every_job() {
    starts_from_zero_and_finishes_every_job(&Program {
        framework: "framework = \"taskiq\"\nqueues = [\"mail\"]\nlongest_job_seconds = 2\n",
        packages: Packages::Python,
        module: "taskiq_app",
        worker: "taskiq worker taskiq_app:broker --workers 1",
        drain_timeout: 1,
        kinds: &["plain"],
    })
    .await;
}

/// The worker has `job_completion_wait`: SIGTERM would cancel the jobs.
#[cfg_attr(without_frameworks_redis_5, ignore = "arq can't be installed here")]
#[tokio::test]
async fn arq_starts_from_zero_and_finishes_every_job() {
    starts_from_zero_and_finishes_every_job(&Program {
        framework: "framework = \"arq\"\nqueues = [\"mail\"]\n",
        packages: Packages::PythonRedis5,
        module: "arq_app",
        worker: "arq arq_app.WorkerSettings",
        drain_timeout: 1,
        kinds: &["plain", "delayed"],
    })
    .await;
}

/// After SIGTERM the worker gives jobs 1 s, less than the longest of them takes: SIGTSTP comes first.
#[cfg_attr(without_frameworks_go, ignore = "asynq can't be compiled here")]
#[tokio::test]
async fn asynq_starts_from_zero_and_finishes_every_job() {
    starts_from_zero_and_finishes_every_job(&Program {
        framework: "framework = \"asynq\"\nqueues = [\"mail\"]\n",
        packages: Packages::Go,
        module: "producer",
        worker: "asynq_app worker",
        drain_timeout: 600,
        kinds: &["plain", "delayed"],
    })
    .await;
}

/// The program handles SIGTERM: the library does not.
async fn of_node(framework: &'static str, module: &'static str, worker: &'static str) {
    let program = Program {
        framework,
        packages: Packages::Node,
        module,
        worker,
        drain_timeout: 1,
        kinds: &["plain", "priority", "delayed"],
    };
    starts_from_zero_and_finishes_every_job(&program).await;
}

#[cfg_attr(without_frameworks_node, ignore = "BullMQ can't be installed here")]
#[tokio::test]
async fn bullmq_5_starts_from_zero_and_finishes_every_job() {
    of_node("framework = \"bullmq\"\nqueues = [\"mail\"]\n", "bullmq5", "node_worker.js bullmq5").await;
}

#[cfg_attr(without_frameworks_node, ignore = "BullMQ can't be installed here")]
#[tokio::test]
async fn bullmq_6_starts_from_zero_and_finishes_every_job() {
    of_node("framework = \"bullmq\"\nqueues = [\"mail\"]\n", "bullmq6", "node_worker.js bullmq6").await;
}

#[cfg_attr(without_frameworks_node, ignore = "Bull can't be installed here")]
#[tokio::test]
async fn bull_starts_from_zero_and_finishes_every_job() {
    of_node("framework = \"bull\"\nqueues = [\"mail\"]\n", "bull", "node_worker.js bull").await;
}
