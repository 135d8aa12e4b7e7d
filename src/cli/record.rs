//! `swarm record`: records from real queues when jobs arrive and how long they take, as a trace for `swarm simulate`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, BufWriter, Write},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{ConfigFlags, output, stop::stop_on_signal};
use crate::{
    broker::find_queues,
    config::{Settings, WorkerTypeSettings},
    connection::{RedisTarget, backoff},
    model::{Queues, Timestamp},
    probe::{ArrivalError, ArrivalWatch, QueueSpec, Recorded},
    queue_kind::Delivery,
    simulation::{RowWriter, parse_duration, spell},
    telemetry::{LogFormat, init_logging},
};

/// Shortest interval between two observations: a shorter one costs Redis more than it improves the recording.
const SHORTEST_SAMPLE: Duration = Duration::from_millis(5);
/// Maximum queues of one worker type found by patterns that are recorded.
const MAX_FOUND: usize = 1_000;

/// Record a trace of jobs for `swarm simulate`
///
/// Reads the streams of worker types and changes nothing: no group, no consumer, no job. Without --duration or --follow
/// it writes the arrivals of the entries that are still on the streams, and exits. With one of them it keeps running,
/// and also measures how long each job takes, from its delivery to its acknowledgement, with the precision of --sample.
/// Ctrl-C ends it and keeps the recording.
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

Lists (kind = \"list\") keep no times, so they can't be recorded. Workers trim finished entries from streams: earlier
arrivals are recorded only as far as they have not been trimmed.")]
pub struct RecordArgs {
    #[command(flatten)]
    config: ConfigFlags,
    /// Record this worker type; may be repeated [default: all with a stream]
    #[arg(long = "type", value_name = "TYPE")]
    worker_types: Vec<String>,
    /// Begin with arrivals up to this time ago, as far as they are still on the stream [default: everything on the
    /// stream; with --duration or --follow: from now on]
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
    let target = Arc::new(RedisTarget::new(&settings.redis_url, settings.scaler.redis_timeout())?);
    let (names, specs) = args.streams(&settings, &target).await?;
    let stays = args.follow || args.duration.is_some();
    let mut watch = args.watch(target, specs, stays).await?;
    let mut journal = Journal::new(&names, args.output.as_ref())?;
    let ended = if stays {
        let stop = stop_on_signal("what was recorded is kept")?;
        tell_start(&names, &args)?;
        follow(&mut watch, &mut journal, &args, &stop).await
    } else {
        look(&mut watch, &mut journal).await.and_then(|looked| Ok(looked?))
    };
    let ended = ended.and_then(|()| journal.write(&watch.rest()));
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

/// Makes one observation, and writes what it found, even if it failed. The outer error is the file's, the inner one
/// Redis'.
async fn look(watch: &mut ArrivalWatch, journal: &mut Journal<'_>) -> anyhow::Result<Result<(), ArrivalError>> {
    let mut jobs = Vec::new();
    let looked = watch.look(&mut jobs).await;
    journal.write(&jobs)?;
    Ok(looked)
}

fn tell_start(names: &[String], args: &RecordArgs) -> io::Result<()> {
    let how_long = args.duration.map_or_else(|| "until Ctrl-C".to_owned(), |time| format!("for {}", spell(time)));
    let mut names = names.to_vec();
    names.dedup();
    output::error_line(&format!("recording {} {how_long}", names.join(", ")))
}

/// Returns the settings of a worker type.
fn settings_of<'a>(settings: &'a Settings, name: &str) -> anyhow::Result<&'a WorkerTypeSettings> {
    let Some(found) = settings.worker_types.get(name) else {
        let known: Vec<_> = settings.worker_types.keys().map(String::as_str).collect();
        bail!("no worker type `{name}` in the configuration; there are: {}", known.join(", "))
    };
    Ok(found)
}

