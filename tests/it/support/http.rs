//! Sends one GET over HTTP, like a browser or Prometheus, and serves for fakes.

use std::{net::SocketAddr, time::Duration};

use axum::Router;
use http_body_util::{BodyExt, Empty};
use hyper::{StatusCode, body::Bytes};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Fetches a URL; `None` if no answer comes in time.
pub(crate) async fn get(url: &str, deadline: Duration) -> Option<(StatusCode, String)> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let uri = url.parse().expect("the test's own URL is well formed");
    let answer = async {
        let response = client.get(uri).await.ok()?;
        let code = response.status();
        let body = response.into_body().collect().await.ok()?.to_bytes();
        Some((code, String::from_utf8(body.into()).expect("the answer is text")))
    };
    tokio::time::timeout(deadline, answer).await.ok().flatten()
}

/// Serves on a free port of this machine until the guard is dropped.
pub(crate) async fn serve(router: Router) -> (SocketAddr, DropGuard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port can be had");
    let address = listener.local_addr().expect("a bound socket has an address");
    let stop = CancellationToken::new();
    let stopped = stop.clone().cancelled_owned();
    tokio::spawn(async move {
        tokio::select! {
            served = axum::serve(listener, router) => served.expect("the server accepts"),
            () = stopped => {}
        }
    });
    (address, stop.drop_guard())
}
