//! `swarm resume`: ends the override of `swarm pause` or `swarm scale`.

use std::process::ExitCode;

use clap::Args;

use super::control::OrderArgs;
use crate::model::control::OverrideAction;

/// End a `swarm pause` or a `swarm scale`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  swarm resume browser --reason 'the site is back'")]
pub struct ResumeArgs {
    #[command(flatten)]
    order: OrderArgs,
    /// The worker type
    #[arg(value_name = "TYPE")]
    worker_type: String,
}

/// Runs `swarm resume`.
///
/// # Errors
/// If Redis can't be asked. A worker type that is no longer configured may be resumed too.
pub async fn run(args: ResumeArgs) -> anyhow::Result<ExitCode> {
    args.order.give(&args.worker_type, OverrideAction::Resume, None).await
}
