//! `swarm dead`: lists dead letters, puts them back on their streams, and drops them.

use std::{collections::BTreeSet, process::ExitCode};

use anyhow::{bail, ensure};
use clap::{Args, Subcommand};
use comfy_table::{ContentArrangement, Table, presets::NOTHING};
use serde::Serialize;

use super::{
    ConfigFlags, output,
    view::{
        fleet::trimmed,
        words::{NONE, date_time, printable},
    },
};
use crate::{
    broker::{Beside, DeadFilter, DeadLetter, DeadLetters, Revived, Routes, find_beside},
    config::Settings,
    connection::{Connection, RedisTarget},
    model::Queues,
};

/// Maximum queues found by patterns whose dead letters are listed.
const MAX_FOUND: usize = 100_000;

/// List, retry or drop dead letters
///
/// A job becomes a dead letter when it has used up its attempts, when it fails while nobody waits for its result, or
/// when it does not start before its deadline. A stream entry that is not a job becomes one as well. Dead letters stay
/// in `{stream}:dead` until they are retried or dropped.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  swarm dead list
  swarm dead list --type browser.goto --json
  swarm dead retry 0199f1c2-7d3e-7c61-9f7a-0d5f3a1b2c3d
  swarm dead drop --stream browser:jobs --all")]
pub struct DeadArgs {
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigFlags,
    #[command(subcommand)]
    command: DeadCommand,
}

