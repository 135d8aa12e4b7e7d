//! Semantic checks, which a schema can't express. Each error names its place and the cure. A check that involves an
//! already refused value stays silent, so that one mistake gives one error. Connects to nothing.

mod command;
mod framework;
mod keda;
mod notify;
mod queue_server;
mod queues;
mod scaling;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use secrecy::{ExposeSecret, SecretString};

use self::queues::extra_queue;
use super::{
    environment::invalid_name,
    error::ConfigError,
    kubernetes::TargetKind,
    origin::{Origin, Origins, dotted, element_of, join, pointer},
    redis_url,
    settings::{HttpSettings, Orchestrator, Settings, Switch, WorkerTypeSettings},
    worker::{HandlerKind, IdleRule},
};
use crate::{
    model::WorkerType,
    queue_kind::{Delivery, Idleness},
};

/// Minimum characters of a token: a random token of this length can't be guessed.
const SHORTEST_TOKEN: usize = 16;

/// Runs every check. `refused` holds the JSON pointers of values that were replaced by their defaults.
pub(super) fn check(
    settings: &Settings,
    origins: &Origins,
    refused: &BTreeSet<String>,
) -> (Vec<ConfigError>, Vec<String>) {
    let mut checks = Checks { origins, refused, errors: Vec::new(), warnings: Vec::new() };
    checks.redis_url(settings);
    checks.http(settings);
    checks.signals(settings);
    checks.kubernetes(settings);
    checks.problems(&pointer(&["fly"]), settings.fly.problems());
    checks.problems(&pointer(&["keda"]), settings.keda.problems());
    checks.problems(&pointer(&["discord"]), settings.discord.problems());
    checks.notify(&settings.notify);
    if settings.worker_types.is_empty() && checks.sound(&["/worker_types".to_owned()]) {
        checks.warnings.push("no worker types: there is nothing to scale; add a [worker_types.NAME]".to_owned());
    }
    for (name, worker_type) in &settings.worker_types {
        checks.worker_type(name, worker_type, settings.orchestrator);
        checks.framework(&pointer(&["worker_types", name]), worker_type, settings);
        checks.queue_server(name, worker_type, settings);
        checks.keda(&pointer(&["worker_types", name]), worker_type, settings);
        checks.on_cluster(name, worker_type, settings);
    }
    checks.shared_queues(settings);
    checks.budget(settings);
    checks.keda_budget(settings);
    (checks.errors, checks.warnings)
}

/// Whether the Redis URL names a user or a password.
fn has_password(settings: &Settings) -> bool {
    let url = settings.redis_url.expose_secret();
    let authority = url.split_once("://").map_or("", |(_, rest)| rest).split(['/', '?']).next().unwrap_or_default();
    authority.contains('@')
}

struct Checks<'a> {
    origins: &'a Origins,
    refused: &'a BTreeSet<String>,
    errors: Vec<ConfigError>,
    warnings: Vec<String>,
}

