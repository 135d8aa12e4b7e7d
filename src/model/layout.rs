//! How keys are named that one script or transaction touches together. On a single server that is nobody's concern; on
//! a Redis Cluster they must hash to the same slot, and a slot is computed from what stands in braces in the name, if
//! anything does (redis.io, "Redis cluster specification", hash tags).

use super::{WorkerType, keys};

/// Which names are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// The names of `docs/protocol.md`, as they are.
    #[default]
    Single,
    /// What belongs to a stream carries the stream's name in braces, and what belongs to the history that of the
    /// history.
    Cluster,
}

impl Layout {
    /// `{stream}:delayed`, a sorted set: jobs by the time in milliseconds at which they are due.
    pub fn delayed(self, stream: &str) -> String {
        format!("{}:delayed", self.of_stream(stream))
    }

    /// `{stream}:once:{idempotency key}`: the id of the job that was published under that key.
    pub fn once(self, stream: &str, idempotency_key: &str) -> String {
        format!("{}:once:{idempotency_key}", self.of_stream(stream))
    }

    /// `{stream}:dead`.
    pub fn dead_letters(self, stream: &str) -> String {
        format!("{}:dead", self.of_stream(stream))
    }

    /// `scaler:leader`, a hash with a TTL, the lease of the autoscaler that leads: `holder`, `instance`, `token`. Also
    /// the channel on which the end of a lease that was given up is told.
    pub fn leader(self) -> String {
        self.of_history("scaler:leader")
    }

    /// `scaler:leader:token`, which counts the terms of all leaders: the fencing token of the present one.
    pub fn leader_token(self) -> String {
        self.of_history("scaler:leader:token")
    }

    /// `scaler:state:{type}`, a hash: cooldown state that outlives a restart.
    pub fn scaler_state(self, worker_type: &WorkerType) -> String {
        self.of_history(&format!("scaler:state:{worker_type}"))
    }

    /// `scaler:override:{type}`, a hash, with a TTL if it is to end by itself: `mode`, `workers`, `by`, `why`.
    pub fn scaler_override(self, worker_type: &WorkerType) -> String {
        self.of_history(&format!("scaler:override:{worker_type}"))
    }

    /// `session-lost:{type}:{name}`: when a session was lost and whose it was, with a TTL.
    pub fn session_lost(self, worker_type: &WorkerType, name: &str) -> String {
        let session = keys::session(worker_type, name);
        match self {
            Self::Cluster if !Self::has_hash_tag(&session) => format!("session-lost:{{{session}}}"),
            _ => format!("session-lost:{worker_type}:{name}"),
        }
    }

    /// Whether a part of the name alone decides about its slot.
    pub fn has_hash_tag(name: &str) -> bool {
        hash_tag(name).is_some()
    }

    /// Of a key's name the part that decides about its slot: keys that have it in common may be used in one command.
    /// Nothing on a single server, where all may be.
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

    /// The braces come last, so that rights by prefix (`scaler:*`) fit both.
    fn of_history(self, key: &str) -> String {
        match self {
            Self::Single => key.to_owned(),
            Self::Cluster => format!("{key}{{{}}}", keys::SCALING_EVENTS),
        }
    }
}

/// What stands in the first braces of a name, if anything does.
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
        assert_eq!((layout.part("{b}:jobs"), layout.part("b:jobs"), layout.part("{}b")), ("b", "b:jobs", "{}b"));
        assert_eq!(layout.leader(), "scaler:leader{scaling:events}");
        assert_eq!(layout.scaler_override(&browser), "scaler:override:browser{scaling:events}");
        assert_eq!(layout.session_lost(&browser, "a"), "session-lost:{session:browser:a}");
        assert_eq!(layout.session_lost(&browser, "a{b}"), "session-lost:browser:a{b}");
    }
}
