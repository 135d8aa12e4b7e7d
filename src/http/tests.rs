//! Tests with real sockets, a real client and a made-up fleet.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Method, Request, StatusCode, body::Bytes, header::CONTENT_TYPE};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{BindError, HttpAccess, HttpControl, HttpServer, HttpState, SHUTDOWN_GRACE, connections::Limits};
use crate::{
    model::{
        Source, Timestamp,
        history::{EventSource, ScalingEvent},
        snapshot::{FleetSnapshot, LeadershipSnapshot, Role, SourceSnapshot, SourceState, StatusSource, TypeSnapshot},
    },
    telemetry::MetricsHandle,
};

/// A fleet with one signal source and the given reasons for not being ready.
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
            redis_refuses_writes: None,
            queue_servers: Vec::new(),
            max_total_workers: None,
            sources: vec![SourceSnapshot { source: Source::Keyspace, state: SourceState::Up, detail: "Kt".into() }],
            worker_types: Vec::new(),
            delayed: std::sync::Arc::default(),
            dead_letters: std::sync::Arc::default(),
            reload: None,
        }
    }

    fn not_ready(&self) -> Vec<String> {
        self.not_ready.clone()
    }
}

/// Returns a worker type at rest, with this name.
pub(crate) fn made_up_type(name: &str) -> TypeSnapshot {
    TypeSnapshot {
        max_workers: 5,
        evaluated_at: Some(Timestamp(2)),
        reasons: vec!["held at 0: depth 0 ≤ 0 wants 0".to_owned(), "depth 0 ≤ 0 wants 0".to_owned()],
        sources: vec![Source::Sweep],
        ..TypeSnapshot::at_rest(name)
    }
}

/// A history with these entries.
pub(crate) struct MadeUpHistory(pub(crate) Vec<Arc<ScalingEvent>>);

impl EventSource for MadeUpHistory {
    fn newest(&self, count: usize, worker_type: Option<&str>) -> Vec<Arc<ScalingEvent>> {
        let wanted = self.0.iter().filter(|event| worker_type.is_none_or(|name| event.worker_type == name));
        wanted.take(count).cloned().collect()
    }

    fn problem(&self) -> Option<String> {
        None
    }
}

/// A server under test.
pub(crate) struct Running {
    pub(crate) addr: SocketAddr,
    pub(crate) cancel: CancellationToken,
    pub(crate) task: JoinHandle<()>,
}

/// Serves a made-up fleet on a free port.
pub(crate) async fn serve(not_ready: &[&str]) -> Running {
    let status = Arc::new(MadeUpFleet { not_ready: not_ready.iter().map(ToString::to_string).collect() });
    serve_state(status, Vec::new(), None).await
}

/// Serves this state on a free port.
pub(crate) async fn serve_state(
    status: Arc<dyn StatusSource>,
    history: Vec<Arc<ScalingEvent>>,
    control: Option<HttpControl>,
) -> Running {
    serve_with(status, history, control, HttpAccess::default(), Limits::default()).await
}

/// Serves this state with these access rules and limits.
pub(super) async fn serve_with(
    status: Arc<dyn StatusSource>,
    history: Vec<Arc<ScalingEvent>>,
    control: Option<HttpControl>,
    access: HttpAccess,
    limits: Limits,
) -> Running {
    let bound = HttpServer::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let server = HttpServer { limits, ..bound };
    let events = Arc::new(MadeUpHistory(history));
    let state = HttpState { status, events, metrics: MetricsHandle::detached().unwrap(), control, access };
    let (addr, cancel) = (server.local_addr(), CancellationToken::new());
    Running { addr, task: tokio::spawn(server.serve(state, cancel.clone())), cancel }
}

