//! The subcommands, one file each.

pub mod process_guard;
pub mod process_start;
