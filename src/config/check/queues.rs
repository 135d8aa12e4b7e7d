//! Checks the keys that worker types read: that they differ, and that no two types take the same jobs.

use std::collections::{BTreeMap, BTreeSet};

use secrecy::ExposeSecret;

use super::{Checks, dotted, pointer};
use crate::{
    config::{
        origin::element_of,
        settings::{Settings, WorkerTypeSettings},
    },
    model::{Combine, QueuePattern, Queues},
    queue_kind::Delivery,
};

/// Returns the JSON pointer of one of the extra queues of a worker type.
pub(super) fn extra_queue(name: &str, index: usize) -> String {
    element_of(&pointer(&["worker_types", name, "extra_queues"]), index)
}

/// A worker type that reads a key, and the setting that names the key.
struct Reader<'a> {
    name: &'a str,
    settings: &'a WorkerTypeSettings,
    /// `job_queue` or `extra_queues`.
    key: &'static str,
}

impl Checks<'_> {
    pub(super) fn extra_queues(&mut self, name: &str, worker_type: &WorkerTypeSettings) {
        for (index, text) in worker_type.extra_queues.iter().enumerate() {
            let at = extra_queue(name, index);
            let before = worker_type.extra_queues.iter().take(index);
            let problem = if text.trim().is_empty() {
                Some("is empty; name the queue, or remove it")
            } else if before.chain([&worker_type.queue(name)]).any(|other| other == text) {
                Some("is one of its queues already; remove it here")
            } else if QueuePattern::is_pattern(text) {
                QueuePattern::parse(text).err()
            } else {
                None
            };
            if let Some(problem) = problem {
                let message = format!("{} = {text:?}: {problem}", dotted(&at));
                self.reject(&[at], message);
            }
        }
        if worker_type.extra_queues.is_empty() && worker_type.combine != Combine::default() {
            self.warn_unused(&pointer(&["worker_types", name, "combine"]), "a single queue");
        }
    }

    /// Refuses queues shared by two worker types that take the same jobs: each would be scaled for all of them.
    pub(super) fn shared_queues(&mut self, settings: &Settings) {
        let queues: Vec<Queues> = settings.worker_types.iter().map(|(name, of)| of.queues(name)).collect();
        // Keys on different servers are different queues.
        let mut by_queue = BTreeMap::<(&str, &str), Vec<Reader<'_>>>::new();
        let mut told = BTreeSet::new();
        let server = |of| settings.queue_redis_url(of).expose_secret();
        for (queues, (name, settings)) in queues.iter().zip(&settings.worker_types) {
            let server = server(settings);
            let keys = std::iter::once("job_queue").chain(std::iter::repeat("extra_queues"));
            // Equal patterns of two types are found by their text.
            let patterns = queues.patterns.iter().map(QueuePattern::as_str);
            for (queue, key) in queues.named().chain(patterns).zip(keys) {
                let reader = Reader { name, settings, key };
                let others = by_queue.entry((server, queue)).or_default();
                if others.iter().any(|other| other.name == name) {
                    continue;
                }
                for other in others.iter().filter(|other| told.insert(between(name, other.name, queue))) {
                    self.sharing(&reader, other, queue);
                }
                others.push(reader);
            }
        }
        for (queues, (name, settings)) in queues.iter().zip(&settings.worker_types) {
            let server = server(settings);
            let reader = Reader { name, settings, key: "extra_queues" };
            for pattern in &queues.patterns {
                let taken = by_queue.iter().filter(|((at, queue), _)| *at == server && pattern.takes(queue));
                let others = taken.flat_map(|((_, queue), readers)| readers.iter().map(move |other| (*queue, other)));
                let others = others.filter(|(_, other)| other.name != name);
                for (queue, other) in others.filter(|(queue, other)| told.insert(between(name, other.name, queue))) {
                    self.sharing(&reader, other, queue);
                }
            }
        }
    }

    fn sharing(&mut self, one: &Reader<'_>, other: &Reader<'_>, queue: &str) {
        if let Some(problem) = conflict(one, other, queue) {
            let of = |reader: &Reader<'_>, key| pointer(&["worker_types", reader.name, key]);
            let keys = |reader| [of(reader, reader.key), of(reader, "group"), of(reader, "kind")];
            let involved: Vec<String> = [one, other].into_iter().flat_map(keys).collect();
            self.reject(&involved, problem);
        }
    }
}

/// Returns a queue and two worker types, independent of the order of the types.
fn between<'a>(one: &'a str, other: &'a str, queue: &'a str) -> (&'a str, &'a str, &'a str) {
    (one.min(other), one.max(other), queue)
}

/// Returns why two worker types can't share a queue; `None` if they can.
fn conflict(one: &Reader<'_>, other: &Reader<'_>, queue: &str) -> Option<String> {
    let said = if one.key == "job_queue" && other.key == "job_queue" {
        format!("both have job_queue = {queue:?}")
    } else {
        format!("both read {queue:?} ({}, {})", one.key, other.key)
    };
    let both = format!("worker_types.{} and worker_types.{} {said}", one.name, other.name);
    let group = one.settings.group(one.name);
    if one.settings.queue_kind() != other.settings.queue_kind() {
        let [kind, other_kind] = [one, other].map(|reader| reader.settings.queue_kind().name());
        let problem =
            format!("one as a {kind} and one as a {other_kind}; give both the same kind, or one another {}", one.key);
        Some(format!("{both}, {problem}"))
    } else if one.settings.queue_kind().delivery() == Delivery::Removal {
        let kind = one.settings.queue_kind().name();
        Some(format!("{both}, and a {kind} has no groups to tell them apart; give one another {}", one.key))
    } else if group == other.settings.group(other.name) {
        Some(format!("{both} and group = {group:?}; give one another {} or group", one.key))
    } else {
        None
    }
}
