//! Integration tests: real processes, real servers, the real binary. One test binary, so that it links once.
#![expect(clippy::unwrap_used, reason = "a test that can't go on should panic where it stands")]

mod broker;
mod bursts;
mod cli;
mod demo;
mod lifecycle;
mod outages;
mod process_backend;
mod scale_in;
mod servers;
mod signals;
mod streams;
mod support;
mod tls;
mod views;
