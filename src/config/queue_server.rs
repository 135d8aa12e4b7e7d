//! The Redis server that has the queues of a worker type: the top-level one, or one of the type's own. swarm's own keys
//! are on the top-level server in either case.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};

use super::{RedisUrl, Settings, WorkerTypeSettings, redact::masked_url};

/// URL of a Redis server. It is compared as a whole and shown with its password masked.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct QueueRedisUrl(SecretString);

impl QueueRedisUrl {
    /// Returns the URL with its secrets.
    pub fn secret(&self) -> &SecretString {
        &self.0
    }
}

impl From<&str> for QueueRedisUrl {
    fn from(url: &str) -> Self {
        Self(url.into())
    }
}

impl PartialEq for QueueRedisUrl {
    fn eq(&self, other: &Self) -> bool {
        self.0.expose_secret() == other.0.expose_secret()
    }
}

impl Serialize for QueueRedisUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&masked_url(self.0.expose_secret()))
    }
}

/// What a started worker gets as `REDIS_URL`.
#[derive(Clone, Debug, PartialEq)]
pub enum WorkerRedisUrl {
    /// The URL that the autoscaler has for its workers.
    Scaler,
    /// The URL of the worker type's own server.
    Own(QueueRedisUrl),
    /// No URL: the workers belong to a framework, and bring their own.
    Absent,
}

impl WorkerRedisUrl {
    /// Returns the URL. `scaler` is the one that the autoscaler has for its workers.
    pub fn resolve<'a>(&'a self, scaler: &'a SecretString) -> Option<&'a SecretString> {
        match self {
            Self::Scaler => Some(scaler),
            Self::Own(url) => Some(url.secret()),
            Self::Absent => None,
        }
    }
}

/// A Redis server with queues, and the enabled worker types whose queues they are.
#[derive(Clone, Debug)]
pub struct QueueServer<'a> {
    /// URL of the server.
    pub url: &'a SecretString,
    /// The worker types, by name.
    pub types: Vec<(&'a str, &'a WorkerTypeSettings)>,
}

impl Settings {
    /// Returns the URL of the server that has the queues of a worker type.
    pub fn queue_redis_url<'a>(&'a self, of: &'a WorkerTypeSettings) -> &'a SecretString {
        of.redis_url.as_ref().map_or(&self.redis_url, QueueRedisUrl::secret)
    }

    /// Returns whether the queues of a worker type are on a Redis Cluster.
    pub fn is_on_cluster(&self, of: &WorkerTypeSettings) -> bool {
        matches!(RedisUrl::parse(self.queue_redis_url(of).expose_secret()), Ok(RedisUrl::Cluster(_)))
    }

    /// Returns the servers that have queues: the top-level one first, with or without worker types, then the others by
    /// the name of their first worker type. Worker types with the same URL share a server.
    pub fn queue_servers(&self) -> Vec<QueueServer<'_>> {
        let mut servers = vec![QueueServer { url: &self.redis_url, types: Vec::new() }];
        let mut places = BTreeMap::from([(self.redis_url.expose_secret(), 0)]);
        for (name, of) in self.enabled() {
            let url = self.queue_redis_url(of);
            let place = *places.entry(url.expose_secret()).or_insert(servers.len());
            if place == servers.len() {
                servers.push(QueueServer { url, types: Vec::new() });
            }
            servers[place].types.push((name, of));
        }
        servers
    }
}

impl WorkerTypeSettings {
    /// Returns what its workers get as `REDIS_URL`. Workers of a framework never get the top-level URL.
    pub fn worker_redis_url(&self) -> WorkerRedisUrl {
        match (&self.redis_url, self.framework) {
            (Some(own), _) => WorkerRedisUrl::Own(own.clone()),
            (None, Some(_)) => WorkerRedisUrl::Absent,
            (None, None) => WorkerRedisUrl::Scaler,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(toml: &str) -> Settings {
        toml::from_str(toml).expect("these are settings")
    }

    #[test]
    fn worker_types_with_the_same_url_share_a_server_and_the_top_level_one_comes_first() {
        let settings = settings(
            "redis_url = \"redis://a\"\n[worker_types.a]\nkind = \"list\"\nredis_url = \"redis://b/1\"\n\
             [worker_types.b]\n[worker_types.c]\nkind = \"list\"\nredis_url = \"redis://b/1\"\n\
             [worker_types.d]\nenabled = false\nredis_url = \"redis://c\"\n\
             [worker_types.e]\nkind = \"list\"\nredis_url = \"redis://a\"\n",
        );
        let servers = settings.queue_servers();
        let names = |of: &QueueServer<'_>| of.types.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" ");
        let told: Vec<_> = servers.iter().map(|of| (of.url.expose_secret(), names(of))).collect();
        assert_eq!(told, [("redis://a", "b e".to_owned()), ("redis://b/1", "a c".to_owned())]);
    }

    #[test]
    fn workers_of_a_framework_never_get_the_top_level_url() {
        let settings = settings(
            "[worker_types.ours]\n[worker_types.rq]\nframework = \"rq\"\n\
             [worker_types.own]\nframework = \"rq\"\nredis_url = \"redis://b\"\n",
        );
        let top_level = SecretString::from("redis://top");
        let given = |name: &str| {
            let url = settings.worker_types[name].worker_redis_url();
            url.resolve(&top_level).map(|url| url.expose_secret().to_owned())
        };
        assert_eq!(given("ours").as_deref(), Some("redis://top"));
        assert_eq!(given("rq"), None);
        assert_eq!(given("own").as_deref(), Some("redis://b"));
    }

    #[test]
    fn a_url_is_compared_with_its_password_and_shown_without() {
        let [one, other] = ["redis://u:hunter2@b", "redis://u:hunter3@b"].map(QueueRedisUrl::from);
        assert_ne!(one, other);
        assert_eq!(serde_json::json!(one), serde_json::json!(other));
        assert!(!format!("{one:?} {}", serde_json::json!(one)).contains("hunter2"));
    }
}
