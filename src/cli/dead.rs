//! `swarm dead`: lists dead letters, puts them back on their streams, and drops them.

use std::process::ExitCode;

use anyhow::{bail, ensure};
use clap::{Args, Subcommand};
use comfy_table::{ContentArrangement, Table, presets::NOTHING};

use super::{
    ConfigFlags, output,
    view::{
        fleet::trimmed,
        words::{NONE, date_time, printable},
    },
};
use crate::{
    broker::DeadLetterStreams,
    config::Settings,
    connection::{Connection, RedisTarget},
    model::{
        StreamId,
        dead_letter::{DeadFilter, DeadLetter, DeadLetterAction, DeadLetterDone, DeadLetterOutcome},
    },
};

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
  swarm dead list --stream browser:jobs --limit 1000 --after 1763896658250-0
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
        /// Only dead letters after the one with this id: the last `entry` that --json printed, for the next page
        #[arg(long, value_name = "ENTRY", value_parser = parse_entry)]
        after: Option<String>,
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

fn parse_entry(text: &str) -> Result<String, String> {
    let id = StreamId::parse_incomplete(text).map(|_| text.to_owned());
    id.ok_or_else(|| "write an id such as 1763896658250-0".to_owned())
}

/// Runs `swarm dead`. Exit code 1 if a requested action could not be carried out.
pub async fn run(args: DeadArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    match args.command {
        DeadCommand::List { which, after, limit, json } => list(&which, after, limit, json, settings).await,
        DeadCommand::Retry(chosen) => each(&chosen, DeadLetterAction::Retry, settings).await,
        DeadCommand::Drop(chosen) => each(&chosen, DeadLetterAction::Drop, settings).await,
    }
}

async fn list(
    which: &Which,
    after: Option<String>,
    limit: usize,
    json: bool,
    settings: &Settings,
) -> anyhow::Result<ExitCode> {
    let filter = DeadFilter { after, ..which.filter() };
    let mut connection = target(settings)?.connect().await?;
    let streams = streams(which, settings, &connection).await?;
    let found = streams.list(&mut connection, &filter, limit).await?;
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

async fn each(chosen: &Chosen, action: DeadLetterAction, settings: &Settings) -> anyhow::Result<ExitCode> {
    ensure!(
        chosen.all || !chosen.which.ids.is_empty(),
        "say which: the ids of jobs or dead letters (`swarm dead list` shows them), or --all"
    );
    let mut connection = target(settings)?.connect().await?;
    let (mut done, mut undone) = (0, 0);
    let streams = streams(&chosen.which, settings, &connection).await?;
    let tell = |letter: &DeadLetter, of: DeadLetterDone| {
        match of.outcome {
            DeadLetterOutcome::Retried { .. } | DeadLetterOutcome::Dropped => done += 1,
            DeadLetterOutcome::NoJob => undone += 1,
            DeadLetterOutcome::Gone => {}
        }
        say(chosen.json, letter, &of)
    };
    streams.act(&mut connection, &chosen.which.filter(), action, usize::MAX, tell).await?;
    if done + undone == 0 && !chosen.all {
        bail!("no such dead letter; `swarm dead list` shows those that there are");
    }
    if !chosen.json {
        let what = match action {
            DeadLetterAction::Retry => "put back",
            DeadLetterAction::Drop => "dropped",
        };
        output::line(&format!("{what}: {done}"))?;
    }
    Ok(if undone == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn say(json: bool, letter: &DeadLetter, done: &DeadLetterDone) -> anyhow::Result<()> {
    let DeadLetter { stream, entry, .. } = letter;
    if json {
        output::json_line(done)?;
    } else if done.outcome == DeadLetterOutcome::NoJob {
        let error = printable(&letter.error);
        output::error_line(&format!(
            "error: {entry} of {stream} is not a job and can't be put back ({error}); drop it"
        ))?;
    }
    Ok(())
}

impl Which {
    fn filter(&self) -> DeadFilter {
        DeadFilter { job_type: self.job_type.clone(), ids: self.ids.clone(), ..DeadFilter::default() }
    }
}

async fn streams(which: &Which, settings: &Settings, connection: &Connection) -> anyhow::Result<DeadLetterStreams> {
    match &which.stream {
        Some(stream) => Ok(DeadLetterStreams::of_stream(settings, stream)),
        None => Ok(DeadLetterStreams::all(connection, settings).await?),
    }
}

fn target(settings: &Settings) -> anyhow::Result<RedisTarget> {
    Ok(RedisTarget::new(&settings.redis_url, settings.scaler.redis_timeout())?)
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
