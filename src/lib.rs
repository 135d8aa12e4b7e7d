//! `swarm` runs job workers where and when they are needed: producers put jobs on Redis streams, an autoscaler keeps as
//! many workers as the streams need, workers run the jobs and answer. Most people use the program of the same name;
//! this crate is for programs that publish jobs, run them with handlers of their own, or embed the autoscaler.
//!
//! # A worker with a handler
//!
//! A [`Handler`] gets a [`Job`] and answers a JSON value or a [`JobError`]. A [`Worker`] takes jobs from the queue of
//! its type, runs them, retries them, and writes heartbeats, by which an autoscaler anywhere sees it.
//!
//! ```no_run
//! use std::sync::Arc;
//! use swarm::{CancellationToken, Handler, Job, JobError, Worker, WorkerConfig, async_trait};
//!
//! struct Double;
//!
//! #[async_trait]
//! impl Handler for Double {
//!     async fn handle(&self, _method: &str, job: &Job) -> Result<serde_json::Value, JobError> {
//!         let number = job.args.first().and_then(serde_json::Value::as_i64);
//!         let number = number.ok_or_else(|| JobError::arguments(job, "expects an integer"))?;
//!         Ok((2 * number).into())
//!     }
//! }
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let worker = Worker::open("redis://localhost:6379/0", WorkerConfig::builder("math").concurrency(8).build()?)?;
//! worker.run(Arc::new(Double), CancellationToken::new()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! A handler may report how far a job is: [`JobContext::progress`].
//!
//! # A producer
//!
//! ```no_run
//! use std::time::Duration;
//! use swarm::{Client, Job};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::open("redis://localhost:6379/0", &["math"])?;
//! let job = Job::new("math.double", vec![21.into()], Default::default());
//! assert_eq!(client.call(job, Duration::from_secs(30)).await?, 42);
//! # Ok(())
//! # }
//! ```
//!
//! # An autoscaler
//!
//! With the feature `autoscaler`, `Autoscaler` runs inside the program, from the settings of `swarm.toml`. The
//! directory `examples/` has a complete program for each of the three.
//!
//! # Features
//!
//! All are on by default. With `default-features = false`, producers and workers with handlers of their own remain.
//!
//! | feature | adds |
//! |---|---|
//! | `autoscaler` | the autoscaler with the process backend, its HTTP server, the configuration file |
//! | `docker`, `kubernetes`, `fly` | the backends of these names |
//! | `browser`, `tankpit` | the built-in handlers of these names |
//! | `otlp` | traces to an OpenTelemetry collector |
//! | `cli` | the program `swarm` |
//! | `keda` | `orchestrator = "keda"`, the external scaler |
//! | `notify` | `[[notify]]`, alerts to webhooks |
//! | `discord` | `swarm discord`, the bot |
//! | `simulate` | `swarm simulate` and `swarm record` |
//!
//! A setting that needs a part which a build lacks is an error that names the feature.
//!
//! # Stability
//!
//! What this page lists is the crate's interface. The modules are public for the program and its tests only, and may
//! change in any release.
// The flow of data, for those who read the source; docs/architecture.md has the whole:
//
//     keyspace | channel | tracking | sweep | backend changes      signal
//         -> mailbox, one for each worker type                     signal
//         -> one actor for each worker type                        scaler
//              observe (queue probe + backend)                     probe, backend
//              -> decide (pure)                                    policy
//              -> act                                              backend
//              -> record                                           scaler
//         -> snapshot                                              model
//         -> http, cli, metrics
//
// A signal is a hint and state is the truth: only a probe says how much work there is.

#[doc(hidden)]
#[cfg(feature = "autoscaler")]
pub mod app;
#[doc(hidden)]
#[cfg(feature = "autoscaler")]
pub mod backend;
#[doc(hidden)]
pub mod broker;
mod child_group;
#[doc(hidden)]
#[cfg(feature = "cli")]
pub mod cli;
#[doc(hidden)]
#[cfg_attr(not(feature = "autoscaler"), expect(dead_code, reason = "only the autoscaler reads a configuration file"))]
pub mod config;
#[doc(hidden)]
pub mod connection;
#[doc(hidden)]
#[cfg(feature = "discord")]
pub mod discord;
#[doc(hidden)]
#[cfg(feature = "cli")]
pub mod doctor;
#[doc(hidden)]
pub mod egress;
#[doc(hidden)]
#[cfg(feature = "autoscaler")]
pub mod evidence;
#[doc(hidden)]
#[cfg(any(feature = "autoscaler", feature = "browser"))]
pub mod guard;
#[doc(hidden)]
#[cfg(feature = "autoscaler")]
pub mod http;
#[doc(hidden)]
#[cfg(feature = "keda")]
pub mod keda;
#[doc(hidden)]
pub mod model;
#[doc(hidden)]
#[cfg(feature = "notify")]
pub mod notify;
#[doc(hidden)]
#[cfg(feature = "cli")]
pub mod operations;
#[doc(hidden)]
#[cfg(feature = "simulate")]
pub mod plot;
#[doc(hidden)]
#[cfg(feature = "autoscaler")]
pub mod policy;
#[doc(hidden)]
#[cfg(feature = "autoscaler")]
pub mod probe;
#[doc(hidden)]
pub mod queue_kind;
#[doc(hidden)]
#[cfg(feature = "autoscaler")]
pub mod scaler;
#[doc(hidden)]
#[cfg(feature = "autoscaler")]
pub mod signal;
#[doc(hidden)]
#[cfg(feature = "simulate")]
pub mod simulation;
#[doc(hidden)]
#[cfg(feature = "simulate")]
pub mod suggestion;
#[doc(hidden)]
#[cfg_attr(not(feature = "autoscaler"), expect(dead_code, reason = "only the autoscaler has a recorder of metrics"))]
pub mod telemetry;
#[doc(hidden)]
pub mod worker;

pub use async_trait::async_trait;
pub use tokio_util::sync::CancellationToken;

#[cfg(feature = "autoscaler")]
pub use app::{Autoscaler, AutoscalerConfig, AutoscalerConfigError, AutoscalerError};
pub use broker::{Call, CallError, Client, Job, PublishError, Published};
pub use connection::ConnectionError;
#[cfg(any(feature = "autoscaler", feature = "browser"))]
pub use guard::run_as_helper;
pub use worker::{
    Handler, JobContext, JobError, Progress, ReportedProgress, SessionError, Sessions, Worker, WorkerConfig,
    WorkerConfigBuilder, WorkerConfigError, WorkerError, WorkerReport,
};
