//! `swarm discord`: runs the bot until it is asked to stop.

use std::{process::ExitCode, sync::Arc};

use clap::Args;

use super::{ConfigFlags, metrics::serve_metrics, stop::stop_on_signal};
use crate::{
    config::process_environment,
    discord::{Bot, TOKEN_VARIABLE, read_token},
    telemetry::{LogFormat, init_logging},
};

/// Run the Discord bot: browsers for channels, autoscaler commands for operators
///
/// Needs a token, in DISCORD_TOKEN or in the file that `token_file` in `[discord]` names. docs/discord.md describes how
/// to get a token and how to invite the bot. Runs until SIGTERM or Ctrl-C; a second signal ends it immediately.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  DISCORD_TOKEN=… swarm discord
  swarm discord --config /etc/swarm/swarm.toml

In Discord: /web start https://example.org, /web screenshot, /swarm status.")]
pub struct DiscordArgs {
    #[command(flatten)]
    config: ConfigFlags,
    /// Format of the log
    #[arg(long, value_enum, default_value_t, env = "SWARM_LOG_FORMAT", value_name = "FORMAT")]
    log_format: LogFormat,
}

/// Runs `swarm discord`.
///
/// # Errors
/// If there is no token, or Discord refuses the bot.
pub async fn run(args: DiscordArgs) -> anyhow::Result<ExitCode> {
    init_logging(args.log_format, "info")?;
    let loaded = args.config.load()?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let settings = loaded.settings;
    let token = read_token(settings.discord.token_file.as_deref(), process_environment(TOKEN_VARIABLE))?;
    let served = serve_metrics(&settings.discord.metrics_listen).await?;
    let bot = Bot::new(Arc::clone(&settings), token)?;
    bot.run(stop_on_signal("commands under way get a last word")?).await?;
    if let Some(metrics) = served {
        metrics.stop().await;
    }
    tracing::info!("bot stopped");
    Ok(ExitCode::SUCCESS)
}
