//! Dramatiq, Huey, Taskiq, arq, asynq, BullMQ and Bull with real workers, one program each. From zero, a job of each
//! kind starts a worker; the jobs of a burst are done once, by workers that nobody stops in the middle of a job.

use super::bed::{Packages, Producer, assert_each_once, server, settings, until_empty, until_ended};
use crate::support::autoscaler::{Autoscaler, NO_SWEEP};

/// A framework, and how its jobs and its worker are started.
pub(super) struct Program {
    pub(super) name: &'static str,
    /// The framework and its queue, in TOML.
    pub(super) framework: &'static str,
    pub(super) packages: Packages,
    /// The producer and its arguments.
    pub(super) producer: &'static [&'static str],
    /// Program and arguments of the worker; of JavaScript, the script.
    pub(super) worker: &'static str,
    /// Drain timeout, in seconds. Shorter than the longest job, unless the stop signal follows it.
    pub(super) drain_timeout: u32,
    /// Kinds of jobs that start a worker from zero.
    pub(super) kinds: &'static [&'static str],
}

impl Program {
    pub(super) fn start_producer(&self, broker: &str) -> Producer {
        Producer::start_with(self.packages, self.producer, broker)
    }

    /// Returns the TOML of worker type `mail`, with these settings of `scaling`.
    pub(super) fn settings(&self, scaling: &str, broker: &str) -> String {
        let scaling = format!("{scaling}, drain_timeout_seconds = {}", self.drain_timeout);
        settings(self.packages, "mail", &scaling, self.framework, &self.packages.command(self.worker), broker)
    }
}

pub(super) const DRAMATIQ: Program = Program {
    name: "Dramatiq",
    framework: "framework = \"dramatiq\"\nqueues = [\"mail\"]\n",
    packages: Packages::Python,
    producer: &["producer.py", "dramatiq_app"],
    worker: "dramatiq dramatiq_app --processes 1 --threads 2",
    drain_timeout: 1,
    kinds: &["plain", "delayed"],
};

/// SIGINT stops the consumers: SIGTERM would interrupt the jobs.
pub(super) const HUEY: Program = Program {
    name: "Huey",
    framework: "framework = \"huey\"\nqueues = [\"mail\"]\nlongest_job_seconds = 2\n",
    packages: Packages::Python,
    producer: &["producer.py", "huey_app"],
    worker: "huey_consumer huey_app.huey --workers 2",
    drain_timeout: 1,
    kinds: &["plain", "delayed"],
};

pub(super) const TASKIQ: Program = Program {
    name: "Taskiq",
    framework: "framework = \"taskiq\"\nqueues = [\"mail\"]\nlongest_job_seconds = 2\n",
    packages: Packages::Python,
    producer: &["producer.py", "taskiq_app"],
    worker: "taskiq worker taskiq_app:broker --workers 1",
    drain_timeout: 1,
    kinds: &["plain"],
};

/// The worker has `job_completion_wait`: SIGTERM would cancel the jobs.
pub(super) const ARQ: Program = Program {
    name: "arq",
    framework: "framework = \"arq\"\nqueues = [\"mail\"]\n",
    packages: Packages::PythonRedis5,
    producer: &["producer.py", "arq_app"],
    worker: "arq arq_app.WorkerSettings",
    drain_timeout: 1,
    kinds: &["plain", "delayed"],
};

/// After SIGTERM the worker gives jobs 1 s, less than the longest of them takes: SIGTSTP comes first.
pub(super) const ASYNQ: Program = Program {
    name: "asynq",
    framework: "framework = \"asynq\"\nqueues = [\"mail\"]\n",
    packages: Packages::Go,
    producer: &["asynq_app", "producer"],
    worker: "asynq_app worker",
    drain_timeout: 600,
    kinds: &["plain", "delayed"],
};

pub(super) const BULLMQ_5: Program = Program {
    name: "BullMQ 5",
    producer: &["node_producer.js", "bullmq5"],
    worker: "node_worker.js bullmq5",
    ..BULLMQ_6
};

