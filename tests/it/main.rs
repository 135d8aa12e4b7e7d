//! Integration tests against real servers; one binary, so that it links once.

mod broker;
mod support;
