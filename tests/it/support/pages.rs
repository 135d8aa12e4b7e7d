//! A server of pages that misbehave: those in `tests/testdata/pages/`, and answers that no file can give.

use std::{fs, path::PathBuf};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Starts the server; returns its port.
pub(crate) async fn serve() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("there are free ports");
    let port = listener.local_addr().expect("it is bound").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Whoever asked may have gone.
            tokio::spawn(async move { answer(stream).await.ok() });
        }
    });
    port
}

/// Names of the pages in files, without `.html`.
pub(crate) fn names() -> Vec<String> {
    let entries = fs::read_dir(directory()).expect("the pages are in the repository");
    let path = |entry: std::io::Result<fs::DirEntry>| entry.expect("it can be read").path();
    entries.map(path).map(|path| path.file_stem().expect("it has a name").to_string_lossy().into_owned()).collect()
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/testdata/pages")
}

async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let target = head.split_whitespace().nth(1).unwrap_or("/");
    let path = target.split(['?', '#']).next().unwrap_or("/");
    if path == "/never" {
        return std::future::pending().await;
    }
    stream.write_all(&response(path, &head)).await?;
    if matches!(path, "/slow-body" | "/stream" | "/short-body") {
        return std::future::pending().await;
    }
    stream.shutdown().await
}

/// The bytes that are sent. None for `/reset`: the connection is closed.
fn response(path: &str, head: &str) -> Vec<u8> {
    let html = |status: &str, more: &str, body: &str| {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\ncontent-type: text/html\r\ncontent-length: {length}\r\n{more}\r\n{body}")
            .into_bytes()
    };
    if let Some(number) = path.strip_prefix("/redirect/").and_then(|number| number.parse::<u32>().ok()) {
        let next = if number == 0 { "/plain.html".to_owned() } else { format!("/redirect/{}", number - 1) };
        return html("302 Found", &format!("location: {next}\r\n"), "");
    }
    let page = |more: &str, body: &str| html("200 OK", more, body);
    match path {
        "/reset" => Vec::new(),
        "/garbage" => b"\x00\xff\x13garbage\r\n\r\n".to_vec(),
        "/204" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        "/304" => b"HTTP/1.1 304 Not Modified\r\n\r\n".to_vec(),
        "/401" if head.to_ascii_lowercase().contains("authorization: basic") => page("", "<title>let in</title>"),
        "/401" => html("401 Unauthorized", "www-authenticate: Basic realm=\"x\"\r\n", "<title>who is there</title>"),
        "/401-empty" => html("401 Unauthorized", "www-authenticate: Basic realm=\"x\"\r\n", ""),
        "/407" => {
            html("407 Proxy Authentication Required", "proxy-authenticate: Basic realm=\"x\"\r\n", "<title>no</title>")
        }
        "/404-empty" => html("404 Not Found", "", ""),
        "/500-empty" => html("500 Internal Server Error", "", ""),
        "/503" => html("503 Service Unavailable", "retry-after: 100\r\n", "<title>later</title>"),
        "/empty" => page("", ""),
        "/download" => page("content-disposition: attachment; filename=evil.bin\r\n", "evil"),
        "/binary" => {
            b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: 4\r\n\r\nevil".to_vec()
        }
        "/gzip" => page("content-encoding: gzip\r\n", "this is not gzip"),
        "/text" => b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 4\r\n\r\ntext".to_vec(),
        "/json" => b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}".to_vec(),
        "/xml" => b"HTTP/1.1 200 OK\r\ncontent-type: text/xml\r\ncontent-length: 7\r\n\r\n<a><b/>".to_vec(),
        "/refresh-header" => page("refresh: 0; url=/plain.html\r\n", "<title>refresh-header</title>"),
        "/slow-body" => {
            b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n<title>slow-body</title><p>more to come".to_vec()
        }
        "/short-body" => {
            b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 999\r\n\r\n<title>short-body</title>"
                .to_vec()
        }
        "/stream" => b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: x\n\n".to_vec(),
        "/worker.js" => {
            let script = "self.onfetch = (event) => event.respondWith(fetch(event.request))";
            let length = script.len();
            format!("HTTP/1.1 200 OK\r\ncontent-type: text/javascript\r\ncontent-length: {length}\r\n\r\n{script}")
                .into_bytes()
        }
        _ => match fs::read_to_string(directory().join(path.trim_start_matches('/'))) {
            Ok(text) => page("", &text),
            Err(_) => html("404 Not Found", "", "<title>nothing here</title>"),
        },
    }
}
