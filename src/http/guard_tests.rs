//! Tests of held connections, foreign host names, and the read token, over real sockets.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use hyper::{Method, StatusCode};
use secrecy::SecretString;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{
    HttpAccess,
    connections::Limits,
    tests::{MadeUpFleet, Running, send, serve, serve_with},
};

const DEADLINE: Duration = Duration::from_secs(30);
const READ_TOKEN: &str = "readers-0123456789";

async fn serve_within(limits: Limits) -> Running {
    let fleet = Arc::new(MadeUpFleet { not_ready: Vec::new() });
    serve_with(fleet, Vec::new(), None, HttpAccess::default(), limits).await
}

async fn serve_for(access: HttpAccess) -> Running {
    let fleet = Arc::new(MadeUpFleet { not_ready: vec!["redis does not answer".to_owned()] });
    serve_with(fleet, Vec::new(), None, access, Limits::default()).await
}

async fn connect(addr: SocketAddr, sent: &str) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(sent.as_bytes()).await.unwrap();
    stream
}

/// Waits until the server closes a connection; returns what it sent.
async fn until_closed(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    // An eviction may reset the connection.
    let _ = timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("the server closes it");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Reads until `text` has arrived.
async fn until_sent(stream: &mut TcpStream, text: &str) {
    let mut seen = String::new();
    while !seen.contains(text) {
        let mut part = [0; 4096];
        let read = timeout(DEADLINE, stream.read(&mut part)).await.expect("it comes in time").unwrap();
        assert!(read > 0, "closed after {seen:?}");
        seen.push_str(&String::from_utf8_lossy(&part[..read]));
    }
}

const HEALTH: &str = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
const STREAM: &str = "GET /v1/stream HTTP/1.1\r\nhost: localhost\r\n\r\n";

#[tokio::test]
async fn a_head_that_is_sent_slowly_and_an_idle_connection_end_in_time() {
    let head = Duration::from_millis(300);
    let server = serve_within(Limits { head, ..Limits::default() }).await;
    let mut followed = connect(server.addr, STREAM).await;
    until_sent(&mut followed, "\"first\":true").await;

    let mut slow = connect(server.addr, "GET /status HTTP/1.1\r\n").await;
    let trickle = async {
        // Each byte arrives in time, but the head as a whole does not.
        while slow.write_all(b"x").await.is_ok() {
            tokio::time::sleep(head / 10).await;
        }
    };
    timeout(DEADLINE, trickle).await.expect("the server closes it");

    let mut idle = connect(server.addr, HEALTH).await;
    until_sent(&mut idle, "ok\n").await;
    assert_eq!(until_closed(idle).await, "");
    assert_eq!(until_closed(connect(server.addr, "").await).await, "");

    // The stream of events continues without a time limit.
    until_sent(&mut followed, "\"now\"").await;
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_ends_in_time() {
    let server = serve_within(Limits { stall: Duration::from_millis(300), ..Limits::default() }).await;
    let mut deaf = connect(server.addr, "").await;
    let (mut reading, mut writing) = deaf.split();
    let asking = async {
        // The client never reads the answers to its pipelined requests: once the buffers are full, the server gives up.
        while writing.write_all("GET /v1/openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n".as_bytes()).await.is_ok() {}
    };
    timeout(DEADLINE, asking).await.expect("the server closes it");
    let _ = reading.read_to_end(&mut Vec::new()).await;
}

#[tokio::test]
async fn held_connections_keep_no_probe_out_and_cost_no_follower_its_stream() {
    const LIMIT: usize = 8;
    let server = serve_within(Limits { connections: LIMIT, ..Limits::default() }).await;
    let mut followed = connect(server.addr, STREAM).await;
    until_sent(&mut followed, "\"first\":true").await;
    let mut held = Vec::new();
    for _ in 0..4 * LIMIT {
        held.push(connect(server.addr, "GET /status HTTP/1.1\r\nx: ").await);
        let health = send(server.addr, Method::GET, "/healthz", &[], "").await;
        assert_eq!(health.code, StatusCode::OK);
    }
    // The oldest connection was evicted.
    assert_eq!(until_closed(held.swap_remove(0)).await, "");
    until_sent(&mut followed, "\"now\"").await;

    // A connection with regular requests counts as younger than the silent ones.
    let mut busy = connect(server.addr, HEALTH).await;
    for _ in 0..2 * LIMIT {
        held.push(connect(server.addr, "GET ").await);
        until_sent(&mut busy, "ok\n").await;
        busy.write_all(HEALTH.as_bytes()).await.unwrap();
    }
}

#[tokio::test]
async fn a_foreign_name_reads_nothing_and_probes_answer_under_any() {
    let server = serve(&[]).await;
    let under = async |path: &str, host: &str| {
        let path = path.to_owned();
        send(server.addr, Method::GET, &path, &[("host", host)], "").await
    };
    for path in ["/status", "/metrics", "/v1/events", "/", "/page/main.js"] {
        let answer = under(path, "rebound.example:9000").await;
        assert_eq!(answer.code, StatusCode::MISDIRECTED_REQUEST, "{path}");
        assert!(answer.body.contains("`hosts` in `[http]`"), "{}", answer.body);
        assert_eq!(under(path, "localhost").await.code, StatusCode::OK, "{path}");
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(under(path, "rebound.example").await.code, StatusCode::OK, "{path}");
    }
    let named = serve_for(HttpAccess { hosts: vec!["autoscaler".to_owned()], ..HttpAccess::default() }).await;
    let answer = send(named.addr, Method::GET, "/status", &[("host", "autoscaler:9000")], "").await;
    assert_eq!(answer.code, StatusCode::OK);
}

#[tokio::test]
async fn with_a_read_token_only_probes_and_the_files_of_the_page_are_open() {
    let server =
        serve_for(HttpAccess { read_token: Some(SecretString::from(READ_TOKEN)), ..HttpAccess::default() }).await;
    let get = async |path: &str, headers: &[(&str, &str)]| {
        let path = path.to_owned();
        send(server.addr, Method::GET, &path, headers, "").await
    };
    let bearer = format!("Bearer {READ_TOKEN}");
    let closed =
        ["/status", "/metrics", "/v1/status", "/v1/worker_types", "/v1/events", "/v1/stream", "/v1/openapi.json"];
    for path in closed {
        for wrong in [&[][..], &[("authorization", "Bearer readers-0123456788")]] {
            let answer = get(path, wrong).await;
            assert_eq!(answer.code, StatusCode::UNAUTHORIZED, "{path}");
            assert_eq!(answer.headers["www-authenticate"], "Bearer");
            assert!(answer.body.contains("read_token"), "{}", answer.body);
        }
    }
    for path in &closed[..5] {
        assert_eq!(get(path, &[("authorization", &bearer)]).await.code, StatusCode::OK, "{path}");
    }
    for path in ["/", "/page/main.js", "/healthz"] {
        assert_eq!(get(path, &[]).await.code, StatusCode::OK, "{path}");
    }
    // Without the token the page of a worker type does not tell which ones there are.
    let html = ("accept", "text/html");
    assert_eq!(get("/types/nobody", &[html]).await.code, StatusCode::OK);
    assert_eq!(get("/types/nobody", &[html, ("authorization", &bearer)]).await.code, StatusCode::NOT_FOUND);
    let told = get("/readyz", &[]).await;
    assert_eq!((told.code, told.body.as_str()), (StatusCode::SERVICE_UNAVAILABLE, r#"{"ready":false}"#));
    let told = get("/readyz", &[("authorization", &bearer)]).await;
    assert!(told.body.contains("redis does not answer"), "{}", told.body);
}
