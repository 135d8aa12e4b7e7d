//! `swarm config`: checks a configuration, shows the settings in force and their origins, and prints the schema of the
//! file.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};
use serde_json::json;

use super::output;
use crate::{
    app::unsupported_settings,
    config::{self, ConfigErrors, Flags, Loaded},
};

/// Check, show or describe the configuration
///
/// Settings come from flags, environment variables, one TOML file and defaults, in this order. The file is the one that
/// is named, else SWARM_CONFIG, else the first of swarm.toml, config/swarm.toml and /etc/swarm/swarm.toml. The command
/// connects to nothing.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Report every error with its line and its cure
    ///
    /// Exits with 1 if there is an error. Environment variables apply, as they do for the autoscaler. A setting that
    /// needs a part which this build lacks is an error.
    #[command(after_help = "Example: swarm config check config/swarm.toml")]
    Check(Source),
    /// Show the settings in force, as a TOML file
    ///
    /// A comment on each line that is not a default names its source: file and line, environment variable or flag.
    /// Passwords are masked.
    #[command(after_help = "Example: BROWSER_MAX_WORKERS=20 swarm config show")]
    Show(Source),
    /// Print the JSON Schema of the file, for completion and checks in editors
    #[command(
        after_help = "Example: swarm config schema > swarm.schema.json, then `#:schema ./swarm.schema.json` as the first \
                      line of swarm.toml"
    )]
    Schema,
}

/// Which configuration.
#[derive(Debug, Args)]
struct Source {
    /// Configuration file [default: see `swarm config --help`]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// The same, as an option
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Source {
    fn flags(&self) -> Flags {
        Flags { config: self.file.clone().or_else(|| self.config.clone()), ..Flags::default() }
    }

    fn load(&self) -> Result<Loaded, ConfigErrors> {
        config::load(&self.flags(), &config::process_environment)
    }
}

/// Runs `swarm config`.
pub fn run(args: &ConfigArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Check(source) => check(source),
        Command::Show(source) => show(source),
        Command::Schema => {
            output::json(&config::schema())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn check(source: &Source) -> anyhow::Result<ExitCode> {
    let loaded = match source.load().and_then(supported) {
        Ok(loaded) => loaded,
        Err(errors) => return report(&errors, source.json),
    };
    if source.json {
        let worker_types: Vec<_> = loaded.settings.worker_types.keys().collect();
        let errors: [(); 0] = [];
        output::json(&json!({
            "ok": true, "file": loaded.file, "worker_types": worker_types, "warnings": loaded.warnings, "errors": errors,
        }))?;
    } else {
        warn(&loaded)?;
        output::line(&summary(&loaded))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Refuses settings that an autoscaler of this build can't follow.
fn supported(loaded: Loaded) -> Result<Loaded, ConfigErrors> {
    let unsupported = unsupported_settings(&loaded.settings).into_iter();
    loaded.refuse(unsupported.map(|of| (of.path, of.missing.to_string())))?;
    Ok(loaded)
}

fn show(source: &Source) -> anyhow::Result<ExitCode> {
    let loaded = match source.load() {
        Ok(loaded) => loaded,
        Err(errors) => return report(&errors, source.json),
    };
    if source.json {
        let origins: BTreeMap<_, _> =
            loaded.origins.iter().map(|(setting, origin)| (setting, origin.to_string())).collect();
        output::json(&json!({
            "file": loaded.file,
            "settings": config::effective(&loaded.settings),
            "origins": origins,
            "warnings": loaded.warnings,
        }))?;
    } else {
        warn(&loaded)?;
        output::line(config::to_toml(&loaded).trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the errors: for people on standard error, for programs on standard output.
fn report(errors: &ConfigErrors, as_json: bool) -> anyhow::Result<ExitCode> {
    if as_json {
        output::json(&json!({ "ok": false, "errors": errors.iter().collect::<Vec<_>>() }))?;
    } else {
        output::error_line(&errors.to_string())?;
        let count = errors.iter().len();
        output::error_line(&format!("{count} error{} in the configuration", if count == 1 { "" } else { "s" }))?;
    }
    Ok(ExitCode::FAILURE)
}

fn warn(loaded: &Loaded) -> anyhow::Result<()> {
    for warning in &loaded.warnings {
        output::error_line(&format!("warning: {warning}"))?;
    }
    Ok(())
}

/// Returns `OK: config/swarm.toml`, then a line for each worker type.
fn summary(loaded: &Loaded) -> String {
    let source = loaded.file.as_ref().map_or_else(
        || format!("no file (looked for {}), built-in worker types", config::SEARCH_PATHS.join(", ")),
        |path| path.display().to_string(),
    );
    let orchestrator = loaded.settings.orchestrator.as_str();
    let types = loaded.settings.worker_types.iter().map(|(name, worker_type)| {
        let scaling = &worker_type.scaling;
        let off = if worker_type.enabled { "" } else { ", not enabled" };
        let (min, max, queue) = (scaling.min_workers, scaling.max_workers, worker_type.queue(name));
        format!("\n  {name}: {min} to {max} workers for {queue}{off}")
    });
    format!("OK: {source}, orchestrator {orchestrator}{}", types.collect::<String>())
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        config: ConfigArgs,
    }

    #[test]
    fn the_file_is_an_argument_or_a_flag() {
        Cli::command().debug_assert();
        for words in [["swarm", "check", "f.toml"], ["swarm", "show", "--config=f.toml"]] {
            let (Command::Check(source) | Command::Show(source)) = Cli::parse_from(words).config.command else {
                panic!("{words:?} is check or show");
            };
            assert_eq!(source.flags().config, Some(PathBuf::from("f.toml")), "{words:?}");
        }
    }

    #[test]
    fn the_summary_names_the_worker_types() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/config/swarm.toml");
        let flags = Flags { config: Some(file.into()), ..Flags::default() };
        let summary = summary(&config::load(&flags, &|_| None).unwrap());
        assert!(summary.ends_with(
            "config/swarm.toml, orchestrator process\n  browser: 1 to 10 workers for browser:jobs\n  tankpit: 0 to 50 \
             workers for tankpit:jobs"
        ), "{summary}");
    }
}
