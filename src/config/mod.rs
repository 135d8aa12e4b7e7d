//! Settings: their origins (defaults < file < environment < flags), their validation, and all their errors together.
//! Must not connect to anything.
//!
//! There is one tree of values. Each layer is applied to it, and the tree remembers the origin of each value, so that
//! every error and `swarm config show` can name the line, the variable or the flag. See
//! `docs/adr/0002-config-validation.md`.

mod broker;
mod browser;
#[cfg(feature = "autoscaler")]
mod change;
#[cfg(feature = "autoscaler")]
mod check;
mod command;
mod discord;
mod docker;
#[cfg(feature = "autoscaler")]
mod effective;
#[cfg(feature = "autoscaler")]
mod environment;
#[cfg(feature = "autoscaler")]
mod error;
#[cfg(feature = "autoscaler")]
mod file;
mod fly;
mod framework;
mod keda;
mod kubernetes;
#[cfg(feature = "autoscaler")]
mod load;
mod notify;
#[cfg(feature = "autoscaler")]
mod origin;
mod queue_server;
mod redact;
mod redis_url;
mod scaling;
mod schedule;
#[cfg(feature = "autoscaler")]
mod schema;
mod section;
mod settings;
#[cfg(feature = "autoscaler")]
mod source;
mod tankpit;
mod worker;
#[cfg(feature = "autoscaler")]
mod worker_variable;

pub use broker::{BrokerSettings, JobSettings};
pub use browser::{Allowed, BrowserIsolation, BrowserSettings, NoProxy, NotAllowed, Place, UpstreamProxy};
#[cfg(feature = "autoscaler")]
pub use change::{ChangedKey, Changes};
#[cfg(feature = "autoscaler")]
pub(crate) use command::placeholders;
pub use command::{CommandSettings, Removes, ServiceCall};
pub use discord::{DiscordSettings, OperatorPermission};
pub use docker::{DockerSettings, PullPolicy};
#[cfg(feature = "autoscaler")]
pub use effective::{effective, to_toml};
#[cfg(feature = "autoscaler")]
pub use environment::{Environment, Flags, process_environment};
#[cfg(feature = "autoscaler")]
pub use error::{ConfigError, ConfigErrors};
#[cfg(feature = "autoscaler")]
pub use file::SEARCH_PATHS;
pub use fly::{FlyGuest, FlySettings, FlyWorkerSettings};
pub use framework::{Acknowledge, CelerySettings};
pub use keda::KedaSettings;
pub use kubernetes::{KubernetesSettings, KubernetesTarget, TargetKind};
#[cfg(feature = "autoscaler")]
pub use load::{Loaded, load, load_text};
pub use notify::{AlertKind, NotifyFormat, NotifySettings, webhook_url_problem};
#[cfg(feature = "autoscaler")]
pub use origin::{Origin, Origins};
pub use queue_server::{QueueRedisUrl, QueueServer, WorkerRedisUrl};
pub use redis_url::{RedisUrl, RedisUrlError, SentinelUrl};
pub use scaling::{ScalingSettings, Strategy};
pub use schedule::{Meaning, Said, ScheduleWindow};
#[cfg(feature = "autoscaler")]
pub use schema::schema;
pub use section::{Defaults, Section};
pub use settings::*;
#[cfg(feature = "autoscaler")]
pub use source::{ConfigSource, FileWatch};
pub use tankpit::TankpitSettings;
pub use worker::{HandlerKind, IdleRule, WorkerSettings};
#[cfg(feature = "autoscaler")]
pub use worker_variable::WORKER_SETTINGS;
