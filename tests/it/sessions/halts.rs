//! Halts of the whole machine while a worker asks for the holder of a session: afterwards every worker is silent at
//! first, so nobody may be called dead. The holder is one by the test's word only: it goes on when the test says so.

use std::time::Duration;

use fred::prelude::*;
use serde_json::{Value as Json, json};
use swarm::model::Queues;

use super::{LONG, QUEUE, SHORT, Worker, call, publish, result};
use crate::support::{
    command::{pending, redis},
    link::Link,
    redis::RedisServer,
    wait::{DEADLINE, eventually},
};

/// Longer than a holder may be without a connection.
const PATIENCE: Duration = Duration::from_secs(3);
/// What the asker's requests for the holder of the session name.
const SESSION: &str = "session:t:chan";

/// Starts worker `asker`, which may judge other workers, and makes `holder` the holder of session `chan`. `listens`
/// says whether holders listen on their control channel while they are connected.
async fn start(client: &Client, server: &RedisServer, interval: Duration, listens: bool) -> (Link, Worker) {
    let link = Link::to(server).await;
    // Longer than requests are held. After `LONG`, no holder without a heartbeat is judged: only those that can listen.
    let timeout = if listens { LONG } else { Duration::from_secs(4) };
    let asker = Worker::start_at(link.url(), timeout, "asker", Queues::one(QUEUE), interval, LONG);
    let _: String = redis(client, "SET session:t:gone nobody").await;
    if listens {
        let _: u64 = redis(client, "HSET worker:heartbeat:t:nobody listens 1").await;
    }
    let error = call(client, "of-gone", "t.next", "gone").await.error.unwrap();
    assert!(error.starts_with("session lost"), "it does not judge yet: {error}");
    let _: String = redis(client, "SET session:t:chan holder").await;
    let_holder_go_on(client, listens).await;
    (link, asker)
}

async fn let_holder_go_on(client: &Client, listens: bool) {
    let _: u64 = redis(client, &format!("HSET worker:heartbeat:t:holder listens {}", u8::from(listens))).await;
}

/// Publishes a job for which the asker asks for the holder, and halts everything for longer than heartbeats live while
/// that request is under way: it reaches Redis after the halt. Then all go on, the holder last.
async fn halt_while_asked(client: &Client, link: &Link, id: &str, job_type: &str, session: &str, args: Json) {
    link.hold_at(SESSION);
    publish(client, id, job_type, session, args).await;
    link.until_held().await;
    let is_heard = async || client.exists::<bool, _>("worker:heartbeat:t:asker").await.unwrap();
    assert!(eventually(DEADLINE, async || !is_heard().await).await);
    let _: u64 = redis(client, "DEL worker:heartbeat:t:holder").await;
    link.release();
    assert!(eventually(DEADLINE, is_heard).await);
    let_holder_go_on(client, false).await;
}

/// Waits until something holds, unless the asker answers job `next` by itself.
async fn until_not_answered(client: &Client, holds: impl AsyncFn() -> bool) {
    let is_answered = async || client.exists::<bool, _>("result:next").await.unwrap();
    assert!(eventually(DEADLINE, async || holds().await || is_answered().await).await);
    assert!(holds().await, "{:?}", result(client, "next").await);
}

async fn until_handed_over(client: &Client) {
    let is = async || pending(client, QUEUE, "t").await.iter().any(|(consumer, _)| consumer == "holder");
    until_not_answered(client, is).await;
}

#[tokio::test]
async fn a_holder_that_is_asked_for_during_a_halt_keeps_its_session() {
    let server = RedisServer::start();
    let client = server.client().await;
    let (link, _asker) = start(&client, &server, SHORT, false).await;
    halt_while_asked(&client, &link, "next", "t.next", "chan", json!([])).await;
    until_handed_over(&client).await;
}

#[tokio::test]
async fn a_session_that_is_claimed_during_a_halt_stays_with_its_holder() {
    let server = RedisServer::start();
    let client = server.client().await;
    let (link, _asker) = start(&client, &server, SHORT, false).await;
    halt_while_asked(&client, &link, "open", "t.open", "", json!(["chan"])).await;
    let answer = result(&client, "open").await;
    assert_eq!(answer.error.as_deref(), Some("session `chan` is open on worker `holder`"), "{answer:?}");
}

/// A holder that reconnects when the halt begins could not do that during it either.
#[tokio::test]
async fn a_halt_is_no_time_to_reconnect_in() {
    let server = RedisServer::start();
    let client = server.client().await;
    let (link, _asker) = start(&client, &server, LONG, true).await;
    link.hold_at(SESSION);
    publish(&client, "next", "t.next", "chan", json!([])).await;
    for look in 0..8 {
        until_not_answered(&client, async || link.is_held()).await;
        if look == 1 {
            tokio::time::sleep(PATIENCE).await;
        }
        link.hold_at(SESSION);
    }
    until_not_answered(&client, async || link.is_held()).await;
    let holder = server.client().await;
    let _: () = holder.subscribe("worker:control:t:holder").await.unwrap();
    link.release();
    until_handed_over(&client).await;
}
