//! The keys that feed a worker type: named queues, and patterns for queues that come and go; and the demand of several
//! queues.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wildmatch::WildMatch;

use super::{Demand, keys};

/// How the depths of several queues combine into the one depth that sizes the pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Combine {
    /// The jobs of all queues.
    #[default]
    Sum,
    /// The jobs of the queue with the most jobs; the pool is sized for that queue, whatever waits in the others.
    Max,
}

impl Combine {
    /// Returns the name in the settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Max => "max",
        }
    }
}

/// Suffixes of the keys that swarm keeps next to a stream. A queue's name never ends in one of them.
const BESIDE_A_STREAM: [&str; 2] = [":dead", ":delayed"];

/// A pattern of keys in which `*` matches any text, also the empty one. Redis must understand the pattern in the same
/// way, so no other character with a meaning in Redis patterns may occur.
#[derive(Clone, Debug)]
pub struct QueuePattern {
    text: Box<str>,
    matcher: WildMatch,
}

impl QueuePattern {
    /// Returns whether a text is a pattern rather than the name of a key.
    pub fn is_pattern(text: &str) -> bool {
        text.contains('*')
    }

    /// Parses a pattern.
    ///
    /// # Errors
    /// What is wrong with the text, and the cure.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.contains(['?', '[', ']', '\\']) {
            return Err("in a pattern only * has a meaning, and ?, [, ] and \\ can't be written; use * for them");
        }
        if text.chars().all(|c| c == '*') {
            return Err("it would match every key; begin it with what the names of the queues have in common");
        }
        Ok(Self { text: text.into(), matcher: WildMatch::new(text) })
    }

    /// Returns the pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns whether `key` can be a queue by this pattern: it matches, and it is not one of swarm's own keys.
    pub fn takes(&self, key: &str) -> bool {
        self.matcher.matches(key)
            && !BESIDE_A_STREAM.iter().any(|end| key.ends_with(end))
            && !matches!(key, keys::SCALING_EVENTS | keys::WORKER_STATUS)
    }
}

/// Returns one pattern that matches each key that one of `patterns` matches: what the patterns begin and end with in
/// common, with `*` between, which also matches other keys. Only `*` may have a meaning in `patterns`.
pub fn covering_pattern<S: AsRef<str>>(patterns: &[S]) -> String {
    let mut texts = patterns.iter().map(AsRef::as_ref);
    let Some(first) = texts.next() else { return String::new() };
    if texts.clone().all(|text| text == first) {
        return first.to_owned();
    }
    let (start, end) = texts.map(ends).fold(ends(first), |(start, end), other| {
        let common_start = start.chars().zip(other.0.chars()).take_while(|(a, b)| a == b);
        let start_length: usize = common_start.map(|(c, _)| c.len_utf8()).sum();
        let common_end = end.chars().rev().zip(other.1.chars().rev()).take_while(|(a, b)| a == b);
        let end_length: usize = common_end.map(|(c, _)| c.len_utf8()).sum();
        (&start[..start_length], &end[end.len() - end_length..])
    });
    format!("{start}*{end}")
}

/// Returns the text before the first `*` and the text behind the last.
fn ends(pattern: &str) -> (&str, &str) {
    let start = pattern.split_once('*').map_or(pattern, |(start, _)| start);
    (start, pattern.rsplit_once('*').map_or("", |(_, end)| end))
}

impl PartialEq for QueuePattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for QueuePattern {}

/// The queues of one worker type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queues {
    /// Key of its own queue, which receives its jobs unless the publisher names another queue.
    pub own: String,
    /// Keys of further named queues.
    pub others: Vec<String>,
    /// Patterns of further queues.
    pub patterns: Vec<QueuePattern>,
}

impl Queues {
    /// Returns a single queue.
    pub fn one(own: impl Into<String>) -> Self {
        Self { own: own.into(), others: Vec::new(), patterns: Vec::new() }
    }

    /// Returns the named queues, the own queue first.
    pub fn named(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.own.as_str()).chain(self.others.iter().map(String::as_str))
    }

    /// Returns whether the own queue is the only one.
    pub fn is_one(&self) -> bool {
        self.others.is_empty() && self.patterns.is_empty()
    }

    /// Returns whether a key that is not named is one of the queues by a pattern.
    pub fn finds(&self, key: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.takes(key)) && self.named().all(|named| named != key)
    }
}

