//! The `swarm` program: parses the command line and hands over to a subcommand.

use std::process::ExitCode;

use clap::Parser;
use swarm::cli::{process_guard::ProcessGuard, process_start::ProcessStart};

#[derive(Parser)]
#[command(version, about)]
enum Cli {
    ProcessGuard(ProcessGuard),
    ProcessStart(ProcessStart),
}

fn main() -> ExitCode {
    match Cli::parse() {
        Cli::ProcessGuard(guard) => guard.run(),
        Cli::ProcessStart(start) => start.run(),
    }
}
