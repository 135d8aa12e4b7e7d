//! The jobs of the chaos run, and the file in which each begin and end is a line.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write, stdin},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use serde::Deserialize;
use serde_json::{Map, json};
use swarm::broker::Job;

/// First argument of this program when a worker runs it as the handler of a job.
pub(crate) const ARGUMENT: &str = "--chaos-job";
/// Environment variable with the path of the journal.
pub(crate) const PATH: &str = "CHAOS_JOURNAL";
/// One job in this many is long.
const LONG_EVERY: usize = 20;

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Whether the job began; else it ended.
    pub(crate) begins: bool,
    /// Number of the job.
    pub(crate) number: usize,
    /// Id of the worker.
    pub(crate) worker: String,
    /// Unix time, milliseconds.
    pub(crate) at: u128,
}

/// Returns job `number`: most take 100 to 600 ms, some 4 s.
pub(crate) fn job(number: usize) -> Job {
    let milliseconds = if number.is_multiple_of(LONG_EVERY) { 4_000 } else { 100 + number * 37 % 500 };
    Job::new("chaos.work", vec![json!(number), json!(milliseconds)], Map::new())
        .with_idempotency_key(format!("chaos-{number}"))
}

/// Does the job on standard input: writes down its begin, sleeps, writes down its end.
pub(crate) fn do_job() -> anyhow::Result<()> {
    #[derive(Deserialize)]
    struct Received {
        args: (usize, u64),
    }
    let mut text = String::new();
    stdin().read_to_string(&mut text)?;
    let Received { args: (number, milliseconds) } = serde_json::from_str(&text).context("the job")?;
    let (path, worker) = (std::env::var(PATH)?, std::env::var("SWARM_WORKER_ID")?);
    let mut journal = OpenOptions::new().append(true).create(true).open(path)?;
    write(&mut journal, "begin", number, &worker)?;
    std::thread::sleep(Duration::from_millis(milliseconds));
    write(&mut journal, "end", number, &worker)
}

/// Appends one line in one write, which no other process can interrupt.
fn write(journal: &mut File, what: &str, number: usize, worker: &str) -> anyhow::Result<()> {
    let line = format!("{what} {number} {worker} {}\n", now());
    journal.write_all(line.as_bytes()).context("the journal")
}

/// Returns the Unix time in milliseconds.
pub(crate) fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis())
}

/// Reads the journal; it is empty if no job has begun.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<Line>> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        text => text.context("the journal")?,
    };
    text.lines().map(parse).collect()
}

fn parse(line: &str) -> anyhow::Result<Line> {
    let words: Vec<&str> = line.split(' ').collect();
    let [what, number, worker, at] = words[..] else { anyhow::bail!("the journal has the line `{line}`") };
    Ok(Line { begins: what == "begin", number: number.parse()?, worker: worker.to_owned(), at: at.parse()? })
}
