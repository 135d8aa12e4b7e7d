//! The settings as the rest of the program sees them: typed, defaulted, validated. One struct per TOML table. The field
//! docs are the reference: `swarm config schema` is generated from them.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{
    BrowserSettings, TankpitSettings,
    broker::{BrokerSettings, JobSettings},
    command::CommandSettings,
    discord::DiscordSettings,
    docker::DockerSettings,
    fly::{FlySettings, FlyWorkerSettings},
    framework::CelerySettings,
    keda::KedaSettings,
    kubernetes::{KubernetesSettings, KubernetesTarget, TargetKind},
    notify::NotifySettings,
    queue_server::QueueRedisUrl,
    scaling::ScalingSettings,
    section::Section,
    worker::{IdleRule, WorkerSettings},
};
pub use crate::queue_kind::QueueKind;
use crate::{
    model::{Combine, QueuePattern, Queues, StopSignal, keys},
    queue_kind::{Framework, Idleness},
};

/// The whole file.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The Redis server to watch: `redis://` or `rediss://` (TLS), `user:password@`, `/N` or `?db=N` for the database
    /// number. A primary behind sentinels: `redis+sentinel://host:26379,host2:26379/NAME/0`. A cluster:
    /// `redis+cluster://host:7000,host2:7000`.
    #[serde(serialize_with = "redacted_url")]
    #[schemars(with = "String")]
    pub redis_url: SecretString,
    /// File that contains the Redis URL, for secrets mounted as files. Overrides `redis_url`.
    pub redis_url_file: Option<PathBuf>,
    /// The Redis server for workers that the autoscaler starts as processes or containers, with a user of their own.
    /// Default: `redis_url`.
    #[serde(serialize_with = "redacted_optional_url")]
    #[schemars(with = "Option<String>")]
    pub worker_redis_url: Option<SecretString>,
    /// File that contains it. Overrides `worker_redis_url`.
    pub worker_redis_url_file: Option<PathBuf>,
    /// What runs the workers.
    pub orchestrator: Orchestrator,
    /// How the scaler evaluates.
    pub scaler: ScalerSettings,
    /// Which signals trigger evaluations.
    pub signals: SignalSettings,
    /// The HTTP server for metrics, health and status.
    pub http: HttpSettings,
    /// The cluster, with `orchestrator = "kubernetes"`.
    pub kubernetes: KubernetesSettings,
    /// How to reach Fly.io with `orchestrator = "fly"`.
    pub fly: FlySettings,
    /// The gRPC server that KEDA asks, with `orchestrator = "keda"`.
    pub keda: KedaSettings,
    /// Limits and lifetimes of jobs and results.
    pub broker: BrokerSettings,
    /// The Discord bot.
    pub discord: DiscordSettings,
    /// Webhooks that get alerts.
    pub notify: Vec<NotifySettings>,
    /// The worker types, by name.
    pub worker_types: BTreeMap<String, WorkerTypeSettings>,
}

/// Serializes a Redis URL with its password masked.
fn redacted_url<S: serde::Serializer>(url: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    use secrecy::ExposeSecret;
    serializer.serialize_str(&super::redact::masked_url(url.expose_secret()))
}

/// The same for a URL that may be missing.
#[expect(clippy::ref_option, reason = "serde hands over the field")]
fn redacted_optional_url<S: serde::Serializer>(url: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    match url {
        Some(url) => redacted_url(url, serializer),
        None => serializer.serialize_none(),
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            redis_url: SecretString::from("redis://localhost:6379/0"),
            redis_url_file: None,
            worker_redis_url: None,
            worker_redis_url_file: None,
            orchestrator: Orchestrator::default(),
            scaler: ScalerSettings::default(),
            signals: SignalSettings::default(),
            http: HttpSettings::default(),
            kubernetes: KubernetesSettings::default(),
            fly: FlySettings::default(),
            keda: KedaSettings::default(),
            broker: BrokerSettings::default(),
            discord: DiscordSettings::default(),
            notify: Vec::new(),
            worker_types: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// Returns the enabled worker types, by name.
    pub fn enabled(&self) -> impl Iterator<Item = (&str, &WorkerTypeSettings)> {
        self.worker_types.iter().filter(|(_, of)| of.enabled).map(|(name, of)| (name.as_str(), of))
    }

    /// Returns the Redis URL that workers get: processes and containers that the autoscaler starts.
    pub fn redis_url_of_workers(&self) -> &SecretString {
        self.worker_redis_url.as_ref().unwrap_or(&self.redis_url)
    }

    /// Returns the Kubernetes Lease that decides which autoscaler leads; `None` if Redis decides, or without an
    /// election.
    pub fn lease_object(&self) -> Option<&str> {
        let lease = self.kubernetes.lease.as_deref();
        lease.filter(|_| self.orchestrator == Orchestrator::Kubernetes && self.scaler.leader_lease_seconds > 0)
    }
}

/// What runs the workers.
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
    /// Any platform, through commands that list, start and stop workers.
    Command,
    /// KEDA, which asks swarm how many workers there should be.
    Keda,
}

