//! `swarm cancel`: cancels jobs, wherever they are.

use std::{process::ExitCode, sync::Arc, time::Duration};

use serde::Serialize;

use super::{ConfigFlags, output, publish::parse_seconds, view::words::printable};
use crate::{broker::Client, config::Settings, connection::RedisTarget, model::job::Cancelled};

/// Cancel jobs that wait, are delayed, or run
///
/// A job that waits is not started, a delayed one is removed, and the worker that runs one stops it, with all processes
/// of an `exec` handler. The publisher that waits for the result gets the error `cancelled`. Looks for the jobs on the
/// queues of all configured worker types and on the stream of the other job types. Exits with 1 if a job is not
/// cancelled.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  swarm cancel 0199f1c2-7d3e-7c61-9f7a-0d5f3a1b2c3d
  swarm cancel order-4711 order-4712 --timeout 30 --json")]
pub struct CancelArgs {
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigFlags,
    /// Ids of the jobs
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<String>,
    /// Seconds to wait for the worker that runs a job to stop it
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = parse_seconds)]
    pub timeout: f64,
    /// Print one JSON object per line
    #[arg(long)]
    pub json: bool,
}

/// What became of one job, for programs.
#[derive(Serialize)]
struct Shown<'a> {
    id: &'a str,
    #[serde(flatten)]
    outcome: &'a Cancelled,
}

/// Runs `swarm cancel`.
pub async fn run(args: CancelArgs, settings: Arc<Settings>) -> anyhow::Result<ExitCode> {
    let target = RedisTarget::new(&settings.redis_url, settings.scaler.redis_timeout())?;
    let client = Client::new(settings, target);
    let mut all = true;
    for id in &args.ids {
        let outcome = client.cancel(id, Duration::from_secs_f64(args.timeout)).await?;
        all &= outcome.is_cancelled();
        if args.json {
            output::json_line(&Shown { id, outcome: &outcome })?;
        } else if outcome.is_cancelled() {
            output::line(&in_words(id, &outcome))?;
        } else {
            output::error_line(&format!("error: {}", in_words(id, &outcome)))?;
        }
    }
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn in_words(id: &str, outcome: &Cancelled) -> String {
    let id = printable(id);
    match outcome {
        Cancelled::Waiting => format!("job {id} waited and is cancelled: no worker starts it"),
        Cancelled::Delayed => format!("job {id} was delayed and is removed"),
        Cancelled::Stopped { worker } => format!("job {id} ran on {} and is stopped", printable(worker)),
        Cancelled::Told { worker } => format!(
            "job {id} runs on {}, which was told to stop it and has not done so yet; cancel it again to see, or raise \
             --timeout",
            printable(worker)
        ),
        Cancelled::Already => format!("job {id} was cancelled before"),
        Cancelled::Finished => format!("job {id} ended before it could be cancelled"),
        Cancelled::Unknown => {
            format!("no queue has an unfinished job {id}: it has ended, or its queue is not in this configuration")
        }
    }
}
