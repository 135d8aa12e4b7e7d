//! Queues that patterns find, while a worker runs: they appear, go, and may turn out to be none.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use fred::{interfaces::ClientLike, types::CustomCommand};
use serde_json::{Map, json};
use swarm::{
    broker::{DelayedScheduler, Job, Published, Publisher},
    config::BrokerSettings,
    model::QueuePattern,
};
use tokio_util::sync::CancellationToken;

use super::{SETTINGS, held, let_go, publish, put, target, until_answered};
use crate::servers::{Tested, on_servers};
use crate::support::{
    command::redis,
    redis::RedisServer,
    wait::{DEADLINE, eventually},
    worker::WorkerProcess,
};

on_servers! {
    [installed, valkey_8, redis_6_2],
    [
        a_queue_that_appears_is_served_at_once_and_one_that_is_deleted_is_not_made_again,
        a_job_in_hand_outlives_its_queue,
    ]
}

async fn a_queue_that_appears_is_served_at_once_and_one_that_is_deleted_is_not_made_again(tested: &Tested) {
    let server = tested.start(&[]);
    let client = server.client().await;
    let worker = WorkerProcess::start_with(&server.url(), "w1", SETTINGS);
    worker.until_state(&client, "IDLE").await;
    let logged = async |text: &str| {
        let there = async || worker.log().contains(text);
        assert!(eventually(DEADLINE, there).await, "`{text}` is not in\n{}", worker.log());
    };
    for round in 0..3 {
        publish(&client, "tenant-1:jobs", &format!("first-{round}"), "t.echo", json!([])).await;
        until_answered(&client, &worker, &format!("first-{round}"), 1).await;
        let _: u64 = redis(&client, "DEL tenant-1:jobs").await;
        // While it waits for jobs, and between jobs.
        for number in 0..5 {
            let id = format!("other-{round}-{number}");
            publish(&client, "urgent", &id, "t.echo", json!([])).await;
            until_answered(&client, &worker, &id, 1).await;
        }
        let dropped = async || worker.log().matches("no longer served: it is gone").count() == round + 1;
        assert!(eventually(DEADLINE, dropped).await, "{}", worker.log());
        assert_eq!(redis::<u64>(&client, "EXISTS tenant-1:jobs").await, 0);
    }
    logged("found a queue").await;

    let _: String = redis(&client, "SET tenant-2:jobs a-string").await;
    let _: u64 = redis(&client, "PUBLISH jobs:published tenant-2:jobs").await;
    logged("no longer served: it is not a stream").await;
    publish(&client, "slow", "after", "t.echo", json!([])).await;
    until_answered(&client, &worker, "after", 1).await;
    let foreign = ["tenant-1:jobs:dead", "tenant-1:jobs:more", "somebody:jobs"];
    for key in foreign {
        publish(&client, key, key, "t.echo", json!([])).await;
    }
    publish(&client, "tenant-3:jobs", "last", "t.echo", json!([])).await;
    until_answered(&client, &worker, "last", 1).await;
    for key in foreign {
        let groups: Vec<fred::types::Value> = redis(&client, &format!("XINFO GROUPS {key}")).await;
        assert!(groups.is_empty(), "{key} was read");
    }
}

async fn a_job_in_hand_outlives_its_queue(tested: &Tested) {
    let server = tested.start(&[]);
    let client = server.client().await;
    let settings = format!("{}[worker_types.t.jobs]\nclaim_seconds = 1\n", held("exit 75"));
    let worker = WorkerProcess::start_with(&server.url(), "w1", &settings);
    worker.until_state(&client, "IDLE").await;
    publish(&client, "tenant-1:jobs", "a", "t.fail", json!([])).await;
    worker.until_state(&client, "BUSY").await;
    let _: u64 = redis(&client, "DEL tenant-1:jobs").await;
    let_go(&worker);
    worker.until_state(&client, "IDLE").await;
    let told = async || worker.log().contains("the queue of a failed job is gone");
    assert!(eventually(DEADLINE, told).await, "{}", worker.log());
    publish(&client, "urgent", "b", "t.echo", json!([])).await;
    until_answered(&client, &worker, "b", 1).await;
    assert_eq!(redis::<u64>(&client, "EXISTS tenant-1:jobs tenant-1:jobs:delayed tenant-1:jobs:dead").await, 0);
}

