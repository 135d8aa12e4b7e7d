//! Integration tests: real processes, real servers, the real binary. One test binary, so that it links once.
#![expect(clippy::unwrap_used, reason = "a test that can't go on should panic where it stands")]
#![allow(clippy::unwrap_used, reason = "in a test an error is a failure")]

mod broker;
mod process_backend;
mod servers;
mod signals;
mod support;
