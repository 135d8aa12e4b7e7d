//! Integration tests against real servers; one binary, so that it links once.

#![allow(clippy::unwrap_used, reason = "in a test an error is a failure")]

mod broker;
mod support;