impl RecordArgs {
    /// Returns the streams to record, and the worker type of each.
    async fn streams(
        &self,
        settings: &Settings,
        target: &RedisTarget,
    ) -> anyhow::Result<(Vec<String>, Vec<QueueSpec>)> {
        let is_stream =
            |name: &&String| settings.worker_types[*name].queue_kind().delivery() == Delivery::ConsumerGroup;
        let names: Vec<String> = if self.worker_types.is_empty() {
            settings.worker_types.keys().filter(is_stream).cloned().collect()
        } else {
            self.worker_types.clone()
        };
        let mut chosen = Vec::with_capacity(names.len());
        for name in &names {
            let of = settings_of(settings, name)?;
            if of.queue_kind().delivery() != Delivery::ConsumerGroup {
                bail!(
                    "the queue of `{name}` is a {}, which keeps no times; only streams can be recorded",
                    of.queue_kind().name()
                )
            }
            chosen.push((name, of, of.queues(name)));
        }
        if names.is_empty() {
            bail!("the configuration has no worker type with a stream; add a [worker_types.NAME]")
        }
        let queues: Vec<&Queues> = chosen.iter().map(|(_, _, queues)| queues).collect();
        let found = if queues.iter().all(|queues| queues.patterns.is_empty()) {
            vec![BTreeSet::new(); queues.len()]
        } else {
            find_queues(&target.connect().await?, &queues, MAX_FOUND).await?
        };
        let (mut types, mut specs) = (Vec::with_capacity(names.len()), Vec::with_capacity(names.len()));
        for ((name, of, queues), found) in chosen.iter().zip(found) {
            for key in queues.named().map(str::to_owned).chain(found) {
                types.push((*name).clone());
                specs.push(QueueSpec { key: key.into(), ..of.queue_spec(name) });
            }
        }
        Ok((types, specs))
    }

    async fn watch(
        &self,
        target: Arc<RedisTarget>,
        specs: Vec<QueueSpec>,
        stays: bool,
    ) -> anyhow::Result<ArrivalWatch> {
        let since = match (self.since, stays) {
            (None, false) => Timestamp(0),
            (since, _) => {
                let now = ArrivalWatch::new(target.clone(), Vec::new(), Timestamp(0), None).server_time().await?;
                let ago = since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
                Timestamp(now.0.saturating_sub(ago))
            }
        };
        Ok(ArrivalWatch::new(target, specs, since, stays.then_some(self.sample)))
    }
}

/// Observes the streams at each interval until the time is over or the command is stopped. Reports an outage once, and
/// waits until it ends.
async fn follow(
    watch: &mut ArrivalWatch,
    journal: &mut Journal<'_>,
    args: &RecordArgs,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let end = args.duration.map(|duration| Instant::now() + duration);
    let mut ticks = tokio::time::interval(args.sample);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut pauses = backoff();
    let mut told = false;
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        match look(watch, journal).await? {
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

/// The writer of the jobs, with their counts.
struct Journal<'a> {
    /// Worker type of each queue.
    names: &'a [String],
    rows: RowWriter<Box<dyn Write>>,
    /// By worker type: number of all jobs, and number of jobs with a known duration.
    counts: BTreeMap<&'a str, (u64, u64)>,
}

impl<'a> Journal<'a> {
    fn new(names: &'a [String], file: Option<&PathBuf>) -> anyhow::Result<Self> {
        let writer: Box<dyn Write> = match file {
            Some(file) => {
                Box::new(BufWriter::new(File::create(file).with_context(|| format!("can't write {}", file.display()))?))
            }
            None => Box::new(io::stdout().lock()),
        };
        Ok(Self {
            names,
            rows: RowWriter::new(writer)?,
            counts: names.iter().map(|name| (name.as_str(), (0, 0))).collect(),
        })
    }

    fn write(&mut self, jobs: &[Recorded]) -> anyhow::Result<()> {
        for job in jobs {
            let name = self.names[job.queue].as_str();
            self.rows.write(job.arrival.0, name, job.service_ms)?;
            let counts = self.counts.entry(name).or_default();
            *counts = (counts.0 + 1, counts.1 + u64::from(job.service_ms.is_some()));
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
