//! The `swarm` program: parses the command line, runs the command, and turns the outcome into an exit code.

use std::process::ExitCode;

use clap::Parser;
use swarm::{
    cli::{self, Cli, output},
    guard::run_as_helper,
};

fn main() -> ExitCode {
    // Holds up every worker's start: no command line, no runtime, no configuration before it.
    if let Some(code) = run_as_helper() {
        return code;
    }
    match cli::run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            // Nothing can be done about a standard error that is gone.
            let _ = output::error_line(&format!("swarm: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
