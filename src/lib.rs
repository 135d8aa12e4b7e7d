//! `swarm` runs job workers where and when they are needed.

pub mod backend;
pub mod config;
pub mod model;
pub mod policy;
