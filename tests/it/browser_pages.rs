//! Pages that misbehave, each opened by a real Chromium: what a job answers, and that its session goes on.

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use crate::support::{
    browser::{NO_SANDBOX, chromium},
    pages,
    redis::RedisServer,
    wait::{DEADLINE, eventually},
    worker_process::WorkerProcess,
};

/// Pages that are open at the same time.
const AT_ONCE: usize = 4;

/// What a `goto` answers.
#[derive(Clone, Copy, Debug)]
enum Answer {
    /// The page: its title, the HTTP status, whether everything has loaded, and the number of dialogs that are told.
    Page(&'static str, u64, bool, usize),
    /// The page with its title, whether everything has loaded or not: that depends on the machine.
    Shown(&'static str),
    /// A page of the browser's own in place of an error without a body: the HTTP status.
    Status(u64),
    /// An error with this text.
    Error(&'static str),
    /// The page, or an error. It counts that there is an answer, and that the next one is right.
    Any,
}

use Answer::{Any, Error, Page, Shown, Status};

/// Pages that load at their own pace. A page named like its title is given without it.
const LOADED: &[(&str, Answer)] = &[
    ("plain.html", Page("plain", 200, true, 0)),
    ("alert.html", Page("alert", 200, true, 3)),
    ("alert-timer.html", Shown("alert-timer")),
    ("alert-storm.html", Page("alert-storm", 200, true, 11)),
    ("alert-unload.html", Page("alert-unload", 200, true, 0)),
    ("dialogs.html", Page("dialogs", 200, true, 0)),
    ("frame-204.html", Page("frame-204", 200, true, 0)),
    ("frame-401.html", Page("frame-401", 200, true, 0)),
    ("frame-download.html", Page("frame-download", 200, true, 0)),
    ("frame-file.html", Page("frame-file", 200, true, 0)),
    ("frame-reset.html", Page("frame-reset", 200, true, 0)),
    ("frame-garbage.html", Page("frame-garbage", 200, true, 0)),
    ("frame-itself.html", Page("frame-itself", 200, true, 0)),
    ("frame-alert.html", Page("frame-alert", 200, true, 1)),
    ("frame-leaves.html", Any),
    ("frames-many.html", Page("frames-many", 200, true, 0)),
    ("image-broken.html", Page("image-broken", 200, true, 0)),
    ("font-never.html", Shown("font-never")),
    ("fetch-401.html", Page("fetch-401", 200, true, 0)),
    ("fetch-never.html", Page("fetch-never", 200, true, 0)),
    ("refresh-loop.html", Shown("refresh-loop")),
    ("refresh-once.html", Page("plain", 200, true, 0)),
    ("script-leaves.html", Page("plain", 200, true, 0)),
    ("script-downloads.html", Shown("script-downloads")),
    ("form-submits.html", Page("plain", 200, true, 0)),
    ("history-loop.html", Shown("history-loop")),
    ("window-open.html", Page("window-open", 200, true, 0)),
    ("window-close.html", Any),
    ("print.html", Page("print", 200, true, 0)),
    ("big-dom.html", Page("big-dom", 200, true, 0)),
    ("deep-dom.html", Page("deep-dom", 200, true, 0)),
    ("service-worker.html", Page("service-worker", 200, true, 0)),
    ("camera.html", Page("camera", 200, true, 0)),
    ("geolocation.html", Page("geolocation", 200, true, 0)),
    ("notification.html", Page("notification", 200, true, 0)),
    ("clipboard.html", Page("clipboard", 200, true, 0)),
    ("devices.html", Page("devices", 200, true, 0)),
    ("fullscreen.html", Page("fullscreen", 200, true, 0)),
    ("protocol.html", Shown("protocol")),
    ("webrtc.html", Page("webrtc", 200, true, 0)),
    ("socket-never.html", Page("socket-never", 200, true, 0)),
    ("prerender.html", Page("prerender", 200, true, 0)),
    ("animation.html", Page("animation", 200, true, 0)),
    ("rewrites-itself.html", Any),
    ("throws.html", Page("throws", 200, true, 0)),
    ("natives.html", Page("natives", 200, true, 0)),
    ("huge.html", Page("huge", 200, true, 0)),
    ("401", Page("who is there", 401, true, 0)),
    ("503", Page("later", 503, true, 0)),
    ("404", Page("nothing here", 404, true, 0)),
    ("404-empty", Status(404)),
    ("500-empty", Status(500)),
    ("401-empty", Any),
    ("407", Any),
    ("empty", Page("127.0.0.1:PORT/empty", 200, true, 0)),
    ("text", Page("127.0.0.1:PORT/text", 200, true, 0)),
    ("json", Page("127.0.0.1:PORT/json", 200, true, 0)),
    ("xml", Page("127.0.0.1:PORT/xml", 200, true, 0)),
    ("refresh-header", Page("plain", 200, true, 0)),
    ("redirect/10", Page("plain", 200, true, 0)),
    ("redirect/30", Error("net::ERR_TOO_MANY_REDIRECTS")),
    ("204", Error("a download, or an answer without content")),
    ("304", Any),
    ("download", Error("a download, or an answer without content")),
    ("binary", Error("a download, or an answer without content")),
    // Shown as empty, and said to be broken off; or an error, by which is noticed first.
    ("gzip", Any),
    ("reset", Error("")),
    ("garbage", Error("")),
];

/// Pages that never load: their jobs take as long as an action may.
const NEVER_LOADED: &[(&str, Answer)] = &[
    ("frame-never.html", Page("frame-never", 200, false, 0)),
    ("image-never.html", Page("image-never", 200, false, 0)),
    ("script-never.html", Page("script-never", 200, false, 0)),
    ("style-never.html", Page("style-never", 200, false, 0)),
    ("slow-body", Page("slow-body", 200, false, 0)),
    ("short-body", Page("short-body", 200, false, 0)),
    ("alert-forever.html", Any),
    ("busy.html", Any),
    ("busy-later.html", Any),
    ("sync-request.html", Any),
    ("never", Error("took longer than")),
];

struct Bench {
    worker: WorkerProcess,
    _server: RedisServer,
    port: u16,
}

impl Bench {
    async fn set(more: &str) -> Arc<Self> {
        let (server, port) = (RedisServer::start(), pages::serve().await);
        let settings = format!(
            "[worker_types.browser.worker]\nheartbeat_seconds = 1\n[worker_types.browser.browser]\nmax_pages = 32\n{NO_SANDBOX}\
             allow_private = [\"127.0.0.1:{port}\"]\n{more}"
        );
        let worker = WorkerProcess::start(&server, "browser", &settings).await;
        Arc::new(Self { worker, _server: server, port })
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    async fn goto(&self, session: &str, path: &str) -> Result<Value, String> {
        self.worker.ask(session, "goto", json!([self.url(path)])).await
    }

    /// Opens the page in a session of its own, and then a plain one in the same session.
    async fn try_out(&self, path: &str, expected: Answer) -> Result<(), String> {
        let session = path.replace('/', "-");
        self.worker.ask(&session, "start", json!([])).await?;
        let page = self.goto(&session, path).await;
        self.check(path, expected, &page).map_err(|problem| format!("{path}: {problem}: {page:?}"))?;
        let mut next = self.goto(&session, "plain.html").await;
        // A page that hangs holds up the next load for its whole time. Then its session is lost, which is told once.
        for _ in 0..2 {
            next = match next {
                Err(error) if matches!(expected, Any) && is_loss(&error) => {
                    let started = self.worker.ask(&session, "start", json!([self.url("plain.html")])).await;
                    started.map(|mut told| told["page"].take())
                }
                Err(error) if matches!(expected, Any) && error.contains("took longer than") => {
                    self.goto(&session, "plain.html").await
                }
                next => next,
            };
        }
        let close = self.worker.ask(&session, "close", json!([])).await;
        let title = next.as_ref().map(|page| (page["title"].clone(), page["status"].clone(), page["loaded"].clone()));
        let right = title == Ok((json!("plain"), json!(200), Value::Null)) && close.is_ok();
        right.then_some(()).ok_or_else(|| format!("after {path}: {next:?}, {close:?}"))
    }

    fn check(&self, path: &str, expected: Answer, page: &Result<Value, String>) -> Result<(), String> {
        let right = match (expected, page) {
            (Page(title, status, loaded, dialogs), Ok(page)) => {
                page["title"] == json!(title.replace("PORT", &self.port.to_string()))
                    && page["status"] == json!(status)
                    && page["loaded"] == (if loaded { Value::Null } else { json!(false) })
                    && page["dialogs"].as_array().map_or(0, Vec::len) == dialogs
            }
            (Shown(title), Ok(page)) => page["title"] == json!(title) && page["status"] == json!(200),
            (Status(status), Ok(page)) => page["status"] == json!(status) && page["url"] == json!(self.url(path)),
            (Error(text), Err(error)) => error.contains(text),
            (Any, _) => true,
            _ => false,
        };
        right.then_some(()).ok_or_else(|| format!("not {expected:?}"))
    }

    async fn try_all(&self, pages: &[(&str, Answer)]) {
        let tried = stream::iter(pages).map(|(path, expected)| self.try_out(path, *expected));
        let outcomes: Vec<_> = tried.buffer_unordered(AT_ONCE).collect().await;
        let wrong: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
        assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), self.worker.log());
    }
}

/// The page is lost, or was and that has been told.
fn is_loss(error: &str) -> bool {
    error.contains("session lost: the page") || error.contains("is not open; begin with `start`")
}

#[test]
fn every_page_is_in_a_table() {
    let listed: Vec<_> = LOADED.iter().chain(NEVER_LOADED).map(|(path, _)| path.trim_end_matches(".html")).collect();
    let missing: Vec<_> = pages::names().into_iter().filter(|name| !listed.contains(&name.as_str())).collect();
    assert!(missing.is_empty(), "nobody opens {missing:?}");
}

#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn whatever_a_page_does_its_job_has_an_answer_and_its_session_goes_on() {
    let bench = Bench::set("").await;
    let before = chromium(&bench.worker);
    bench.try_all(LOADED).await;
    assert!(before.is_none());
    let nobody = async || bench.worker.ask_with("status", json!([]), json!({})).await.unwrap()["pages"] == json!(0);
    assert!(eventually(DEADLINE, nobody).await, "sessions are left");
}

#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn a_page_that_never_loads_is_shown_as_far_as_it_is_there() {
    let bench = Bench::set("action_timeout_seconds = 8").await;
    bench.try_all(NEVER_LOADED).await;
}

