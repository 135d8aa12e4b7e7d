//! Which keys feed a worker type: those that are named, and patterns of such as come and go.

use wildmatch::WildMatch;

use super::keys;

/// What no name of a queue ends with: swarm's own keys beside a stream.
const BESIDE_A_STREAM: [&str; 2] = [":dead", ":delayed"];

/// A pattern of keys, in which `*` stands for anything, also nothing. Redis understands it in the same way, which is why
/// nothing else that Redis gives a meaning may stand in it.
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
