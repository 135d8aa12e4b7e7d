//! How snapshots, times and events are put for people. Reads them, asks nobody.

pub(crate) mod events;
pub(crate) mod fleet;
pub(crate) mod queues;
pub(crate) mod why;
pub(crate) mod words;
