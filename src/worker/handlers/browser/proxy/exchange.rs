//! Handles one request of Chromium: a tunnel for CONNECT (https and every WebSocket), otherwise one request that is
//! forwarded, and its response. No header of either side determines where the proxy connects to.

use std::{convert::Infallible, sync::Arc};

use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Uri,
    body::{Bytes, Incoming},
    header::{
        CONNECTION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
        UPGRADE,
    },
    http::uri::Scheme,
};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use super::{
    PROBLEM_HEADER, Shared,
    dial::{DialError, Place, Via},
};

type Body = BoxBody<Bytes, hyper::Error>;

/// Answers one request. Never fails: an error becomes a response that says so.
pub(super) async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Body>, Infallible> {
    let Some(place) = place(&request) else {
        let response = text(StatusCode::BAD_REQUEST, "this proxy takes CONNECT and http:// only");
        return Ok(response);
    };
    let done = if request.method() == Method::CONNECT {
        tunnel(request, &place, &shared).await
    } else {
        forward(request, &place, &shared).await
    };
    Ok(done.unwrap_or_else(|error| explain(&error, &shared)))
}

/// Returns the destination of a request, from its target alone.
fn place(request: &Request<Incoming>) -> Option<Place> {
    let uri = request.uri();
    let host = uri.host()?;
    match request.method() {
        &Method::CONNECT => Some(Place::new(host, uri.port_u16()?)),
        _ if uri.scheme() == Some(&Scheme::HTTP) => Some(Place::new(host, uri.port_u16().unwrap_or(80))),
        _ => None,
    }
}

async fn tunnel(request: Request<Incoming>, place: &Place, shared: &Arc<Shared>) -> Result<Response<Body>, DialError> {
    let mut there = shared.dialer.tunnel(place).await?;
    let token = shared.closed.clone();
    shared.tasks.spawn(token.run_until_cancelled_owned(async move {
        let Ok(here) = hyper::upgrade::on(request).await else { return };
        // Either side may disconnect at any time, and both notice it.
        let _ = copy_bidirectional(&mut TokioIo::new(here), &mut there).await;
    }));
    Ok(Response::new(empty()))
}

async fn forward(
    mut request: Request<Incoming>,
    place: &Place,
    shared: &Arc<Shared>,
) -> Result<Response<Body>, DialError> {
    let (stream, via) = shared.dialer.for_request(place).await?;
    let unreachable =
        |error: hyper::Error| DialError::Unreachable { place: place.clone(), cause: std::io::Error::other(error) };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(unreachable)?;
    let token = shared.closed.clone();
    shared.tasks.spawn(token.run_until_cancelled_owned(connection));
    address(&mut request, via.as_ref());
    let mut response = sender.send_request(request).await.map_err(unreachable)?;
    strip(response.headers_mut());
    response.headers_mut().remove(PROBLEM_HEADER);
    Ok(response.map(BodyExt::boxed))
}

/// Rewrites a request for its destination: an origin server wants the path only, a proxy the whole URL.
fn address(request: &mut Request<Incoming>, via: Option<&Via>) {
    strip(request.headers_mut());
    let authority = request.uri().authority().map_or_else(String::new, ToString::to_string);
    if let Ok(host) = HeaderValue::from_str(&authority) {
        request.headers_mut().insert(HOST, host);
    }
    match via {
        None => {
            let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
            *request.uri_mut() = path.parse().unwrap_or_else(|_| Uri::from_static("/"));
        }
        Some(Via { authorization }) => {
            if let Some(value) = authorization {
                request.headers_mut().insert(PROXY_AUTHORIZATION, value.clone());
            }
        }
    }
}

/// Removes headers that are meant for one connection only (RFC 9110, 7.6.1). Hyper does the framing.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').filter_map(|name| name.trim().parse().ok()))
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in [CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, UPGRADE] {
        headers.remove(name);
    }
    headers.remove("proxy-connection");
    headers.remove("keep-alive");
}

fn explain(error: &DialError, shared: &Shared) -> Response<Body> {
    let status = match error {
        DialError::Refused { .. } => StatusCode::FORBIDDEN,
        _ => StatusCode::BAD_GATEWAY,
    };
    let said = error.to_string();
    let mut response = text(status, &said);
    let value = HeaderValue::from_str(&said).unwrap_or(HeaderValue::from_static("refused or unreachable"));
    response.headers_mut().insert(PROBLEM_HEADER, value);
    shared.note(said);
    response
}

fn text(status: StatusCode, said: &str) -> Response<Body> {
    let body = Full::new(Bytes::from(format!("swarm: {said}\n"))).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn empty() -> Body {
    Full::new(Bytes::new()).map_err(|never| match never {}).boxed()
}
