//! `[worker_types.NAME.command]`: the commands that list, start and stop the workers of a type with
//! `orchestrator = "command"`, each a program and its arguments, which no shell reads; or the HTTP service that has the
//! same calls.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    time::Duration,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::{Host, Url};

use super::redact::{masked_variable, masked_word};

/// `[worker_types.NAME.command]`
///
/// Words between braces are replaced in the arguments: `{type}`, `{worker_id}`, `{id}`, `{count}`, `{target}`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CommandSettings {
    /// Prints one JSON object a line for each worker: `id`, `state`, `reason`, `started_at`, `worker_id`. Required with
    /// `orchestrator = "command"`.
    pub list: Vec<String>,
    /// Starts workers: one for each run, with `{worker_id}` for its id; or `{count}` of them, whose ids come from
    /// `list`.
    pub start: Vec<String>,
    /// Stops the worker that the platform calls `{id}`, after it was drained.
    pub stop: Vec<String>,
    /// Sets the number of workers to `{target}`. Instead of `start` and `stop`, for a platform that has only a number.
    pub scale: Vec<String>,
    /// Runs as long as the autoscaler does. Each line that it prints leads to a new `list`.
    pub watch: Vec<String>,
    /// Base URL of an HTTP service that lists, starts and stops the workers, instead of commands:
    /// `https://scaler.example/v1`. docs/command-openapi.yaml describes its calls.
    pub url: Option<String>,
    /// With `url`: file that contains the bearer token of the service, for secrets mounted as files. Read at each call.
    pub token_file: Option<PathBuf>,
    /// With `url`: the calls that the service has besides `list`: `start` and `stop`, or `scale` for a service that has
    /// only a number; and `watch`, if it reports changes.
    pub calls: BTreeSet<ServiceCall>,
    /// Seconds between two runs of `list`.
    #[schemars(range(min = 1, max = 3_600))]
    pub poll_seconds: u64,
    /// Seconds after which a command is killed, or an answer is no longer awaited, and counts as failed.
    #[schemars(range(min = 1, max = 3_600))]
    pub timeout_seconds: u64,
    /// Maximum commands or calls at the same time for this worker type, besides `list` and `watch`.
    #[schemars(range(min = 1, max = 64))]
    pub max_concurrent: u32,
    /// With `scale`: the workers that the platform removes when the number falls.
    pub removes: Removes,
    /// Additional environment variables of the commands.
    pub environment: BTreeMap<String, String>,
    /// Environment variables of the commands whose value is the content of a file, for secrets mounted as files. The
    /// file is read at each run.
    pub environment_files: BTreeMap<String, PathBuf>,
}

super::section::defaults!(CommandSettings);

impl Default for CommandSettings {
    fn default() -> Self {
        Self {
            list: Vec::new(),
            start: Vec::new(),
            stop: Vec::new(),
            scale: Vec::new(),
            watch: Vec::new(),
            url: None,
            token_file: None,
            calls: default_calls(),
            poll_seconds: 5,
            timeout_seconds: 30,
            max_concurrent: 4,
            removes: Removes::default(),
            environment: BTreeMap::new(),
            environment_files: BTreeMap::new(),
        }
    }
}

/// A call that a service can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceCall {
    /// Starts one worker, whose id it is given.
    Start,
    /// Stops one worker.
    Stop,
    /// Sets the number of workers.
    Scale,
    /// Sends a line for each change.
    Watch,
}

fn default_calls() -> BTreeSet<ServiceCall> {
    BTreeSet::from([ServiceCall::Start, ServiceCall::Stop])
}

/// The workers that a platform removes when its number of workers falls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Removes {
    /// Nobody can tell: the number falls only when all workers are idle.
    #[default]
    Unknown,
    /// The last started first.
    Newest,
    /// The first started first.
    Oldest,
    /// The highest number at the end of the id first, as in `worker-7`.
    Highest,
}

/// The commands, each with the placeholders that it may have.
const PLACEHOLDERS: [(&str, &[&str]); 5] = [
    ("list", &["type"]),
    ("start", &["type", "worker_id", "count"]),
    ("stop", &["type", "worker_id", "id"]),
    ("scale", &["type", "target"]),
    ("watch", &["type"]),
];

impl CommandSettings {
    /// `poll_seconds` as a duration.
    pub fn poll(&self) -> Duration {
        Duration::from_secs(self.poll_seconds)
    }

