//! The command line: one file per subcommand, and what several of them share. Sees handles and snapshots only.

pub mod status_client;
