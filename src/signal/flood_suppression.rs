//! The notification channels of a worker type, and the worker types that share them. A flooded worker type is
//! unsubscribed from all its channels until just before its next probe.

use super::{Directory, WatchedType};

/// Channels of keyspace notifications.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Channels {
    /// Channels of configured queues.
    pub(super) names: Vec<String>,
    /// Channel patterns for PSUBSCRIBE: a pattern of queues is a pattern of channels too.
    pub(super) patterns: Vec<String>,
}

impl Channels {
    /// Adds the channels of one worker type. `prefix` precedes the key in a channel's name.
    pub(super) fn add(&mut self, prefix: &str, of: &WatchedType) {
        self.names.extend(of.named().map(|queue| format!("{prefix}{queue}")));
        self.patterns.extend(of.patterns().map(|pattern| format!("{prefix}{pattern}")));
        self.patterns.extend(of.prefixes().map(|beginning| format!("{prefix}{}*", escaped(beginning))));
    }
}

/// Escapes a text for Redis' glob patterns.
fn escaped(text: &str) -> String {
    text.chars().flat_map(|c| "*?[]\\^".contains(c).then_some('\\').into_iter().chain([c])).collect()
}

/// Returns the other worker types that share a channel with this one.
pub(super) fn sharing(directory: &Directory, index: u32) -> Vec<u32> {
    let of = &directory.watched()[index as usize];
    let mut sharing: Vec<u32> = of.named().flat_map(|queue| directory.naming(queue.as_bytes())).copied().collect();
    for pattern in of.patterns() {
        let types = directory
            .discovery()
            .types()
            .iter()
            .filter(|other| other.queues.patterns.iter().any(|others| others.as_str() == pattern));
        sharing.extend(types.map(|other| other.index));
    }
    for prefix in of.prefixes() {
        let others = (0_u32..).zip(directory.watched());
        let others = others.filter(|(_, other)| other.prefixes().any(|theirs| theirs == prefix));
        sharing.extend(others.map(|(index, _)| index));
    }
    sharing.sort_unstable();
    sharing.dedup();
    sharing.retain(|other| *other != index);
    sharing
}

/// Returns the worker types to unmute together, this one first: the muted types that share a channel with it, and in
/// turn the muted types that share a channel with those. All of their channels are subscribed again, not only the
/// shared ones.
pub(super) fn muted_with(directory: &Directory, index: u32) -> Vec<u32> {
    let mut all = vec![index];
    let mut next = 0;
    while let Some(&of) = all.get(next) {
        let others = sharing(directory, of).into_iter().filter(|other| directory.mailbox(*other).is_muted());
        let new: Vec<u32> = others.filter(|other| !all.contains(other)).collect();
        all.extend(new);
        next += 1;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{QueuePattern, Queues, WorkerType},
        signal::Several,
    };

    fn watched(name: &str, others: &[&str], patterns: &[&str]) -> WatchedType {
        let queues = Queues {
            own: format!("{name}:jobs"),
            others: others.iter().map(ToString::to_string).collect(),
            patterns: patterns.iter().map(|text| QueuePattern::parse(text).expect("it is one")).collect(),
        };
        let several = (!queues.is_one()).then(|| Box::new(Several { queues, group: name.into() }));
        WatchedType {
            worker_type: WorkerType::new(name),
            queue: format!("{name}:jobs").into(),
            kind: crate::queue_kind::QueueKind::Stream,
            several,
            signals: None,
        }
    }

    fn directory() -> Directory {
        Directory::new(vec![
            watched("a", &["x"], &[]),
            watched("b", &["x", "y"], &["t-*"]),
            watched("c", &["y"], &[]),
            watched("d", &[], &["t-*"]),
            watched("e", &["t-1"], &[]),
        ])
    }

    #[test]
    fn who_shares_a_channel_is_deaf_too() {
        let directory = directory();
        assert_eq!(sharing(&directory, 0), [1]);
        assert_eq!(sharing(&directory, 1), [0, 2, 3], "`t-1` is heard of by its own channel");
        assert_eq!(sharing(&directory, 4), [0; 0]);
    }

    #[test]
    fn all_who_were_muted_along_are_unmuted_together() {
        let directory = directory();
        for index in [0, 1, 3] {
            directory.mailbox(index).mute();
        }
        assert_eq!(muted_with(&directory, 0), [0, 1, 3], "c is not muted");
        let mut channels = Channels::default();
        channels.add("p:", &directory.watched()[1]);
        assert_eq!(channels.names, ["p:b:jobs", "p:x", "p:y"]);
        assert_eq!(channels.patterns, ["p:t-*"]);
    }
}
