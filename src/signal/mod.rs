//! Hints that a queue is worth a look, from wherever they come: keyspace notifications, the `jobs:published` channel,
//! client-side-caching invalidations, the sweep, and backends. A hint names a worker type and nothing more, so lost,
//! doubled and reordered hints are harmless. Must not read depths, and must not decide anything.

mod board;
mod current;
mod directory;
mod finder;
mod found;
mod keyspace;
mod listener;
mod mailbox;
mod muting;
mod sweep;

pub use board::SourceBoard;
pub use current::CurrentDirectory;
pub use directory::{Directory, Several, Watched};
pub use finder::Finder;
pub use found::{FoundQueues, Sighting};
pub use keyspace::wanted_flags;
pub use listener::{Listener, ListenerHandle, ListenerSettings, Subscriptions};
pub use mailbox::{Mailbox, Signals};
pub use sweep::{SweepMonitor, run_sweep};
