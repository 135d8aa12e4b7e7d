//! What the commands that show things have in common: how snapshots, times and events are put for people. Reads snapshots,
//! asks nobody.

pub(super) mod events;
pub(super) mod fleet;
pub(super) mod screen;
pub(super) mod words;