#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn a_fragment_of_the_page_is_not_loaded_again_after_a_download() {
    let bench = Bench::set("").await;
    bench.worker.ask("a", "start", json!([])).await.unwrap();
    let page = bench.goto("a", "script-downloads.html").await.unwrap();
    assert_eq!(page["status"], json!(200));
    let fragment = bench.goto("a", "script-downloads.html#there").await.unwrap();
    assert_eq!((&fragment["status"], &fragment["title"]), (&Value::Null, &page["title"]));
}

#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn dialogs_are_dismissed_and_told_and_nobody_is_kept_on_a_page() {
    let bench = Bench::set("").await;
    let ask = async |method: &str, args: Value| bench.worker.ask("a", method, args).await;
    ask("start", json!([bench.url("dialogs.html")])).await.unwrap();
    let dialog = json!({ "dialogs": [{ "type": "alert", "message": "clicked" }] });
    assert_eq!(ask("click", json!(["#alert"])).await, Ok(dialog));
    assert_eq!(ask("status", json!([])).await.unwrap()["title"], json!("went on"));
    assert_eq!(ask("click", json!(["#stay"])).await, Ok(Value::Null));
    let page = bench.goto("a", "plain.html").await.unwrap();
    assert_eq!(page["title"], json!("plain"), "it is kept on the page before: {page}");
    assert_eq!(page["dialogs"][0]["type"], json!("beforeunload"));
    let page = bench.goto("a", "alert.html").await.unwrap();
    let texts: Vec<_> = page["dialogs"].as_array().unwrap().iter().map(|dialog| dialog["message"].clone()).collect();
    assert_eq!(texts, ["first", "second", "third"]);
}

