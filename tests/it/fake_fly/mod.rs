//! A fake of Fly.io's Machines API, since the real one can't be had on a developer's machine. It keeps machines with
//! their states, transitional ones too, leases, volumes and hosts, answers as
//! <https://fly.io/docs/machines/api/machines-resource/> says, and fails on request.

mod faults;
mod world;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri, header::AUTHORIZATION},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::DropGuard;

pub(crate) use self::{
    faults::Fault,
    world::{World, worker},
};
use crate::support::http::serve;

/// The token that it accepts.
pub(crate) const TOKEN: &str = "fm2_secret-of-the-tests";
/// The app that it has.
pub(crate) const APP: &str = "shop";

/// A running fake; stopped when dropped.
pub(crate) struct FakeFly {
    address: SocketAddr,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

/// What its requests and its machines share.
pub(crate) struct Shared {
    world: Mutex<World>,
    changed: watch::Sender<u64>,
}

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// Changes something, and says so.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let result = change(&mut self.world());
        self.changed.send_modify(|version| *version += 1);
        result
    }
}

/// What a request asks for.
struct Ask {
    method: Method,
    /// After `/v1/apps/{app}/`.
    path: Vec<String>,
    query: Vec<(String, String)>,
    nonce: Option<String>,
    body: Value,
}

impl Ask {
    fn query(&self, key: &str) -> Option<&str> {
        self.query.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

/// An answer: status and body.
type Answer = (u16, Value);

impl FakeFly {
    /// Starts it with the app and no machine.
    pub(crate) async fn start() -> Self {
        let shared = Arc::new(Shared { world: Mutex::new(World::default()), changed: watch::Sender::new(0) });
        let router = Router::new().fallback(handle).with_state(shared.clone());
        let (address, stop) = serve(router).await;
        Self { address, shared, _stop: stop }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Looks at something.
    pub(crate) fn see<T>(&self, look: impl FnOnce(&World) -> T) -> T {
        look(&self.shared.world())
    }

    /// Changes something: what people and hosts do.
    pub(crate) fn act<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        self.shared.change(change)
    }

    /// From now on, in this order: the next request whose method and path begin and end so goes wrong.
    pub(crate) fn fail(&self, method: &str, path_end: &str, fault: Fault) {
        self.act(|world| world.faults.push(method, path_end, fault));
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
        assert!(there.is_ok(), "never: {what}\n{:#?}", self.see(World::summary));
    }
}

async fn handle(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let fault = shared.change(|world| {
        world.log.push((format!("{method} {}", uri.path()), Instant::now()));
        world.faults.take(method.as_str(), uri.path())
    });
    if let Some(Fault::Refused(status, retry_after)) = fault {
        let answer = reply((status, json!({ "error": "as the test wants it" })));
        return match retry_after {
            Some(seconds) => ([("retry-after", seconds)], answer).into_response(),
            None => answer,
        };
    }
    let answer = answer(&shared, method, &uri, &headers, &body).await;
    if let Some(Fault::Slow(pause)) = fault {
        // Afterwards: who hangs up in the meantime ends this here.
        tokio::time::sleep(pause).await;
    }
    match fault {
        Some(Fault::Lost) => reply((408, json!({ "error": "request timed out" }))),
        Some(Fault::Cut) => cut(),
        _ => reply(answer),
    }
}

async fn answer(shared: &Arc<Shared>, method: Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Answer {
    let segments: Vec<String> = uri.path().trim_matches('/').split('/').map(str::to_owned).collect();
    let authorized = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let refused = shared.world().refusal(&method, authorized, &segments);
    if let Some(refused) = refused {
        return refused;
    }
    let query = uri.query().unwrap_or_default();
    let ask = Ask {
        method,
        path: segments[3..].to_vec(),
        query: url::form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
        nonce: headers.get("fly-machine-lease-nonce").and_then(|value| Some(value.to_str().ok()?.to_owned())),
        body: serde_json::from_slice(body).unwrap_or(Value::Null),
    };
    if let Some(wait) = Wait::asked(&ask) {
        return wait.until(shared).await;
    }
    world::carry_out(shared, &ask)
}

/// `GET /machines/{id}/wait`.
struct Wait {
    id: String,
    state: String,
    instance: Option<String>,
    timeout: Duration,
}

impl Wait {
    fn asked(ask: &Ask) -> Option<Self> {
        let [machines, id, wait] = ask.path.as_slice() else { return None };
        (ask.method == Method::GET && machines == "machines" && wait == "wait").then(|| Self {
            id: id.clone(),
            state: ask.query("state").unwrap_or("started").to_owned(),
            instance: ask.query("instance_id").map(str::to_owned),
            timeout: Duration::from_secs(ask.query("timeout").and_then(|text| text.parse().ok()).unwrap_or(60)),
        })
    }

    async fn until(self, shared: &Shared) -> Answer {
        if self.state == "stopped" && self.instance.is_none() {
            return (400, json!({ "error": "invalid_argument: instance_id is required to wait for stopped" }));
        }
        let mut changed = shared.changed.subscribe();
        let wait = async {
            loop {
                match shared.world().state_of(&self.id) {
                    Some(state) if state == self.state => return (200, json!({ "ok": true })),
                    Some(_) => {}
                    None => return (404, json!({ "error": "not_found: machine not found" })),
                }
                changed.changed().await.unwrap();
            }
        };
        let late = (408, json!({ "error": "deadline_exceeded: wait timed out" }));
        tokio::time::timeout(self.timeout, wait).await.unwrap_or(late)
    }
}

fn reply((status, body): Answer) -> Response {
    (StatusCode::from_u16(status).unwrap(), [("content-type", "application/json")], body.to_string()).into_response()
}

/// A connection that breaks in the middle of an answer.
fn cut() -> Response {
    let halves = [Ok(Bytes::from_static(b"{\"id\":")), Err(std::io::Error::other("cut"))];
    Body::from_stream(futures_util::stream::iter(halves)).into_response()
}
