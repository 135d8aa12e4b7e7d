//! The command line: one file per subcommand, parsed and run.

pub mod config;
pub mod output;
