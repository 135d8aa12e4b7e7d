//! `swarm record`: records from real queues when jobs arrive and how long they take, as a trace for `swarm simulate`.

mod sources;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufWriter, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use self::sources::{Manner, Source, sources};
use super::{ConfigFlags, output, stop::stop_on_signal};
use crate::{
    connection::backoff,
    probe::{ArrivalError, Recorded},
    simulation::{RowWriter, parse_duration, spell},
    telemetry::{LogFormat, init_logging},
};

/// Shortest interval between two observations: a shorter one costs Redis more than it improves the recording.
const SHORTEST_SAMPLE: Duration = Duration::from_millis(5);

/// Record a trace of jobs for `swarm simulate`
///
/// Reads the queues of worker types and changes nothing: no group, no consumer, no job. Without --duration or --follow
/// it writes the arrivals of the jobs that are still there, and exits. With one of them it keeps running, and also
/// measures how long each job takes, from its delivery to its acknowledgement, with the precision of --sample. Ctrl-C
/// ends it and keeps the recording.
///
/// RQ, BullMQ and Bull themselves keep the times of jobs, also of ended ones as long as those are kept
/// (`result_ttl`, `removeOnComplete`), so their times are exact and known afterwards.
///
/// The output is CSV with the columns arrival_ms (since 1970), worker_type and service_ms (empty where it could not be
/// seen), a line for each job, in the order in which they are done.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  swarm record --output trace.csv
  swarm record --type browser --duration 1h --output trace.csv
  swarm record --follow --since 10m | tee trace.csv

All queues of a worker type are recorded; for patterns, the queues that exist at the start.

