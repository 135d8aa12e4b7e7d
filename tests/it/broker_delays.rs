//! Delayed jobs: on their stream once, not before they are due, and in time for a pool that sleeps.

use std::time::{Duration, Instant};

use fred::prelude::*;
use futures_util::future::join_all;
use secrecy::SecretString;
use serde_json::{Map, json};
use swarm::{
    broker::{Consumer, Job, JobPolicy, Published, Publisher},
    config::BrokerSettings,
    connection::RedisTarget,
    model::Timestamp,
};

use crate::support::{
    autoscaler::{Autoscaler, NO_SWEEP, real_pool},
    command::redis as command,
    redis::RedisServer,
    wait::{DEADLINE, eventually},
};

const QUEUE: &str = "test:jobs";

fn target(server: &RedisServer) -> RedisTarget {
    RedisTarget::new(&SecretString::from(server.url()), DEADLINE).unwrap()
}

fn job(id: &str) -> Job {
    Job { id: id.to_owned(), ..Job::new("test.echo", vec![json!(id)], Map::new()) }
}

fn consumer(name: &str) -> Consumer {
    let (stream, group, name) = (QUEUE.to_owned(), "test".to_owned(), name.to_owned());
    Consumer { stream, group, name, policy: JobPolicy::default() }
}

async fn publisher(server: &RedisServer) -> Publisher {
    Publisher::new(target(server).connect().await.unwrap(), "jobs:published", BrokerSettings::default())
}

#[tokio::test]
async fn however_many_move_them_each_job_is_on_its_stream_once() {
    let server = RedisServer::start();
    let client = server.client().await;
    let due = Timestamp::wall().after(Duration::from_secs(1));
    #[expect(clippy::cast_precision_loss, reason = "a date")]
    let not_before_ts = Some(due.0 as f64 / 1e3);
    let jobs: Vec<Job> = (0..2_000).map(|n| Job { not_before_ts, ..job(&n.to_string()) }).collect();
    let placed = publisher(&server).await.publish(QUEUE, &jobs).await.unwrap();
    // A machine under load may not be done before the first are due.
    let aside = placed.iter().filter(|placed| **placed == Published::Delayed { due }).count();
    assert!(aside > 0, "{:?}", placed[0]);
    let movers = (0..8).map(|n| {
        let target = target(&server);
        async move {
            let (mut connection, consumer) = (target.connect().await.unwrap(), consumer(&n.to_string()));
            let mut moved = 0;
            while let Some(wait) = {
                let delayed = consumer.move_due(&mut connection).await.unwrap();
                moved += delayed.moved;
                delayed.next
            } {
                tokio::time::sleep(wait.max(Duration::from_millis(1))).await;
            }
            moved
        }
    });
    let moved: u64 = join_all(movers).await.into_iter().sum();
    assert_eq!(moved, aside as u64);
    let entries: Vec<(String, std::collections::HashMap<String, String>)> =
        client.xrange_values(QUEUE, "-", "+", None).await.unwrap();
    assert_eq!(entries.len(), 2_000);
    let first = entries[0].0.split('-').next().unwrap().parse::<u64>().unwrap();
    assert!(first >= due.0, "one was there {} ms before it was due", due.0 - first);
}

#[tokio::test]
async fn a_delay_that_is_over_is_none() {
    let server = RedisServer::start();
    let late = Job { not_before_ts: Some(1.0), ..job("a") };
    let placed = publisher(&server).await.publish(QUEUE, &[late]).await.unwrap();
    assert!(matches!(placed[0], Published::Entry { .. }), "{placed:?}");
}

/// The sweep comes too late here, and no worker runs that could move the job: the autoscaler's timer does.
#[tokio::test]
async fn a_delayed_job_wakes_a_pool_that_sleeps_when_it_is_due() {
    let server = RedisServer::start();
    let client = server.client().await;
    let pool = real_pool("test", "min_workers = 0, cooldown_seconds = 0");
    let scaler = Autoscaler::start(&server.url(), &format!("{NO_SWEEP}{pool}")).await;
    scaler.until_ready().await;
    let two_are_counted = async || scaler.status().await.delayed.get(QUEUE) == Some(&2);
    let mut publisher = publisher(&server).await;
    let late = ["late", "later"].map(|id| job(id).with_reply().with_delay(Duration::from_secs(600)));
    publisher.publish(QUEUE, &late).await.unwrap();
    scaler.until("both are counted", async || two_are_counted().await).await;
    let (before, delay) = (Instant::now(), Duration::from_secs(1));
    publisher.publish(QUEUE, &[job("a").with_reply().with_delay(delay)]).await.unwrap();
    let answer: Option<(String, String)> = client.blpop("result:a", DEADLINE.as_secs_f64()).await.unwrap();
    assert!(answer.is_some(), "no answer within {DEADLINE:?}\n{}", scaler.log());
    assert!(before.elapsed() >= delay);
    scaler.until("the others are left", async || two_are_counted().await).await;
}

/// Whoever adds a job by hand need not say so: the autoscaler looks for it at each connect and sweep.
#[tokio::test]
async fn jobs_that_nobody_told_of_are_found() {
    let server = RedisServer::start();
    let client = server.client().await;
    let _: u64 = command(&client, &format!("ZADD {QUEUE}:delayed 1000 {}", job("a").with_reply().to_json())).await;
    let pool = real_pool("test", "min_workers = 0, cooldown_seconds = 0");
    let _scaler = Autoscaler::start(&server.url(), &format!("{NO_SWEEP}{pool}")).await;
    let answered = async || client.exists::<u64, _>("result:a").await.unwrap() == 1;
    assert!(eventually(DEADLINE, answered).await);
}

#[tokio::test]
async fn a_delayed_set_that_is_something_else_stops_nothing() {
    let server = RedisServer::start();
    let client = server.client().await;
    let _: String = command(&client, "SET broken:jobs:delayed x").await;
    let _: u64 = command(&client, &format!("ZADD {QUEUE}:delayed 1000 {}", job("a").with_reply().to_json())).await;
    let scaling = "min_workers = 0, cooldown_seconds = 0";
    let pools = real_pool("test", scaling) + &real_pool("broken", scaling);
    let scaler = Autoscaler::start(&server.url(), &format!("{NO_SWEEP}{pools}")).await;
    scaler.until_logged("delayed jobs stay where they are").await;
    let answer: Option<(String, String)> = client.blpop("result:a", DEADLINE.as_secs_f64()).await.unwrap();
    assert!(answer.is_some(), "{}", scaler.log());
}