/// Demand of one of several queues, as the probe read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QueueDemand {
    /// Key of the queue.
    pub queue: Arc<str>,
    /// Unfinished work in the queue.
    pub demand: Demand,
}

/// The queue with the most unfinished jobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LongestQueue {
    /// Key of the queue.
    pub queue: Arc<str>,
    /// Known unfinished jobs in the queue.
    pub jobs: u64,
}

/// The queues of a worker type that has several, as of one probe. Their total is the worker type's [`Demand`]. This
/// type adds what the total does not say: the least amount when a part is unknown, and the share of each queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QueueDemands {
    /// How the depths combine into the one that sizes the pool.
    pub combine: Combine,
    /// Number of queues.
    pub count: usize,
    /// Known undelivered jobs in all queues.
    pub waiting: u64,
    /// Known unfinished jobs in all queues; `None` if nothing is known about any queue.
    pub unfinished: Option<u64>,
    /// The longest of the queues whose depth is known.
    pub longest: Option<LongestQueue>,
    /// The named queues, in the order of the settings, and then some of the queues that patterns found: unreadable
    /// queues first, then the longest.
    pub shown: Vec<QueueDemand>,
}

impl QueueDemands {
    /// Returns the unfinished jobs that size the pool; a lower limit if a part is unknown. `None` if nothing is known.
    pub fn sized_by(&self) -> Option<u64> {
        match self.combine {
            Combine::Sum => self.unfinished,
            Combine::Max => self.longest.as_ref().map(|longest| longest.jobs),
        }
    }

    /// Returns the number of queues that `shown` does not contain.
    pub fn left_out(&self) -> usize {
        self.count.saturating_sub(self.shown.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> QueuePattern {
        QueuePattern::parse(text).expect("it is one")
    }

    #[test]
    fn a_pattern_takes_what_redis_would_match_but_for_keys_of_our_own() {
        for (text, key, takes) in [
            ("tenant-*:jobs", "tenant-a:jobs", true),
            ("tenant-*:jobs", "tenant-:jobs", true),
            ("tenant-*:jobs", "tenant-a:jobs:more", false),
            ("tenant-*", "tenant-a:jobs:dead", false),
            ("tenant-*", "{tenant-a:jobs}:dead", false),
            ("tenant-*", "tenant-a:jobs:delayed", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c", false),
            ("scal*", "scaling:events", false),
            ("worker:*", "worker:status", false),
            ("größe-*", "größe-ß", true),
        ] {
            assert_eq!(pattern(text).takes(key), takes, "{text} {key}");
        }
    }

    #[test]
    fn what_redis_would_read_in_another_way_is_refused() {
        for text in ["a[bc]*", "a\\*", "a?*", "*", "**"] {
            assert!(QueuePattern::parse(text).is_err(), "{text}");
        }
        assert!(!QueuePattern::is_pattern("a[b]?"));
    }

    #[test]
    fn one_pattern_covers_several() {
        for (patterns, covering) in [
            (&["tenant-*:jobs"][..], "tenant-*:jobs"),
            (&["tenant-*:jobs", "tenant-*:jobs"], "tenant-*:jobs"),
            (&["tenant-a*:jobs", "tenant-b-*-x:jobs"], "tenant-*:jobs"),
            (&["tenant-*", "*:jobs"], "*"),
            (&["tenant-*:dead", "{tenant-*}:dead"], "*:dead"),
            (&["a*b*c", "a*c"], "a*c"),
            (&["abc*", "abc"], "abc*"),
            (&["größe-*ß", "grõße-*ğ"], "gr*"),
            (&[], ""),
        ] {
            assert_eq!(covering_pattern(patterns), covering, "{patterns:?}");
        }
    }

    #[test]
    fn a_queue_that_is_named_is_not_found_as_well() {
        let queues = Queues { own: "a:jobs".into(), others: vec!["b:jobs".into()], patterns: vec![pattern("*:jobs")] };
        assert_eq!(queues.named().collect::<Vec<_>>(), ["a:jobs", "b:jobs"]);
        assert!(!queues.finds("a:jobs") && !queues.finds("b:jobs") && queues.finds("c:jobs") && !queues.is_one());
        assert!(Queues::one("a:jobs").is_one());
    }
}
