//! Shared by tests of browser workers: pages to visit, and a worker that may visit them.
//!
//! Where no Chromium can be had, `SWARM_TEST_WITHOUT=chromium` leaves these tests out (build.rs).

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    extract::Path,
    http::{HeaderMap, StatusCode, header},
    response::{Html, IntoResponse, Redirect},
    routing::get,
    serve::ListenerExt,
};
use swarm::config::BrowserSettings;
use tokio::net::TcpListener;

use super::{processes::state_and_parent, redis::RedisServer, worker_process::WorkerProcess};

/// Tests run as whoever runs them, root too, where Chromium has no sandbox.
pub(crate) const NO_SANDBOX: &str = "no_sandbox = true\n";

const PAGE: &str = "<!doctype html><title>A page</title><body style='background:#0a0'>
<input id=name><select id=colour><option value=r>red<option value=g>green</select>
<button id=go onclick=\"setTimeout(() => {
    const p = document.createElement('p'); p.id = 'late';
    document.title = p.textContent = document.getElementById('name').value + document.getElementById('colour').value;
    document.body.append(p) }, 100)\">Go</button>
<div style='height:3000px'></div>";

/// Page that opens two windows on a click, one with and one without an opener, and reports when the first is closed.
const OPENER: &str = "<!doctype html><title>opener</title><button id=go onclick=\"
    const w = open('/seen-by-child', '', '');
    setInterval(() => { if (w.closed) document.body.dataset.closed = 1 }, 20)\">Go</button>
<a id=hidden href=/lost target=_blank rel=noopener>Away</a>";

/// Page that takes up to 2 GiB of memory after its load, in steps that a measurement once a second sees.
const EATER: &str = "<!doctype html><title>eater</title><script>
    const all = [], eat = () => { if (all.length < 64) { all.push(new Uint8Array(32 << 20).fill(1)); setTimeout(eat, 50) } };
    onload = () => setTimeout(eat, 100)</script>";

/// Page that tells the server that it has begun, and never ends its script.
const LOOP: &str = "<!doctype html><title>loop</title><script>
    fetch('/mark/1').finally(() => { for (;;); })</script>";

/// Server of pages on its own port, which counts requests.
pub(crate) struct Site {
    pub(crate) port: u16,
    /// Number of connections. Through a worker's proxy each plain request has its own connection.
    pub(crate) visits: Arc<AtomicUsize>,
    /// Requested paths below `/mark/`.
    pub(crate) marks: Arc<Mutex<BTreeSet<usize>>>,
}

