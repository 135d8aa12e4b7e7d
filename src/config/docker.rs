//! `[worker_types.NAME.docker]`: how to run a worker type with `orchestrator = "docker"`.

use std::{collections::BTreeMap, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// `[worker_types.NAME.docker]`
///
/// If the Compose service for the worker type has a container, that container is the template of all others, and of
/// these settings only `service`, `project`, `pull`, `registry_auth_file` and `standby` count. Otherwise the settings
/// describe the container completely.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DockerSettings {
    /// Image of a worker, for worker types without a Compose service: `registry/name:tag`.
    pub image: Option<String>,
    /// Program and arguments. Default: the image's own.
    pub command: Vec<String>,
    /// Additional environment variables. They override `REDIS_URL`, which is otherwise the scaler's own.
    pub environment: BTreeMap<String, String>,
    /// Networks to join; `host` alone is the host's own. Default: those of the scaler's own container, else the
    /// engine's default bridge.
    pub networks: Vec<String>,
    /// Volumes and bind mounts: `SOURCE:TARGET` or `SOURCE:TARGET:ro`.
    pub volumes: Vec<String>,
    /// Memory limit in bytes, or with the unit `k`, `m` or `g`: `"512m"`.
    pub memory: Option<String>,
    /// CPUs that a worker may use: `0.5` is half of one CPU.
    #[schemars(range(min = 0.0, max = 1_024.0))]
    pub cpus: Option<f64>,
    /// Signal that asks a worker to finish and leave. Default: the image's own, else `SIGTERM`.
    pub stop_signal: Option<String>,
    /// Additional labels.
    pub labels: BTreeMap<String, String>,
    /// Compose service of the workers. Default: `worker-` and the worker type.
    pub service: Option<String>,
    /// Compose project of the workers. Default: `COMPOSE_PROJECT_NAME`, else the project of the scaler's own
    /// container, else `swarm`.
    pub project: Option<String>,
    /// What to do if the engine does not have the image.
    pub pull: PullPolicy,
    /// File with the credentials of registries, as `docker login` writes it. Default: `config.json` in `DOCKER_CONFIG`,
    /// else in `~/.docker`, if it exists.
    pub registry_auth_file: Option<PathBuf>,
    /// Containers that are created in advance and not started, so that a worker starts faster.
    #[schemars(range(max = 1_000))]
    pub standby: u32,
    /// Without more rights than a worker needs: no new privileges, no capabilities, and a limit of processes. `false`
    /// for images that need them.
    pub hardened: bool,
    /// Further fields of the container's `HostConfig`, by the names of the engine's API (`ReadonlyRootfs`, `ShmSize`,
    /// …). They override what the other settings set.
    pub host_config: Map<String, Value>,
    /// Further fields of the container's configuration, by the names of the engine's API (`User`, `Healthcheck`, …).
    /// They override what the other settings set.
    pub config: Map<String, Value>,
}

impl Default for DockerSettings {
    fn default() -> Self {
        Self {
            image: None,
            command: Vec::new(),
            environment: BTreeMap::new(),
            networks: Vec::new(),
            volumes: Vec::new(),
            memory: None,
            cpus: None,
            stop_signal: None,
            labels: BTreeMap::new(),
            service: None,
            project: None,
            pull: PullPolicy::default(),
            registry_auth_file: None,
            standby: 0,
            hardened: true,
            host_config: Map::new(),
            config: Map::new(),
        }
    }
}

/// What to do if the engine does not have an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PullPolicy {
    /// Report it: somebody has to build or pull the image.
    #[default]
    Never,
    /// Pull the image.
    Missing,
}

super::section::defaults!(DockerSettings);

impl DockerSettings {
    /// Returns the Compose service of worker type `name`.
    pub fn service(&self, name: &str) -> String {
        self.service.clone().unwrap_or_else(|| format!("worker-{name}"))
    }

    /// Returns `memory` in bytes; `None` if there is no limit, or an invalid one, which validation refuses.
    pub fn memory_bytes(&self) -> Option<u64> {
        self.memory.as_deref().and_then(bytes)
    }

    /// Returns the problems of the table, each with its key.
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if let Some(memory) = self.memory.as_deref().filter(|memory| bytes(memory).is_none()) {
            problems.push((
                "memory",
                format!("expected bytes such as \"536870912\", \"512m\" or \"2g\", found {memory:?}"),
            ));
        }
        for volume in self.volumes.iter().filter(|volume| !is_volume(volume)) {
            let cure = "an absolute TARGET, and a SOURCE that is a volume's name or an absolute path";
            problems
                .push(("volumes", format!("expected SOURCE:TARGET or SOURCE:TARGET:ro with {cure}, found {volume:?}")));
        }
        let host = |network: &String| matches!(network.as_str(), "host" | "none");
        if self.networks.len() > 1 && self.networks.iter().any(host) {
            problems.push(("networks", "`host` and `none` can't be joined together with others".to_owned()));
        }
        let named = [("image", &self.image), ("service", &self.service), ("project", &self.project)];
        for (key, _) in named.iter().filter(|(_, value)| value.as_deref().is_some_and(|value| value.trim().is_empty()))
        {
            problems.push((key, "is empty; name it, or remove the line for the default".to_owned()));
        }
        for name in self.environment.keys().filter(|name| name.is_empty() || name.contains('=')) {
            problems.push(("environment", format!("{name:?} can't name a variable: it is empty or has a `=`")));
        }
        for label in self.labels.keys().filter(|label| RESERVED.iter().any(|prefix| label.starts_with(prefix))) {
            problems.push(("labels", format!("`{label}` is the scaler's to set; remove it")));
        }
        problems
    }
}

/// Prefixes of labels that identify the owner of a container.
const RESERVED: [&str; 2] = ["com.docker.compose.", "swarm."];

fn bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "" | "b" => 1,
        "k" | "kb" => 1 << 10,
        "m" | "mb" => 1 << 20,
        "g" | "gb" => 1 << 30,
        _ => return None,
    };
    digits.trim().parse::<u64>().ok()?.checked_mul(unit).filter(|bytes| i64::try_from(*bytes).is_ok())
}

fn is_volume(text: &str) -> bool {
    let mut parts = text.split(':');
    let (source, target, mode) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next());
    let relative =
        source.starts_with('.') || source.starts_with('~') || (!source.starts_with('/') && source.contains('/'));
    !source.is_empty() && !relative && target.starts_with('/') && mode.is_none_or(|mode| !mode.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_as_docker_reads_it() {
        for (text, expected) in [
            ("1024", Some(1_024)),
            ("512m", Some(512 << 20)),
            ("2 GB", Some(2 << 30)),
            ("1.5g", None),
            ("lots", None),
            ("99999999999g", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }

    #[test]
    fn problems_name_the_key() {
        let settings = DockerSettings {
            image: Some(" ".to_owned()),
            memory: Some("much".to_owned()),
            volumes: vec!["data:/data:ro".to_owned(), "./here:/there".to_owned(), "/x".to_owned()],
            networks: vec!["host".to_owned(), "other".to_owned()],
            labels: BTreeMap::from([("swarm.launch".to_owned(), "x".to_owned())]),
            ..DockerSettings::default()
        };
        let keys: Vec<&str> = settings.problems().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["memory", "volumes", "volumes", "networks", "image", "labels"]);
        assert_eq!(DockerSettings::default().problems(), []);
    }
}
