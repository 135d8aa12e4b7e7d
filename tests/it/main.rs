//! Integration tests: real processes, real servers, the real binary. One test binary, so that it links once.
#![expect(clippy::unwrap_used, reason = "a test that can't go on should panic where it stands")]

mod broker;
mod broker_calls;
mod broker_delays;
mod broker_jobs;
mod browser;
mod browser_faults;
mod bursts;
mod cli;
mod cluster;
mod compose;
mod conformance;
mod control;
mod dead_letters;
mod demo;
mod docker;
mod fake_fly;
mod fake_kubernetes;
mod fly;
mod kubernetes;
mod leadership;
mod lifecycle;
mod logs;
mod monitoring;
mod no_loss;
mod outages;
mod process_backend;
mod protocol_page;
mod record;
mod scale_in;
mod sentinel;
mod servers;
mod sessions;
mod signals;
mod simulate;
mod streams;
mod support;
mod tankpit;
mod tls;
#[cfg(feature = "otlp")]
mod traces;
mod views;
mod why;
mod worker;
