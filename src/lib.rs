//! `swarm` runs job workers where and when they are needed.

pub mod backend;
pub mod broker;
pub mod cli;
pub mod config;
pub mod connection;
pub mod model;
pub mod worker;
