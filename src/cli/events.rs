//! `swarm events`: the history of scaling decisions that were carried out or failed, from Redis.

use std::{process::ExitCode, sync::Arc};

use clap::Args;

use super::{
    ConfigFlags, output,
    view::{events, fleet::trimmed},
};
use crate::{
    connection::{RedisTarget, backoff},
    scaler::{EventTail, ScalingEvent, recent_events},
};

/// Show the history of scaling, with reasons
///
/// Reads the stream `scaling:events`: one entry for each change of a pool, including failed changes. Needs no running
/// autoscaler.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  swarm events
  swarm events --type browser --count 5
  swarm events --follow
  swarm events --json | jq -r 'select(.outcome == \"failed\") | .error'

REACTION is the time from the first signal to the answer of the backend.")]
pub struct EventsArgs {
    #[command(flatten)]
    config: ConfigFlags,
    /// Number of entries to show, the newest
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20)]
    count: usize,
    /// Show only the entries of this worker type
    #[arg(long = "type", value_name = "TYPE")]
    worker_type: Option<String>,
    /// Keep running and print new entries as they are written
    #[arg(long, short)]
    follow: bool,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

/// Runs `swarm events`.
///
/// # Errors
/// If Redis can't be read.
pub async fn run(args: EventsArgs) -> anyhow::Result<ExitCode> {
    let settings = args.config.load()?.settings;
    let target = Arc::new(RedisTarget::new(&settings.redis_url, settings.scaler.redis_timeout())?);
    let recent = recent_events(&target, args.count, args.worker_type.as_deref()).await?;
    if args.json || args.follow {
        for event in &recent.events {
            print(event, args.json)?;
        }
    } else if recent.events.is_empty() {
        let of = args.worker_type.as_deref().map_or_else(String::new, |name| format!(" of `{name}`"));
        output::error_line(&format!("no scaling events{of} in redis at {}", target.display()))?;
    } else {
        output::line(&trimmed(&events::table(&recent.events)))?;
    }
    if args.follow {
        follow(EventTail::new(target, recent.end), &args).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints new events until Ctrl-C. An outage is reported once and waited out.
async fn follow(mut tail: EventTail, args: &EventsArgs) -> anyhow::Result<()> {
    let mut pauses = backoff();
    let mut told = false;
    loop {
        match tail.next().await {
            Ok(events) => {
                let wanted =
                    |event: &&ScalingEvent| args.worker_type.as_ref().is_none_or(|name| event.worker_type == *name);
                for event in events.iter().filter(wanted) {
                    print(event, args.json)?;
                }
                if told {
                    output::error_line("redis answers again")?;
                    (pauses, told) = (backoff(), false);
                }
            }
            Err(error) if error.is_passing() => {
                if !told {
                    output::error_line(&format!("waiting for redis: {error}"))?;
                    told = true;
                }
                tokio::time::sleep(pauses.next_pause()).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn print(event: &ScalingEvent, json: bool) -> anyhow::Result<()> {
    if json {
        output::json_line(event)?;
    } else {
        output::line(&events::line(event))?;
    }
    Ok(())
}
