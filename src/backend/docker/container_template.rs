//! Template of a worker type's containers: copied from a container that Compose created, or built from settings.
//! Pure: turns answers and settings into requests.

use std::{
    collections::{BTreeSet, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
};

use bollard::models::{
    ContainerConfig, ContainerCreateBody, ContainerInspectResponse, EndpointSettings, HostConfig, NetworkingConfig,
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::labels;
use crate::{
    config::DockerSettings,
    model::{WorkerId, WorkerType},
};

/// The variables by which a worker knows who it is. Those of the template are not copied.
const IDENTITY_VARIABLES: [&str; 2] = ["SWARM_WORKER_ID", "SWARM_WORKER_TYPE"];

/// Network modes without a network of their own: they take no aliases.
const BUILT_IN: [&str; 4] = ["bridge", "host", "none", "default"];

/// One container as it is going to be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// The container's name.
    pub(super) name: String,
    /// Its number within the service.
    pub(super) number: u32,
    /// The id of the worker in it.
    pub(super) worker: WorkerId,
    /// Names this attempt, once and for all.
    pub(super) launch: String,
}

/// The part that all containers of a worker type share.
#[derive(Clone, Debug)]
pub(super) struct ContainerTemplate {
    body: ContainerCreateBody,
    /// The first one is part of the request that makes the container: engines before API 1.44 take no more there.
    networks: Vec<(String, EndpointSettings)>,
    /// Between project, service and number in a container's name.
    pub(super) separator: char,
    /// Differs if anything else does.
    pub(super) fingerprint: String,
    /// For people: what it was made from.
    pub(super) origin: String,
}

/// Whose containers they are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner<'a> {
    pub(super) worker_type: &'a WorkerType,
    pub(super) project: &'a str,
    pub(super) service: &'a str,
}

impl ContainerTemplate {
    /// Copies a container. Nothing that belongs to the one container is taken over: addresses, ids, its name.
    pub(super) fn of_container(found: ContainerInspectResponse, owner: Owner<'_>) -> Self {
        let id = found.id.unwrap_or_default();
        let name = found.name.unwrap_or_default().trim_start_matches('/').to_owned();
        let own_names = |alias: &String| !(id.starts_with(alias.as_str()) && alias.len() >= 12) && *alias != name;
        let config = found.config.unwrap_or_default();
        let mut host = found.host_config.unwrap_or_default();
        host.auto_remove = Some(false);
        host.container_id_file = None;
        let first = host.network_mode.clone().unwrap_or_default();
        let endpoints = found.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
        let mut networks: Vec<_> =
            endpoints.into_iter().map(|(network, endpoint)| (network, copied_endpoint(endpoint, own_names))).collect();
        networks.sort_by_key(|(network, _)| (*network != first, network.clone()));
        let mut body = copied_config(config);
        body.hostname = body.hostname.filter(|hostname| !id.starts_with(hostname.as_str()));
        let labels = body.labels.get_or_insert_default();
        labels.retain(|label, _| !label.starts_with(labels::OURS) && label != labels::REPLACE);
        labels.insert(labels::NUMBER.to_owned(), String::new());
        if let Some(environment) = &mut body.env {
            environment.retain(|entry| !IDENTITY_VARIABLES.contains(&variable(entry)));
        }
        body.host_config = Some(host);
        let older = name.starts_with(&format!("{}_{}_", owner.project, owner.service));
        Self::finished(body, networks, if older { '_' } else { '-' }, format!("container `{name}`"))
    }

    /// Builds from settings; `None` without an image. `networks` is for settings that name none.
    pub(super) fn of_settings(settings: &DockerSettings, owner: Owner<'_>, networks: &[String]) -> Option<Self> {
        let image = settings.image.clone()?;
        let networks = if settings.networks.is_empty() { networks } else { &settings.networks };
        let mut labels: HashMap<String, String> = settings.labels.clone().into_iter().collect();
        labels.extend([
            (labels::PROJECT.to_owned(), owner.project.to_owned()),
            (labels::SERVICE.to_owned(), owner.service.to_owned()),
            (labels::ONE_OFF.to_owned(), "False".to_owned()),
            (labels::NUMBER.to_owned(), String::new()),
        ]);
        let host = HostConfig {
            network_mode: networks.first().cloned(),
            binds: (!settings.volumes.is_empty()).then(|| settings.volumes.clone()),
            memory: settings.memory_bytes().and_then(|bytes| i64::try_from(bytes).ok()),
            nano_cpus: settings.cpus.map(nano_cpus),
            ..HostConfig::default()
        };
        let endpoint =
            || EndpointSettings { aliases: Some(vec![owner.service.to_owned()]), ..EndpointSettings::default() };
        let joined = networks.iter().filter(|network| !BUILT_IN.contains(&network.as_str()));
        let body = ContainerCreateBody {
            image: Some(image),
            cmd: (!settings.command.is_empty()).then(|| settings.command.clone()),
            env: Some(settings.environment.iter().map(|(name, value)| format!("{name}={value}")).collect()),
            labels: Some(labels),
            stop_signal: settings.stop_signal.clone(),
            host_config: Some(host),
            ..ContainerCreateBody::default()
        };
        let origin = format!("[worker_types.{}.docker]", owner.worker_type);
        let mut made = Self::finished(body, joined.map(|network| (network.clone(), endpoint())).collect(), '-', origin);
        let hash = made.fingerprint.clone();
        made.body.labels.get_or_insert_default().insert(labels::CONFIG_HASH.to_owned(), hash);
        Some(made)
    }

