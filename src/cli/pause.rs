//! `swarm pause`: leaves a worker type as it is.

use std::{process::ExitCode, time::Duration};

use clap::Args;

use super::control::{OrderArgs, parse_time};
use crate::model::control::OverrideAction;

/// Stop scaling a worker type until `swarm resume`
///
/// No worker is started, stopped or replaced; with --in or --out, only that direction is paused. The pause applies to
/// every autoscaler of this Redis, and survives restarts.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  swarm pause browser --reason 'the site is down'
  swarm pause browser --for 30m
  swarm pause browser --in          let no worker go, and start workers as usual
  swarm pause browser --observe     go on deciding, and show what would be done: `swarm why browser`, `swarm status`")]
pub struct PauseArgs {
    #[command(flatten)]
    order: OrderArgs,
    /// The worker type
    #[arg(value_name = "TYPE")]
    worker_type: String,
    /// End the pause after this time: 90s, 10m, 2h, 1d
    #[arg(long = "for", value_name = "TIME", value_parser = parse_time)]
    lasts: Option<Duration>,
    /// Go on deciding, and show what would be done
    #[arg(long, conflicts_with_all = ["scale_in", "scale_out"])]
    observe: bool,
    /// Let no worker go; start workers as usual
    #[arg(long = "in", conflicts_with = "scale_out")]
    scale_in: bool,
    /// Start and replace no worker; let workers go as usual
    #[arg(long = "out")]
    scale_out: bool,
}

/// Runs `swarm pause`.
///
/// # Errors
/// If the worker type does not exist, or Redis can't be asked.
pub async fn run(args: PauseArgs) -> anyhow::Result<ExitCode> {
    let action = match args {
        PauseArgs { observe: true, .. } => OverrideAction::Observe,
        PauseArgs { scale_in: true, .. } => OverrideAction::PauseIn,
        PauseArgs { scale_out: true, .. } => OverrideAction::PauseOut,
        _ => OverrideAction::Pause,
    };
    args.order.give(&args.worker_type, action, args.lasts).await
}