impl Checks<'_> {
    /// Returns whether none of these settings, nor a table around them, was refused.
    fn sound(&self, pointers: &[String]) -> bool {
        !pointers.iter().any(|pointer| {
            let around = pointer.match_indices('/').skip(1).map(|(end, _)| &pointer[..end]);
            around.chain([pointer.as_str()]).any(|table| self.refused.contains(table))
        })
    }

    /// Reports an error about these settings, at the place of the one that overrides the others.
    fn reject(&mut self, pointers: &[String], message: String) {
        if self.sound(pointers) {
            self.errors.push(ConfigError::new(self.origins.strongest(pointers), message));
        }
    }

    /// Returns `KEY = VALUE` for a message about two settings, with its origin if that is not the place of the message.
    fn said(&self, at: &str, value: u64, place: &Origin) -> String {
        let origin = self.origins.of(at);
        let aside = match origin {
            Origin::Default => " (the default)".to_owned(),
            _ if origin.layer() == place.layer() && matches!(origin, Origin::File { .. }) => String::new(),
            _ if origin == place => String::new(),
            _ => format!(" ({origin})"),
        };
        let key = at.rsplit_once('/').map_or(at, |(_, key)| key);
        format!("{key} = {value}{aside}")
    }

    /// Reports that two settings in the table at `at` contradict each other.
    fn reject_pair(&mut self, at: &str, [first, second]: [(&str, u64); 2], problem: &str, cure: &str, more: &[String]) {
        let mut involved = vec![join(at, first.0), join(at, second.0)];
        let place = self.origins.strongest(&involved);
        let (one, other) = (self.said(&involved[0], first.1, &place), self.said(&involved[1], second.1, &place));
        involved.extend_from_slice(more);
        if self.sound(&involved) {
            self.errors.push(ConfigError::new(place, format!("{}.{one} {problem} {other}; {cure}", dotted(at))));
        }
    }

    fn redis_url(&mut self, settings: &Settings) {
        let at = pointer(&["redis_url"]);
        if let Err(problem) = redis_url::check_redis_url(settings.redis_url.expose_secret()) {
            self.reject(&[at], format!("redis_url: {problem}"));
        }
        if let Some(Err(problem)) =
            settings.worker_redis_url.as_ref().map(|url| redis_url::check_redis_url(url.expose_secret()))
        {
            self.reject(&[pointer(&["worker_redis_url"])], format!("worker_redis_url: {problem}"));
        }
        if settings.orchestrator == Orchestrator::Docker
            && settings.worker_redis_url.is_none()
            && has_password(settings)
        {
            let origin = self.origins.of(&pointer(&["redis_url"]));
            self.warnings.push(format!(
                "{origin}: workers in containers get redis_url with its password, which may do more than they need; set \
                 worker_redis_url to a user with the workers' rights"
            ));
        }
        if !matches!(settings.orchestrator, Orchestrator::Process | Orchestrator::Docker) {
            let because = format!("orchestrator = \"{}\"", settings.orchestrator.as_str());
            self.warn_unused(&pointer(&["worker_redis_url"]), &because);
        }
    }

    fn http(&mut self, settings: &Settings) {
        let listen = &settings.http.listen;
        if !listen.is_empty() && listen.parse::<SocketAddr>().is_err() {
            let message = format!(
                "http.listen: expected ADDRESS:PORT such as \"127.0.0.1:9000\" or \"[::]:9000\" (a numeric address, no \
                 host name), or \"\" to turn the server off, found {listen:?}"
            );
            self.reject(&[pointer(&["http", "listen"])], message);
        }
        let http = &settings.http;
        self.token(http, "token", http.token.as_ref());
        self.token(http, "read_token", http.read_token.as_ref());
        let exposed = |token: &Option<SecretString>| token.as_ref().map(|token| token.expose_secret().to_owned());
        if http.token.is_some() && exposed(&http.token) == exposed(&http.read_token) {
            let message = "http.read_token: the same as http.token, so whoever reads could scale; generate another one";
            self.reject(&[pointer(&["http", "read_token"]), pointer(&["http", "token"])], message.to_owned());
        }
        for (index, host) in http.hosts.iter().enumerate() {
            let name = host.strip_prefix("*.").unwrap_or(host);
            let letters = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
            if host != "*" && (name.is_empty() || !letters) {
                let message = format!(
                    "http.hosts: expected a host name such as \"autoscaler\", \"*.example.com\", or \"*\" for any name, \
                     without scheme and port, found {host:?}"
                );
                self.reject(&[element_of(&pointer(&["http", "hosts"]), index)], message);
            }
        }
    }

    fn token(&mut self, http: &HttpSettings, key: &str, token: Option<&SecretString>) {
        let Some(token) = token else { return };
        let at = pointer(&["http", key]);
        let token = token.expose_secret();
        if token.len() < SHORTEST_TOKEN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            let message = format!(
                "http.{key}: can be guessed, or can't be sent; make one of at least {SHORTEST_TOKEN} letters and digits, \
                 without spaces, such as `openssl rand -hex 32` gives"
            );
            return self.reject(&[at], message);
        }
        let listen = http.listen.parse::<SocketAddr>();
        if http.listen.is_empty() {
            self.warn_unused(&at, "listen = \"\"");
        } else if listen.is_ok_and(|listen| !listen.ip().is_loopback()) {
            let origin = self.origins.of(&at);
            self.warnings.push(format!(
                "{origin}: http.{key} travels in clear text to http.listen = {:?}; put a reverse proxy with TLS in front, \
                 or listen on 127.0.0.1",
                http.listen
            ));
        }
    }

    fn kubernetes(&mut self, settings: &Settings) {
        self.problems(&pointer(&["kubernetes"]), settings.kubernetes.problems());
        if settings.kubernetes.lease.is_some() && settings.lease_object().is_none() {
            let because = match settings.orchestrator {
                Orchestrator::Kubernetes => "scaler.leader_lease_seconds = 0".to_owned(),
                other => format!("orchestrator = \"{}\"", other.as_str()),
            };
            self.warn_unused(&pointer(&["kubernetes", "lease"]), &because);
        }
        for (name, of) in settings.enabled().filter(|_| settings.orchestrator == Orchestrator::Kubernetes) {
            if of.kubernetes.kind == TargetKind::Job && of.worker.max_jobs.is_none() && of.framework.is_none() {
                let at = pointer(&["worker_types", name, "kubernetes", "kind"]);
                let origin = self.origins.of(&at);
                self.warnings.push(format!(
                    "{origin}: {} is \"job\", and a `swarm worker` without max_jobs takes job after job until it is let \
                     go; set worker.max_jobs, usually to 1",
                    dotted(&at)
                ));
            }
        }
    }

    fn signals(&mut self, settings: &Settings) {
        let signals = &settings.signals;
        if signals.keyspace == Switch::Off && signals.tracking == Switch::Off && signals.channel.is_empty() {
            self.warnings.push(format!(
                "all of [signals] is off: jobs are noticed by the sweep only, every {} s",
                settings.scaler.sweep_interval_seconds
            ));
        }
    }

    /// Checks a queue's name on a cluster. Keys beside a queue must be on the same node, and their names follow from
    /// the queue's.
    fn on_cluster(&mut self, name: &str, worker_type: &WorkerTypeSettings, settings: &Settings) {
        let own = (pointer(&["worker_types", name, "job_queue"]), worker_type.queue(name));
        let extra =
            (0..).zip(&worker_type.extra_queues).map(|(index, queue)| (extra_queue(name, index), queue.clone()));
        for (at, queue) in std::iter::once(own).chain(extra) {
            if let Err(problem) = redis_url::check_queue(settings.queue_redis_url(worker_type), &queue) {
                let message = format!("{}: on a Redis Cluster, {problem}", dotted(&at));
                self.reject(&[at], message);
            }
        }
    }

    fn worker_type(&mut self, name: &str, worker_type: &WorkerTypeSettings, orchestrator: Orchestrator) {
        let at = pointer(&["worker_types", name]);
        if !WorkerType::is_valid(name) {
            self.reject(std::slice::from_ref(&at), invalid_name(name));
        }
        for (key, value) in [("job_queue", &worker_type.job_queue), ("group", &worker_type.group)] {
            if value.as_deref().is_some_and(|value| value.trim().is_empty()) {
                let at = join(&at, key);
                let message = format!("{} is empty; name it, or remove the line for the default", dotted(&at));
                self.reject(&[at], message);
            }
        }
        self.extra_queues(name, worker_type);
        self.scaling(&join(&at, "scaling"), &worker_type.scaling);
        self.process(&join(&at, "process"), worker_type);
        self.problems(&join(&at, "docker"), worker_type.docker.problems());
        self.problems(&join(&at, "fly"), worker_type.fly.problems());
        self.command(&join(&at, "command"), worker_type, orchestrator);
        self.of_handlers(&at, worker_type);
        self.worker(&join(&at, "worker"), worker_type);
        self.problems(&join(&at, "jobs"), worker_type.jobs.problems());
        self.without_effect(&at, worker_type);
    }

    /// Reports the problems of the table at `at`, by key.
    fn problems(&mut self, at: &str, problems: Vec<(&'static str, String)>) {
        for (key, problem) in problems {
            let at = join(at, key);
            let message = format!("{}: {problem}", dotted(&at));
            self.reject(&[at], message);
        }
    }

    fn worker(&mut self, at: &str, worker_type: &WorkerTypeSettings) {
        let worker = &worker_type.worker;
        let exec = join(at, "exec");
        let blank_program = worker.exec.first().is_some_and(|program| program.trim().is_empty());
        let missing = worker.exec.is_empty() && worker.handler == Some(HandlerKind::Exec);
        if blank_program || missing || worker.exec.iter().any(|word| word.contains('\0')) {
            let message = format!(
                "{}: no program is named or a word holds a NUL; write [\"PROGRAM\", \"ARGUMENT\", …]",
                dotted(&exec)
            );
            self.reject(&[exec, join(at, "handler")], message);
        }
        let environment = join(at, "exec_environment");
        self.environment(&environment, &worker.exec_environment);
        let listen = &worker.metrics_listen;
        if !listen.is_empty() && listen.parse::<SocketAddr>().is_err() {
            let at = join(at, "metrics_listen");
            let message = format!(
                "{}: expected ADDRESS:PORT such as \"127.0.0.1:0\" (a numeric address, no host name), or \"\" for no \
                 metrics, found {listen:?}",
                dotted(&at)
            );
            self.reject(&[at], message);
        }
    }

    fn process(&mut self, at: &str, worker_type: &WorkerTypeSettings) {
        let process = &worker_type.process;
        let command = join(at, "command");
        let blank_program = process.command.first().is_some_and(|program| program.trim().is_empty());
        if blank_program || process.command.iter().any(|word| word.contains('\0')) {
            let message = format!(
                "{}: the program's name is empty or a word holds a NUL; write [\"PROGRAM\", \"ARGUMENT\", …], or remove \
                 the line for `swarm worker`",
                dotted(&command)
            );
            self.reject(&[command], message);
        }
        self.environment(&join(at, "environment"), &process.environment);
    }

    fn environment(&mut self, at: &str, variables: &BTreeMap<String, String>) {
        for (variable, value) in variables {
            if variable.is_empty() || variable.contains(['=', '\0']) || value.contains('\0') {
                let at = join(at, variable);
                let message = format!(
                    "{}: no process can be given it; a variable's name is not empty and has no `=`, and neither name nor \
                     value holds a NUL",
                    dotted(&at)
                );
                self.reject(&[at], message);
            }
        }
    }

    fn of_handlers(&mut self, at: &str, worker_type: &WorkerTypeSettings) {
        let browser = worker_type.browser.problems().into_iter().map(|found| ("browser", found));
        let tankpit = worker_type.tankpit.problems().into_iter().map(|found| ("tankpit", found));
        for (table, (key, problem)) in browser.chain(tankpit) {
            let at = join(&join(at, table), key);
            let message = format!("{}: {problem}", dotted(&at));
            self.reject(&[at], message);
        }
    }

    /// Warns about settings that have no effect.
    fn without_effect(&mut self, at: &str, worker_type: &WorkerTypeSettings) {
        self.scaling_without_effect(&join(at, "scaling"), &worker_type.scaling);
        if worker_type.framework.is_some() {
            return;
        }
        let kind = format!("kind = \"{}\"", worker_type.kind.name());
        let idle = join(&join(at, "worker"), "idle");
        match worker_type.kind.delivery() {
            Delivery::ConsumerGroup => {
                if worker_type.worker.idle != IdleRule::default() {
                    self.warn_unused(&idle, &kind);
                }
            }
            Delivery::Removal => {
                self.warn_unused(&join(at, "group"), &kind);
                if worker_type.idleness() == Idleness::Unknown && worker_type.redis_url.is_none() {
                    let origin = self.origins.strongest(&[join(at, "kind"), join(&join(at, "worker"), "heartbeats")]);
                    self.warnings.push(format!(
                        "{origin}: {}: with {kind} and worker.heartbeats = false nothing tells whether a worker took its \
                         last job, so an empty queue lets nobody go; let the workers write heartbeats, or set worker.idle = \
                         \"empty_queue\" if they may be stopped at any time",
                        dotted(at)
                    ));
                }
            }
        }
    }

    fn warn_unused(&mut self, at: &str, because: &str) {
        let origin = self.origins.of(at);
        if *origin != Origin::Default {
            self.warnings.push(format!("{origin}: {} has no effect with {because}", dotted(at)));
        }
    }
}
