//! Settings: where they come from (defaults < file < environment < flags), what they may be, and what is wrong with
//! them, all of it at once. Must not connect to anything.

mod settings;

pub use settings::*;