#[derive(Debug, Subcommand)]
enum DeadCommand {
    /// List dead letters, oldest first
    List {
        #[command(flatten)]
        which: Which,
        /// Maximum number of dead letters to list
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
        /// Print one JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Publish the jobs to their stream again, as new jobs
    Retry(Chosen),
    /// Delete dead letters
    Drop(Chosen),
}

#[derive(Debug, Args)]
struct Which {
    /// Ids of jobs or of dead letters
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Only dead letters of this stream [default: the queues of all configured worker types, including queues that
    /// match patterns, and the stream of job types that are not configured]
    #[arg(long, value_name = "STREAM")]
    stream: Option<String>,
    /// Only dead letters of this job type or worker type
    #[arg(long = "type", value_name = "TYPE")]
    job_type: Option<String>,
}

#[derive(Debug, Args)]
struct Chosen {
    #[command(flatten)]
    which: Which,
    /// All dead letters that `--stream` and `--type` select
    #[arg(long)]
    all: bool,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

/// Action on a dead letter.
#[derive(Clone, Copy)]
enum Deed {
    Retry,
    Drop,
}

/// Result of an action on a dead letter, for programs.
#[derive(Serialize)]
struct Done<'a> {
    stream: &'a str,
    entry: &'a str,
    id: Option<&'a str>,
    outcome: &'static str,
    new_entry: Option<String>,
}

/// Runs `swarm dead`. Exit code 1 if a requested action could not be carried out.
pub async fn run(args: DeadArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    match args.command {
        DeadCommand::List { which, limit, json } => list(&which, limit, json, settings).await,
        DeadCommand::Retry(chosen) => each(&chosen, Deed::Retry, settings).await,
        DeadCommand::Drop(chosen) => each(&chosen, Deed::Drop, settings).await,
    }
}

async fn list(which: &Which, limit: usize, json: bool, settings: &Settings) -> anyhow::Result<ExitCode> {
    let mut connection = target(settings)?.connect().await?;
    let mut found = Vec::new();
    for stream in streams(which, settings, &connection).await? {
        let letters = DeadLetters::of(&stream, job_max_bytes(settings));
        found.extend(letters.list(&mut connection, &which.filter(), limit).await?);
    }
    found.sort_by(|a, b| (a.at, &a.entry).cmp(&(b.at, &b.entry)));
    found.truncate(limit);
    if json {
        for letter in &found {
            output::json_line(letter)?;
        }
    } else if found.is_empty() {
        output::line("no dead letters")?;
    } else {
        output::line(&trimmed(&table(&found)))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn each(chosen: &Chosen, deed: Deed, settings: &Settings) -> anyhow::Result<ExitCode> {
    ensure!(
        chosen.all || !chosen.which.ids.is_empty(),
        "say which: the ids of jobs or dead letters (`swarm dead list` shows them), or --all"
    );
    let mut connection = target(settings)?.connect().await?;
    let (mut done, mut undone) = (0, 0);
    for stream in streams(&chosen.which, settings, &connection).await? {
        let letters = DeadLetters::of(&stream, job_max_bytes(settings));
        // Only the present dead letters: a job that fails again meanwhile becomes a new one.
        for letter in letters.list(&mut connection, &chosen.which.filter(), usize::MAX).await? {
            let (outcome, new_entry) = match deed {
                Deed::Drop => (if letters.remove(&mut connection, &letter).await? { "dropped" } else { "gone" }, None),
                Deed::Retry => match letters.retry(&mut connection, &letter, &settings.signals.channel).await? {
                    Revived::As(entry) => ("retried", Some(entry)),
                    Revived::Gone => ("gone", None),
                    Revived::NoJob => ("no_job", None),
                },
            };
            if outcome == "no_job" {
                undone += 1;
            } else {
                done += usize::from(outcome != "gone");
            }
            say(chosen.json, &letter, outcome, new_entry)?;
        }
    }
    if done + undone == 0 && !chosen.all {
        bail!("no such dead letter; `swarm dead list` shows those that there are");
    }
    if !chosen.json {
        let what = match deed {
            Deed::Retry => "put back",
            Deed::Drop => "dropped",
        };
        output::line(&format!("{what}: {done}"))?;
    }
    Ok(if undone == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn say(json: bool, letter: &DeadLetter, outcome: &'static str, new_entry: Option<String>) -> anyhow::Result<()> {
    let DeadLetter { stream, entry, id, .. } = letter;
    if json {
        output::json_line(&Done { stream, entry, id: id.as_deref(), outcome, new_entry })?;
    } else if outcome == "no_job" {
        let error = printable(&letter.error);
        output::error_line(&format!(
            "error: {entry} of {stream} is not a job and can't be put back ({error}); drop it"
        ))?;
    }
    Ok(())
}

impl Which {
    fn filter(&self) -> DeadFilter {
        DeadFilter { job_type: self.job_type.clone(), ids: self.ids.clone() }
    }
}

async fn streams(which: &Which, settings: &Settings, connection: &Connection) -> anyhow::Result<BTreeSet<String>> {
    if let Some(stream) = &which.stream {
        return Ok([stream.clone()].into());
    }
    let configured = settings.worker_types.iter().filter(|(_, of)| of.queue_kind().is_native());
    let queues: Vec<Queues> = configured.map(|(name, of)| of.queues(name)).collect();
    let mut streams: BTreeSet<String> = queues.iter().flat_map(Queues::named).map(str::to_owned).collect();
    streams.insert(Routes::from_env(settings).default_stream().to_owned());
    let patterns: Vec<_> = queues.into_iter().flat_map(|queues| queues.patterns).collect();
    streams.extend(find_beside(connection, &patterns, Beside::Dead, MAX_FOUND).await?);
    Ok(streams)
}

fn target(settings: &Settings) -> anyhow::Result<RedisTarget> {
    Ok(RedisTarget::new(&settings.redis_url, settings.scaler.redis_timeout())?)
}

fn job_max_bytes(settings: &Settings) -> usize {
    usize::try_from(settings.broker.job_max_bytes).unwrap_or(usize::MAX)
}

fn table(letters: &[DeadLetter]) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["DIED", "STREAM", "JOB", "TYPE", "REASON", "ATTEMPTS", "LAST ERROR"]);
    for letter in letters {
        table.add_row([
            date_time(letter.at),
            printable(&letter.stream),
            printable(letter.id.as_ref().unwrap_or(&letter.entry)),
            letter.job_type.as_deref().map_or_else(|| NONE.to_owned(), printable),
            printable(&letter.reason),
            letter.attempts.to_string(),
            printable(&letter.error),
        ]);
    }
    table
}
