//! `[fly]` and `[worker_types.NAME.fly]`: how to reach Fly.io's Machines API, and how to run a worker type with
//! `orchestrator = "fly"`. The token is not a setting: it comes from `FLY_API_TOKEN` or from `token_file`.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use super::redact::{masked_variable, masked_word};

/// `[fly]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FlySettings {
    /// Address of the Machines API. On Fly.io itself: `http://_api.internal:4280`.
    pub base_url: String,
    /// File that contains the API token, for secrets mounted as files. Overrides `FLY_API_TOKEN`.
    pub token_file: Option<PathBuf>,
    /// Seconds between two reads of an app's machines: the longest time until a crash or a manual change is noticed.
    #[schemars(range(min = 1, max = 300))]
    pub poll_seconds: u64,
    /// Seconds after which a request to the API counts as failed.
    #[schemars(range(min = 1, max = 300))]
    pub timeout_seconds: u64,
}

impl Default for FlySettings {
    fn default() -> Self {
        Self { base_url: "https://api.machines.dev".to_owned(), token_file: None, poll_seconds: 5, timeout_seconds: 30 }
    }
}

impl FlySettings {
    /// Returns `poll_seconds` as a duration.
    pub fn poll(&self) -> Duration {
        Duration::from_secs(self.poll_seconds)
    }

    /// Returns `timeout_seconds` as a duration.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds)
    }

    /// Returns the problems of the table, each with its key.
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let usable = Url::parse(&self.base_url)
            .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host() && url.password().is_none());
        let expected = "expected a URL such as \"https://api.machines.dev\" or \"http://_api.internal:4280\"";
        if usable { Vec::new() } else { vec![("base_url", format!("{expected}; a token goes into FLY_API_TOKEN"))] }
    }
}

/// `[worker_types.NAME.fly]`
///
/// New machines are copies of a machine that the process group has. `image` and related settings are for a group
/// without a machine; if they are set, they apply to copies too.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FlyWorkerSettings {
    /// Fly app of the workers. Default: `FLY_APP_NAME`, the scaler's own app when it runs on Fly.io.
    pub app: Option<String>,
    /// Process group of the workers. Default: `worker-` and the worker type.
    pub process_group: Option<String>,
    /// Regions over which new machines are spread, such as `["fra", "ams"]`. Default: the region of the copied machine.
    pub regions: Vec<String>,
    /// Image of new machines: `registry.fly.io/app:tag`. Default: the copied machine's own, by digest.
    pub image: Option<String>,
    /// Arguments for the image of new machines (its `CMD`). Default: the copied machine's, else the image's own.
    pub command: Vec<String>,
    /// Additional environment variables for new machines. Secrets belong into `fly secrets`.
    pub environment: BTreeMap<String, String>,
    /// Named size of new machines: `shared-cpu-1x`. Default: that of the copied machine.
    pub size: Option<String>,
    /// Size of new machines in detail, instead of `size`.
    #[schemars(with = "FlyGuest")]
    pub guest: Option<FlyGuest>,
    /// Maximum stopped machines to keep, because starting one is much faster than creating one; further ones are
    /// destroyed. The last machine of a group without `image` is always kept, to be copied.
    #[schemars(range(max = 1_000))]
    pub keep_stopped: u32,
}

super::section::defaults!(FlyWorkerSettings);

impl Default for FlyWorkerSettings {
    fn default() -> Self {
        Self {
            app: None,
            process_group: None,
            regions: Vec::new(),
            image: None,
            command: Vec::new(),
            environment: BTreeMap::new(),
            size: None,
            guest: None,
            keep_stopped: 3,
        }
    }
}

/// `guest = { … }`: CPUs and memory of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FlyGuest {
    /// `shared` or `performance`.
    pub cpu_kind: String,
    /// Number of CPUs.
    #[schemars(range(min = 1, max = 64))]
    pub cpus: u32,
    /// Memory in MB, a multiple of 256.
    #[schemars(range(min = 256))]
    pub memory_mb: u32,
}

impl Default for FlyGuest {
    fn default() -> Self {
        Self { cpu_kind: "shared".to_owned(), cpus: 1, memory_mb: 256 }
    }
}

impl FlyWorkerSettings {
    /// Returns the process group of worker type `name`.
    pub fn process_group(&self, name: &str) -> String {
        self.process_group.clone().unwrap_or_else(|| format!("worker-{name}"))
    }

    /// Returns the problems of the table, each with its key.
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let named =
            [("app", &self.app), ("process_group", &self.process_group), ("image", &self.image), ("size", &self.size)];
        for (key, _) in named.iter().filter(|(_, value)| value.as_deref().is_some_and(|value| value.trim().is_empty()))
        {
            problems.push((*key, "is empty; name it, or remove the line for the default".to_owned()));
        }
        if let Some(app) = self.app.as_deref().filter(|app| !is_slug(app) && !app.trim().is_empty()) {
            problems.push(("app", format!("{app:?} can't name an app: use lower-case letters, digits and `-`")));
        }
        if let Some(region) = self.regions.iter().find(|region| !is_slug(region)) {
            problems.push(("regions", format!("{region:?} is no region; `fly platform regions` lists them")));
        }
        if self.size.is_some() && self.guest.is_some() {
            problems.push(("guest", "can't be used together with `size`; remove one of them".to_owned()));
        }
        if self.guest.as_ref().is_some_and(|guest| guest.memory_mb % 256 != 0) {
            problems.push(("guest", "memory_mb is no multiple of 256".to_owned()));
        }
        for name in self.environment.keys().filter(|name| name.is_empty() || name.contains('=')) {
            problems.push(("environment", format!("{name:?} can't name a variable: it is empty or has a `=`")));
        }
        problems
    }

    /// Masks secrets, and fills in what follows from the worker type's name.
    pub(super) fn shown(&mut self, name: &str) {
        self.process_group = Some(self.process_group(name));
        self.command = self.command.iter().map(|word| masked_word(word)).collect();
        for (variable, value) in &mut self.environment {
            *value = masked_variable(variable, value);
        }
    }
}

fn is_slug(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_name_the_key() {
        let settings = FlyWorkerSettings {
            app: Some("My App".to_owned()),
            image: Some(" ".to_owned()),
            regions: vec!["fra".to_owned(), "Frankfurt".to_owned()],
            size: Some("shared-cpu-1x".to_owned()),
            guest: Some(FlyGuest { memory_mb: 300, ..FlyGuest::default() }),
            environment: BTreeMap::from([("A=B".to_owned(), String::new())]),
            ..FlyWorkerSettings::default()
        };
        let keys: Vec<&str> = settings.problems().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["image", "app", "regions", "guest", "guest", "environment"]);
        assert_eq!(FlyWorkerSettings::default().problems(), []);
    }

    #[test]
    fn the_address_of_the_api_is_an_http_url_without_a_secret() {
        for (url, fine) in [
            ("https://api.machines.dev", true),
            ("http://_api.internal:4280", true),
            ("api.machines.dev", false),
            ("ftp://host", false),
            ("https://user:secret@host", false),
        ] {
            let settings = FlySettings { base_url: url.to_owned(), ..FlySettings::default() };
            assert_eq!(settings.problems().is_empty(), fine, "{url}");
        }
    }
}
