//! Machines as the API tells of them, and what their states mean to a scaler. Field names and states are those of
//! <https://fly.io/docs/machines/api/machines-resource/> and <https://fly.io/docs/machines/machine-states/>.

use serde::Deserialize;
use serde_json::Value;

use crate::model::Timestamp;

/// Metadata key of the process group.
pub(super) const GROUP: &str = "fly_process_group";
/// Its older name, which machines made long ago still have.
const OLD_GROUP: &str = "process_group";
/// Metadata key of the launch that made a machine: ours, unique.
pub(super) const LAUNCH: &str = "swarm_launch";
/// Group names of machines that are not workers.
const RESERVED: [&str; 4] =
    ["release_command", "fly_app_release_command", "fly_app_test_machine_command", "fly_app_console"];

/// A machine. Missing and unknown fields of the API are tolerated.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Machine {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) state: String,
    pub(super) region: String,
    /// The version of the configuration that runs.
    pub(super) instance_id: String,
    pub(super) config: Option<Value>,
    /// Stands in for `config` while the host does not answer: not fit to be copied.
    incomplete_config: Option<Value>,
    image_ref: Option<ImageRef>,
    created_at: Option<String>,
    updated_at: Option<String>,
    events: Option<Vec<Event>>,
    /// The lease that somebody holds on it. Lists show it without its nonce, which only its holder gets.
    lease: Option<Lease>,
    host_status: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Lease {
    /// Seconds since 1970.
    expires_at: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ImageRef {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Event {
    r#type: String,
    status: String,
    source: String,
    /// Milliseconds since 1970.
    timestamp: u64,
    request: Option<Request>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Request {
    exit_event: Option<Exited>,
    #[serde(rename = "MonitorEvent")]
    monitor: Option<Monitor>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Monitor {
    exit_event: Option<Exited>,
}

/// How a machine's main process ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Exited {
    exit_code: i32,
    guest_signal: i32,
    oom_killed: bool,
    /// Somebody asked for it through the API.
    pub(super) requested_stop: bool,
    /// Fly.io starts it again by its restart policy.
    pub(super) restarting: bool,
}

impl Exited {
    /// Whether it reported success, and how it ended in words.
    pub(super) fn describe(&self) -> (bool, String) {
        if self.oom_killed {
            (false, "out of memory; raise `fly.guest.memory_mb` or `fly.size`".to_owned())
        } else if self.exit_code == 0 && self.guest_signal > 0 {
            (false, format!("signal {}", self.guest_signal))
        } else {
            (self.exit_code == 0, format!("exit code {}", self.exit_code))
        }
    }
}

/// A machine's state, as capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// Runs, or is on its way there.
    Up,
    /// On its way to stand still.
    Leaving,
    /// Exists, does not run, can be started.
    Stopped,
    /// Exists, and can't be started: it failed.
    Broken,
    /// Its host does not answer: its state is unknown, and requests to it fail.
    Unreachable,
    /// No more.
    Gone,
}

impl Machine {
    /// Returns its state as capacity. `now` distinguishes a machine that was just created from one that was never
    /// started.
    pub(super) fn condition(&self, now: Timestamp) -> Condition {
        /// A machine that is launched leaves `created` within this time.
        const LAUNCHING: std::time::Duration = std::time::Duration::from_secs(60);
        if self.host_status.as_deref().is_some_and(|status| !matches!(status, "ok" | "")) {
            return match self.state.as_str() {
                "destroyed" | "destroying" => Condition::Gone,
                _ => Condition::Unreachable,
            };
        }
        match self.state.as_str() {
            "started" | "starting" | "creating" | "restarting" | "updating" | "replacing" => Condition::Up,
            "created" if self.created().is_some_and(|at| now.since(at) < LAUNCHING) => Condition::Up,
            "stopped" | "suspended" | "created" => Condition::Stopped,
            "stopping" | "suspending" => Condition::Leaving,
            "failed" => Condition::Broken,
            // `destroying`, `destroyed`, `launch_failed`, `migrated`, `replaced`; unknown states are not capacity.
            _ => Condition::Gone,
        }
    }

    /// Whether it has been seen to run, not only to be on its way.
    pub(super) fn started(&self) -> bool {
        self.state == "started"
    }

    /// The process group; `None` for machines that are not workers.
    pub(super) fn group(&self) -> Option<&str> {
        let groups = [self.metadata(GROUP), self.metadata(OLD_GROUP)];
        if groups.iter().flatten().any(|group| RESERVED.contains(group)) {
            return None;
        }
        groups.into_iter().flatten().find(|group| !group.is_empty())
    }

    /// The launch of ours that made it, or that made the one it is a copy of.
    pub(super) fn launch(&self) -> Option<&str> {
        self.metadata(LAUNCH)
    }

    fn metadata(&self, key: &str) -> Option<&str> {
        let config = self.config.as_ref().or(self.incomplete_config.as_ref())?;
        config.get("metadata")?.get(key)?.as_str()
    }

    /// Whether somebody holds a lease on it: it is about to be changed.
    pub(super) fn leased(&self, now: Timestamp) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.expires_at.saturating_mul(1_000) > now.0)
    }

    /// The image that it runs, by digest where that is known.
    pub(super) fn image(&self) -> Option<String> {
        let image = self.image_ref.as_ref().filter(|image| !image.repository.is_empty())?;
        let at = if image.registry.is_empty() { String::new() } else { format!("{}/", image.registry) };
        let named = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let which = match (named(&image.digest), named(&image.tag)) {
            (Some(digest), _) => format!("@{digest}"),
            (None, Some(tag)) => format!(":{tag}"),
            (None, None) => return None,
        };
        Some(format!("{at}{}{which}", image.repository))
    }

    /// When it was last changed: of two accounts of a machine, the later one holds.
    pub(super) fn updated(&self) -> Option<Timestamp> {
        self.updated_at.as_deref().and_then(parse)
    }

    fn created(&self) -> Option<Timestamp> {
        self.created_at.as_deref().and_then(parse)
    }

    /// When it was last asked to run.
    pub(super) fn asked_at(&self) -> Option<Timestamp> {
        let starts = self.events.iter().flatten().filter(|event| matches!(event.r#type.as_str(), "start" | "launch"));
        starts.map(|event| Timestamp(event.timestamp)).max().or_else(|| self.created())
    }

    /// How it last ended, if it has since it was last started.
    pub(super) fn exited(&self) -> Option<(Timestamp, Exited)> {
        let exits = self.events.iter().flatten().filter_map(|event| {
            let request = event.request.as_ref()?;
            let monitored = request.monitor.as_ref().and_then(|monitor| monitor.exit_event.as_ref());
            let exited = request.exit_event.as_ref().or(monitored)?;
            (event.r#type == "exit").then(|| (Timestamp(event.timestamp), exited.clone()))
        });
        exits.max_by_key(|(at, _)| *at)
    }

    /// The last of its events, if that is a failure: `launch failed (flyd)`.
    pub(super) fn failed_event(&self) -> Option<String> {
        let last = self.events.iter().flatten().max_by_key(|event| event.timestamp)?;
        let Event { r#type, status, source, .. } = last;
        let by = if source.is_empty() { String::new() } else { format!(" ({source})") };
        (status == "failed" || status.ends_with("_failed")).then(|| format!("event `{type}` {status}{by}"))
    }

    /// A machine for tests.
    #[cfg(test)]
    pub(super) fn made_up(id: &str, state: &str, group: &str) -> Self {
        let config = serde_json::json!({ "metadata": { GROUP: group } });
        Self {
            id: id.to_owned(),
            name: id.to_owned(),
            state: state.to_owned(),
            config: Some(config),
            ..Self::default()
        }
    }
}

fn parse(text: &str) -> Option<Timestamp> {
    let at: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(at.as_millisecond()).ok().map(Timestamp)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn machine(value: Value) -> Machine {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn states_are_worth_what_the_documentation_says() {
        let now = Timestamp(1_700_000_000_000);
        for (state, condition) in [
            ("started", Condition::Up),
            ("starting", Condition::Up),
            ("replacing", Condition::Up),
            ("created", Condition::Stopped),
            ("stopped", Condition::Stopped),
            ("suspended", Condition::Stopped),
            ("stopping", Condition::Leaving),
            ("failed", Condition::Broken),
            ("launch_failed", Condition::Gone),
            ("destroying", Condition::Gone),
            ("something new", Condition::Gone),
        ] {
            assert_eq!(Machine::made_up("a", state, "g").condition(now), condition, "{state}");
        }
        let fresh = machine(json!({ "state": "created", "created_at": "2023-11-14T22:13:00Z" }));
        assert_eq!(fresh.condition(now), Condition::Up, "20 s old: being launched");
        let unreachable = machine(json!({ "state": "started", "host_status": "unreachable" }));
        assert_eq!(unreachable.condition(now), Condition::Unreachable);
    }

    #[test]
    fn a_lease_counts_until_it_expires() {
        let leased = machine(json!({ "lease": { "expires_at": 100, "owner": "ada@example.org", "description": "" } }));
        assert!(leased.leased(Timestamp(99_999)) && !leased.leased(Timestamp(100_000)));
        // Whoever makes a machine with a lease gets its nonce once; it says nothing later.
        assert!(!machine(json!({ "nonce": "x" })).leased(Timestamp(0)));
    }

    #[test]
    fn the_group_is_found_by_either_key_and_not_for_what_is_no_worker() {
        for (metadata, group) in [
            (json!({ "fly_process_group": "web" }), Some("web")),
            (json!({ "process_group": "old" }), Some("old")),
            (json!({ "process_group": "old", "fly_process_group": "new" }), Some("new")),
            (json!({ "process_group": "release_command", "fly_process_group": "web" }), None),
            (json!({ "fly_process_group": "fly_app_console" }), None),
            (json!({}), None),
        ] {
            assert_eq!(machine(json!({ "config": { "metadata": metadata } })).group(), group, "{metadata}");
        }
        let unreachable = machine(json!({ "incomplete_config": { "metadata": { "fly_process_group": "web" } } }));
        assert_eq!(unreachable.group(), Some("web"));
    }

    #[test]
    fn the_image_is_named_by_digest_where_there_is_one() {
        let image = |value| machine(json!({ "image_ref": value })).image();
        let full = json!({ "registry": "registry.fly.io", "repository": "app", "tag": "v1", "digest": "sha256:ab" });
        assert_eq!(image(full).as_deref(), Some("registry.fly.io/app@sha256:ab"));
        assert_eq!(image(json!({ "repository": "app", "tag": "v1" })).as_deref(), Some("app:v1"));
        assert_eq!(image(json!({ "repository": "app" })), None);
    }

    #[test]
    fn the_last_exit_is_told_with_its_cause() {
        let exit =
            |at: u64, event: Value| json!({ "type": "exit", "timestamp": at, "request": { "exit_event": event } });
        let ended = machine(json!({ "events": [
            exit(5, json!({ "exit_code": 137, "oom_killed": true, "guest_signal": 9 })),
            exit(3, json!({ "exit_code": 0, "requested_stop": true })),
        ]}));
        let (at, exited) = ended.exited().unwrap();
        assert_eq!(at, Timestamp(5));
        assert!(exited.describe().1.starts_with("out of memory"));
        assert_eq!(machine(json!({ "events": null })).exited(), None);
    }
}