/// The program handles SIGTERM: the library does not.
pub(super) const BULLMQ_6: Program = Program {
    name: "BullMQ 6",
    framework: "framework = \"bullmq\"\nqueues = [\"mail\"]\n",
    packages: Packages::Node,
    producer: &["node_producer.js", "bullmq6"],
    worker: "node_worker.js bullmq6",
    drain_timeout: 1,
    kinds: &["plain", "priority", "delayed"],
};

pub(super) const BULL: Program = Program {
    name: "Bull",
    framework: "framework = \"bull\"\nqueues = [\"mail\"]\n",
    producer: &["node_producer.js", "bull"],
    worker: "node_worker.js bull",
    ..BULLMQ_6
};

/// Seconds of the longest job of a burst.
const LONGEST: u32 = 2;

async fn starts_from_zero_and_finishes_every_job(program: &Program) {
    const BURST: usize = 8;
    let redis = server();
    let broker = redis.url_db(0);
    let mut producer = program.start_producer(&broker);
    let scaling = "min_workers = 0, max_workers = 2, cooldown_seconds = 1, scale_up_threshold = 4";
    let settings = program.settings(scaling, &broker);
    let scaler = Autoscaler::start(&redis.url(), &format!("{NO_SWEEP}{settings}")).await;
    scaler.until_ready().await;
    for (number, kind) in program.kinds.iter().enumerate() {
        until_empty(&scaler).await;
        producer.enqueue(&format!("{kind} mail {kind} 0.1 2"));
        until_ended(&scaler, number + 1).await;
    }
    for job in 0..BURST {
        let seconds = if job == 0 { LONGEST.to_string() } else { "0.5".to_owned() };
        producer.enqueue(&format!("plain mail burst-{job} {seconds}"));
    }
    let all = program.kinds.len() + BURST;
    until_ended(&scaler, all).await;
    until_empty(&scaler).await;
    assert_each_once(&scaler, all);
}

#[cfg_attr(without_frameworks, ignore = "the frameworks can't be installed here")]
#[tokio::test]
async fn dramatiq_starts_from_zero_and_finishes_every_job() {
    starts_from_zero_and_finishes_every_job(&DRAMATIQ).await;
}

#[cfg_attr(without_frameworks, ignore = "the frameworks can't be installed here")]
#[tokio::test]
async fn huey_starts_from_zero_and_finishes_every_job() {
    starts_from_zero_and_finishes_every_job(&HUEY).await;
}

#[cfg_attr(without_frameworks, ignore = "the frameworks can't be installed here")]
#[tokio::test]
async fn taskiq_starts_from_zero_and_finishes_every_job() {
    starts_from_zero_and_finishes_every_job(&TASKIQ).await;
}

#[cfg_attr(without_frameworks_redis_5, ignore = "arq can't be installed here")]
#[tokio::test]
async fn arq_starts_from_zero_and_finishes_every_job() {
    starts_from_zero_and_finishes_every_job(&ARQ).await;
}

#[cfg_attr(without_frameworks_go, ignore = "asynq can't be compiled here")]
#[tokio::test]
async fn asynq_starts_from_zero_and_finishes_every_job() {
    starts_from_zero_and_finishes_every_job(&ASYNQ).await;
}

#[cfg_attr(without_frameworks_node, ignore = "BullMQ can't be installed here")]
#[tokio::test]
async fn bullmq_5_starts_from_zero_and_finishes_every_job() {
    starts_from_zero_and_finishes_every_job(&BULLMQ_5).await;
}

#[cfg_attr(without_frameworks_node, ignore = "BullMQ can't be installed here")]
#[tokio::test]
async fn bullmq_6_starts_from_zero_and_finishes_every_job() {
    starts_from_zero_and_finishes_every_job(&BULLMQ_6).await;
}

#[cfg_attr(without_frameworks_node, ignore = "Bull can't be installed here")]
#[tokio::test]
async fn bull_starts_from_zero_and_finishes_every_job() {
    starts_from_zero_and_finishes_every_job(&BULL).await;
}