#[tokio::test]
async fn a_queue_that_nobody_tells_of_is_found_by_looking() {
    let server = RedisServer::start();
    let client = server.client().await;
    let settings = SETTINGS.replace("86400", "1");
    let worker = WorkerProcess::start_with(&server.url(), "w1", &settings);
    worker.until_state(&client, "IDLE").await;
    put(&client, "tenant-1:jobs", "a", "t.echo", json!([])).await;
    until_answered(&client, &worker, "a", 1).await;
}

#[tokio::test]
async fn a_job_is_handed_over_on_a_queue_that_the_worker_has_not_found() {
    let server = RedisServer::start();
    let client = server.client().await;
    let worker = WorkerProcess::start_with(&server.url(), "w1", SETTINGS);
    worker.until_state(&client, "IDLE").await;
    put(&client, "tenant-1:jobs", "a", "t.echo", json!([])).await;
    let _: String = redis(&client, "XGROUP CREATE tenant-1:jobs t 0").await;
    let entries: Vec<(String, Vec<String>)> = redis(&client, "XRANGE tenant-1:jobs - +").await;
    let _: fred::types::Value = redis(&client, "XREADGROUP GROUP t w2 STREAMS tenant-1:jobs >").await;
    let _: Vec<String> = redis(&client, &format!("XCLAIM tenant-1:jobs t w1 0 {} JUSTID", entries[0].0)).await;
    let told = CustomCommand::new_static("PUBLISH", None, false);
    let _: u64 = client.custom(told, vec!["worker:control:t:w1", "jobs tenant-1:jobs"]).await.unwrap();
    until_answered(&client, &worker, "a", 1).await;
}

#[tokio::test]
async fn a_named_queue_that_is_no_stream_harms_no_other() {
    let server = RedisServer::start();
    let client = server.client().await;
    let _: String = redis(&client, "SET urgent in-the-way").await;
    let worker = WorkerProcess::start_with(&server.url(), "w1", SETTINGS);
    worker.until_state(&client, "IDLE").await;
    for number in 0..3 {
        publish(&client, "slow", &format!("a-{number}"), "t.echo", json!([])).await;
        until_answered(&client, &worker, &format!("a-{number}"), 1).await;
    }
    assert_eq!(worker.log().matches("can't take jobs of this queue").count(), 1, "{}", worker.log());
    let _: u64 = redis(&client, "DEL urgent").await;
    publish(&client, "urgent", "b", "t.echo", json!([])).await;
    until_answered(&client, &worker, "b", 1).await;
}

#[tokio::test]
async fn the_first_job_of_a_queue_may_be_delayed() {
    let server = RedisServer::start();
    let client = server.client().await;
    let worker = WorkerProcess::start_with(&server.url(), "w1", SETTINGS);
    worker.until_state(&client, "IDLE").await;
    let mut publisher = Publisher::new(target(&server).connect().await.unwrap(), "", BrokerSettings::default());
    let later = |id: &str| {
        let job = Job::new("t.echo", Vec::new(), Map::new()).with_delay(Duration::from_millis(500));
        Job { id: id.to_owned(), ..job }.with_reply()
    };
    // Nobody looks after this one yet, nor hears of it.
    let delayed = publisher.publish("tenant-1:jobs", &[later("before")]).await.unwrap();
    assert!(matches!(delayed[..], [Published::Delayed { .. }]));
    let patterns = vec![QueuePattern::parse("tenant-*:jobs").unwrap()];
    let (target, channel, hour) = (Arc::new(target(&server)), "jobs:published".to_owned(), Duration::from_secs(3600));
    let (scheduler, counts) = DelayedScheduler::new(target, BTreeSet::new(), patterns, channel, hour);
    let stop = CancellationToken::new();
    let moving = tokio::spawn(scheduler.run(stop.clone()));
    until_answered(&client, &worker, "before", 1).await;
    publisher.publish("tenant-2:jobs", &[later("after")]).await.unwrap();
    let mut counted = counts.clone();
    let seen = counted.wait_for(|counts| counts.get("tenant-2:jobs") == Some(&1));
    tokio::time::timeout(DEADLINE, seen).await.expect("it is counted").unwrap();
    until_answered(&client, &worker, "after", 1).await;
    let none = async || counts.borrow().is_empty();
    assert!(eventually(DEADLINE, none).await, "{:?}", counts.borrow());
    stop.cancel();
    moving.await.unwrap();
}
