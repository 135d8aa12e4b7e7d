//! Template of a worker type's containers: copied from a container that Compose created, or built from settings.
//! Pure: turns answers and settings into requests.

use std::{
    collections::{BTreeSet, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
};

use bollard::models::{
    ContainerConfig, ContainerCreateBody, ContainerInspectResponse, EndpointSettings, HostConfig, NetworkingConfig,
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::{labels, overlay::lay_over, spec::DockerSpec};
use crate::{
    backend::BackendError,
    model::{WorkerId, WorkerType},
};

/// The variables by which a worker knows who it is. Those of the template are not copied.
const IDENTITY_VARIABLES: [&str; 2] = ["SWARM_WORKER_ID", "SWARM_WORKER_TYPE"];

/// Network modes without a network of their own: they take no aliases.
const BUILT_IN: [&str; 4] = ["bridge", "host", "none", "default"];

/// Processes and threads of a hardened container: far above what a browser with all its pages has, and far below what a
/// machine can bear.
const PIDS_LIMIT: i64 = 4_096;

/// Names of `host_config` and `config` that other settings decide.
const RESERVED_HOST: [(&str, &str); 2] = [
    ("AutoRemove", "swarm removes containers itself, after it has seen how they ended"),
    ("NetworkMode", "use `networks`"),
];
const RESERVED_CONFIG: [(&str, &str); 5] = [
    ("Image", "use `image`"),
    ("Env", "use `environment`"),
    ("Labels", "use `labels`"),
    ("HostConfig", "use `host_config`"),
    ("NetworkingConfig", "use `networks`"),
];

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
    /// Whether it has the rights that swarm gives by default, and not those that somebody chose.
    pub(super) hardened: bool,
}

/// Whose containers they are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner<'a> {
    pub(super) worker_type: &'a WorkerType,
    pub(super) project: &'a str,
    pub(super) service: &'a str,
}

impl ContainerTemplate {
    /// Whether the engine's types know everything that the settings say by the engine's own names.
    ///
    /// # Errors
    /// If they do not, with the setting.
    pub(super) fn check(worker_type: &WorkerType, spec: &DockerSpec) -> Result<(), BackendError> {
        let owner = Owner { worker_type, project: "", service: &spec.service };
        let built = Self::of_settings(spec, owner, &[]);
        built
            .map(drop)
            .map_err(|problem| BackendError::permanent(format!("worker_types.{worker_type}.docker: {problem}")))
    }

