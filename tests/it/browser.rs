//! The browser worker as a process, with a real Chromium, on pages that the test serves.

use std::{
    fs,
    sync::{Arc, atomic::Ordering},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use rustls::{ServerConfig, ServerConnection, crypto::ring::default_provider, pki_types::PrivateKeyDer};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::support::{
    browser::{Site, worker},
    redis::RedisServer,
    wait::{DEADLINE, eventually},
    worker_process::WorkerProcess,
};

/// Width and height of a PNG, as its header says.
fn png_size(base64: &Value) -> (u32, u32) {
    let png = BASE64_STANDARD.decode(base64.as_str().unwrap()).unwrap();
    assert!(png.starts_with(b"\x89PNG\r\n\x1a\n") && png.len() > 1_000, "no PNG: {} bytes", png.len());
    let number = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
    (number(16), number(20))
}

#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn each_job_does_what_it_says() {
    let (server, site) = (RedisServer::start(), Site::start(1).await);
    let mut worker = worker(&server, &site, "width = 640\nheight = 480\nuser_agent = \"swarm-test\"").await;
    let started = worker.ask("a", "start", json!([site.url("/")])).await.unwrap();
    assert_eq!(started["page"], json!({ "url": site.url("/"), "title": "A page", "status": 200 }));
    assert_eq!(worker.ask("a", "fill", json!(["#name", "it's \"me\" "])).await, Ok(Value::Null));
    assert_eq!(worker.ask("a", "fill", json!(["#colour", "green"])).await, Ok(Value::Null));
    assert_eq!(worker.ask("a", "click", json!(["#go"])).await, Ok(Value::Null));
    assert_eq!(worker.ask("a", "wait_for", json!(["#late", 20])).await, Ok(Value::Null));
    let status = worker.ask("a", "status", json!([])).await.unwrap();
    assert_eq!(status["title"], json!("it's \"me\" g"));

    let window = worker.ask("a", "screenshot", json!([])).await.unwrap();
    assert_eq!(png_size(&window["png"]), (640, 480));
    let full = worker.ask("a", "screenshot", json!([true])).await.unwrap();
    assert!(png_size(&full["png"]).1 > 3_000, "{:?}", png_size(&full["png"]));

    let agent = worker.ask("a", "goto", json!([site.url("/agent")])).await.unwrap();
    assert_eq!(agent["title"], json!("\"swarm-test\""));
    for (method, args, says) in [
        ("click", json!(["#nobody"]), "no element matches `#nobody`"),
        ("click", json!(["p["]), "`p[` is no CSS selector"),
        ("fill", json!(["title", "x"]), "is no field of a form"),
        ("goto", json!([site.url("/lost")]), ""),
        ("goto", json!(["file:///etc/passwd"]), "`file:` is not opened"),
        ("goto", json!(["data:text/html,hello"]), "`data:` is not opened"),
    ] {
        match worker.ask("a", method, args).await {
            Ok(page) => assert_eq!((says, &page["status"]), ("", &json!(404))),
            Err(error) => assert!(!says.is_empty() && error.contains(says), "{error}"),
        }
    }
    assert_eq!(worker.ask("a", "close", json!([])).await, Ok(json!({ "closed": 1 })));
    let error = worker.ask("a", "status", json!([])).await.unwrap_err();
    assert!(error.contains("session `a` is not open"), "{error}");
    worker.leave().await;
    let nobody = eventually(DEADLINE, async || worker.processes().is_empty()).await;
    assert!(nobody, "left behind: {:?}", worker.processes());
}

