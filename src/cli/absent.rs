//! Stand-ins for the commands that this build was compiled without: each returns an error that names the feature.

use std::{ffi::OsString, process::ExitCode};

use clap::Args;

use crate::model::MissingFeature;

/// Whatever the command was given.
#[derive(Args, Debug)]
#[command(hide = true, disable_help_flag = true)]
pub(crate) struct AnyArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _words: Vec<OsString>,
}

fn missing(command: &str, part: &str, feature: &'static str) -> anyhow::Result<ExitCode> {
    Err(MissingFeature { needed_by: format!("`swarm {command}`"), part: part.to_owned(), feature }.into())
}

#[cfg(not(feature = "discord"))]
pub(super) mod discord {
    pub(crate) use super::AnyArgs as DiscordArgs;

    #[expect(clippy::unused_async, reason = "the command that it stands in for waits")]
    pub(crate) async fn run(_: DiscordArgs) -> anyhow::Result<std::process::ExitCode> {
        super::missing("discord", "Discord bot", "discord")
    }
}

#[cfg(not(feature = "simulate"))]
pub(super) mod record {
    pub(crate) use super::AnyArgs as RecordArgs;

    #[expect(clippy::unused_async, reason = "the command that it stands in for waits")]
    pub(crate) async fn run(_: RecordArgs) -> anyhow::Result<std::process::ExitCode> {
        super::missing("record", "recorder of traces", "simulate")
    }
}

#[cfg(not(feature = "simulate"))]
pub(super) mod simulate {
    pub(crate) use super::AnyArgs as SimulateArgs;

    pub(crate) fn run(_: &SimulateArgs) -> anyhow::Result<std::process::ExitCode> {
        super::missing("simulate", "simulation", "simulate")
    }
}

#[cfg(not(feature = "notify"))]
pub(super) mod notify {
    pub(crate) use super::AnyArgs as NotifyArgs;

    #[expect(clippy::unused_async, reason = "the command that it stands in for waits")]
    pub(crate) async fn run(_: NotifyArgs) -> anyhow::Result<std::process::ExitCode> {
        super::missing("notify", "sender of alerts", "notify")
    }
}
