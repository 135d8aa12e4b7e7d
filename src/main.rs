//! The `swarm` program: parses the command line, runs the command, and turns the outcome into an exit code.

use std::process::ExitCode;

use clap::Parser;
use swarm::cli::{self, Cli, output};

fn main() -> ExitCode {
    match cli::run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            // Nothing can be done about a standard error that is gone.
            let _ = output::error_line(&format!("swarm: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
