//! Settings: where they come from (defaults < file < environment < flags), what they may be, and what is wrong with
//! them, all of it at once. Must not connect to anything.
//!
//! There is one tree of values. Each layer is laid over it, and for each value the tree remembers where it was said, so
//! that every error and `swarm config show` can name the line, the variable or the flag. See
//! `docs/adr/0002-config-validation.md`.

mod check;
mod effective;
mod environment;
mod error;
mod file;
mod load;
mod origin;
mod redact;
mod schema;
mod settings;

pub use effective::{effective, to_toml};
pub use environment::{Environment, Flags, process_environment};
pub use error::{ConfigError, ConfigErrors};
pub use file::SEARCH_PATHS;
pub use load::{Loaded, load};
pub use origin::{Origin, Origins};
pub use schema::schema;
pub use settings::*;
