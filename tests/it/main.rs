//! Integration tests: real processes, real servers, the real binary. One test binary, so that it links once.

mod broker;
mod demo;
mod process_backend;
mod support;