    /// `timeout_seconds` as a duration.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds)
    }

    /// Whether a start starts one worker, whose id it is given.
    pub fn names_workers(&self) -> bool {
        self.url.is_some() || has(&self.start, "worker_id")
    }

    /// Whether the platform has only a number of workers.
    pub fn by_number(&self) -> bool {
        match self.url {
            Some(_) => self.calls.contains(&ServiceCall::Scale),
            None => !self.scale.is_empty(),
        }
    }

    /// Whether the platform reports changes.
    pub fn watches(&self) -> bool {
        match self.url {
            Some(_) => self.calls.contains(&ServiceCall::Watch),
            None => !self.watch.is_empty(),
        }
    }

    /// Whether the token travels in clear text to another machine.
    pub(super) fn exposes_token(&self) -> bool {
        let url = self.url.as_deref().and_then(|url| Url::parse(url).ok());
        self.token_file.is_some() && url.is_some_and(|url| url.scheme() == "http" && !is_this_machine(&url))
    }

    fn commands(&self) -> [(&'static str, &Vec<String>, &'static [&'static str]); 5] {
        let words = [&self.list, &self.start, &self.stop, &self.scale, &self.watch];
        std::array::from_fn(|index| (PLACEHOLDERS[index].0, words[index], PLACEHOLDERS[index].1))
    }

    /// Returns the errors, each with its key. `used`: whether this is the backend.
    pub(super) fn problems(&self, used: bool) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        for (key, words, allowed) in self.commands() {
            problems.extend(word_problem(words, allowed).map(|problem| (key, problem)));
        }
        problems.extend(self.service_problems());
        let (by_number, by_command) = (self.by_number(), !self.scale.is_empty());
        if by_command && !(self.start.is_empty() && self.stop.is_empty()) {
            problems.push(("scale", "takes the place of `start` and `stop`; remove it, or both of them".to_owned()));
        }
        if by_command && !has(&self.scale, "target") {
            problems.push(("scale", "has no {target}, the number of workers; add it".to_owned()));
        }
        if !by_number && self.removes != Removes::Unknown {
            let scale = if self.url.is_some() { "`scale` among `calls`" } else { "`scale`" };
            problems.push(("removes", format!("has no effect without {scale}; remove it")));
        }
        if !self.start.is_empty() {
            match (self.names_workers(), has(&self.start, "count")) {
                (true, true) => problems.push((
                    "start",
                    "has {count} and {worker_id}; several workers can't share an id: keep one of the two".to_owned(),
                )),
                (false, false) => problems.push((
                    "start",
                    "has neither {worker_id}, for one worker in each run, nor {count}; add one of the two".to_owned(),
                )),
                _ => {}
            }
        }
        if !self.stop.is_empty() && !has(&self.stop, "id") && !has(&self.stop, "worker_id") {
            problems.push(("stop", "has neither {id} nor {worker_id}; add the one that the platform knows".to_owned()));
        }
        if used {
            problems.extend(self.missing());
        }
        problems
    }

    /// Returns the problems of `url` and of the settings that belong to it.
    fn service_problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let Some(url) = &self.url else {
            let without = "has no effect without `url`; set `url`, or remove it".to_owned();
            problems.extend(self.token_file.is_some().then(|| ("token_file", without.clone())));
            problems.extend((self.calls != default_calls()).then_some(("calls", without)));
            return problems;
        };
        if !is_base(url) {
            let expected =
                "expected a URL such as \"https://scaler.example/v1\", without user, password, query and fragment";
            problems.push(("url", format!("{expected}; a token goes into the file that `token_file` names")));
        }
        for (key, words, _) in self.commands() {
            if !words.is_empty() {
                problems.push((key, "can't be used together with `url`; remove one of them".to_owned()));
            }
        }
        for (key, is_empty) in
            [("environment", self.environment.is_empty()), ("environment_files", self.environment_files.is_empty())]
        {
            if !is_empty {
                problems.push((key, "is for commands, and can't be used together with `url`; remove it".to_owned()));
            }
        }
        let has = |call| self.calls.contains(&call);
        let problem = match (has(ServiceCall::Start), has(ServiceCall::Stop), has(ServiceCall::Scale)) {
            (true, true, false) | (false, false, true) => None,
            (_, _, false) => Some("lacks `start`, `stop` or both; name both of them, or `scale`"),
            (_, _, true) => Some("`scale` takes the place of `start` and `stop`; remove it, or both of them"),
        };
        problems.extend(problem.map(|problem| ("calls", problem.to_owned())));
        problems
    }

    fn missing(&self) -> Vec<(&'static str, String)> {
        let mut missing = Vec::new();
        if self.url.is_some() {
            return missing;
        }
        if self.list.is_empty() {
            missing.push(("list", "is missing; orchestrator = \"command\" needs it, or `url`".to_owned()));
        }
        if self.scale.is_empty() {
            for (key, words) in [("start", &self.start), ("stop", &self.stop)] {
                if words.is_empty() {
                    missing.push((key, "is missing; set `start` and `stop`, or `scale`".to_owned()));
                }
            }
        }
        missing
    }

    /// Masks what may be secret.
    pub(super) fn shown(&mut self) {
        for words in [&mut self.list, &mut self.start, &mut self.stop, &mut self.scale, &mut self.watch] {
            *words = words.iter().map(|word| masked_word(word)).collect();
        }
        if let Some(url) = &mut self.url {
            *url = masked_word(url);
        }
        for (variable, value) in &mut self.environment {
            *value = masked_variable(variable, value);
        }
    }
}

/// Returns the placeholders of a word: the lower-case names between braces. `{{.ID}}` and `{"a":1}` have none.
pub(crate) fn placeholders(word: &str) -> impl Iterator<Item = &str> {
    word.split('{').skip(1).filter_map(|rest| {
        let (name, _) = rest.split_once('}')?;
        let named = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        named.then_some(name)
    })
}

fn is_base(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| {
        let plain = url.username().is_empty() && url.password().is_none();
        let whole = url.query().is_none() && url.fragment().is_none();
        matches!(url.scheme(), "http" | "https") && url.has_host() && plain && whole
    })
}

fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => IpAddr::from(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::from(address).is_loopback(),
        None => false,
    }
}

fn has(words: &[String], placeholder: &str) -> bool {
    words.iter().any(|word| placeholders(word).any(|name| name == placeholder))
}

fn word_problem(words: &[String], allowed: &[&str]) -> Option<String> {
    let program = words.first()?;
    if program.trim().is_empty() || words.iter().any(|word| word.contains('\0')) {
        return Some(
            "the program's name is empty or a word holds a NUL; write [\"PROGRAM\", \"ARGUMENT\", …]".to_owned(),
        );
    }
    let unknown = words.iter().flat_map(|word| placeholders(word)).find(|name| !allowed.contains(name))?;
    let known: Vec<String> = allowed.iter().map(|name| format!("{{{name}}}")).collect();
    Some(format!("{{{unknown}}} is not known here; it may have {}", known.join(", ")))
}

#[cfg(test)]
mod tests;
