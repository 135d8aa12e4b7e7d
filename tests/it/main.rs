//! Integration tests: real processes, real servers, the real binary.

mod process_backend;
mod signals;
mod support;
