//! `[worker_types.NAME.command]`: the commands that list, start and stop the workers of a type with
//! `orchestrator = "command"`. Each is a program and its arguments; no shell reads them.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// Seconds between two runs of `list`.
    #[schemars(range(min = 1, max = 3_600))]
    pub poll_seconds: u64,
    /// Seconds after which a command is killed and counts as failed.
    #[schemars(range(min = 1, max = 3_600))]
    pub timeout_seconds: u64,
    /// Maximum commands that run at the same time for this worker type.
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
            poll_seconds: 5,
            timeout_seconds: 30,
            max_concurrent: 4,
            removes: Removes::default(),
            environment: BTreeMap::new(),
            environment_files: BTreeMap::new(),
        }
    }
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

    /// Whether `start` starts one worker, whose id it is given.
    pub fn names_workers(&self) -> bool {
        has(&self.start, "worker_id")
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
        let by_number = !self.scale.is_empty();
        if by_number && !(self.start.is_empty() && self.stop.is_empty()) {
            problems.push(("scale", "takes the place of `start` and `stop`; remove it, or both of them".to_owned()));
        }
        if by_number && !has(&self.scale, "target") {
            problems.push(("scale", "has no {target}, the number of workers; add it".to_owned()));
        }
        if !by_number && self.removes != Removes::Unknown {
            problems.push(("removes", "has no effect without `scale`; remove it".to_owned()));
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

    fn missing(&self) -> Vec<(&'static str, String)> {
        let mut missing = Vec::new();
        if self.list.is_empty() {
            missing.push(("list", "is missing; orchestrator = \"command\" needs it".to_owned()));
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
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn keys(settings: &CommandSettings) -> Vec<&'static str> {
        settings.problems(true).into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn start_and_stop_or_scale() {
        let list = words("p list {type}");
        let single = CommandSettings {
            list,
            start: words("p run {worker_id}"),
            stop: words("p stop {id}"),
            ..Default::default()
        };
        assert_eq!(keys(&single), [""; 0]);
        let counted = CommandSettings { start: words("p run {count}"), ..single.clone() };
        assert_eq!(keys(&counted), [""; 0]);
        let by_number = CommandSettings {
            start: Vec::new(),
            stop: Vec::new(),
            scale: words("p scale {type}={target}"),
            removes: Removes::Newest,
            ..single.clone()
        };
        assert_eq!(keys(&by_number), [""; 0]);
        let both = CommandSettings { scale: words("p scale {target}"), ..single.clone() };
        assert_eq!(keys(&both), ["scale"]);
        let ordered = CommandSettings { removes: Removes::Oldest, ..single.clone() };
        assert_eq!(keys(&ordered), ["removes"]);
        assert_eq!(keys(&CommandSettings::default()), ["list", "start", "stop"]);
        assert_eq!(CommandSettings::default().problems(false), []);
    }

    #[test]
    fn placeholders_must_be_known_and_tell_workers_apart() {
        let usual = CommandSettings {
            list: words("p list"),
            start: words("p run {worker_id}"),
            stop: words("p stop {id}"),
            ..Default::default()
        };
        let both = CommandSettings { start: words("p run {worker_id} {count}"), ..usual.clone() };
        let neither = CommandSettings { start: words("p run"), ..usual.clone() };
        let nobody = CommandSettings { stop: words("p stop --all"), ..usual.clone() };
        let unknown = CommandSettings { list: words("p list {worker}"), ..usual.clone() };
        for (settings, key) in [(both, "start"), (neither, "start"), (nobody, "stop"), (unknown, "list")] {
            assert_eq!(keys(&settings), [key]);
        }
        let foreign = CommandSettings { list: words("p ls --format {{.ID}} {\"a\":1} ${HOME}"), ..usual };
        assert_eq!(keys(&foreign), [""; 0], "braces of others are left alone");
    }

    #[test]
    fn secrets_are_masked() {
        let mut settings = CommandSettings {
            list: words("p --redis redis://:hunter2@host"),
            environment: BTreeMap::from([("API_TOKEN".to_owned(), "hunter2".to_owned())]),
            ..Default::default()
        };
        settings.shown();
        assert!(!format!("{settings:?}").contains("hunter2"), "{settings:?}");
    }
}
