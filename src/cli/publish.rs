//! `swarm publish`: puts jobs on their stream, and waits for the results if asked to.

use std::{
    io::{self, Write},
    pin::pin,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::value_parser;
use serde_json::{Map, Value, json};

use super::{ConfigFlags, output, progress_line::ProgressLine};
use crate::{
    broker::{
        Job, JobResult, Place, Published, Publisher, Routes, Subject, explain, from_slice, to_string, unread,
        wait_for_any, wait_shared,
    },
    config::{Settings, WorkerTypeSettings},
    connection::RedisTarget,
    model::{WorkerType, keys},
    telemetry::Traces,
};

/// Jobs published between two lines of progress.
const PROGRESS: usize = 50_000;
/// Maximum result keys that one command waits for. The other results stay in Redis until their turn.
const KEYS_AT_ONCE: usize = 100;

/// Longest wait, delay and deadline: 30 days.
const MAX_SECONDS: f64 = 2_592_000.0;

/// Publish jobs, and wait for their results with --wait
///
/// The part of JOB_TYPE before the dot is the worker type, which selects the stream. Jobs of types that are not
/// configured go to the stream `jobs`, or to the one that JOB_STREAM names. --queue selects another stream. An ARG that
/// parses as JSON is sent as JSON, any other as a string.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  swarm publish browser.echo hello 42 '{\"deep\": true}' --wait
  swarm publish browser.sleep 2 --count 1000
  swarm publish browser.goto https://example.org --queue urgent:jobs
  swarm publish mail.send a@example.org --key order-4711 --delay 60 --deadline 600
  swarm publish mail.send a@example.org --attempts 10 --job-timeout 20 --result-ttl 86400")]
pub struct PublishArgs {
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigFlags,
    /// Worker type and method, for example `browser.echo`
    #[arg(value_name = "JOB_TYPE")]
    pub job_type: String,
    /// Positional arguments: JSON, else strings
    #[arg(value_name = "ARG", allow_negative_numbers = true)]
    pub args: Vec<String>,
    /// Publish to this stream, whatever the job type [default: the `job_queue` of its worker type]
    #[arg(long, value_name = "KEY", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub queue: Option<String>,
    /// Named arguments, as one JSON object
    #[arg(long, value_name = "JSON", value_parser = parse_kwargs)]
    pub kwargs: Option<Map<String, Value>>,
    /// Number of copies to publish
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(1..))]
    pub count: u32,
    /// Idempotency key: within the window, a second job with the same key is not published
    #[arg(long, value_name = "KEY", conflicts_with = "count")]
    pub key: Option<String>,
    /// Seconds before the job may start
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub delay: Option<f64>,
    /// Seconds within which the job must start; after that it becomes a dead letter
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub deadline: Option<f64>,
    /// Maximum attempts of the job [default: `max_attempts` of its worker type]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=1_000))]
    pub attempts: Option<u32>,
    /// Seconds that one attempt may take [default: `job_timeout_seconds` of its worker]
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub job_timeout: Option<f64>,
    /// Seconds for which the result is kept, also without --wait [default: `result_ttl_seconds`]
    #[arg(long, value_name = "SECONDS", value_parser = value_parser!(u64).range(1..=604_800))]
    pub result_ttl: Option<u64>,
    /// Session that the job belongs to
    #[arg(long, value_name = "SESSION")]
    pub session: Option<String>,
    /// Wait for the results and print them; exits with 1 if a job fails or does not answer in time. The progress of a
    /// single job goes to standard error, without --json
    #[arg(long)]
    pub wait: bool,
    /// Seconds to wait for all results
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0, value_parser = parse_seconds, requires = "wait")]
    pub timeout: f64,
    /// Print one JSON object per line: the published jobs, or with --wait the results
    #[arg(long)]
    pub json: bool,
}

fn parse_kwargs(text: &str) -> Result<Map<String, Value>, String> {
    from_slice(text.as_bytes()).map_err(|error| format!("not a JSON object ({error}); write '{{\"name\": \"value\"}}'"))
}

pub(super) fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| *seconds > 0.0 && *seconds <= MAX_SECONDS);
    seconds.ok_or_else(|| format!("write a number of seconds above 0 and at most {MAX_SECONDS}"))
}