#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn credentials_in_an_address_are_used_and_told_nobody() {
    let bench = Bench::set("").await;
    let ask = async |method: &str, args: Value| bench.worker.ask("a", method, args).await;
    let with = |path: &str| json!([format!("http://user:hunter2@127.0.0.1:{}/{path}", bench.port)]);
    let started = ask("start", with("401")).await.unwrap();
    assert_eq!(started["page"]["title"], json!("let in"));
    let mut told = vec![started.to_string()];
    for (method, args) in [
        ("status", json!([])),
        ("goto", with("plain.html")),
        ("goto", with("204")),
        ("goto", with("reset")),
        ("goto", json!(["http://user:hunter2@10.0.0.1/"])),
        ("goto", json!(["http://user:hunter2/@127.0 .0.1/"])),
        ("goto", json!(["ftp://user:hunter2@example.org/"])),
    ] {
        told.push(ask(method, args).await.map_or_else(|error| error, |value| value.to_string()));
    }
    told.push(bench.worker.log());
    assert!(told.iter().all(|text| !text.contains("hunter2")), "{told:#?}");
}

/// More than Chromium can hold: without a limit it took 2 GiB and was ended, with all its sessions.
#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn a_huge_page_is_shown_from_its_top_and_said_to_be_clipped() {
    let bench = Bench::set("").await;
    bench.worker.ask("a", "start", json!([bench.url("huge.html")])).await.unwrap();
    let picture = bench.worker.ask("a", "screenshot", json!([true])).await.unwrap();
    let png = BASE64_STANDARD.decode(picture["png"].as_str().unwrap()).unwrap();
    let number = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
    assert_eq!((number(16), number(20)), (8_000, 4_194));
    assert_eq!((&picture["clipped"], &picture["page_height"]), (&json!(true), &json!(40_000.0)));
    let window = bench.worker.ask("a", "screenshot", json!([])).await.unwrap();
    assert_eq!(window["clipped"], Value::Null);
}

