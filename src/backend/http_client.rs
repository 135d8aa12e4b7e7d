//! The HTTP client of backends, and how its errors are told. Knows no service.

use std::time::Duration;

use reqwest::{
    Client, ClientBuilder,
    header::{HeaderMap, RETRY_AFTER},
};

/// How long a connection may take to come about: on the Internet it is up within a second.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Returns what every client has.
pub(super) fn builder() -> ClientBuilder {
    // Another part of the program may have installed it: one provider is as good as the other.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().user_agent(concat!("swarm/", env!("CARGO_PKG_VERSION"))).connect_timeout(CONNECT_TIMEOUT)
}

/// Returns why there is no answer. The outermost error says only that a request failed; the innermost one says why.
pub(super) fn why(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    if error.is_timeout() { "timed out".to_owned() } else { innermost.to_string() }
}

/// Returns when to ask again, if the answer says so in seconds.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: f64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}
