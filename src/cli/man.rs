//! `swarm man`: writes the manual pages, generated from the same texts as `--help`.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Args, CommandFactory};

use super::{Cli, output};

/// Write the manual pages, one per command
///
/// Every page has the text of the command's `--help`.
#[derive(Debug, Args)]
#[command(after_help = "Example: swarm man ~/.local/share/man/man1, then `man swarm-autoscaler`")]
pub struct ManArgs {
    /// Directory for the pages; created if it does not exist
    directory: PathBuf,
}

/// Runs `swarm man`.
///
/// # Errors
/// If the directory can't be created or written to.
pub fn run(args: &ManArgs) -> anyhow::Result<ExitCode> {
    let ManArgs { directory } = args;
    let cannot = || format!("the manual pages can't be written to {}", directory.display());
    fs::create_dir_all(directory).with_context(cannot)?;
    clap_mangen::generate_to(Cli::command(), directory).with_context(cannot)?;
    output::line(&format!("the manual pages are in {}", directory.display()))?;
    Ok(ExitCode::SUCCESS)
}
