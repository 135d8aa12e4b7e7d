//! Orders over HTTP, on a running autoscaler: the same effect and the same record as by command.

use std::collections::BTreeSet;

use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode, body::Bytes};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};
use swarm::model::control::Mode;

use crate::support::{
    autoscaler::{Autoscaler, NO_SWEEP, PATIENT, SLEEPER, pool, swarm},
    command::{ScalingRecord, add_jobs, records},
    http::get,
    redis::RedisServer,
    wait::DEADLINE,
};

const SCALING: &str = "max_workers = 8, scale_up_threshold = 1, cooldown_seconds = 0";
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// The tables after `[http]`, which is the first one: so the token goes in front of them.
fn settings(token: &str) -> String {
    format!("{token}{NO_SWEEP}{PATIENT}{}", pool("test", SCALING, SLEEPER))
}

async fn post(scaler: &Autoscaler, action: &str, token: Option<&str>, body: &Value) -> (StatusCode, Value) {
    let mut request = Request::post(format!("{}/v1/worker_types/{action}", scaler.url()));
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let response = client.request(request.body(Full::from(body.to_string())).unwrap()).await.unwrap();
    let code = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&body).unwrap())
}

async fn read(scaler: &Autoscaler, path: &str) -> Value {
    let (code, body) = get(&format!("{}{path}", scaler.url()), DEADLINE).await.expect("it answers");
    assert_eq!(code, StatusCode::OK, "{body}");
    serde_json::from_str(&body).unwrap()
}

async fn until_mode(scaler: &Autoscaler, mode: Option<Mode>) {
    let seen = async || scaler.of("test").await.control.as_ref().map(|control| control.mode) == mode;
    scaler.until(&format!("its control is {mode:?}"), seen).await;
}

#[tokio::test]
async fn orders_by_http_and_by_command_do_and_record_the_same() {
    let server = RedisServer::start();
    let client = server.client().await;
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), format!("{TOKEN}\n")).unwrap();
    let settings = settings(&format!("token_file = {:?}\n", secret.path()));
    let scaler = Autoscaler::start(&server.url(), &settings).await;
    scaler.until_ready().await;

    let said = json!({ "by": "ann@desk", "reason": "the new image", "for_seconds": 600 });
    let (code, answer) = post(&scaler, "test/pause", Some(TOKEN), &said).await;
    assert_eq!((code, &answer["done"]), (StatusCode::OK, &json!("test: paused for 600 s")));
    until_mode(&scaler, Some(Mode::Paused)).await;
    add_jobs(&client, "test:jobs", 3).await;
    scaler.until("it has seen the jobs", async || scaler.of("test").await.demand.lag.known() == Some(&3)).await;
    scaler.until_workers("test", 0).await;
    let scaler = scaler.restart(&server.url(), &settings).await;
    until_mode(&scaler, Some(Mode::Paused)).await;

    let (_, answer) = post(&scaler, "test/scale", Some(TOKEN), &json!({ "workers": 2, "for_seconds": 600 })).await;
    assert_eq!(answer["control"]["by"], "http@127.0.0.1");
    scaler.until_workers("test", 2).await;
    post(&scaler, "test/resume", Some(TOKEN), &json!({ "by": "ann@desk" })).await;
    scaler.until_workers("test", 3).await;

    // The same order by command.
    let file = scaler.directory().join("swarm.toml");
    let words = ["pause", "test", "--for", "10m", "--reason", "the new image", "--config"];
    let by_command = swarm(scaler.directory()).env("USER", "ann").args(words).arg(file).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&by_command.stdout), "test: paused for 600 s\n");
    until_mode(&scaler, Some(Mode::Paused)).await;
    scaler.until("all is recorded", async || records(&client, "test").await.len() >= 6).await;
    let all = records(&client, "test").await;
    let by_people: Vec<&ScalingRecord> =
        all.iter().filter(|record| record["trigger"] == "control" && record.contains_key("by")).collect();
    let decisions: Vec<&str> = by_people.iter().map(|record| record["decision"].as_str()).collect();
    assert_eq!(decisions, ["paused", "pinned", "resumed", "paused"]);
    let (by_http, by_command) = (by_people[0], by_people[3]);
    let [http_fields, command_fields] = [by_http, by_command].map(|record| record.keys().collect::<BTreeSet<_>>());
    assert_eq!(http_fields, command_fields);
    assert_eq!(by_http["reason"], "paused by ann@desk for 600 s: the new image");
    assert_eq!((&by_http["why"], &by_http["outcome"]), (&by_command["why"], &by_command["outcome"]));

    scaler
        .until("it tells of it", async || {
            read(&scaler, "/v1/events?type=test").await["events"].as_array().is_some_and(|events| events.len() >= 6)
        })
        .await;
    let why = read(&scaler, "/v1/worker_types/test/why").await;
    assert!(why["decision"].as_str().is_some_and(|decision| decision.contains("paused by ann@")), "{why}");
    assert_eq!(read(&scaler, "/v1/status").await["worker_types"][0]["worker_type"], "test");
    assert!(!scaler.log().contains(TOKEN), "the token is in the log");
}

#[tokio::test]
async fn without_the_token_nothing_is_done() {
    let server = RedisServer::start();
    let client = server.client().await;
    let scaler = Autoscaler::start(&server.url(), &settings("")).await;
    scaler.until_ready().await;
    let (code, answer) = post(&scaler, "test/pause", Some(TOKEN), &json!({})).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert!(answer["error"].as_str().is_some_and(|error| error.contains("`token_file` in `[http]`")), "{answer}");
    let scaler = scaler.restart(&server.url(), &settings(&format!("token = \"{TOKEN}\"\n"))).await;
    for token in [None, Some("0123456789abcdef0123456789abcdeF")] {
        let (code, _) = post(&scaler, "test/pause", token, &json!({})).await;
        assert_eq!(code, StatusCode::UNAUTHORIZED);
    }
    let (code, _) = post(&scaler, "test/scale", Some(TOKEN), &json!({ "workers": 9 })).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    let (code, answer) = post(&scaler, "nobody/pause", Some(TOKEN), &json!({})).await;
    assert_eq!((code, answer["error"].as_str().unwrap().ends_with("there are: test")), (StatusCode::NOT_FOUND, true));
    assert_eq!(records(&client, "test").await.len(), 0);
}

/// A pin goes before the schedule, over HTTP as by the command.
#[tokio::test]
async fn a_pin_below_the_minimum_of_an_open_window_is_accepted() {
    let server = RedisServer::start();
    let window = "[[worker_types.test.scaling.schedule]]\nstart = \"* * * * *\"\nduration = \"1h\"\nmin_workers = 3\n";
    let pool = "[worker_types.test]\nworker = { heartbeats = false }\nprocess = { command = [\"sleep\", \"1000\"] }\n\
        [worker_types.test.scaling]\nmax_workers = 8\ncooldown_seconds = 0\n";
    let settings = format!("token = \"{TOKEN}\"\n{NO_SWEEP}{PATIENT}{pool}{window}");
    let scaler = Autoscaler::start(&server.url(), &settings).await;
    scaler.until_workers("test", 3).await;
    let order = json!({ "workers": 1, "for_seconds": 600 });
    let (code, answer) = post(&scaler, "test/scale", Some(TOKEN), &order).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    scaler.until_workers("test", 1).await;
    let (code, _) = post(&scaler, "test/scale", Some(TOKEN), &json!({ "workers": 9 })).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
}
