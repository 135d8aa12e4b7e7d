//! The settings as the rest of the program sees them: typed, defaulted, validated. One struct per TOML table, and the
//! field docs are the reference: `swarm config schema` is generated from them.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{
    BrowserSettings, TankpitSettings,
    broker::{BrokerSettings, JobSettings},
    discord::DiscordSettings,
    docker::DockerSettings,
    fly::{FlySettings, FlyWorkerSettings},
    kubernetes::{KubernetesSettings, KubernetesTarget},
    scaling::ScalingSettings,
    section::Section,
    worker::{IdleRule, WorkerSettings},
};
pub use crate::queue_kind::QueueKind;
use crate::{
    model::{Combine, QueuePattern, Queues, keys},
    queue_kind::Idleness,
};

/// The whole file.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Redis to watch: `redis://` or `rediss://` (TLS), `user:password@`, `/N` for the database number. The primary
    /// that sentinels watch: `redis+sentinel://host:26379,host2:26379/NAME/0`. A cluster:
    /// `redis+cluster://host:7000,host2:7000`.
    #[serde(serialize_with = "redacted_url")]
    #[schemars(with = "String")]
    pub redis_url: SecretString,
    /// File that holds the Redis URL, for secrets mounted as files. Wins over `redis_url`.
    pub redis_url_file: Option<PathBuf>,
    /// Who runs the workers.
    pub orchestrator: Orchestrator,
    /// How the scaler evaluates.
    pub scaler: ScalerSettings,
    /// Where hints come from.
    pub signals: SignalSettings,
    /// The HTTP server for metrics, health and status.
    pub http: HttpSettings,
    /// The cluster, with `orchestrator = "kubernetes"`.
    pub kubernetes: KubernetesSettings,
    /// How to reach Fly.io with `orchestrator = "fly"`.
    pub fly: FlySettings,
    /// Jobs on their way.
    pub broker: BrokerSettings,
    /// The Discord bot.
    pub discord: DiscordSettings,
    /// The pools, by name.
    pub worker_types: BTreeMap<String, WorkerTypeSettings>,
}

/// Serializes a Redis URL with its password masked.
fn redacted_url<S: serde::Serializer>(url: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    use secrecy::ExposeSecret;
    serializer.serialize_str(&super::redact::masked_url(url.expose_secret()))
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            redis_url: SecretString::from("redis://localhost:6379/0"),
            redis_url_file: None,
            orchestrator: Orchestrator::default(),
            scaler: ScalerSettings::default(),
            signals: SignalSettings::default(),
            http: HttpSettings::default(),
            kubernetes: KubernetesSettings::default(),
            fly: FlySettings::default(),
            broker: BrokerSettings::default(),
            discord: DiscordSettings::default(),
            worker_types: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// The worker types that are not turned off, by name.
    pub fn enabled(&self) -> impl Iterator<Item = (&str, &WorkerTypeSettings)> {
        self.worker_types.iter().filter(|(_, of)| of.enabled).map(|(name, of)| (name.as_str(), of))
    }

    /// The object of the cluster by which autoscalers settle who leads; `None`: they settle it in Redis, or not at all.
    pub fn lease_object(&self) -> Option<&str> {
        let lease = self.kubernetes.lease.as_deref();
        lease.filter(|_| self.orchestrator == Orchestrator::Kubernetes && self.scaler.leader_lease_seconds > 0)
    }
}

/// Who runs the workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Orchestrator {
    /// Child processes of the scaler on this machine.
    #[default]
    Process,
    /// Containers through the Docker API.
    #[serde(alias = "docker-api", alias = "docker-compose")]
    Docker,
    /// A Deployment or StatefulSet.
    Kubernetes,
    /// Fly.io machines.
    Fly,
}

impl Orchestrator {
    /// The name in configuration and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Docker => "docker",
            Self::Kubernetes => "kubernetes",
            Self::Fly => "fly",
        }
    }
}

