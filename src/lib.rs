//! `swarm` runs job workers where and when they are needed.

pub mod backend;
pub mod cli;
pub mod config;
pub mod http;
pub mod model;
pub mod telemetry;
