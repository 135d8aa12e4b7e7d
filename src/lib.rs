//! `swarm` runs job workers where and when they are needed.
//!
//! Data flows in one direction:
//!
//! ```text
//! keyspace | channel | tracking | sweep | backend changes      signal
//!     -> mailbox, one for each worker type                     signal
//!     -> one actor for each worker type                        scaler
//!          observe (queue probe + backend)                     probe, backend
//!          -> decide (pure)                                    policy
//!          -> act                                              backend
//!          -> record                                           scaler
//!     -> snapshot                                              model
//!     -> http, cli, metrics
//! ```
//!
//! A signal is a hint and state is the truth: nothing but a probe ever says how much work there is.

pub mod app;
pub mod backend;
pub mod broker;
#[cfg(feature = "cli")]
pub mod cli;
pub mod config;
pub mod connection;
#[cfg(feature = "discord")]
pub mod discord;
#[cfg(feature = "cli")]
pub mod doctor;
pub mod egress;
pub mod guard;
pub mod http;
pub mod model;
#[cfg(feature = "cli")]
pub mod operations;
#[cfg(feature = "simulate")]
pub mod plot;
pub mod policy;
pub mod probe;
pub mod scaler;
pub mod signal;
#[cfg(feature = "simulate")]
pub mod simulation;
pub mod telemetry;
pub mod worker;
