//! Compares two configurations: what differs, and what a running autoscaler can take over. Pure.

use std::{collections::BTreeMap, fmt};

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::{
    notify::NotifySettings,
    origin::{dotted, join},
    settings::{Settings, WorkerTypeSettings},
};

/// Maximum names in one line: a reload of ten thousand worker types must not log a line of a megabyte.
const NAMED: usize = 12;

/// Keys of `[scaler]` that are fixed at the start.
const SCALER_NEEDS_RESTART: [&str; 3] = ["redis_timeout_ms", "dry_run", "leader_lease_seconds"];

/// Secrets, which are serialized masked and so are compared by themselves.
const HTTP_TOKENS: [&str; 2] = ["http.token", "http.read_token"];

/// One setting with a new value.
#[derive(Clone, Debug, PartialEq)]
pub struct ChangedKey {
    /// Key in TOML's spelling, below its table.
    key: String,
    /// Old and new value if they are numbers or booleans; other values may be secrets.
    values: Option<(Value, Value)>,
}

impl fmt::Display for ChangedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.values {
            Some((from, to)) => write!(f, "{} {from} → {to}", self.key),
            None => f.write_str(&self.key),
        }
    }
}

/// What a new configuration changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// Worker types that are new or enabled again, sorted.
    pub added: Vec<String>,
    /// Worker types that were removed or disabled.
    pub removed: Vec<String>,
    /// Worker types that stay, with changed settings.
    pub changed: BTreeMap<String, Vec<ChangedKey>>,
    /// Other settings that take effect immediately.
    pub others: Vec<ChangedKey>,
    /// Settings that differ in the file, environment or flags, and take effect only after a restart.
    pub need_restart: Vec<String>,
}

impl Changes {
    /// Returns the changes from `running` to `loaded`, and the settings that are then in force: those of `loaded`,
    /// except for settings that need a restart.
    pub fn between(running: &Settings, loaded: &Settings) -> (Self, Settings) {
        let mut changes = Self::default();
        let mut holds = loaded.clone();
        changes.keep_settled(running, &mut holds);
        differences("/scaler", &json!(running.scaler), &json!(holds.scaler), &mut changes.others);
        differences("/signals", &json!(running.signals), &json!(holds.signals), &mut changes.others);
        differences("/broker", &json!(running.broker), &json!(holds.broker), &mut changes.others);
        let equal = |(one, other): (&NotifySettings, &NotifySettings)| one.equals(other);
        if running.notify.len() != holds.notify.len() || !running.notify.iter().zip(&holds.notify).all(equal) {
            changes.others.push(ChangedKey { key: "notify".to_owned(), values: None });
        }
        changes.compare_types(&running.worker_types, &holds.worker_types);
        (changes, holds)
    }

    /// Returns whether no setting that takes effect immediately differs.
    pub fn is_nothing(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty() && self.others.is_empty()
    }