impl Site {
    /// Starts the server. Its pages try to reach the port `elsewhere`.
    pub(crate) async fn start(elsewhere: u16) -> Self {
        let (visits, marks) = (Arc::new(AtomicUsize::new(0)), Arc::<Mutex<BTreeSet<usize>>>::default());
        let (came, marked) = (Arc::clone(&visits), Arc::clone(&marks));
        let greedy = format!(
            "<!doctype html><title>greedy</title><img src=http://127.0.0.1:{elsewhere}/img>
            <iframe src=http://127.0.0.1:{elsewhere}/frame></iframe><img src=/seen>
            <script>const done = () => {{ document.body.dataset.n = +(document.body.dataset.n || 0) + 1 }};
            fetch('http://localhost:{elsewhere}/fetch', {{mode: 'no-cors'}}).catch(() => 0).finally(done);
            const socket = new WebSocket('ws://127.0.0.1:{elsewhere}/socket'); socket.onclose = done;
            const mapped = new Image(); mapped.onerror = mapped.onload = done;
            mapped.src = 'http://[::ffff:127.0.0.1]:{elsewhere}/mapped';
            fetch('https://127.0.0.1:{elsewhere}/tunnel', {{mode: 'no-cors'}}).catch(() => 0).finally(done);</script>"
        );
        let pages = Router::new()
            .route("/", get(async || Html(PAGE)))
            .route("/greedy", get(async || Html(greedy)))
            .route("/seen", get(async || StatusCode::NO_CONTENT))
            .route("/away", get(async move || Redirect::temporary(&format!("http://127.0.0.1:{elsewhere}/"))))
            .route("/never", get(async || std::future::pending::<()>().await))
            .route(
                "/agent",
                get(async |headers: HeaderMap| Html(format!("<title>{:?}</title>", headers[header::USER_AGENT]))),
            )
            .route(
                "/tenant",
                get(async |headers: HeaderMap| {
                    let tenant = headers.get("x-tenant").and_then(|tenant| tenant.to_str().ok()).unwrap_or("none");
                    Html(format!("<title>{tenant}</title>"))
                }),
            )
            .route(
                "/cookie",
                get(async |headers: HeaderMap| {
                    let title = if headers.contains_key(header::COOKIE) { "known" } else { "stranger" };
                    ([(header::SET_COOKIE, "a=b")], Html(format!("<title>{title}</title>"))).into_response()
                }),
            )
            .route("/file", get(async || ([(header::CONTENT_DISPOSITION, "attachment; filename=evil.bin")], "evil")))
            .route("/opener", get(async || Html(OPENER)))
            .route("/eater", get(async || Html(EATER)))
            .route("/loop", get(async || Html(LOOP)))
            .route(
                "/mark/{number}",
                get(async move |Path(number): Path<usize>| {
                    marked.lock().expect("nobody panics with it").insert(number);
                    Html(format!("<title>mark {number}</title>"))
                }),
            )
            .fallback(async || (StatusCode::NOT_FOUND, Html("<title>nothing here</title>")));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there are free ports");
        let port = listener.local_addr().expect("it is bound").port();
        let counting = listener.tap_io(move |_| {
            came.fetch_add(1, Ordering::SeqCst);
        });
        tokio::spawn(async move { axum::serve(counting, pages).await });
        Self { port, visits, marks }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

/// Starts a worker that may reach `site` and no other private address.
pub(crate) async fn worker(server: &RedisServer, site: &Site, more: &str) -> WorkerProcess {
    let settings = format!(
        "[worker_types.browser.worker]\nheartbeat_seconds = 1\n[worker_types.browser.browser]\n{NO_SANDBOX}allow_private = [\"127.0.0.1:{}\"]\n{more}",
        site.port
    );
    WorkerProcess::start(server, "browser", &settings).await
}

/// Returns Chromium's main process, the ancestor of its other processes: of several Chromiums any.
pub(crate) fn chromium(worker: &WorkerProcess) -> Option<u32> {
    chromiums(worker).pop_first()
}

/// Returns the main process of each Chromium.
pub(crate) fn chromiums(worker: &WorkerProcess) -> BTreeSet<u32> {
    let main = |line: &str| line.contains("--remote-debugging-pipe") && !line.contains("--type=");
    let all = worker.processes().into_iter().filter(|(_, line)| main(line)).map(|(id, _)| id);
    let all: BTreeSet<u32> = all.collect();
    // A process that is about to become another program still has the command line of its parent.
    let is_child = |id: &u32| state_and_parent(id.cast_signed()).is_some_and(|(_, parent)| all.contains(&parent));
    all.iter().filter(|id| !is_child(id)).copied().collect()
}

/// Returns the MiB that a worker needs for all its places: `src/worker/handlers/browser/capacity.rs` gives it fewer
/// places if its container has less.
pub(crate) fn memory_mib(settings: &BrowserSettings) -> u64 {
    const BESIDE_SESSIONS: u64 = 256;
    u64::try_from(settings.max_pages).expect("it is at most 1,000") * settings.max_memory_mib + BESIDE_SESSIONS
}

/// Returns the directories of Chromiums that run, or ran.
pub(crate) fn profiles(worker: &WorkerProcess) -> Vec<PathBuf> {
    let paths =
        fs::read_dir(worker.directory.path()).expect("the directory is ours").flatten().map(|entry| entry.path());
    paths
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("swarm-browser-")))
        .collect()
}
