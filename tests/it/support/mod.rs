//! Shared by the integration tests: real servers, the real binary, and waits for conditions.

pub(crate) mod autoscaler;
pub(crate) mod browser;
pub(crate) mod client;
pub(crate) mod cluster;
pub(crate) mod command;
pub(crate) mod compose;
pub(crate) mod docker;
pub(crate) mod docker_proxy;
pub(crate) mod engine_calls;
pub(crate) mod gate;
pub(crate) mod http;
pub(crate) mod link;
pub(crate) mod log;
pub(crate) mod needs;
pub(crate) mod pages;
pub(crate) mod processes;
pub(crate) mod prometheus;
pub(crate) mod recorder;
pub(crate) mod redis;
pub(crate) mod sentinel;
pub(crate) mod tab;
pub(crate) mod wait;
pub(crate) mod worker;
pub(crate) mod worker_process;
