//! `swarm scale`: sets the number of workers, once or for a time.

use std::{process::ExitCode, time::Duration};

use clap::Args;

use super::control::{OrderArgs, parse_time};
use crate::model::control::OverrideAction;

/// Set the number of workers of a type, once or for a time
///
/// The number must be within min_workers and max_workers. With --for it holds for that time, whatever the queue
/// contains. Without --for it is applied once, and the rules continue from there: the cooldown starts, and more jobs
/// start more workers. Surplus workers finish their jobs first.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  swarm scale browser=5
  swarm scale browser=0 --for 10m --reason 'new image'")]
pub struct ScaleArgs {
    #[command(flatten)]
    order: OrderArgs,
    /// The worker type and its number of workers
    #[arg(value_name = "TYPE=N", value_parser = parse_target)]
    target: (String, u32),
    /// Hold the number for this time: 90s, 10m, 2h, 1d
    #[arg(long = "for", value_name = "TIME", value_parser = parse_time)]
    lasts: Option<Duration>,
}

fn parse_target(text: &str) -> Result<(String, u32), String> {
    let parsed = text.split_once('=').and_then(|(name, workers)| Some((name.to_owned(), workers.parse().ok()?)));
    parsed.ok_or_else(|| "expected TYPE=N, such as browser=5".to_owned())
}

/// Runs `swarm scale`.
///
/// # Errors
/// If the worker type does not exist, the number is outside its bounds, or Redis can't be asked.
pub async fn run(args: ScaleArgs) -> anyhow::Result<ExitCode> {
    let (name, workers) = &args.target;
    args.order.give(name, OverrideAction::Scale(*workers), args.lasts).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_names_a_type_and_a_number() {
        assert_eq!(parse_target("browser=5"), Ok(("browser".to_owned(), 5)));
        for text in ["browser", "browser=", "browser=-1", "browser=many"] {
            assert!(parse_target(text).is_err(), "{text}");
        }
    }
}