/// `[scaler]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ScalerSettings {
    /// After an evaluation, the shortest time to the next one of the same worker type, in milliseconds.
    #[schemars(range(max = 60_000))]
    pub debounce_ms: u64,
    /// Seconds between reconciliations of every queue.
    #[schemars(range(min = 1, max = 86_400))]
    pub sweep_interval_seconds: u64,
    /// Milliseconds after which a Redis reply counts as failed.
    #[schemars(range(min = 10, max = 60_000))]
    pub redis_timeout_ms: u64,
    /// Entries kept in `scaling:events`.
    #[schemars(range(min = 1))]
    pub events_max_len: u64,
    /// What happens to the workers when the scaler is stopped. Processes are always drained.
    pub on_shutdown: OnShutdown,
    /// Decide, log and show, never act.
    pub dry_run: bool,
    /// Seconds for which the autoscaler that leads holds its lease in Redis. If it dies, another one takes over when
    /// they have passed. 0: there is no other one, and no election.
    #[schemars(range(max = 3_600))]
    pub leader_lease_seconds: u64,
}

impl Default for ScalerSettings {
    fn default() -> Self {
        Self {
            debounce_ms: 50,
            sweep_interval_seconds: 30,
            redis_timeout_ms: 1_000,
            events_max_len: 1_000,
            on_shutdown: OnShutdown::default(),
            dry_run: false,
            leader_lease_seconds: 10,
        }
    }
}

impl ScalerSettings {
    /// `leader_lease_seconds` as a duration; `None` without an election.
    pub fn leader_lease(&self) -> Option<Duration> {
        (self.leader_lease_seconds > 0).then(|| Duration::from_secs(self.leader_lease_seconds))
    }

    /// `debounce_ms` as a duration.
    pub fn debounce(&self) -> Duration {
        Duration::from_millis(self.debounce_ms)
    }

    /// `sweep_interval_seconds` as a duration.
    pub fn sweep_interval(&self) -> Duration {
        Duration::from_secs(self.sweep_interval_seconds)
    }

    /// `redis_timeout_ms` as a duration.
    pub fn redis_timeout(&self) -> Duration {
        Duration::from_millis(self.redis_timeout_ms)
    }
}

/// What happens to the workers when the scaler is stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnShutdown {
    /// They go on; the next scaler takes them over.
    #[default]
    Leave,
    /// They finish their jobs and leave.
    Drain,
}

/// Whether a signal source is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Switch {
    /// If the server allows it, or nothing better is there.
    #[default]
    Auto,
    /// Always; a server that refuses is an error shown in `/readyz`.
    On,
    /// Never.
    Off,
}

/// `[signals]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SignalSettings {
    /// Keyspace notifications of the configured keys. `auto`: if the server's `notify-keyspace-events` allows it or may
    /// be extended.
    pub keyspace: Switch,
    /// Pub/sub channel whose messages name the key that was written. `""` turns it off.
    pub channel: String,
    /// Client-side-caching invalidations. `auto`: when keyspace notifications can't be had.
    pub tracking: Switch,
}

impl Default for SignalSettings {
    fn default() -> Self {
        Self { keyspace: Switch::Auto, channel: keys::PUBLISHED_CHANNEL.to_owned(), tracking: Switch::Auto }
    }
}

/// `[http]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSettings {
    /// Address and port to listen on; port 0 takes a free one. `""` turns the server off.
    pub listen: String,
    /// Whoever sends it (`Authorization: Bearer TOKEN`) may pause, resume and scale worker types over HTTP. At least 16
    /// characters. Default: nobody may.
    #[serde(serialize_with = "redacted")]
    #[schemars(with = "Option<String>")]
    pub token: Option<SecretString>,
    /// File that holds the token, for secrets mounted as files. Wins over `token`.
    pub token_file: Option<PathBuf>,
}

/// Serializes a secret as asterisks.
#[expect(clippy::ref_option, reason = "serde hands over the field")]
fn redacted<S: serde::Serializer>(secret: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    match secret {
        Some(_) => serializer.serialize_some(super::redact::MASK),
        None => serializer.serialize_none(),
    }
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self { listen: "127.0.0.1:9000".to_owned(), token: None, token_file: None }
    }
}

