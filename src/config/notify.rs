//! `[[notify]]`: webhooks that get alerts. The URL of a webhook is a secret: whoever has it can write to the channel.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use url::Url;

/// `[[notify]]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NotifySettings {
    /// Name in the log and for `swarm notify test`. Default: `notify-1`, `notify-2` and so on.
    pub name: Option<String>,
    /// URL of the webhook, `https://` or `http://`. A secret.
    #[serde(serialize_with = "super::redact::masked")]
    #[schemars(with = "Option<String>")]
    pub url: Option<SecretString>,
    /// File that contains the URL, for secrets mounted as files; read for each attempt. Overrides `url`.
    pub url_file: Option<PathBuf>,
    /// Format of the messages.
    pub format: NotifyFormat,
    /// With `format = "json"`: the body. JSON in whose strings `{alert}`, `{status}`, `{summary}`, `{detail}`,
    /// `{worker_type}`, `{instance}`, `{at}` and `{dropped}` are replaced. Default: an object of all of them.
    pub template: Option<String>,
    /// Alerts that this webhook gets. Default: all of them.
    pub alerts: BTreeSet<AlertKind>,
    /// Whether to send a message when an alert has ended, too.
    pub send_resolved: bool,
    /// Seconds that an alert must last before it is sent. A new leader and a refused configuration are sent
    /// immediately.
    #[schemars(range(max = 86_400))]
    pub after_seconds: u64,
    /// Maximum messages per minute. Further messages wait; at most 64 of them, the rest are dropped and counted.
    #[schemars(range(min = 1, max = 600))]
    pub per_minute: u32,
    /// Timeout of a request, in seconds.
    #[schemars(range(min = 1, max = 300))]
    pub timeout_seconds: u64,
}

impl Default for NotifySettings {
    fn default() -> Self {
        Self {
            name: None,
            url: None,
            url_file: None,
            format: NotifyFormat::default(),
            template: None,
            alerts: BTreeSet::new(),
            send_resolved: true,
            after_seconds: 60,
            per_minute: 10,
            timeout_seconds: 10,
        }
    }
}

/// Format of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NotifyFormat {
    /// JSON: an object of every field, or the template.
    #[default]
    Json,
    /// Incoming webhook of Slack, Mattermost or Rocket.Chat.
    Slack,
    /// Webhook of a Discord channel.
    Discord,
    /// Workflow of Microsoft Teams that posts an Adaptive Card.
    Teams,
    /// CloudEvents 1.0 in structured mode.
    CloudEvents,
}

/// Kind of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AlertKind {
    /// A pool has `max_workers` workers while jobs wait.
    PoolAtMaximum,
    /// Workers end repeatedly before they are ready, or soon after.
    CrashLoop,
    /// The platform does not start workers that the autoscaler requested.
    BlockedStart,
    /// The backend does not answer or refuses a request.
    BackendFailing,
    /// Redis does not answer.
    RedisUnreachable,
    /// Redis refuses writes.
    RedisRefusesWrites,
    /// Workers are silent, and the autoscaler does not replace them yet, because their silence is no evidence.
    GuardHolding,
    /// Another autoscaler leads.
    LeaderChanged,
    /// No autoscaler leads. The only alert that a standby sends.
    NobodyLeads,
    /// A new configuration is invalid; the previous one stays in force.
    ConfigRefused,
}

impl AlertKind {
    /// Returns the name in the configuration and in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PoolAtMaximum => "pool_at_maximum",
            Self::CrashLoop => "crash_loop",
            Self::BlockedStart => "blocked_start",
            Self::BackendFailing => "backend_failing",
            Self::RedisUnreachable => "redis_unreachable",
            Self::RedisRefusesWrites => "redis_refuses_writes",
            Self::GuardHolding => "guard_holding",
            Self::LeaderChanged => "leader_changed",
            Self::NobodyLeads => "nobody_leads",
            Self::ConfigRefused => "config_refused",
        }
    }
}

