//! The backend of `orchestrator = "command"`, over a stand-in platform (`tests/testdata/command/platform`) and a fake
//! of a service.

pub(crate) mod bench;
mod by_number;
mod recipes;
mod service;
