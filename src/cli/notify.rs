//! `swarm notify test`: sends one message to each webhook.

use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};

use super::{ConfigFlags, output};
use crate::{
    config::NotifySettings,
    model::Timestamp,
    notify::{Notification, SendError, Sender},
};

/// Try the webhooks that get alerts
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  swarm notify test
  swarm notify test --name on-call")]
pub struct NotifyArgs {
    #[command(subcommand)]
    action: NotifyAction,
}

#[derive(Debug, Subcommand)]
enum NotifyAction {
    /// Send a test message to each webhook of `[[notify]]`
    ///
    /// Makes one attempt for each webhook. Exits with 1 if a message did not arrive.
    Test(TestArgs),
}

#[derive(Args, Debug)]
struct TestArgs {
    #[command(flatten)]
    config: ConfigFlags,
    /// Webhook that gets the message [default: all of them]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

/// Runs `swarm notify`.
///
/// # Errors
/// If no such webhook is configured, or the output can't be written.
pub async fn run(args: NotifyArgs) -> anyhow::Result<ExitCode> {
    let NotifyAction::Test(args) = args.action;
    let webhooks = args.config.load()?.settings.notify.clone();
    let wanted = |name: &str| args.name.as_deref().is_none_or(|wanted| wanted == name);
    let chosen: Vec<_> = webhooks.into_iter().enumerate().filter(|(index, of)| wanted(&of.name(*index))).collect();
    if chosen.is_empty() {
        match args.name {
            Some(name) => bail!("no webhook has the name `{name}`; `swarm config show` lists them"),
            None => bail!("no webhook is configured; add a [[notify]] table"),
        }
    }
    let notification = Notification::test(&rustix::system::uname().nodename().to_string_lossy(), Timestamp::wall());
    let mut code = ExitCode::SUCCESS;
    for (index, settings) in chosen {
        let name = settings.name(index);
        match attempt(settings, index, &notification).await {
            Ok(()) => output::line(&format!("{name}: sent"))?,
            Err(error) => {
                code = ExitCode::FAILURE;
                output::line(&format!("{name}: {error}"))?;
            }
        }
    }
    Ok(code)
}

async fn attempt(settings: NotifySettings, index: usize, notification: &Notification) -> Result<(), SendError> {
    Sender::new(settings, index)?.send(notification, &uuid::Uuid::now_v7().to_string()).await
}