impl Orchestrator {
    /// Returns the name in configuration and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Docker => "docker",
            Self::Kubernetes => "kubernetes",
            Self::Fly => "fly",
            Self::Command => "command",
            Self::Keda => "keda",
        }
    }
}

/// `[scaler]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ScalerSettings {
    /// Minimum milliseconds between two evaluations of the same worker type.
    #[schemars(range(max = 60_000))]
    pub debounce_ms: u64,
    /// Seconds between reconciliations of every queue.
    #[schemars(range(min = 1, max = 86_400))]
    pub sweep_interval_seconds: u64,
    /// Milliseconds to wait for a reply from Redis.
    #[schemars(range(min = 10, max = 60_000))]
    pub redis_timeout_ms: u64,
    /// Budget: maximum workers of all worker types together, those that leave included. It starts nobody beyond that,
    /// and stops no busy worker. Default: unlimited.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_total_workers: Option<u32>,
    /// Maximum entries kept in `scaling:events`.
    #[schemars(range(min = 1))]
    pub events_max_len: u64,
    /// What happens to the workers when the autoscaler stops. Processes are always drained.
    pub on_shutdown: OnShutdown,
    /// Makes and shows decisions, and never changes anything.
    pub dry_run: bool,
    /// Seconds for which the leading autoscaler holds its lease. If it dies, another autoscaler takes over after this
    /// time. 0: no election, for a single autoscaler.
    #[schemars(range(max = 3_600))]
    pub leader_lease_seconds: u64,
}

impl Default for ScalerSettings {
    fn default() -> Self {
        Self {
            debounce_ms: 50,
            sweep_interval_seconds: 30,
            redis_timeout_ms: 1_000,
            max_total_workers: None,
            events_max_len: 1_000,
            on_shutdown: OnShutdown::default(),
            dry_run: false,
            leader_lease_seconds: 10,
        }
    }
}

impl ScalerSettings {
    /// Returns `leader_lease_seconds` as a duration; `None` without an election.
    pub fn leader_lease(&self) -> Option<Duration> {
        (self.leader_lease_seconds > 0).then(|| Duration::from_secs(self.leader_lease_seconds))
    }

    /// Returns `debounce_ms` as a duration.
    pub fn debounce(&self) -> Duration {
        Duration::from_millis(self.debounce_ms)
    }

    /// Returns `sweep_interval_seconds` as a duration.
    pub fn sweep_interval(&self) -> Duration {
        Duration::from_secs(self.sweep_interval_seconds)
    }

    /// Returns `redis_timeout_ms` as a duration.
    pub fn redis_timeout(&self) -> Duration {
        Duration::from_millis(self.redis_timeout_ms)
    }
}

/// What happens to the workers when the autoscaler stops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnShutdown {
    /// They continue; the next autoscaler adopts them.
    #[default]
    Leave,
    /// They finish their jobs and exit.
    Drain,
}

/// Whether a signal source is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Switch {
    /// If the server allows it and no better source is available.
    #[default]
    Auto,
    /// Always; `/readyz` reports an error if the server refuses.
    On,
    /// Never.
    Off,
}