impl NotifySettings {
    /// Returns the name of the webhook; `index` is its position in the configuration, from 0.
    pub fn name(&self, index: usize) -> String {
        self.name.clone().unwrap_or_else(|| format!("notify-{}", index + 1))
    }

    /// Returns whether this webhook gets such alerts.
    pub fn wants(&self, kind: AlertKind) -> bool {
        self.alerts.is_empty() || self.alerts.contains(&kind)
    }

    /// Returns `after_seconds` as a duration.
    pub fn after(&self) -> Duration {
        Duration::from_secs(self.after_seconds)
    }

    /// Returns `timeout_seconds` as a duration.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds)
    }

    /// Returns whether messages of both go to the same place.
    pub fn has_receiver_of(&self, other: &Self) -> bool {
        let url = |of: &Self| of.url.as_ref().map(|url| url.expose_secret().to_owned());
        url(self) == url(other) && self.url_file == other.url_file
    }

    /// Returns whether both have the same values, secrets included.
    pub(super) fn equals(&self, other: &Self) -> bool {
        self.has_receiver_of(other) && serde_json::json!(self) == serde_json::json!(other)
    }

    /// Returns the invalid settings, each as key and problem.
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        match (&self.url, &self.url_file) {
            (None, None) => problems.push(("url", "is missing; set `url` or `url_file`".to_owned())),
            (Some(url), None) => {
                problems.extend(webhook_url_problem(url.expose_secret()).map(|problem| ("url", problem)));
            }
            _ => {}
        }
        if let Some(template) = &self.template {
            if self.format != NotifyFormat::Json {
                problems
                    .push(("template", "has an effect only with `format = \"json\"`; remove one of them".to_owned()));
            } else if serde_json::from_str::<serde_json::Value>(template).is_err() {
                let cure = "write an object such as '{\"text\": \"{summary}\"}'";
                problems.push(("template", format!("is not JSON; {cure}")));
            }
        }
        if self.name.as_deref().is_some_and(|name| name.trim().is_empty() || name.len() > 64) {
            problems.push(("name", "is empty or longer than 64 bytes".to_owned()));
        }
        problems
    }
}

/// Returns why a URL can't be the URL of a webhook, without quoting it.
pub fn webhook_url_problem(url: &str) -> Option<String> {
    let usable = Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    (!usable).then(|| "is not a URL with https:// or http://".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(toml: &str) -> NotifySettings {
        toml::from_str(toml).unwrap()
    }

    fn keys(toml: &str) -> Vec<&'static str> {
        settings(toml).problems().into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn problems_name_the_key_and_never_the_url() {
        assert_eq!(keys(""), ["url"]);
        assert_eq!(keys("url = \"https://hooks.example/T/B/secret\""), [""; 0]);
        assert_eq!(keys("url_file = \"/run/secrets/hook\""), [""; 0]);
        assert_eq!(keys("url = \"hooks.example/secret\""), ["url"]);
        assert!(!format!("{:?}", settings("url = \"secret-word\"").problems()).contains("secret-word"));
        assert_eq!(keys("url_file = \"f\"\ntemplate = '{\"text\": \"{summary}\"}'"), [""; 0]);
        assert_eq!(keys("url_file = \"f\"\ntemplate = 'text: {summary}'"), ["template"]);
        assert_eq!(keys("url_file = \"f\"\nformat = \"slack\"\ntemplate = '{}'"), ["template"]);
    }

    #[test]
    fn a_url_is_masked_and_compared() {
        let one = settings("url = \"https://hooks.example/secret-word\"");
        let shown = format!("{one:?} {}", serde_json::json!(one));
        assert!(!shown.contains("secret-word"), "{shown}");
        assert!(one.equals(&one.clone()));
        assert!(!one.equals(&settings("url = \"https://hooks.example/other-word\"")));
    }
}
