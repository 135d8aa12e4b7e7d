//! What a child process logs, kept for tests to search and for failures to show.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::ChildStderr,
    sync::{Arc, Mutex},
};

/// Lines that a failure shows.
const SHOWN: usize = 60;

/// The lines so far, read by a thread that ends with the process.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    /// Reads until nobody writes any more.
    pub(crate) fn capture(stderr: ChildStderr) -> Self {
        let log = Self::default();
        let lines = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.0.lock().expect("nobody panics while holding it").push(line);
            }
        });
        log
    }

    /// Everything.
    pub(crate) fn text(&self) -> String {
        self.0.lock().expect("nobody panics while holding it").join("\n")
    }

    /// The end, for failures.
    pub(crate) fn tail(&self) -> String {
        let lines = self.0.lock().expect("nobody panics while holding it");
        lines[lines.len().saturating_sub(SHOWN)..].join("\n")
    }

    /// Where the autoscaler's HTTP server listens, once it has said so.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        let text = self.text();
        let line = text.lines().find(|line| line.contains("autoscaler started"))?;
        line.split_whitespace().find_map(|word| word.strip_prefix("http=")?.parse().ok())
    }
}