    /// Copies a container. Nothing that belongs to the one container is taken over: addresses, ids, its name.
    pub(super) fn of_container(found: ContainerInspectResponse, owner: Owner<'_>) -> Self {
        let id = found.id.unwrap_or_default();
        let name = found.name.unwrap_or_default().trim_start_matches('/').to_owned();
        let own_names = |alias: &String| !(id.starts_with(alias.as_str()) && alias.len() >= 12) && *alias != name;
        let mut config = found.config.unwrap_or_default();
        let mut host = found.host_config.unwrap_or_default();
        host.auto_remove = Some(false);
        host.container_id_file = None;
        renew_anonymous_volumes(&mut config, &mut host);
        let first = host.network_mode.clone().unwrap_or_default();
        let endpoints = found.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
        let mut networks: Vec<_> =
            endpoints.into_iter().map(|(network, endpoint)| (network, copied_endpoint(endpoint, own_names))).collect();
        networks.sort_by_key(|(network, _)| (*network != first, network.clone()));
        let mut body = copied_config(config);
        body.hostname = body.hostname.filter(|hostname| !id.starts_with(hostname.as_str()));
        if is_borrowed(&first) {
            // All of that is the owner's of the network, and the engine refuses it here.
            networks.clear();
            (body.hostname, body.domainname, body.exposed_ports) = (None, None, None);
            (host.port_bindings, host.publish_all_ports, host.links) = (None, None, None);
            (host.dns, host.dns_search, host.dns_options, host.extra_hosts) = (None, None, None, None);
        } else if matches!(first.as_str(), "host" | "none") {
            networks.clear();
            body.hostname = None;
        }
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
    ///
    /// # Errors
    /// What of `host_config` or `config` the engine does not know.
    pub(super) fn of_settings(
        spec: &DockerSpec,
        owner: Owner<'_>,
        networks: &[String],
    ) -> Result<Option<Self>, String> {
        let settings = &spec.settings;
        let Some(image) = settings.image.clone() else { return Ok(None) };
        let networks = if settings.networks.is_empty() { networks } else { &settings.networks };
        let mut labels: HashMap<String, String> = settings.labels.clone().into_iter().collect();
        labels.extend([
            (labels::PROJECT.to_owned(), owner.project.to_owned()),
            (labels::SERVICE.to_owned(), owner.service.to_owned()),
            (labels::ONE_OFF.to_owned(), "False".to_owned()),
            (labels::NUMBER.to_owned(), String::new()),
        ]);
        let endpoint =
            || EndpointSettings { aliases: Some(vec![owner.service.to_owned()]), ..EndpointSettings::default() };
        let joined = networks.iter().filter(|network| !BUILT_IN.contains(&network.as_str()));
        let body = ContainerCreateBody {
            image: Some(image),
            cmd: (!settings.command.is_empty()).then(|| settings.command.clone()),
            env: Some(settings.environment.iter().map(|(name, value)| format!("{name}={value}")).collect()),
            labels: Some(labels),
            stop_signal: settings.stop_signal.clone(),
            // For others than swarm: `docker stop`, `docker compose down`.
            stop_timeout: i64::try_from(spec.drain_timeout.as_secs()).ok(),
            ..ContainerCreateBody::default()
        };
        let mut body = lay_over(&body, &settings.config, ("config", "ContainerConfig"), &RESERVED_CONFIG)?;
        let host = host_config(spec, networks);
        body.host_config = Some(lay_over(&host, &settings.host_config, ("host_config", "HostConfig"), &RESERVED_HOST)?);
        let origin = format!("[worker_types.{}.docker]", owner.worker_type);
        let mut made = Self::finished(body, joined.map(|network| (network.clone(), endpoint())).collect(), '-', origin);
        let hash = made.fingerprint.clone();
        made.body.labels.get_or_insert_default().insert(labels::CONFIG_HASH.to_owned(), hash);
        made.hardened = settings.hardened;
        Ok(Some(made))
    }

    fn finished(
        body: ContainerCreateBody,
        networks: Vec<(String, EndpointSettings)>,
        separator: char,
        origin: String,
    ) -> Self {
        let mut hasher = DefaultHasher::new();
        hash_value(&json!([body, networks]), &mut hasher);
        let fingerprint = format!("{:016x}", hasher.finish());
        Self { body, networks, separator, fingerprint, origin, hardened: false }
    }

    /// Whether its containers would look for this Redis server in themselves: a loopback address, in a network of
    /// their own. What the template itself says about Redis is somebody's own choice.
    pub(super) fn misses_redis(&self, redis_url: Option<&SecretString>) -> bool {
        let Some(redis_url) = redis_url else { return false };
        let given = names_redis(self.body.env.as_deref().unwrap_or_default());
        let mode = self.body.host_config.as_ref().and_then(|host| host.network_mode.as_deref()).unwrap_or_default();
        !given && !is_borrowed(mode) && !matches!(mode, "host" | "none") && is_loopback(redis_url)
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
        redis_url: Option<&SecretString>,
    ) -> ContainerCreateBody {
        let mut body = self.body.clone();
        let environment = body.env.get_or_insert_default();
        if let Some(redis_url) = redis_url
            && !names_redis(environment)
        {
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

/// Whether an environment says where Redis is.
fn names_redis(environment: &[String]) -> bool {
    environment.iter().any(|entry| matches!(variable(entry), "REDIS_URL" | "REDIS_URL_FILE"))
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

/// Whether the first server that a Redis URL names is on the machine that reads it.
fn is_loopback(redis_url: &SecretString) -> bool {
    let url = redis_url.expose_secret();
    let authority = url.split_once("://").map_or("", |(_, rest)| rest).split(['/', '?']).next().unwrap_or_default();
    let hosts = authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts);
    let first = hosts.split(',').next().unwrap_or_default();
    let name = first
        .strip_prefix('[')
        .map_or_else(|| first.split(':').next().unwrap_or_default(), |rest| rest.split(']').next().unwrap_or_default());
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The `HostConfig` that the settings make, without `host_config`.
fn host_config(spec: &DockerSpec, networks: &[String]) -> HostConfig {
    let settings = &spec.settings;
    let host = HostConfig {
        network_mode: networks.first().cloned(),
        binds: (!settings.volumes.is_empty()).then(|| settings.volumes.clone()),
        memory: settings.memory_bytes().and_then(|bytes| i64::try_from(bytes).ok()),
        nano_cpus: settings.cpus.map(nano_cpus),
        ..HostConfig::default()
    };
    if !settings.hardened {
        return host;
    }
    HostConfig {
        security_opt: Some(vec!["no-new-privileges:true".to_owned()]),
        cap_drop: Some(vec!["ALL".to_owned()]),
        pids_limit: Some(PIDS_LIMIT),
        ..host
    }
}

/// Whether a network mode is the network of another container, as `network_mode: "service:…"` of Compose makes it.
fn is_borrowed(mode: &str) -> bool {
    mode.starts_with("container:")
}

/// Makes each copy of a container get anonymous volumes of its own: a bind or a mount names that of the container.
fn renew_anonymous_volumes(config: &mut ContainerConfig, host: &mut HostConfig) {
    let anonymous = |name: &str| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut targets = Vec::new();
    if let Some(binds) = &mut host.binds {
        binds.retain(|bind| match bind.split_once(':') {
            Some((source, rest)) if anonymous(source) => {
                targets.push(rest.split(':').next().unwrap_or_default().to_owned());
                false
            }
            _ => true,
        });
    }
    for mount in host.mounts.iter_mut().flatten() {
        mount.source = mount.source.take().filter(|source| !anonymous(source));
    }
    if !targets.is_empty() {
        let mut volumes: Vec<String> = config.volumes.take().into_iter().flatten().collect();
        volumes.extend(targets);
        volumes.sort();
        volumes.dedup();
        config.volumes = Some(volumes);
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
