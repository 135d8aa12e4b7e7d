//! Formats snapshots, times and events for people. Sends no request.

pub(crate) mod events;
pub(crate) mod fleet;
pub(crate) mod queues;
pub(crate) mod why;
pub(crate) mod words;
mod work;
