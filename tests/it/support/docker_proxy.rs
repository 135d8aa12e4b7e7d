//! Proxy in front of an engine's socket that injects faults: it refuses requests, accepts a request and never answers,
//! or accepts nothing at all.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
};

/// Fault of a request.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The engine never sees the request; this is the answer.
    Refuse(u16, String),
    /// The engine carries the request out, and its answer gets lost.
    LoseAnswer,
    /// The engine never sees the request, and there is no answer.
    Drop,
}

/// Fault for requests whose first line contains a text: `POST /containers/create`.
#[derive(Clone, Debug)]
struct Rule {
    text: &'static str,
    times: usize,
    fault: Fault,
}

/// The proxy.
pub(crate) struct Proxy {
    directory: TempDir,
    rules: Arc<Mutex<Vec<Rule>>>,
    seen: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub(crate) fn start(engine: &Path) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("docker.sock")).unwrap();
        let (rules, seen) = (Arc::<Mutex<Vec<Rule>>>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (engine, noted, in_force) = (engine.to_owned(), seen.clone(), rules.clone());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, engine.clone(), in_force.clone(), noted.clone()));
            }
        });
        Self { directory, rules, seen, task }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("docker.sock")
    }

    /// Makes the next `times` requests of this kind fail.
    pub(crate) fn fault(&self, text: &'static str, times: usize, fault: Fault) {
        self.rules.lock().unwrap().push(Rule { text, times, fault });
    }

    /// Lets all requests pass again.
    pub(crate) fn mend(&self) {
        self.rules.lock().unwrap().clear();
    }

    /// Returns the number of requests of this kind.
    pub(crate) fn seen(&self, text: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|line| line.contains(text)).count()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut client: UnixStream, engine: PathBuf, rules: Arc<Mutex<Vec<Rule>>>, seen: Arc<Mutex<Vec<String>>>) {
    let mut head = vec![0; 64 * 1024];
    let Ok(length) = client.read(&mut head).await else { return };
    head.truncate(length);
    let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
    seen.lock().unwrap().push(line.clone());
    let fault = {
        let mut rules = rules.lock().unwrap();
        let rule = rules.iter_mut().find(|rule| rule.times > 0 && line.contains(rule.text));
        rule.map(|rule| {
            rule.times -= 1;
            rule.fault.clone()
        })
    };
    match fault {
        Some(Fault::Refuse(status, message)) => {
            let body = serde_json::json!({ "message": message }).to_string();
            let answer = format!(
                "HTTP/1.1 {status} No\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = client.write_all(answer.as_bytes()).await;
        }
        Some(Fault::Drop) => std::future::pending().await,
        Some(Fault::LoseAnswer) => {
            let Ok(mut upstream) = UnixStream::connect(engine).await else { return };
            let _ = upstream.write_all(&head).await;
            let mut answer = vec![0; 1024];
            let _ = upstream.read(&mut answer).await;
            std::future::pending::<()>().await;
        }
        None => {
            let Ok(mut upstream) = UnixStream::connect(engine).await else { return };
            let _ = upstream.write_all(&head).await;
            let _ = copy_bidirectional(&mut client, &mut upstream).await;
        }
    }
}