/// `[worker_types.NAME]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WorkerTypeSettings {
    /// Redis key of its queue. Default: `{type}:jobs`.
    pub job_queue: Option<String>,
    /// Further queues that the same workers serve, besides `job_queue`: keys, or patterns of keys in which `*` stands
    /// for anything (`"tenant-*:jobs"`).
    pub extra_queues: Vec<String>,
    /// With several queues: what the depth is that workers are scaled by.
    pub combine: Combine,
    /// Consumer group on its queues. Default: the type's name.
    pub group: Option<String>,
    /// What the key holds.
    pub kind: QueueKind,
    /// `false`: left alone entirely. Turned off while the scaler runs, workers that only it can run (`process`) are let
    /// go.
    pub enabled: bool,
    /// How many workers there should be.
    pub scaling: ScalingSettings,
    /// How to run it with `orchestrator = "process"`.
    pub process: ProcessSettings,
    /// What to scale with `orchestrator = "kubernetes"`.
    pub kubernetes: Section<KubernetesTarget>,
    /// How to run it with `orchestrator = "docker"`.
    pub docker: Section<DockerSettings>,
    /// How to run it with `orchestrator = "fly"`.
    pub fly: Section<FlyWorkerSettings>,
    /// How often its jobs are tried.
    pub jobs: Section<JobSettings>,
    /// How its own workers behave (`swarm worker`).
    pub worker: Section<WorkerSettings>,
    /// What its own workers do with `handler = "browser"`.
    pub browser: Section<BrowserSettings>,
    /// What its own workers do with `handler = "tankpit"`.
    pub tankpit: Section<TankpitSettings>,
}

impl Default for WorkerTypeSettings {
    fn default() -> Self {
        Self {
            job_queue: None,
            extra_queues: Vec::new(),
            combine: Combine::default(),
            group: None,
            kind: QueueKind::default(),
            enabled: true,
            scaling: ScalingSettings::default(),
            process: ProcessSettings::default(),
            kubernetes: Section::default(),
            docker: Section::default(),
            fly: Section::default(),
            jobs: Section::default(),
            worker: Section::default(),
            browser: Section::default(),
            tankpit: Section::default(),
        }
    }
}

impl WorkerTypeSettings {
    /// All of its queues. An extra one that is neither a name nor a pattern was refused when it was loaded.
    pub fn queues(&self, name: &str) -> Queues {
        let (patterns, others): (Vec<_>, Vec<_>) =
            self.extra_queues.iter().partition(|text| QueuePattern::is_pattern(text));
        Queues {
            own: self.queue(name),
            others: others.into_iter().cloned().collect(),
            patterns: patterns.into_iter().filter_map(|text| QueuePattern::parse(text).ok()).collect(),
        }
    }

    /// The key of its own queue.
    pub fn queue(&self, name: &str) -> String {
        self.job_queue.clone().unwrap_or_else(|| format!("{name}:jobs"))
    }

    /// Its consumer group.
    pub fn group(&self, name: &str) -> String {
        self.group.clone().unwrap_or_else(|| name.to_owned())
    }

    /// What shows that its workers are idle.
    pub fn idleness(&self) -> Idleness {
        match (self.worker.idle, self.worker.heartbeats) {
            (IdleRule::EmptyQueue, _) => Idleness::EmptyQueue,
            (IdleRule::Stated, true) => Idleness::Stated,
            (IdleRule::Stated, false) => Idleness::Unknown,
        }
    }

    /// The program and arguments of one worker process.
    pub fn command(&self, name: &str) -> Vec<String> {
        if self.process.command.is_empty() {
            ["swarm", "worker", "--type", name].map(str::to_owned).to_vec()
        } else {
            self.process.command.clone()
        }
    }
}

/// `[worker_types.NAME.process]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProcessSettings {
    /// Program and arguments of one worker. A first word `swarm` that names no path is this very binary. Gets
    /// `SWARM_WORKER_ID`, `SWARM_WORKER_TYPE` and `REDIS_URL` in its environment. Default: `swarm worker --type TYPE`.
    pub command: Vec<String>,
    /// More environment variables.
    pub environment: BTreeMap<String, String>,
    /// Working directory. Default: the scaler's.
    pub directory: Option<PathBuf>,
}
