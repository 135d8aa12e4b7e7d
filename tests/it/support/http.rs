//! Sends one GET over HTTP, like a browser or Prometheus.

use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::{StatusCode, body::Bytes};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};

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
