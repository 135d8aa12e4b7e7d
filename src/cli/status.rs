//! `swarm status`: shows the state of a running autoscaler, once or live.

mod live;

use std::{process::ExitCode, time::Duration};

use super::{
    ConfigFlags, output,
    view::{fleet, screen::Screen, words},
};
use crate::{
    model::{Reading, Timestamp, snapshot::FleetSnapshot},
    operations::status_client::StatusServer,
};
use clap::Args;

/// Interval between two reads of a live view.
const REFRESH: Duration = Duration::from_millis(500);

/// Show the queues, workers and decisions of a running autoscaler
///
/// Shows for each worker type its queue, its workers, the last decision with its reason, and the time of the next
/// evaluation. READ AGO is the age of the numbers. Asks the autoscaler's HTTP server, by default at `http.listen` of
/// the configuration.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  swarm status
  swarm status --watch
  swarm status --json | jq '.worker_types[] | {worker_type, desired}'
  swarm status --url http://10.0.0.7:9000

`?` is a value that could not be read; it never counts as 0. Exits with 1 if no autoscaler answers.")]
pub struct StatusArgs {
    #[command(flatten)]
    config: ConfigFlags,
    /// URL of the autoscaler's HTTP server [default: http.listen of the configuration]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Keep running and show changes: full screen on a terminal (q quits), else one table per change of state
    #[arg(long, short)]
    watch: bool,
    /// Print the whole snapshot as JSON; with --watch, one line per change of state
    #[arg(long)]
    json: bool,
}

/// Runs `swarm status`.
///
/// # Errors
/// If no autoscaler answers.
pub async fn run(args: StatusArgs) -> anyhow::Result<ExitCode> {
    let server = args.config.status_server(args.url.as_deref())?;
    let fleet = server.status().await?;
    if !args.watch {
        if args.json {
            output::json(&fleet)?;
        } else {
            output::line(&fleet::text(&fleet, Timestamp::wall()))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if Screen::is_available() && !args.json {
        live::watch(server, fleet).await?;
    } else {
        watch_in_lines(&server, fleet, args.json).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints one table for each change of state, until Ctrl-C or until the autoscaler is gone.
async fn watch_in_lines(server: &StatusServer, mut fleet: FleetSnapshot, json: bool) -> anyhow::Result<()> {
    let mut shown = None;
    loop {
        let state = state_of(&fleet);
        if shown.as_ref() != Some(&state) {
            if json {
                output::line(&serde_json::to_string(&fleet)?)?;
            } else {
                let now = Timestamp::wall();
                output::line(&format!("── {}\n{}\n", words::time_of_day(now), fleet::text(&fleet, now)))?;
            }
            shown = Some(state);
        }
        tokio::time::sleep(REFRESH).await;
        fleet = server.status().await?;
    }
}

/// Returns the snapshot without the parts that change all the time: clocks, counters, and words that contain seconds.
fn state_of(fleet: &FleetSnapshot) -> FleetSnapshot {
    let mut state = fleet.clone();
    for of in &mut state.worker_types {
        let of = std::sync::Arc::make_mut(of);
        of.evaluated_at = None;
        of.evaluations = 0;
        of.recheck_at = None;
        of.reasons.clear();
        of.sources.clear();
        of.demand.oldest = Reading::Known(None);
    }
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_and_counters_are_no_change_of_state_and_numbers_are() {
        let fleet = fleet::made_up();
        let mut later = fleet.clone();
        let of = std::sync::Arc::make_mut(&mut later.worker_types[0]);
        of.evaluations += 1;
        of.reasons = vec!["cooldown ends in 3 s".to_owned()];
        assert_eq!(state_of(&fleet), state_of(&later));
        std::sync::Arc::make_mut(&mut later.worker_types[0]).desired += 1;
        assert_ne!(state_of(&fleet), state_of(&later));
    }
}
