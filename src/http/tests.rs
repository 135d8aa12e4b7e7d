//! Real sockets, a real client, a made-up fleet.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::{BodyExt, Empty};
use hyper::{Method, Request, StatusCode, body::Bytes, header::CONTENT_TYPE};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{BindError, HttpServer, HttpState, SHUTDOWN_GRACE};
use crate::{
    model::{
        Source, Timestamp,
        snapshot::{FleetSnapshot, LeadershipSnapshot, Role, SourceSnapshot, SourceState, StatusSource},
    },
    telemetry::MetricsHandle,
};

/// A fleet with one signal source and what its maker says is not ready.
pub(crate) struct MadeUpFleet {
    pub(crate) not_ready: Vec<String>,
}

impl StatusSource for MadeUpFleet {
    fn fleet(&self) -> FleetSnapshot {
        FleetSnapshot {
            version: "1.2.3".into(),
            instance: "here".into(),
            orchestrator: "process".into(),
            started_at: Timestamp(1),
            dry_run: false,
            leadership: LeadershipSnapshot {
                role: Role::Leader,
                leader: Some("here".into()),
                token: Some(7),
                ..LeadershipSnapshot::default()
            },
            redis_error: None,
            sources: vec![SourceSnapshot { source: Source::Keyspace, state: SourceState::Up, detail: "Kt".into() }],
            worker_types: Vec::new(),
            delayed: std::sync::Arc::default(),
            reload: None,
        }
    }

    fn not_ready(&self) -> Vec<String> {
        self.not_ready.clone()
    }
}

/// A server under test.
pub(crate) struct Running {
    pub(crate) addr: SocketAddr,
    pub(crate) cancel: CancellationToken,
    pub(crate) task: JoinHandle<std::io::Result<()>>,
}

/// Serves a made-up fleet on a free port.
pub(crate) async fn serve(not_ready: &[&str]) -> Running {
    let server = HttpServer::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let status = Arc::new(MadeUpFleet { not_ready: not_ready.iter().map(ToString::to_string).collect() });
    let state = HttpState { status, metrics: MetricsHandle::detached() };
    let (addr, cancel) = (server.local_addr(), CancellationToken::new());
    Running { addr, task: tokio::spawn(server.serve(state, cancel.clone())), cancel }
}

struct Answer {
    code: StatusCode,
    content_type: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

async fn ask(addr: SocketAddr, method: Method, path: &str) -> Answer {
    let request = Request::builder().method(method).uri(format!("http://{addr}{path}"));
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let response = client.request(request.body(Empty::new()).unwrap()).await.unwrap();
    Answer {
        code: response.status(),
        content_type: response.headers()[CONTENT_TYPE].to_str().unwrap().to_owned(),
        body: String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap(),
    }
}

#[tokio::test]
async fn health_index_and_metrics_are_plain_text() {
    let server = serve(&[]).await;
    let health = ask(server.addr, Method::GET, "/healthz").await;
    assert_eq!((health.code, health.body.trim()), (StatusCode::OK, "ok"));

    let index = ask(server.addr, Method::GET, "/").await;
    for path in ["/metrics", "/healthz", "/readyz", "/status"] {
        assert!(index.body.contains(path), "{}", index.body);
    }

    let metrics = ask(server.addr, Method::GET, "/metrics").await;
    assert_eq!(metrics.code, StatusCode::OK);
    assert!(metrics.content_type.starts_with("text/plain; version=0.0.4"), "{}", metrics.content_type);
}

#[tokio::test]
async fn readyz_is_200_when_nothing_is_missing() {
    let server = serve(&[]).await;
    let ready = ask(server.addr, Method::GET, "/readyz").await;
    assert_eq!(ready.code, StatusCode::OK);
    let sources = json!([{ "source": "keyspace", "state": "up", "detail": "Kt" }]);
    let expected = json!({ "ready": true, "role": "leader", "leader": "here", "not_ready": [], "sources": sources });
    assert_eq!(ready.json(), expected);
}

#[tokio::test]
async fn readyz_is_503_and_says_what_is_missing() {
    let server = serve(&["redis does not answer"]).await;
    let ready = ask(server.addr, Method::GET, "/readyz").await;
    assert_eq!(ready.code, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ready.json()["not_ready"], json!(["redis does not answer"]));
    assert_eq!(ready.json()["ready"], json!(false));
}

#[tokio::test]
async fn status_is_the_snapshot() {
    let server = serve(&[]).await;
    let status = ask(server.addr, Method::GET, "/status").await;
    assert_eq!(status.content_type, "application/json");
    let fleet: FleetSnapshot = serde_json::from_str(&status.body).unwrap();
    assert_eq!(fleet, MadeUpFleet { not_ready: Vec::new() }.fleet());
}

#[tokio::test]
async fn refusals_are_json() {
    let server = serve(&[]).await;
    let missing = ask(server.addr, Method::GET, "/nowhere").await;
    assert_eq!(missing.code, StatusCode::NOT_FOUND);
    assert_eq!(missing.json(), json!({ "error": "there is no /nowhere; / lists what there is" }));

    let posted = ask(server.addr, Method::POST, "/status").await;
    assert_eq!(posted.code, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(posted.json(), json!({ "error": "/status can't be asked to POST; use GET" }));
}

#[tokio::test]
async fn an_address_in_use_names_the_setting() {
    let first = HttpServer::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let error = HttpServer::bind(first.local_addr()).await.unwrap_err();
    assert!(matches!(error, BindError::InUse { .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.contains(&first.local_addr().to_string()) && message.contains("`listen` in `[http]`"), "{message}");
}

#[tokio::test]
async fn a_client_that_never_finishes_its_request_does_not_hold_up_the_end() {
    let server = serve(&[]).await;
    let mut stuck = TcpStream::connect(server.addr).await.unwrap();
    stuck.write_all(b"GET /status HTTP/1.1\r\n").await.unwrap();
    ask(server.addr, Method::GET, "/healthz").await;

    server.cancel.cancel();
    timeout(SHUTDOWN_GRACE + Duration::from_secs(5), server.task).await.expect("ends in time").unwrap().unwrap();
    assert!(TcpStream::connect(server.addr).await.is_err(), "no longer listens");
}