Lists (kind = \"list\") and other frameworks keep no times, so they can't be recorded. Workers trim finished entries \
from streams: earlier arrivals are recorded only as far as they have not been trimmed.")]
pub struct RecordArgs {
    #[command(flatten)]
    config: ConfigFlags,
    /// Record this worker type; may be repeated [default: all that can be recorded]
    #[arg(long = "type", value_name = "TYPE")]
    worker_types: Vec<String>,
    /// Begin with arrivals up to this time ago, as far as they are still there [default: everything; with --duration or
    /// --follow: from now on]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    since: Option<Duration>,
    /// Keep running for this time
    #[arg(long, value_name = "TIME", value_parser = parse_duration, conflicts_with = "follow")]
    duration: Option<Duration>,
    /// Keep running until Ctrl-C
    #[arg(long, short)]
    follow: bool,
    /// Interval between two looks at delivered jobs while it runs. A shorter one is more precise and costs Redis more
    #[arg(long, value_name = "TIME", value_parser = parse_sample, default_value = "100ms")]
    sample: Duration,
    /// Write to this file [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

fn parse_sample(text: &str) -> Result<Duration, String> {
    let sample = parse_duration(text).map_err(|error| error.to_string())?;
    if sample < SHORTEST_SAMPLE {
        return Err(format!("{text:?} is too short; {} is the least", spell(SHORTEST_SAMPLE)));
    }
    Ok(sample)
}

/// Runs `swarm record`.
///
/// # Errors
/// If there is no such worker type, Redis can't be read, or the file can't be written.
pub async fn run(args: RecordArgs) -> anyhow::Result<ExitCode> {
    init_logging(LogFormat::Text, "warn")?;
    let settings = args.config.load()?.settings;
    let stays = args.follow || args.duration.is_some();
    let manner = Manner { since: args.since, interval: stays.then_some(args.sample) };
    let mut sources = sources(&settings, &args.worker_types, manner).await?;
    let names: BTreeMap<String, Counts> =
        sources.iter().flat_map(|source| &source.names).map(|name| (name.clone(), Counts::default())).collect();
    let mut journal = Journal::new(names, args.output.as_ref())?;
    let ended = if stays {
        let stop = stop_on_signal("what was recorded is kept")?;
        tell_start(&journal, &args)?;
        follow(&mut sources, &mut journal, &args, &stop).await
    } else {
        look(&mut sources, &mut journal).await.and_then(|looked| Ok(looked?))
    };
    let ended = ended.and_then(|()| {
        sources.into_iter().map(Source::rest).try_for_each(|(names, rest)| journal.write(&names, &rest))
    });
    match ended {
        // The reader of standard output has closed it, which is not an error.
        Err(error) if is_closed(&error) => {}
        ended => {
            ended?;
            journal.summarize(args.output.as_ref())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn is_closed(error: &anyhow::Error) -> bool {
    let io = |cause: &(dyn std::error::Error + 'static)| cause.downcast_ref::<io::Error>().map(io::Error::kind);
    error.chain().filter_map(io).any(|kind| kind == io::ErrorKind::BrokenPipe)
}

/// Makes one observation of all queues, and writes what it found, even if it failed. The outer error is the file's, the
/// inner one Redis'.
async fn look(sources: &mut [Source], journal: &mut Journal) -> anyhow::Result<Result<(), ArrivalError>> {
    for source in sources {
        let mut jobs = Vec::new();
        let looked = source.look(&mut jobs).await;
        journal.write(&source.names, &jobs)?;
        if looked.is_err() {
            return Ok(looked);
        }
    }
    Ok(Ok(()))
}

fn tell_start(journal: &Journal, args: &RecordArgs) -> io::Result<()> {
    let how_long = args.duration.map_or_else(|| "until Ctrl-C".to_owned(), |time| format!("for {}", spell(time)));
    let names: Vec<&str> = journal.counts.keys().map(String::as_str).collect();
    output::error_line(&format!("recording {} {how_long}", names.join(", ")))
}

/// Observes the queues at each interval until the time is over or the command is stopped. Reports an outage once, and
/// waits until it ends.
async fn follow(
    sources: &mut [Source],
    journal: &mut Journal,
    args: &RecordArgs,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let end = args.duration.map(|duration| Instant::now() + duration);
    let mut ticks = tokio::time::interval(args.sample);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut pauses = backoff();
    let mut told = false;
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        match look(sources, journal).await? {
            Ok(()) if told => {
                output::error_line("redis answers again")?;
                (pauses, told) = (backoff(), false);
            }
            Ok(()) => {}
            Err(error) if error.is_passing() => {
                if !told {
                    output::error_line(&format!("waiting for redis: {error}"))?;
                    told = true;
                }
                let pause = tokio::time::sleep(pauses.next_pause());
                if stop.run_until_cancelled(pause).await.is_none() {
                    return Ok(());
                }
            }
            Err(error) => return Err(error.into()),
        }
        if end.is_some_and(|end| Instant::now() >= end) {
            return Ok(());
        }
    }
    Ok(())
}

/// Number of all jobs, and number of jobs with a known duration.
type Counts = (u64, u64);

/// The writer of the jobs, with their counts by worker type.
struct Journal {
    rows: RowWriter<Box<dyn Write>>,
    counts: BTreeMap<String, Counts>,
}

impl Journal {
    fn new(counts: BTreeMap<String, Counts>, file: Option<&PathBuf>) -> anyhow::Result<Self> {
        let writer: Box<dyn Write> = match file {
            Some(file) => {
                Box::new(BufWriter::new(File::create(file).with_context(|| format!("can't write {}", file.display()))?))
            }
            None => Box::new(io::stdout().lock()),
        };
        Ok(Self { rows: RowWriter::new(writer)?, counts })
    }

    /// Writes jobs of queues whose worker types have these names.
    fn write(&mut self, names: &[String], jobs: &[Recorded]) -> anyhow::Result<()> {
        for job in jobs {
            let name = &names[job.queue];
            self.rows.write(job.arrival.0, name, job.service_ms)?;
            if let Some((all, timed)) = self.counts.get_mut(name) {
                *all += 1;
                *timed += u64::from(job.service_ms.is_some());
            }
        }
        self.rows.flush().context("can't write what was recorded")
    }

    /// Prints the counts to standard error, because standard output may be the trace.
    fn summarize(&self, file: Option<&PathBuf>) -> io::Result<()> {
        for (name, (jobs, timed)) in &self.counts {
            output::error_line(&format!("{name}: {jobs} jobs, {timed} of them with the time that they took"))?;
        }
        if let Some(file) = file {
            let only = self.counts.keys().next().filter(|_| self.counts.len() == 1);
            let named = only.map(|only| format!(" --type {only}")).unwrap_or_default();
            output::error_line(&format!("try them: swarm simulate {}{named}", file.display()))?;
        }
        Ok(())
    }
}
