//! Determines which stream a job type goes to. Pure: knows the configured worker types and does no I/O.

use std::collections::BTreeMap;

use crate::{
    config::{QueueKind, Settings},
    model::{Queues, keys},
};

/// Variable that names another stream for job types without a worker type of their own.
const DEFAULT_STREAM_VARIABLE: &str = "JOB_STREAM";

/// Why a job type can't be published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RoutingError {
    /// The worker type's queue is of a kind whose format its users define.
    #[error(
        "worker type `{worker_type}` has `kind = \"{kind}\"`: push to the {kind} `{queue}` in the form its workers expect"
    )]
    Foreign {
        /// Worker type of the queue.
        worker_type: String,
        /// Key of the queue.
        queue: String,
        /// Kind of the queue.
        kind: &'static str,
    },
}

/// The table of worker types and their queues.
#[derive(Clone, Debug)]
pub struct Routes {
    queues: BTreeMap<String, (Queues, QueueKind)>,
    default_stream: String,
}

impl Routes {
    /// Returns the routes of `settings`. Other job types go to the stream that `SWARM_JOB_STREAM` or `JOB_STREAM`
    /// names, else to `jobs`.
    pub fn from_env(settings: &Settings) -> Self {
        let variables = [format!("SWARM_{DEFAULT_STREAM_VARIABLE}"), DEFAULT_STREAM_VARIABLE.to_owned()];
        let named = variables.iter().find_map(|name| std::env::var(name).ok().filter(|named| !named.is_empty()));
        Self::new(settings, named.unwrap_or_else(|| keys::DEFAULT_STREAM.to_owned()))
    }

    /// Returns the routes of `settings`. Other job types go to `default_stream`.
    pub fn new(settings: &Settings, default_stream: String) -> Self {
        let queues =
            settings.worker_types.iter().map(|(name, of)| (name.clone(), (of.queues(name), of.kind))).collect();
        Self { queues, default_stream }
    }

    /// Returns the stream of job types that no configured worker type does.
    pub fn default_stream(&self) -> &str {
        &self.default_stream
    }

    /// Returns the configured worker type that does `job_type`: the longest name that `job_type` continues with a dot.
    pub fn worker_type(&self, job_type: &str) -> Option<&str> {
        let prefixes = job_type.rmatch_indices('.').map(|(dot, _)| &job_type[..dot]);
        prefixes.filter_map(|prefix| self.queues.get_key_value(prefix)).map(|(name, _)| name.as_str()).next()
    }

    /// Returns the configured worker type that would do `job_type` on the stream `queue`: the type for such jobs, if it
    /// reads that stream, else any type that reads it.
    pub fn reader(&self, job_type: &str, queue: &str) -> Option<&str> {
        let reads = |name: &&str| {
            let (queues, kind) = &self.queues[*name];
            kind.is_native() && (queues.named().any(|named| named == queue) || queues.finds(queue))
        };
        self.worker_type(job_type).filter(reads).or_else(|| self.queues.keys().map(String::as_str).find(reads))
    }

    /// Returns the stream that `job_type` goes to unless the publisher names another.
    pub fn stream(&self, job_type: &str) -> Result<&str, RoutingError> {
        let Some(worker_type) = self.worker_type(job_type) else { return Ok(&self.default_stream) };
        let (queues, kind) = &self.queues[worker_type];
        if kind.is_native() {
            return Ok(&queues.own);
        }
        Err(RoutingError::Foreign { worker_type: worker_type.to_owned(), queue: queues.own.clone(), kind: kind.name() })
    }
}

/// Returns the method in `job_type` for a worker of type `worker_type`: what follows the type's name, or the first dot
/// if the job is meant for another type (on a stream shared by several). Empty if it names none.
pub fn method_of<'a>(job_type: &'a str, worker_type: &str) -> &'a str {
    let own = job_type.strip_prefix(worker_type).and_then(|rest| rest.strip_prefix('.'));
    own.or_else(|| job_type.split_once('.').map(|(_, method)| method)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::WorkerTypeSettings;

    fn routes() -> Routes {
        let mut settings = Settings::default();
        let named = |queue: &str| WorkerTypeSettings { job_queue: Some(queue.to_owned()), ..Default::default() };
        settings.worker_types.insert("browser".to_owned(), WorkerTypeSettings::default());
        settings.worker_types.insert("browser.eu".to_owned(), named("eu"));
        settings
            .worker_types
            .insert("old".to_owned(), WorkerTypeSettings { kind: QueueKind::List, ..named("oldlist") });
        Routes::new(&settings, "jobs".to_owned())
    }

    #[test]
    fn the_longest_configured_prefix_wins_and_the_rest_goes_to_the_default() {
        let routes = routes();
        for (job_type, stream) in [
            ("browser.goto", "browser:jobs"),
            ("browser.page.click", "browser:jobs"),
            ("browser.eu.goto", "eu"),
            ("browsers.goto", "jobs"),
            ("browser", "jobs"),
            ("mail.send", "jobs"),
            ("", "jobs"),
        ] {
            assert_eq!(routes.stream(job_type).unwrap(), stream, "{job_type}");
        }
        assert!(routes.stream("old.run").unwrap_err().to_string().contains("oldlist"));
    }

    #[test]
    fn who_reads_a_queue_is_who_does_its_jobs() {
        let mut settings = Settings::default();
        let also = |queues: &[&str]| WorkerTypeSettings {
            extra_queues: queues.iter().map(|queue| (*queue).to_owned()).collect(),
            group: Some("everyone".to_owned()),
            ..Default::default()
        };
        settings.worker_types.insert("browser".to_owned(), also(&["urgent", "tenant-*:jobs"]));
        settings.worker_types.insert("all".to_owned(), also(&["urgent"]));
        settings.worker_types.insert("old".to_owned(), WorkerTypeSettings { kind: QueueKind::List, ..also(&["list"]) });
        let routes = Routes::new(&settings, "jobs".to_owned());
        for (job_type, queue, reader) in [
            ("browser.goto", "browser:jobs", Some("browser")),
            ("browser.goto", "urgent", Some("browser")),
            ("mail.send", "urgent", Some("all")),
            ("mail.send", "tenant-a:jobs", Some("browser")),
            ("browser.goto", "tenant-a:jobs:dead", None),
            ("browser.goto", "all:jobs", Some("all")),
            ("old.run", "list", None),
        ] {
            assert_eq!(routes.reader(job_type, queue), reader, "{job_type} on {queue}");
        }
        assert_eq!(routes.stream("browser.goto").unwrap(), "browser:jobs");
    }

    #[test]
    fn methods() {
        assert_eq!(method_of("browser.goto", "browser"), "goto");
        assert_eq!(method_of("browser.eu.goto", "browser.eu"), "goto");
        assert_eq!(method_of("mail.send", "any"), "send");
        assert_eq!(method_of("browser", "browser"), "");
    }
}
