//! Names of the keys that one script or transaction uses together. A single server accepts any names. On a Redis
//! Cluster the keys must hash to the same slot, and the slot is computed from the part in braces if the name has one
//! (redis.io, "Redis cluster specification", hash tags).

use super::{WorkerType, keys};

/// Naming scheme of the keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// The names of `docs/protocol.md`, unchanged.
    #[default]
    Single,
    /// A key that belongs to a stream carries the stream's name in braces; a key that belongs to the history carries
    /// `{scaling:events}`.
    Cluster,
}

impl Layout {
    /// Returns `{stream}:delayed`, a sorted set of jobs. The score is the time at which a job is due, in milliseconds.
    pub fn delayed(self, stream: &str) -> String {
        format!("{}:delayed", self.of_stream(stream))
    }

    /// Returns `{stream}:once:{idempotency key}`, which holds the id of the job that was published under that key.
    pub fn once(self, stream: &str, idempotency_key: &str) -> String {
        format!("{}:once:{idempotency_key}", self.of_stream(stream))
    }

    /// Returns `{stream}:cancelled`, a hash of the cancelled jobs that no worker has dropped or stopped yet.
    pub fn cancelled(self, stream: &str) -> String {
        format!("{}:cancelled", self.of_stream(stream))
    }

    /// Returns `{stream}:progress:{job id}`, a hash with a TTL: how far a running job is.
    pub fn progress(self, stream: &str, job_id: &str) -> String {
        format!("{}:progress:{job_id}", self.of_stream(stream))
    }

    /// Returns `{stream}:dead`, the key of the dead letters.
    pub fn dead_letters(self, stream: &str) -> String {
        format!("{}:dead", self.of_stream(stream))
    }

    /// Returns `scaler:leader`, a hash with a TTL: the leader's lease, with `holder`, `instance` and `token`. It is
    /// also the channel on which a leader announces that it gave up its lease.
    pub fn leader(self) -> String {
        self.of_history("scaler:leader")
    }

    /// Returns `scaler:leader:token`, the counter of all terms; its value is the fencing token of the present term.
    pub fn leader_token(self) -> String {
        self.of_history("scaler:leader:token")
    }

    /// Returns `scaler:state:{type}`, a hash with the cooldown state that outlives a restart.
    pub fn scaler_state(self, worker_type: &WorkerType) -> String {
        self.of_history(&format!("scaler:state:{worker_type}"))
    }

    /// Returns `scaler:override:{type}`, a hash with `mode`, `workers`, `by` and `why`. It has a TTL if the override
    /// ends by itself.
    pub fn scaler_override(self, worker_type: &WorkerType) -> String {
        self.of_history(&format!("scaler:override:{worker_type}"))
    }

    /// Returns `session-lost:{type}:{name}`, a key with a TTL: when a session was lost, and which worker held it.
    pub fn session_lost(self, worker_type: &WorkerType, name: &str) -> String {
        let session = keys::session(worker_type, name);
        match self {
            Self::Cluster if !Self::has_hash_tag(&session) => format!("session-lost:{{{session}}}"),
            _ => format!("session-lost:{worker_type}:{name}"),
        }
    }

    /// Returns whether the slot depends on only a part of the name.
    pub fn has_hash_tag(name: &str) -> bool {
        hash_tag(name).is_some()
    }

    /// Returns the part of a key's name that determines its slot: one command may use keys whose parts are equal. On a
    /// single server the part is empty, because one command may use all keys.
    pub fn part(self, name: &str) -> &str {
        match self {
            Self::Single => "",
            Self::Cluster => hash_tag(name).unwrap_or(name),
        }
    }

    fn of_stream(self, stream: &str) -> String {
        match self {
            Self::Cluster if !Self::has_hash_tag(stream) => format!("{{{stream}}}"),
            _ => stream.to_owned(),
        }
    }

    /// Appends the braces at the end, so that ACL rules by prefix (`scaler:*`) match both layouts.
    fn of_history(self, key: &str) -> String {
        match self {
            Self::Single => key.to_owned(),
            Self::Cluster => format!("{key}{{{}}}", keys::SCALING_EVENTS),
        }
    }
}

/// Returns the text in the first pair of braces of a name, if there is one and it is not empty.
fn hash_tag(name: &str) -> Option<&str> {
    let (_, behind) = name.split_once('{')?;
    let (tag, _) = behind.split_once('}')?;
    Some(tag).filter(|tag| !tag.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_a_single_server_the_names_are_those_of_the_protocol() {
        let (layout, browser) = (Layout::Single, WorkerType::new("browser"));
        assert_eq!(layout.delayed("browser:jobs"), "browser:jobs:delayed");
        assert_eq!(layout.once("browser:jobs", "k"), "browser:jobs:once:k");
        assert_eq!(layout.dead_letters("browser:jobs"), "browser:jobs:dead");
        assert_eq!(layout.progress("browser:jobs", "j1"), "browser:jobs:progress:j1");
        assert_eq!((layout.leader(), layout.leader_token()), ("scaler:leader".into(), "scaler:leader:token".into()));
        assert_eq!(layout.scaler_state(&browser), "scaler:state:browser");
        assert_eq!(layout.scaler_override(&browser), "scaler:override:browser");
        assert_eq!(layout.session_lost(&browser, "a"), "session-lost:browser:a");
        assert_eq!((layout.part("{b}:jobs"), layout.part("b:jobs")), ("", ""));
    }

    #[test]
    fn on_a_cluster_what_belongs_together_has_the_same_tag() {
        let (layout, browser) = (Layout::Cluster, WorkerType::new("browser"));
        assert_eq!(layout.delayed("browser:jobs"), "{browser:jobs}:delayed");
        assert_eq!(layout.once("{browser}:jobs", "a{b}"), "{browser}:jobs:once:a{b}");
        assert_eq!(layout.progress("browser:jobs", "a{b}"), "{browser:jobs}:progress:a{b}");
        assert_eq!((layout.part("{b}:jobs"), layout.part("b:jobs"), layout.part("{}b")), ("b", "b:jobs", "{}b"));
        assert_eq!(layout.leader(), "scaler:leader{scaling:events}");
        assert_eq!(layout.scaler_override(&browser), "scaler:override:browser{scaling:events}");
        assert_eq!(layout.session_lost(&browser, "a"), "session-lost:{session:browser:a}");
        assert_eq!(layout.session_lost(&browser, "a{b}"), "session-lost:browser:a{b}");
    }
}
