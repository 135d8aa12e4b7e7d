//! The commands, one file each. Parses and prints; the work is done elsewhere.

pub mod output;
pub mod publish;
pub mod worker;
