//! What the integration tests share: real servers and waiting for conditions.

pub(crate) mod redis;
pub(crate) mod wait;
