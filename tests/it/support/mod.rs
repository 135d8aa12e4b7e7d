//! What the integration tests share: real servers, the real binary, and waiting for conditions.

pub(crate) mod autoscaler;
pub(crate) mod command;
pub(crate) mod redis;
pub(crate) mod wait;
