//! The backend of `orchestrator = "command"`, over a stand-in platform (`tests/testdata/command/platform`).

pub(crate) mod bench;
mod by_number;
mod recipes;