/// Parses an argument as JSON; an argument that is not JSON becomes a string.
fn parse_arg(text: &str) -> Value {
    from_slice(text.as_bytes()).unwrap_or_else(|_| Value::String(text.to_owned()))
}

/// A job with a requested result.
struct Awaited {
    /// Key of the result's list.
    key: String,
    subject: Subject,
}

/// Runs `swarm publish`.
pub async fn run(args: PublishArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let traces = Traces::start();
    let outcome = publish_and_wait(args, settings).await;
    traces.stop().await;
    outcome
}

async fn publish_and_wait(args: PublishArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let routes = Routes::from_env(settings);
    let stream = match &args.queue {
        Some(queue) => queue,
        None => routes.stream(&args.job_type)?,
    };
    if args.queue.is_some() && routes.reader(&args.job_type, stream).is_none() {
        output::error_line(&format!("warning: {}", unread(stream)))?;
    } else if args.queue.is_none() && routes.worker_type(&args.job_type).is_none() {
        output::error_line(&format!("warning: {}", unconfigured(&args.job_type, stream)))?;
    }
    let target = RedisTarget::new(&settings.redis_url, settings.scaler.redis_timeout())?;
    let channel = settings.signals.channel.clone();
    let mut publisher = Publisher::new(target.connect().await?, channel, settings.broker.clone());
    let mut waiting = publish(&mut publisher, &args, stream).await?;
    if !args.wait {
        return Ok(ExitCode::SUCCESS);
    }
    let failed = wait(&target, &args, stream, &mut waiting).await?;
    if let Some(first) = waiting.first() {
        let place = Place::of(settings, &routes, &args.job_type, stream);
        let why = explain(&mut target.connect().await?, &place, &first.subject).await;
        let (missing, count) = (waiting.len(), args.count);
        writeln!(io::stderr(), "error: {missing} of {count} jobs did not answer within {} s\n{why}", args.timeout)?;
    }
    Ok(if failed == 0 && waiting.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Says which stream takes a job whose worker type the configuration does not name, and which stream a worker of
/// that type would read.
fn unconfigured(job_type: &str, stream: &str) -> String {
    let Some((name, _)) = job_type.split_once('.').filter(|(name, _)| WorkerType::is_valid(name)) else {
        return format!("no configured worker type matches `{job_type}`, so the job goes to the stream `{stream}`");
    };
    let own = WorkerTypeSettings::default().queue(name);
    let advice = if own == stream {
        String::new()
    } else {
        format!(
            "; `swarm worker --type {name}` reads `{own}`. To use that stream, add [worker_types.{name}] to the \
             configuration, or publish with --queue {own}"
        )
    };
    format!("worker type `{name}` is not configured, so the job goes to the stream `{stream}`{advice}")
}

/// Returns the job that the arguments describe, each time with a new id.
fn job(args: &PublishArgs, values: &[Value]) -> Job {
    let mut job = Job::new(&args.job_type, values.to_vec(), args.kwargs.clone().unwrap_or_default());
    if let Some(key) = &args.key {
        job = job.with_idempotency_key(key);
    }
    if let Some(seconds) = args.delay {
        job = job.with_delay(Duration::from_secs_f64(seconds));
    }
    if let Some(seconds) = args.deadline {
        job = job.with_deadline(Duration::from_secs_f64(seconds));
    }
    if let Some(session) = &args.session {
        job = job.with_session(session);
    }
    if let Some(attempts) = args.attempts {
        job = job.with_max_attempts(attempts);
    }
    if let Some(seconds) = args.job_timeout {
        job = job.with_timeout(Duration::from_secs_f64(seconds));
    }
    if let Some(seconds) = args.result_ttl {
        job = job.with_reply().with_result_ttl(Duration::from_secs(seconds));
    }
    if args.wait { job.with_reply().with_reply_within(Duration::from_secs_f64(args.timeout)) } else { job }
}

/// Publishes all jobs; returns the jobs whose results are awaited.
async fn publish(publisher: &mut Publisher, args: &PublishArgs, stream: &str) -> anyhow::Result<Vec<Awaited>> {
    let values: Vec<Value> = args.args.iter().map(|arg| parse_arg(arg)).collect();
    let count = usize::try_from(args.count).context("--count is too large for this machine")?;
    let mut waiting = Vec::new();
    let mut done = 0;
    while done < count {
        let jobs: Vec<Job> = (done..count.min(done + PROGRESS)).map(|_| job(args, &values)).collect();
        let outcomes = publisher.publish(stream, &jobs).await.with_context(|| format!("{done} jobs are published"))?;
        done += jobs.len();
        for (job, outcome) in jobs.iter().zip(&outcomes) {
            if args.wait {
                waiting.push(awaited(job, outcome));
            } else if args.json {
                output::json_line(&shown(job, stream, outcome))?;
            } else if count == 1 {
                output::line(&said(stream, outcome))?;
            }
        }
        if count > PROGRESS {
            writeln!(io::stderr(), "{done} of {count} jobs published to {stream}")?;
        }
    }
    if !args.json && !args.wait && count > 1 {
        output::line(&format!("published {count} jobs to {stream}"))?;
    }
    Ok(waiting)
}

fn awaited(job: &Job, published: &Published) -> Awaited {
    let id = match published {
        Published::Duplicate { of } => of,
        _ => &job.id,
    };
    Awaited { key: keys::result(id), subject: Subject::new(id, published) }
}

/// Returns the result of publishing a job, for programs.
fn shown(job: &Job, stream: &str, published: &Published) -> Value {
    let mut shown = json!({"id": job.id, "type": job.job_type, "stream": stream});
    match published {
        Published::Entry { entry } => shown["entry"] = json!(entry),
        Published::Delayed { due } => shown["due"] = json!(due),
        Published::Duplicate { of } => shown["duplicate_of"] = json!(of),
    }
    shown
}

/// Returns the result of publishing a job, for people.
fn said(stream: &str, published: &Published) -> String {
    match published {
        Published::Entry { .. } => format!("published 1 job to {stream}"),
        Published::Delayed { .. } => format!("published 1 job, which will be on {stream} when it is due"),
        Published::Duplicate { of } => format!("published before under the same key, as job {of}; nothing to do"),
    }
}

/// Prints the results as they arrive, and returns how many jobs failed. At the timeout, `waiting` contains the jobs
/// without a result. Meanwhile shows the progress of a single job.
async fn wait(
    target: &RedisTarget,
    args: &PublishArgs,
    stream: &str,
    waiting: &mut Vec<Awaited>,
) -> anyhow::Result<usize> {
    let mut connection = target.connect_without_timeout().await?;
    let deadline = Instant::now() + Duration::from_secs_f64(args.timeout);
    let shows_progress = args.count == 1 && !args.json;
    let mut progress = ProgressLine::default();
    let mut failed = 0;
    while !waiting.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let first = waiting.len().saturating_sub(KEYS_AT_ONCE);
        let keys: Vec<String> = waiting[first..].iter().map(|awaited| awaited.key.clone()).collect();
        let answer = async {
            if args.key.is_none() {
                return wait_for_any(&mut connection, &keys, left).await;
            }
            let shared = wait_shared(&mut connection, &keys[0], left).await?;
            Ok(shared.map(|result| (keys[0].clone(), result)))
        };
        // A frozen Redis does not even reply that there is nothing.
        let mut answer = pin!(tokio::time::timeout(left + target.response_timeout(), answer));
        let id = waiting[first].subject.id.as_str();
        let answer = tokio::select! {
            answer = &mut answer => answer,
            () = progress.follow(target, stream, id), if shows_progress => answer.await,
        };
        progress.clear();
        let Ok(answer) = answer else { break };
        let Some((key, result)) = answer? else { break };
        waiting.retain(|awaited| awaited.key != key);
        failed += usize::from(!result.ok);
        print(args, &result)?;
    }
    Ok(failed)
}

fn print(args: &PublishArgs, result: &JobResult) -> io::Result<()> {
    if args.json {
        return output::line(&result.to_json());
    }
    match (&result.value, &result.error) {
        (_, Some(error)) => writeln!(io::stderr(), "error: job {}: {error}", result.id),
        (value, None) => output::line(&to_string(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_json_or_else_strings() {
        for (text, value) in [
            ("42", json!(42)),
            ("true", json!(true)),
            ("\"42\"", json!("42")),
            ("hello", json!("hello")),
            ("{\"a\":[1]}", json!({"a": [1]})),
            ("{a", json!("{a")),
            ("", json!("")),
        ] {
            assert_eq!(parse_arg(text), value);
        }
    }
}
