//! Keeps what a busy API server asks for: after an answer with `Retry-After`, nothing is sent until then. The answer
//! itself goes to whoever asked, who decides again; a request is never repeated here, since by then it may be outdated.

use std::{
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt};
use kube::client::Body;
use tokio::time::Instant;
use tower::{BoxError, Layer, Service};

/// No server keeps us away for longer than this: what it asks for beyond is a mistake, or meant for others.
const LONGEST: Duration = Duration::from_secs(120);

/// Not sent, because the server asked to wait.
#[derive(Debug, thiserror::Error)]
#[error("the API server is busy and asks to come back in {} s", .0.as_secs().max(1))]
pub(super) struct Throttled(Duration);

/// Adds [`Throttle`] to a client. All services that it makes share one waiting time.
#[derive(Clone, Debug, Default)]
pub(super) struct ThrottleLayer {
    until: Arc<Mutex<Option<Instant>>>,
}

impl<S> Layer<S> for ThrottleLayer {
    type Service = Throttle<S>;

    fn layer(&self, inner: S) -> Throttle<S> {
        Throttle { inner, until: self.until.clone() }
    }
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub(super) struct Throttle<S> {
    inner: S,
    until: Arc<Mutex<Option<Instant>>>,
}

type Request = hyper::Request<Body>;

impl<S, B> Service<Request> for Throttle<S>
where
    S: Service<Request, Response = hyper::Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<S::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let now = Instant::now();
        if let Some(until) = (*lock(&self.until)).filter(|until| *until > now) {
            return std::future::ready(Err(Throttled(until - now).into())).boxed();
        }
        let until = self.until.clone();
        let answer = self.inner.call(request);
        async move {
            let answer = answer.await.map_err(Into::into)?;
            if let Some(wait) = asked_to_wait(&answer) {
                *lock(&until) = Some(Instant::now() + wait);
            }
            Ok(answer)
        }
        .boxed()
    }
}

/// How long an answer asks to wait.
fn asked_to_wait<B>(answer: &hyper::Response<B>) -> Option<Duration> {
    if !matches!(answer.status().as_u16(), 429 | 503) {
        return None;
    }
    let seconds = answer.headers().get("retry-after")?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST))
}

fn lock(until: &Mutex<Option<Instant>>) -> std::sync::MutexGuard<'_, Option<Instant>> {
    until.lock().unwrap_or_else(PoisonError::into_inner)
}
