//! Settings: where they come from (defaults < file < environment < flags), what they may be, and what is wrong with
//! them, all of it at once. Must not connect to anything.
//!
//! There is one tree of values. Each layer is laid over it, and for each value the tree remembers where it was said, so
//! that every error and `swarm config show` can name the line, the variable or the flag. See
//! `docs/adr/0002-config-validation.md`.

mod broker;
mod browser;
mod change;
mod check;
mod discord;
mod docker;
mod effective;
mod environment;
mod error;
mod file;
mod fly;
mod kubernetes;
mod load;
mod origin;
mod redact;
mod redis_url;
mod scaling;
mod schedule;
mod schema;
mod section;
mod settings;
mod source;
mod tankpit;
mod worker;

pub use broker::{BrokerSettings, JobSettings};
pub use browser::{Allowed, BrowserSettings, NoProxy, NotAllowed, Place, UpstreamProxy};
pub use change::{ChangedKey, Changes};
pub use discord::{DiscordSettings, OperatorPermission};
pub use docker::{DockerSettings, PullPolicy};
pub use effective::{effective, to_toml};
pub use environment::{Environment, Flags, process_environment};
pub use error::{ConfigError, ConfigErrors};
pub use file::SEARCH_PATHS;
pub use fly::{FlyGuest, FlySettings, FlyWorkerSettings};
pub use kubernetes::{KubernetesSettings, KubernetesTarget, TargetKind};
pub use load::{Loaded, load};
pub use origin::{Origin, Origins};
pub use redis_url::{RedisUrl, SentinelUrl};
pub use scaling::{ScalingSettings, Strategy};
pub use schedule::{Meaning, Said, ScheduleWindow};
pub use schema::schema;
pub use section::{Defaults, Section};
pub use settings::*;
pub use source::{ConfigSource, FileWatch};
pub use tankpit::TankpitSettings;
pub use worker::{HandlerKind, WorkerSettings};