/// The answer to a request.
pub(crate) struct Answer {
    pub(crate) code: StatusCode,
    pub(crate) content_type: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

async fn ask(addr: SocketAddr, method: Method, path: &str) -> Answer {
    send(addr, method, path, &[], "").await
}

/// Sends a request with these headers and this body.
pub(crate) async fn send(addr: SocketAddr, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut request = Request::builder().method(method).uri(format!("http://{addr}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let response = client.request(request.body(Full::from(body.to_owned())).unwrap()).await.unwrap();
    Answer {
        code: response.status(),
        content_type: response.headers()[CONTENT_TYPE].to_str().unwrap().to_owned(),
        headers: response.headers().clone(),
        body: String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap(),
    }
}

#[tokio::test]
async fn health_index_and_metrics_are_plain_text() {
    let server = serve(&[]).await;
    let health = ask(server.addr, Method::GET, "/healthz").await;
    assert_eq!((health.code, health.body.trim()), (StatusCode::OK, "ok"));

    let index = ask(server.addr, Method::GET, "/").await;
    for path in ["/metrics", "/healthz", "/readyz", "/status", "/v1/openapi.json"] {
        assert!(index.body.contains(path), "{}", index.body);
    }

    let metrics = ask(server.addr, Method::GET, "/metrics").await;
    assert_eq!(metrics.code, StatusCode::OK);
    assert!(metrics.content_type.starts_with("text/plain; version=0.0.4"), "{}", metrics.content_type);
}

#[tokio::test]
async fn browsers_get_the_page_which_may_run_nothing_but_its_own_parts() {
    let server = serve(&[]).await;
    let page = send(server.addr, Method::GET, "/", &[("accept", "text/html,*/*;q=0.8")], "").await;
    assert_eq!((page.code, page.content_type.as_str()), (StatusCode::OK, "text/html; charset=utf-8"));
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(
        (&page.headers["vary"], &page.headers["x-content-type-options"]),
        (&"accept".parse().unwrap(), &"nosniff".parse().unwrap())
    );
    for (path, content_type, _) in super::page::PARTS {
        let part = ask(server.addr, Method::GET, path).await;
        assert_eq!((part.code, part.content_type.as_str()), (StatusCode::OK, content_type), "{path}");
    }
    let plain = send(server.addr, Method::GET, "/", &[("accept", "text/plain")], "").await;
    assert!(plain.content_type.starts_with("text/plain") && plain.body.starts_with("swarm\n"), "{}", plain.body);
}

#[tokio::test]
async fn each_worker_type_has_a_page_and_an_unknown_one_is_a_404_that_leads_back() {
    struct One;
    impl StatusSource for One {
        fn fleet(&self) -> FleetSnapshot {
            let worker_types = vec![Arc::new(made_up_type("browser.eu"))];
            FleetSnapshot { worker_types, ..MadeUpFleet { not_ready: Vec::new() }.fleet() }
        }

        fn not_ready(&self) -> Vec<String> {
            Vec::new()
        }
    }
    let server = serve_state(Arc::new(One), Vec::new(), None).await;
    let accept = [("accept", "text/html,*/*;q=0.8")];
    for (path, code) in [
        ("/types/browser.eu", StatusCode::OK),
        ("/types/nobody", StatusCode::NOT_FOUND),
        ("/types/%3Cscript%3E", StatusCode::NOT_FOUND),
    ] {
        let page = send(server.addr, Method::GET, path, &accept, "").await;
        assert_eq!((page.code, page.content_type.as_str()), (code, "text/html; charset=utf-8"), "{path}");
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"), "{policy}");
        // The file is the same for all: nothing of the URL is in it.
        assert!(page.body.contains("<a href=\"../\">") && !page.body.contains("%3Cscript"), "{}", page.body);
        let program = ask(server.addr, Method::GET, path).await;
        assert_eq!(program.code, code, "{path}");
        if code == StatusCode::NOT_FOUND {
            let error = program.json()["error"].as_str().unwrap().to_owned();
            assert!(error.starts_with("there is no worker type `") && error.contains("/v1/worker_types"), "{error}");
        }
    }
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
    timeout(SHUTDOWN_GRACE + Duration::from_secs(5), server.task).await.expect("ends in time").unwrap();
    assert!(TcpStream::connect(server.addr).await.is_err(), "no longer listens");
}
