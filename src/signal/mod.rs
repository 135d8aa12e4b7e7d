//! Signals that a queue may have changed: keyspace notifications, the `jobs:published` channel, client-side-caching
//! invalidations, the sweep, and backends. A signal names a queue or a worker type and no depth, so lost, doubled and
//! reordered signals are harmless. Must not read depths, and must not decide anything.

mod current;
mod directories;
mod directory;
mod dirty_queues;
mod discovered_queues;
mod flood_suppression;
mod heard_workers;
mod keyspace;
mod listener;
mod mailbox;
mod queue_finder;
mod source_status;
mod sweep;
mod watched_type;
mod worker_news;

pub use current::CurrentDirectory;
pub use directories::Directories;
pub use directory::Directory;
pub use dirty_queues::DirtyQueues;
pub use discovered_queues::{DiscoveredChanges, KeyEvent};
pub use keyspace::{needed_flags, wanted_flags};
pub use listener::{Listener, ListenerHandle, ListenerSettings, Subscriptions};
pub use mailbox::{Mailbox, Signals};
pub use queue_finder::QueueFinder;
pub use source_status::SourceStatus;
pub use sweep::{SweepMonitor, run_sweep};
pub use watched_type::{Several, WatchedType};
pub use worker_news::WorkerNews;
