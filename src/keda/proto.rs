//! The messages and the service of `proto/externalscaler.proto`, as generated code.
#![expect(unreachable_pub, clippy::pedantic, reason = "the file is generated, and a test compares it with its source")]

include!("proto/externalscaler.rs");
