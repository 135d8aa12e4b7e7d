//! Minimal fake of Fly.io's Machines API: one machine, which starts and stops immediately. It records the arrival of
//! each request before it handles the request.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    Router,
    extract::State,
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::protocol::nanos;

/// Request, with its time of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reached {
    /// Request to start the machine.
    Start(u64),
    /// Bare request of the floor.
    Bare(u64),
    /// A list has shown that the machine is stopped again.
    SeenStopped,
}

/// Running API.
pub(crate) struct FlyApi {
    pub(crate) url: String,
    pub(crate) reached: UnboundedReceiver<Reached>,
}

struct Shared {
    state: Mutex<&'static str>,
    reached: UnboundedSender<Reached>,
}

impl FlyApi {
    /// Starts the API on a thread and runtime of its own.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let url = format!("http://{}", listener.local_addr()?);
        let (sender, reached) = unbounded_channel();
        let shared = Arc::new(Shared { state: Mutex::new("stopped"), reached: sender });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("fly api".to_owned()).spawn(move || {
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                axum::serve(listener, Router::new().fallback(answer).with_state(shared)).await
            })
        })?;
        Ok(Self { url, reached })
    }
}

async fn answer(State(shared): State<Arc<Shared>>, method: Method, uri: Uri) -> Response {
    let at = nanos();
    let path = uri.path();
    let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
    let tell = |what| {
        let _ = shared.reached.send(what);
    };
    if path == "/bare" {
        tell(Reached::Bare(at));
    } else if path.ends_with("/start") {
        tell(Reached::Start(at));
        *state = "started";
    } else if path.ends_with("/stop") {
        *state = "stopped";
    } else if path.ends_with("/wait") {
        let wanted = uri.query().is_some_and(|query| query.contains(&format!("state={}", *state)));
        return if wanted { reply(&json!({ "ok": true })) } else { StatusCode::REQUEST_TIMEOUT.into_response() };
    } else if method == Method::GET && path.ends_with("/machines") {
        return reply(&json!([machine(*state)]));
    } else if method == Method::GET {
        if *state == "stopped" {
            tell(Reached::SeenStopped);
        }
        return reply(&machine(*state));
    }
    reply(&json!({ "ok": true }))
}

fn reply(body: &Value) -> Response {
    ([("content-type", "application/json")], body.to_string()).into_response()
}

fn machine(state: &str) -> Value {
    json!({
        "id": "m1", "name": "worker", "state": state, "region": "fra", "instance_id": "v1", "host_status": "ok",
        "config": { "image": "x", "metadata": { "fly_process_group": "worker-type-00000" } },
    })
}