    /// Restores the settings that are fixed at the start, and records those that differ.
    fn keep_settled(&mut self, running: &Settings, holds: &mut Settings) {
        let mut differ = Vec::new();
        if running.redis_url.expose_secret() != holds.redis_url.expose_secret() {
            differ.push("redis_url".to_owned());
        }
        let of_workers = |of: &Settings| of.worker_redis_url.as_ref().map(|url| url.expose_secret().to_owned());
        if of_workers(running) != of_workers(holds) {
            differ.push("worker_redis_url".to_owned());
        }
        let text = |token: &Option<SecretString>| token.as_ref().map(|token| token.expose_secret().to_owned());
        for (key, running, holds) in [
            (HTTP_TOKENS[0], &running.http.token, &holds.http.token),
            (HTTP_TOKENS[1], &running.http.read_token, &holds.http.read_token),
        ] {
            if text(running) != text(holds) {
                differ.push(key.to_owned());
            }
        }
        if running.orchestrator != holds.orchestrator {
            differ.push("orchestrator".to_owned());
        }
        let mut keys = Vec::new();
        differences("/http", &json!(running.http), &json!(holds.http), &mut keys);
        differences("/kubernetes", &json!(running.kubernetes), &json!(holds.kubernetes), &mut keys);
        differences("/fly", &json!(running.fly), &json!(holds.fly), &mut keys);
        differences("/keda", &json!(running.keda), &json!(holds.keda), &mut keys);
        let (before, now) = (json!(running.scaler), json!(holds.scaler));
        for key in SCALER_NEEDS_RESTART {
            differences(&format!("/scaler/{key}"), &before[key], &now[key], &mut keys);
        }
        // The token is serialized masked; the code above has found whether one was added or removed.
        differ.extend(keys.into_iter().map(|changed| changed.key).filter(|key| !HTTP_TOKENS.contains(&key.as_str())));
        self.need_restart = differ;

        holds.redis_url = running.redis_url.clone();
        holds.redis_url_file.clone_from(&running.redis_url_file);
        holds.worker_redis_url.clone_from(&running.worker_redis_url);
        holds.worker_redis_url_file.clone_from(&running.worker_redis_url_file);
        holds.orchestrator = running.orchestrator;
        holds.http = running.http.clone();
        holds.kubernetes = running.kubernetes.clone();
        holds.fly = running.fly.clone();
        holds.keda = running.keda.clone();
        holds.scaler.redis_timeout_ms = running.scaler.redis_timeout_ms;
        holds.scaler.dry_run = running.scaler.dry_run;
        holds.scaler.leader_lease_seconds = running.scaler.leader_lease_seconds;
    }

    fn compare_types(
        &mut self,
        running: &BTreeMap<String, WorkerTypeSettings>,
        holds: &BTreeMap<String, WorkerTypeSettings>,
    ) {
        let is_on = |all: &BTreeMap<String, WorkerTypeSettings>, name: &str| all.get(name).is_some_and(|of| of.enabled);
        self.removed = running.keys().filter(|name| is_on(running, name) && !is_on(holds, name)).cloned().collect();
        for (name, settings) in holds.iter().filter(|(_, settings)| settings.enabled) {
            match running.get(name).filter(|before| before.enabled) {
                None => self.added.push(name.clone()),
                Some(before) if before == settings => {}
                Some(before) => {
                    let mut keys = Vec::new();
                    differences("", &json!(before), &json!(settings), &mut keys);
                    self.changed.insert(name.clone(), keys);
                }
            }
        }
    }
}

/// Formats the changes: `added mail; removed tankpit; browser: scaling.max_workers 10 → 20; scaler.debounce_ms 50 →
/// 100`
impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        for (what, names) in [("added", &self.added), ("removed", &self.removed)] {
            if !names.is_empty() {
                parts.push(format!("{what} {}", some_of(names.iter())));
            }
        }
        let of_type = |(name, keys): (&String, &Vec<ChangedKey>)| match keys.as_slice() {
            [] => format!("{name}: a secret"),
            keys => format!("{name}: {}", some_of(keys.iter())),
        };
        parts.extend(self.changed.iter().take(NAMED).map(of_type));
        if let Some(more) = self.changed.len().checked_sub(NAMED).filter(|more| *more > 0) {
            parts.push(format!("{more} more worker types"));
        }
        if !self.others.is_empty() {
            parts.push(some_of(self.others.iter()));
        }
        f.write_str(if parts.is_empty() { "nothing" } else { "" })?;
        f.write_str(&parts.join("; "))
    }
}

fn some_of<T: fmt::Display>(all: impl ExactSizeIterator<Item = T>) -> String {
    let more = all.len().saturating_sub(NAMED);
    let named: Vec<String> = all.take(NAMED).map(|one| one.to_string()).collect();
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    named.join(", ") + &rest
}

