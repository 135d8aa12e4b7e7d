//! `swarm publish`: puts jobs on their stream, and waits for the results if asked to.

use std::{
    io::{self, Write},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::value_parser;
use serde_json::{Map, Value};

use super::output;
use crate::{
    broker::{Job, JobResult, Place, Publisher, Routes, explain, wait_for_any},
    config::Settings,
    connection::RedisTarget,
};

/// Jobs published between two lines of progress.
const PROGRESS: usize = 50_000;
/// Result keys waited for in one command; the others' results keep until it is their turn.
const KEYS_AT_ONCE: usize = 100;

/// Put a job on the stream of its worker type
///
/// The part of JOB_TYPE before the dot is the worker type, which decides the stream; types that are not configured go
/// to `jobs` (or what JOB_STREAM names). An ARG that is JSON is taken as JSON, anything else as a string.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  swarm publish browser.echo hello 42 '{\"deep\": true}' --wait
  swarm publish browser.sleep 2 --count 1000")]
pub struct PublishArgs {
    /// Worker type and method, for example `browser.echo`.
    #[arg(value_name = "JOB_TYPE")]
    pub job_type: String,
    /// Positional arguments: JSON, else strings.
    #[arg(value_name = "ARG", allow_negative_numbers = true)]
    pub args: Vec<String>,
    /// Named arguments, as one JSON object.
    #[arg(long, value_name = "JSON", value_parser = parse_kwargs)]
    pub kwargs: Option<Map<String, Value>>,
    /// Publish this many such jobs.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(1..))]
    pub count: u32,
    /// Wait for the results and print them. Exit code 1 if a job failed or did not answer in time.
    #[arg(long)]
    pub wait: bool,
    /// Seconds to wait for all results.
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0, value_parser = parse_seconds, requires = "wait")]
    pub timeout: f64,
    /// One JSON object a line: published jobs, or results with --wait.
    #[arg(long)]
    pub json: bool,
}

fn parse_kwargs(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("not a JSON object ({error}); write '{{\"name\": \"value\"}}'"))
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| *seconds > 0.0 && *seconds <= 86_400.0);
    seconds.ok_or_else(|| "write a number of seconds above 0 and at most 86400".to_owned())
}

/// An argument as its JSON, or as a string if it is none.
fn parse_arg(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

/// Publishes, waits, prints.
pub async fn run(args: PublishArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let routes = Routes::from_env(settings);
    let stream = routes.stream(&args.job_type)?;
    let target = RedisTarget::new(&settings.redis_url, settings.scaler.redis_timeout())?;
    let mut publisher = Publisher::new(target.connect().await?, settings.signals.channel.clone());
    let waiting = publish(&mut publisher, &args, stream).await?;
    if !args.wait {
        return Ok(ExitCode::SUCCESS);
    }
    let (failed, missing) = wait(&target, &args, waiting).await?;
    if missing > 0 {
        let place = Place::of(settings, &routes, &args.job_type, stream);
        let why = explain(&mut target.connect().await?, &place).await;
        let count = args.count;
        writeln!(io::stderr(), "error: {missing} of {count} jobs did not answer within {} s\n{why}", args.timeout)?;
    }
    Ok(if failed + missing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Publishes all jobs; answers the keys of the results to wait for.
async fn publish(publisher: &mut Publisher, args: &PublishArgs, stream: &str) -> anyhow::Result<Vec<String>> {
    let values: Vec<Value> = args.args.iter().map(|arg| parse_arg(arg)).collect();
    let kwargs = args.kwargs.clone().unwrap_or_default();
    let count = usize::try_from(args.count).context("--count is too large for this machine")?;
    let mut waiting = Vec::new();
    let mut done = 0;
    while done < count {
        let jobs: Vec<Job> = (done..count.min(done + PROGRESS))
            .map(|_| Job::new(&args.job_type, values.clone(), kwargs.clone()))
            .map(|job| if args.wait { job.with_reply() } else { job })
            .collect();
        let entries = publisher.publish(stream, &jobs).await.with_context(|| format!("{done} jobs are published"))?;
        done += jobs.len();
        if args.json && !args.wait {
            for (job, entry) in jobs.iter().zip(&entries) {
                output::json_line(
                    &serde_json::json!({"id": job.id, "type": job.job_type, "stream": stream, "entry": entry}),
                )?;
            }
        }
        waiting.extend(jobs.into_iter().filter_map(|job| job.reply_to));
        if count > PROGRESS {
            writeln!(io::stderr(), "{done} of {count} jobs published to {stream}")?;
        }
    }
    if !args.json && !args.wait {
        output::line(&format!("published {count} {} to {stream}", if count == 1 { "job" } else { "jobs" }))?;
    }
    Ok(waiting)
}

/// Prints the results as they come; answers how many failed and how many are missing when the time is over.
async fn wait(target: &RedisTarget, args: &PublishArgs, mut waiting: Vec<String>) -> anyhow::Result<(usize, usize)> {
    let mut connection = target.connect_without_timeout().await?;
    let deadline = Instant::now() + Duration::from_secs_f64(args.timeout);
    let mut failed = 0;
    while !waiting.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let first = waiting.len().saturating_sub(KEYS_AT_ONCE);
        let answer = wait_for_any(&mut connection, &waiting[first..], left);
        // A frozen Redis does not even say that there is nothing.
        let Ok(answer) = tokio::time::timeout(left + target.response_timeout(), answer).await else { break };
        let Some((key, result)) = answer? else { break };
        waiting.retain(|waiting| *waiting != key);
        failed += usize::from(!result.ok);
        print(args, &result)?;
    }
    Ok((failed, waiting.len()))
}

fn print(args: &PublishArgs, result: &JobResult) -> io::Result<()> {
    if args.json {
        return output::json_line(result);
    }
    match (&result.value, &result.error) {
        (_, Some(error)) => writeln!(io::stderr(), "error: job {}: {error}", result.id),
        (value, None) => output::json_line(value),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
