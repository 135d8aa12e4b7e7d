//! The command line: parses the arguments here, and runs each subcommand in a file of its own. Prints and exits; does
//! not wire components together.

#[cfg(not(all(feature = "discord", feature = "notify", feature = "simulate")))]
mod absent;
pub mod autoscaler;
pub mod cancel;
pub mod completions;
pub mod config;
mod control;
pub mod dead;
pub mod demo;
#[cfg(feature = "discord")]
pub mod discord;
pub mod doctor;
pub mod events;
pub mod job;
pub mod man;
mod metrics;
#[cfg(feature = "notify")]
pub mod notify;
mod open_files;
pub mod output;
pub mod pause;
mod progress_line;
pub mod publish;
#[cfg(feature = "simulate")]
pub mod record;
pub mod resume;
pub mod scale;
#[cfg(feature = "simulate")]
pub mod simulate;
pub mod status;
mod stop;
mod view;
pub mod why;
pub mod worker;

#[cfg(not(feature = "discord"))]
use absent::discord;
#[cfg(not(feature = "notify"))]
use absent::notify;
#[cfg(not(feature = "simulate"))]
use absent::{record, simulate};

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::operations::status_client::StatusServer;
use crate::{
    config::{ConfigErrors, Flags, Loaded, load, process_environment},
    telemetry::{LogFormat, init_logging},
};

/// Scales job workers to the backlog of Redis queues, within a millisecond of a new job.
#[derive(Debug, Parser)]
#[command(version = env!("SWARM_VERSION"), about, after_help = "Start with `swarm demo`: it needs no running server and shows every part.")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Autoscaler(autoscaler::AutoscalerArgs),
    Worker(worker::WorkerArgs),
    Publish(publish::PublishArgs),
    Job(job::JobArgs),
    Cancel(cancel::CancelArgs),
    Dead(dead::DeadArgs),
    Status(status::StatusArgs),
    Why(why::WhyArgs),
    Doctor(doctor::DoctorArgs),
    Pause(pause::PauseArgs),
    Resume(resume::ResumeArgs),
    Scale(scale::ScaleArgs),
    Events(events::EventsArgs),
    Notify(notify::NotifyArgs),
    Discord(discord::DiscordArgs),
    Config(config::ConfigArgs),
    Record(record::RecordArgs),
    Simulate(simulate::SimulateArgs),
    Demo(demo::DemoArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
}

// Not a doc comment: clap would take it for the description of each command that these options are flattened into.
#[expect(missing_docs, reason = "see above")]
#[derive(Args, Clone, Debug, Default)]
pub struct ConfigFlags {
    /// Configuration file [default: $SWARM_CONFIG, or the first of swarm.toml, config/swarm.toml,
    /// /etc/swarm/swarm.toml]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Redis server, for example redis://localhost:6379/0 [default: $REDIS_URL, or redis_url of the file]
    #[arg(long, value_name = "URL", global = true)]
    pub redis_url: Option<String>,
}

impl ConfigFlags {
    /// Loads the configuration that these options and the environment name.
    ///
    /// # Errors
    /// All errors of the configuration.
    pub fn load(&self) -> Result<Loaded, ConfigErrors> {
        self.load_with(Flags::default())
    }

    /// Loads the configuration like [`load`](Self::load), with further flags.
    ///
    /// # Errors
    /// All errors of the configuration.
    pub fn load_with(&self, flags: Flags) -> Result<Loaded, ConfigErrors> {
        load(&self.flags(flags), &process_environment)
    }

    /// Returns the autoscaler's HTTP server at `url`, else the one of the configuration. Uses the configuration's token
    /// for reads, if the configuration is valid.
    ///
    /// # Errors
    /// If neither names the address.
    pub(crate) fn status_server(&self, url: Option<&str>) -> anyhow::Result<StatusServer> {
        match (self.load(), url) {
            (Ok(loaded), url) => Ok(StatusServer::of(&loaded.settings.http, url)?),
            (Err(_), Some(url)) => Ok(StatusServer::new(url, None)),
            (Err(error), None) => Err(error.into()),
        }
    }

    /// Returns `flags` with these options added.
    pub fn flags(&self, flags: Flags) -> Flags {
        Flags { config: self.config.clone(), redis_url: self.redis_url.clone(), ..flags }
    }
}

/// Runs the command that the command line names.
///
/// # Errors
/// The command's error, in words for people.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Config(args) => config::run(&args),
        Command::Simulate(args) => simulate::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
        Command::Autoscaler(args) => block_on(autoscaler::run(args)),
        Command::Demo(args) => block_on(demo::run(args)),
        Command::Discord(args) => block_on(discord::run(args)),
        Command::Events(args) => block_on(events::run(args)),
        Command::Notify(args) => block_on(notify::run(args)),
        Command::Status(args) => block_on(status::run(args)),
        Command::Why(args) => block_on(why::run(args)),
        Command::Doctor(args) => block_on(doctor::run(args)),
        Command::Record(args) => block_on(record::run(args)),
        Command::Pause(args) => block_on(pause::run(args)),
        Command::Resume(args) => block_on(resume::run(args)),
        Command::Scale(args) => block_on(scale::run(args)),
        Command::Worker(args) => {
            init_logging(args.log_format, "info")?;
            open_files::raise_limit();
            let loaded = args.config.load()?;
            block_on(worker::run(args, &loaded.settings))
        }
        Command::Publish(args) => {
            init_logging(LogFormat::Text, "warn")?;
            let loaded = args.config.load()?;
            block_on(publish::run(args, &loaded.settings))
        }
        Command::Job(args) => {
            init_logging(LogFormat::Text, "warn")?;
            let loaded = args.config.load()?;
            block_on(job::run(args, loaded.settings))
        }
        Command::Cancel(args) => {
            init_logging(LogFormat::Text, "warn")?;
            let loaded = args.config.load()?;
            block_on(cancel::run(args, loaded.settings))
        }
        Command::Dead(args) => {
            init_logging(LogFormat::Text, "warn")?;
            let loaded = args.config.load()?;
            block_on(dead::run(args, &loaded.settings))
        }
    }
}

fn block_on(command: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    crate::app::runtime()?.block_on(command)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_command_has_a_first_line_of_its_own() {
        let command = Cli::command();
        let mut lines: Vec<String> =
            command.get_subcommands().filter_map(|of| of.get_about().map(ToString::to_string)).collect();
        let all = lines.len();
        lines.sort();
        lines.dedup();
        assert!(lines.len() == all && all > 15, "{lines:#?}");
    }
}
