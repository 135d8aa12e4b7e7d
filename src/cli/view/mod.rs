//! The common part of commands that show things: the words of `operations`, and the screen.

pub(super) mod screen;

pub(super) use crate::operations::view::{events, fleet, queues, why, words};