    fn finished(
        body: ContainerCreateBody,
        networks: Vec<(String, EndpointSettings)>,
        separator: char,
        origin: String,
    ) -> Self {
        let mut hasher = DefaultHasher::new();
        hash_value(&json!([body, networks]), &mut hasher);
        Self { body, networks, separator, fingerprint: format!("{:016x}", hasher.finish()), origin }
    }

    /// The image that its containers run.
    pub(super) fn image(&self) -> &str {
        self.body.image.as_deref().unwrap_or_default()
    }

    /// `{project}-{service}-{n}`.
    pub(super) fn name(&self, owner: Owner<'_>, number: u32) -> String {
        let between = self.separator;
        format!("{}{between}{}{between}{number}", owner.project, owner.service)
    }

    /// The request that makes one container.
    pub(super) fn body(
        &self,
        worker_type: &WorkerType,
        identity: &Identity,
        redis_url: &SecretString,
    ) -> ContainerCreateBody {
        let mut body = self.body.clone();
        let environment = body.env.get_or_insert_default();
        if !environment.iter().any(|entry| variable(entry) == "REDIS_URL") {
            environment.push(format!("REDIS_URL={}", redis_url.expose_secret()));
        }
        environment.push(format!("SWARM_WORKER_ID={}", identity.worker));
        environment.push(format!("SWARM_WORKER_TYPE={worker_type}"));
        body.labels.get_or_insert_default().extend([
            (labels::NUMBER.to_owned(), identity.number.to_string()),
            (labels::LAUNCH.to_owned(), identity.launch.clone()),
            (labels::WORKER.to_owned(), identity.worker.to_string()),
            (labels::TEMPLATE.to_owned(), self.fingerprint.clone()),
        ]);
        let first = self.networks.first().map(|(network, endpoint)| (network.clone(), named(endpoint, identity)));
        body.networking_config = first.map(|first| NetworkingConfig { endpoints_config: Some(HashMap::from([first])) });
        body
    }

    /// The networks to be joined after that, before the start.
    pub(super) fn further_networks(&self, identity: &Identity) -> impl Iterator<Item = (&str, EndpointSettings)> {
        self.networks.iter().skip(1).map(|(network, endpoint)| (network.as_str(), named(endpoint, identity)))
    }
}

/// With the container's own name as one more alias, as Compose has it.
fn named(endpoint: &EndpointSettings, identity: &Identity) -> EndpointSettings {
    let mut endpoint = endpoint.clone();
    if let Some(aliases) = &mut endpoint.aliases {
        aliases.push(identity.name.clone());
    }
    endpoint
}

/// The part of a network endpoint that two containers can share.
fn copied_endpoint(found: EndpointSettings, shared: impl Fn(&String) -> bool) -> EndpointSettings {
    EndpointSettings {
        aliases: found.aliases.map(|aliases| aliases.into_iter().filter(shared).collect()),
        links: found.links,
        driver_opts: found.driver_opts,
        gw_priority: found.gw_priority,
        ..EndpointSettings::default()
    }
}

fn copied_config(found: ContainerConfig) -> ContainerCreateBody {
    ContainerCreateBody {
        hostname: found.hostname,
        domainname: found.domainname,
        user: found.user,
        attach_stdin: found.attach_stdin,
        attach_stdout: found.attach_stdout,
        attach_stderr: found.attach_stderr,
        exposed_ports: found.exposed_ports,
        tty: found.tty,
        open_stdin: found.open_stdin,
        stdin_once: found.stdin_once,
        env: found.env,
        cmd: found.cmd,
        healthcheck: found.healthcheck,
        args_escaped: found.args_escaped,
        image: found.image,
        volumes: found.volumes,
        working_dir: found.working_dir,
        entrypoint: found.entrypoint,
        network_disabled: found.network_disabled,
        on_build: None,
        labels: found.labels,
        stop_signal: found.stop_signal,
        stop_timeout: found.stop_timeout,
        shell: found.shell,
        host_config: None,
        networking_config: None,
    }
}

/// The name in `NAME=value`.
pub(super) fn variable(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(name, _)| name)
}

#[expect(clippy::cast_possible_truncation, reason = "validated to be at most 1024, which is 2^40 billionths")]
fn nano_cpus(cpus: f64) -> i64 {
    (cpus * 1e9) as i64
}

/// Hashes the keys of an object in order, whatever order they came in.
fn hash_value(value: &Value, hasher: &mut DefaultHasher) {
    match value {
        Value::Object(fields) => {
            let names: BTreeSet<&String> = fields.keys().collect();
            for name in names {
                name.hash(hasher);
                hash_value(&fields[name], hasher);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| hash_value(item, hasher)),
        plain => plain.to_string().hash(hasher),
    }
    "end".hash(hasher);
}

#[cfg(test)]
mod tests;
