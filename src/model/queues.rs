//! Which keys feed a worker type: those that are named, and patterns of such as come and go; and what was read of
//! several.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wildmatch::WildMatch;

use super::{Demand, keys};

/// How the depths of several queues become the one that workers are scaled by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Combine {
    /// All jobs of all queues.
    #[default]
    Sum,
    /// The jobs of the queue that has most: as many workers as that one needs, whatever waits in the others.
    Max,
}

impl Combine {
    /// As it is written in the settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Max => "max",
        }
    }
}

/// What no name of a queue ends with: swarm's own keys beside a stream.
const BESIDE_A_STREAM: [&str; 2] = [":dead", ":delayed"];

/// A pattern of keys, in which `*` stands for anything, also nothing. Redis understands it in the same way, which is
/// why nothing else that Redis gives a meaning may stand in it.
#[derive(Clone, Debug)]
pub struct QueuePattern {
    text: Box<str>,
    matcher: WildMatch,
}

impl QueuePattern {
    /// Whether a text is meant as a pattern rather than as the name of a key.
    pub fn is_pattern(text: &str) -> bool {
        text.contains('*')
    }

    /// A pattern.
    ///
    /// # Errors
    /// What is wrong with it, and the cure.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.contains(['?', '[', ']', '\\']) {
            return Err("in a pattern only * has a meaning, and ?, [, ] and \\ can't be written; use * for them");
        }
        if text.chars().all(|c| c == '*') {
            return Err("it would match every key; begin it with what the names of the queues have in common");
        }
        Ok(Self { text: text.into(), matcher: WildMatch::new(text) })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether `key` may be a queue by this pattern: it matches, and it is not one of the keys that swarm keeps itself.
    pub fn takes(&self, key: &str) -> bool {
        self.matcher.matches(key)
            && !BESIDE_A_STREAM.iter().any(|end| key.ends_with(end))
            && !matches!(key, keys::SCALING_EVENTS | keys::WORKER_STATUS)
    }
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
    /// Its own, to which its jobs go unless somebody names another.
    pub own: String,
    /// Others that are named.
    pub others: Vec<String>,
    /// Patterns of further ones.
    pub patterns: Vec<QueuePattern>,
}

impl Queues {
    /// A single queue.
    pub fn one(own: impl Into<String>) -> Self {
        Self { own: own.into(), others: Vec::new(), patterns: Vec::new() }
    }

    /// Those that are named: its own first.
    pub fn named(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.own.as_str()).chain(self.others.iter().map(String::as_str))
    }

    /// Whether there is its own and nothing else.
    pub fn is_one(&self) -> bool {
        self.others.is_empty() && self.patterns.is_empty()
    }

    /// Whether a key that is not named is one of its queues by a pattern.
    pub fn finds(&self, key: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.takes(key)) && self.named().all(|named| named != key)
    }
}

/// One of several queues, as the probe saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QueueDemand {
    /// Its key.
    pub queue: Arc<str>,
    /// Unfinished work in it.
    pub demand: Demand,
}

/// The queue with the most unfinished jobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LongestQueue {
    /// Its key.
    pub queue: Arc<str>,
    /// Unfinished jobs known of in it.
    pub jobs: u64,
}

/// The queues of a worker type that has several, as of one look. What they hold together is the worker type's
/// [`Demand`]; here is what that does not tell: at least how much it is if not all of it is known, and what it is made
/// of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QueueDemands {
    /// What the workers are scaled by.
    pub combine: Combine,
    /// How many queues there are.
    pub count: usize,
    /// Undelivered jobs known of in all of them.
    pub waiting: u64,
    /// Unfinished jobs known of in all of them; `None` if nothing is known of any.
    pub unfinished: Option<u64>,
    /// The longest of those of which something is known.
    pub longest: Option<LongestQueue>,
    /// Those that are named, in the order of the settings, and then some of those that were found by patterns: what
    /// can't be read first, then the longest.
    pub shown: Vec<QueueDemand>,
}

impl QueueDemands {
    /// Unfinished jobs that workers are scaled by: at least so many. `None` if nothing is known.
    pub fn sized_by(&self) -> Option<u64> {
        match self.combine {
            Combine::Sum => self.unfinished,
            Combine::Max => self.longest.as_ref().map(|longest| longest.jobs),
        }
    }

    /// Queues that are not among those shown.
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
    fn a_queue_that_is_named_is_not_found_as_well() {
        let queues = Queues { own: "a:jobs".into(), others: vec!["b:jobs".into()], patterns: vec![pattern("*:jobs")] };
        assert_eq!(queues.named().collect::<Vec<_>>(), ["a:jobs", "b:jobs"]);
        assert!(!queues.finds("a:jobs") && !queues.finds("b:jobs") && queues.finds("c:jobs") && !queues.is_one());
        assert!(Queues::one("a:jobs").is_one());
    }
}