#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn sessions_are_isolated_counted_and_bounded() {
    let (server, site) = (RedisServer::start(), Site::start(1).await);
    let worker = worker(&server, &site, "max_pages = 3").await;
    for (session, title) in [("c", "stranger"), ("c:1", "stranger"), ("d", "stranger"), ("c", "known")] {
        let page = worker.ask(session, "start", json!([site.url("/cookie")])).await.unwrap();
        assert_eq!(page["page"]["title"], json!(title), "{session}");
    }
    let fourth = worker.publish("start", json!([]), json!({ "session": "e" })).await;
    let waits = async || worker.heartbeat("waiting_for_place").await.as_deref() == Some("1");
    assert!(eventually(DEADLINE, waits).await, "nobody waits for a place");
    let counted = async || {
        let resident = worker.heartbeat("browser_rss_bytes").await.and_then(|bytes| bytes.parse::<u64>().ok());
        worker.heartbeat("sessions").await.as_deref() == Some("3") && resident.is_some_and(|bytes| bytes > 50 << 20)
    };
    assert!(eventually(DEADLINE, counted).await, "the heartbeat does not tell of 3 sessions and their memory");
    assert_eq!(worker.ask_with("close_channel", json!(["c"]), json!({})).await, Ok(json!({ "closed": 2 })));
    assert_eq!(worker.answer(&fourth).await.unwrap()["session"], json!("e"));
    assert_eq!(worker.ask_with("close_all", json!([]), json!({})).await, Ok(json!({ "closed": 2 })));
    let overall = worker.ask_with("status", json!([]), json!({})).await.unwrap();
    assert_eq!((&overall["pages"], &overall["max_pages"]), (&json!(0), &json!(3)));
    let page = worker.ask("c", "start", json!([site.url("/cookie")])).await.unwrap();
    assert_eq!(page["page"]["title"], json!("stranger"), "a closed session is forgotten");
}

#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn pages_reach_nothing_private_by_any_way() {
    let (server, private) = (RedisServer::start(), Site::start(1).await);
    let site = Site::start(private.port).await;
    let worker = worker(&server, &site, "").await;
    worker.ask("a", "start", json!([])).await.unwrap();
    for (url, says) in [
        (private.url("/"), "is a loopback address"),
        (format!("http://localhost:{}/", private.port), "is a loopback address"),
        (format!("http://[::ffff:7f00:1]:{}/", private.port), "is a loopback address"),
        ("http://2130706433:1/".to_owned(), "127.0.0.1 is a loopback address"),
        ("http://169.254.169.254/latest/meta-data/".to_owned(), "is a link-local address"),
        ("https://10.0.0.1/".to_owned(), "is a private address"),
        (site.url("/away"), "is a loopback address"),
        (site.url("/file"), "net::ERR_ABORTED"),
    ] {
        let error = worker.ask("a", "goto", json!([url])).await.expect_err(&url);
        assert!(error.contains(says), "{url}: {error}");
    }
    worker.ask("a", "goto", json!([site.url("/greedy")])).await.unwrap();
    worker.ask("a", "wait_for", json!(["body[data-n='4']", 20])).await.unwrap();
    assert_eq!(private.visits.load(Ordering::SeqCst), 0, "a page has reached a private address");
    // The same ways lead somewhere that is allowed: /away, /file, /greedy, and its picture.
    assert!(site.visits.load(Ordering::SeqCst) >= 4);
    let evil = |entry: fs::DirEntry| entry.file_name().to_string_lossy().contains("evil");
    assert!(!fs::read_dir(worker.directory.path()).unwrap().flatten().any(evil), "something was downloaded");
}

/// How many processes of pages Chromium has.
fn renderers(worker: &WorkerProcess) -> usize {
    worker.processes().iter().filter(|(_, line)| line.contains("--type=renderer")).count()
}

#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn windows_that_a_page_opens_are_closed() {
    let (server, site) = (RedisServer::start(), Site::start(1).await);
    let worker = worker(&server, &site, "spare_browser = false").await;
    worker.ask("a", "start", json!([site.url("/opener")])).await.unwrap();
    // First the window that hides who opened it: they are closed in order.
    for selector in ["#hidden", "#go"] {
        worker.ask("a", "click", json!([selector])).await.unwrap();
    }
    worker.ask("a", "wait_for", json!(["body[data-closed]", 20])).await.unwrap();
    // That one page is its own, and one may be kept for the next.
    let closed = eventually(DEADLINE, async || renderers(&worker) <= 3).await;
    assert!(closed, "a window is left: {:?}", worker.processes());
    assert_eq!(worker.ask("a", "status", json!([])).await.unwrap()["title"], json!("opener"));
}

