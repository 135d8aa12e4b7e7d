//! Sessions as capacity: a job that opens one waits for a place, goes to whichever worker has one first, and makes the
//! autoscaler start one where nobody has. With the tankpit handler, since its sessions start within a millisecond; and
//! with a real Chromium.

use fred::prelude::Client;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_tungstenite::accept_async;

use crate::support::{
    autoscaler::{Autoscaler, FAST_SWEEP},
    browser::{Site, worker},
    command::{answers, records, redis},
    redis::RedisServer,
    wait::{DEADLINE, eventually},
};

/// A game that takes every connection and says nothing; its port.
async fn game() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut game = accept_async(stream).await.unwrap();
                while let Some(Ok(_)) = game.next().await {}
            });
        }
    });
    port
}

async fn publish(client: &Client, id: &str, method: &str, session: &str, more: Value) {
    let mut job = json!({
        "id": id, "type": format!("tankpit.{method}"), "args": [], "session": session, "reply_to": format!("result:{id}"),
    });
    if let (Value::Object(job), Value::Object(more)) = (&mut job, more) {
        job.extend(more);
    }
    let added =
        fred::interfaces::StreamsInterface::xadd(client, "tankpit:jobs", false, None, "*", ("json", job.to_string()));
    let _: String = added.await.unwrap();
    let _: u64 = redis(client, "PUBLISH jobs:published tankpit:jobs").await;
}

async fn answer(client: &Client, id: &str) -> Value {
    let mut found = Vec::new();
    let there = eventually(DEADLINE, async || {
        found = answers(client, id).await;
        !found.is_empty()
    });
    assert!(there.await, "no answer to {id} within {DEADLINE:?}");
    found.remove(0)
}

/// A pool of workers with two places each.
async fn pool(server: &RedisServer, max_workers: u32) -> Autoscaler {
    let port = game().await;
    let settings = format!(
        "{FAST_SWEEP}[worker_types.tankpit]\nscaling = {{ max_workers = {max_workers}, drain_timeout_seconds = 2 }}\n\
         worker = {{ heartbeat_seconds = 1, concurrency = 8 }}\n\
         tankpit = {{ url = \"ws://127.0.0.1:{port}/\", max_sessions = 2 }}\n"
    );
    let scaler = Autoscaler::start(&server.url(), &settings).await;
    scaler.until_ready().await;
    scaler
}

/// Five sessions are below every threshold; they need three workers with two places each.
#[tokio::test]
async fn sessions_without_a_place_start_workers_up_to_the_maximum_and_wait_for_the_rest() {
    let server = RedisServer::start();
    let (client, scaler) = (server.client().await, pool(&server, 3).await);
    for number in 0..5 {
        publish(&client, &format!("spawn-{number}"), "spawn", &format!("s{number}"), json!({})).await;
    }
    for number in 0..5 {
        let answer = answer(&client, &format!("spawn-{number}")).await;
        assert_eq!(answer["ok"], json!(true), "{answer}");
    }
    let is_recorded = async || records(&client, "tankpit").await.last().is_some_and(|one| one["to_count"] == "3");
    scaler.until("the third worker is recorded", is_recorded).await;
    let told = records(&client, "tankpit").await;
    assert!(told.iter().any(|record| record["reason"].contains("no room for a session: one more")), "{told:?}");

    // One place is left for two more; the other one waits, and is told to whoever asks.
    let last = ["spawn-5", "spawn-6"];
    for (id, session) in last.into_iter().zip(["s5", "s6"]) {
        publish(&client, id, "spawn", session, json!({})).await;
    }
    let seen = async || {
        let pool = scaler.status().await.worker_types[0].pool.known().copied().unwrap_or_default();
        (pool.places, pool.places_taken, pool.waiting_for_place) == (6, 6, 1)
    };
    scaler.until("a job is seen to wait for a place", seen).await;
    // A place is taken a moment before the job that took it is answered.
    let mut waiting = Vec::new();
    let one_waits = async || {
        waiting.clear();
        for id in last {
            if answers(&client, id).await.is_empty() {
                waiting.push(id);
            }
        }
        waiting.len() == 1
    };
    scaler.until("one of the two waits, and the other one is answered", one_waits).await;
    // Wherever a session is closed, the job that waits gets its place, though it may wait on another worker.
    publish(&client, "stop-0", "stop", "s0", json!({})).await;
    assert_eq!(answer(&client, waiting[0]).await["ok"], json!(true));
    assert_eq!(records(&client, "tankpit").await.len(), told.len(), "no more workers than allowed");
}

#[tokio::test]
async fn a_job_that_waits_for_a_place_expires_and_one_of_an_open_session_does_not_wait() {
    let server = RedisServer::start();
    let (client, _scaler) = (server.client().await, pool(&server, 1).await);
    for session in ["a", "b"] {
        publish(&client, session, "spawn", session, json!({})).await;
        assert_eq!(answer(&client, session).await["ok"], json!(true));
    }
    let deadline = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64() + 2.0;
    publish(&client, "late", "spawn", "c", json!({ "deadline_ts": deadline })).await;
    publish(&client, "again", "spawn", "a", json!({})).await;
    assert_eq!(answer(&client, "again").await["value"]["already_open"], json!(true));
    let late = answer(&client, "late").await;
    assert!(late["error"].as_str().is_some_and(|error| error.starts_with("expired: ")), "{late}");
    // Its place in the line is free: the next one gets the next place.
    publish(&client, "next", "spawn", "d", json!({})).await;
    publish(&client, "stop", "stop", "a", json!({})).await;
    assert_eq!(answer(&client, "next").await["ok"], json!(true));
}

#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn a_full_browser_worker_passes_a_start_on_to_one_with_a_place() {
    let (server, site) = (RedisServer::start(), Site::start(1).await);
    let first = worker(&server, &site, "max_pages = 1").await;
    first.ask("a", "start", json!([site.url("/")])).await.unwrap();
    let second_start = first.publish("start", json!([site.url("/")]), json!({ "session": "b" })).await;
    let waits = async || first.heartbeat("waiting_for_place").await.as_deref() == Some("1");
    assert!(eventually(DEADLINE, waits).await, "{}", first.log());
    // The full worker goes on with what it has.
    assert_eq!(first.ask("a", "status", json!([])).await.unwrap()["title"], json!("A page"));
    let second = worker(&server, &site, "max_pages = 1").await;
    let page = second.answer(&second_start).await.unwrap();
    assert_eq!(page["page"]["title"], json!("A page"), "{}", second.log());
    assert!(first.log().contains("job passed on"), "{}", first.log());
}
