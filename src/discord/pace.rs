//! Discord's refusal of requests as too many. The library repeats a refused request by itself: after the wait that
//! Discord's headers name for the route, but immediately if there is no such header. The edge of Discord's network
//! sends none, and refuses for longer the more requests it gets. So this module limits the sends of a request, and asks
//! Discord for the wait.

use std::{
    future::IntoFuture,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use reqwest::{
    StatusCode,
    header::{AUTHORIZATION, HeaderMap, RETRY_AFTER},
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use twilight_http::{
    Response,
    error::{Error, ErrorType},
    response::ResponseFuture,
};

/// Request that shows for how long Discord refuses requests: it is cheap, and allowed for every bot.
const QUESTION: &str = "/api/v10/gateway/bot";
/// Timeout of this request.
const ANSWER: Duration = Duration::from_secs(10);
/// Wait if Discord names none, or does not answer.
const UNNAMED: Duration = Duration::from_secs(60);
/// Longest accepted wait.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);

/// Sends a request at most `sends` times. If Discord still refuses it as too many, the error [is limited](is_limited).
pub(super) async fn at_most<R, T>(sends: usize, request: R) -> Result<Response<T>, Error>
where
    R: IntoFuture<Output = Result<Response<T>, Error>, IntoFuture = ResponseFuture<T>>,
    T: Unpin,
{
    let mut future = request.into_future();
    let left = AtomicUsize::new(sends);
    let one_less = move || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
    future.set_pre_flight(one_less);
    future.await
}

/// Returns whether Discord refused a request as too many: nothing else cancels a request.
pub(super) fn is_limited(error: &Error) -> bool {
    matches!(error.kind(), ErrorType::RequestCanceled)
}

/// Asks Discord for how long it refuses requests.
pub(super) struct Pace {
    client: Option<reqwest::Client>,
    question: String,
    authorization: SecretString,
}

impl Pace {
    /// Returns an instance that asks at `api_url`, as the bot with that token.
    pub(super) fn new(api_url: &str, token: &SecretString) -> Self {
        let client = reqwest::Client::builder().user_agent(concat!("swarm/", env!("CARGO_PKG_VERSION")));
        let client = client.timeout(ANSWER).build().inspect_err(|error| {
            tracing::warn!(%error, "no HTTP client to ask discord for its limits");
        });
        Self {
            client: client.ok(),
            question: format!("{}{QUESTION}", api_url.trim_end_matches('/')),
            authorization: SecretString::from(format!("Bot {}", token.expose_secret())),
        }
    }

    /// Returns for how long to send nothing. Zero if Discord accepts requests again.
    pub(super) async fn wait(&self) -> Duration {
        match self.ask().await {
            Ok(wait) => wait,
            Err(error) => {
                tracing::debug!(error = %error.without_url(), "discord does not say how long it refuses requests");
                UNNAMED
            }
        }
    }

    async fn ask(&self) -> Result<Duration, reqwest::Error> {
        let Some(client) = &self.client else { return Ok(UNNAMED) };
        let request = client.get(&self.question).header(AUTHORIZATION, self.authorization.expose_secret());
        let response = request.send().await?;
        if response.status() != StatusCode::TOO_MANY_REQUESTS {
            return Ok(Duration::ZERO);
        }
        let named = in_headers(response.headers());
        let body = response.bytes().await?;
        Ok(named.max(in_body(&body)).unwrap_or(UNNAMED).min(LONGEST))
    }
}

fn in_headers(headers: &HeaderMap) -> Option<Duration> {
    seconds(headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?)
}

fn in_body(body: &[u8]) -> Option<Duration> {
    let body: Value = serde_json::from_slice(body).ok()?;
    seconds(body.get("retry_after")?.as_f64()?)
}

fn seconds(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_of_both_times_counts_and_nonsense_does_not() {
        let headers = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().unwrap());
            in_headers(&headers)
        };
        assert_eq!(headers("30"), Some(Duration::from_secs(30)));
        assert_eq!((headers("-1"), headers("soon"), headers("1e400")), (None, None, None));
        assert_eq!(in_body(br#"{"retry_after":1.5}"#), Some(Duration::from_millis(1_500)));
        assert_eq!((in_body(b"error code: 1015"), in_body(br#"{"retry_after":"x"}"#)), (None, None));
        assert_eq!(headers("1").max(in_body(br#"{"retry_after":2}"#)), Some(Duration::from_secs(2)));
    }
}
