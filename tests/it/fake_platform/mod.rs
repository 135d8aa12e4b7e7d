//! A fake of a service that runs workers over HTTP (`docs/command-openapi.yaml`). It keeps workers with their states,
//! fails on request, and holds every request that it gets, and every answer of its own, to the document.

mod contract;
mod world;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{
        HeaderMap, Method, StatusCode, Uri,
        header::{AUTHORIZATION, LOCATION, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::DropGuard;

pub(crate) use self::{
    contract::Contract,
    world::{Fault, World},
};
use crate::support::http::serve;

/// A running fake; stopped when dropped. A request or answer that the document does not know fails the test then.
pub(crate) struct FakePlatform {
    address: SocketAddr,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

struct Shared {
    contract: Contract,
    world: Mutex<World>,
    changed: watch::Sender<u64>,
}

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let result = change(&mut self.world());
        self.changed.send_modify(|version| *version += 1);
        result
    }
}

impl FakePlatform {
    /// Starts it without workers.
    pub(crate) async fn start() -> Self {
        let world = Mutex::new(World::default());
        let shared = Arc::new(Shared { contract: Contract::load(), world, changed: watch::Sender::new(0) });
        let router = Router::new().fallback(handle).with_state(shared.clone());
        let (address, stop) = serve(router).await;
        Self { address, shared, _stop: stop }
    }

    /// Base URL, for the setting `url`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Looks at something.
    pub(crate) fn see<T>(&self, look: impl FnOnce(&World) -> T) -> T {
        look(&self.shared.world())
    }

    /// Changes something, as people and hosts do. Whoever watches is told.
    pub(crate) fn act<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        self.shared.change(change)
    }

    /// From now on, requests of this operation go wrong.
    pub(crate) fn fail(&self, operation: &'static str, fault: Fault) {
        self.shared.world().faults.insert(operation, fault);
    }

    /// From now on, nothing goes wrong.
    pub(crate) fn heal(&self) {
        self.shared.world().faults.clear();
    }

    /// Waits until something is as wanted.
    pub(crate) async fn until(&self, what: &str, wanted: impl Fn(&World) -> bool) {
        let mut changed = self.shared.changed.subscribe();
        let wait = async {
            while !self.see(&wanted) {
                changed.changed().await.unwrap();
            }
        };
        let there = tokio::time::timeout(crate::support::wait::DEADLINE, wait).await;
        assert!(there.is_ok(), "never: {what}\n{:#?}", self.see(|world| world.log.clone()));
    }
}

impl Drop for FakePlatform {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let violations = self.see(|world| world.violations.clone());
            assert!(violations.is_empty(), "not as docs/command-openapi.yaml says:\n{}", violations.join("\n"));
        }
    }
}

async fn handle(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.path().strip_prefix("/v1").unwrap_or(uri.path()).to_owned();
    let query = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let ask = contract::Ask { method: method.to_string(), path, query, body: body.to_vec() };
    let operation = match shared.contract.operation_of(&ask) {
        Ok(operation) => operation,
        Err(violation) => {
            shared.change(|world| world.violations.push(violation));
            return (StatusCode::NOT_FOUND, "no such call").into_response();
        }
    };
    let authorization = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let fault = shared.change(|world| {
        world.log.push(format!("{method} {}", uri.path()));
        world.operations.insert(operation.clone());
        world.faults.get(operation.as_str()).copied()
    });
    if !shared.world().admits(authorization) {
        // As careless services do, it repeats what it was sent.
        return problem(401, &format!("unknown credentials: {authorization}"));
    }
    match fault {
        Some(Fault::Refused(status, None)) => return problem(status, "as the test wants it"),
        Some(Fault::Refused(status, Some(seconds))) => {
            return ([(RETRY_AFTER, seconds.to_string())], problem(status, "as the test wants it")).into_response();
        }
        Some(Fault::Redirected(to)) => {
            let location = format!("http://{to}{}", uri.path());
            return (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, location)]).into_response();
        }
        _ => {}
    }
    if operation == "watchWorkers" {
        return watching(&shared);
    }
    let (status, answer) = shared.change(|world| world.carry_out(&operation, &ask));
    if let Err(violation) = shared.contract.check_answer(&operation, status, &answer) {
        shared.change(|world| world.violations.push(violation));
    }
    match fault {
        Some(Fault::Lost) => problem(500, "it crashed afterwards"),
        Some(Fault::Silent) => std::future::pending().await,
        Some(Fault::Cut) => {
            let halves = [Ok(Bytes::from_static(b"{\"workers\":[")), Err(std::io::Error::other("cut"))];
            Body::from_stream(stream::iter(halves)).into_response()
        }
        Some(Fault::Garbage) => "<html>It works!</html>".into_response(),
        Some(Fault::Endless) => {
            let blanks = stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 4096])));
            Body::from_stream(blanks).into_response()
        }
        _ => reply(status, &answer),
    }
}

/// An answer that gets a line at each change.
fn watching(shared: &Arc<Shared>) -> Response {
    let changed = shared.changed.subscribe();
    shared.change(|world| world.watchers += 1);
    let lines = stream::unfold(changed, |mut changed| async move {
        changed.changed().await.ok()?;
        Some((Ok::<_, std::io::Error>("changed\n"), changed))
    });
    Body::from_stream(lines).into_response()
}

fn reply(status: u16, body: &Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    if body.is_null() {
        return status.into_response();
    }
    (status, [("content-type", "application/json")], body.to_string()).into_response()
}

fn problem(status: u16, detail: &str) -> Response {
    let body = json!({ "title": "Refused", "detail": detail }).to_string();
    (StatusCode::from_u16(status).unwrap(), [("content-type", "application/problem+json")], body).into_response()
}