/// `[signals]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SignalSettings {
    /// Keyspace notifications of the configured keys. `auto`: if `notify-keyspace-events` on the server allows them or
    /// can be extended.
    pub keyspace: Switch,
    /// Pub/sub channel on which publishers name the key that they wrote. `""` turns it off.
    pub channel: String,
    /// Client-side-caching invalidations. `auto`: if keyspace notifications are unavailable.
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
    /// Address and port to listen on; port 0 picks a free port. `""` turns the server off.
    pub listen: String,
    /// Token that permits pausing, resuming and scaling worker types over HTTP (`Authorization: Bearer TOKEN`). At
    /// least 16 characters. Default: these requests are refused.
    #[serde(serialize_with = "super::redact::masked")]
    #[schemars(with = "Option<String>")]
    pub token: Option<SecretString>,
    /// File that contains the token, for secrets mounted as files. Overrides `token`.
    pub token_file: Option<PathBuf>,
    /// Token that reading requires (`Authorization: Bearer TOKEN`), except `/healthz`, `/readyz` and the files of the
    /// page. At least 16 characters, different from `token`. Default: reading requires no token.
    #[serde(serialize_with = "super::redact::masked")]
    #[schemars(with = "Option<String>")]
    pub read_token: Option<SecretString>,
    /// File that contains the read token. Overrides `read_token`.
    pub read_token_file: Option<PathBuf>,
    /// Names under which clients may address the server, besides IP addresses and `localhost`: `"autoscaler"`,
    /// `"*.example.com"`, or `"*"` for any name. `/healthz` and `/readyz` answer under any name.
    pub hosts: Vec<String>,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:9000".to_owned(),
            token: None,
            token_file: None,
            read_token: None,
            read_token_file: None,
            hosts: Vec::new(),
        }
    }
}

/// `[worker_types.NAME]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WorkerTypeSettings {
    /// Redis key of the queue. Default: `{type}:jobs`.
    pub job_queue: Option<String>,
    /// More queues for the same workers, besides `job_queue`: keys, or patterns in which `*` matches anything
    /// (`"tenant-*:jobs"`).
    pub extra_queues: Vec<String>,
    /// With several queues: how their depths combine to the depth that workers are scaled by.
    pub combine: Combine,
    /// Consumer group on the queues. Default: the type's name.
    pub group: Option<String>,
    /// What the key contains.
    pub kind: QueueKind,
    /// The job framework whose workers these are, instead of `kind`: swarm then reads the framework's own queues, named
    /// in `queues`.
    pub framework: Option<Framework>,
    /// With `framework`: names of the queues that the workers serve, as the framework has them. Default: the one that
    /// the framework uses by itself.
    pub queues: Vec<String>,
    /// With `framework`: what it puts before its keys. Default: what the framework does without a setting of its own.
    pub key_prefix: Option<String>,
    /// With `framework` or `kind = "list"`: the Redis server and database that have its queues, in any form of the
    /// top-level `redis_url`. swarm's own keys stay on the top-level server. Workers that the autoscaler starts get
    /// this URL as `REDIS_URL`. Default: the top-level `redis_url`.
    #[schemars(with = "Option<String>")]
    pub redis_url: Option<QueueRedisUrl>,
    /// File that contains this URL. Overrides `redis_url` of the worker type.
    pub redis_url_file: Option<PathBuf>,
    /// With a framework that does not show which jobs run (`huey`, `taskiq`): upper bound of the time of a job, in
    /// seconds. The workers count as idle when the queues have not changed for longer. Default: unknown, and no worker
    /// is let go.
    #[schemars(range(min = 1))]
    pub longest_job_seconds: Option<u64>,
    /// Settings of `framework = "celery"`.
    pub celery: CelerySettings,
    /// Signal that asks a worker to finish its jobs and leave, with `orchestrator = "process"`, `"docker"` or `"fly"`.
    /// Default: the framework's, else `SIGTERM`; with `docker`, the image's own comes before that. Workers of Sidekiq
    /// and asynq get `SIGTSTP` first, unless this is set.
    pub stop_signal: Option<StopSignal>,
    /// Whether a worker that outstays `drain_timeout_seconds` is killed, with `orchestrator = "process"` or `"docker"`.
    /// Default: `false` with `framework`, because nothing of swarm runs its jobs again; else `true`.
    pub hard_kill: Option<bool>,
    /// `false`: the autoscaler ignores this worker type. If it is turned off while the autoscaler runs, `process`
    /// workers are drained.
    pub enabled: bool,
    /// How many workers to run.
    pub scaling: ScalingSettings,
    /// How to run workers with `orchestrator = "process"`.
    pub process: ProcessSettings,
    /// What to scale with `orchestrator = "kubernetes"`.
    pub kubernetes: Section<KubernetesTarget>,
    /// How to run workers with `orchestrator = "docker"`.
    pub docker: Section<DockerSettings>,
    /// How to run workers with `orchestrator = "fly"`.
    pub fly: Section<FlyWorkerSettings>,
    /// The commands that run workers with `orchestrator = "command"`.
    pub command: Section<CommandSettings>,
    /// Attempts and retries of jobs.
    pub jobs: Section<JobSettings>,
    /// How the workers behave (`swarm worker`).
    pub worker: Section<WorkerSettings>,
    /// Settings of `handler = "browser"`.
    pub browser: Section<BrowserSettings>,
    /// Settings of `handler = "tankpit"`.
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
            framework: None,
            queues: Vec::new(),
            key_prefix: None,
            redis_url: None,
            redis_url_file: None,
            longest_job_seconds: None,
            celery: CelerySettings::default(),
            stop_signal: None,
            hard_kill: None,
            enabled: true,
            scaling: ScalingSettings::default(),
            process: ProcessSettings::default(),
            kubernetes: Section::default(),
            docker: Section::default(),
            fly: Section::default(),
            command: Section::default(),
            jobs: Section::default(),
            worker: Section::default(),
            browser: Section::default(),
            tankpit: Section::default(),
        }
    }
}

