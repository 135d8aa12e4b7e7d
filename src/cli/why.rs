//! `swarm why TYPE`: the last decision about a worker type as arithmetic.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

use super::{ConfigFlags, output, view::why::text};
use crate::model::{Timestamp, explanation::Explanation};

/// Explain the last decision about a worker type
///
/// Shows the observation of the last evaluation, the rules in the order in which they changed the outcome, and the time
/// of the next evaluation. Asks the autoscaler's HTTP server, by default at `http.listen` of the configuration.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  swarm why browser
  swarm why browser --json | jq -r '.rules[]'

The last rule is the one that decided. `?` is a value that could not be read; it never lowers a target.")]
pub struct WhyArgs {
    #[command(flatten)]
    config: ConfigFlags,
    /// The worker type
    #[arg(value_name = "TYPE")]
    worker_type: String,
    /// URL of the autoscaler's HTTP server [default: http.listen of the configuration]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs `swarm why`.
///
/// # Errors
/// If no autoscaler answers, or it does not know the worker type.
pub async fn run(args: WhyArgs) -> anyhow::Result<ExitCode> {
    let server = args.config.status_server(args.url.as_deref())?;
    let fleet = server.status().await?;
    let Some(of) = fleet.worker_type(&args.worker_type) else {
        let known: Vec<_> = fleet.worker_types.iter().map(|of| of.worker_type.as_str()).collect();
        bail!("no worker type `{}` at {}; there are: {}", args.worker_type, server.url(), known.join(", "));
    };
    if args.json {
        output::json(&Explanation::of(of, &fleet))?;
    } else {
        output::line(&text(of, &fleet, Timestamp::wall()))?;
    }
    Ok(ExitCode::SUCCESS)
}
