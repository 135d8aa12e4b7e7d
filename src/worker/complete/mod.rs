//! Completes jobs in Redis.

mod completer;

pub(super) use completer::{CompletedJob, Completer, Completion};