/// Collects every leaf below `at` that differs.
fn differences(at: &str, before: &Value, now: &Value, found: &mut Vec<ChangedKey>) {
    if before == now {
        return;
    }
    let (Value::Object(before), Value::Object(now)) = (before, now) else {
        let plain = |value: &Value| matches!(value, Value::Number(_) | Value::Bool(_));
        let values = (plain(before) && plain(now)).then(|| (before.clone(), now.clone()));
        return found.push(ChangedKey { key: dotted(at), values });
    };
    let absent = Value::Null;
    let gone = before.keys().filter(|key| !now.contains_key(*key));
    for key in now.keys().chain(gone) {
        let (before, now) = (before.get(key).unwrap_or(&absent), now.get(key).unwrap_or(&absent));
        differences(&join(at, key), before, now, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(toml: &str) -> Settings {
        toml::from_str(toml).expect("these are settings")
    }

    fn between(before: &str, now: &str) -> (Changes, Settings) {
        Changes::between(&settings(before), &settings(now))
    }

    #[test]
    fn worker_types_come_go_and_change() {
        let before = "[worker_types.a]\n[worker_types.b]\n[worker_types.c]\nenabled = false\n[worker_types.d]\n";
        let now = "[worker_types.a.scaling]\nmax_workers = 20\nstrategy = \"step\"\n[worker_types.b]\nenabled = false\n\
                   [worker_types.c]\n[worker_types.e.process.environment]\nTOKEN = \"hunter2\"\n[worker_types.d]\n";
        let (changes, holds) = between(before, now);
        assert_eq!(changes.to_string(), "added c, e; removed b; a: scaling.max_workers 10 → 20, scaling.strategy");
        assert_eq!(holds.worker_types["a"].scaling.max_workers, 20);
        assert!(changes.need_restart.is_empty());
    }

    #[test]
    fn what_needs_a_restart_is_named_and_stays_as_it_is() {
        let now = "redis_url = \"redis://:hunter2@other\"\norchestrator = \"docker\"\n[http]\nlisten = \"\"\n\
                   [scaler]\ndry_run = true\ndebounce_ms = 70\n[fly]\npoll_seconds = 9\n";
        let (changes, holds) = between("", now);
        let named = ["redis_url", "orchestrator", "http.listen", "fly.poll_seconds", "scaler.dry_run"];
        assert_eq!(changes.need_restart, named);
        assert_eq!(changes.to_string(), "scaler.debounce_ms 50 → 70");
        assert_eq!(holds.redis_url.expose_secret(), Settings::default().redis_url.expose_secret());
        assert_eq!((holds.scaler.dry_run, holds.scaler.debounce_ms), (false, 70));
        assert_eq!(holds.http.listen, Settings::default().http.listen);
    }

    #[test]
    fn secrets_are_never_shown_and_what_is_said_as_it_was_is_no_change() {
        let before = "[worker_types.a.docker.environment]\nTOKEN = \"hunter2\"\n";
        let (changes, _) = between(before, "[worker_types.a.docker.environment]\nTOKEN = \"hunter3\"\n");
        assert_eq!(changes.to_string(), "a: docker.environment.TOKEN");
        let (changes, _) = between("[worker_types.a]\n", "[worker_types.a.worker]\nconcurrency = 1\n");
        assert!(changes.is_nothing(), "{changes}");
        assert_eq!(changes.to_string(), "nothing");
    }

    #[test]
    fn webhooks_take_effect_and_their_urls_are_not_shown() {
        let webhook = |word: &str| format!("[[notify]]\nurl = \"https://hooks.example/{word}\"\n");
        let (changes, holds) = between(&webhook("hunter2"), &webhook("hunter3"));
        assert_eq!((changes.to_string().as_str(), changes.need_restart.len()), ("notify", 0));
        assert!(holds.notify[0].equals(&settings(&webhook("hunter3")).notify[0]));
        assert!(between(&webhook("hunter2"), &webhook("hunter2")).0.is_nothing());
    }

    #[test]
    fn a_line_stays_a_line_with_thousands_of_worker_types() {
        let many: Vec<String> = (0..1_000).map(|number| format!("[worker_types.t{number:04}]\n")).collect();
        let (changes, _) = between("[worker_types.x]\n", &many.concat());
        assert!(changes.to_string().ends_with("t0011 and 988 more; removed x"), "{changes}");
    }
}