impl WorkerTypeSettings {
    /// Returns all queues of worker type `name`. Loading has refused extra queues that are neither a name nor a
    /// pattern.
    pub fn queues(&self, name: &str) -> Queues {
        if let Some(spec) = self.framework_spec() {
            let mut keys = spec.keys();
            return Queues { own: keys.next().unwrap_or_default(), others: keys.collect(), patterns: Vec::new() };
        }
        let (patterns, others): (Vec<_>, Vec<_>) =
            self.extra_queues.iter().partition(|text| QueuePattern::is_pattern(text));
        Queues {
            own: self.queue(name),
            others: others.into_iter().cloned().collect(),
            patterns: patterns.into_iter().filter_map(|text| QueuePattern::parse(text).ok()).collect(),
        }
    }

    /// Returns the key of the own queue of worker type `name`.
    pub fn queue(&self, name: &str) -> String {
        if let Some(spec) = self.framework_spec() {
            return spec.keys().next().unwrap_or_default();
        }
        self.job_queue.clone().unwrap_or_else(|| format!("{name}:jobs"))
    }

    /// Returns the consumer group of worker type `name`.
    pub fn group(&self, name: &str) -> String {
        self.group.clone().unwrap_or_else(|| name.to_owned())
    }

    /// Returns what shows that its workers are idle.
    pub fn idleness(&self) -> Idleness {
        match (self.worker.idle, self.worker.heartbeats && self.redis_url.is_none()) {
            (IdleRule::EmptyQueue, _) => Idleness::EmptyQueue,
            (IdleRule::Stated, true) => Idleness::Stated,
            (IdleRule::Stated, false) => Idleness::Unknown,
        }
    }

    /// Returns whether its workers end by themselves when they have done their jobs.
    pub fn ends_when_done(&self) -> bool {
        self.worker.max_jobs.is_some() || self.kubernetes.kind == TargetKind::Job
    }

    /// Returns the program and arguments of one worker process.
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
    /// Program and arguments of one worker. A first word `swarm` without a path means this binary. The environment has
    /// `SWARM_WORKER_ID`, `SWARM_WORKER_TYPE` and `REDIS_URL`. Default: `swarm worker --type TYPE`.
    pub command: Vec<String>,
    /// Additional environment variables.
    pub environment: BTreeMap<String, String>,
    /// Working directory. Default: that of the autoscaler.
    pub directory: Option<PathBuf>,
}