/// A TLS server on a port of its own, with a certificate that nobody has signed.
fn tls_server() -> u16 {
    let signed = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let config = Arc::new(config.with_single_cert(vec![signed.cert.der().clone()], key).unwrap());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut session) = (stream.unwrap(), ServerConnection::new(Arc::clone(&config)).unwrap());
            // Chromium may open a second connection and leave the first one silent. Ends with the handshake, or with
            // the client's refusal, which the client tells.
            std::thread::spawn(move || session.complete_io(&mut stream));
        }
    });
    port
}

#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn https_is_tunnelled_to_where_it_may_go_and_certificates_are_checked() {
    let (server, site) = (RedisServer::start(), Site::start(1).await);
    let port = tls_server();
    let url = json!([format!("https://127.0.0.1:{port}/")]);
    let refused = worker(&server, &site, "").await;
    let error = refused.ask("a", "start", url.clone()).await.unwrap_err();
    assert!(error.contains("is a loopback address"), "{error}");
    drop(refused);
    let (server, site) = (RedisServer::start(), Site { port, ..site });
    let allowed = worker(&server, &site, "").await;
    let error = allowed.ask("a", "start", url).await.unwrap_err();
    assert!(error.contains("net::ERR_CERT_AUTHORITY_INVALID"), "{error}");
}

/// Asks until that is done in the two seconds of an action, which are short for a busy machine.
async fn ask_in_time(worker: &WorkerProcess, method: &str, args: Value) -> Value {
    let mut answer = Err("not asked".to_owned());
    let in_time = eventually(DEADLINE, async || {
        answer = worker.ask("a", method, args.clone()).await;
        !matches!(&answer, Err(error) if error.contains("took longer than 2s"))
    });
    assert!(in_time.await, "{answer:?}");
    answer.unwrap()
}

#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn time_is_bounded() {
    let (server, site) = (RedisServer::start(), Site::start(1).await);
    let slow = worker(&server, &site, "action_timeout_seconds = 2").await;
    ask_in_time(&slow, "start", json!([site.url("/")])).await;
    for (method, args, says) in [
        ("goto", json!([site.url("/never")]), "took longer than 2s"),
        ("wait_for", json!(["#nobody", 0.2]), "waiting for `#nobody` took longer than 200ms"),
    ] {
        let error = slow.ask("a", method, args).await.unwrap_err();
        assert!(error.contains(says), "{error}");
    }
    let page = ask_in_time(&slow, "goto", json!([site.url("/")])).await;
    assert_eq!(page["title"], json!("A page"), "the session goes on after a time-out");
}

#[cfg_attr(without_chromium, ignore = "there is no Chromium")]
#[tokio::test]
async fn everything_goes_through_the_configured_proxy() {
    let (server, site) = (RedisServer::start(), Site::start(1).await);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let proxy = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        let answer = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 22\r\n\r\n<title>proxied</title>";
        stream.write_all(answer).await.unwrap();
        String::from_utf8(request).unwrap().to_lowercase()
    });
    let worker = worker(&server, &site, &format!("proxy = \"http://me:secret@127.0.0.1:{port}\"")).await;
    let page = worker.ask("a", "start", json!([site.url("/x?y")])).await.unwrap();
    assert_eq!(page["page"]["title"], json!("proxied"));
    let request = proxy.await.unwrap();
    assert!(request.starts_with(&format!("get {} http/1.1\r\n", site.url("/x?y"))), "{request}");
    let credentials = BASE64_STANDARD.encode("me:secret").to_lowercase();
    assert!(request.contains(&format!("proxy-authorization: basic {credentials}")), "{request}");
    assert_eq!(site.visits.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_missing_browser_is_named_with_its_package() {
    let (server, site) = (RedisServer::start(), Site::start(1).await);
    let worker = worker(&server, &site, "executable = \"/nowhere/chromium\"").await;
    let error = worker.ask("a", "start", json!([])).await.unwrap_err();
    assert!(error.contains("/nowhere/chromium") && error.contains("apt install chromium"), "{error}");
}