#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn a_page_is_told_as_html_and_as_pdf() {
    let bench = Bench::set("").await;
    bench.worker.ask("a", "start", json!([bench.url("plain.html")])).await.unwrap();
    let content = bench.worker.ask("a", "content", json!([])).await.unwrap();
    assert!(content["html"].as_str().unwrap().contains("Nothing here misbehaves."), "{content}");
    let pdf = bench.worker.ask("a", "pdf", json!([])).await.unwrap();
    assert!(BASE64_STANDARD.decode(pdf["pdf"].as_str().unwrap()).unwrap().starts_with(b"%PDF-"));
    // A page can take its own functions away, not ours.
    bench.goto("a", "natives.html").await.unwrap();
    bench.worker.ask("a", "click", json!(["#go"])).await.unwrap();
    assert_eq!(bench.worker.ask("a", "status", json!([])).await.unwrap()["title"], json!("clicked"));
}

/// Whoever reaches Chromium's commands reads other sessions' pages, and files.
#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn no_port_of_chromium_can_be_reached() {
    let bench = Bench::set("").await;
    bench.worker.ask("a", "start", json!([bench.url("plain.html")])).await.unwrap();
    let main = chromium(&bench.worker).expect("it runs");
    let listening = listening_ports(main);
    assert!(listening.is_empty(), "Chromium listens on {listening:?}");
    assert!(listening_ports(bench.worker.id()).len() >= 2, "the worker's proxies are not found: the search is wrong");
}

/// TCP ports on which a process listens.
fn listening_ports(process: u32) -> Vec<u16> {
    let descriptors = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().flatten();
    let targets = descriptors.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let sockets: Vec<String> = targets.map(|path| path.to_string_lossy().into_owned()).collect();
    let mut ports = Vec::new();
    for table in ["tcp", "tcp6"] {
        let table = std::fs::read_to_string(format!("/proc/{process}/net/{table}")).unwrap_or_default();
        for line in table.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (local, state, inode) = (fields[1], fields[3], fields[9]);
            if state == "0A" && sockets.contains(&format!("socket:[{inode}]")) {
                ports.push(u16::from_str_radix(local.rsplit(':').next().unwrap(), 16).unwrap());
            }
        }
    }
    ports
}
