//! Tells Redis how jobs ended.

mod completer;

pub(super) use completer::{CompletedJob, Completer, Completion};
