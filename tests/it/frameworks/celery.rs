//! Celery with real workers.

use super::bed::{Packages, Producer, assert_each_once, marks, server, settings, until_empty, until_ended};
use crate::support::autoscaler::{Autoscaler, FAST_SWEEP, NO_SWEEP, swarm};

/// A worker of two processes, each of which fetches four tasks.
fn of_mail(packages: Packages, scaling: &str, broker: &str) -> String {
    let worker = "celery -A celery_app worker -n $SWARM_WORKER_ID@%h -Q mail -c 2 --loglevel WARNING";
    let framework = "framework = \"celery\"\nqueues = [\"mail\"]\n";
    settings(packages, "mail", scaling, framework, &packages.command(worker), broker)
}

#[cfg_attr(without_frameworks, ignore = "the frameworks can't be installed here")]
#[tokio::test]
async fn one_task_of_each_kind_starts_a_worker_from_zero_and_the_pool_empties_again() {
    one_task_of_each_kind(Packages::Python).await;
}

#[cfg_attr(without_frameworks_redis_5, ignore = "this version can't be installed here")]
#[tokio::test]
async fn one_task_of_each_kind_starts_a_worker_of_celery_5_5_from_zero_and_the_pool_empties_again() {
    one_task_of_each_kind(Packages::PythonRedis5).await;
}

async fn one_task_of_each_kind(packages: Packages) {
    let redis = server();
    let broker = redis.url_db(0);
    let mut producer = Producer::start_with(packages, &["celery_producer.py"], &broker);
    let scaling = "min_workers = 0, max_workers = 2, cooldown_seconds = 1";
    let scaler = Autoscaler::start(&redis.url(), &format!("{NO_SWEEP}{}", of_mail(packages, scaling, &broker))).await;
    scaler.until_ready().await;
    let kinds = ["plain mail a 0.1", "priority mail b 0.1 9", "priority mail c 0.1 4", "delayed mail d 0.1 4"];
    for (number, task) in kinds.iter().enumerate() {
        until_empty(&scaler).await;
        producer.enqueue(task);
        until_ended(&scaler, number + 1).await;
    }
    until_empty(&scaler).await;
    assert_each_once(&scaler, kinds.len());
}

/// A worker fetches a task with an ETA immediately, and holds it until its time.
#[cfg_attr(without_frameworks, ignore = "the frameworks can't be installed here")]
#[tokio::test]
async fn the_doctor_warns_of_a_task_that_a_worker_holds_near_the_visibility_timeout() {
    let redis = server();
    let broker = redis.url_db(0);
    let mut producer = Producer::start("celery_producer.py", &broker);
    let settings = of_mail(Packages::Python, "min_workers = 1, max_workers = 1", &broker);
    // The application has the default, so the task is not delivered a second time here.
    let doctor = format!("[worker_types.mail.celery]\nvisibility_timeout_seconds = 2\n{settings}");
    let scaler = Autoscaler::start(&redis.url(), &format!("{NO_SWEEP}{doctor}")).await;
    scaler.until_ready().await;
    producer.enqueue("delayed mail a 0.1 600");
    scaler
        .until("the doctor names the task", async || {
            let mut doctor = swarm(scaler.directory());
            doctor.args(["doctor", "--url", &scaler.url(), "--config"]).arg(scaler.directory().join("swarm.toml"));
            let told = String::from_utf8(doctor.output().unwrap().stdout).unwrap();
            told.contains("`mail` has 1 job that a worker fetched") && told.contains("a second time 2 s after")
        })
        .await;
}

/// The drain timeout is far shorter than the task: a kill would leave it unfinished, and for an hour at that.
#[cfg_attr(without_frameworks, ignore = "the frameworks can't be installed here")]
#[tokio::test]
async fn fetched_tasks_count_and_no_worker_is_killed_in_the_middle_of_one() {
    no_worker_is_killed_in_the_middle_of_a_task(Packages::Python).await;
}

#[cfg_attr(without_frameworks_redis_5, ignore = "this version can't be installed here")]
#[tokio::test]
async fn fetched_tasks_count_and_no_worker_of_celery_5_5_is_killed_in_the_middle_of_one() {
    no_worker_is_killed_in_the_middle_of_a_task(Packages::PythonRedis5).await;
}

async fn no_worker_is_killed_in_the_middle_of_a_task(packages: Packages) {
    const TASKS: usize = 24;
    let redis = server();
    let broker = redis.url_db(0);
    let mut producer = Producer::start_with(packages, &["celery_producer.py"], &broker);
    let scaling = "min_workers = 0, max_workers = 2, cooldown_seconds = 1, scale_up_threshold = 4, \
                   drain_timeout_seconds = 1";
    let scaler = Autoscaler::start(&redis.url(), &format!("{FAST_SWEEP}{}", of_mail(packages, scaling, &broker))).await;
    scaler.until_ready().await;
    for task in 0..TASKS {
        producer.enqueue(&format!("plain mail t{task} {}", if task % 8 == 0 { 4 } else { 1 }));
    }
    scaler.until("a worker runs a task", async || !marks(&scaler).is_empty()).await;
    until_ended(&scaler, TASKS).await;
    until_empty(&scaler).await;
    assert_each_once(&scaler, TASKS);
}
